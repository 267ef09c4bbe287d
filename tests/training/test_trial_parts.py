"""Modules and rewards of one's own are tried before a run begins."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import adaptiveisp
from adaptiveisp import register_module, register_reward
from adaptiveisp.errors import UsageError
from adaptiveisp.isp import registry
from adaptiveisp.training.config import make_settings
from adaptiveisp.training.methods.registry import METHODS
from adaptiveisp.training.rl.rewards import REWARDS, RewardInputs, reward_terms
from adaptiveisp.training.trial_parts import check_modules, check_reward, own_modules
from tests.isp.test_trial import LIFT
from tests.support.fake_detector import RedDetector
from tests.training.test_runs import FAST, photos


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for one in (registry._REGISTERED, REWARDS, METHODS):
        monkeypatch.setattr(one, "_values", dict(one._values))
    yield


REWARDS_OF_NO_USE: dict[str, tuple[Callable[[RewardInputs], Any], str]] = {
    "detached": (lambda outcome: {"loss": -outcome.loss_after.detach()}, "has no gradient for loss_after or image"),
    "of the cost": (lambda outcome: {"cost": -outcome.cost_ms}, "from which the parameters of sequence learn"),
    "not finite": (
        lambda outcome: {"each": -outcome.loss_after / outcome.n_modules},
        "its term each is -inf for loss_after 1, cost_ms 0, n_modules 0; correct the reward",
    ),
    "fails": (
        lambda outcome: {"gain": outcome.loss_before - outcome.loss_after},
        r"fails on a trial batch in which loss_before is None \(TypeError",
    ),
}


@pytest.mark.parametrize("kind", REWARDS_OF_NO_USE)
def test_a_reward_of_no_use_is_refused(kind: str) -> None:
    function, message = REWARDS_OF_NO_USE[kind]
    register_reward("mine", function)
    settings = make_settings("sequence", "", {"reward": "mine"}, "test")
    with pytest.raises(UsageError, match=f"^reward mine: .*{message}"):
        check_reward("sequence", settings, "cpu")
    sampled = make_settings("sequence", "sampled", {"reward": "mine"}, "test")
    if "learn" in message or "gradient" in message:
        check_reward("sequence", sampled, "cpu")


def test_rewards_that_can_be_learned_from_pass() -> None:
    register_reward("relative", lambda outcome: {"loss": -outcome.loss_after, "cost": -outcome.cost_ms})
    register_reward("gain", lambda outcome: {"gain": outcome.loss_before - outcome.loss_after})
    for method in ("sequence", "actor_critic"):
        check_reward(method, make_settings(method, "", {"reward": "relative"}, "test"), "cpu")
    check_reward("actor_critic", make_settings("actor_critic", "paper", {"reward": "gain"}, "test"), "cpu")
    with pytest.raises(UsageError, match="loss_before is None"):
        check_reward("actor_critic", make_settings("actor_critic", "cpu", {"reward": "gain"}, "test"), "cpu")
    check_reward("fixed", make_settings("fixed", "", {}, "test"), "cpu")


def test_a_reward_is_not_blamed_for_the_loss_of_a_detector() -> None:
    register_reward("mine", lambda outcome: {"loss": -outcome.loss_after})
    zeros = torch.zeros(1)
    outcome = RewardInputs(torch.full((1,), torch.nan), None, zeros, zeros, torch.zeros(1, 3, 2, 2))
    assert bool(reward_terms("mine", outcome)["loss"].isnan())


def test_the_modules_of_a_run_are_tried() -> None:
    broken = replace(LIFT, name="broken", function=lambda image, params: image.detach())
    register_module(LIFT)
    register_module(broken)
    for method in ("sequence", "actor_critic", "fixed", "cma_es", "random_search"):
        settings = make_settings(method, "", {}, "test", more_modules=["lift", "broken"])
        assert own_modules(settings) == [LIFT, broken]
        if method in ("cma_es", "random_search"):
            check_modules(method, settings, "cpu")
            continue
        with pytest.raises(UsageError, match="module broken: its result has no gradient"):
            check_modules(method, settings, "cpu")


def test_a_run_with_a_faulty_part_makes_no_folder(tmp_path: Path) -> None:
    register_module(replace(LIFT, name="broken", function=lambda image, params: image / 0))
    with pytest.raises(UsageError, match="module broken: its result is not finite"):
        settings = FAST | {"modules": ["exposure", "broken"], "expert_modules": ["exposure"]}
        adaptiveisp.train(photos(tmp_path), settings, out=tmp_path / "run", detector=RedDetector())
    assert not (tmp_path / "run").exists()

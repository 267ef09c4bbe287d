"""Methods and rewards of one's own: registered, named on the command line, and refused where they do not fit."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import adaptiveisp
from adaptiveisp.errors import UsageError
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.registry import METHODS, find_method
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.rl.rewards import REWARDS, RewardInputs, reward_terms
from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, metrics, train_arguments
from tests.support.training_runs import adaptiveisp as command
from tests.training.methods import test_actor_critic, test_sequence
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

OWN_CODE = """
from dataclasses import replace

from adaptiveisp.training.methods.fixed import RAW, Fixed, FixedConfig
from adaptiveisp.training.methods.learner import Method

doubled = Method(FixedConfig, {"quick": replace(RAW, modules=("exposure",), initial={}, batch=4)}, Fixed)

def brightness(inputs):
    return {"light": 50 * inputs.image.mean(dim=(1, 2, 3)), "loss": -inputs.loss_after}
"""


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet_place: None) -> str:
    """The name of a file of one's own in the current folder; what it registers is forgotten afterwards."""
    labelled_photos(tmp_path)
    (tmp_path / "my_training.py").write_text(OWN_CODE)
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    monkeypatch.setattr(REWARDS, "_values", dict(REWARDS._values))
    monkeypatch.delitem(sys.modules, "my_training", raising=False)
    return "my_training"


def test_a_method_of_ones_own_is_trained_stored_by_name_and_resumed(
    own_code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*train_arguments("run", 8, ()), "--method", f"{own_code}:doubled"]
    assert command(*arguments) == 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["method"] == "doubled"
    METHODS._values.pop("doubled")  # a new process
    resume = ["train", "--resume", "run", "--detector", RED, "-q"]
    assert command(*resume) == 2
    assert "--method my_pkg.my_file:name" in capsys.readouterr().err
    assert command(*resume, "--method", f"{own_code}:doubled") == 0
    assert command(*resume, "--method", "fixed") == 2
    assert command(*train_arguments("other", 8, ()), "--method", f"{own_code}:brightness") == 2
    assert "give a Method" in capsys.readouterr().err


def test_a_reward_of_ones_own(own_code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sequence = ("size=64", "batch=4", "expert_modules=[]", "imitation_warmup=0", "horizon=2")
    arguments = [*train_arguments("run", 8, sequence), "--method", "sequence", "--reward", f"{own_code}:brightness"]
    assert command(*arguments) == 0
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert set(line["reward"]) == {"light", "loss"} and line["reward"]["loss"] == pytest.approx(-line["detector_loss"])
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["settings"]["reward"] == "brightness"
    assert command(*train_arguments("other", 8, ()), "--method", "fixed", "--reward", "brightness") == 2
    assert "reward" in capsys.readouterr().err
    assert command(*train_arguments("other", 8, ()), "--reward", "missing") == 2
    assert "--reward my_pkg.my_file:name" in capsys.readouterr().err


def light(inputs: RewardInputs) -> Mapping[str, Tensor]:
    """The reward of a picture as bright as can be."""
    return {"light": inputs.image.mean(dim=(1, 2, 3))}


@pytest.mark.parametrize("kind", ["sequence", "actor_critic"])
def test_the_default_reward_written_by_hand_teaches_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers as the built-in reward without penalties: the losses of an iteration are equal."""
    monkeypatch.setattr(REWARDS, "_values", dict(REWARDS._values))

    def by_hand(inputs: RewardInputs) -> Mapping[str, Tensor]:
        before = 0 if inputs.loss_before is None else inputs.loss_before
        return {"detection": 100 * (before - inputs.loss_after)}

    adaptiveisp.register_reward("by_hand", by_hand)
    losses = []
    for reward in ("default", "by_hand"):
        if kind == "sequence":
            config: Any = replace(test_sequence.SMALL, reward=reward, brightness_weight=0.0)
            learner: Any = SequenceLearner(config, GreyStream(), WantsLight(), 100, 0)
        else:
            config = replace(test_actor_critic.SMALL, reward=reward, loss_limit=None)
            learner = ActorCritic(config, GreyStream(), WantsLight(), 100, 0)
        losses.append([learner.iterate()[0]["loss"] for _ in range(2)])
    assert losses[0] == losses[1]


def test_rewards_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REWARDS, "_values", dict(REWARDS._values))
    ones = torch.ones(2)
    inputs = RewardInputs(ones, None, ones, ones, torch.ones(2, 3, 4, 4))
    returned: Any
    for name, returned, message in (
        ("text", "much", "returned str"),
        ("empty", {}, "returned dict"),
        ("total", {"sum": torch.ones(())}, r"the term sum is a tensor of shape \(\)"),
        ("number", {"sum": 1.0}, "the term sum is float"),
    ):
        adaptiveisp.register_reward(name, lambda _, returned=returned: returned)
        with pytest.raises(UsageError, match=message):
            reward_terms(name, inputs)
    adaptiveisp.register_reward("light", light)
    assert reward_terms("light", inputs)["light"].tolist() == [1.0, 1.0]
    with pytest.raises(UsageError, match="registered already"):
        adaptiveisp.register_reward("light", dict)
    with pytest.raises(UsageError, match="give a function"):
        REWARDS.register("other", 3)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Nothing:
    size: int = 64
    batch: int = 1


def test_methods_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="has no presets"):
        adaptiveisp.register_method("empty", adaptiveisp.Method(Nothing, {}, SequenceLearner))
    with pytest.raises(UsageError, match="give a Method"):
        METHODS.register("other", Nothing)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="registered already"):
        adaptiveisp.register_method("fixed", adaptiveisp.Method(Nothing, {"a": Nothing()}, SequenceLearner))
    with pytest.raises(UsageError, match="is not registered; choose one of actor_critic, sequence, fixed"):
        find_method("magic")


@pytest.mark.parametrize(
    "part", ["train: {method: 'my_training:doubled'}", "settings: {reward: 'my_training:brightness'}"]
)
def test_files_name_no_methods_and_rewards_as_code(
    part: str, own_code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(part)
    assert command("train", "--config", "recipe.yaml", "--data", "labels.json", "--out", "run", "--detector", RED) == 2
    assert "is not registered" in capsys.readouterr().err and own_code not in sys.modules


def test_the_method_of_the_documentation_learns_and_resumes(own_code: str, tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "methods" / "fixed.md").read_text()
    (tmp_path / "my_method.py").write_text(page.split("```python\n")[1].split("```")[0])
    method = ("--method", "my_method:trial")
    whole, cut = (train_arguments(out, budget, ()) for out, budget in (("whole", 16), ("cut", 8)))
    assert command(*whole, *method) == 0 and command(*cut, *method) == 0
    config = tmp_path / "cut" / "config.yaml"
    config.write_text(config.read_text().replace("budget: 8", "budget: 16"))
    METHODS._values.pop("trial")  # a new process
    sys.modules.pop("my_method")
    assert command("train", "--resume", "cut", *method, "--detector", RED, "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole") and len(metrics(tmp_path / "whole")) == 4
    losses = [line["detector_loss"] for line in metrics(tmp_path / "whole")]
    best = json.loads((tmp_path / "whole" / "latest.json").read_text())["stages"]
    assert [stage["module"] for stage in best] == ["exposure"] and len(set(losses)) == 4

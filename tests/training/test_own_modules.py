"""Modules of one's own in training: they join what a policy chooses from and imitates, and are tried before a run."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from torch import Tensor

from adaptiveisp import IspModule, Param, register_module
from adaptiveisp.errors import UsageError
from adaptiveisp.isp import registry
from adaptiveisp.training.config import make_settings
from adaptiveisp.training.methods.sequence.settings import PRESETS


def lifted(image: Tensor, params: Tensor) -> Tensor:
    return image + params[:, :, None, None]


LIFT = IspModule("lift", "L", (Param("by", -0.5, 0.5, "", 0.0),), lifted, 1.0)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry._REGISTERED, "_values", {})
    register_module(LIFT)
    yield


def test_a_module_of_ones_own_joins_the_expert_modules_of_a_preset() -> None:
    settings = make_settings("sequence", "", {}, "train", more_modules=["lift"])
    assert settings.expert_modules == (*PRESETS["adaptive"].expert_modules, "lift") and settings.horizon == 9
    assert settings.modules[-1] == "lift"
    short = make_settings("sequence", "fast", {}, "train", more_modules=["lift"])
    assert short.expert_modules == ("local_tone", "denoise", "lift") and short.horizon == 3
    later = make_settings("sequence", "fewer", {}, "train", more_modules=["lift"])
    assert later.expert_modules == () and later.horizon == 9
    steps = make_settings("actor_critic", "", {}, "train", more_modules=["lift"])
    assert steps.expert_modules[-1] == "lift" and (steps.horizon, steps.rollout) == (8, 8)
    register_module(replace(LIFT, name="lift_again"))
    longer = make_settings("actor_critic", "", {}, "train", more_modules=["lift", "lift_again"])
    assert (len(longer.expert_modules), longer.horizon, longer.rollout) == (9, 9, 9)
    assert make_settings("sequence", "", {}, "train") == PRESETS["adaptive"]


@pytest.mark.parametrize("name", ["expert_modules", "demonstrated"])
def test_expert_modules_that_the_user_gives_stay(name: str) -> None:
    settings = make_settings("sequence", "", {name: ["denoise"]}, "train", more_modules=["lift"])
    assert settings.expert_modules == ("denoise",) and "lift" in settings.modules
    with pytest.raises(UsageError, match="expert_modules names lift, which modules lacks; give --module lift or add"):
        make_settings("sequence", "", {name: ["lift"]}, "train")


@pytest.mark.parametrize("method", ["fixed", "cma_es", "random_search"])
def test_initial_values_of_a_preset_are_left_out_for_modules_that_do_not_run(method: str) -> None:
    settings = make_settings(method, "", {"modules": ["exposure", "lift"]}, "train")
    assert dict(settings.initial) == {"exposure": {"ev": 4.0}}
    with pytest.raises(UsageError, match="initial: 'denoise' is not one of the modules exposure, lift"):
        make_settings(method, "", {"modules": ["exposure", "lift"], "initial": {"denoise": {"h": 0.1}}}, "train")
    given = {"modules": ["exposure"], "initial": {}}
    assert make_settings(method, "", given, "train").initial == {}


def test_the_form_of_a_list_is_shown() -> None:
    form = r"'a,b' does not fit; give a list, .* --set 'modules=\[a, b\]'"
    for more in ((), ("lift",)):
        with pytest.raises(UsageError, match=form):
            make_settings("sequence", "", {"modules": "a,b"}, "train", more_modules=more)


def test_a_method_without_a_reward_says_so() -> None:
    with pytest.raises(UsageError, match="train: fixed has no reward"):
        make_settings("fixed", "", {"reward": "default"}, "train")

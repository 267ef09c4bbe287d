"""Modules of one's own in training: they join what a policy chooses from and imitates, and are tried before a run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

import adaptiveisp
from adaptiveisp import IspModule, Param, register_module
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import UsageError
from adaptiveisp.isp import registry
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.training.config import make_settings
from adaptiveisp.training.methods.sequence.settings import PRESETS
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import PHOTOS, RED
from tests.training.test_runs import photos


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


def test_modules_of_ones_own_from_python(tmp_path: Path) -> None:
    fade = IspModule("fade", "F", (Param("by", 0.5, 1.0, "", 1.0),), lambda image, p: image * p[:, :, None, None], 1.0)
    quick = {"batch": 4, "size": 64, "modules": ["exposure"], "expert_modules": ["exposure"], "horizon": 3}
    summary = adaptiveisp.train(
        photos(tmp_path), quick, out=tmp_path / "run", detector=RedDetector(), modules=["lift", fade]
    )
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["settings"]
    assert stored["modules"] == ["exposure", "lift", "fade"] and stored["expert_modules"] == ["exposure"]
    assert set(summary.unused_modules) <= {"lift", "fade"}
    instance = replace(make_settings("fixed", "", {}, "test"), modules=("exposure",), initial={}, batch=4, size=64)
    config = replace(photos(tmp_path / "fixed"), method="fixed")
    summary = adaptiveisp.train(config, instance, out=tmp_path / "second", detector=RedDetector(), modules=[fade])
    stages = json.loads((tmp_path / "second" / "latest.json").read_text())["stages"]
    assert [stage["module"] for stage in stages] == ["exposure", "fade"] and summary.unused_modules == ()
    with pytest.raises(UsageError, match="modules: give a list"):
        adaptiveisp.train(config, instance, out=tmp_path / "third", detector=RedDetector(), modules="lift")
    with pytest.raises(UsageError, match="module 'lower' is not registered"):
        adaptiveisp.train(config, instance, out=tmp_path / "third", detector=RedDetector(), modules=["lower"])


def test_code_in_a_config_is_referred_to_the_argument(tmp_path: Path) -> None:
    config = photos(tmp_path, detector="my_pkg.my_file:load")
    with pytest.raises(UsageError, match=r"a config may not name code, .*; give train\(…, detector='my_pkg\.my_f"):
        adaptiveisp.train(config, {}, out=tmp_path / "run")


@pytest.mark.long
def test_the_command_says_which_module_the_policy_does_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With and without a dev set, and after the run was resumed."""
    labelled_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = ("--set=batch=4", "--budget", "8", "--set=modules=[exposure]", "--set=expert_modules=[exposure]")
    how = ("--set=imitation_warmup=1", "--set=sequence_rate=0.1", "--set=averaging=0", "--set=sequence_averaging=0")
    arguments = ("train", *PHOTOS, "--method", "sequence", "--module", "lift", *quick, *how)
    dev = ("--dev", "labels.json", "--dev-size", "64")
    assert main([*arguments, "--out", "alone"]) == 0
    assert "the policy does not use lift: it is in no pipeline of the training images" in capsys.readouterr().out
    assert main([*arguments, *dev, "--out", "scored"]) == 0
    found = capsys.readouterr()
    assert "the policy does not use lift: it is in no pipeline of the dev images" in found.out
    assert "TensorBoard" not in found.err
    assert main(["train", "--resume", "scored", "--detector", RED]) == 0
    assert "the policy does not use lift: it is in no pipeline of the dev images" in capsys.readouterr().out


def test_a_step_wise_policy_uses_a_module_of_ones_own(tmp_path: Path) -> None:
    config = replace(photos(tmp_path), method="actor_critic")
    quick = {"batch": 4, "size": 64, "modules": ["exposure"], "replay_size": 8}
    own_alone = {"horizon": 1, "rollout": 1, "candidates": "samples", "group_size": 1, "imitation_warmup": 0.0}
    adaptiveisp.train(config, quick | own_alone, out=tmp_path / "run", detector=RedDetector(), modules=["lift"])
    policy = load_policy(str(tmp_path / "run"))
    assert LIFT in policy.modules  # type: ignore[attr-defined]
    (pipeline,) = policy.plan(torch.rand(1, 3, 64, 64))
    assert {stage.module for stage in pipeline.stages} & {"lift", "exposure"}

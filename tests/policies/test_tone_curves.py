"""Static tone curves: what they run, that auto-exposure comes first, and that a pipeline file gives the same image."""

from pathlib import Path

import pytest
import torch

from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Developed
from adaptiveisp.policies.fixed import FixedPipeline, load_fixed, save_fixed
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.policies.tone_curves import TONE_CURVES, ExposedCurve
from tests.raw.test_unprocess import smooth_photo

MODULES = {
    "reinhard": ["reinhard"],
    "log-curve": ["log_tone"],
    "gamma-curve": ["gamma"],
    "clahe": ["srgb", "clahe"],
}


def test_the_registry_knows_them_and_they_are_static() -> None:
    assert [policy.name for policy in TONE_CURVES] == list(MODULES)
    assert all(load_policy(name).is_static and load_policy(name).name == name for name in MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_white_balance_and_exposure_are_those_of_auto_exposure(name: str) -> None:
    image = torch.stack([smooth_photo() * 0.3, smooth_photo() * 0.004])
    policy = load_policy(name)
    plans = policy.plan(image)
    for plan, reference in zip(plans, AutoExposure().plan(image), strict=True):
        assert plan.stages[:2] == reference.stages[:2]
        assert [stage.module for stage in plan.stages[2:]] == MODULES[name]
    assert plans[0].stages[2:] == plans[1].stages[2:] and plans[0].stages[1] != plans[1].stages[1]
    assert policy.settable == ("white_balance", "exposure", *MODULES[name])
    (first, _) = policy.plan_with(image, [MODULES[name][-1], "exposure"])
    assert first.stages == (plans[0].stages[-1], plans[0].stages[1])


def test_the_curves_by_hand() -> None:
    """A grey image of 0.1 is exposed to 0.18 before each curve."""
    grey = torch.full((1, 3, 64, 64), 0.1)
    stages = (("reinhard", {"white": 4.0}), ("log_tone", {"strength": 15.0}), ("gamma", {"gamma": 0.5}))
    x = 4 * 0.18
    by_hand = [x * (1 + x / 16) / (1 + x), torch.tensor(1 + 15 * 0.18).log2().item() / 4, 0.18**0.5]
    for (module, params), expected in zip(stages, by_hand, strict=True):
        (plan,) = ExposedCurve((Stage(module, params),), "own").plan(grey)
        assert plan.render(grey)[0, 1, 0, 0].item() == pytest.approx(expected, abs=1e-5)
    (plan,) = ExposedCurve((), "darker", target_mean=0.05).plan(grey)
    assert plan.render(grey).mean().item() == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("name", MODULES)
def test_a_pipeline_file_after_auto_gain_gives_the_same_image(name: str, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    image = smooth_photo()[None] * 0.02  # so dark that nothing clips on the way
    policy = load_policy(name)
    (plan,) = policy.plan(image)
    save_fixed(tmp_path / "same.json", FixedPipeline(Pipeline(plan.stages[2:]), "same", "auto-gain"))
    (again,), made = load_fixed(tmp_path / "same.json").process(image)
    assert [stage.module for stage in again.stages] == ["gain", *MODULES[name]]
    step = 1.1 * 40 / 255 if name == "clahe" else 1e-4  # a level that rounds the other way may cross a bin of CLAHE
    assert (made - plan.render(image)).abs().max().item() < step


def test_grey_raws_stay_grey() -> None:
    pytest.importorskip("cv2")
    grey = smooth_photo().mean(dim=0, keepdim=True).expand(3, -1, -1)[None] * 0.05
    for policy in TONE_CURVES:
        rendered = policy.render(Developed(None, grey.contiguous(), (64, 64)))
        assert rendered.left_out == ("white_balance",) and rendered.image.std().item() > 0.01
        torch.testing.assert_close(rendered.image[:, 0], rendered.image[:, 2])

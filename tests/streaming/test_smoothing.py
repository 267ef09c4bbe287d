"""Smoothing in time: values by hand, cuts, and modules that change only when that lasts."""

import math

import pytest
import torch

from adaptiveisp.errors import UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.streaming.smoothing import Smoother, SmoothingConfig, is_cut, luminance_stops

FLAT = torch.full((1, 3, 16, 16), 0.1)


def exposed(ev: float) -> Pipeline:
    return Pipeline((Stage("exposure", {"ev": ev}),))


def ev_of(pipeline: Pipeline) -> float:
    return pipeline.stages[0].params["ev"]


def test_a_step_of_a_parameter_is_followed_exponentially() -> None:
    """In the unbounded space: z = artanh(ev / 10) for a range of ±10 stops."""
    smoother = Smoother(SmoothingConfig(frames=4.0))
    assert ev_of(smoother.update(exposed(1.0), FLAT)) == 1.0
    start, goal = math.atanh(0.1), math.atanh(0.3)
    for n in range(1, 12):
        expected = 10 * math.tanh(goal + (start - goal) * math.exp(-n / 4))
        assert ev_of(smoother.update(exposed(3.0), FLAT)) == pytest.approx(expected, abs=1e-5)


def test_without_smoothing_each_frame_keeps_its_own() -> None:
    smoother = Smoother(SmoothingConfig(frames=0))
    for ev in (0.0, 2.0, -1.0):
        assert ev_of(smoother.update(exposed(ev), FLAT)) == ev


def test_noise_of_parameters_is_reduced_by_the_known_factor() -> None:
    """The variance of white noise falls to a/(2 - a), a = 1 - e^(-1/τ)."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * torch.randn(4000, generator=generator)
    smoother = Smoother(SmoothingConfig(frames=8.0))
    smoothed = torch.tensor([ev_of(smoother.update(exposed(float(ev)), FLAT)) for ev in noise])[100:]
    share = 1 - math.exp(-1 / 8)
    assert smoothed.var() / noise.var() == pytest.approx(share / (2 - share), rel=0.15)


def test_a_cut_is_followed_at_once() -> None:
    smoother = Smoother(SmoothingConfig(frames=8.0))
    smoother.update(exposed(0.0), FLAT)
    assert ev_of(smoother.update(exposed(3.0), FLAT)) < 1.0
    assert ev_of(smoother.update(exposed(3.0), FLAT / 4)) == 3.0 and smoother.cuts == 1


def test_a_small_object_is_no_cut() -> None:
    moved = FLAT.clone()
    moved[:, :, :6, :6] = 0.9
    assert not is_cut(luminance_stops(FLAT), luminance_stops(moved), 0.5)
    assert is_cut(luminance_stops(FLAT), luminance_stops(FLAT * 1.5), 0.5)
    assert not is_cut(luminance_stops(FLAT * 0), luminance_stops(FLAT * 1e-4), 0.5)  # both are dark


def test_modules_change_only_when_that_lasts() -> None:
    smoother = Smoother(SmoothingConfig(frames=4.0, persist=3))
    other = Pipeline((Stage("gamma", {"gamma": 0.5}),))
    smoother.update(exposed(1.0), FLAT)
    for chosen in (other, other, exposed(1.0), other, other):
        assert smoother.update(chosen, FLAT).stages[0].module == "exposure"
    assert smoother.update(other, FLAT) == other


def test_modules_without_parameters_are_kept() -> None:
    smoother = Smoother(SmoothingConfig(frames=4.0))
    chain = Pipeline((Stage("exposure", {"ev": 1.0}), Stage("srgb", {})))
    smoother.update(chain, FLAT)
    assert [stage.module for stage in smoother.update(chain, FLAT).stages] == ["exposure", "srgb"]


def test_every_module_of_the_package_can_be_smoothed() -> None:
    """At equal pipelines nothing moves, whatever the heads' ranges and inverses are."""
    from adaptiveisp.isp.registry import EXTENDED

    for module in EXTENDED:
        logits = torch.full((1, len(module.params)), 0.3)
        values = module.params_from_logits(logits)[0].tolist() if module.params else []
        names = [param.name for param in module.params]
        chosen = Pipeline((Stage(module.name, dict(zip(names, values, strict=True))),))
        smoother = Smoother(SmoothingConfig(frames=4.0))
        for _ in range(5):
            found = smoother.update(chosen, FLAT)
        for name, value in zip(names, values, strict=True):
            assert found.stages[0].params[name] == pytest.approx(value, rel=2e-3, abs=2e-3), (module.name, name)


@pytest.mark.parametrize("facts", [{"frames": -1.0}, {"frames": math.nan}, {"cut_stops": 0.0}, {"persist": 0}])
def test_settings_out_of_range_are_refused(facts: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        SmoothingConfig(**facts)  # type: ignore[arg-type]


def test_gains_that_no_head_made_are_kept() -> None:
    """Of auto-exposure: the inverse of the head of white balance gives back others."""
    from adaptiveisp.policies.heuristics import AutoExposure

    light = torch.tensor([0.3, 1.0, 0.5])[None, :, None, None]
    image = 0.02 * light * torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    (chosen,) = AutoExposure().plan(image)
    smoother = Smoother(SmoothingConfig())
    for _ in range(3):
        found = smoother.update(chosen, image)
    for ours, theirs in zip(found.stages, chosen.stages, strict=True):
        assert dict(ours.params) == pytest.approx(dict(theirs.params), rel=1e-4)


def test_a_matrix_that_is_not_valid_between_two_is_not_used() -> None:
    names = ("rr", "rg", "rb", "gr", "gg", "gb", "br", "bg", "bb")
    plus = dict.fromkeys(names, 0.0) | {"rr": 1.0, "gg": 1.0, "bb": 1.0}
    minus = plus | {"rr": -1.0}
    smoother = Smoother(SmoothingConfig(frames=1 / math.log(2)))  # half of the way in one frame: a row of zeros
    smoother.update(Pipeline((Stage("ccm", plus),)), FLAT)
    assert dict(smoother.update(Pipeline((Stage("ccm", minus),)), FLAT).stages[0].params) == minus

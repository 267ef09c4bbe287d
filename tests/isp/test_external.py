"""External ISPs: a module that develops the raw itself, in pipelines, policies and full-size pictures."""

import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp import AdaptiveISP, Param, Pipeline, RawImage, Stage, load_policy, register_module
from adaptiveisp.errors import PipelineError, UsageError
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp import registry
from adaptiveisp.isp.external import RawFrame, module_of, picture_of
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.isp.trial import check_module
from tests.support.external_isp import SIMPLE, SimpleISP
from tests.support.fake_detector import RedDetector

GAIN = Stage("simple", {"gain": 2.0, "red": 1.5})


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleISP]:
    monkeypatch.setattr(registry._REGISTERED, "_values", dict(registry._REGISTERED._values))
    register_module(SIMPLE)
    SIMPLE.calls.clear()
    yield SIMPLE


def cells(height: int = 48, width: int = 64, **changes: Any) -> tuple[RawImage, np.ndarray]:
    """A mosaic without noise, and the linear RGB of each of its pixels by hand, in [0, 1]."""
    small = np.random.default_rng(3).uniform(0, 0.2, (height // 2, width // 2, 3))
    codes = np.zeros((height, width))
    codes[::2, ::2], codes[1::2, 1::2] = small[..., 0], small[..., 2]
    codes[::2, 1::2] = codes[1::2, ::2] = small[..., 1]
    rounded = (codes * 4000).round()
    exact = np.stack([rounded[::2, ::2], rounded[::2, 1::2], rounded[1::2, 1::2]], axis=2) / 4000
    raw = RawImage((rounded + 95).astype(np.uint16), "RGGB", 95.0, 4095.0, **changes)
    return raw, exact.repeat(2, axis=0).repeat(2, axis=1)


def test_a_policy_renders_the_raw_itself_at_both_sizes(simple: SimpleISP) -> None:
    raw, linear = cells()
    isp = AdaptiveISP(load_policy("none"), RedDetector(), size=64)
    isp.policy = replace(isp.policy, pipeline=Pipeline((GAIN, Stage("exposure", {"ev": 1.0}))))
    result = isp(raw)
    expected = (linear * 2 * 2 * (1.5, 1, 1)).clip(0, 1).transpose(2, 0, 1)
    np.testing.assert_allclose(result.image.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(isp.render_full(result).numpy(), expected, atol=1e-5)
    assert simple.calls[0][0] is raw and simple.calls[0][1] == {"gain": 2.0, "red": 1.5}
    assert result.pipeline is not None and result.pipeline.to_json()["stages"][0] == {
        "module": "simple",
        "params": {"gain": 2.0, "red": 1.5},
    }
    # At half the size it is reduced before the next stage, whose clip changes the red that is burnt.
    small = AdaptiveISP(isp.policy, RedDetector(), size=32)(raw).image
    assert small.shape == (3, 24, 32)
    assert float((small.mean(dim=(1, 2)) - torch.from_numpy(expected).mean(dim=(1, 2)))[1:].abs().max()) < 0.001


def test_stages_before_it_have_no_effect(simple: SimpleISP) -> None:
    raw, _ = cells()
    image = torch.rand(1, 3, 48, 64)
    both = (Pipeline((Stage("gamma", {"gamma": 0.5}), GAIN)), Pipeline((GAIN,)))
    one, other = (bound_to(pipeline, RawFrame(raw)).render(image) for pipeline in both)
    assert torch.equal(one, other)


def test_without_a_raw_it_is_refused(simple: SimpleISP) -> None:
    with pytest.raises(PipelineError, match=r"simple develops the raw itself .* give the raw to a policy"):
        Pipeline((GAIN,)).render(torch.rand(1, 3, 8, 8))
    raw, _ = cells()
    developed = replace(develop_at_size(raw, 64), raw=None)
    with pytest.raises(UsageError, match="needs the raw itself"):
        replace(load_policy("none"), pipeline=Pipeline((GAIN,))).render(developed)


def test_a_bound_pipeline_pickles_and_other_pipelines_are_not_bound(simple: SimpleISP) -> None:
    raw, _ = cells()
    pipeline = bound_to(Pipeline((GAIN,)), RawFrame(raw))
    image = torch.rand(1, 3, 48, 64)
    assert torch.equal(pickle.loads(pickle.dumps(pipeline)).render(image), pipeline.render(image))
    plain = Pipeline((Stage("gamma", {"gamma": 0.5}),))
    assert bound_to(plain, RawFrame(raw)) is plain


def test_a_pipeline_file_names_it(simple: SimpleISP, tmp_path: Path) -> None:
    path = tmp_path / "simple.json"
    path.write_text(json.dumps({"version": 1, "stages": [{"module": "simple", "params": dict(GAIN.params)}]}))
    policy = load_policy(str(path))
    assert policy.needs_raw and not load_policy("night").needs_raw and load_policy("camera").needs_raw
    raw, linear = cells()
    rendered = policy.render(develop_at_size(raw, 64))
    np.testing.assert_allclose(rendered.image[0, 1].numpy(), linear[..., 1] * 2, atol=1e-5)


class Faulty(SimpleISP):
    name = "faulty"

    def __init__(self, made: Any):
        super().__init__()
        self.made = made

    def render(self, raw: Any, params: Any) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (np.zeros((48, 63, 3)), "returned 63x48 pixels for a raw of 64x48 upright"),
        (np.zeros((48, 64, 4)), r"shape \(48, 64, 4\); return \(height, width, 3\)"),
        (np.full((48, 64, 3), np.nan), "not finite"),
        (np.full((48, 64, 3), 100.0), "clipped to white; return floats in"),
        (np.zeros((48, 64, 3), np.int64), "returned int64"),
        ("picture", "returned str"),
        (ValueError("no licence"), "ValueError: no licence"),
    ],
)
def test_a_wrong_picture_is_refused_in_one_line(made: Any, message: str) -> None:
    raw, _ = cells()
    with pytest.raises(PipelineError, match=message) as caught:
        picture_of(module_of(Faulty(made)), raw, [1.0, 1.0])
    assert "\n" not in str(caught.value)


def test_pictures_of_every_type_have_the_same_values() -> None:
    raw, _ = cells()
    grey = np.random.default_rng(0).integers(0, 256, (48, 64)).astype(np.uint8)
    made: list[Any] = [grey, grey[..., None], np.stack([grey] * 3, axis=2), grey.astype(np.uint16) * 257, grey / 255]
    pictures = [picture_of(module_of(Faulty(one)), raw, [1.0, 1.0]) for one in made]
    assert all(torch.allclose(one, pictures[0], atol=1e-6) for one in pictures)
    assert pictures[0].shape == (3, 48, 64)


def test_an_upright_picture_is_expected_of_a_turned_raw() -> None:
    raw, _ = cells(orientation=6)
    assert picture_of(module_of(Faulty(np.zeros((64, 48, 3)))), raw, [1.0, 1.0]).shape == (3, 64, 48)
    with pytest.raises(PipelineError, match="48x64 upright"):
        picture_of(module_of(Faulty(np.zeros((48, 64, 3)))), raw, [1.0, 1.0])


def test_the_trial_before_a_run_tells_what_is_wrong(simple: SimpleISP) -> None:
    module = module_of(SIMPLE)
    check_module(module, gradients=False)
    with pytest.raises(UsageError, match="no gradient; choose a method that needs none"):
        check_module(module)
    with pytest.raises(UsageError, match="trial raw of 64x64"):
        check_module(module_of(Faulty(RuntimeError("broken"))), gradients=False)


def test_registering(simple: SimpleISP) -> None:
    assert register_module(SIMPLE) is module_of(SIMPLE)
    with pytest.raises(UsageError, match="registered already"):
        register_module(SimpleISP())
    other = SimpleISP()
    other.name = "gamma"
    with pytest.raises(UsageError, match="the package has a module 'gamma'"):
        register_module(other)
    other = SimpleISP()
    other.name, other.params = "twice", (Param("a", 0, 1, "", 0), Param("a", 0, 1, "", 0))
    with pytest.raises(UsageError, match="same name"):
        register_module(other)
    with pytest.raises(UsageError, match="or give an ISP with name, params and render"):
        registry._checked("here", 3)

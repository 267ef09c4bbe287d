import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.execution import run
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import MODULE_SETS, find_module


def test_renders_the_stages_in_order() -> None:
    image = torch.full((2, 3, 4, 4), 0.25)
    pipeline = Pipeline((Stage("exposure", {"ev": 1.0}), Stage("gamma", {"gamma": 2.0})))
    torch.testing.assert_close(pipeline.render(image), torch.full((2, 3, 4, 4), 0.25))
    backwards = Pipeline(tuple(reversed(pipeline.stages)))
    torch.testing.assert_close(backwards.render(image), torch.full((2, 3, 4, 4), 0.125))
    assert pipeline.cost_ms == pytest.approx(3.7)


def test_the_empty_pipeline_returns_the_image_itself() -> None:
    image = torch.rand(1, 3, 4, 4)
    assert Pipeline(()).render(image) is image


@pytest.mark.parametrize("batch", [1, 2])
def test_a_result_never_shares_the_memory_of_the_image(batch: int) -> None:
    """Also where a module, such as one from outside the package, returns its input as it is."""
    image = torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    kept = image.clone()
    same = IspModule("same", "SM", (), lambda image, params: image, 1.0, clips=False)
    found = run(image, [(same, [])])
    found.zero_()
    torch.testing.assert_close(image, kept, rtol=0, atol=0)
    brighter = run(image, [(find_module("exposure", "wide"), [1.0])])
    torch.testing.assert_close(brighter, (2 * image).clamp(0, 1))
    brighter.zero_()
    torch.testing.assert_close(image, kept, rtol=0, atol=0)


def test_only_the_named_modules_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("denoise ran")

    monkeypatch.setattr("adaptiveisp.isp.modules.denoise.NonLocalMeans.apply", fail)
    monkeypatch.setattr("adaptiveisp.kernels.autograd.NonLocalMeans.apply", fail)
    Pipeline((Stage("exposure", {"ev": 1.0}),)).render(torch.rand(1, 3, 8, 8))
    with pytest.raises(AssertionError, match="denoise ran"):
        Pipeline((Stage("denoise", {"h": 0.5}),)).render(torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("module_set", MODULE_SETS)
def test_round_trip_through_a_file(module_set: str, tmp_path: Path) -> None:
    stages = tuple(Stage(m.name, {p.name: p.neutral for p in m.params}) for m in MODULE_SETS[module_set])
    pipeline = Pipeline(stages, module_set)
    pipeline.save(tmp_path / "p.json", provenance={"seed": 0})
    assert Pipeline.load(tmp_path / "p.json") == pipeline
    assert json.loads((tmp_path / "p.json").read_text())["provenance"] == {"seed": 0}


def test_the_contract_of_the_file() -> None:
    pipeline = Pipeline.from_json({"version": 1, "stages": [{"module": "exposure", "params": {"ev": 2.5}}]})
    assert pipeline.stages == (Stage("exposure", {"ev": 2.5}),)
    assert pipeline.to_json()["stages"] == [{"module": "exposure", "params": {"ev": 2.5}}]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"module": "sharpness", "params": {}}, "sharpness.*exposure, gamma"),
        ({"module": "exposure", "params": {"ev": 40}}, r"exposure.ev = 40 is out of range.*\[-10, 10\] stops"),
        ({"module": "exposure", "params": {"ev": "2"}}, "not a finite number"),
        ({"module": "exposure", "params": {"ev": True}}, "not a finite number"),
        ({"module": "exposure", "params": {"ev": 10**400}}, "not a finite number"),
        ({"module": "exposure", "params": {"ev": float("nan")}}, "not a JSON number"),
        ({"module": "exposure", "params": {}}, "lacks its parameter 'ev'"),
        ({"module": "exposure", "params": {"ev": 1, "iso": 2}}, "no parameter 'iso'"),
        ({"params": {}}, "stage 1 lacks"),
        ("exposure", "stage 1 lacks"),
    ],
)
def test_bad_stages_are_named_with_their_file(stage: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"version": 1, "stages": [stage]}))
    with pytest.raises(PipelineError, match=message) as caught:
        Pipeline.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2, "stages": []}', '{"version": 1}', '{"version": true, "stages": []}']
)
def test_bad_files_are_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(PipelineError, match=r"bad\.json"):
        Pipeline.load(path)
    with pytest.raises(PipelineError, match="no such file"):
        Pipeline.load(tmp_path / "none.json")


def test_ranges_belong_to_the_set() -> None:
    Pipeline((Stage("exposure", {"ev": 8.0}),), "wide")
    with pytest.raises(PipelineError, match="out of range"):
        Pipeline((Stage("exposure", {"ev": 8.0}),), "paper")


def test_a_pipeline_cannot_be_changed_behind_its_checks() -> None:
    find_module("exposure", "wide").check({"ev": np.float32(1.0)})  # any real number will do
    pipeline = Pipeline((Stage("exposure", {"ev": 1.0}),))
    assert pipeline.stages[0].params == {"ev": 1.0}
    with pytest.raises(TypeError):
        pipeline.stages[0].params["ev"] = 99.0  # type: ignore[index]
    with pytest.raises(PipelineError, match="narrow"):
        Pipeline((), "narrow")


def test_describe_is_for_people() -> None:
    assert Pipeline((Stage("exposure", {"ev": 1.23456}), Stage("srgb", {}))).describe() == ["exposure ev=1.23", "srgb"]

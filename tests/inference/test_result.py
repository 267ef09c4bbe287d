"""What a `Result` is turned into: JSON, COCO results, supervision's detections, files, pictures; and several raws."""

import json
import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp import AdaptiveISP, BayerHeader, Detections, Result, write_dng
from adaptiveisp.errors import AdaptiveISPError, DetectorError, RawFileError, UsageError
from adaptiveisp.inference.result import Timings
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.types import RawImage
from tests.evaluation.test_report import Page
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector


@pytest.fixture(scope="module")
def isp() -> AdaptiveISP:
    return AdaptiveISP("auto-exposure", RedDetector(), size=80)


@pytest.fixture(scope="module")
def result(isp: AdaptiveISP) -> Result:
    """With two boxes that are known to the digit in place of the detector's."""
    boxes = torch.tensor([[40.0, 24, 120, 72], [1.25, 2, 11.25, 22]])
    found = Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([41, 0]))  # a cup and a person
    return replace(isp(red_box_raw()), detections=found)


def test_json_and_coco_by_hand(result: Result) -> None:
    content = json.loads(json.dumps(result.to_json()))
    assert content["boxes"] == [
        {"box": [40, 24, 120, 72], "class": "cup", "score": 0.75},
        {"box": [1.25, 2, 11.25, 22], "class": "person", "score": 0.5},
    ]
    assert (content["width"], content["height"], content["size"]) == (160, 96, 80)
    assert (content["policy"], content["detector"], content["file"]) == ("auto-exposure", "red", "")
    assert [stage["module"] for stage in content["pipeline"]["stages"]][:2] == ["white_balance", "exposure"]
    cup = {"image_id": 7, "category_id": 41, "bbox": [40, 24, 80, 48], "score": 0.75}
    assert result.to_coco(7) == [cup, {"image_id": 7, "category_id": 0, "bbox": [1.25, 2, 10, 20], "score": 0.5}]
    assert result.to_coco(7, {"cup": 47, "chair": 62}) == [{**cup, "category_id": 47}]


def test_the_image_id_of_coco_is_the_number_that_the_file_is_named_by(result: Result) -> None:
    for name, image_id in (("000000000139.dng", 139), ("night-7.dng", 0), ("½.dng", 0)):
        named = replace(result, raw=replace(result.raw, path=Path("there") / name))
        assert {found["image_id"] for found in named.to_coco()} == {image_id}, name
    assert {found["image_id"] for found in result.to_coco()} == {0}, "a frame in memory has no name"


def test_the_times_of_all_parts(result: Result) -> None:
    times = Timings(1.0, 2.0, 4.0, 8.0, 16.0)
    timed = replace(result, timings=times)
    assert timed.milliseconds == 12 and times.total == 31
    assert times.to_json() == {"read": 1, "develop": 2, "policy": 4, "modules": 8, "detector": 16, "total": 31}
    assert min(result.timings.develop, result.timings.modules, result.timings.detector) > 0
    assert timed.to_json()["timings"]["total"] == 31
    assert repr(Timings(1.0, 2.26)) == "Timings(read=1.0, develop=2.3, policy=0.0, modules=0.0, detector=0.0)"


def test_repr_html_and_picture(result: Result) -> None:
    text = repr(replace(result, timings=Timings(develop=40.2)))
    assert re.fullmatch(r"<Result frame: 2 boxes: cup 0.75, person 0.50; white_balance exposure \w*; 40 ms>", text)
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert ": 0 boxes; " in repr(replace(result, detections=nothing))
    evil = replace(result, class_names=("<script>",) * 80)
    html = evil._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and html.count('"data:image/jpeg;base64,') == 2
    stages = result.pipeline.stages if result.pipeline is not None else ()
    ev = stages[1].params["ev"]
    assert f">ev {ev:.3g} stops<".replace("-", "−") in html and ">white_balance<" in html
    picture = result.plot(width=100)
    assert isinstance(picture, Image.Image) and picture.width > 200


def test_html_is_bounded_and_well_formed(result: Result) -> None:
    n = 60
    corners = torch.tensor([[0.0, 0, 10, 10]]).expand(n, 4)
    many = Detections(corners, torch.linspace(0.9, 0.3, n), torch.zeros(n, dtype=torch.long))
    stage = Stage("ccm", {a + b: float(a == b) for a in "rgb" for b in "rgb"})
    noise = torch.rand(3, 400, 600, generator=torch.Generator().manual_seed(0))
    names = ("<b>" + "x" * 3000,) * 80
    huge = replace(result, detections=many, class_names=names, image=noise, pipeline=Pipeline((stage,) * 64))
    html = huge._repr_html_()
    assert len(html) < 130_000 and "50 more" in html and "34 more" in html and "<b>x" not in html
    for odd in (huge, replace(result, pipeline=None), replace(result, pipeline=Pipeline(()))):
        assert Page(odd._repr_html_()).open == []
    assert "the camera's own development" in Page(replace(result, pipeline=None)._repr_html_()).text
    assert "no module" in Page(replace(result, pipeline=Pipeline(()))._repr_html_()).text


def test_the_strip_has_a_picture_for_each_stage(result: Result) -> None:
    assert result.pipeline is not None
    strip = result.strip(100)
    assert strip.width == 8 + (len(result.pipeline.stages) + 2) * 108
    assert replace(result, pipeline=None).strip(100).width == 8 + 2 * 108


def test_files_appear_together_and_replace_nothing_unasked(result: Result, tmp_path: Path) -> None:
    paths = result.save(tmp_path / "new", "a")
    assert sorted(path.name for path in paths) == ["a.boxes.json", "a.boxes.png", "a.pipeline.json", "a.png"]
    assert all(path.is_file() for path in paths)
    assert json.loads((tmp_path / "new/a.boxes.json").read_text())["boxes"] == result.boxes()
    shown = np.asarray(Image.open(tmp_path / "new/a.png"), np.float32) / 255
    np.testing.assert_allclose(shown, result.image.permute(1, 2, 0), atol=0.51 / 255)
    (tmp_path / "new/a.png").unlink()
    with pytest.raises(UsageError, match=r"exists already; choose another stem, or give overwrite=True"):
        result.save(tmp_path / "new", "a")
    assert not (tmp_path / "new/a.png").exists()
    result.save(tmp_path / "new", "a", overwrite=True)
    assert (tmp_path / "new/a.png").exists()
    with pytest.raises(UsageError, match="give a name without a folder"):
        result.save(tmp_path, "../a")


def test_the_name_of_a_file_is_no_folder(result: Result, tmp_path: Path) -> None:
    remedy = r"save\('.*', 'one'\), or plot\(\)\.save\('.*one\.png'\)"
    with pytest.raises(UsageError, match=rf"one\.png: save writes several files into a folder; give {remedy}"):
        result.save(tmp_path / "one.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "two.png").mkdir()
    assert len(result.save(tmp_path / "two.png", "a")) == 4, "a folder that exists may have any name"


def test_supervision_gets_numpy_arrays(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "supervision", None)
        with pytest.raises(AdaptiveISPError, match=r"supervision is not installed; run: pip install 'adaptiveisp\[sup"):
            result.to_supervision()
    monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=dict))
    made = dict(result.to_supervision())  # type: ignore[call-overload]
    assert made["xyxy"].tolist() == [[40, 24, 120, 72], [1.25, 2, 11.25, 22]]
    assert made["class_id"].tolist() == [41, 0] and made["confidence"].tolist() == [0.75, 0.5]
    assert made["data"]["class_name"].tolist() == ["cup", "person"]


def test_a_result_pickles(result: Result) -> None:
    again = pickle.loads(pickle.dumps(result))
    assert again.to_json() == result.to_json() and torch.equal(again.image, result.image)


def test_several_raws_and_a_folder(isp: AdaptiveISP, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes = np.random.default_rng(0).integers(500, 3000, (64, 96), dtype=np.uint16)
    for name in ("a", "b"):
        write_dng(RawImage(codes, "RGGB", (0.0,) * 4, 4095.0), tmp_path / f"{name}.dng")
    single = isp(tmp_path / "a.dng")
    listed = isp([tmp_path / "a.dng", tmp_path / "b.dng"])
    foldered = isp(tmp_path)
    assert [found.name for found in listed] == [found.name for found in foldered] == ["a.dng", "b.dng"]
    for found in (*listed, *foldered):
        assert torch.equal(found.image, single.image) and found.developed.full is None
    assert torch.equal(isp.render_full(listed[0]), isp.render_full(single)), "developed again where it was not kept"
    header = BayerHeader(pattern="RGGB", bits=12)
    assert isp([codes, codes], header)[1].full_size == (64, 96)
    assert torch.equal(isp((tmp_path / "a.dng").read_bytes()).image, single.image)

    (tmp_path / "b.dng").write_bytes(b"nothing")
    results = isp.iterate(tmp_path)
    assert next(results).name == "a.dng"
    with pytest.raises(RawFileError, match=r"b\.dng"):
        next(results)
    caplog.clear()
    assert [found.name for found in isp.iterate(tmp_path, on_error="skip")] == ["a.dng"]
    assert "skipped: " in caplog.text and "b.dng" in caplog.text


def test_raws_that_fail_are_left_out_and_listed(isp: AdaptiveISP, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(500, 3000, (64, 96), dtype=np.uint16)
    for name in ("a", "c"):
        write_dng(RawImage(codes, "RGGB", (0.0,) * 4, 4095.0), tmp_path / f"{name}.dng")
    (tmp_path / "b.dng").write_bytes(b"nothing")
    with pytest.raises(RawFileError, match=r"b\.dng"):
        isp(tmp_path)
    results = isp(str(tmp_path), on_error="skip")
    assert [found.name for found in results] == ["a.dng", "c.dng"]  # type: ignore[attr-defined]
    ((path, reason),) = results.skipped  # type: ignore[attr-defined]
    assert path == str(tmp_path / "b.dng") and reason.startswith(path)
    again = pickle.loads(pickle.dumps(results))
    assert again.skipped == [(path, reason)] and len(again) == 2
    listed = isp([codes, tmp_path / "a.dng", tmp_path / "gone.dng"], on_error="skip")
    assert [found.name for found in listed] == ["a.dng"]
    assert [name for name, _ in listed.skipped] == ["raw 0", str(tmp_path / "gone.dng")]
    assert "header=BayerHeader(" in listed.skipped[0][1]
    assert isp([tmp_path / "a.dng"]).skipped == []
    with pytest.raises(RawFileError, match=r"b\.dng"):
        isp(tmp_path / "b.dng", on_error="skip")


def test_a_detector_that_is_wrong_is_not_skipped() -> None:
    class Wrong(RedDetector):
        class_names = ("person",)  # its label is that of cups

    with pytest.raises(DetectorError, match="gave an unknown label"):
        AdaptiveISP("none", Wrong(), size=80)([red_box_raw()] * 2, on_error="skip")

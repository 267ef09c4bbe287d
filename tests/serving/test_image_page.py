"""The requests of the image page give what the package gives by itself."""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp.cli.parser import main
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.darknet.loading import CFG_FOLDER, Darknet
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.isp.module import Param
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.serving.opening import InputFacts
from adaptiveisp.serving.slopes import slider_way
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.view_server import RED, SIZE, Viewer, running_viewer, small_dng

PIPELINE = Pipeline(
    (
        Stage("exposure", {"ev": 1.5}),
        Stage("guided_denoise", {"noise": 0.02, "amount": 0.5}),
        Stage("gamma", {"gamma": 0.7}),
    )
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_dng(tmp_path_factory.mktemp("raws") / "a.dng", 3)


@pytest.fixture(scope="module")
def viewer(raw: Path) -> Iterator[Viewer]:
    with running_viewer([raw]) as running:
        yield running


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def asked(viewer: Viewer, **more: object) -> dict[str, object]:
    return {"image": viewer.first, "detector": RED, **more}


def test_each_stage_is_the_librarys(viewer: Viewer, raw: Path) -> None:
    developed = AdaptiveISP("none", RedDetector(), SIZE).develop(raw).developed.small
    expected = [developed, *PIPELINE.steps(developed)]
    for stage, image in enumerate(expected):
        answer = viewer.post("/api/image/picture", **asked(viewer, pipeline=PIPELINE.to_json(), stage=stage))
        difference = pixels(answer.body).astype(int) - (image[0].permute(1, 2, 0) * 255).round().numpy().astype(int)
        assert np.abs(difference).max() <= 1 and answer.headers["x-lift"] == "1"
    last = viewer.post("/api/image/picture", **asked(viewer, pipeline=PIPELINE.to_json(), stage=-1))
    assert last.body == answer.body


def test_a_slider_changes_only_what_comes_after_it(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.serving import stages

    ran: list[str] = []
    real = stages.run_one

    def counted(picture: torch.Tensor, calls: list) -> torch.Tensor:
        ran.extend(module.name for module, _ in calls)
        return real(picture, calls)

    viewer.post("/api/image/picture", **asked(viewer, pipeline=PIPELINE.to_json(), stage=-1))
    monkeypatch.setattr(stages, "run_one", counted)
    moved = PIPELINE.with_stages((*PIPELINE.stages[:2], Stage("gamma", {"gamma": 0.61})))
    viewer.post("/api/image/picture", **asked(viewer, pipeline=moved.to_json(), stage=-1))
    assert ran == ["gamma"]


def test_the_dark_raw_is_brightened_for_viewing_and_nothing_else(tmp_path: Path) -> None:
    """A pipeline whose result is too dark must look it."""
    from adaptiveisp.raw.dng import write_dng
    from adaptiveisp.types import RawImage

    codes = np.random.default_rng(0).integers(256, 300, (64, 96), dtype=np.uint16)
    write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0), tmp_path / "dark.dng")
    darker = Pipeline((Stage("exposure", {"ev": -1.0}),)).to_json()
    empty = Pipeline(()).to_json()
    with running_viewer([tmp_path / "dark.dng"]) as viewer:

        def shown(pipeline: object, stage: int, lift: bool) -> tuple[float, float]:
            given = asked(viewer, pipeline=pipeline, stage=stage, lift=lift)
            answer = viewer.post("/api/image/picture", **given)
            return float(answer.headers["x-lift"]), float(pixels(answer.body).mean())

        assert shown(empty, -1, True)[0] > 20 and shown(darker, 0, True)[0] > 20
        assert shown(darker, 0, True)[1] > 20 * shown(darker, 0, False)[1]
        assert shown(darker, 1, True) == shown(darker, 1, False) and shown(darker, 1, True)[0] == 1
        views = viewer.post("/api/image/stages", **asked(viewer, pipeline=darker)).json["stages"]
        assert views[0]["lift"] > 20 and views[1]["lift"] == 1


def test_boxes_and_exported_files_are_those_of_run(
    viewer: Viewer, raw: Path, tmp_path: Path, quiet_place: None
) -> None:
    def export(kind: str) -> bytes:
        answer = viewer.post("/api/image/export", **asked(viewer, pipeline=PIPELINE.to_json(), kind=kind))
        assert answer.status == 200
        return answer.body

    (tmp_path / "p.json").write_bytes(export("json"))
    command = json.loads(export("command"))["command"]
    assert str(raw) in command and "--size 96" in command and "--pipeline a.pipeline.json" in command
    words = ("run", str(raw), "--pipeline", "p.json", "--detector", RED, "--size", str(SIZE), "--out", "seen")
    assert main([*words, "--confidence", "0.05", "--quiet"]) == 0
    assert np.array_equal(pixels(export("png")), pixels((tmp_path / "seen" / "a.png").read_bytes()))
    boxes = json.loads((tmp_path / "seen" / "a.boxes.json").read_text())["boxes"]
    found = viewer.post("/api/image/detect", **asked(viewer, pipeline=PIPELINE.to_json())).json
    assert found["boxes"] == boxes and len(boxes) == 1
    assert found["loss"] is None and "labels" in found["no_loss"]


def test_a_cube_holds_the_pointwise_stages(viewer: Viewer) -> None:
    answer = viewer.post("/api/image/export", **asked(viewer, pipeline=PIPELINE.to_json(), kind="cube"))
    lines = answer.body.decode().splitlines()
    assert "LUT_3D_SIZE 33" in lines and any("guided_denoise: left out" in line for line in lines)
    rows = [line for line in lines if line and line[0].isdigit()]
    grey = (16 / 32) ** 3  # the table is looked up by the cube root
    middle = [float(word) for word in rows[16 * 33 * 33 + 16 * 33 + 16].split()]
    assert middle == pytest.approx([min(1.0, grey * 2**1.5) ** 0.7] * 3, abs=1e-5)


def test_the_policy_chooses_as_it_does_in_run(viewer: Viewer, raw: Path) -> None:
    result = AdaptiveISP("auto-exposure", RedDetector(), SIZE)(raw)
    chosen = viewer.post("/api/image/choose", **asked(viewer, policy="auto-exposure")).json
    assert result.pipeline is not None and chosen["pipeline"] == result.pipeline.to_json() and chosen["editable"]
    shown = viewer.post("/api/image/picture", **asked(viewer, policy="auto-exposure", stage=-1))
    assert np.abs(pixels(shown.body).astype(int) - (result.image.permute(1, 2, 0) * 255).round().numpy()).max() <= 1
    camera = viewer.post("/api/image/choose", **asked(viewer, policy="camera")).json
    assert camera["pipeline"] is None and not camera["editable"]


def test_why_has_the_probabilities_of_the_policy(viewer: Viewer, raw: Path) -> None:
    policy = load_policy("coco-adaptive")
    small = AdaptiveISP("none", RedDetector(), SIZE).develop(raw).developed.small
    pipeline = policy.plan(small)[0]
    found = viewer.post("/api/image/why", **asked(viewer, policy="coco-adaptive")).json
    names = [choice["chosen"] for choice in found["choices"]]
    assert [stage.module for stage in pipeline.stages[found["n_preprocessing"] :]] == [n for n in names if n != "stop"]
    for choice in found["choices"]:
        assert sum(choice["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(choice["probabilities"], key=choice["probabilities"].__getitem__) == choice["chosen"]
    rule = viewer.post("/api/image/why", **asked(viewer, policy="night")).json
    assert rule["choices"] == [] and "no probabilities" in rule["note"]


def test_a_forced_choice_comes_first_and_the_policy_goes_on(viewer: Viewer) -> None:
    found = viewer.post("/api/image/why", **asked(viewer, policy="coco-adaptive")).json
    first = found["choices"][0]["chosen"]
    other = next(name for name in found["choices"][0]["probabilities"] if name not in (first, "stop"))
    forced = viewer.post("/api/image/force", **asked(viewer, policy="coco-adaptive", begin=[other])).json["pipeline"]
    modules = [stage["module"] for stage in forced["stages"]][found["n_preprocessing"] :]
    assert modules[0] == other and len(modules) > 1
    stopped = viewer.post("/api/image/force", **asked(viewer, policy="coco-adaptive", begin=["stop"])).json["pipeline"]
    assert len(stopped["stages"]) == found["n_preprocessing"]
    assert viewer.post("/api/image/force", **asked(viewer, policy="coco-adaptive", begin=["x"])).status == 422


def test_sliders_move_in_their_own_scale() -> None:
    assert slider_way(Param("ev", -10.0, 10.0, "stops", 0.0), 3.0) == pytest.approx(2.0)
    assert slider_way(Param("gamma", 0.1, 10.0, "", 1.0, "log"), 2.0) == pytest.approx(0.1 * math.log(100) * 2)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Viewer, Darknet, Path]]:
    from adaptiveisp.detectors.loading import register_detector

    torch.manual_seed(0)
    detector = Darknet(CFG_FOLDER / "yolov3-tiny.cfg", COCO_80, "random-tiny")
    register_detector("random-tiny", lambda: detector, replace=True)
    labels = labelled_photos(tmp_path_factory.mktemp("labelled"), 1, 96, 64)
    facts = InputFacts(labels.parent / "images", SynthesisConfig("dim"))
    with running_viewer([labels], facts, ("random-tiny",)) as running:
        yield running, detector, labels


def test_slopes_are_those_of_finite_differences(labelled: tuple[Viewer, Darknet, Path]) -> None:
    viewer, _, _ = labelled
    given = {"image": viewer.first, "detector": "random-tiny"}

    def loss(ev: float) -> float:
        pipeline = Pipeline((Stage("exposure", {"ev": ev}), Stage("gamma", {"gamma": 0.6}))).to_json()
        return float(viewer.post("/api/image/detect", **given, pipeline=pipeline).json["loss"])

    pipeline = Pipeline((Stage("exposure", {"ev": 2.0}), Stage("gamma", {"gamma": 0.6}))).to_json()
    found = viewer.post("/api/image/slopes", **given, pipeline=pipeline).json
    assert found["loss"] == pytest.approx(loss(2.0), rel=1e-4)
    slope = next(one for one in found["slopes"] if one["param"] == "ev")
    way = slider_way(next(p for p in Pipeline.from_json(pipeline).modules[0].params if p.name == "ev"), 2.0)
    measured = (loss(2.05) - loss(1.95)) / 0.1 * way
    assert slope["change"] == pytest.approx(measured, rel=0.15, abs=2e-3) and slope["stage"] == 0


def test_labels_have_the_detectors_names_and_the_loss_is_evals(labelled: tuple[Viewer, Darknet, Path]) -> None:
    viewer, _, labels = labelled
    given = {"image": viewer.first, "detector": "random-tiny"}
    opened = viewer.post("/api/image/open", **given).json
    assert {label["class"] for label in opened["labels"]} == {"cup", "person"} and opened["has_loss"]
    dataset = open_dataset(labels, labels.parent / "images", light="dim")
    assert opened["light"] == pytest.approx(dataset.samples[0].light)


def test_what_a_stage_is_worth_is_the_pipeline_without_it(labelled: tuple[Viewer, Darknet, Path]) -> None:
    viewer, _, _ = labelled
    given = {"image": viewer.first, "detector": "random-tiny"}
    found = viewer.post("/api/image/worth", **given, pipeline=PIPELINE.to_json()).json
    for number in range(3):
        rest = PIPELINE.with_stages([s for i, s in enumerate(PIPELINE.stages) if i != number])
        alone = viewer.post("/api/image/detect", **given, pipeline=rest.to_json()).json
        assert found["without"][number]["loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_a_monochrome_raw_leaves_colour_stages_out(tmp_path: Path) -> None:
    from adaptiveisp.raw.dng import write_dng
    from adaptiveisp.types import RawImage

    codes = np.random.default_rng(0).integers(300, 3000, (64, 96), dtype=np.uint16)
    write_dng(RawImage(codes, "MONO", (256.0,) * 4, 4095.0), tmp_path / "m.dng")
    with running_viewer([tmp_path / "m.dng"]) as viewer:
        known = viewer.post("/api/image/modules", module_set="extended").json["modules"]
        balance = next(module for module in known if module["name"] == "white_balance")
        params = {p["name"]: min(p["high"], 1.5 * p["neutral"]) for p in balance["params"]}
        stages = [{"module": "white_balance", "params": params}, {"module": "exposure", "params": {"ev": 1.0}}]
        pipeline = {"version": 1, "module_set": "extended", "stages": stages}
        views = viewer.post("/api/image/stages", **asked(viewer, pipeline=pipeline)).json["stages"]
        assert [view["left_out"] for view in views] == [False, True, False]
        shown = pixels(viewer.post("/api/image/picture", **asked(viewer, pipeline=pipeline, stage=-1)).body)
    assert np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 1], shown[..., 2])


def test_the_bytes_of_a_picture_are_those_of_its_png(viewer: Viewer) -> None:
    given = asked(viewer, pipeline=PIPELINE.to_json(), stage=2)
    picture = viewer.post("/api/image/picture", **given)
    plain = viewer.post("/api/image/picture", **given, pixels=True)
    shape = (int(plain.headers["x-height"]), int(plain.headers["x-width"]), 3)
    assert np.array_equal(np.frombuffer(plain.body, np.uint8).reshape(shape), pixels(picture.body))


def test_modules_of_one_name_differ_between_sets(viewer: Viewer) -> None:
    """The released saturation turns grey red; what was rendered for another set must not be shown for it."""
    from adaptiveisp.isp.registry import find_module

    params = {p.name: p.high for p in find_module("saturation", "released").params}
    shown = []
    for name in ("paper", "released"):
        pipeline = Pipeline((Stage("saturation", params),), name)
        answer = viewer.post("/api/image/picture", **asked(viewer, pipeline=pipeline.to_json(), stage=-1))
        isp = AdaptiveISP("none", RedDetector(), SIZE)
        prepared = isp.render(isp.develop(viewer.catalogue.images.find(viewer.first).file), pipeline)
        assert prepared.rendered is not None
        expected = (prepared.rendered.image[0].permute(1, 2, 0) * 255).numpy()
        shown.append(pixels(answer.body).astype(float))
        assert np.abs(shown[-1] - expected).max() <= 1, name


def test_a_policy_without_stages_shows_its_own_result(viewer: Viewer, raw: Path) -> None:
    given = asked(viewer, pipeline=Pipeline(()).to_json(), policy="camera")
    views = viewer.post("/api/image/stages", **given).json["stages"]
    image = AdaptiveISP("camera", RedDetector(), SIZE)(raw).image
    red = views[1]["histogram"][0]
    assert len(views) == 2
    assert red == pytest.approx([float(v) / image[0].numel() for v in torch.histc(image[0], 48, 0, 1)], abs=1e-6)

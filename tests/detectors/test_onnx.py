"""Detectors in ONNX files: decodes by hand, sidecars, sizes and batches, losses, what is refused, the command line."""

import hashlib
import json
import logging
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from adaptiveisp.cli.parser import main  # noqa: E402
from adaptiveisp.detectors.class_names import COCO_80  # noqa: E402
from adaptiveisp.detectors.huggingface.set_loss import decoded_loss, detr_loss  # noqa: E402
from adaptiveisp.detectors.loading import load_detector  # noqa: E402
from adaptiveisp.detectors.onnx.file import OnnxDetector  # noqa: E402
from adaptiveisp.detectors.onnx.session import Session  # noqa: E402
from adaptiveisp.errors import DetectorError  # noqa: E402
from adaptiveisp.types import Detections, Detector, Targets  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.support.onnx_models import FLOAT, answers, network, node, save  # noqa: E402
from tests.support.photos import labelled_photos  # noqa: E402

TWO = "{0: 'cup', 1: 'person'}"
NO_NORM = "mean: [0, 0, 0]\nstd: [1, 1, 1]\n"
YOLO = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1], [21, 20, 20, 10, 0.5, 0.6, 0.9], [40, 50, 8, 8, 0.9, 0, 1]]])
YOLO_FOUND = [([36, 46, 44, 54], 0.9, 1), ([11, 15, 31, 25], 0.45, 1), ([10, 15, 30, 25], 0.4, 0)]
"""By hand: score = objectness x class; each class keeps the better of the two boxes that overlap."""


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def load(path: Path, sidecar: str = "") -> OnnxDetector:
    if sidecar:
        path.with_suffix(".yaml").write_text(sidecar)
    detector = load_detector(path)
    assert isinstance(detector, OnnxDetector) and isinstance(detector, Detector)
    return detector


def check(found: Detections, expected: list[tuple[list[float], float, int]]) -> None:
    assert found.labels.tolist() == [label for _, _, label in expected]
    assert found.scores.tolist() == pytest.approx([score for _, score, _ in expected], abs=1e-5)
    wanted = torch.tensor([box for box, _, _ in expected], dtype=torch.float32).reshape(-1, 4)
    torch.testing.assert_close(found.boxes, wanted, rtol=1e-4, atol=1e-3)


def image(n: int = 1, height: int = 64, width: int = 64) -> Tensor:
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    return F.interpolate(coarse, size=(height, width), mode="bilinear")


def test_yolo_by_hand(tmp_path: Path) -> None:
    detector = load(answers(tmp_path / "five.onnx", {"out": YOLO}, names=TWO))
    assert detector.layout.decode == "yolo" and detector.class_names == ("cup", "person") and detector.name == "five"
    found = detector.detect(image(2), confidence=0.2)
    check(found[0], YOLO_FOUND)
    check(found[1], YOLO_FOUND)
    check(detector.detect(image(), confidence=0.42, max_detections=1)[0], YOLO_FOUND[:1])
    assert len(detector.detect(image(), confidence=0.2, nms_iou=0.95)[0].labels) == 4


def test_yolo_without_objectness_by_hand(tmp_path: Path) -> None:
    rows = np.concatenate((YOLO[..., :4], YOLO[..., 4:5] * YOLO[..., 5:]), axis=2)
    detector = load(answers(tmp_path / "eight.onnx", {"out": rows.transpose(0, 2, 1)}, names="['cup', 'person']"))
    assert detector.layout.decode == "yolo-no-objectness"
    check(detector.detect(image(), confidence=0.2)[0], YOLO_FOUND)


def test_yolox_by_hand(tmp_path: Path) -> None:
    """Strides 32 and 64: four cells of the first grid, one of the second; centre and size in cells."""
    rows = np.zeros((1, 5, 7))
    rows[0, 2] = [0.25, -0.5, math.log(0.5), 0, 1, 0.75, 0]  # row 1, column 0: centre (8, 16), 16 x 32
    rows[0, 4] = [0.5, 0.5, 0, 0, 0.5, 0, 1]
    sidecar = "decode: yolox\nnames: [cup, person]\nstrides: [32, 64]"
    detector = load(answers(tmp_path / "x.onnx", {"out": rows}), sidecar)
    check(detector.detect(image(), confidence=0.2)[0], [([0, 0, 16, 32], 0.75, 0), ([0, 0, 64, 64], 0.5, 1)])
    with pytest.raises(DetectorError, match="strides 8, 16, 32 have 84 cells, not 5"):
        load(tmp_path / "x.onnx", "decode: yolox\nnames: [cup, person]").detect(image())


LOGITS = np.log(np.array([[[0.7, 0.1, 0.2], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]]))
CENTRED = np.array([[[0.5, 0.5, 0.25, 0.5], [0.2, 0.2, 0.1, 0.1], [0.5, 0.5, 0.25, 0.5]]])


def test_detr_by_hand(tmp_path: Path) -> None:
    """One class a query, the last is no object, and boxes that are the same both stay."""
    path = answers(tmp_path / "detr.onnx", {"pred_boxes": CENTRED, "logits": LOGITS}, names=TWO)
    detector = load(path, NO_NORM)
    assert detector.layout.decode == "detr"
    box = [24, 16, 40, 48]
    check(detector.detect(image(), confidence=0.15)[0], [(box, 0.7, 0), (box, 0.5, 1)])


def test_detr_with_sigmoids_by_hand(tmp_path: Path) -> None:
    p = np.array([[[0.7, 0.6], [0.1, 0.05], [0.2, 0.5]]])
    detector = load(answers(tmp_path / "rt.onnx", {"l": np.log(p / (1 - p)), "b": CENTRED}, names=TWO), NO_NORM)
    assert detector.layout.decode == "detr-sigmoid"
    box = [24, 16, 40, 48]
    check(detector.detect(image(), confidence=0.15)[0], [(box, 0.7, 0), (box, 0.6, 1), (box, 0.5, 1), (box, 0.2, 0)])


BOXES = np.array([[[10, 20, 30, 40], [10, 20, 30, 40], [0, 0, 64, 32]]], np.float32)
LISTED = [([10, 20, 30, 40], 0.9, 1), ([10, 20, 30, 40], 0.8, 1), ([0, 0, 64, 32], 0.3, 0)]


def test_answers_in_three_outputs(tmp_path: Path) -> None:
    tables = {"scores": np.array([[0.9, 0.8, 0.3]]), "labels": np.array([[1, 1, 0]]), "boxes": BOXES}
    detector = load(answers(tmp_path / "three.onnx", tables, names=TWO))
    assert detector.layout.outputs == ("labels", "boxes", "scores")
    check(detector.detect(image(), confidence=0.2)[0], LISTED)  # nothing is suppressed
    check(detector.detect(image(), confidence=0.2, max_detections=2)[0], LISTED[:2])


def test_answers_in_one_table(tmp_path: Path) -> None:
    rows = np.concatenate((BOXES, np.array([[[0.9, 1], [0.8, 1], [0.3, 0]]])), axis=2)
    detector = load(answers(tmp_path / "table.onnx", {"out": rows}, names=TWO))
    assert detector.layout.decode == "boxes"
    check(detector.detect(image(), confidence=0.2)[0], LISTED)


def test_answers_without_a_batch_axis(tmp_path: Path) -> None:
    """As detectors that list what they found of one image give them."""
    nodes = [
        node("ReduceMean", ["images"], ["mean"], keepdims=0),
        node("Mul", ["mean", "zero"], ["none"]),
        node("Add", ["table", "none"], ["boxes"]),
        node("Add", ["values", "none"], ["scores"]),
        node("Identity", ["numbers"], ["labels"]),
    ]
    constants = {
        "zero": np.zeros((), np.float32),
        "table": BOXES[0],
        "values": np.array([0.9, 0.8, 0.3], np.float32),
        "numbers": np.array([1, 1, 0]),
    }
    outputs = {"boxes": FLOAT, "labels": onnx.TensorProto.INT64, "scores": FLOAT}
    path = save(tmp_path / "one.onnx", nodes, outputs, constants, ("b", 3, "h", "w"), {"names": TWO})
    detector = load(path)
    assert detector.batch == 1 and detector.stride == 32
    for found in detector.detect(image(2), confidence=0.2):
        check(found, LISTED)


def test_a_model_that_asks_for_the_size(tmp_path: Path) -> None:
    """Boxes in 0..1 times (width, height), twice, as exports of RT-DETR do it."""
    nodes = [
        node("Cast", ["sizes"], ["float"], to=FLOAT),
        node("Concat", ["float", "float"], ["four"], axis=1),
        node("Unsqueeze", ["four", "one"], ["row"]),
        node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1),
        node("Squeeze", ["mean", "last"], ["flat"]),
        node("Mul", ["flat", "zero"], ["nothing"]),
        node("Add", ["share", "nothing"], ["shares"]),
        node("Mul", ["shares", "row"], ["boxes"]),
        node("Squeeze", ["nothing", "two"], ["none"]),
        node("Add", ["none", "score"], ["scores"]),
        node("Cast", ["none"], ["labels"], to=onnx.TensorProto.INT64),
    ]
    constants = {
        **{"one": np.array([1]), "axes": np.array([1, 2, 3]), "last": np.array([3]), "two": np.array([2])},
        "zero": np.float32(0),
        "share": np.array([[[0.25, 0.5, 0.75, 1]]], np.float32),
        "score": np.array([[0.5]], np.float32),
    }
    outputs = {"labels": onnx.TensorProto.INT64, "boxes": FLOAT, "scores": FLOAT}
    path = save(
        tmp_path / "rt.onnx", nodes, outputs, constants, ("b", 3, "h", "w"), {"names": TWO}, {"sizes": ("b", 2)}
    )
    detector = load(path)
    check(detector.detect(image(1, 64, 128))[0], [([32, 32, 96, 64], 0.5, 0)])
    assert detector.differentiable


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(32, 64, [10, -1, 30, 9]), (128, 64, [-12, 30, 28, 50]), (64, 64, [10, 15, 30, 25])],
)
def test_images_of_another_size_are_fitted_and_boxes_come_back(
    height: int, width: int, box: list[float], tmp_path: Path
) -> None:
    """32x64 lies in the middle of the square; 64x128 (upright) is halved, with 16 pixels to either side."""
    detector = load(answers(tmp_path / "five.onnx", {"out": YOLO[:, :1]}, names=TWO))
    assert detector.stride == 1
    clipped = [max(0, min(value, limit)) for value, limit in zip(box, (width, height) * 2, strict=True)]
    check(detector.detect(image(1, height, width), confidence=0.2)[0], [(clipped, 0.4, 0)])
    whole = Targets(torch.tensor([clipped], dtype=torch.float32), torch.tensor([0]))
    if box == clipped:  # the target is where the box is, so that only the scores cost
        expected = decoded_loss(torch.tensor([[10.0, 15, 30, 25]]), torch.tensor([[0.4, 0.05]]),
                                Targets(torch.tensor([[10.0, 15, 30, 25]]), torch.tensor([0])))  # fmt: skip
        torch.testing.assert_close(detector.loss(image(1, height, width), [whole])[0], expected)


def test_the_input_is_as_declared(tmp_path: Path) -> None:
    sidecar = "scale: 255\nmean: [10, 20, 30]\nstd: [2, 4, 5]\nchannels: bgr"
    detector = load(answers(tmp_path / "five.onnx", {"out": YOLO}, names=TWO), sidecar)
    picture = image()
    given, place = detector._input(picture)
    expected = torch.stack([(picture[0, c] * 255 - m) / s for c, m, s in ((2, 10, 2), (1, 20, 4), (0, 30, 5))])
    torch.testing.assert_close(given[0], expected)
    assert place[:2] == (0, 0)
    wide, _ = detector._input(torch.zeros(1, 3, 32, 64))
    assert wide[0, :, 0, 0].tolist() == pytest.approx([(127.5 - 10) / 2, (127.5 - 20) / 4, (127.5 - 30) / 5])


def test_names_come_from_many_places(tmp_path: Path) -> None:
    path = answers(tmp_path / "five.onnx", {"out": YOLO}, stride="16")
    for sidecar in ("names: [a, b]", "names: {0: a, 1: b}", "names: classes.names"):
        (tmp_path / "classes.names").write_text("a\n\nb\n")
        assert load(path, sidecar).class_names == ("a", "b")
    path.with_suffix(".yaml").unlink()
    with pytest.raises(DetectorError, match=r"do not say how to read them with 80 classes \(no names are known\)"):
        load(path)
    rows = np.concatenate((np.full((1, 2, 4), 30.0), np.full((1, 2, 81), 0.5)), axis=2)
    assert load(answers(tmp_path / "coco.onnx", {"out": rows})).class_names == COCO_80


def test_what_a_sidecar_declares_is_part_of_the_hash(tmp_path: Path) -> None:
    """A report names detectors by it, and other preprocessing gives other results."""
    path = answers(tmp_path / "five.onnx", {"out": YOLO}, names=TWO)
    plain = load(path).weights_sha256
    assert plain == hashlib.sha256(path.read_bytes()).hexdigest()
    declared = [load(path, text).weights_sha256 for text in ("scale: 255", "scale: 100", "names: [a, b]", "scale: 1")]
    assert len({plain, *declared[:3]}) == 4 and declared[3] == plain


def test_a_file_of_someone_else_is_no_sidecar(tmp_path: Path) -> None:
    path = answers(tmp_path / "five.onnx", {"out": YOLO}, names=TWO)
    assert load(path, "backbone: []\nnc: 2").class_names == ("cup", "person")


def test_free_inputs_have_a_stride(tmp_path: Path) -> None:
    free = ("b", 3, "h", "w")
    assert load(answers(tmp_path / "a.onnx", {"out": YOLO}, free, TWO)).stride == 32
    assert load(answers(tmp_path / "b.onnx", {"out": YOLO}, free, TWO, stride="16")).stride == 16
    detector = load(tmp_path / "b.onnx", "stride: 8")
    assert detector.stride == 8
    with pytest.raises(DetectorError, match="must be multiples of 8, not 60x64"):
        detector.detect(image(1, 60, 64))
    assert load(tmp_path / "b.onnx", "size: [64, 96]").fixed == (64, 96)


@pytest.mark.parametrize("batch", [1, 2, "batch"])
def test_batches_of_any_size_are_answered(batch: int | str, tmp_path: Path) -> None:
    detector = load(network(tmp_path / "net.onnx", shape=(batch, 3, 64, 64)))
    assert detector.batch == (batch if isinstance(batch, int) else 0)
    pictures = image(3)
    for one, alone in zip(detector.detect(pictures), [detector.detect(p[None])[0] for p in pictures], strict=True):
        assert len(one.labels) > 3
        torch.testing.assert_close(one.boxes, alone.boxes)
        torch.testing.assert_close(one.scores, alone.scores)


def test_a_model_whose_batch_is_only_said_to_be_free(tmp_path: Path) -> None:
    detector = load(network(tmp_path / "net.onnx", baked_batch=True))
    assert detector.batch == 1 and detector.differentiable
    assert len(detector.detect(image(3))) == 3


TARGETS = [
    Targets(torch.tensor([[5.0, 5, 40, 50], [20, 10, 60, 30]]), torch.tensor([1, 0])),
    Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    Targets(torch.tensor([[1.0, 2, 60, 50]]), torch.tensor([0])),
]


@pytest.mark.parametrize("differentiable", [True, False])
def test_the_loss_of_an_image_is_that_of_it_alone(differentiable: bool, tmp_path: Path) -> None:
    detector = load(network(tmp_path / "net.onnx", differentiable=differentiable))
    losses = detector.loss(image(3), TARGETS)
    alone = [detector.loss(image(3)[i : i + 1], TARGETS[i : i + 1])[0] for i in range(3)]
    torch.testing.assert_close(losses, torch.stack(alone), rtol=1e-5, atol=1e-7)
    assert losses.isfinite().all() and losses[0] != losses[2]
    other = load(network(tmp_path / "other.onnx", differentiable=not differentiable))
    torch.testing.assert_close(losses, other.loss(image(3), TARGETS), rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences(tmp_path: Path) -> None:
    detector = load(network(tmp_path / "net.onnx"))
    assert detector.differentiable and detector.difference is not None and detector.difference < 1e-5
    leaf = image(3).requires_grad_()
    detector.loss(leaf, TARGETS).sum().backward()
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        way = torch.randn(leaf.shape, generator=generator)
        with torch.no_grad():
            up, down = (detector.loss(leaf + sign * 1e-3 * way, TARGETS).double().sum() for sign in (1, -1))
        assert leaf.grad is not None
        assert float((leaf.grad * way).sum()) == pytest.approx(float(up - down) / 2e-3, rel=0.02, abs=2e-4)
    assert all(not value.requires_grad for value in detector.parameters())


def test_without_conversion_the_loss_has_values_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="adaptiveisp"):
        detector = load(network(tmp_path / "net.onnx", differentiable=False))
        losses = detector.loss(image(3).requires_grad_(), TARGETS)
    assert not detector.differentiable and not losses.requires_grad and losses.isfinite().all()
    assert detector.not_differentiable_because == "operator Hardmax is not supported"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'net.onnx'}: its loss has no gradient: operator Hardmax is not supported"
    ]


def test_a_model_in_half_precision(tmp_path: Path) -> None:
    half, single = (load(network(tmp_path / f"{h}.onnx", half=h)) for h in (True, False))
    assert half.differentiable
    torch.testing.assert_close(half.loss(image(3), TARGETS), single.loss(image(3), TARGETS), rtol=1e-2, atol=1e-4)
    assert len(half.detect(image())[0].labels) > 3


def test_a_device_without_provider_falls_back(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    session = Session(path, onnx.load(path), torch.device("cuda"), "")
    assert session.on in ("cpu", "cuda")
    assert session(session.feeds(image()))["output0"].shape == (1, 6, 16)


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    detector = load(network(tmp_path / "net.onnx"))
    with pytest.raises(DetectorError, match="label outside 0 to 1"):
        detector.loss(image(), [Targets(torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([2]))])
    with pytest.raises(DetectorError, match="2 images but targets for 3"):
        detector.loss(image(2), TARGETS)


def test_data_beside_the_model(tmp_path: Path) -> None:
    path = network(tmp_path / "whole.onnx")
    model = onnx.load(path)
    outside = tmp_path / "outside"
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "apart.onnx"
    onnx.save(model, apart, save_as_external_data=True, location="data.bin", size_threshold=0)
    first, second = load(path), load(apart)
    torch.testing.assert_close(first.loss(image(3), TARGETS), second.loss(image(3), TARGETS))
    data = tmp_path / "apart" / "data.bin"
    content = data.read_bytes()
    data.write_bytes(content[:-4] + b"\0\0\0\1")
    assert load(apart).weights_sha256 != second.weights_sha256  # the data count, too
    data.write_bytes(content[:100])
    with pytest.raises(DetectorError, match=r"apart.onnx: .*export it again") as caught:
        load(apart)
    assert "\n" not in str(caught.value)
    data.unlink()
    with pytest.raises(DetectorError, match=r"data file 'data.bin' cannot be read"):
        load(apart)
    outside.write_bytes(content)
    data.symlink_to(outside)
    with pytest.raises(DetectorError, match="outside its own folder"):
        load(apart)
    for where in ("../outside", str(outside)):
        text = apart.read_bytes()
        moved = onnx.load_model_from_string(text)
        for proto in moved.graph.initializer:
            for entry in proto.external_data:
                entry.value = where if entry.key == "location" else entry.value
        (tmp_path / "apart" / "moved.onnx").write_bytes(moved.SerializeToString())
        with pytest.raises(DetectorError, match="outside its own folder"):
            load(tmp_path / "apart" / "moved.onnx")


@pytest.mark.parametrize("differentiable", [True, False])
def test_a_copy_needs_no_file(differentiable: bool, tmp_path: Path) -> None:
    """The bytes of the model travel with it, also those that lay in a second file; so it works on another machine."""
    model = onnx.load(network(tmp_path / "whole.onnx", differentiable=differentiable))
    apart = tmp_path / "apart.onnx"
    onnx.save(model, apart, save_as_external_data=True, location="data.bin", size_threshold=0)
    detector = load(apart, "names: [mug, human]")
    (expected,) = detector.detect(image())
    content = pickle.dumps(detector)
    for path in tmp_path.iterdir():
        path.unlink()
    other = pickle.loads(content)
    (found,) = other.detect(image())
    for part in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(found, part), getattr(expected, part))
    assert len(found.labels) > 3 and other.class_names == ("mug", "human")
    for fact in ("differentiable", "not_differentiable_because", "difference", "weights_sha256", "layout", "batch"):
        assert getattr(other, fact) == getattr(detector, fact)
    assert torch.equal(other.loss(image(3), TARGETS), detector.loss(image(3), TARGETS))


SIDECARS = {
    "decode: yolov5": "decode = 'yolov5' does not fit; give yolo or",
    "nmaes: [a, b]\ndecode: yolo": "setting 'nmaes' does not exist; there are boxes, channels, coordinates, decode",
    "names: [a, b": "cannot be read as YAML",
    "names: {0: a, 2: b}": "names must be numbered from 0 without a gap",
    "names: gone.names": r"gone.names: cannot be read; it must be a text file",
    "names: [a, b, c]": "with 3 classes",
    "decode: detr": "do not fit decode: detr with 2 classes",
    "outputs: other": "output other does not exist; there are out",
    "mean: [1]": "mean and std must have three numbers",
    "std: [1, 0, 1]": "std must be above 0",
    "size: [1, 2, 3]": r"size must be one side, or \[height, width\]",
    "size: 0": "size must be above 0",
    "scale: 0": "scale must be above 0",
    "stride: -1": "stride must not be negative",
    "strides: [0]": "strides must be above 0",
    "strides: []": "strides must have 1 to 16 numbers",
    "size: 5000": "size must be at most 4096",
    "size: 1000000000": "size .*at most",
    "stride: 1000000000": "stride must be at most 1024",
    "first_label: 1000000000": "first_label must be from 0 to 30000",
    "logits: true\ndecode: detr": "has no effect on a detr",
    "names: ../../etc/passwd": r"five.yaml: names: '\.\./\.\./etc/passwd' lies outside its folder; copy that file",
    "names: /etc/passwd": "lies outside its folder; copy that file beside it",
    "names: 'C:\\names.txt'": "lies outside its folder",
    'names: "a\\0b"': "lies outside its folder",
    "input: other": "has the inputs images",
}


@pytest.mark.parametrize("sidecar", SIDECARS)
def test_a_wrong_sidecar_is_told(sidecar: str, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=SIDECARS[sidecar]) as caught:
        load(answers(tmp_path / "five.onnx", {"out": YOLO}, names=TWO), sidecar)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


MODELS: dict[str, tuple[dict[str, Any], dict[str, str], str]] = {
    "unknown shape": ({"out": np.ones((1, 3, 9))}, {}, r"outputs \(out 1x3x9\) do not say how to read them with 2 cl"),
    "two ways": ({"a": YOLO, "b": YOLO}, {}, "can be read in several ways with 2 classes; write m.yaml beside it"),
    "no pixels": ({"out": YOLO / 64}, {}, "boxes reach only to 0.84 of 64x64 pixels; write m.yaml with boxes: norm"),
    "another task": ({"out": YOLO}, {"task": "segment"}, "made for the task segment"),
    "names no text": ({"out": YOLO}, {"names": "{0: 1}"}, "class names in its metadata cannot be read"),
    "names no literal": ({"out": YOLO}, {"names": "__import__('os')"}, "class names in its metadata cannot be read"),
    "detr unsaid": ({"l": LOGITS, "b": CENTRED}, {}, r"write m.yaml beside it with mean: \[0.485"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_model_does_not_say_must_be_declared(kind: str, tmp_path: Path) -> None:
    tables, metadata, message = MODELS[kind]
    with pytest.raises(DetectorError, match=message) as caught:
        load(answers(tmp_path / "m.onnx", tables, **{"names": TWO, **metadata}))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / "m.onnx"))


def test_what_is_declared_ends_the_doubt(tmp_path: Path) -> None:
    path = answers(tmp_path / "m.onnx", {"a": YOLO / [*[64] * 4, 1, 1, 1], "b": YOLO}, names=TWO)
    check(load(path, "outputs: b").detect(image(), 0.2)[0], YOLO_FOUND)
    check(load(path, "outputs: [a]\nboxes: normalised").detect(image(), 0.2)[0], YOLO_FOUND)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    whole = network(tmp_path / "net.onnx").read_bytes()
    for content in (b"", b"hello, I am no model", whole[: len(whole) // 2], bytes(1000)):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(DetectorError, match=r"bad.onnx: .*damaged.*|.*export it again") as caught:
            load(tmp_path / "bad.onnx")
        assert "\n" not in str(caught.value)
    network(tmp_path / "custom.onnx")
    model = onnx.load(tmp_path / "custom.onnx")
    model.graph.node[0].domain = "com.someone"
    onnx.save(model, tmp_path / "custom.onnx")
    with pytest.raises(DetectorError, match="onnxruntime cannot load it"):
        load(tmp_path / "custom.onnx")
    grey = save(tmp_path / "grey.onnx", [node("Relu", ["images"], ["y"])], {"y": FLOAT}, {}, ("b", 1, 8, 8))
    with pytest.raises(DetectorError, match=r"expected floats \(batch, 3, height, width\), or bytes"):
        load(grey)


PHOTOS = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", 64, "--threads", 1, "-q")
FEW = ("modules=[exposure, gamma]", "initial={}", "batch=2")


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def train(method: str, detector: str, out: str, budget: int, changes: tuple[str, ...] = FEW) -> int:
    settings = [f"--set={change}" for change in changes]
    preset = ("--preset", "auto-exposure") if method in ("fixed", "cma_es", "random_search") else ()
    return adaptiveisp(
        "train",
        *PHOTOS,
        "--method",
        method,
        *preset,
        "--detector",
        detector,
        "--out",
        out,
        "--budget",
        budget,
        *settings,
    )


def test_eval_and_a_learned_pipeline_from_the_command_line(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    network(tmp_path / "net.onnx")
    assert train("fixed", "net.onnx", "run", 16) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 8 and all(max(line["gradient_norm"].values()) > 1e-6 for line in lines)
    assert (
        adaptiveisp(
            "eval", *PHOTOS, "--detector", "net.onnx", "--policy", "none", "run", "--resamples", 200, "--out", "report"
        )
        == 0
    )
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["policies"]["run"]) == {"net"}
    assert report["provenance"]["weights_sha256"]["net"] == load(tmp_path / "net.onnx").weights_sha256


@pytest.mark.parametrize("method", ["fixed", "actor_critic", "sequence"])
def test_a_method_that_needs_gradients_does_not_start_without(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    network(tmp_path / "net.onnx", differentiable=False)
    assert train(method, "net.onnx", "run", 16, ()) == 2
    error = capsys.readouterr().err
    assert f"method {method}: needs the gradient" in error
    assert "cma_es, random_search, or sequence with preset sampled" in error
    assert "operator Hardmax is not supported" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cma_es", FEW),
        ("random_search", ("modules=[exposure, gamma]", "initial={}", "candidates=4", "batch=1", "duel=4")),
        ("sequence", ("rivals=samples", "exploration=0.3", "size=64")),
    ],
)
def test_searches_and_sampled_parameters_need_no_gradient(
    method: str, changes: tuple[str, ...], tmp_path: Path
) -> None:
    labelled_photos(tmp_path)
    network(tmp_path / "net.onnx", differentiable=False)
    assert train(method, "net.onnx", "run", 40, changes) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["passes"] > 20 and len({line["detector_loss"] for line in lines}) == len(lines)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_an_exported_darknet_detects_the_same(tmp_path: Path, tiny_weights: Path) -> None:
    """YOLOv3-tiny with its decode, as a YOLO with free batch and size: the detections of the Darknet file."""
    darknet = load_detector(tiny_weights)

    class Decoded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net: Any = darknet

        def forward(self, image: Tensor) -> Tensor:
            rows = []
            for layer, head in zip(self.net.detection_layers, self.net.heads(image), strict=True):
                y, x = torch.meshgrid(torch.arange(head.shape[2]), torch.arange(head.shape[3]), indexing="ij")
                centre = (head[..., :2].sigmoid() + torch.stack((x, y), dim=-1)) * layer.stride
                size = head[..., 2:4].clamp(-10, 10).exp() * layer.anchors[:, None, None]
                rows.append(torch.cat((centre, size, head[..., 4:].sigmoid()), dim=-1).flatten(1, 3))
            return torch.cat(rows, dim=1)

    free = {"image": {0: "b", 2: "h", 3: "w"}}
    example = torch.rand(1, 3, 64, 96)
    torch.onnx.export(
        Decoded(), (example,), str(tmp_path / "t.onnx"), dynamo=False, input_names=["image"], dynamic_axes=free
    )
    detector = load(tmp_path / "t.onnx")
    assert detector.differentiable and detector.batch == 0 and detector.class_names == COCO_80
    pictures = image(2, 128, 96)
    for found, expected in zip(detector.detect(pictures), darknet.detect(pictures), strict=True):
        assert len(found.labels) == len(expected.labels) > 0
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_an_exported_detr_has_the_loss_and_gradient_of_the_original(tmp_path: Path) -> None:
    """With random weights, against transformers' own network."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 32, 32], depths=[1] * 4, layer_type="basic", out_features=["stage4"]
    )
    small: dict[str, Any] = dict.fromkeys(("encoder_layers", "decoder_layers"), 1)
    small |= dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64)
    small |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "num_labels"), 2)
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=backbone, d_model=32, num_queries=10, **small
    )
    net = transformers.DetrForObjectDetection(config).eval()

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            found = self.net(pixel_values=image)
            return found.logits, found.pred_boxes

    names = {"input_names": ["image"], "output_names": ["logits", "pred_boxes"]}
    example = (torch.rand(1, 3, 96, 96),)
    outputs = Outputs().eval()  # the exporter puts back whatever mode it finds
    torch.onnx.export(outputs, example, str(tmp_path / "detr.onnx"), dynamo=False, opset_version=17, **names)
    detector = load(tmp_path / "detr.onnx", f"names: [cup, person]\n{NO_NORM}")
    assert detector.layout.decode == "detr" and detector.differentiable, detector.not_differentiable_because
    wanted = Targets(torch.tensor([[10.0, 10, 50, 60], [30, 5, 90, 40]]), torch.tensor([1, 0]))
    leaf, own = image(1, 96, 96).requires_grad_(), image(1, 96, 96).requires_grad_()
    logits, boxes = outputs(own)
    expected = detr_loss(logits[0], boxes[0], Targets(wanted.boxes / 96, wanted.labels), sigmoid=False)
    found = detector.loss(leaf, [wanted])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    expected.backward()
    found.backward()
    assert own.grad is not None and leaf.grad is not None
    torch.testing.assert_close(leaf.grad, own.grad, rtol=1e-2, atol=1e-2 * float(own.grad.abs().max()))

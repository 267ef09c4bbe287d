"""ONNX detectors of other makers: bytes, channels last, logits, boxes and scores apart, other orders of coordinates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from adaptiveisp.detectors.loading import load_detector  # noqa: E402
from adaptiveisp.detectors.onnx.file import OnnxDetector  # noqa: E402
from adaptiveisp.errors import DetectorError  # noqa: E402
from adaptiveisp.types import Detections, Targets  # noqa: E402
from tests.support.onnx_models import BYTE, FLOAT, answers, network, node, save  # noqa: E402

TWO = "{0: 'cup', 1: 'person'}"


def load(path: Path, sidecar: str = "") -> OnnxDetector:
    if sidecar:
        path.with_suffix(".yaml").write_text(sidecar)
    detector = load_detector(path)
    assert isinstance(detector, OnnxDetector)
    return detector


def image(n: int = 1, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(5))


def check(found: Detections, expected: list[tuple[list[float], float, int]]) -> None:
    assert found.labels.tolist() == [label for _, _, label in expected]
    assert found.scores.tolist() == pytest.approx([score for _, score, _ in expected], abs=1e-5)
    wanted = torch.tensor([box for box, _, _ in expected], dtype=torch.float32).reshape(-1, 4)
    torch.testing.assert_close(found.boxes, wanted, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------- inputs

TARGET = [Targets(torch.tensor([[5.0, 5, 40, 50], [20, 10, 60, 30]]), torch.tensor([1, 0]))]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 64)])
def test_bytes_with_channels_last_are_found_and_answered_as_their_twin_in_floats(
    height: int, width: int, tmp_path: Path
) -> None:
    plain = load(network(tmp_path / "plain.onnx", shape=(1, 3, 64, 64)))
    camera = load(network(tmp_path / "camera.onnx", shape=(1, 64, 64, 3), camera=True))
    assert camera.session.channels_last and camera.session.takes_bytes and camera.differentiable
    picture = (image(2, height, width) * 255).round() / 255
    for own, expected in zip(camera.detect(picture), plain.detect(picture), strict=True):
        assert len(expected.labels) > 3 and own.labels.tolist() == expected.labels.tolist()
        # Padding is 0.5, which is no code value: 127.5 is rounded.
        torch.testing.assert_close(own.boxes, expected.boxes, rtol=1e-2, atol=0.1)
        torch.testing.assert_close(own.scores, expected.scores, rtol=1e-3, atol=1e-3)
    leaves = [picture[:1].clone().requires_grad_() for _ in range(2)]
    losses = [detector.loss(leaf, TARGET) for detector, leaf in zip((camera, plain), leaves, strict=True)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-7)
    gradients = [torch.autograd.grad(loss.sum(), leaf)[0] for loss, leaf in zip(losses, leaves, strict=True)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-9)
    assert gradients[0].abs().max() > 0


def test_the_input_is_laid_out_as_it_was_declared(tmp_path: Path) -> None:
    rows = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1]]])
    free = answers(tmp_path / "free.onnx", {"out": rows}, ("b", "h", "w", "c"), TWO)
    assert not load(free).session.channels_last
    detector = load(free, "layout: nhwc\nsize: [64, 96]\nscale: 255")
    picture = image(1, 64, 96)
    given, _ = detector._input(picture)
    (fed,) = detector.session.feeds(given).values()
    torch.testing.assert_close(fed, picture.permute(0, 2, 3, 1) * 255)
    rows[0, 0, :4] = 1.5, 30, 2, 10
    both = answers(tmp_path / "both.onnx", {"out": rows}, (1, 3, 64, 3), TWO)  # could be either; usual is first
    assert not load(both).session.channels_last


def test_bytes_are_code_values(tmp_path: Path) -> None:
    rows = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1]]])
    path = answers(tmp_path / "bytes.onnx", {"out": rows}, names=TWO, kind=BYTE)
    detector = load(path, "channels: bgr")
    (fed,) = detector.session.feeds(
        detector._input(torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64))[0]
    ).values()
    assert fed.dtype == torch.uint8 and fed[0, :, 5, 5].tolist() == [255, 128, 0]
    assert load(path, "scale: 255").class_names == ("cup", "person")
    for sidecar in ("mean: [1, 2, 3]", "std: [1, 2, 3]", "scale: 2"):
        with pytest.raises(DetectorError, match=r"its input is of bytes, 0 to 255, .*leave out scale:, mean: and std:"):
            load(path, sidecar)


@pytest.mark.parametrize("shape", [(1, 3, 10**9, 10**9), (1, 10**9, 64, 3), (10**6, 3, 64, 64)])
def test_an_input_that_no_memory_holds_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    nodes = [node("Identity", ["images"], ["y"])]
    path = save(tmp_path / "large.onnx", nodes, {"y": FLOAT}, {}, shape, {"names": TWO})
    with pytest.raises(DetectorError, match="at most 4096 pixels and 256 images are supported"):
        load(path)


def test_a_sparse_tensor_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "sparse.onnx")
    model = onnx.load(path)
    values = onnx.helper.make_tensor("huge", FLOAT, [1], [1.0])
    places = onnx.helper.make_tensor("places", onnx.TensorProto.INT64, [1], [5])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [10**6, 10**6]))
    onnx.save(model, path)
    with pytest.raises(DetectorError, match="has a sparse tensor of 1000000000000 values, more than 536870912"):
        load(path)


# ---------------------------------------------------------------- outputs

BOXES = np.array([[[10, 20, 30, 40], [11, 20, 31, 40], [0, 0, 64, 32]]], np.float32)
SCORES = np.array([[[0.1, 0.9], [0.05, 0.8], [0.3, 0.0]]])
KEPT = [([10, 20, 30, 40], 0.9, 1), ([0, 0, 64, 32], 0.3, 0)]
"""By hand: the second overlaps the first by 19/21 of their union, in the same class."""


@pytest.mark.parametrize("names", [("boxes", "scores"), ("confs", "a")])
def test_boxes_and_scores_apart(names: tuple[str, str], tmp_path: Path) -> None:
    path = answers(tmp_path / "apart.onnx", dict(zip(names, (BOXES, SCORES), strict=True)), names=TWO)
    with pytest.raises(DetectorError, match=r"write apart.yaml beside it with coordinates: \(xyxy \| yxyx \| cxcywh"):
        load(path)
    detector = load(path, "coordinates: xyxy")
    assert detector.layout.decode == "boxes-scores" and detector.layout.outputs == names and detector.differentiable
    check(detector.detect(image(2), confidence=0.2)[1], KEPT)
    assert len(detector.detect(image(), confidence=0.2, nms_iou=0.95)[0].labels) == 3


COORDINATES = {
    "yxyx": BOXES[..., [1, 0, 3, 2]],
    "xywh": np.concatenate((BOXES[..., :2], BOXES[..., 2:] - BOXES[..., :2]), axis=2),
    "cxcywh": np.concatenate(((BOXES[..., :2] + BOXES[..., 2:]) / 2, BOXES[..., 2:] - BOXES[..., :2]), axis=2),
}


@pytest.mark.parametrize("kind", COORDINATES)
@pytest.mark.parametrize("unit", ["pixels", "normalised"])
def test_the_four_numbers_of_a_box(kind: str, unit: str, tmp_path: Path) -> None:
    boxes = COORDINATES[kind] / (64 if unit == "normalised" else 1)
    path = answers(tmp_path / "apart.onnx", {"b": boxes[:, :, None], "s": SCORES}, names=TWO)  # (b, n, 1, 4)
    check(load(path, f"coordinates: {kind}\nboxes: {unit}").detect(image(), confidence=0.2)[0], KEPT)


def test_numbers_that_the_wrong_order_turns_around_are_refused(tmp_path: Path) -> None:
    path = answers(tmp_path / "apart.onnx", {"b": COORDINATES["cxcywh"], "s": SCORES}, names=TWO)
    with pytest.raises(DetectorError, match=r"boxes with x1 < x0 or y1 < y0, such as .*coordinates: .*now xyxy\)"):
        load(path, "coordinates: xyxy")
    far = answers(tmp_path / "far.onnx", {"b": BOXES, "s": SCORES}, names=TWO)
    with pytest.raises(DetectorError, match="boxes outside twice the image, such as"):
        load(far, "coordinates: xyxy\nboxes: normalised")


def test_scores_that_are_logits(tmp_path: Path) -> None:
    p = np.clip(SCORES, 1e-6, None)
    logits = np.log(p / (1 - p))
    apart = answers(tmp_path / "apart.onnx", {"b": BOXES, "s": logits}, names=TWO)
    declared = "decode: boxes-scores\noutputs: [b, s]\ncoordinates: xyxy\n"
    with pytest.raises(DetectorError, match=r"scores from -13.8 to 2.2, which are no probabilities; .*logits: true"):
        load(apart, declared)
    check(load(apart, f"{declared}logits: true").detect(image(), confidence=0.2)[0], KEPT)

    share = np.array([[[0.5, 0.8, 0.1], [0.5, 0.6, 0.9], [0.9, 0.001, 0.99]]])
    boxes = np.array([[[20, 20, 20, 10], [21, 20, 20, 10], [40, 50, 8, 8]]])
    rows = np.concatenate((boxes, np.log(share / (1 - share))), axis=2)
    yolo = answers(tmp_path / "yolo.onnx", {"out": rows}, names=TWO)
    with pytest.raises(DetectorError, match=r"are no probabilities; write yolo\.yaml beside it with logits: true"):
        load(yolo)
    found = load(yolo, "logits: true").detect(image(), confidence=0.2)[0]
    wanted = [([36, 46, 44, 54], 0.891, 1), ([11, 15, 31, 25], 0.45, 1), ([10, 15, 30, 25], 0.4, 0)]
    check(found, wanted)


LABELS = np.array([[1, 1, 0]])
TOP = np.array([[0.9, 0.8, 0.3]])
ALL = [([10, 20, 30, 40], 0.9, 1), ([11, 20, 31, 40], 0.8, 1), ([0, 0, 64, 32], 0.3, 0)]


@pytest.mark.parametrize("count", [np.array([[2]]), np.array([2]), np.array([[2.0]])])
def test_answers_with_their_number(count: np.ndarray[Any, Any], tmp_path: Path) -> None:
    """As TensorRT's and TensorFlow's suppression give them: rows from there on are filling, whatever they hold."""
    tables = {"num": count, "boxes": BOXES, "scores": TOP, "classes": LABELS}
    detector = load(answers(tmp_path / "counted.onnx", tables, names=TWO))
    assert detector.layout.outputs == ("classes", "boxes", "scores", "num")
    check(detector.detect(image(2), confidence=0.2)[1], ALL[:2])


def test_answers_of_tensorflow(tmp_path: Path) -> None:
    """(y, x, y, x) in 0..1, labels as floats and from 1: nothing of it can be seen, so all is declared."""
    tables = {"boxes": COORDINATES["yxyx"] / 64, "classes": LABELS + 1.0, "num": np.array([3.0]), "scores": TOP}
    path = answers(tmp_path / "tf.onnx", tables, (1, 64, 64, 3), TWO, kind=BYTE)
    sidecar = "decode: boxes\noutputs: [classes, boxes, scores, num]\ncoordinates: yxyx\nboxes: normalised\n"
    with pytest.raises(DetectorError, match=r"labels that none of its 2 names has; .*first_label: 1 if they are count"):
        load(path, sidecar)
    check(load(path, f"{sidecar}first_label: 1").detect(image(), confidence=0.2)[0], ALL)


def test_labels_of_filling_do_not_count(tmp_path: Path) -> None:
    tables = {"labels": np.array([[1, 1, -1]]), "boxes": BOXES, "scores": TOP}
    check(load(answers(tmp_path / "filled.onnx", tables, names=TWO)).detect(image(), 0.2)[0], ALL[:2])


CENTRED = np.array([[[0.5, 0.5, 0.25, 0.5, 0.9, 0], [0.25, 0.75, 0.125, 0.125, 0.8, 1], [0.5, 0.5, 0.25, 0.5, 0, 0]]])
ONE_CLASS = np.array([[[10, 20, 30, 40, 0.9, 0], [0, 0, 64, 32, 0.3, 0]]], np.float32)
QUERIES = [([24, 16, 40, 48], 0.9, 0), ([12, 44, 20, 52], 0.8, 1)]


@pytest.mark.parametrize("sidecar", ["", "boxes: normalised", "decode: boxes\ncoordinates: cxcywh"])
def test_an_rtdetr_of_ultralytics(sidecar: str, tmp_path: Path) -> None:
    """A table like that of answers, but of centre and size in 0..1, as its metadata tell."""
    path = answers(tmp_path / "rtdetr.onnx", {"output0": CENTRED}, names=TWO, head="RTDETRDecoder")
    check(load(path, sidecar).detect(image(), confidence=0.2)[0], QUERIES)


def test_an_rtdetr_of_ultralytics_with_the_scores_of_all_classes(tmp_path: Path) -> None:
    """As older exports have it. Two queries in one place both stay: each object is found once."""
    rows = np.array([[[0.5, 0.5, 0.25, 0.5, 0.9, 0.1], [0.5, 0.5, 0.25, 0.5, 0.7, 0]]])
    path = answers(tmp_path / "rtdetr.onnx", {"output0": rows}, names=TWO, head="RTDETRDecoder")
    found = load(path).detect(image(), confidence=0.2)[0]
    check(found, [([24, 16, 40, 48], 0.9, 0), ([24, 16, 40, 48], 0.7, 0)])


def test_a_table_of_a_network_without_suppression(tmp_path: Path) -> None:
    """As YOLOv10 and YOLO26 have it. With one class its six columns could also be those of a YOLOv5."""
    path = answers(tmp_path / "ten.onnx", {"output0": ONE_CLASS}, names="{0: 'cup'}")
    with pytest.raises(DetectorError, match="can be read in several ways with 1 classes"):
        load(path)
    path = answers(tmp_path / "ten.onnx", {"output0": ONE_CLASS}, names="{0: 'cup'}", end2end="True")
    check(load(path).detect(image(), 0.2)[0], [([10, 20, 30, 40], 0.9, 0), ([0, 0, 64, 32], 0.3, 0)])


def test_a_table_of_centres_that_nobody_tells_of_is_refused(tmp_path: Path) -> None:
    path = answers(tmp_path / "table.onnx", {"output0": CENTRED}, names=TWO)
    with pytest.raises(DetectorError, match=r"boxes reach only to .*; write table\.yaml with boxes: normal"):
        load(path)
    with pytest.raises(DetectorError, match=r"gives 2 boxes with x1 < x0 or y1 < y0, such as .*now xyxy\)"):
        load(path, "boxes: normalised")


def test_in_use_boxes_without_sense_are_counted(tmp_path: Path) -> None:
    """The model turns its boxes around in bright images: on the trial image, of mean 0.5, it is right."""
    nodes = [
        node("ReduceMean", ["images"], ["mean"], keepdims=0),
        node("Greater", ["mean", "bright"], ["is bright"]),
        node("Where", ["is bright", "wrong", "right"], ["boxes"]),
        node("Identity", ["top"], ["scores"]),
        node("Where", ["is bright", "strange", "numbers"], ["labels"]),
    ]
    constants = {
        "bright": np.float32(0.8),
        "right": BOXES[0],
        "wrong": BOXES[0][:, [2, 1, 0, 3]],
        "top": TOP[0].astype(np.float32),
        "numbers": LABELS[0],
        "strange": np.array([1, 7, 0]),
    }
    constants["wrong"][2] = BOXES[0][2]
    outputs = {"boxes": FLOAT, "labels": onnx.TensorProto.INT64, "scores": FLOAT}
    path = save(tmp_path / "odd.onnx", nodes, outputs, constants, ("b", 3, 64, 64), {"names": TWO})
    detector = load(path)
    (found,) = detector.detect(image(), confidence=0.2)
    assert found.dropped == 0 and len(found.labels) == 3
    (found,) = detector.detect(torch.full((1, 3, 64, 64), 0.9), confidence=0.2)
    check(found, ALL[2:])
    assert found.dropped == 2  # one turned around, one of a class without a name


# ---------------------------------------------------------------- metadata

METADATA = {
    "stride": ({"stride": "1000000000"}, "the stride in its metadata is 1000000000; declare stride: in m.yaml"),
    "long names": ({"names": "[" * 1_000_001}, "names in its metadata has 1000001 characters; export it again"),
    "deep names": ({"names": "[" * 100_000}, "the class names in its metadata cannot be read"),
    "a long label": ({"names": f"{{{'1' * 4000}: 'a', 0: 'b'}}"}, "names must be numbered from 0 without a gap"),
    "many names": ({"names": str(["a"] * 30_001)}, "has 30001 class names; at most 30000 are supported"),
    "task": ({"task": "x" * 5000}, "is made for the task x+ … x+; give a model that detects boxes"),
}


@pytest.mark.parametrize("fault", METADATA)
def test_metadata_that_no_model_has(fault: str, tmp_path: Path) -> None:
    metadata, message = METADATA[fault]
    rows = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1]]])
    path = answers(tmp_path / "m.onnx", {"out": rows}, ("b", 3, "h", "w"), **{"names": TWO, **metadata})
    with pytest.raises(DetectorError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value) and len(str(caught.value)) <= 1000


def test_names_are_printable_and_short(tmp_path: Path) -> None:
    rows = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1]]])
    path = answers(tmp_path / "m.onnx", {"out": rows}, names=repr(["a\x1b[31mb\nc", "x" * 900_000]))
    assert [len(name) for name in load(path).class_names] == [12, 100]
    assert load(path).class_names[0] == "a\\x1b[31mb c"
    (tmp_path / "names.txt").write_text("x" * 10**7 + "\nperson\n")
    assert [len(name) for name in load(path, "names: names.txt").class_names] == [100, 6]
    (tmp_path / "names.txt").write_text("x" * 16_000_001)
    with pytest.raises(DetectorError, match=r"names.txt: is larger than 16 MB; it must be a text file"):
        load(path, "names: names.txt")


def test_names_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    rows = np.array([[[20, 20, 20, 10, 0.5, 0.8, 0.1]]])
    (tmp_path / "secret.txt").write_text("cup\nperson\n")
    (tmp_path / "models" / "names").mkdir(parents=True)
    path = answers(tmp_path / "models" / "m.onnx", {"out": rows})
    (path.parent / "names" / "ours.txt").write_text("cup\nperson\n")
    assert load(path, "names: names/ours.txt").class_names == ("cup", "person")
    (path.parent / "link.txt").symlink_to(tmp_path / "secret.txt")
    for outside in ("../secret.txt", "link.txt", "names/../../secret.txt", str(tmp_path / "secret.txt")):
        with pytest.raises(DetectorError, match="lies outside its folder; copy that file beside it"):
            load(path, f"names: {outside}")

"""What a detector's numbers must be: refused on the trial image, left out and counted in use, by every kind alike."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptiveisp.cli.parser import main
from adaptiveisp.detectors.answers import checked, choose, dropped_note, sound_boxes, try_out
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.detectors.yolo.exports import newer_yolo_remedy
from adaptiveisp.errors import AdaptiveISPError, DetectorError
from adaptiveisp.inference.detection import detect
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.types import Detections, Detector, Targets
from tests.support.photos import labelled_photos

NAN, INF = math.nan, math.inf

BOXES = {  # box in an image of 60 x 40 (width x height) → whether it makes sense, by hand
    (0.0, 0.0, 60.0, 40.0): True,
    (5.0, 5.0, 5.0, 5.0): True,  # no area, but in order
    (-300.0, -100.0, 350.0, 130.0): True,  # far larger than the image, but its centre (25, 15) lies in it
    (-30.0, 10.0, -30.0, 10.0): True,  # half a side outside, just
    (-31.0, 10.0, -30.0, 10.0): False,
    (80.0, 10.0, 101.0, 20.0): False,
    (10.0, 61.0, 20.0, 61.0): False,
    (20.0, 5.0, 19.9, 9.0): False,
    (5.0, 9.0, 20.0, 8.9): False,
    (NAN, 0.0, 1.0, 1.0): False,
    (0.0, 0.0, INF, 1.0): False,
    (-INF, 0.0, INF, 1.0): False,
}


@pytest.mark.parametrize("box", BOXES)
def test_boxes_that_make_sense(box: tuple[float, ...]) -> None:
    assert sound_boxes(torch.tensor([box]), 40, 60).tolist() == [BOXES[box]]


def test_candidates_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9], [9, 0, 0, 9], [1, 1, 5, 5], [2, 2, 6, 6], [9, 0, 0, 9]])
    scores = torch.tensor([[0.9, 0.2], [0.8, 0.7], [NAN, 0.9], [0.3, 1.5], [0.1, 0.1]])
    place, label, score, dropped = choose(boxes, scores, 0.15, 20, 20)
    # The second box is inverted, in two classes; the third and fourth have a score that is none; the last is too weak.
    assert (place.tolist(), label.tolist(), dropped) == ([0, 0], [0, 1], 3)
    torch.testing.assert_close(score, torch.tensor([0.9, 0.2]))
    nothing = choose(torch.zeros(0, 4), torch.zeros(0, 2), 0.1, 20, 20)
    assert len(nothing.place) == nothing.dropped == 0
    rounded = choose(boxes[:1], torch.tensor([[1.0004, -0.0004]]), 0.1, 20, 20)
    assert rounded.score.tolist() == [1.0] and rounded.dropped == 0


class Own:
    """A detector that always gives the same boxes."""

    name, class_names, stride, weights_sha256 = "own", ("cup", "person"), 8, ""

    def __init__(self, boxes: list[list[float]], scores: list[float], labels: list[int] | None = None):
        self.answer = Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(scores, dtype=torch.float32),
            torch.tensor(labels or [0] * len(scores), dtype=torch.long),
        )

    def loss(self, image: Tensor, targets: list[Targets]) -> Tensor:
        raise NotImplementedError

    def detect(self, image: Tensor, *options: Any, **named: Any) -> list[Detections]:
        return [self.answer] * len(image)


GOOD = [2.0, 2.0, 20.0, 20.0]

WRONG: dict[str, tuple[list[list[float]], list[float], str]] = {
    "score above 1": ([GOOD, GOOD], [0.5, 533.3], "gives scores from 0.5 to 533, which are no probabilities"),
    "score below 0": ([GOOD], [-0.5], "gives scores from -0.5 to -0.5"),
    "score NaN": ([GOOD], [NAN], "not finite"),
    "box NaN": ([[NAN, 1, 2, 3]], [0.5], "not finite"),
    "box inverted": ([GOOD, [30, 5, 20, 9]], [0.5, 0.4], r"gives 1 boxes with x1 < x0 or y1 < y0, such as \[30, 5, 20"),
    "box far": ([[900.0, 900, 950, 950]], [0.4], r"boxes outside twice the image, such as \[900, .* in 320x256 pixels"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_numbers_without_sense_are_refused_on_the_trial_image(fault: str) -> None:
    boxes, scores, message = WRONG[fault]
    with pytest.raises(DetectorError, match=message) as caught:
        try_out(Own(boxes, scores), "my_file:load")
    assert str(caught.value).startswith("my_file:load: on a trial image it ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", WRONG)
def test_numbers_without_sense_are_left_out_and_counted_in_use(fault: str) -> None:
    boxes, scores, _ = WRONG[fault]
    own = Own([GOOD, *boxes], [0.9, *scores])
    assert isinstance(own, Detector)
    (found,) = detect(own, [torch.zeros(1, 3, 32, 32)], (64, 64), 32, 0.1)
    good = len([score for score, box in zip(scores, boxes, strict=True) if score == 0.5 and box == GOOD])
    assert len(found.labels) == 1 + good and found.dropped == len(scores) - good
    assert found.boxes[0].tolist() == [4, 4, 40, 40]  # in pixels of the full frame, twice as large


def test_an_answer_of_other_shapes_is_an_error() -> None:
    wrong = (
        (torch.zeros(2, 4), torch.zeros(1), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(2, 5), torch.zeros(2), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(2, 4), torch.zeros(2), torch.zeros(2)),
        ([[0, 0, 1, 1]], [0.5], [0]),
    )
    own = Own([], [])
    for boxes, scores, labels in wrong:
        found = object.__new__(Detections)  # the tests check types of arguments, which users do without
        vars(found).update(boxes=boxes, scores=scores, labels=labels, dropped=0)
        with pytest.raises(DetectorError, match="detect must return boxes"):
            checked(own, found, 32, 32)
    with pytest.raises(DetectorError, match="returned a list, not Detections"):
        checked(own, [], 32, 32)
    with pytest.raises(DetectorError, match="unknown label; labels must be from 0 to 1"):
        checked(own, Own([GOOD], [0.5], [2]).answer, 32, 32)


def test_a_detector_that_fails_on_the_trial_image_may_serve_otherwise() -> None:
    class Fails(Own):
        def detect(self, image: Tensor, *options: Any, **named: Any) -> list[Detections]:
            raise RuntimeError("this size only")

    try_out(Fails([], []), "my_file:load")


def test_a_detector_that_fails_in_use_is_named() -> None:
    """The reason for a skipped file must not ask to replace the file."""

    class Fails(Own):
        def detect(self, image: Tensor, *options: Any, **named: Any) -> list[Detections]:
            raise ValueError("no weights\nat all")

    with pytest.raises(
        AdaptiveISPError, match=r"detector own: detect fails on an image of 32x32 pixels \(ValueError: no w"
    ):
        detect(Fails([], []), [torch.zeros(1, 3, 32, 32)], (64, 64), 32, 0.1)


def test_the_note_counts() -> None:
    assert dropped_note("detector x", 0) == ""
    assert dropped_note("detector x", 1).startswith("detector x: 1 box was left out")
    assert "12 boxes were left out" in dropped_note("detector x", 12)


def test_a_teacher_tells_of_boxes_left_out_once(caplog: pytest.LogCaptureFixture) -> None:
    teacher = Teacher(Own([GOOD, [30, 5, 20, 9]], [0.9, 0.8]), 0.5)
    with caplog.at_level(logging.WARNING, logger="adaptiveisp"):
        for title in ("one", "two"):
            teacher.label_photo(title, torch.full((3, 32, 32), 90, dtype=torch.uint8))
    assert [len(found) for found in teacher.answers.values()] == [1, 1] and teacher.dropped == 2
    assert len(caplog.records) == 1 and "detector own, first in one: 1 box was left out" in caplog.text


FICKLE = """
import torch
from adaptiveisp.types import Detections

class Fickle:
    name, class_names, stride, weights_sha256 = "fickle", ("cup", "person"), 8, ""
    calls = 0
    def loss(self, image, targets):
        raise ValueError("no loss today")
    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300):
        self.calls += 1
        right, wrong = [2.0, 2, 20, 20], [20.0, 2, 2, 20]
        boxes = torch.tensor([right, right if self.calls == 1 else wrong])
        return [Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0])) for _ in image]

def load():
    return Fickle()
"""


def test_the_command_line_tells_of_boxes_left_out_and_of_a_loss_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right on the trial image, wrong in use."""
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    (tmp_path / "fickle_detector.py").write_text(FICKLE)
    photos = ["--data", "labels.json", "--images", "images", "--light", "normal", "--detector", "fickle_detector:load"]
    options = ["--size", "64", "--policy", "none", "auto-exposure", "--resamples", "200", "--out", "report", "-q"]
    assert main(["eval", *photos, *options]) == 0
    told = capsys.readouterr().err
    assert "detector fickle gives no usable loss: ValueError: no loss today" in told
    assert "detector fickle: 6 boxes were left out as invalid" in told
    notes = " ".join(json.loads((tmp_path / "report" / "report.json").read_text())["notes"])
    assert "6 boxes were left out" in notes and "no loss today" in notes


def test_a_run_counts_boxes_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fickle_again.py").write_text(FICKLE)
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.random.default_rng(0).random((32, 32, 3), dtype=np.float32))
    arguments = ["--detector", "fickle_again:load", "--policy", "none", "--size", "32", "--out", "out", "-q"]
    assert main(["run", "a.npy", "b.npy", *arguments]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dropped_boxes"] == 2 and [row["dropped_boxes"] for row in summary["images"]] == [1, 1]
    boxes = json.loads((tmp_path / "out" / "a.boxes.json").read_text())["boxes"]
    assert [box["box"] for box in boxes] == [[2, 2, 20, 20]]
    assert "detector fickle: 2 boxes were left out" in capsys.readouterr().err


NEWER = {
    "yolov8n": "yolo export model=yolov8n.pt format=onnx, then --detector yolov8n.onnx",
    "models/yolo11s.pt": "yolo export model=yolo11s.pt format=onnx, then --detector yolo11s.onnx",
    "YOLOv10x.pt": "model=YOLOv10x.pt",
    "yolov8n-oiv7.pt": "model=yolov8n-oiv7.pt",
    "rtdetr-l": "model=rtdetr-l.pt",
    "yolov3": "",
    "yolov5s.pt": "",
    "best.pt": "",
    "yolo99": "",
}


@pytest.mark.parametrize("name", NEWER)
def test_the_way_to_a_newer_yolo_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert NEWER[name] in newer_yolo_remedy(name) and bool(newer_yolo_remedy(name)) == bool(NEWER[name])
    with pytest.raises(DetectorError if "." in name or "/" in name else Exception) as caught:
        load_detector(name)
    assert NEWER[name] in str(caught.value) and "yolo export model=" in str(caught.value)


CFG = """
[net]
[convolutional]
filters=2
size=1
stride=2
activation=linear
[convolutional]
filters=7
size=1
activation=linear
[yolo]
mask=0
anchors=8,8
classes=2
"""


def test_a_network_without_numbers_is_refused(tmp_path: Path) -> None:
    """Weights that are finite, and so large that infinity is subtracted from infinity."""
    (tmp_path / "odd.cfg").write_text(CFG)
    (tmp_path / "odd.names").write_text("cup\nperson\n")
    values = np.zeros(2 + 2 * 3 + 7 + 7 * 2, "<f4")
    header = np.array([0, 2, 0, 0, 0], "<i4").tobytes()
    (tmp_path / "odd.weights").write_bytes(header + values.tobytes())
    assert load_detector(tmp_path / "odd.weights").class_names == ("cup", "person")
    values[2:8], values[15:] = 3e38, np.resize([1, -1], 14)
    (tmp_path / "odd.weights").write_bytes(header + values.tobytes())
    with pytest.raises(DetectorError, match=r"odd.weights: on a trial image it gives [0-9]+ invalid boxes"):
        load_detector(tmp_path / "odd.weights")


def test_an_answer_is_in_order_not_too_long_and_not_below_what_was_asked() -> None:
    scores = torch.rand(500, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[1.0, 2, 9, 9]]) + torch.arange(500.0)[:, None] / 100
    found = checked(Own([], []), Detections(boxes, scores, torch.zeros(500, dtype=torch.long)), 60, 60, 0.1)
    order = scores.argsort(descending=True)[:300]
    assert torch.equal(found.scores, scores[order]) and torch.equal(found.boxes, boxes[order]) and found.dropped == 0
    few = checked(Own([], []), Detections(boxes, scores, torch.zeros(500, dtype=torch.long)), 60, 60, 0.9)
    assert 0 < len(few.scores) < 300 and few.scores.min() >= 0.9
    right = Detections(boxes[:2], torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.long))
    assert checked(Own([], []), right, 60, 60, 0.1) is right

"""`adaptiveisp.testing.check_detector` tells which promise a user's own detector breaks; training asks for some."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adaptiveisp import Detections, Detector
from adaptiveisp.errors import DetectorError
from adaptiveisp.testing import check_detector
from examples import own_detector
from examples.night_parts import night_parts
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import adaptiveisp


class Cells(own_detector.RedCells):
    """The example, whose methods the cases replace."""


def changed(**changes: Any) -> Cells:
    return type("Changed", (Cells,), changes)()


def boxes(count: int, scores: list[float] | None = None) -> Callable[..., list[Detections]]:
    box = torch.tensor([[1.0, 2, 30, 40]]).repeat(count, 1)
    found = Detections(box, torch.tensor(scores or [0.5] * count), torch.zeros(count, dtype=torch.long))
    return lambda self, image, **arguments: [found] * len(image)


def of_the_batch(self: Any, image: Tensor, targets: Any) -> Tensor:
    return Cells.loss(self, image, targets).mean().expand(len(image))


def by_all_objects(self: Any, image: Tensor, targets: Any) -> Tensor:
    count = max(1, sum(len(target.boxes) for target in targets))
    return Cells.loss(self, image, targets) / count


class WithNetwork(Cells):
    """A network in front of it."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def logits(self, image: Tensor) -> Any:
        return super().logits(self.layer(image))


class Counts(nn.Module):
    """Counts its calls in a buffer, as a batch norm in training does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return image


BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "no detector": (
        object,
        "a object is no detector, since it lacks name, class_names, stride, weights_sha256, loss, det",
    ),
    "facts": (lambda: changed(stride=0), "detector red-cells: its stride is 0, expected a whole number from 1"),
    "signature": (
        lambda: changed(detect=lambda self, image: []),
        r"detect\(image, confidence=0\.001\) fails on 2 images of 320x256 pixels \(TypeError: .*unexpected keyword",
    ),
    "no list": (
        lambda: changed(detect=lambda self, image, **_: None),
        "must return a list with one Detections for each",
    ),
    "no Detections": (
        lambda: changed(detect=lambda self, image, **_: [1] * len(image)),
        "detect returned a int, not Det",
    ),
    "scores": (lambda: changed(detect=boxes(1, [7.0])), "gives scores from 7 to 7, which are no probabilities"),
    "order": (lambda: changed(detect=boxes(2, [0.4, 0.5])), "must give the highest score first"),
    "too many": (lambda: changed(detect=boxes(2)), "gives more than max_detections=1"),
    "confidence": (lambda: changed(detect=boxes(1, [0.1])), r"gives scores below confidence=0\.3"),
    "batch statistics": (
        lambda: WithNetwork(nn.BatchNorm2d(3).requires_grad_(False)),
        "by itself and .* in a batch; call eval",
    ),
    "changes": (lambda: WithNetwork(Counts()), "its tensor layer.calls changes; call eval"),
    "not frozen": (
        lambda: WithNetwork(nn.BatchNorm2d(3).eval()),
        r"layer.weight is not frozen; call requires_grad_\(F",
    ),
    "loss of the batch": (lambda: changed(loss=of_the_batch), "depending on the other images of the batch; give each"),
    "divided by all objects": (lambda: changed(loss=by_all_objects), "depending on the other images of the batch"),
    "one loss": (
        lambda: changed(loss=lambda self, image, targets: image.mean()),
        r"a tensor of shape \(batch,\), not a",
    ),
    "loss fails": (
        lambda: changed(loss=lambda self, image: 0),
        r"loss\(image, targets\) fails on 2 images .*TypeError",
    ),
    "not finite": (
        lambda: changed(loss=lambda self, image, targets: image.mean((1, 2, 3)) / 0),
        "loss must give finite numbers",
    ),
    "no gradient": (
        lambda: changed(loss=lambda self, image, targets: image.detach().mean((1, 2, 3))),
        "its loss has no gradient for the image; if it can have none, give the detector differentiable = False",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_promise_that_is_broken_is_named(kind: str) -> None:
    make, message = BROKEN[kind]
    with pytest.raises(DetectorError, match=message) as caught:
        check_detector(make())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("detector", [own_detector.load(), night_parts.load_detector()], ids=lambda one: one.name)
def test_the_examples_hold_all(detector: Detector) -> None:
    check_detector(detector)
    check_detector(detector, size=100)


def test_a_list_of_class_names_and_a_detector_without_loss_are_allowed() -> None:
    def no_loss(self: Any, image: Tensor, targets: Any) -> Tensor:
        raise NotImplementedError

    check_detector(changed(class_names=["cup"]))
    check_detector(changed(loss=no_loss))
    check_detector(changed(loss=lambda self, image, targets: image.detach().mean((1, 2, 3)), differentiable=False))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongDetect", r"detect\(image, confidence=0\.001\) fails on 2 images of 64x64 pixels \(TypeError"),
        ("OfTheBatch", "depending on the other images of the batch"),
    ],
)
def test_training_refuses_a_detector_that_would_fail_later(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", 64, "--budget", 16)
    detector = f"tests.detectors.test_contract:{name}"
    assert adaptiveisp("train", *photos, "--detector", detector, "--method", "fixed", "--out", "run") == 1
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


class WrongDetect(RedDetector):
    def detect(self, image: Tensor) -> list[Detections]:  # type: ignore[override]
        return super().detect(image)


class OfTheBatch(RedDetector):
    def loss(self, image: Tensor, targets: Any) -> Tensor:
        return super().loss(image, targets).mean().expand(len(image))

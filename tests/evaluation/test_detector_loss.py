"""Losses of rendered images: what the detector is given, by hand; what counts as worse; detectors without a loss."""

import math

import numpy as np
import pytest
import torch

from adaptiveisp.detectors.class_names import ClassMap, map_classes
from adaptiveisp.detectors.letterbox import pad_to_frame
from adaptiveisp.errors import DetectorError
from adaptiveisp.evaluation.detector_loss import (
    DetectorEvaluator,
    ImageLabels,
    frame_targets,
    has_joint_pass,
    image_losses,
    share_worse,
    worst_mean,
)
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Developed, Policy
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.types import Annotation, Detections, Detector, RawImage, Targets
from tests.support.fake_detector import RedDetector

CUP, PERSON, CROWD = (
    Annotation(47, (20.0, 10.0, 40.0, 30.0), 1200.0),
    Annotation(1, (0.0, 0.0, 80.0, 40.0), 3200.0),
    Annotation(1, (0.0, 0.0, 160.0, 80.0), 12800.0, iscrowd=1),
)
MAP = map_classes(RedDetector.class_names, {1: "person", 47: "cup"})
BRIGHTER = FixedPipeline(Pipeline((Stage("exposure", {"ev": 1.0}),)), "brighter")


class Watched(RedDetector):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []
        self.targets: list[list[Targets]] = []

    def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
        self.images.append(image)
        self.targets.append(targets)
        return super().loss(image, targets)


def grey_raw(level: int = 6554, height: int = 80, width: int = 160) -> RawImage:
    return RawImage(np.full((height, width, 3), level, np.uint16), None, (0.0,) * 4, 65535.0)


def meter_of(policies: list[Policy], *detectors: Detector) -> DetectorEvaluator:
    return DetectorEvaluator(policies, detectors, [MAP] * len(detectors), 64, confidence=0.01)


def measured(meter: DetectorEvaluator, annotations: tuple[Annotation, ...] = (CUP,)) -> dict[str, object]:
    raw = grey_raw()
    developed = develop_at_size(raw, 64)
    images = [policy.render(developed).image for policy in meter.policies]
    found, losses = meter.measure(annotations, developed, images)
    assert all(len(found[detector.name]) == len(images) for detector in meter.detectors)
    return dict(losses)


def test_labels_are_given_in_pixels_of_the_padded_frame() -> None:
    # 160x80 becomes 64x32, in the middle of 64x64: everything is scaled by 0.4 and lies 16 pixels lower.
    _, letterbox = pad_to_frame(torch.zeros(1, 3, 32, 64), 64, (80, 160))
    flat, unknown = Annotation(47, (3.0, 3.0, 0.0, 9.0), 0.0), Annotation(99, (0.0, 0.0, 9.0, 9.0), 81.0)
    targets = frame_targets((CUP, CROWD, PERSON, flat, unknown), MAP.category_to_label, letterbox)
    assert targets.boxes.tolist() == [pytest.approx([8, 20, 24, 32]), pytest.approx([0, 16, 32, 32])]
    assert [RedDetector.class_names[label] for label in targets.labels.tolist()] == ["cup", "person"]
    nothing = frame_targets((CROWD,), MAP.category_to_label, letterbox)
    assert nothing.boxes.shape == (0, 4) and nothing.labels.shape == (0,)


def test_the_detector_sees_the_padded_renderings_with_their_labels() -> None:
    detector = Watched()
    images = [torch.full((1, 3, 32, 64), value) for value in (0.1, 0.7)]
    values = image_losses(detector, images, ImageLabels((CUP,), MAP.category_to_label, (80, 160)), 64)
    (seen,), (targets,) = detector.images, detector.targets
    assert seen.shape == (2, 3, 64, 64) and seen[1, :, 0, 0].tolist() == [0.5] * 3
    assert seen[1, 0, 16:48].unique().tolist() == pytest.approx([0.7])
    assert [target.boxes.tolist() for target in targets] == [[pytest.approx([8, 20, 24, 32])]] * 2
    # Its loss is 1 less the mean red: half of the frame is grey padding.
    assert values == pytest.approx([1 - (0.1 + 0.5) / 2, 1 - (0.7 + 0.5) / 2])


@pytest.mark.parametrize(
    ("policies", "rendered"),
    [
        ([BRIGHTER], 3),
        ([AutoExposure(), BRIGHTER], 3),
        ([FixedPipeline(Pipeline(())), BRIGHTER, AutoExposure()], 3),
        # Another pipeline of that name is not the reference.
        ([FixedPipeline(BRIGHTER.pipeline, "none")], 3),
    ],
)
def test_the_references_are_rendered_unless_they_were_asked_for(policies: list[Policy], rendered: int) -> None:
    detector = Watched()
    losses = measured(meter_of(policies, detector))["red"]
    assert len(detector.images) == 1 and len(detector.images[0]) == rendered
    # 6554 of 65535 is 0.1; one stop more is 0.2; auto-exposure aims at 0.18 in linear light, 0.461 after sRGB's curve.
    brighter = 1 - (0.2 + 0.5) / 2
    exposed = 1 - (0.4613 + 0.5) / 2
    assert losses.raw == pytest.approx(1 - (0.1 + 0.5) / 2, abs=1e-3)
    assert losses.auto_exposure == pytest.approx(exposed, abs=1e-3)
    expected = {"brighter": brighter, "none": brighter, "auto-exposure": exposed}
    for policy, value in zip(policies, losses.policies, strict=True):
        is_raw = policy == FixedPipeline(Pipeline(()))
        assert value == pytest.approx(losses.raw if is_raw else expected[policy.name], abs=1e-3)


class Odd(RedDetector):
    name = "odd"

    def __init__(self, answer: object) -> None:
        self.answer, self.asked = answer, 0

    def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (NotImplementedError(), "NotImplementedError"),
        (DetectorError("is an ONNX file\nwithout a loss"), "DetectorError: is an ONNX file"),
        (ZeroDivisionError("own code"), "ZeroDivisionError: own code"),
        (torch.tensor(1.0), "one finite number for each image"),
        (torch.tensor([1.0, float("nan"), 1.0]), "one finite number for each image"),
        (None, "one finite number for each image"),
    ],
)
def test_a_detector_without_a_usable_loss_is_asked_once_and_named(answer: object, reason: str) -> None:
    odd = Odd(answer)
    meter = meter_of([BRIGHTER], odd, RedDetector())
    assert list(measured(meter)) == list(measured(meter)) == ["red"]
    assert odd.asked == 1 and list(meter.unusable) == ["odd"]
    assert reason in meter.unusable["odd"] and "\n" not in meter.unusable["odd"]


class Both(RedDetector):
    """Answers both questions at once, as often as its `fails` allows, and keeps what it is asked."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.asked = fails, list[str]()

    def detect(self, image: torch.Tensor, confidence: float = 0.001, *rest: object) -> list[Detections]:
        self.asked.append(f"detect {len(image)}")
        return super().detect(image, confidence)

    def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
        self.asked.append(f"loss {len(image)}")
        if self.fails:
            raise NotImplementedError
        return super().loss(image, targets)

    def detect_with_loss(
        self, image: torch.Tensor, targets: list[Targets], detect_in: int, confidence: float = 0.001, *rest: object
    ) -> tuple[list[Detections], torch.Tensor]:
        self.asked.append(f"both {len(image)} {detect_in}")
        answer = RedDetector.loss(self, image, targets)
        return RedDetector.detect(self, image[:detect_in], confidence), answer / 0 if self.fails else answer


def test_a_detector_with_a_joint_pass_runs_once() -> None:
    both = Both()
    assert measured(meter_of([BRIGHTER], both)) == measured(meter_of([BRIGHTER], RedDetector()))
    assert both.asked == ["both 3 1"]
    without = meter_of([BRIGHTER], both)
    without.losses = False
    assert measured(without) == {} and both.asked[1:] == ["detect 1"]


def test_a_detector_that_fails_at_both_still_detects() -> None:
    both = Both(fails=True)
    meter = meter_of([BRIGHTER], both)
    assert measured(meter) == measured(meter) == {} and meter.unusable == {"red": "NotImplementedError"}
    assert both.asked == ["both 3 1", "detect 1", "loss 3", "detect 1"]


def test_a_loss_of_its_own_is_not_passed_by() -> None:
    class OwnLoss(Both):
        def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
            return image.new_ones(len(image))

    class OwnTerms(Both):
        def loss_terms(self, image: torch.Tensor, targets: list[Targets]) -> object:
            raise NotImplementedError

    patched = Both()
    patched.detect = RedDetector().detect  # type: ignore[method-assign]
    assert has_joint_pass(Both())
    assert not any(has_joint_pass(one) for one in (OwnLoss(), OwnTerms(), patched, RedDetector()))
    (losses,) = measured(meter_of([BRIGHTER], OwnLoss())).values()
    assert losses == ([1.0], 1.0, 1.0)


def test_the_worst_five_percent_are_at_least_one_image() -> None:
    assert worst_mean([]) is None
    assert worst_mean([2.0]) == 2.0
    assert worst_mean([float(i) for i in range(20)]) == 19.0
    assert worst_mean([float(i) for i in range(21)]) == 19.5, "rounded up to two"
    assert worst_mean([3.0] * 139 + [10.0]) == (10 + 6 * 3) / 7, "7 of 140, not 8 by rounding errors"


def test_worse_is_what_exceeds_the_tolerance() -> None:
    assert share_worse([], []) is None
    assert share_worse([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 4.0, 5.0]) == 0.25
    for base in (2.0, 0.001):
        assert share_worse([base * (1 + 5e-7)], [base]) == 0.0
        assert share_worse([base * (1 + 2e-6)], [base]) == 1.0
    assert share_worse([-0.9], [-1.0]) == 1.0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        share_worse([1.0], [1.0, 2.0])


def test_the_map_of_classes_is_the_detectors_own() -> None:
    detector = Watched()
    swapped = ClassMap({0: 47, 41: 1}, {47: 0, 1: 41}, ())
    raw = grey_raw()
    developed: Developed = develop_at_size(raw, 64)
    DetectorEvaluator([BRIGHTER], [detector], [swapped], 64, 0.01).measure((CUP, PERSON), developed, [developed.small])
    assert detector.targets[0][0].labels.tolist() == [0, 41]
    assert len(detector.images[0]) == 3 and all(math.isfinite(v) for v in detector.images[0].flatten()[:3].tolist())

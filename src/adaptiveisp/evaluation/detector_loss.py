"""The detector's loss of each rendered image, its mean over the worst images, and the share of images made worse.

Average precision hides single images: a policy may improve most and ruin a few. The loss is one number for each image,
so it shows them. The losses of every policy are compared with those of two references, the developed raw without
further modules and auto-exposure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from adaptiveisp.detectors.class_names import ClassMap
from adaptiveisp.detectors.letterbox import boxes_to_frame
from adaptiveisp.errors import DetectorError, logger
from adaptiveisp.inference.detection import detect, in_full_frame, pad_for
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Developed, Policy
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.types import Annotation, Detections, Detector, DetectsWithLoss, Image, Letterbox, Targets

RAW, AUTO_EXPOSURE = FixedPipeline(Pipeline(())), AutoExposure()
REFERENCES: tuple[Policy, ...] = (RAW, AUTO_EXPOSURE)
"""Policies whose losses those of all others are compared with, even if they are not evaluated themselves."""

WORST_PERCENT = 5
"""Percentage of the images, those with the highest losses, that `worst_mean` averages over."""

TOLERANCE = 1e-6
"""Relative difference up to which two losses count as equal, since rounding can cause it."""


class ImageLosses(NamedTuple):
    """One detector's losses of one image.

    Attributes:
        policies: loss of each policy's rendering, in the order of the policies.
        raw, auto_exposure: losses of the renderings of the two references.
    """

    policies: list[float]
    raw: float
    auto_exposure: float


class ImageLabels(NamedTuple):
    """One raw's labels for one detector.

    Attributes:
        annotations: labels in pixels of the upright full frame.
        to_label: category id → detector label.
        full_size: (height, width) of the full frame.
    """

    annotations: Sequence[Annotation]
    to_label: Mapping[int, int]
    full_size: tuple[int, int]

    def in_frames(self, letterboxes: Sequence[Letterbox], batch: Image) -> list[Targets]:
        """The targets in each of the padded images of a batch."""
        return [frame_targets(self.annotations, self.to_label, box, batch.device) for box in letterboxes]


@dataclass
class DetectorEvaluator:
    """Detects objects in the renderings of all policies, and computes the losses of detectors that have one.

    Attributes:
        policies: the evaluated policies; a reference among them is not rendered again.
        detectors: the detectors.
        maps: map of classes of each detector, in their order.
        size: longer side of the renderings in pixels.
        confidence: lowest score of a detection.
        losses: whether to compute losses.
        unusable: detector → why it gives no loss; its loss is not computed again.
        separate: detectors whose joint pass failed, so that detections and losses take a pass each.
    """

    policies: Sequence[Policy]
    detectors: Sequence[Detector]
    maps: Sequence[ClassMap]
    size: int
    confidence: float
    losses: bool = True
    unusable: dict[str, str] = field(default_factory=dict)
    separate: set[str] = field(default_factory=set)

    def measure(
        self, annotations: Sequence[Annotation], developed: Developed, images: Sequence[Image]
    ) -> tuple[dict[str, list[Detections]], dict[str, ImageLosses]]:
        """Detector → detections in each rendering of one image, and detector → losses, where it gives any.

        Args:
            annotations: labels in pixels of the upright full frame.
            developed: the raw, developed.
            images: (1, 3, h, w) rendering of each policy, before padding; at least one.

        Raises:
            DetectorError: a detector's detections make no sense.
        """
        asked = list(self.policies)
        reference_indices, rendered = [], list(images)
        for reference in REFERENCES if self.losses else ():
            if reference in asked:
                reference_indices.append(asked.index(reference))
            else:
                reference_indices.append(len(rendered))
                rendered.append(reference.render(developed).image)
        found: dict[str, list[Detections]] = {}
        losses: dict[str, ImageLosses] = {}
        for detector, class_map in zip(self.detectors, self.maps, strict=True):
            labels = ImageLabels(annotations, class_map.category_to_label, developed.full_size)
            found[detector.name], values = self._measure_with(detector, rendered, len(images), labels)
            if values is not None:
                raw_loss, auto_exposure_loss = (values[index] for index in reference_indices)
                losses[detector.name] = ImageLosses(values[: len(images)], raw_loss, auto_exposure_loss)
        return found, losses

    def _measure_with(
        self, detector: Detector, images: list[Image], detect_in: int, labels: ImageLabels
    ) -> tuple[list[Detections], list[float] | None]:
        """The detections in the first `detect_in` images, and the losses of all unless the detector gives none."""
        first = images[:detect_in]
        if not self.losses or detector.name in self.unusable:
            return detect(detector, first, labels.full_size, self.size, self.confidence), None
        if detector.name not in self.separate and has_joint_pass(detector):
            try:
                return detections_and_losses(detector, images, detect_in, labels, self.size, self.confidence)
            # An error of a user's detector is not lost: the separate passes below raise it again if it matters.
            except Exception:
                self.separate.add(detector.name)
        found = detect(detector, first, labels.full_size, self.size, self.confidence)
        try:
            return found, image_losses(detector, images, labels, self.size)
        # The loss is only a part of the report: an error of a user's detector in it must not stop the rest.
        except Exception as error:
            message = next(iter(str(error).splitlines()), "")
            self.unusable[detector.name] = f"{type(error).__name__}: {message}".rstrip(": ")
            logger.debug("detector %s: loss", detector.name, exc_info=error)
            logger.warning("detector %s gives no usable loss: %s", detector.name, self.unusable[detector.name])
            return found, None


def has_joint_pass(detector: Detector) -> TypeGuard[DetectsWithLoss]:
    """Whether the detector's `detect_with_loss` is valid: no subclass or object overrides `detect` or a loss alone."""
    # A subclass may override only the loss, which the joint method of its base class does not call.
    levels = [getattr(detector, "__dict__", {}), *(vars(kind) for kind in type(detector).__mro__)]
    both, *single = (
        next((number for number, level in enumerate(levels) if name in level), len(levels))
        for name in ("detect_with_loss", "detect", "loss", "loss_terms")
    )
    return isinstance(detector, DetectsWithLoss) and both <= min(single)


@torch.inference_mode()
def detections_and_losses(
    detector: DetectsWithLoss,
    images: Sequence[Image],
    detect_in: int,
    labels: ImageLabels,
    size: int,
    confidence: float,
) -> tuple[list[Detections], list[float]]:
    """The detections in the first images and the losses of all images, from one pass of the detector.

    The results equal those of `detection.detect` and `image_losses`.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each, before padding.
        detect_in: number of images, from the first on, in which objects are detected.
        labels: labels of the raw.
        size: longer side in pixels.
        confidence: lowest score of a detection.

    Raises:
        DetectorError: detections or losses make no sense.
        Exception: whatever the detector raises.
    """
    batch, letterboxes = pad_for(detector, images, labels.full_size, size)
    found, values = detector.detect_with_loss(batch, labels.in_frames(letterboxes, batch), detect_in, confidence)
    full = in_full_frame(detector, found, letterboxes[:detect_in], batch.shape[-1], confidence)
    return full, _checked(detector, values, len(images))


@torch.inference_mode()
def image_losses(detector: Detector, images: Sequence[Image], labels: ImageLabels, size: int) -> list[float]:
    """The detector's loss of each of several renderings of one raw, in the padded frame that it detects in.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each, before padding.
        labels: labels of the raw.
        size: longer side in pixels.

    Raises:
        DetectorError: the loss is not one finite number for each image.
        Exception: whatever the detector raises, such as NotImplementedError where it has no loss.
    """
    batch, letterboxes = pad_for(detector, images, labels.full_size, size)
    return _checked(detector, detector.loss(batch, labels.in_frames(letterboxes, batch)), len(images))


def _checked(detector: Detector, values: object, count: int) -> list[float]:
    """The losses as numbers.

    Raises:
        DetectorError: they are not one finite number for each image.
    """
    if not isinstance(values, Tensor) or values.shape != (count,) or not values.isfinite().all():
        raise DetectorError(f"detector {detector.name}: loss must return one finite number for each image")
    return [float(value) for value in values]


def frame_targets(
    annotations: Sequence[Annotation],
    to_label: Mapping[int, int],
    letterbox: Letterbox,
    device: str | torch.device = "cpu",
) -> Targets:
    """The labels in pixels of a padded frame, without crowds, empty boxes and classes that the detector does not know.

    Args:
        annotations: labels in pixels of the upright full frame, boxes xywh.
        to_label: category id → detector label.
        letterbox: position of the image in the frame.
        device: device of the result.
    """
    kept = [a for a in annotations if not a.iscrowd and min(a.bbox[2:]) > 0 and a.category_id in to_label]
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in kept)], dtype=torch.float32)
    labels = torch.tensor([to_label[a.category_id] for a in kept], dtype=torch.long)
    return Targets(boxes_to_frame(boxes.reshape(-1, 4), letterbox).to(device), labels.to(device))


def worst_mean(losses: Sequence[float]) -> float | None:
    """The mean of the highest `WORST_PERCENT` percent of the losses, rounded up to a whole image; None without losses.

    >>> worst_mean([1.0, 5.0, 2.0]), worst_mean([float(i) for i in range(40)])
    (5.0, 38.5)
    """
    count = -(-len(losses) * WORST_PERCENT // 100)
    worst = sorted(losses, reverse=True)[:count]
    return sum(worst) / count if count else None


def share_worse(losses: Sequence[float], reference: Sequence[float]) -> float | None:
    """The share (0..1) of images whose loss is above the reference's by more than `TOLERANCE`; None without losses.

    Args:
        losses, reference: one for each image, in the same order.

    >>> share_worse([1.0, 2.0, 3.0 + 1e-7, 0.5], [1.0, 1.9, 3.0, 0.6])
    0.25
    """
    pairs = list(zip(losses, reference, strict=True))
    return sum(loss - base > TOLERANCE * abs(base) for loss, base in pairs) / len(pairs) if pairs else None

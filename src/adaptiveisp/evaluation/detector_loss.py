"""The detector's loss of each rendered image, and what it says of harm: the worst images, and how many are made worse.

Average precision hides single images: a policy may gain on most and ruin some. The loss is one number an image, so it
shows them. Every policy's is held against two references, the raw input as it is and auto-exposure.
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
"""What every policy's losses are held against, whether it was asked for or not."""

WORST_PERCENT = 5
"""Percent of the images, those of highest loss, that `worst_mean` averages over."""

TOLERANCE = 1e-6
"""A loss is higher than another only if by more than this share of it: less is rounding."""


class ImageLosses(NamedTuple):
    """One detector's losses of one image.

    Attributes:
        policies: of each policy's rendering, in their order.
        raw, auto_exposure: of the two references.
    """

    policies: list[float]
    raw: float
    auto_exposure: float


class ImageLabels(NamedTuple):
    """One raw's labels for one detector.

    Attributes:
        annotations: in pixels of the upright full frame.
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
    """Takes the detections in every image, and the losses for as long as a detector gives them.

    Attributes:
        policies: those that are evaluated; a reference among them is not rendered again.
        detectors: each with its map of classes.
        maps: one a detector.
        size: longer side of the renderings in pixels.
        confidence: least score of a detection.
        losses: whether to take losses.
        unusable: detector → why it gives no loss; it is not asked again.
        apart: detectors that could not give both at once, and are asked for one after the other.
    """

    policies: Sequence[Policy]
    detectors: Sequence[Detector]
    maps: Sequence[ClassMap]
    size: int
    confidence: float
    losses: bool = True
    unusable: dict[str, str] = field(default_factory=dict)
    apart: set[str] = field(default_factory=set)

    def measure(
        self, annotations: Sequence[Annotation], developed: Developed, images: Sequence[Image]
    ) -> tuple[dict[str, list[Detections]], dict[str, ImageLosses]]:
        """Detector → detections in each rendering of one image, and detector → losses, nothing where it gives none.

        Args:
            annotations: labels in pixels of the upright full frame.
            developed: the raw, developed.
            images: (1, 3, h, w) each policy's rendering, before padding; at least one.

        Raises:
            DetectorError: a detector's detections make no sense.
        """
        asked = list(self.policies)
        places, seen = [], list(images)
        for reference in REFERENCES if self.losses else ():
            if reference in asked:
                places.append(asked.index(reference))
            else:
                places.append(len(seen))
                seen.append(reference.render(developed).image)
        found: dict[str, list[Detections]] = {}
        losses: dict[str, ImageLosses] = {}
        for detector, class_map in zip(self.detectors, self.maps, strict=True):
            labels = ImageLabels(annotations, class_map.category_to_label, developed.full_size)
            found[detector.name], values = self._look(detector, seen, len(images), labels)
            if values is not None:
                raw_loss, auto_exposure_loss = (values[place] for place in places)
                losses[detector.name] = ImageLosses(values[: len(images)], raw_loss, auto_exposure_loss)
        return found, losses

    def _look(
        self, detector: Detector, images: list[Image], detect_in: int, labels: ImageLabels
    ) -> tuple[list[Detections], list[float] | None]:
        """The detections in the first `detect_in` images, and the losses of all unless the detector gives none."""
        first = images[:detect_in]
        if not self.losses or detector.name in self.unusable:
            return detect(detector, first, labels.full_size, self.size, self.confidence), None
        if detector.name not in self.apart and gives_both(detector):
            try:
                return look_once(detector, images, detect_in, labels, self.size, self.confidence)
            # Whatever an own detector raises here, it is asked for one after the other below, where it shows again.
            except Exception:
                self.apart.add(detector.name)
        found = detect(detector, first, labels.full_size, self.size, self.confidence)
        try:
            return found, image_losses(detector, images, labels, self.size)
        # The loss is only one column of the report: whatever an own detector raises there, the rest goes on.
        except Exception as error:
            message = next(iter(str(error).splitlines()), "")
            self.unusable[detector.name] = f"{type(error).__name__}: {message}".rstrip(": ")
            logger.debug("detector %s: loss", detector.name, exc_info=error)
            logger.warning("detector %s gives no usable loss: %s", detector.name, self.unusable[detector.name])
            return found, None


def gives_both(detector: Detector) -> TypeGuard[DetectsWithLoss]:
    """Whether one look gives detections and losses, and nothing nearer to the object changes one of them alone."""
    # A subclass of ours may bring a loss of its own; what its base does at once would pass that by.
    levels = [getattr(detector, "__dict__", {}), *(vars(kind) for kind in type(detector).__mro__)]
    both, *single = (
        next((number for number, level in enumerate(levels) if name in level), len(levels))
        for name in ("detect_with_loss", "detect", "loss", "loss_terms")
    )
    return isinstance(detector, DetectsWithLoss) and both <= min(single)


@torch.inference_mode()
def look_once(
    detector: DetectsWithLoss,
    images: Sequence[Image],
    detect_in: int,
    labels: ImageLabels,
    size: int,
    confidence: float,
) -> tuple[list[Detections], list[float]]:
    """What `detection.detect` says of the first images and `image_losses` of all, where a detector gives both at once.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each, before padding.
        detect_in: so many are looked at for objects.
        labels: of the raw.
        size: longer side in pixels.
        confidence: least score to report.

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
        labels: of the raw.
        size: longer side in pixels.

    Raises:
        DetectorError: the loss is not one finite number an image.
        Exception: whatever the detector raises, such as NotImplementedError where it has no loss.
    """
    batch, letterboxes = pad_for(detector, images, labels.full_size, size)
    return _checked(detector, detector.loss(batch, labels.in_frames(letterboxes, batch)), len(images))


def _checked(detector: Detector, values: object, count: int) -> list[float]:
    """The losses as numbers; DetectorError where they are not one finite number an image."""
    if not isinstance(values, Tensor) or values.shape != (count,) or not values.isfinite().all():
        raise DetectorError(f"detector {detector.name}: loss must return one finite number for each image")
    return [float(value) for value in values]


def frame_targets(
    annotations: Sequence[Annotation],
    to_label: Mapping[int, int],
    letterbox: Letterbox,
    device: str | torch.device = "cpu",
) -> Targets:
    """The labels in pixels of a padded frame; left out are crowds, boxes without area and classes without a label.

    Args:
        annotations: labels in pixels of the upright full frame, boxes xywh.
        to_label: category id → detector label.
        letterbox: where the picture lies in the frame.
        device: of the result.
    """
    kept = [a for a in annotations if not a.iscrowd and min(a.bbox[2:]) > 0 and a.category_id in to_label]
    boxes = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in (a.bbox for a in kept)], dtype=torch.float32)
    labels = torch.tensor([to_label[a.category_id] for a in kept], dtype=torch.long)
    return Targets(boxes_to_frame(boxes.reshape(-1, 4), letterbox).to(device), labels.to(device))


def worst_mean(losses: Sequence[float]) -> float | None:
    """The mean of the highest `WORST_PERCENT` percent of the losses, rounded up to a whole image; None of nothing.

    >>> worst_mean([1.0, 5.0, 2.0]), worst_mean([float(i) for i in range(40)])
    (5.0, 38.5)
    """
    count = -(-len(losses) * WORST_PERCENT // 100)
    worst = sorted(losses, reverse=True)[:count]
    return sum(worst) / count if count else None


def share_worse(losses: Sequence[float], reference: Sequence[float]) -> float | None:
    """The share (0..1) of images whose loss is above the reference's by more than `TOLERANCE`; None of nothing.

    Args:
        losses, reference: one an image, in the same order.

    >>> share_worse([1.0, 2.0, 3.0 + 1e-7, 0.5], [1.0, 1.9, 3.0, 0.6])
    0.25
    """
    pairs = list(zip(losses, reference, strict=True))
    return sum(loss - base > TOLERANCE * abs(base) for loss, base in pairs) / len(pairs) if pairs else None

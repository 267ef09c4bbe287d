"""The detector's loss of each rendered image, and what it says of harm: the worst images, and how many are made worse.

Average precision hides single images: a policy may gain on most and ruin some. The loss is one number an image, so it
shows them. Every policy's is held against two references, the raw input as it is and auto-exposure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from adaptiveisp.classes import ClassMap
from adaptiveisp.errors import DetectorError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.letterbox import boxes_to_frame, frame_size, pad_to_frame
from adaptiveisp.policies import AnyPolicy, AutoExposure, FixedPipeline, Policy
from adaptiveisp.predictor import Developed, render
from adaptiveisp.types import Annotation, Detector, Image, Letterbox, RawImage, Targets

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


@dataclass
class LossMeter:
    """Takes the losses of every image, for as long as a detector gives them.

    Attributes:
        policies: those that are evaluated; a reference among them is not rendered again.
        detectors: each with its map of classes.
        maps: one a detector.
        size: longer side of the renderings in pixels.
        unusable: detector → why it gives no loss; it is not asked again.
    """

    policies: Sequence[AnyPolicy]
    detectors: Sequence[Detector]
    maps: Sequence[ClassMap]
    size: int
    unusable: dict[str, str] = field(default_factory=dict)

    def measure(
        self, annotations: Sequence[Annotation], raw: RawImage | None, developed: Developed, images: Sequence[Image]
    ) -> dict[str, ImageLosses]:
        """Detector → losses of one image; nothing of a detector that gives none.

        Args:
            annotations: labels in pixels of the upright full frame.
            raw: the raw, None where no policy needs it.
            developed: the same, developed.
            images: (1, 3, h, w) each policy's rendering, before padding.
        """
        asked = list(self.policies)
        places, seen = [], list(images)
        for reference in REFERENCES:
            if reference in asked:
                places.append(asked.index(reference))
            else:
                places.append(len(seen))
                seen.append(render(reference, raw, developed, self.size).image)
        full_size = developed.full_size
        result: dict[str, ImageLosses] = {}
        for detector, class_map in zip(self.detectors, self.maps, strict=True):
            if detector.name in self.unusable:
                continue
            try:
                values = image_losses(detector, seen, annotations, class_map.category_to_label, full_size, self.size)
            # The loss is only one column of the report: whatever an own detector raises there, the rest goes on.
            except Exception as error:
                message = next(iter(str(error).splitlines()), "")
                self.unusable[detector.name] = f"{type(error).__name__}: {message}".rstrip(": ")
            else:
                raw_loss, auto_exposure_loss = (values[place] for place in places)
                result[detector.name] = ImageLosses(values[: len(asked)], raw_loss, auto_exposure_loss)
        return result


@torch.inference_mode()
def image_losses(
    detector: Detector,
    images: Sequence[Image],
    annotations: Sequence[Annotation],
    to_label: Mapping[int, int],
    full_size: tuple[int, int],
    size: int,
) -> list[float]:
    """The detector's loss of each of several renderings of one raw, in the padded frame that it detects in.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each, before padding.
        annotations: labels in pixels of the upright full frame.
        to_label: category id → detector label.
        full_size: (height, width) of the full frame.
        size: longer side in pixels.

    Raises:
        DetectorError: the loss is not one finite number an image.
        Exception: whatever the detector raises, such as NotImplementedError where it has no loss.
    """
    frame = frame_size(size, detector.stride)
    padded = [pad_to_frame(image, frame, full_size) for image in images]
    batch = torch.cat([image for image, _ in padded])
    targets = [frame_targets(annotations, to_label, letterbox, batch.device) for _, letterbox in padded]
    values = detector.loss(batch, targets)
    if not isinstance(values, torch.Tensor) or values.shape != (len(images),) or not values.isfinite().all():
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

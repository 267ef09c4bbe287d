"""Detections in rendered images, which are padded to the detector's frame; boxes are converted to the full frame."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.answers import checked
from adaptiveisp.detectors.letterbox import boxes_to_full, frame_size, pad_to_frame
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger
from adaptiveisp.types import Detections, Detector, Image, Letterbox
from adaptiveisp.utils import defaults


def working_size(size: int | None, detectors: Sequence[Detector]) -> int:
    """The longer side in pixels at which policy, modules and detectors work.

    Args:
        size: size that the user chose, or None.
        detectors: a detector with an input of fixed size has the attribute `fixed`, (height, width).

    Raises:
        UsageError: no size is given, and the fixed sizes of two detectors differ.
    """
    if size is not None:
        return size
    sides = {detector.name: getattr(detector, "fixed", None) for detector in detectors}
    fixed = {name: max(of_one) for name, of_one in sides.items() if isinstance(of_one, tuple) and of_one}
    if len(set(fixed.values())) > 1:
        sizes = ", ".join(f"{name} {side}" for name, side in fixed.items())
        raise UsageError(f"the detectors have inputs of different fixed sizes ({sizes}); give --size")
    return next(iter(fixed.values()), defaults.SIZE)


@torch.inference_mode()
def detect(
    detector: Detector,
    images: list[Image],
    full_size: tuple[int, int] | Sequence[tuple[int, int]],
    size: int,
    confidence: float,
) -> list[Detections]:
    """Detections in several renderings of one raw, or of several, in pixels of the upright full frames.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each.
        full_size: (height, width) of the full frame, or one for each image.
        size: longer side in pixels.
        confidence: least score of the detections.

    Raises:
        DetectorError: the detector fails, or its output is not valid.
        AdaptiveISPError: the detector raised this error itself.
    """
    batch, letterboxes = pad_for(detector, images, full_size, size)
    try:
        found = detector.detect(batch, confidence=confidence)
    except AdaptiveISPError:
        raise
    # A user's own detector may raise any error, which must not be reported as the fault of the image.
    except Exception as error:
        logger.debug("detector %s", detector.name, exc_info=error)
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
        raise AdaptiveISPError(
            f"detector {detector.name}: detect fails on an image of {batch.shape[-1]}x{batch.shape[-2]} pixels "
            f"({reason}); correct the detector, or choose another --size; -v shows where"
        ) from error
    return in_full_frame(detector, found, letterboxes, batch.shape[-1], confidence)


def pad_for(
    detector: Detector,
    images: Sequence[Image],
    full_size: tuple[int, int] | Sequence[tuple[int, int]],
    size: int,
) -> tuple[Float[Tensor, "images 3 frame frame"], list[Letterbox]]:
    """The input batch of a detector from several renderings, and the place of each image in its frame.

    Args:
        detector: gives the stride of the frame.
        images: (1, 3, h, w) each.
        full_size: (height, width) of the full frame, or one for each image.
        size: longer side in pixels.
    """
    frame = frame_size(size, detector.stride)
    sizes: list[Any] = [one for one in full_size if isinstance(one, tuple)] or [full_size] * len(images)
    padded = [pad_to_frame(image, frame, one) for image, one in zip(images, sizes, strict=True)]
    return torch.cat([image for image, _ in padded]), [letterbox for _, letterbox in padded]


def in_full_frame(
    detector: Detector, found: list[Detections], letterboxes: Sequence[Letterbox], frame: int, confidence: float
) -> list[Detections]:
    """A detector's output for padded images, converted to pixels of the full frame and without invalid boxes.

    Args:
        detector: the detector.
        found: its output.
        letterboxes: place of each image in its frame.
        frame: side of the padded frames in pixels.
        confidence: least score of the detections.

    Raises:
        DetectorError: the output is not valid.
    """
    if not isinstance(found, list) or len(found) != len(letterboxes):
        raise DetectorError(f"detector {detector.name}: detect must return a list with one Detections for each image")
    answers = [checked(detector, detections, frame, frame, confidence) for detections in found]
    return [
        replace(answer, boxes=boxes_to_full(answer.boxes, letterbox))
        for answer, letterbox in zip(answers, letterboxes, strict=True)
    ]

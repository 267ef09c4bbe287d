"""Detections in rendered images: images are padded to the detector's frame, and boxes come back to full size."""

from collections.abc import Sequence
from dataclasses import replace

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
        size: as the user gave it, None where nothing was given.
        detectors: one whose input has a fixed size has it as `fixed`, (height, width) in pixels.

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
    detector: Detector, images: list[Image], full_size: tuple[int, int], size: int, confidence: float
) -> list[Detections]:
    """Detections in several renderings of one raw, in pixels of its upright full frame.

    Args:
        detector: the detector.
        images: (1, 3, h, w) each.
        full_size: (height, width) of the full frame.
        size: longer side in pixels.
        confidence: least score to report.

    Raises:
        DetectorError: the detector's answer makes no sense.
        AdaptiveISPError: it raises something else.
    """
    batch, letterboxes = pad_for(detector, images, full_size, size)
    try:
        found = detector.detect(batch, confidence=confidence)
    except AdaptiveISPError:
        raise
    # An own detector may raise anything. It is not the image's fault, as the reason for a skipped file would say.
    except Exception as error:
        logger.debug("detector %s", detector.name, exc_info=error)
        reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
        raise AdaptiveISPError(
            f"detector {detector.name}: detect fails on an image of {batch.shape[-1]}x{batch.shape[-2]} pixels "
            f"({reason}); correct the detector, or choose another --size; -v shows where"
        ) from error
    return in_full_frame(detector, found, letterboxes, batch.shape[-1], confidence)


def pad_for(
    detector: Detector, images: Sequence[Image], full_size: tuple[int, int], size: int
) -> tuple[Float[Tensor, "images 3 frame frame"], list[Letterbox]]:
    """Several renderings of one raw as the batch that a detector takes, and where each lies in its frame.

    Args:
        detector: says what its frame is a multiple of.
        images: (1, 3, h, w) each.
        full_size: (height, width) of the full frame.
        size: longer side in pixels.
    """
    frame = frame_size(size, detector.stride)
    padded = [pad_to_frame(image, frame, full_size) for image in images]
    return torch.cat([image for image, _ in padded]), [letterbox for _, letterbox in padded]


def in_full_frame(
    detector: Detector, found: list[Detections], letterboxes: Sequence[Letterbox], frame: int, confidence: float
) -> list[Detections]:
    """A detector's answer for padded images, in pixels of the upright full frame, without boxes that make no sense.

    Args:
        detector: whose answer it is.
        found: what it returned.
        letterboxes: where each image lies in its frame.
        frame: side of the padded frames in pixels.
        confidence: least score to report.

    Raises:
        DetectorError: the answer makes no sense.
    """
    if not isinstance(found, list) or len(found) != len(letterboxes):
        raise DetectorError(f"detector {detector.name}: detect must return a list with one Detections for each image")
    answers = [checked(detector, detections, frame, frame, confidence) for detections in found]
    return [
        replace(answer, boxes=boxes_to_full(answer.boxes, letterbox))
        for answer, letterbox in zip(answers, letterboxes, strict=True)
    ]

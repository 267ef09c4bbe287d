"""From one raw to what the detector sees in it: develop → resize → policy → modules → pad → detect."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.detectors.answers import checked
from adaptiveisp.detectors.letterbox import boxes_to_full, frame_size, pad_to_frame, resize_longer_side
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Developed, Picture, Planner, as_policy, needs_labels_error
from adaptiveisp.policies.registry import DEFAULT_POLICY, SHIPPED, load_policy
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.reader import BayerHeader, raw_in_memory, read_raw
from adaptiveisp.types import Detections, Detector, Image, Letterbox, RawImage
from adaptiveisp.utils import defaults

DEFAULT_SIZE = defaults.SIZE
"""Longer side in pixels at which policy, modules and detector work."""


@dataclass(frozen=True)
class Result:
    """The answer for one raw.

    Attributes:
        image: (3, h, w) what the detector saw, before padding, in [0, 1].
        detections: boxes in pixels of the upright full frame.
        class_names: names of the detections' labels.
        pipeline: the pipeline chosen, None for `camera`.
        full_size: (height, width) of the upright full frame.
        milliseconds: time of policy and modules.
        developed: the developed raw at both sizes.
        raw: the raw it is about.
    """

    image: Picture
    detections: Detections
    class_names: tuple[str, ...]
    pipeline: Pipeline | None
    full_size: tuple[int, int]
    milliseconds: float
    developed: Developed
    raw: RawImage


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
    return next(iter(fixed.values()), DEFAULT_SIZE)


def develop_at_size(
    raw: RawImage, size: int, camera_white_balance: bool = False, device: str | torch.device = "cpu"
) -> Developed:
    """The raw developed and resized so that its longer side is `size` pixels.

    Args:
        raw: any raw.
        size: pixels.
        camera_white_balance: apply the camera's own gains before the policy sees the image.
        device: where the small image goes.
    """
    full = develop(raw, camera_white_balance=camera_white_balance)
    small = resize_longer_side(full, size)[None].to(device)
    return Developed(full, small, (full.shape[1], full.shape[2]), raw)


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


def as_raw(raw: Any, header: Any) -> RawImage:
    """The raw that a file, a `RawImage` or an array of pixels stands for.

    Raises:
        RawFileError, UsageError: see `AdaptiveISP.__call__`.
    """
    if header is not None and not isinstance(header, BayerHeader):
        raise UsageError(f"header is of type {type(header).__name__}; give BayerHeader(…)")
    if isinstance(raw, RawImage | np.ndarray):
        return raw_in_memory(raw, header)
    if isinstance(raw, str | os.PathLike):
        return read_raw(Path(raw), header)
    what = "a RawImage, or a numpy array of its pixels with header=BayerHeader(…)"
    raise UsageError(f"an object of type {type(raw).__name__} is no raw: give the name of a file, {what}")


class AdaptiveISP:
    """A policy in front of a frozen detector.

    Args:
        policy: a name (`coco-adaptive`, `auto-exposure`, `camera` and others, see `load_policy`), a pipeline JSON, the
            folder of a training run, or a policy object.
        detector: a name, a weights file, `my_pkg.my_file:load`, or a detector object.
        size: longer side in pixels at which policy, modules and detector work; None takes that of the detector's input
            where it is fixed, as in some ONNX files, and 416 elsewhere.
        confidence: least score to report.
        camera_white_balance: apply the camera's own gains before the policy sees the image.
        device: where modules and detector run.

    Raises:
        UsageError: the policy does not exist, or needs labels.
    """

    def __init__(
        self,
        policy: str | Planner = DEFAULT_POLICY,
        detector: str | Detector = "yolov3-tiny",
        size: int | None = None,
        confidence: float = 0.25,
        camera_white_balance: bool = False,
        device: str = "cpu",
    ):
        self.policy = load_policy(policy, device) if isinstance(policy, str) else as_policy(policy)
        if self.policy.needs_labels:
            raise needs_labels_error(self.policy)
        self.detector = load_detector(detector, device) if isinstance(detector, str) else detector
        self.size = working_size(size, [self.detector])
        self.confidence = confidence
        self.camera_white_balance = camera_white_balance
        self.device = torch.device(device)
        self._said: set[str] = set()

    @classmethod
    def from_pretrained(
        cls, name: str = DEFAULT_POLICY, detector: str | Detector = "yolov3-tiny", **settings: Any
    ) -> "AdaptiveISP":
        """A policy that is shipped, in front of a detector.

        Args:
            name: one of `zoo.SHIPPED`: `coco-adaptive`, or `coco-fast` where time is short.
            detector: as for the class. The policies were learned for `yolov3-tiny`.
            settings: further arguments of the class.

        Raises:
            UsageError: no such policy is shipped.
        """
        if name not in SHIPPED:
            raise UsageError(f"no policy {name!r} is shipped; choose one of {', '.join(SHIPPED)}")
        return cls(name, detector, **settings)

    def __call__(self, raw: str | Path | RawImage | NDArray[Any], header: BayerHeader | None = None) -> Result:
        """The detections in a raw, and how it was rendered. What is doubtful about raws is logged once for each kind.

        Args:
            raw: a file, a raw that was read already, or the pixels of a frame, (height, width) or (height, width, 3).
            header: size, depth and pattern of a file that has no header of its own; pattern and levels of an array.

        Raises:
            RawFileError: the raw cannot be read, or makes no sense.
            UsageError: an array without header, a `RawImage` with one, or an object of another kind.
        """
        image = as_raw(raw, header)
        for remark in image.remarks:
            self._say_once(remark.kind, remark.text)
        if self.camera_white_balance and image.camera_gains is None:
            name = image.path or "RawImage"
            self._say_once("no gains", f"{name}: has no gains of the camera, so its white balance is not applied")
        developed = develop_at_size(image, self.size, self.camera_white_balance, self.device)
        rendered = self.policy.render(developed)
        full_size = developed.full_size
        found = detect(self.detector, [rendered.image], full_size, self.size, self.confidence)[0]
        return Result(
            image=rendered.image[0],
            detections=found,
            class_names=self.detector.class_names,
            pipeline=rendered.pipeline,
            full_size=full_size,
            milliseconds=rendered.milliseconds,
            developed=developed,
            raw=image,
        )

    def _say_once(self, kind: str, text: str) -> None:
        if kind not in self._said:
            logger.warning("%s", text)
            self._said.add(kind)

    @torch.inference_mode()
    def render_full(self, result: Result) -> Picture:
        """The rendering of an answer at full size: the chosen parameters applied to the whole frame."""
        return self.policy.render_full(result.developed, result.pipeline)

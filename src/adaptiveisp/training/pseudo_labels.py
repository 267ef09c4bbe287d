"""Targets without annotations: the confident detections of the frozen detector in the best rendering of each image.

A policy then learns to make the detector find in the dark the objects that it finds in good light. Its mistakes in good
light become targets as well, and objects that it misses there do not, so that annotations are better.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.detectors.answers import dropped_note
from adaptiveisp.detectors.boxes import as_annotations
from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.errors import logger
from adaptiveisp.inference.detection import detect
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.types import Annotation, Detections, Detector, Image
from adaptiveisp.utils.defaults import SIZE as DEFAULT_SIZE

EXPOSURES = (0.0, -1.0, 1.0, 2.0)
"""Stops relative to auto-exposure, which controls the mean of the whole frame. Objects may be much brighter or, more
often in dark images, much darker, so that there are more steps up than down."""


class Teacher:
    """Labels images with the detector's confident detections, each image once.

    Args:
        detector: the frozen detector.
        confidence: least score of a target, in (0, 1].
        device: device of the detector.
        size: longer side in pixels of the images that the detector gets.

    Attributes:
        answers: title of an image → its objects, in pixels of the upright full frame; their class is the detector's
            label.
        passes: images that went through the detector for that.
        dropped: boxes that were left out because their numbers are invalid.
    """

    def __init__(self, detector: Detector, confidence: float, device: str = "cpu", size: int = DEFAULT_SIZE):
        self.detector, self.confidence, self.device, self.size = detector, confidence, device, size
        self.answers: dict[str, tuple[Annotation, ...]] = {}
        self.passes = self.dropped = self._shared = 0

    def label_photo(self, title: str, photo: UInt8[Tensor, "3 height width"]) -> None:
        """Labels a clean photo.

        Args:
            title: of the image; an image with an answer is not labelled again.
            photo: sRGB code values, 0 to 255.
        """
        if title not in self.answers:
            self._answer(title, [self._small(photo / 255)], photo)

    def label_raw(
        self, title: str, full: Float[Tensor, "3 height width"], gains: tuple[float, float, float] | None
    ) -> None:
        """Labels a raw by the best of its `renderings`.

        Args:
            title: of the image; an image with an answer is not labelled again.
            full: the developed raw, linear RGB in [0, 1].
            gains: the camera's white balance as multipliers of (R, G, B); None if unknown or applied already.
        """
        if title not in self.answers:
            self._answer(title, renderings(self._small(full), gains), full)

    def _small(self, picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "1 3 _ _"]:
        """The image at the size that the detector gets, on its device."""
        return resize_longer_side(picture, self.size)[None].to(self.device)

    def _answer(self, title: str, images: list[Image], full: Tensor) -> None:
        full_size = (full.shape[1], full.shape[2])
        found = detect(self.detector, images, full_size, self.size, self.confidence)
        dropped = sum(detections.dropped for detections in found)
        if dropped and not self.dropped:  # one warning instead of one for each image
            logger.warning("%s", dropped_note(f"detector {self.detector.name}, first in {title}", dropped))
        self.dropped += dropped
        self.passes += len(images)
        self.answers[title] = as_annotations(best_of(found))

    def mark(self) -> None:
        """Marks the passes so far as those that the teachers of all ranks have in common."""
        self._shared = self.passes

    def merge(self, states: Sequence[dict[str, Any]]) -> None:
        """Takes over the answers and the passes of the teachers of all ranks.

        Args:
            states: result of `state_dict` on each rank; all had the same state at the last `mark`, merge or
                `load_state_dict`.
        """
        passes = self._shared + sum(state["passes"] - self._shared for state in states)
        answers = {title: found for state in states for title, found in state["answers"].items()}
        self.load_state_dict({"passes": passes, "answers": answers})

    @property
    def found_nothing(self) -> int:
        """Number of labelled images without a target."""
        return sum(not answer for answer in self.answers.values())

    def state_dict(self) -> dict[str, Any]:
        """The answers so far, in plain values."""
        answers = {title: [[a.category_id, *a.bbox] for a in found] for title, found in self.answers.items()}
        return {"passes": self.passes, "answers": answers}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`, so that a resumed run does not label these images again."""
        self.passes = self._shared = content["passes"]
        self.answers = {
            title: tuple(_annotation(label, x, y, width, height) for label, x, y, width, height in found)
            for title, found in content["answers"].items()
        }


@torch.inference_mode()
def renderings(linear: Float[Tensor, "1 3 height width"], gains: tuple[float, float, float] | None) -> list[Image]:
    """Several renderings of one raw, of which the teacher uses the best one.

    They are auto-exposure at each of `EXPOSURES`, and auto-exposure with the camera's own white balance instead of the
    gray-world balance, which fails on a frame of one colour.

    Args:
        linear: the developed raw, linear RGB in [0, 1].
        gains: the camera's white balance, or None.
    """
    balance, exposure, curve = AutoExposure().plan(linear)[0].stages
    limits = find_module("exposure", "wide").params[0]
    images = []
    for stops in EXPOSURES:
        ev = min(max(exposure.params["ev"] + stops, limits.low), limits.high)
        images.append(Pipeline((balance, replace(exposure, params={"ev": ev}), curve)).render(linear))
    if gains is not None:
        scale = linear.new_tensor(gains) / min(gains)  # as `develop` scales them
        balanced = (linear * scale[:, None, None]).clamp(0, 1)
        images.append(AutoExposure().plan_with(balanced, ("exposure", "srgb"))[0].render(balanced))
    return images


def best_of(found: Sequence[Detections]) -> Detections:
    """The detections with the largest sum of scores; the first of several equal ones.

    If a score is the probability that a detection is correct, the sum is the expected number of correct detections. The
    number of detections would prefer a rendering with many doubtful ones, and the highest or the mean score would
    prefer one that shows a single clear object.
    """
    return max(found, key=lambda detections: float(detections.scores.double().sum()))


def _annotation(label: int, x: float, y: float, width: float, height: float) -> Annotation:
    return Annotation(label, (x, y, width, height), width * height)

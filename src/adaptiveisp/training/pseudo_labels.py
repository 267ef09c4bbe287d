"""Targets without annotations: what the frozen detector itself is sure of, on the best picture of each image there is.

A policy is then trained towards seeing in the dark what the detector sees in good light. What it mistakes there becomes
a target too, and what it misses there does not: annotations, where there are any, are better.
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
"""Stops beside auto-exposure's own choice. It aims at the mean of the whole frame, while what is to be seen may lie in
the glare or, more often where light is short, in the shadow: hence more steps up than down."""


class Teacher:
    """The detector's confident detections as annotations; it looks at each picture once, and remembers.

    Args:
        detector: the frozen detector.
        confidence: least score of a target, in (0, 1].
        device: where the detector is.

    Attributes:
        answers: title of a picture → its objects, in pixels of the upright full frame; their class is the detector's
            label.
        passes: images that went through the detector for that.
        dropped: boxes that were left out because their numbers make no sense.
    """

    def __init__(self, detector: Detector, confidence: float, device: str = "cpu"):
        self.detector, self.confidence, self.device = detector, confidence, device
        self.answers: dict[str, tuple[Annotation, ...]] = {}
        self.passes = self.dropped = 0

    def label_photo(self, title: str, photo: UInt8[Tensor, "3 height width"]) -> None:
        """Finds what a clean photo shows.

        Args:
            title: of the picture; one that was looked at before is left alone.
            photo: sRGB code values, 0 to 255.
        """
        if title not in self.answers:
            self._answer(title, [self._small(photo / 255)], photo)

    def label_raw(
        self, title: str, full: Float[Tensor, "3 height width"], gains: tuple[float, float, float] | None
    ) -> None:
        """Finds what a raw shows, in the best of its `renderings`.

        Args:
            title: of the picture; one that was looked at before is left alone.
            full: the developed raw, linear RGB in [0, 1].
            gains: the camera's white balance as multipliers of (R, G, B); None if unknown or applied already.
        """
        if title not in self.answers:
            self._answer(title, renderings(self._small(full), gains), full)

    def _small(self, picture: Float[Tensor, "3 height width"]) -> Float[Tensor, "1 3 _ _"]:
        """The picture at the detector's size, where the detector is."""
        return resize_longer_side(picture, DEFAULT_SIZE)[None].to(self.device)

    def _answer(self, title: str, images: list[Image], full: Tensor) -> None:
        full_size = (full.shape[1], full.shape[2])
        found = detect(self.detector, images, full_size, DEFAULT_SIZE, self.confidence)
        dropped = sum(detections.dropped for detections in found)
        if dropped and not self.dropped:  # once, not for each of many pictures
            logger.warning("%s", dropped_note(f"detector {self.detector.name}, first in {title}", dropped))
        self.dropped += dropped
        self.passes += len(images)
        self.answers[title] = as_annotations(best_of(found))

    @property
    def found_nothing(self) -> int:
        """How many of the pictures that it looked at have no target."""
        return sum(not answer for answer in self.answers.values())

    def state_dict(self) -> dict[str, Any]:
        """What it found so far, in plain values."""
        answers = {title: [[a.category_id, *a.bbox] for a in found] for title, found in self.answers.items()}
        return {"passes": self.passes, "answers": answers}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave, so that a run that goes on need not look at those pictures again."""
        self.passes = content["passes"]
        self.answers = {
            title: tuple(_annotation(label, x, y, width, height) for label, x, y, width, height in found)
            for title, found in content["answers"].items()
        }


@torch.inference_mode()
def renderings(linear: Float[Tensor, "1 3 height width"], gains: tuple[float, float, float] | None) -> list[Image]:
    """Developments of one raw among which a detector may find a good one: all cheap, none of them learned.

    They are auto-exposure, the same at each of `EXPOSURES`, and auto-exposure with the camera's own white balance in
    the place of the grey world's, which a frame of one colour deceives.

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
    """The detections with the largest sum of scores; the first of several.

    A score says how likely a detection is to be right, so the sum is the number of right ones to be expected. The
    number of detections alone would prefer a rendering with many doubtful ones, the highest or the mean score one in
    which a single object is all that is left to see.
    """
    return max(found, key=lambda detections: float(detections.scores.double().sum()))


def _annotation(label: int, x: float, y: float, width: float, height: float) -> Annotation:
    return Annotation(label, (x, y, width, height), width * height)

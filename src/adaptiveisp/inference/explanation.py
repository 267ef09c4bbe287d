"""What each module of a pipeline is worth to each box: the pipeline is run again without one module at a time.

All other modules keep their parameters, also those that the policy would have set otherwise. Boxes are matched by class
and overlap. A box's score falls where a module that it needs is missing, and rises where the module harms it.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from adaptiveisp.detectors.boxes import pairwise_iou
from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.drawing import DRAW_CONFIDENCE, Rgb8
from adaptiveisp.inference.result_files import FileSet
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.types import Detections
from adaptiveisp.utils.clock import Stopwatch
from adaptiveisp.utils.color import to_uint8

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.result import Result

MATCH_IOU = 0.5
"""Least overlap (IoU) of a box with one of the same class in another rendering, to be taken for the same."""
MOST_EXPLAINED = 12
"""Most images of the page of explanations."""
LEAST_SCORE = 0.01
"""Least score of the boxes without a module; a box of a lower score counts as absent, with a score of 0."""


class FoundBox(NamedTuple):
    """A box xyxy in pixels of the upright full frame, its class and its score in [0, 1]."""

    box: tuple[float, float, float, float]
    name: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """The box as in `STEM.boxes.json`."""
        return {"box": [round(value, 2) for value in self.box], "class": self.name, "score": round(self.score, 4)}


@dataclass(frozen=True, eq=False)
class ModuleWorth:
    """The detections without one module.

    Attributes:
        stage: number of the stage that was left out, from 1.
        module: its module.
        params: its parameters, in physical units.
        scores: score of each box of the whole pipeline without this module; 0 where it is absent.
        appeared: boxes with a score of `DRAW_CONFIDENCE` or more that are there without the module only.
        image: the rendering without the module, (h, w, 3) 8-bit RGB.
    """

    stage: int
    module: str
    params: dict[str, float]
    scores: tuple[float, ...]
    appeared: tuple[FoundBox, ...]
    image: Rgb8


@dataclass(frozen=True, eq=False)
class Explanation:
    """What each module of a result's pipeline is worth to each of its boxes.

    Attributes:
        name: name of the raw.
        boxes: the boxes of the whole pipeline, best first.
        modules: the detections without each module, in the order they run; empty for `camera`, which has no pipeline.
        image: the rendering by the whole pipeline, (h, w, 3) 8-bit RGB.
        full_size: (height, width) of the full frame, to which the boxes belong.
        milliseconds: time of the renderings and detections without a module.
        has_pipeline: whether a pipeline made the image.
        module_set: named set of the pipeline's modules.
    """

    name: str
    boxes: tuple[FoundBox, ...]
    modules: tuple[ModuleWorth, ...]
    image: Rgb8
    full_size: tuple[int, int]
    milliseconds: float
    has_pipeline: bool = True
    module_set: str = DEFAULT_SET

    def worth(self, module: ModuleWorth) -> tuple[float, ...]:
        """The score of each box less its score without the module: above 0 where the module helps."""
        return tuple(box.score - score for box, score in zip(self.boxes, module.scores, strict=True))

    @property
    def drawn(self) -> tuple[int, ...]:
        """Indices of the boxes that have a score of `DRAW_CONFIDENCE` or more, with all modules or without one."""
        best = [max([box.score, *(m.scores[i] for m in self.modules)]) for i, box in enumerate(self.boxes)]
        return tuple(i for i, score in enumerate(best) if score >= DRAW_CONFIDENCE)

    @property
    def weight(self) -> float:
        """How much depends on single modules: the sum of all changes of score of the drawn boxes."""
        changes = (abs(self.worth(module)[i]) for module in self.modules for i in self.drawn)
        return sum(changes) + sum(box.score for module in self.modules for box in module.appeared)

    def _repr_html_(self) -> str:
        """The image with its boxes numbered, and a coloured table of the worths, which notebooks show."""
        from adaptiveisp.inference.explanation_html import explanation_html

        return explanation_html(self)

    def to_json(self) -> dict[str, Any]:
        """The content of `STEM.explain.json`."""
        return {
            "match": {"iou": MATCH_IOU, "least_score": LEAST_SCORE, "present_from": DRAW_CONFIDENCE},
            "renders": len(self.modules) + 1,
            "detections": len(self.modules) + 1,
            "milliseconds": round(self.milliseconds, 3),
            "has_pipeline": self.has_pipeline,
            "boxes": [box.to_json() for box in self.boxes],
            "without": [
                {
                    "stage": module.stage,
                    "module": module.module,
                    "params": module.params,
                    "scores": [round(score, 4) for score in module.scores],
                    "worth": [round(value, 4) for value in self.worth(module)],
                    "lost": self.lost(module),
                    "appeared": [box.to_json() for box in module.appeared],
                }
                for module in self.modules
            ],
        }

    def lost(self, module: ModuleWorth) -> list[int]:
        """Indices of the boxes that are absent without a module."""
        return [i for i, box in enumerate(self.boxes) if is_lost(box.score, module.scores[i])]


@dataclass
class ModuleTotal:
    """What a module is worth to all boxes of several images.

    Attributes:
        images: number of images whose pipeline has the module.
        place: sum of the places of its stages, from 1.
        stages: number of its stages.
        boxes: number of drawn boxes in them.
        worth: sum of the worths to these boxes.
        lost: number of boxes that are absent without the module.
        appeared: number of boxes that are there without it only.
    """

    images: int = 0
    place: int = 0
    stages: int = 0
    boxes: int = 0
    worth: float = 0.0
    lost: int = 0
    appeared: int = 0


class Explanations:
    """The explanations of a batch: sums of all images, and the images in which most depends on single modules.

    Args:
        most: number of images that are kept.

    Attributes:
        totals: module → its sums.
        kept: the explanations that are kept, those with the largest `weight`.
        count: number of explanations that were added.
    """

    def __init__(self, most: int = MOST_EXPLAINED):
        self.most = most
        self.totals: dict[str, ModuleTotal] = {}
        self.kept: list[Explanation] = []
        self.count = 0

    def add(self, explanation: Explanation) -> None:
        """Adds the explanation of one image."""
        self.count += 1
        drawn = explanation.drawn
        for name in dict.fromkeys(module.module for module in explanation.modules):
            total = self.totals.setdefault(name, ModuleTotal())
            total.images += 1
            total.boxes += len(drawn)
        for module in explanation.modules:
            total, worth = self.totals[module.module], explanation.worth(module)
            total.place, total.stages = total.place + module.stage, total.stages + 1
            total.worth += sum(worth[i] for i in drawn)
            total.lost += len(explanation.lost(module))
            total.appeared += len(module.appeared)
        self.kept.append(explanation)
        if len(self.kept) > self.most:
            self.kept.remove(min(self.kept, key=lambda one: one.weight))


class ExplanationWriter:
    """Places `STEM.explain.json` of each result of a run, and collects what a page needs.

    It is a `run_options.FrameWriter`, and runs the detector on the thread that calls it.

    Args:
        provenance: stored in each file.

    Attributes:
        found: the explanations so far.
    """

    def __init__(self, provenance: Mapping[str, Any]):
        self.provenance = dict(provenance)
        self.found = Explanations()
        self._lock = threading.Lock()

    def __call__(self, isp: "AdaptiveISP", result: "Result", files: FileSet, stem: str) -> None:
        """Places the file of one result."""
        explanation = explain(isp, result)
        content = {"file": result.file, **explanation.to_json(), "provenance": self.provenance}
        files.json(f"{stem}.explain.json", content)
        with self._lock:
            self.found.add(explanation)


def is_lost(score: float, without: float) -> bool:
    """Whether a box is present with all modules and not without one: its score falls below `DRAW_CONFIDENCE`.

    >>> is_lost(0.6, 0.1), is_lost(0.6, 0.3), is_lost(0.1, 0.0)
    (True, False, False)
    """
    return score >= DRAW_CONFIDENCE > without


@torch.inference_mode()
def explain(isp: "AdaptiveISP", result: "Result") -> Explanation:
    """What each module of a result's pipeline is worth to each of its boxes.

    For n modules this takes n renderings and n detections beside those of the result. Scores are those that the
    detector gives with all other modules; the worths of the modules do not add up to a box's score.

    Args:
        isp: the predictor that gave the result.
        result: its result.

    Raises:
        DetectorError: the detector's output is not valid.
    """
    boxes, pipeline = found_boxes(result.detections, result.class_names), result.pipeline
    picture = to_uint8(result.image)
    if pipeline is None:
        return Explanation(result.name, boxes, (), picture, result.full_size, 0.0, has_pipeline=False)
    stopwatch, modules = Stopwatch(isp.device), []
    for place, stage in enumerate(pipeline.stages):
        with stopwatch.part(str(place)):
            less = pipeline.with_stages([*pipeline.stages[:place], *pipeline.stages[place + 1 :]])
            image = less.clipped(less.render(result.developed.small))
            found = detect(isp.detector, [image], result.full_size, isp.size, LEAST_SCORE)[0]
        matched = match_boxes(result.detections, found)
        scores = [0.0] * len(boxes)
        others = found_boxes(found, result.class_names)
        for own, other in zip(matched, others, strict=True):
            if own is not None:
                scores[own] = other.score
        new = tuple(b for own, b in zip(matched, others, strict=True) if own is None and b.score >= DRAW_CONFIDENCE)
        worth = ModuleWorth(place + 1, stage.module, dict(stage.params), tuple(scores), new, to_uint8(image[0]))
        modules.append(worth)
    elapsed = sum(stopwatch.milliseconds.values())
    whole = (result.name, boxes, tuple(modules), picture, result.full_size, elapsed)
    return Explanation(*whole, module_set=pipeline.module_set)


def found_boxes(found: Detections, class_names: Sequence[str]) -> tuple[FoundBox, ...]:
    """Detections as plain values, in their order."""
    listed = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    return tuple(
        FoundBox((box[0], box[1], box[2], box[3]), shown_name(class_names[label]), score)
        for box, label, score in listed
    )


def match_boxes(boxes: Detections, others: Detections) -> list[int | None]:
    """For each of the other detections, the index of the box that it is taken for, or None.

    In the order of their scores, each of the others takes the free box of its class that it overlaps most, if the IoU
    is at least `MATCH_IOU`.

    Args:
        boxes, others: detections in the same pixels, best first.
    """
    overlaps = pairwise_iou(others.boxes, boxes.boxes).tolist()
    labels, free = boxes.labels.tolist(), set(range(len(boxes.labels)))
    matched: list[int | None] = []
    for label, row in zip(others.labels.tolist(), overlaps, strict=True):
        fits = [i for i in sorted(free) if labels[i] == label and row[i] >= MATCH_IOU]
        best = max(fits, key=lambda i: row[i], default=None)
        matched.append(best)
        free.discard(-1 if best is None else best)
    return matched

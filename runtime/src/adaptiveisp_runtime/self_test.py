"""Compares the outputs of a graph with those of the export's self-test."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.errors import RuntimeFault

IMAGES = ("image", "developed", "image_after")
"""Outputs that hold an image, of `full` and of parts."""

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SelfTest:
    """The outcome of a self-test.

    Attributes:
        faults: graph → what differs by more than its tolerance, in words; empty where nothing does.
        milliseconds: graph → time of its one call, which includes what a library does at the first call.
        providers: what ran the graphs.
    """

    faults: Mapping[str, tuple[str, ...]]
    milliseconds: Mapping[str, float]
    providers: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all graphs give the numbers of the export."""
        return not any(self.faults.values())

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        lines = [f"{name}: {'; '.join(said) or 'agrees'}" for name, said in self.faults.items()]
        return "\n".join([*lines, f"run by {', '.join(self.providers)}"])


def compare(wanted: Tensors, found: Tensors, limits: Mapping[str, float], pipeline: Mapping[str, Any]) -> Iterator[str]:
    """Yields what differs by more than its tolerance.

    Args:
        wanted, found: outputs by name.
        limits: the test's tolerances.
        pipeline: the manifest's description of the modules.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        yield f"has no output {missing[0]}"
        return
    if "modules" in wanted:
        if not np.array_equal(wanted["modules"], found["modules"]):
            yield f"modules are {found['modules'].tolist()} instead of {wanted['modules'].tolist()}"
            return
        spans = _spans(pipeline, wanted["modules"], wanted["params"].shape)
        yield from _difference("params", wanted["params"] / spans, found["params"] / spans, limits["params"])
    for name in IMAGES:
        if name in wanted:
            yield from _difference(name, wanted[name], found[name], limits["image"])
    if "boxes" in wanted:
        yield from _boxes(wanted, found, limits)


def _difference(name: str, wanted: NDArray[Any], found: NDArray[Any], limit: float) -> Iterator[str]:
    if wanted.shape != found.shape:
        yield f"{name} has the shape {found.shape} instead of {wanted.shape}"
        return
    most = float(np.abs(found - wanted).max(initial=0.0))
    if not most <= limit:  # NaN too
        yield f"{name} differs by {most:.3g}, more than {limit:g}"


def _spans(pipeline: Mapping[str, Any], modules: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The range of each parameter of a pipeline, 1 where there is none."""
    known = {int(module["id"]): module for module in pipeline["modules"]}
    spans = np.ones(shape)
    for place, number in enumerate(modules.tolist()):
        if number != int(pipeline["end"]):
            if number not in known:
                raise RuntimeFault(f"manifest.json: pipeline.modules has no module {number}; export the folder again")
            params = known[number]["params"]
            spans[place, : len(params)] = [float(param["high"]) - float(param["low"]) for param in params]
    return spans


def _boxes(wanted: Tensors, found: Tensors, limits: Mapping[str, float]) -> Iterator[str]:
    """What differs among detections; those with a score near the least one may be in one of the two alone."""
    least = limits["confidence"] + 2 * limits["scores"]
    for these, others, fault in ((wanted, found, "is missing"), (found, wanted, "should not be there")):
        for box, score, label in zip(these["boxes"], these["scores"], these["labels"], strict=True):
            alike = (others["labels"] == label) & (np.abs(others["scores"] - score) <= limits["scores"])
            if score > least and not (_overlap(others["boxes"][alike], box) >= limits["iou"]).any():
                yield f"a box of class {int(label)} with the score {float(score):.3f} {fault}"
                return


def _overlap(boxes: NDArray[Any], box: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of boxes xyxy with one box."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + float((box[2:] - box[:2]).prod()) - both
    return np.asarray(both / np.maximum(areas, 1e-9))

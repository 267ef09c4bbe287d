"""What an evaluation keeps of each sample, as JSON for evaluations whose samples are split among processes or hosts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.detectors.class_names import ClassMap
from adaptiveisp.evaluation.detector_loss import ImageLosses
from adaptiveisp.evaluation.pipeline_stats import Planned, as_planned
from adaptiveisp.isp.costs import Costs, cost_of
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.policies.base import Rendered
from adaptiveisp.types import Detections, Remark


@dataclass(frozen=True)
class Rendering:
    """What is kept of the image that a policy made.

    Attributes:
        ms, own_ms: time of policy and modules, and the part of it without modules, in milliseconds.
        pixels: of the image.
        pipeline: the pipeline; None for `camera`.
        module_set: named set of its modules.
        cost_ms: its cost by the cost table; None without a pipeline.
        dropped: modules that were dropped to keep a latency.
    """

    ms: float
    own_ms: float
    pixels: int
    pipeline: Planned | None = None
    module_set: str = DEFAULT_SET
    cost_ms: float | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """The detections in one rendering, in category ids of the data set.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the full frame.
        scores, category_ids: (n,).
        dropped: number of boxes that made no sense.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    category_ids: NDArray[Any]
    dropped: int = 0


@dataclass(frozen=True)
class SampleRecord:
    """What is kept of one sample.

    Attributes:
        number: its number in the data set, from 0.
        skipped: why it is left out for all policies; "" if it is not.
        remarks: doubts about the raw.
        renderings: of each policy, in their order.
        found: detector → its detections in each rendering.
        losses: detector → its losses; those without one are missing.
    """

    number: int
    skipped: str = ""
    remarks: tuple[Remark, ...] = ()
    renderings: tuple[Rendering, ...] = ()
    found: dict[str, tuple[Found, ...]] = field(default_factory=dict)
    losses: dict[str, ImageLosses] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as values for JSON, from which `record_from_json` makes the same one."""
        return {
            "number": self.number,
            "skipped": self.skipped,
            "remarks": [[remark.kind, remark.text] for remark in self.remarks],
            "renderings": [
                {
                    **{name: getattr(one, name) for name in ("ms", "own_ms", "pixels", "module_set", "cost_ms")},
                    "pipeline": None if one.pipeline is None else [[name, dict(given)] for name, given in one.pipeline],
                    "dropped": list(one.dropped),
                }
                for one in self.renderings
            ],
            "found": {
                name: [
                    [one.boxes.tolist(), one.scores.tolist(), one.category_ids.tolist(), one.dropped] for one in each
                ]
                for name, each in self.found.items()
            },
            "losses": {name: [one.policies, one.raw, one.auto_exposure] for name, one in self.losses.items()},
        }


def rendering_of(rendered: Rendered, costs: Costs) -> Rendering:
    """What is kept of a rendering."""
    pixels, pipeline = rendered.image.shape[2] * rendered.image.shape[3], rendered.pipeline
    return Rendering(
        rendered.milliseconds,
        rendered.milliseconds - rendered.modules_ms,
        pixels,
        as_planned(pipeline),
        DEFAULT_SET if pipeline is None else pipeline.module_set,
        None if pipeline is None else cost_of(pipeline, costs),
        rendered.dropped,
    )


def found_of(found: Detections, class_map: ClassMap) -> Found:
    """Detections in the data set's category ids, without those of classes that it does not know."""
    ids = np.array([class_map.label_to_category.get(label, -1) for label in found.labels.tolist()], dtype=np.int64)
    known = ids >= 0
    boxes, scores = found.boxes.cpu().double().numpy(), found.scores.cpu().double().numpy()
    return Found(boxes[known], scores[known], ids[known], found.dropped)


def record_from_json(value: Any) -> SampleRecord:
    """The record of a line that `SampleRecord.to_json` made.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    return SampleRecord(
        number=int(value["number"]),
        skipped=str(value["skipped"]),
        remarks=tuple(Remark(str(kind), str(text)) for kind, text in value["remarks"]),
        renderings=tuple(_rendering(one) for one in value["renderings"]),
        found={str(name): tuple(_found(*one) for one in each) for name, each in value["found"].items()},
        losses={
            str(name): ImageLosses([float(loss) for loss in own], float(raw), float(exposed))
            for name, (own, raw, exposed) in value["losses"].items()
        },
    )


def _rendering(value: Any) -> Rendering:
    plan = value["pipeline"]
    planned = None if plan is None else tuple((str(name), {**given}) for name, given in plan)
    cost = None if value["cost_ms"] is None else float(value["cost_ms"])
    times = float(value["ms"]), float(value["own_ms"])
    return Rendering(*times, int(value["pixels"]), planned, str(value["module_set"]), cost, tuple(value["dropped"]))


def _found(boxes: Any, scores: Any, ids: Any, dropped: Any) -> Found:
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    return Found(corners, np.array(scores, np.float64), np.array(ids, np.int64), int(dropped))

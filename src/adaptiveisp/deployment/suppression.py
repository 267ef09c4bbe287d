"""From candidate boxes to detections in pixels of the upright full frame, as nodes of a graph."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.detectors.answers import MARGIN, MOST_DETECTIONS


@dataclass(frozen=True)
class Suppression:
    """How detections are chosen among candidates.

    Attributes:
        confidence: scores at or below this are left out.
        iou: greatest overlap of two boxes of one class.
        most: most detections of an image.
        is_set: whether the detector finds each object once, so that nothing is suppressed.
    """

    confidence: float
    iou: float = 0.6
    most: int = MOST_DETECTIONS
    is_set: bool = False


def detections(ops: Ops, boxes: Value, scores: Value, frame: int, rule: Suppression) -> tuple[Value, Value, Value]:
    """Boxes (n, 4), scores (n,) and labels (n,), highest score first, boxes clipped to the frame.

    Args:
        ops: the graph.
        boxes: (1, m, 4) xyxy in pixels of the padded frame.
        scores: (1, m, classes).
        frame: side of the padded frame in pixels.
        rule: how they are chosen.
    """
    with ops.scope("suppression"):
        sound = _sound(ops, boxes, frame)
        by_class = ops("Transpose", ops.where(sound, scores, -1.0), perm=[0, 2, 1])
        if rule.is_set:
            chosen = _above(ops, by_class, rule.confidence)
        else:
            bounds = [np.asarray(value, np.float32) for value in (rule.iou, rule.confidence)]
            most = ops.constant(np.asarray([rule.most], np.int64))
            chosen = ops("NonMaxSuppression", boxes, by_class, most, *(bound.reshape(1) for bound in bounds))
        label, place = (ops.slice(chosen, 1, i, i + 1) for i in (1, 2))
        score = ops("GatherND", by_class, chosen, dtype=by_class.dtype)
        count = ops("Min", ops("Shape", score), rule.most)
        best, order = ops.several("TopK", 2, score, count, axis=0, largest=1, sorted=1)
        order.dtype = np.dtype(np.int64)
        label, place = (ops("Gather", ops.reshape(one, -1), order, axis=0) for one in (label, place))
        found = ops("Gather", ops.reshape(boxes, -1, 4), place, axis=0)
        return ops.clip(found, 0, frame), ops("Min", best, 1.0), label


def _sound(ops: Ops, boxes: Value, frame: int) -> Value:
    """Whether each box has its corners in order and its centre near the frame, (1, m, 1); false for NaN."""
    low, high = ops.slice(boxes, 2, 0, 2), ops.slice(boxes, 2, 2, 4)
    centre = (low + high) * 0.5
    tests = [
        ops("GreaterOrEqual", centre, -MARGIN * frame),
        ops("LessOrEqual", centre, (1 + MARGIN) * frame),
        ops("GreaterOrEqual", high, low),
    ]
    numbers = ops.cast(ops("And", ops("And", tests[0], tests[1]), tests[2]), np.float32)
    return ops("Greater", ops.reduce("Min", numbers, [2], keep=True), 0.5)


def _above(ops: Ops, by_class: Value, confidence: float) -> Value:
    """Indices (n, 3) of image, class and box of all pairs above the threshold."""
    places = ops("NonZero", ops("Greater", by_class, confidence))
    return ops("Transpose", places, perm=[1, 0])


def to_full_frame(
    ops: Ops, boxes: Value, inner: tuple[Value, Value], corner: tuple[Value, Value], full: tuple[Value, Value]
) -> Value:
    """Boxes in pixels of the upright full frame, clipped to it.

    Args:
        ops: the graph.
        boxes: (n, 4) in pixels of the padded frame.
        inner: height and width of the image in the padded frame.
        corner: rows above it and columns to the left of it.
        full: height and width of the full frame.
    """
    sizes = [[ops.cast(one, np.float32) for one in pair] for pair in (inner, corner, full)]
    (height, width), (top, left), (full_height, full_width) = sizes
    offset, scale, limit = (
        ops.concat([ops.reshape(one, 1) for one in four], 0)
        for four in (
            (left, top, left, top),
            (width / full_width, height / full_height) * 2,
            (full_width, full_height) * 2,
        )
    )
    return ops("Min", ops.clip((boxes - offset) / scale, 0.0), limit)

"""Boxes: conversions, overlap (IoU, complete IoU) and non-maximum suppression; in pixels unless stated otherwise."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.types import Annotation, Detections

CIOU_EPS = 1e-7
"""Added to the denominators of the complete IoU, as in AdaptiveISP, so that boxes without area give a finite value."""

GIOU_EPS = 1e-9
"""Least area of a union and a hull in the generalised IoU, so that boxes without area give a finite value."""

FIRST_NMS_CANDIDATES = 2_000
"""Boxes that are tried first in suppression, the best by score; all take part where these give too few detections."""

MAX_NMS_CANDIDATES = 30_000
"""Most boxes of one image that take part in suppression, the best by score; far more than 300 detections need."""

Boxes = Float[Tensor, "*n 4"]


def xyxy_to_xywh(boxes: Boxes) -> Boxes:
    """Boxes (x0, y0, x1, y1) as (x0, y0, width, height), COCO's form."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - boxes[..., :2]), dim=-1)


def xywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Boxes (x0, y0, width, height), COCO's form, as (x0, y0, x1, y1)."""
    return torch.cat((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), dim=-1)


def xyxy_to_cxcywh(boxes: Boxes) -> Boxes:
    """Boxes (x0, y0, x1, y1) as (centre x, centre y, width, height)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def cxcywh_to_xyxy(boxes: Boxes) -> Boxes:
    """Boxes (centre x, centre y, width, height) as (x0, y0, x1, y1).

    >>> cxcywh_to_xyxy(torch.tensor([[5.0, 5.0, 4.0, 2.0]])).tolist()
    [[3.0, 4.0, 7.0, 6.0]]
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def as_annotations(found: Detections) -> tuple[Annotation, ...]:
    """Detections as annotations in the same pixels; the detector's label becomes the category id."""
    boxes = xyxy_to_xywh(found.boxes.double()).tolist()
    return tuple(
        Annotation(label, (x, y, width, height), width * height)
        for label, (x, y, width, height) in zip(found.labels.tolist(), boxes, strict=True)
    )


def clip_boxes(boxes: Float[Tensor, "n 4"], height: int, width: int) -> Float[Tensor, "n 4"]:
    """The xyxy boxes cut off at the borders of an image of `height` x `width` pixels."""
    limit = boxes.new_tensor((width, height, width, height))
    return torch.minimum(boxes.clamp(min=0), limit)


def pairwise_iou(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every xyxy box of `first` with every one of `second`; 0 where both have no area.

    >>> pairwise_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[0.0, 0, 2, 1], [5, 5, 6, 6]])).tolist()
    [[0.5, 0.0]]
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_first = (first[:, 2:] - first[:, :2]).prod(-1)
    area_second = (second[:, 2:] - second[:, :2]).prod(-1)
    union = area_first[:, None] + area_second[None] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))


def complete_iou(predicted: Float[Tensor, "n 4"], target: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Complete IoU of aligned pairs of (cx, cy, w, h) boxes: IoU - (ρ²/c² + αv), at most 1.

    ρ is the distance of the centres, c the diagonal of the smallest box around both,
    v = 4/π² (atan(wt/ht) - atan(wp/hp))² and α = v / (v - IoU + 1), which passes no gradient.

    Args:
        predicted, target: boxes in the same unit, with widths and heights above 0.

    Source: Zheng et al. 2020, "Distance-IoU Loss", section 3.3.
    """
    corners, target_corners = cxcywh_to_xyxy(predicted), cxcywh_to_xyxy(target)
    predicted_size, target_size = predicted[:, 2:], target[:, 2:]
    low = torch.maximum(corners[:, :2], target_corners[:, :2])
    high = torch.minimum(corners[:, 2:], target_corners[:, 2:])
    overlap = (high - low).clamp(min=0)
    intersection = overlap[:, 0] * overlap[:, 1]
    areas = predicted_size[:, 0] * predicted_size[:, 1] + target_size[:, 0] * target_size[:, 1]
    union = areas - intersection + CIOU_EPS
    iou = intersection / union
    outer_low = torch.minimum(corners[:, :2], target_corners[:, :2])
    around = torch.maximum(corners[:, 2:], target_corners[:, 2:]) - outer_low
    diagonal_squared = around.square().sum(-1) + CIOU_EPS
    distance_squared = (predicted[:, :2] - target[:, :2]).square().sum(-1)
    target_angle = torch.atan(target_size[:, 0] / target_size[:, 1])
    predicted_angle = torch.atan(predicted_size[:, 0] / predicted_size[:, 1])
    shape = 4 / math.pi**2 * (target_angle - predicted_angle).square()
    alpha = (shape / (shape - iou + 1 + CIOU_EPS)).detach()
    return iou - (distance_squared / diagonal_squared + alpha * shape)


def generalized_iou(predicted: Float[Tensor, "n 4"], target: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Generalised IoU of aligned pairs of xyxy boxes: IoU - (hull - union) / hull, in [-1, 1].

    Args:
        predicted, target: boxes in the same unit, with their corners in order.

    Source: Rezatofighi et al. 2019, algorithm 1.

    >>> generalized_iou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 2, 1]])).tolist()
    [0.0]
    """
    low = torch.maximum(predicted[:, :2], target[:, :2])
    high = torch.minimum(predicted[:, 2:], target[:, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    areas = (predicted[:, 2:] - predicted[:, :2]).prod(-1) + (target[:, 2:] - target[:, :2]).prod(-1)
    union = (areas - intersection).clamp(min=GIOU_EPS)
    around = torch.maximum(predicted[:, 2:], target[:, 2:]) - torch.minimum(predicted[:, :2], target[:, :2])
    hull = around.prod(-1).clamp(min=GIOU_EPS)
    return intersection / union - (hull - union) / hull


def nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    labels: Int[Tensor, " n"],
    iou_threshold: float,
    max_detections: int,
) -> Int[Tensor, " kept"]:
    """Indices of the boxes that remain after greedy suppression within each class, highest score first.

    A box is suppressed if one of its class with a higher score overlaps it by more than `iou_threshold`. Boxes of equal
    score keep their order. Only the `MAX_NMS_CANDIDATES` best boxes take part.

    Args:
        boxes: xyxy, in pixels.
        scores: scores on any scale; higher is better.
        labels: class of each box; boxes of different classes do not suppress each other.
        iou_threshold: largest allowed IoU, in [0, 1].
        max_detections: most indices that are returned.
    """
    # The best few are mostly enough, and sorting and comparing all of a detector's pairs would take most of its time.
    # Suppression goes from the best down, so that what the best few decide does not depend on the others.
    for most in (min(FIRST_NMS_CANDIDATES, MAX_NMS_CANDIDATES), MAX_NMS_CANDIDATES):
        order = _best(scores.detach(), most)
        kept = _suppressed(boxes.detach()[order], labels[order], iou_threshold, max_detections)
        if len(kept) == max_detections or len(order) == len(scores):
            break
    return order[torch.as_tensor(kept, dtype=torch.int64, device=order.device)]


def _best(scores: Float[Tensor, " n"], most: int) -> Int[Tensor, " m"]:
    """Indices of at most `most` highest scores, the highest first; equal ones keep their order."""
    if len(scores) <= most:
        return torch.argsort(scores, descending=True, stable=True)
    least = scores.topk(most).values[-1]
    chosen = (~(scores < least)).nonzero().flatten()  # with NaN, which counts as the highest of all
    return chosen[torch.argsort(scores[chosen], descending=True, stable=True)][:most]


def _suppressed(
    boxes: Float[Tensor, "n 4"], labels: Int[Tensor, " n"], iou_threshold: float, max_detections: int
) -> list[int]:
    """Indices of the boxes that remain, at most `max_detections`, of boxes by falling score."""
    corners = boxes.cpu().numpy()
    classes = labels.cpu().numpy()
    x0, y0, x1, y1 = np.ascontiguousarray(corners.T)
    areas = (x1 - x0) * (y1 - y0)
    # Sorted by class and then by falling score, the boxes that a kept box can suppress lie between it and the end of
    # its class.
    by_class = np.argsort(classes, kind="stable")
    places = np.empty(len(classes), dtype=np.int64)
    places[by_class] = np.arange(len(classes))
    ends = np.searchsorted(classes[by_class], classes, side="right")
    suppressed = np.zeros(len(classes), dtype=bool)
    kept: list[int] = []
    for index in range(len(classes)):
        if len(kept) == max_detections:
            break
        if suppressed[index]:
            continue
        kept.append(index)
        others = by_class[places[index] + 1 : ends[index]]
        if len(others) == 0:
            continue
        width = np.minimum(x1[others], x1[index]) - np.maximum(x0[others], x0[index])
        height = np.minimum(y1[others], y1[index]) - np.maximum(y0[others], y0[index])
        intersection = np.maximum(width, 0) * np.maximum(height, 0)
        # This product form of IoU > threshold needs no division, so boxes without area cannot give NaN.
        suppressed[others[intersection > iou_threshold * (areas[others] + areas[index] - intersection)]] = True
    return kept

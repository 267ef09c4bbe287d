"""Losses of one image from a detector's final predictions, where its training heads are not at hand.

`detr_loss` is the published one. `decoded_loss` is ours, for boxes and class scores that are decoded already (YOLO):
every target is given one prediction of its own, targets and predictions matched so that Σ t is greatest, with

    t = 0.5 ln s + 6 ln u,    s the prediction's score for the target's class, u = (1 + GIoU) / 2.

With G targets, p the scores and E = 1e-6,

    L = [ Σ over targets (2 (1 - CIoU) + lp(s)) + Σ over all other scores p² lp(1 - p) ] / (64 max(G, 1)),
    lp(x) = -ln((x + E) / (1 + E)).

Left out of the last sum are scores for a class of boxes that overlap a target of that class by an IoU of 0.5 or more:
suppression removes them, or they are as good as the match. A target that no prediction is left for, of a model that
lists only some, costs what the worst would: 4 + lp(0).

Source: Carion et al. 2020 (DETR), section 3.1 and appendix A.4; Zhu et al. 2021 (Deformable DETR) for sigmoid models;
the exponents of t are those of task alignment, Feng et al. 2021 (TOOD) as YOLOv8 sets them; p² of the scores that
should be 0 is the focal weight of Lin et al. 2017.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.detectors.boxes import complete_iou, cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh
from adaptiveisp.types import Targets
from adaptiveisp.utils.optional_imports import import_extra

SCORE_POWER, OVERLAP_POWER = 0.5, 6.0
BOX_GAIN = 2.0
FOCUS = 2.0
LEAST_SCORE = 1e-6
"""Keeps the logarithm of a score finite; a target that is missed costs at most 13.8 for its score."""
SCALE = 1 / 64
"""Brings differences of the loss to those of a YOLO's own training loss, which the methods' settings were chosen for:
YOLOv3-tiny, the mean of 24 photos from all to 1 % of their light: 4.2 to 13.7 without this, 0.205 to 0.352 that."""
SAME_OBJECT = 0.5
SMALLEST_SIDE = 1e-3
"""Pixels that a box is taken to have at least."""
WORST_BOX = 2.0
"""1 - CIoU is about this for boxes far from each other."""

NO_OBJECT_WEIGHT, L1_GAIN, GIOU_GAIN = 0.1, 5.0, 2.0
FOCAL_ALPHA, FOCAL_GAMMA, FOCAL_GAIN = 0.25, 2.0, 2.0
IMPOSSIBLE = 1e9
"""Cost of a match with something that is not a number; the loss then is none either."""


def pairwise_giou(first: Float[Tensor, "n 4"], second: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Generalised IoU of every xyxy box with every other: IoU - (hull - union) / hull, in [-1, 1].

    Source: Rezatofighi et al. 2019.

    >>> pairwise_giou(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])).tolist()
    [[1.0, 0.0]]
    """
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    areas = (first[:, 2:] - first[:, :2]).prod(-1)[:, None] + (second[:, 2:] - second[:, :2]).prod(-1)[None]
    union = (areas - intersection).clamp(min=1e-12)
    outer_low = torch.minimum(first[:, None, :2], second[None, :, :2])
    outer_high = torch.maximum(first[:, None, 2:], second[None, :, 2:])
    hull = (outer_high - outer_low).prod(-1).clamp(min=1e-12)
    return intersection / union - (hull - union) / hull


def assigned(cost: Float[Tensor, "predictions targets"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Which prediction each target is given, the sum of costs the least there is (the Hungarian method).

    Args:
        cost: of every pair.

    Raises:
        AdaptiveISPError: scipy is not installed.
    """
    optimise = import_extra("scipy.optimize", "onnx")
    # Each target ends with one of its best G, G being the number of targets: no more have to be looked at.
    finite = cost.detach().double().nan_to_num(IMPOSSIBLE, IMPOSSIBLE, -IMPOSSIBLE)
    n, targets = finite.shape
    few = torch.unique(finite.topk(min(n, targets), dim=0, largest=False).indices)
    rows, columns = optimise.linear_sum_assignment(finite[few].cpu().numpy())
    chosen = few.cpu().numpy()[rows].astype(np.int64)
    order = np.argsort(columns)
    return torch.from_numpy(chosen[order]).to(cost.device), torch.from_numpy(columns[order]).to(cost.device)


def decoded_loss(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n classes"], targets: Targets
) -> Float[Tensor, ""]:
    """The loss of one image's decoded predictions; the formula is at the head of the file.

    Args:
        boxes: xyxy in pixels.
        scores: of each box for each class, in [0, 1].
        targets: in the same pixels.
    """
    truth, labels = targets.boxes.to(boxes), targets.labels.to(boxes.device).long()
    # A box turned inside out, or without area, is a thin one.
    low, high = boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + SMALLEST_SIDE)
    sound = torch.cat((low, high), dim=1)
    p = scores.clamp(0, 1)
    background = p.pow(FOCUS) * _minus_log(1 - p)
    if not len(labels):
        return SCALE * background.sum()
    counts = torch.ones_like(p, dtype=torch.bool)
    total = boxes.new_zeros(())
    place = target = labels[:0]
    if len(sound):
        with torch.no_grad():
            overlap = ((1 + pairwise_giou(sound, truth)) / 2).clamp(min=LEAST_SCORE)
            rank = SCORE_POWER * (p[:, labels] + LEAST_SCORE).log() + OVERLAP_POWER * overlap.log()
            place, target = assigned(-rank)
            same, column = (pairwise_iou(sound, truth) >= SAME_OBJECT).nonzero(as_tuple=True)
            counts[same, labels[column]] = False
            counts[place, labels[target]] = False
        ciou = complete_iou(xyxy_to_cxcywh(sound[place]), xyxy_to_cxcywh(truth[target]))
        total = (BOX_GAIN * (1 - ciou) + _minus_log(p[place, labels[target]])).sum()
    missed = len(labels) - len(place)
    worst = BOX_GAIN * WORST_BOX + float(_minus_log(torch.zeros(())))
    return SCALE * (total + missed * worst + (background * counts).sum()) / len(labels)


def _minus_log(x: Tensor) -> Tensor:
    return -((x + LEAST_SCORE) / (1 + LEAST_SCORE)).log()


def detr_loss(
    logits: Float[Tensor, "queries values"], boxes: Float[Tensor, "queries 4"], targets: Targets, sigmoid: bool
) -> Float[Tensor, ""]:
    """The loss of one image's set of predictions, matched one to one: classes + 5·L1 + 2·(1 - GIoU).

    Softmax models: cross-entropy, its mean weighted 0.1 where there is no object. Sigmoid models: focal loss (α 0.25,
    γ 2) summed over all queries and classes, twice. Sums are divided by the number of targets, at least 1.

    Args:
        logits: of each class; of no object in the last place, unless `sigmoid`.
        boxes: (centre x, centre y, width, height) in 0..1 of the input.
        targets: boxes xyxy in 0..1 of the input.
        sigmoid: whether classes are independent.
    """
    truth, labels = xyxy_to_cxcywh(targets.boxes.to(boxes)), targets.labels.to(boxes.device).long()
    place = target = labels[:0]
    if len(labels) and len(boxes):
        with torch.no_grad():
            cost = L1_GAIN * torch.cdist(boxes, truth, p=1) - GIOU_GAIN * pairwise_giou(
                cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(truth)
            )
            place, target = assigned(cost + _class_cost(logits, labels, sigmoid))
    n = max(1, len(labels))
    matched, wanted = boxes[place], truth[target]
    l1 = (matched - wanted).abs().sum() / n
    giou = 1 - pairwise_giou(cxcywh_to_xyxy(matched), cxcywh_to_xyxy(wanted)).diagonal()
    return _class_loss(logits, place, labels[target], n, sigmoid) + L1_GAIN * l1 + GIOU_GAIN * giou.sum() / n


def _class_cost(logits: Tensor, labels: Tensor, sigmoid: bool) -> Tensor:
    if not sigmoid:
        return -logits.softmax(-1)[:, labels]
    p = logits.sigmoid()[:, labels]
    positive = FOCAL_ALPHA * (1 - p) ** FOCAL_GAMMA * -(p + 1e-8).log()
    negative = (1 - FOCAL_ALPHA) * p**FOCAL_GAMMA * -(1 - p + 1e-8).log()
    return FOCAL_GAIN * (positive - negative)


def _class_loss(logits: Tensor, place: Tensor, labels: Tensor, n: int, sigmoid: bool) -> Tensor:
    if not sigmoid:
        none = logits.shape[1] - 1
        wanted = torch.full((len(logits),), none, device=logits.device).index_put((place,), labels)
        weights = logits.new_ones(none + 1)
        weights[none] = NO_OBJECT_WEIGHT
        return F.cross_entropy(logits, wanted, weights)
    wanted = torch.zeros_like(logits).index_put((place, labels), logits.new_ones(()))
    p = logits.sigmoid()
    plain = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    right = p * wanted + (1 - p) * (1 - wanted)
    weight = FOCAL_ALPHA * wanted + (1 - FOCAL_ALPHA) * (1 - wanted)
    return FOCAL_GAIN * (weight * (1 - right) ** FOCAL_GAMMA * plain).sum() / n

"""Losses of one image from a detector's final predictions, for models without their training heads.

`detr_loss` is the published loss. `decoded_loss` is defined here, for decoded boxes and class scores (YOLO): every
target is matched with one prediction of its own so that Σ t is greatest, with

    t = 0.5 ln s + 6 ln u,    s = the prediction's score for the target's class, u = (1 + GIoU) / 2.

With G targets, scores p and E = 1e-6,

    L = [ Σ over targets (2 (1 - CIoU) + lp(s)) + Σ over all other scores p² lp(1 - p) ] / (64 max(G, 1)),
    lp(x) = -ln((x + E) / (1 + E)).

The last sum leaves out the scores for a class of boxes that overlap a target of that class by an IoU of 0.5 or more:
these boxes are removed by suppression, or are as good as the match. If a model gives fewer predictions than there are
targets, each target without a match costs as much as the worst match: 4 + lp(0).

Source: Carion et al. 2020 (DETR), section 3.1 and appendix A.4; Zhu et al. 2021 (Deformable DETR) for sigmoid models;
the exponents of t are those of task alignment, Feng et al. 2021 (TOOD), with the values of YOLOv8; the weight p² of
scores that should be 0 is the focal weight of Lin et al. 2017.
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
"""Keeps the logarithm of a score finite; the score of a missed target costs at most 13.8."""
SCALE = 1 / 64
"""Scales differences of the loss to those of a YOLO's own training loss, for which the settings of the methods were
chosen. YOLOv3-tiny, mean of 24 photos at 100 % and 1 % of their light: 4.2 and 13.7 without this factor, while its own
loss is 0.205 and 0.352."""
SAME_OBJECT = 0.5
"""Least IoU at which a box and a target count as the same object."""
SMALLEST_SIDE = 1e-3
"""Least side of a box in pixels; smaller boxes are enlarged to it."""
WORST_BOX = 2.0
"""Approximate 1 - CIoU of boxes that are far from each other."""

NO_OBJECT_WEIGHT, L1_GAIN, GIOU_GAIN = 0.1, 5.0, 2.0
FOCAL_ALPHA, FOCAL_GAMMA, FOCAL_GAIN = 0.25, 2.0, 2.0
IMPOSSIBLE = 1e9
"""Cost of a match with a prediction that is NaN; the loss is then NaN, too."""


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
    """The assignment of predictions to targets with the least sum of costs (the Hungarian method).

    Args:
        cost: cost of every pair of prediction and target.

    Raises:
        AdaptiveISPError: scipy is not installed.
    """
    optimise = import_extra("scipy.optimize", "onnx")
    # With G targets, each target is assigned one of its G cheapest predictions, so the others are left out.
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
        scores: score of each box for each class, in [0, 1].
        targets: boxes in the same pixels.
    """
    truth, labels = targets.boxes.to(boxes), targets.labels.to(boxes.device).long()
    # A box without area, or with its corners in the wrong order, is given a least size.
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

    The class loss of softmax models is the mean cross-entropy, with weight 0.1 for "no object". That of sigmoid models
    is 2 times the focal loss (α 0.25, γ 2), summed over all queries and classes. Sums are divided by the number of
    targets, or by 1 if there are none.

    Args:
        logits: logit of each class, and of "no object" at the end unless `sigmoid`.
        boxes: (centre x, centre y, width, height) in 0..1 of the input.
        targets: boxes xyxy in 0..1 of the input.
        sigmoid: whether classes have independent sigmoid scores.
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

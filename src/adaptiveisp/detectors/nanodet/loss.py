"""The training loss of NanoDet for one image: quality focal loss, overlap of the boxes, and their distributions.

Source: Li et al. 2020 ("Generalized Focal Loss"), equations 4 to 6 and 9; the gains 1, 2 and 0.25 of its terms
are those of RangiLyu/nanodet.
Differs: the paper divides by the cells of all images of a batch, here each image by its own.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.boxes import generalized_iou, pairwise_iou
from adaptiveisp.detectors.nanodet.assignment import assign
from adaptiveisp.types import Targets

FOCUS = 2
"""Exponent β of the quality focal loss."""
BOX_GAIN, DISTRIBUTION_GAIN = 2.0, 0.25
LAST_BIN_MARGIN = 0.1
"""Distances are cut off this far below the last bin, in cells, so that each lies between two bins."""
SCALE = 1.0
"""Factor of the whole loss."""


def mean_distances(bins: Float[Tensor, "*cells sides bins"]) -> Float[Tensor, "*cells sides"]:
    """The mean distance to each side in cells, from the logits of its distribution over 0, 1, 2, … cells.

    >>> mean_distances(torch.zeros(1, 4, 11))
    tensor([[5., 5., 5., 5.]])
    """
    return bins.softmax(-1) @ torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)


def boxes_at(
    centres: Float[Tensor, "cells 2"], distances: Float[Tensor, "*batch cells 4"]
) -> Float[Tensor, "*batch cells 4"]:
    """Boxes xyxy from the distances of their left, top, right and bottom to the cells' centres, in pixels."""
    return torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)


def quality_focal_loss(
    logits: Float[Tensor, "cells classes"], quality: Float[Tensor, "cells classes"]
) -> Float[Tensor, ""]:
    """Σ |y - σ|^β · (binary cross-entropy of σ with y), with the scores σ and the wanted qualities y in [0, 1]."""
    weight = (quality - logits.sigmoid()).abs().pow(FOCUS)
    return (weight * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()


def distribution_loss(
    bins: Float[Tensor, "m sides bins"], distances: Float[Tensor, "m sides"]
) -> Float[Tensor, "m sides"]:
    """The cross-entropy of each distribution with the two bins beside the distance, weighted by their nearness."""
    left = distances.floor().long()
    share = distances - left
    log = bins.log_softmax(-1)
    lower, upper = (log.gather(-1, place[..., None])[..., 0] for place in (left, left + 1))
    return -((1 - share) * lower + share * upper)


def nanodet_loss(
    logits: Float[Tensor, "cells classes"],
    bins: Float[Tensor, "cells sides bins"],
    centres: Float[Tensor, "cells 2"],
    strides: Float[Tensor, " cells"],
    targets: Targets,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The two terms of the loss of one image: of boxes and distributions, and of the scores.

    The wanted quality is the IoU of the predicted box with its object at the cells of `assign`, else 0; the sum is
    divided by the number m of these cells, or 1. Boxes count with the score of their best class as a weight, without a
    gradient; their terms are divided by the sum of the weights.

    Args:
        logits: of the scores.
        bins: logits of the distribution of the distance to each side, over 0, 1, 2, … cells.
        centres: of the cells in pixels.
        strides: pixels a cell.
        targets: boxes in pixels.
    """
    cell, target = assign(centres, strides, targets.boxes)
    quality = torch.zeros_like(logits)
    box = logits.new_zeros(())
    if len(cell):
        truth, stride = targets.boxes[target], strides[cell, None]
        predicted = boxes_at(centres[cell], stride * mean_distances(bins[cell]))
        with torch.no_grad():
            overlap = pairwise_iou(predicted, truth).diagonal()
            quality[cell, targets.labels[target]] = overlap
            weight = logits[cell].sigmoid().amax(1)
        near = torch.cat((centres[cell] - truth[:, :2], truth[:, 2:] - centres[cell]), dim=1) / stride
        wanted = near.clamp(0, bins.shape[-1] - 1 - LAST_BIN_MARGIN)
        each = BOX_GAIN * (1 - generalized_iou(predicted, truth))
        each = each + DISTRIBUTION_GAIN * distribution_loss(bins[cell], wanted).mean(1)
        box = (weight * each).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
    return SCALE * box, SCALE * quality_focal_loss(logits, quality) / max(1, len(cell))

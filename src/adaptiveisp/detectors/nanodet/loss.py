"""The loss of NanoDet for one image: a focal loss of the scores, overlap of the boxes, and their distributions.

Source: Li et al. 2020 ("Generalized Focal Loss"), equations 4 to 6 and 9, with the gains 1, 2 and 0.25 of
RangiLyu/nanodet.
Differs: the wanted score of the cells of an object is 1, and all their boxes count the same. In the paper the wanted
score is the IoU of the cell's own box with the object, and boxes are weighted by their own scores. Both fall when the
network sees less, and the loss of the scores with them: over renderings at 1 to 100 % of the light (twelve photos) its
rank correlation with the loss of YOLOv3-tiny is -0.2, and that of the loss here 0.9. Each image is divided by the
number of its own cells, not by that of the batch.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.boxes import generalized_iou
from adaptiveisp.detectors.nanodet.assignment import assign
from adaptiveisp.types import Targets

FOCUS = 2
"""Exponent β of the focal loss."""
BOX_GAIN, DISTRIBUTION_GAIN = 2.0, 0.25
LAST_BIN_MARGIN = 0.1
"""Distances are cut off this far below the last bin, in cells, so that each lies between two bins."""
SCALE = 1 / 20
"""Scales differences of the loss to those of YOLOv3-tiny, for which the settings of the methods were chosen. The
difference of the best and the worst of seven renderings at 1 to 100 % of the light is 2.15 without this factor, and
0.115 for YOLOv3-tiny (mean of twelve photos)."""


def mean_distances(bins: Float[Tensor, "*cells sides bins"]) -> Float[Tensor, "*cells sides"]:
    """The mean distance to each side in cells, from the logits of its distribution over 0, 1, 2, … cells.

    >>> mean_distances(torch.zeros(1, 4, 11)).round(decimals=4)
    tensor([[5., 5., 5., 5.]])
    """
    return bins.softmax(-1) @ torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)


def boxes_at(
    centres: Float[Tensor, "cells 2"], distances: Float[Tensor, "*batch cells 4"]
) -> Float[Tensor, "*batch cells 4"]:
    """Boxes xyxy from the distances of their left, top, right and bottom to the cells' centres, in pixels."""
    return torch.cat((centres - distances[..., :2], centres + distances[..., 2:]), dim=-1)


def focal_loss(logits: Float[Tensor, "cells classes"], wanted: Float[Tensor, "cells classes"]) -> Float[Tensor, ""]:
    """Σ |y - σ|^β · (binary cross-entropy of σ with y), with the scores σ and the wanted scores y in [0, 1].

    This is the paper's quality focal loss; with y = 0 or 1 it is the focal loss of Lin et al. 2017 without its α.
    """
    weight = (wanted - logits.sigmoid()).abs().pow(FOCUS)
    return (weight * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum()


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

    The wanted score is 1 for the object of each cell of `assign`, else 0. Both terms are divided by the number of these
    cells, or 1.

    Args:
        logits: of the scores.
        bins: logits of the distribution of the distance to each side, over 0, 1, 2, … cells.
        centres: of the cells in pixels.
        strides: pixels a cell.
        targets: boxes in pixels.
    """
    cell, target = assign(centres, strides, targets.boxes)
    wanted = torch.zeros_like(logits)
    wanted[cell, targets.labels[target]] = 1
    box = logits.new_zeros(())
    if len(cell):
        truth, stride = targets.boxes[target], strides[cell, None]
        predicted = boxes_at(centres[cell], stride * mean_distances(bins[cell]))
        near = torch.cat((centres[cell] - truth[:, :2], truth[:, 2:] - centres[cell]), dim=1) / stride
        distances = near.clamp(0, bins.shape[-1] - 1 - LAST_BIN_MARGIN)
        overlap_loss = 1 - generalized_iou(predicted, truth)
        spread_loss = distribution_loss(bins[cell], distances).mean(1)
        box = (BOX_GAIN * overlap_loss + DISTRIBUTION_GAIN * spread_loss).mean()
    return SCALE * box, SCALE * focal_loss(logits, wanted) / max(1, len(cell))

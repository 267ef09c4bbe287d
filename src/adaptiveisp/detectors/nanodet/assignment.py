"""Adaptive training sample selection (ATSS): which cells must predict which object.

Source: Zhang et al. 2020 ("Bridging the Gap Between Anchor-based and Anchor-free Detection"), algorithm 1, with the
anchors of NanoDet: one square of five cells around the centre of each cell.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.detectors.boxes import pairwise_iou

ANCHOR_CELLS = 5
"""Side of an anchor in cells."""
CANDIDATES = 9
"""Cells of each level that are considered for an object, the nearest ones."""
LEAST_DISTANCE = 0.01
"""Pixels by which a cell's centre must lie within a box on each side."""


class Assigned(NamedTuple):
    """The cells that must predict an object, and the objects; each cell has at most one."""

    cell: Int[Tensor, " m"]
    target: Int[Tensor, " m"]


def assign(
    centres: Float[Tensor, "cells 2"], strides: Float[Tensor, " cells"], boxes: Float[Tensor, "n 4"]
) -> Assigned:
    """The cells that must predict each object.

    Candidates of an object are the nearest cells of each level. Of these remain the cells whose centre is in the box
    and whose anchor's IoU with it is at least the mean plus the standard deviation of the candidates' IoU. A cell of
    several objects goes to the one with the greatest IoU.

    Args:
        centres: of the cells of all levels in pixels; cells of one level follow each other.
        strides: pixels a cell.
        boxes: the objects, xyxy in pixels.
    """
    if not len(boxes) or not len(centres):
        nothing = torch.zeros(0, dtype=torch.long, device=centres.device)
        return Assigned(nothing, nothing)
    half = (ANCHOR_CELLS * strides / 2)[:, None]
    overlap = pairwise_iou(torch.cat((centres - half, centres + half), dim=1), boxes)
    distance = torch.cdist(centres, (boxes[:, :2] + boxes[:, 2:]) / 2, compute_mode="donot_use_mm_for_euclid_dist")
    levels = [(strides == stride).nonzero().flatten() for stride in torch.unique(strides)]
    candidate = torch.cat([level[_nearest(distance[level])] for level in levels])
    chosen = overlap.gather(0, candidate)
    threshold = chosen.mean(0) + chosen.std(0)
    near = torch.cat((centres[:, None] - boxes[:, :2], boxes[:, 2:] - centres[:, None]), dim=-1)
    inside = near.amin(-1) > LEAST_DISTANCE
    positive = torch.zeros_like(inside).scatter(0, candidate, chosen >= threshold) & inside
    best, target = overlap.masked_fill(~positive, -1).max(1)
    cell = (best >= 0).nonzero().flatten()
    return Assigned(cell, target[cell])


def _nearest(distance: Float[Tensor, "cells n"]) -> Int[Tensor, "candidates n"]:
    """The nearest cells of each object; of cells at the same distance the first."""
    return distance.sort(dim=0, stable=True).indices[:CANDIDATES]

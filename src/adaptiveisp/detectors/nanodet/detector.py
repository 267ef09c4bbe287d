"""NanoDet-g for COCO's classes, from its graph of TensorFlow.js.

Source: RangiLyu/nanodet; Li et al. 2020 ("Generalized Focal Loss") for its boxes.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.nanodet.loss import boxes_at, mean_distances, nanodet_loss
from adaptiveisp.detectors.tfjs.detector import BoxAndClass, GraphDetector, cell_grid
from adaptiveisp.detectors.tfjs.graph_file import read_graph
from adaptiveisp.detectors.tfjs.network import GraphNetwork, before_sigmoid
from adaptiveisp.types import Image, Targets

STRIDES = (8, 16, 32)
"""Pixels a cell of each level."""
SCORES = ("Identity", "Identity_1", "Identity_2")
DISTRIBUTIONS = ("Identity_3", "Identity_4", "Identity_5")
"""The outputs of each level: scores (batch, cells, classes) and distributions (batch, cells, 4 sides x bins)."""
SIDES = 4
BGR_MEAN, BGR_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""Mean and deviation of ImageNet's photos in 0..255, by which the network's input is normalised; blue comes first."""
WHITE = 255.0


class NanoDet(GraphDetector):
    """A frozen NanoDet; its input is BGR, normalised."""

    stride = max(STRIDES)

    def _prepared(self, image: Image) -> Image:
        scale = image.new_tensor(BGR_STD).reciprocal()[:, None, None]
        shift = image.new_tensor(BGR_MEAN)[:, None, None]
        return (image[:, [2, 1, 0]] * WHITE - shift) * scale

    def forward(self, image: Image) -> tuple[Tensor, ...]:
        """The logits of the scores, and the distributions with their bins as the last axis, of all cells."""
        outputs = super().forward(image)
        logits, bins = torch.cat(outputs[: len(STRIDES)], dim=1), torch.cat(outputs[len(STRIDES) :], dim=1)
        return logits, bins.reshape(*bins.shape[:2], SIDES, -1)

    def _decode(
        self, outputs: Sequence[Tensor], height: int, width: int
    ) -> tuple[Float[Tensor, "batch n 4"], Float[Tensor, "batch n classes"]]:
        """One box a cell; each side lies at the mean of its distribution from the centre of the cell."""
        logits, bins = outputs
        centres, strides = cells(height, width, bins)
        return boxes_at(centres, strides[:, None] * mean_distances(bins)), logits.sigmoid()

    def _loss_of(self, outputs: Sequence[Tensor], targets: Targets, height: int, width: int) -> BoxAndClass:
        logits, bins = outputs
        centres, strides = cells(height, width, bins)
        return nanodet_loss(logits, bins, centres, strides, targets)


def cells(height: int, width: int, like: Tensor) -> tuple[Float[Tensor, "cells 2"], Float[Tensor, " cells"]]:
    """The centres of the cells of all levels in pixels, and the strides of their levels.

    Args:
        height, width: size of the image in pixels, multiples of the greatest stride.
        like: gives type and device.
    """
    grids = [stride * (cell_grid(height // stride, width // stride, like) + 0.5) for stride in STRIDES]
    strides = [like.new_full((len(grid),), stride) for grid, stride in zip(grids, STRIDES, strict=True)]
    return torch.cat(grids), torch.cat(strides)


def load_nanodet(
    path: Path, weights: Path, name: str, weights_sha256: str = "", class_names: Sequence[str] = COCO_80
) -> NanoDet:
    """The frozen detector in two files of TensorFlow.js.

    Args:
        path, weights: the .json and the .bin file.
        name: short name for tables.
        weights_sha256: hash of the files.
        class_names: index = label.

    Raises:
        WeightsError: the files cannot be read, or are of another network.
    """
    graph = read_graph(path, weights)
    for output in SCORES:
        graph = before_sigmoid(graph, output)
    return NanoDet(GraphNetwork(graph, (*SCORES, *DISTRIBUTIONS)), name, class_names, weights_sha256)

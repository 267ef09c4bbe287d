"""MobileNetV3-CenterNet for COCO's classes, from its graph of TensorFlow.js.

Source: Zhou et al. 2019 ("Objects as Points"); the network is that of 610265158/mobilenetv3_centernet.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.centernet.loss import STRIDE, centernet_loss
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.tfjs.detector import BoxAndClass, GraphDetector, cell_grid
from adaptiveisp.detectors.tfjs.graph_file import read_graph
from adaptiveisp.detectors.tfjs.network import GraphNetwork, before_sigmoid
from adaptiveisp.types import Image, Targets

HEAT, SIDES = "tower_0/keypoints", "tower_0/wh"
"""The outputs: the heat map, and the distances to the left, top, right and bottom of the box in pixels."""
WHITE = 255.0
"""Value of white in the images that the network was trained with."""


class CenterNet(GraphDetector):
    """A frozen CenterNet; its input is RGB in 0..255."""

    stride = 32

    def _prepared(self, image: Image) -> Image:
        return image * WHITE

    def _decode(
        self, outputs: Sequence[Tensor], height: int, width: int
    ) -> tuple[Float[Tensor, "batch n 4"], Float[Tensor, "batch n classes"]]:
        """One box a cell; its score for a class is the heat map where that equals its maximum of 3 x 3 cells, else 0.

        The box at the cell (x, y) is (4x - left, 4y - top, 4x + right, 4y + bottom).
        """
        logits, sides = outputs
        heat = logits.sigmoid().permute(0, 3, 1, 2)
        peaks = torch.where(F.max_pool2d(heat, 3, stride=1, padding=1) == heat, heat, torch.zeros_like(heat))
        corner = STRIDE * cell_grid(heat.shape[2], heat.shape[3], sides)
        near = sides.flatten(1, 2)
        boxes = torch.cat((corner - near[..., :2], corner + near[..., 2:]), dim=-1)
        return boxes, peaks.flatten(2).transpose(1, 2)

    def _loss_of(self, outputs: Sequence[Tensor], targets: Targets, height: int, width: int) -> BoxAndClass:
        return centernet_loss(outputs[0], outputs[1], targets)


def load_centernet(
    path: Path, weights: Path, name: str, weights_sha256: str = "", class_names: Sequence[str] = COCO_80
) -> CenterNet:
    """The frozen detector in two files of TensorFlow.js.

    Args:
        path, weights: the .json and the .bin file.
        name: short name for tables.
        weights_sha256: hash of the files.
        class_names: index = label.

    Raises:
        WeightsError: the files cannot be read, or are of another network.
    """
    graph = before_sigmoid(read_graph(path, weights), HEAT)
    return CenterNet(GraphNetwork(graph, (HEAT, SIDES)), name, class_names, weights_sha256)

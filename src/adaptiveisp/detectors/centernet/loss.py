"""The training loss of CenterNet for one image: a focal loss of the heat map, and the overlap of the boxes.

Source: Zhou et al. 2019 ("Objects as Points"), equation 1, for the heat map; Law and Deng 2018 (CornerNet), section
3.2, for the radius of its targets; Liu et al. 2020 (TTFNet) for boxes by the distances to their sides, and their loss
5·(1 - GIoU), in the place of L1 in pixels, which would weigh large objects more.
Differs: the boxes are compared at the cells of the centres only (TTFNet: in an ellipse around them).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.detectors.boxes import generalized_iou
from adaptiveisp.types import Targets

STRIDE = 4
"""Pixels a cell of the heat map."""
FOCUS, PENALTY = 2, 4
"""Exponents α and β of the focal loss."""
LEAST_OVERLAP = 0.7
"""IoU that a box whose corners are off by the radius still has with its target."""
BOX_GAIN = 5.0
SCALE = 1 / 32
"""Scales differences of the loss to those of YOLOv3-tiny, for which the settings of the methods were chosen. The
difference of the best and the worst of seven renderings at 1 to 100 % of the light is 3.77 without this factor, and
0.115 for YOLOv3-tiny (mean of twelve photos). The rank correlation of the two losses over the renderings of a photo is
0.86 on average."""


def gaussian_radius(width: float, height: float, overlap: float = LEAST_OVERLAP) -> float:
    """The radius of a target in the heat map, in cells; it may be less than 1.

    The smallest of three roots, one for each way in which a box can be off: shifted, within the target, around it.
    Differs: as in the released code of CornerNet and CenterNet, by which such networks are trained, each root is
    (b + √(b² - 4ac)) / 2 of the quadratic a r² - b r + c, without a division by a; the radius is larger than in
    the paper.

    Args:
        width, height: sides of the object's box in cells.
        overlap: IoU that must remain.

    >>> round(gaussian_radius(10.0, 10.0), 3)
    2.733
    """
    total, area = width + height, width * height
    quadratics = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    return min((b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in quadratics)


def heat_targets(
    targets: Targets, classes: int, rows: int, columns: int
) -> tuple[Float[Tensor, "rows columns classes"], Int[Tensor, "n 2"]]:
    """The wanted heat map, and the (row, column) of the cell of each object's centre.

    Each object adds exp(-(Δx² + Δy²) / (2σ²)) within its radius r on either axis, with σ = (2r + 1) / 6 and r rounded
    down to whole cells; where several of a class overlap the greatest value counts.

    Args:
        targets: boxes in pixels.
        classes, rows, columns: size of the heat map.
    """
    boxes = targets.boxes / STRIDE
    heat = boxes.new_zeros(classes, rows * columns)
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2).floor().long()
    column, row = centre[:, 0].clamp(0, columns - 1), centre[:, 1].clamp(0, rows - 1)
    if len(boxes):
        sides = (boxes[:, 2:] - boxes[:, :2]).ceil().tolist()
        radius = boxes.new_tensor([max(0, int(gaussian_radius(*pair))) for pair in sides])[:, None, None]
        x = torch.arange(columns, device=boxes.device) - column[:, None, None]
        y = torch.arange(rows, device=boxes.device)[:, None] - row[:, None, None]
        sigma = (2 * radius + 1) / 6
        value = torch.exp(-(x.square() + y.square()) / (2 * sigma.square()))
        value = value * ((x.abs() <= radius) & (y.abs() <= radius))
        place = targets.labels[:, None].expand(-1, rows * columns)
        heat = heat.scatter_reduce(0, place, value.flatten(1), "amax")
    return heat.view(classes, rows, columns).permute(1, 2, 0), torch.stack((row, column), dim=1)


def focal_loss(
    logits: Float[Tensor, "rows columns classes"], wanted: Float[Tensor, "rows columns classes"]
) -> Float[Tensor, ""]:
    """The penalty-reduced focal loss of a heat map p with targets y, divided by the number of cells with y = 1, or 1.

    L = -Σ (1 - p)^α ln p over y = 1, - Σ (1 - y)^β p^α ln(1 - p) over all others.
    """
    p, centre = logits.sigmoid(), wanted == 1
    found = (1 - p).pow(FOCUS) * F.logsigmoid(logits)
    background = (1 - wanted).pow(PENALTY) * p.pow(FOCUS) * F.logsigmoid(-logits)
    return -torch.where(centre, found, background).sum() / centre.sum().clamp(min=1)


def centernet_loss(
    logits: Float[Tensor, "rows columns classes"], sides: Float[Tensor, "rows columns 4"], targets: Targets
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The two terms of the loss of one image: of the boxes, and of the heat map.

    Args:
        logits: the heat map before its sigmoid.
        sides: distances from the corner of each cell to the left, top, right and bottom of its box, in pixels.
        targets: boxes in pixels.
    """
    rows, columns, classes = logits.shape
    wanted, centres = heat_targets(targets, classes, rows, columns)
    row, column = centres.unbind(1)
    box = logits.new_zeros(())
    if len(centres):
        corner = STRIDE * centres.flip(1).to(sides)
        near = sides[row, column]
        predicted = torch.cat((corner - near[:, :2], corner + near[:, 2:]), dim=1)
        box = (1 - generalized_iou(_in_order(predicted), targets.boxes)).mean()
    return SCALE * BOX_GAIN * box, SCALE * focal_loss(logits, wanted)


def _in_order(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Boxes whose second corner is not before the first."""
    return torch.cat((boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2])), dim=1)

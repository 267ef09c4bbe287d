"""The training loss of a YOLO-style detector, per image, from the raw outputs ("heads") of its detection layers.

Boxes are in grid units of their layer: one unit is one cell, or image width / columns pixels.
Source: Wang et al. 2024 (AdaptiveISP) use the loss of a YOLOv3 trained with the matching and decode described here.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.detectors.boxes import complete_iou, xyxy_to_cxcywh
from adaptiveisp.detectors.checks import check_labels
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import LossTerms, Targets

Head = Float[Tensor, "batch anchors _ _ values"]
"""Logits of one layer (image, anchor, row, column, [x, y, w, h, objectness, classes…]); grids differ between layers."""

Anchors = Float[Tensor, "anchors 2"]
"""Widths and heights of one layer's anchors in pixels."""

Decode = Literal["darknet", "v5"]
"""Decoding of boxes. `darknet`: xy = σ + cell, wh = exp·anchor. `v5`: xy = 2σ - 0.5 + cell, wh = (2σ)²·anchor."""

DECODES: tuple[str, ...] = ("darknet", "v5")

ANCHOR_RATIO = 4.0
"""A target matches an anchor if their widths and heights both differ by less than this factor."""

NEIGHBOUR_REACH = 0.5
"""A target also matches a neighbouring cell if its centre is closer to it than this, in cells."""

LAYER_WEIGHTS = (4.0, 1.0, 0.4)
"""Weights of the layers' objectness loss, finest layer first; networks of fewer layers use the first weights."""

BOX_GAIN, OBJECTNESS_GAIN, CLASS_GAIN = 0.05, 1.0, 0.5
"""Gains for three layers, an image of `GAIN_IMAGE_SIZE` squared and `GAIN_CLASSES` classes."""

GAIN_LAYERS, GAIN_IMAGE_SIZE, GAIN_CLASSES = 3, 640, 80

MAX_SIZE_LOGIT = 10.0
"""Size logits are clamped to ± this value, a factor of 22,026; overflow would make every gradient NaN."""


class FlatTargets(NamedTuple):
    """The objects of all images of a batch: image index, label, and box (cx, cy, w, h) in pixels."""

    image: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    box: Float[Tensor, "n 4"]


class Matches(NamedTuple):
    """The cells and anchors of one layer that must predict a target.

    Attributes:
        image, anchor, row, column: indices into the head.
        label: class of the target.
        box: the target's (cx - column, cy - row, w, h) in grid units.
    """

    image: Int[Tensor, " m"]
    anchor: Int[Tensor, " m"]
    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    label: Int[Tensor, " m"]
    box: Float[Tensor, "m 4"]


def decode_boxes(
    logits: Float[Tensor, "*n 4"], anchors: Float[Tensor, "*#n 2"], decode: Decode
) -> Float[Tensor, "*n 4"]:
    """Boxes (cx, cy, w, h) from logits: centres in cells from their cell's corner, sizes in the unit of the anchors.

    Args:
        logits: the first four values of a head.
        anchors: width and height of the anchor of each box, in any unit.
        decode: see `Decode`.

    Source: Redmon and Farhadi 2018, section 2.1, for `darknet`.

    >>> decode_boxes(torch.zeros(1, 4), torch.tensor([[8.0, 6.0]]), "darknet").tolist()
    [[0.5, 0.5, 8.0, 6.0]]
    """
    centre = logits[..., :2].sigmoid()
    size = logits[..., 2:4].clamp(-MAX_SIZE_LOGIT, MAX_SIZE_LOGIT)
    if decode == "darknet":
        return torch.cat((centre, size.exp() * anchors), dim=-1)
    return torch.cat((2 * centre - 0.5, (2 * size.sigmoid()).square() * anchors), dim=-1)


def flatten_targets(targets: list[Targets], like: Tensor) -> FlatTargets:
    """The objects of all images as one list, on the device and in the dtype of `like`."""
    counts = torch.tensor([len(target.labels) for target in targets])
    image = torch.repeat_interleave(torch.arange(len(targets)), counts)
    label = torch.cat([target.labels.cpu().long() for target in targets])
    boxes = torch.cat([target.boxes.to(device="cpu", dtype=like.dtype) for target in targets])
    return FlatTargets(image.to(like.device), label.to(like.device), xyxy_to_cxcywh(boxes).to(like.device))


def match_targets(
    targets: FlatTargets,
    anchors: Float[Tensor, "anchors 2"],
    cell: Float[Tensor, "2"],
    rows: int,
    columns: int,
) -> Matches:
    """The matches of one layer, ordered by offset (own cell, left, up, right, down), then anchor, then target.

    A target matches every anchor within `ANCHOR_RATIO` of its shape, in its own cell and in the neighbouring cells
    within `NEIGHBOUR_REACH`. As in the original, a target exactly on a cell border matches its own cell twice
    instead of the right (lower) neighbour.

    Args:
        targets: boxes in pixels.
        anchors: in pixels.
        cell: width and height of a cell in pixels.
        rows, columns: size of the layer's grid.
    """
    box = targets.box / torch.cat((cell, cell))
    ratio = targets.box[None, :, 2:] / anchors[:, None]
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < ANCHOR_RATIO
    centre = box[:, :2]
    mirrored = centre.new_tensor((columns, rows)) - centre
    near_low = (centre % 1 < NEIGHBOUR_REACH) & (centre > 1)
    near_high = (mirrored % 1 < NEIGHBOUR_REACH) & (mirrored > 1)
    near = torch.cat((torch.ones_like(near_low[:, :1]), near_low, near_high), dim=1).T
    shift = NEIGHBOUR_REACH * centre.new_tensor(((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)))
    offset, anchor, target = (near[:, None] & fits[None]).nonzero(as_tuple=True)
    # Truncation after a shift by half a cell gives the neighbour only if the centre is in the half next to it.
    index = (centre[target] + shift[offset]).long()
    column, row = index[:, 0].clamp(0, columns - 1), index[:, 1].clamp(0, rows - 1)
    corner = torch.stack((column, row), dim=1).to(box.dtype)
    relative = torch.cat((centre[target] - corner, box[target, 2:]), dim=1)
    return Matches(targets.image[target], anchor, row, column, targets.label[target], relative)


def yolo_loss(
    heads: list[Head],
    targets: list[Targets],
    anchors: list[Anchors],
    image_height: int,
    image_width: int,
    decode: Decode,
) -> LossTerms:
    """The loss terms of each image, with gains applied and not multiplied by the batch size.

    Box: mean over matches of 1 - CIoU. Objectness: binary cross-entropy averaged over all cells and anchors, its target
    the CIoU (at least 0, no gradient) of a matched cell, else 0. Class: binary cross-entropy averaged over matches and
    classes. A layer without a match adds nothing to box and class. If several targets match the same cell and
    anchor, the last match (see `match_targets`) gives the objectness target.

    Args:
        heads: logits per layer, finest grid first; at most three layers.
        targets: one entry per image; boxes in pixels of the image.
        anchors: per layer, in pixels.
        image_height, image_width: size of the images in pixels; the objectness gain grows with their product.
        decode: decoding of boxes from logits.

    Raises:
        DetectorError: the numbers of layers or images do not agree, or a label is out of range.
    """
    _check(heads, targets, anchors)
    batch, n_layers = heads[0].shape[0], len(heads)
    n_classes = heads[0].shape[-1] - 5
    check_labels(targets, n_classes)
    flat = flatten_targets(targets, heads[0])
    box = objectness = classification = heads[0].new_zeros(batch)
    for head, layer_anchors, weight in zip(heads, anchors, LAYER_WEIGHTS, strict=False):
        terms = _layer_loss(head, flat, layer_anchors.to(head), image_height, image_width, decode)
        box = box + terms.box
        objectness = objectness + weight * terms.objectness
        classification = classification + terms.classification
    share = GAIN_LAYERS / n_layers
    area = image_height * image_width / GAIN_IMAGE_SIZE**2
    return LossTerms(
        box=box * (BOX_GAIN * share),
        objectness=objectness * (OBJECTNESS_GAIN * area * share),
        classification=classification * (CLASS_GAIN * n_classes / GAIN_CLASSES * share),
    )


def _layer_loss(
    head: Head, targets: FlatTargets, anchors: Anchors, image_height: int, image_width: int, decode: Decode
) -> LossTerms:
    """The three loss terms of one layer for each image, without weights and gains."""
    batch, _, rows, columns, values = head.shape
    cell = head.new_tensor((image_width / columns, image_height / rows))
    match = match_targets(targets, anchors, cell, rows, columns)
    predicted = head[match.image, match.anchor, match.row, match.column]
    ciou = complete_iou(decode_boxes(predicted[:, :4], anchors[match.anchor] / cell, decode), match.box)

    per_match = F.binary_cross_entropy_with_logits(
        predicted[:, 5:], F.one_hot(match.label, values - 5).to(head.dtype), reduction="none"
    ).mean(-1)
    matched = torch.bincount(match.image, minlength=batch).clamp(min=1)
    zeros = head.new_zeros(batch)
    wanted = _objectness_target(head, match, ciou.detach().clamp(min=0))
    return LossTerms(
        box=zeros.index_add(0, match.image, 1 - ciou) / matched,
        objectness=F.binary_cross_entropy_with_logits(head[..., 4], wanted, reduction="none").mean(dim=(1, 2, 3)),
        classification=zeros.index_add(0, match.image, per_match) / matched,
    )


def _objectness_target(head: Head, match: Matches, value: Float[Tensor, " m"]) -> Float[Tensor, "batch anchors _ _"]:
    """`value` at the matched cells and 0 elsewhere; the last of several matches of a cell and anchor counts."""
    batch, n_anchors, rows, columns, _ = head.shape
    place = ((match.image * n_anchors + match.anchor) * rows + match.row) * columns + match.column
    # Writing with repeated indices has no defined order on some devices; the maximum of the match numbers has.
    number = torch.arange(1, len(place) + 1, device=place.device)
    last = torch.zeros(head[..., 4].numel(), dtype=torch.int64, device=place.device)
    last = last.scatter_reduce(0, place, number, reduce="amax")
    wanted = torch.cat((value.new_zeros(1), value))[last]
    return wanted.view(batch, n_anchors, rows, columns)


def _check(heads: list[Head], targets: list[Targets], anchors: list[Anchors]) -> None:
    if not 1 <= len(heads) <= len(LAYER_WEIGHTS):
        raise DetectorError(f"the loss is defined for 1 to {len(LAYER_WEIGHTS)} detection layers, not {len(heads)}")
    if len(anchors) != len(heads):
        raise DetectorError(f"{len(heads)} detection layers but anchors for {len(anchors)}")
    if len(targets) != heads[0].shape[0]:
        raise DetectorError(f"{heads[0].shape[0]} images but targets for {len(targets)}")

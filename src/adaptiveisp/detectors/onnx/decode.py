"""How the outputs of an ONNX detector become boxes and scores, by a known decode; which one: `onnx_layout`.

yolo                 (b, n, 5+c)  centre x, centre y, width, height, objectness, class scores; score = product
yolo-no-objectness   (b, 4+c, n)  the same without objectness
yolox                (b, n, 5+c)  as yolo, but centres and sizes still in grid units: (v + cell)·stride, exp(v)·stride
detr                 logits (b, q, c+1), the last for no object, softmax; boxes (b, q, 4) cx cy w h in 0..1
detr-sigmoid         logits (b, q, c), sigmoid; boxes as for detr
boxes                labels (b, n), boxes (b, n, 4) xyxy, scores (b, n), in this order where they are named, and perhaps
                     how many of the n count (b) or (b, 1); or one table (b, n, 6) of x0, y0, x1, y1, score, label. They
                     are answers already: no suppression
boxes-scores         boxes (b, n, 4) or (b, n, 1, 4), scores (b, n, c) of all classes

Source: the outputs of the public releases of YOLOv5, YOLOv8, YOLOX, DETR (Carion et al. 2020) and RT-DETR, of
TensorFlow's object detection API, and of the exports of YOLOv4 to ONNX.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.answers import choose
from adaptiveisp.detectors.boxes import cxcywh_to_xyxy, nms, xywh_to_xyxy
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.onnx.sidecar import Coordinates, Decode
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detections

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layout:
    """How the outputs of a model are read.

    Attributes:
        decode: see the head of the file.
        outputs: names of the outputs in the order of the decode's parts.
        names: class names.
        normalised: boxes are in 0..1 of the input, not in pixels.
        strides: of the grids of `yolox`.
        coordinates: what the four numbers of a box are.
        logits: scores are logits.
        first_label: label of the first name.
        is_set: each object is found once, so that nothing needs to be suppressed.
    """

    decode: Decode
    outputs: tuple[str, ...]
    names: tuple[str, ...] = COCO_80
    normalised: bool = False
    strides: tuple[int, ...] = ()
    coordinates: Coordinates = "cxcywh"
    logits: bool = False
    first_label: int = 0
    is_set: bool = False

    @property
    def is_detr(self) -> bool:
        """Whether the model finds a set of objects, by logits."""
        return self.decode in ("detr", "detr-sigmoid")


@dataclass(frozen=True)
class Predictions:
    """What a model says of one image.

    Attributes:
        boxes: xyxy in pixels of the model's input.
        scores: of each box for each class, in [0, 1].
        logits: of a DETR; None elsewhere.
        unnamed: scores of boxes with a label that no name belongs to; None where labels are no numbers.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n classes"]
    logits: Float[Tensor, "n values"] | None = None
    unnamed: Float[Tensor, " m"] | None = None


def columns_of(decode: Decode, classes: int) -> tuple[int, int]:
    """How many columns a `yolo` output has, and along which axis exports lay them out."""
    return (classes + 4, 1) if decode == "yolo-no-objectness" else (classes + 5, 2)


def decode_outputs(layout: Layout, values: Values, height: int, width: int) -> list[Predictions]:
    """The predictions of each image.

    Args:
        layout: how the outputs are read.
        values: the outputs by name.
        height, width: of the model's input in pixels.
    """
    parts = [values[name] for name in layout.outputs]
    if layout.decode == "boxes":
        return _listed(layout, parts, height, width)
    if layout.decode == "boxes-scores":
        corners = _corners(layout, without_lone_axis(parts[0]).float(), height, width)
        scores = _probabilities(layout, parts[1].float())
        return [Predictions(*pair) for pair in zip(corners, scores, strict=True)]
    if layout.is_detr:
        corners = _corners(layout, parts[1].float(), height, width)
        logits = parts[0].float()
        scores = logits.softmax(-1)[..., :-1] if layout.decode == "detr" else logits.sigmoid()
        return [Predictions(*three) for three in zip(corners, scores, logits, strict=True)]
    rows = _yolo_rows(layout, parts[0])
    boxes = _off_the_grid(rows[..., :4], layout.strides, height, width) if layout.decode == "yolox" else rows[..., :4]
    shares = _probabilities(layout, rows[..., 4:])
    scores = shares if layout.decode == "yolo-no-objectness" else shares[..., :1] * shares[..., 1:]
    return [Predictions(*pair) for pair in zip(_corners(layout, boxes, height, width), scores, strict=True)]


def raw_scores(layout: Layout, values: Values) -> Tensor | None:
    """All numbers of the outputs that stand for scores, as probabilities; None of a DETR, which has logits."""
    parts = [values[name] for name in layout.outputs]
    if layout.is_detr:
        return None
    if layout.decode == "boxes":
        return parts[0][..., 4].float() if len(parts) == 1 else parts[2].float()
    if layout.decode == "boxes-scores":
        return _probabilities(layout, parts[1].float())
    return _probabilities(layout, _yolo_rows(layout, parts[0])[..., 4:])


def without_lone_axis(boxes: Tensor) -> Tensor:
    """Boxes (b, n, 4) of those that also have an axis of length 1, (b, n, 1, 4)."""
    return boxes.squeeze(2) if boxes.ndim == 4 and boxes.shape[2] == 1 else boxes


def _yolo_rows(layout: Layout, value: Tensor) -> Tensor:
    """The rows (b, n, columns) of a `yolo` output, however it is laid out."""
    columns, axis = columns_of(layout.decode, len(layout.names))
    axis = axis if value.shape[axis] == columns else 3 - axis
    return value.float() if axis == 2 else value.float().transpose(1, 2)


def _probabilities(layout: Layout, scores: Tensor) -> Tensor:
    return scores.sigmoid() if layout.logits else scores


def _corners(layout: Layout, boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes xyxy in pixels of those that the model gives."""
    if layout.coordinates == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    if layout.normalised or layout.is_detr:
        boxes = boxes * boxes.new_tensor((width, height, width, height))
    if layout.coordinates == "cxcywh":
        return cxcywh_to_xyxy(boxes)
    return xywh_to_xyxy(boxes) if layout.coordinates == "xywh" else boxes


def _listed(layout: Layout, parts: list[Tensor], height: int, width: int) -> list[Predictions]:
    """Boxes and scores of each class of a list of answers; those without a name are kept apart."""
    if len(parts) == 1:
        boxes, score, label = parts[0][..., :4].float(), parts[0][..., 4].float(), parts[0][..., 5]
    else:
        label, boxes, score = (part[None] if parts[1].ndim == 2 else part for part in parts[:3])
        boxes, score = boxes.float(), score.float()
    labels = label.detach().round().long()
    if len(parts) == 4:  # the rows from there on are filling
        place = torch.arange(score.shape[1], device=score.device)
        score = torch.where(place < parts[3].reshape(-1, 1).to(score.device), score, torch.zeros_like(score))
    score = torch.where(labels < 0, torch.zeros_like(score), score)  # filling, too, is marked by the label -1
    labels = labels - layout.first_label
    classes = len(layout.names)
    scores = score[..., None] * (labels[..., None] == torch.arange(classes, device=labels.device))
    unnamed = ((labels < 0) | (labels >= classes)) & ((score > 0) | score.isnan())
    corners = _corners(layout, boxes, height, width)
    return [Predictions(corners[i], scores[i], None, score[i][unnamed[i]]) for i in range(len(scores))]


def _off_the_grid(rows: Tensor, strides: tuple[int, ...], height: int, width: int) -> Tensor:
    """Boxes (cx, cy, w, h) in pixels from those in units of the cells of their grids."""
    cells, sizes = [], []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        cells.append(torch.stack((x.flatten(), y.flatten()), dim=1))
        sizes.append(torch.full((x.numel(), 1), stride))
    cell, size = torch.cat(cells).to(rows), torch.cat(sizes).to(rows)
    if len(cell) != rows.shape[1]:
        grids = ", ".join(map(str, strides))
        raise DetectorError(f"grids of strides {grids} have {len(cell)} cells, not {rows.shape[1]}; declare strides:")
    return torch.cat(((rows[..., :2] + cell) * size, rows[..., 2:].exp() * size), dim=-1)


def best(
    found: Predictions,
    layout: Layout,
    confidence: float,
    nms_iou: float,
    max_detections: int,
    height: int,
    width: int,
) -> Detections:
    """The detections of one image, in pixels of the model's input.

    A `detr` gives one class a query (Carion et al. 2020), `detr-sigmoid` the best pairs of query and class; what finds
    a set of objects, and `boxes`, need no suppression.

    Args:
        found: what the model says.
        layout: how it is read.
        confidence: scores at or below this are dropped.
        nms_iou: greatest overlap of two boxes of one class, where there is suppression.
        max_detections: at most so many.
        height, width: of the model's input in pixels.
    """
    scores = found.scores
    if layout.decode == "detr" and len(scores):
        scores = torch.where(scores < scores.amax(1, keepdim=True), torch.zeros_like(scores), scores)
    place, label, score, dropped = choose(found.boxes, scores, confidence, height, width)
    if found.unnamed is not None:
        dropped += int((~(found.unnamed <= confidence)).sum())
    if layout.is_set:
        kept = torch.argsort(score, descending=True, stable=True)[:max_detections]
    else:
        kept = nms(found.boxes[place], score, label, nms_iou, max_detections)
    return Detections(found.boxes[place[kept]], score[kept], label[kept], dropped)

"""Decoding of the outputs of an ONNX detector into boxes and scores; `onnx.layout` chooses the decode.

The decodes, with b images, n boxes, q queries and c classes:

yolo                 (b, n, 5+c)  centre x, centre y, width, height, objectness, class scores; score = product
yolo-no-objectness   (b, 4+c, n)  the same without objectness
yolox                (b, n, 5+c)  as yolo, but with boxes in grid units: centre (v + cell)·stride, size exp(v)·stride
detr                 logits (b, q, c+1), the last for no object, softmax; boxes (b, q, 4) cx cy w h in 0..1
detr-sigmoid         logits (b, q, c), sigmoid; boxes as for detr
boxes                labels (b, n), boxes (b, n, 4) xyxy and scores (b, n), in this order if a sidecar names them, and
                     perhaps the number of valid boxes (b) or (b, 1); or one table (b, n, 6) of x0, y0, x1, y1, score,
                     label. These are final detections, without suppression
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
    """The interpretation of a model's outputs.

    Attributes:
        decode: one of the decodes at the head of this file.
        outputs: names of the outputs in the order in which the decode lists them.
        names: class names.
        normalised: whether boxes are in 0..1 of the input instead of pixels.
        strides: strides of the grids of `yolox`.
        coordinates: meaning of the four numbers of a box.
        logits: whether scores are logits.
        first_label: label of the first class name.
        is_set: whether the model finds each object once and needs no suppression.
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
        """Whether the model is a DETR, with one set of logits for each query."""
        return self.decode in ("detr", "detr-sigmoid")


@dataclass(frozen=True)
class Predictions:
    """A model's predictions for one image.

    Attributes:
        boxes: xyxy in pixels of the model's input.
        scores: score of each box for each class, in [0, 1].
        logits: logits of a DETR; None for other models.
        unnamed: scores of boxes whose label has no class name; None for models that give no labels.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n classes"]
    logits: Float[Tensor, "n values"] | None = None
    unnamed: Float[Tensor, " m"] | None = None


def columns_of(decode: Decode, classes: int) -> tuple[int, int]:
    """The number of columns of a `yolo` output, and the axis along which exports usually have them."""
    return (classes + 4, 1) if decode == "yolo-no-objectness" else (classes + 5, 2)


def decode_outputs(layout: Layout, values: Values, height: int, width: int) -> list[Predictions]:
    """The predictions of each image.

    Args:
        layout: interpretation of the outputs.
        values: the outputs by name.
        height, width: size of the model's input in pixels.
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
    """All values in the outputs that are scores, as probabilities; None for a DETR, which gives logits."""
    parts = [values[name] for name in layout.outputs]
    if layout.is_detr:
        return None
    if layout.decode == "boxes":
        return parts[0][..., 4].float() if len(parts) == 1 else parts[2].float()
    if layout.decode == "boxes-scores":
        return _probabilities(layout, parts[1].float())
    return _probabilities(layout, _yolo_rows(layout, parts[0])[..., 4:])


def without_lone_axis(boxes: Tensor) -> Tensor:
    """Boxes (b, n, 4), from boxes that may have an additional axis of length 1, (b, n, 1, 4)."""
    return boxes.squeeze(2) if boxes.ndim == 4 and boxes.shape[2] == 1 else boxes


def _yolo_rows(layout: Layout, value: Tensor) -> Tensor:
    """The rows (b, n, columns) of a `yolo` output, for either order of its axes."""
    columns, axis = columns_of(layout.decode, len(layout.names))
    axis = axis if value.shape[axis] == columns else 3 - axis
    return value.float() if axis == 2 else value.float().transpose(1, 2)


def _probabilities(layout: Layout, scores: Tensor) -> Tensor:
    return scores.sigmoid() if layout.logits else scores


def _corners(layout: Layout, boxes: Tensor, height: int, width: int) -> Tensor:
    """Boxes xyxy in pixels, from boxes as the model gives them."""
    if layout.coordinates == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    if layout.normalised or layout.is_detr:
        boxes = boxes * boxes.new_tensor((width, height, width, height))
    if layout.coordinates == "cxcywh":
        return cxcywh_to_xyxy(boxes)
    return xywh_to_xyxy(boxes) if layout.coordinates == "xywh" else boxes


def _listed(layout: Layout, parts: list[Tensor], height: int, width: int) -> list[Predictions]:
    """The predictions of the decode `boxes`; scores of boxes whose label has no name are kept apart."""
    if len(parts) == 1:
        boxes, score, label = parts[0][..., :4].float(), parts[0][..., 4].float(), parts[0][..., 5]
    else:
        label, boxes, score = (part[None] if parts[1].ndim == 2 else part for part in parts[:3])
        boxes, score = boxes.float(), score.float()
    labels = label.detach().round().long()
    if len(parts) == 4:  # rows beyond the number of valid boxes are padding
        place = torch.arange(score.shape[1], device=score.device)
        score = torch.where(place < parts[3].reshape(-1, 1).to(score.device), score, torch.zeros_like(score))
    score = torch.where(labels < 0, torch.zeros_like(score), score)  # the label -1 marks padding, too
    labels = labels - layout.first_label
    classes = len(layout.names)
    scores = score[..., None] * (labels[..., None] == torch.arange(classes, device=labels.device))
    unnamed = ((labels < 0) | (labels >= classes)) & ((score > 0) | score.isnan())
    corners = _corners(layout, boxes, height, width)
    return [Predictions(corners[i], scores[i], None, score[i][unnamed[i]]) for i in range(len(scores))]


def _off_the_grid(rows: Tensor, strides: tuple[int, ...], height: int, width: int) -> Tensor:
    """Boxes (cx, cy, w, h) in pixels, from boxes in grid units."""
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

    The decode `detr` gives one class for each query (Carion et al. 2020), `detr-sigmoid` the best pairs of query and
    class. Suppression is left out where `layout.is_set` holds.

    Args:
        found: the predictions for the image.
        layout: interpretation of the outputs.
        confidence: scores at or below this are dropped.
        nms_iou: greatest IoU of two boxes of one class, if there is suppression.
        max_detections: most detections.
        height, width: size of the model's input in pixels.
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

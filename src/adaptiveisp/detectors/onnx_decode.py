"""How the outputs of an ONNX detector become boxes and scores, by a declared decode.

yolo                 (b, n, 5+c)  centre x, centre y, width, height, objectness, class scores; score = product
yolo-no-objectness   (b, 4+c, n)  the same without objectness
yolox                (b, n, 5+c)  as yolo, but centres and sizes still in grid units: (v + cell)·stride, exp(v)·stride
detr                 logits (b, q, c+1), the last for no object, softmax; boxes (b, q, 4) cx cy w h in 0..1
detr-sigmoid         logits (b, q, c), sigmoid; boxes as for detr
boxes                labels (b, n), boxes (b, n, 4) xyxy, scores (b, n), in this order where they are named; or one
                     table (b, n, 6) of x0, y0, x1, y1, score, label. They are answers already: no suppression

Source: the outputs of the public releases of YOLOv5, YOLOv8, YOLOX, DETR (Carion et al. 2020) and RT-DETR.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.boxes import cxcywh_to_xyxy, nms
from adaptiveisp.classes import COCO_80
from adaptiveisp.detectors.onnx_sidecar import DECODES, Decode, Facts
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detections

COLUMNS = 6
"""Of a table of boxes: x0, y0, x1, y1, score, label."""

FOUND_BY_SHAPE: tuple[Decode, ...] = ("yolo", "yolo-no-objectness", "detr", "detr-sigmoid", "boxes")
"""What shapes can tell; `yolox` looks like `yolo`."""

LEAST_SPAN = 0.1
"""Centres of boxes in pixels reach further than this share of the input; else they are in another unit."""

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
    """

    decode: Decode
    outputs: tuple[str, ...]
    names: tuple[str, ...] = COCO_80
    normalised: bool = False
    strides: tuple[int, ...] = ()

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
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n classes"]
    logits: Float[Tensor, "n values"] | None = None


def find_layout(facts: Facts, values: Values, height: int, width: int, model: Path) -> Layout:
    """How the outputs are read: as declared, or as they leave no doubt about on a trial image.

    Args:
        facts: of the model.
        values: its outputs on a random image.
        height, width: of that image.
        model: the .onnx file, for errors.

    Raises:
        DetectorError: nothing or more than one thing fits; the message says what to declare.
    """
    sidecar = facts.sidecar
    declared = (sidecar.outputs,) if isinstance(sidecar.outputs, str) else sidecar.outputs
    gone = [name for name in declared if name not in values]
    if gone:
        raise DetectorError(f"{facts.path}: output {gone[0]} does not exist; there are {', '.join(values)}")
    chosen = {name: values[name] for name in declared or values}
    names = facts.names or COCO_80
    decodes = (sidecar.decode,) if sidecar.decode else FOUND_BY_SHAPE
    found = [
        Layout(decode, outputs, names, sidecar.boxes == "normalised", sidecar.strides)
        for decode in decodes
        for outputs in _readings(decode, chosen, len(names), bool(declared), bool(sidecar.decode))
    ]
    said = ", ".join(f"{name} {'x'.join(map(str, value.shape))}" for name, value in values.items())
    amount = f"{len(names)} classes" if facts.names else "80 classes (no names are known)"
    if len(found) != 1 and sidecar.decode:
        raise DetectorError(
            f"{model}: its outputs ({said}) do not fit decode: {sidecar.decode} with {amount}; "
            f"correct decode:, names: or outputs: in {facts.path.name}"
        )
    if len(found) != 1:
        what = "can be read in several ways" if found else "do not say how to read them"
        raise DetectorError(
            f"{model}: its outputs ({said}) {what} with {amount}; write {facts.path.name} beside it with "
            f"decode: ({' | '.join(DECODES)}), names: [...], and outputs: where there are several"
        )
    (layout,) = found
    if layout.decode == "boxes" and not facts.names:
        raise DetectorError(f"{model}: its class names are not known; write {facts.path.name} with names: [...]")
    if not sidecar.boxes:
        _check_unit(layout, values, height, width, facts, model)
    return layout


def _check_unit(layout: Layout, values: Values, height: int, width: int, facts: Facts, model: Path) -> None:
    """Refuses boxes that are in no pixels although nobody said so.

    Raises:
        DetectorError: says what to declare.
    """
    if layout.is_detr:
        return
    reach = [p.boxes.abs().max() for p in decode_outputs(layout, values, height, width) if p.boxes.abs().sum() > 0]
    if reach and float(max(reach)) < LEAST_SPAN * min(height, width):
        raise DetectorError(
            f"{model}: its boxes reach only to {float(max(reach)):.2g} of {width}x{height} pixels; write "
            f"{facts.path.name} with boxes: normalised, or decode: yolox, or boxes: pixels if they are"
        )


def _readings(decode: Decode, values: Values, classes: int, declared: bool, sure: bool) -> Iterator[tuple[str, ...]]:
    """The outputs by which a decode can be fed; whether they, and the decode, were named."""
    if decode in ("yolo", "yolox", "yolo-no-objectness"):
        columns, axis = _columns(decode, classes)
        for name, value in values.items():
            # Only who says the decode may have them along the other axis: 4 + c and 5 + c are easily mistaken.
            axes = (1, 2) if sure else (axis,)
            if value.ndim == 3 and columns in [value.shape[a] for a in axes] and value.is_floating_point():
                yield (name,)
    elif decode in ("detr", "detr-sigmoid"):
        width = classes + (decode == "detr")
        pairs = [tuple(values)] if declared and len(values) == 2 else [(a, b) for a in values for b in values if a != b]
        for logits, boxes in pairs:
            a, b = values[logits], values[boxes]
            fits = a.ndim == 3 and a.shape[2] == width and b.shape == (*a.shape[:2], 4)
            if fits and _within_one(b) and (declared or not _are_scores(a)):
                yield logits, boxes
    else:
        yield from _box_readings(values, declared)


def _columns(decode: Decode, classes: int) -> tuple[int, int]:
    """How many columns a `yolo` output has, and along which axis exports lay them out."""
    return (classes + 4, 1) if decode == "yolo-no-objectness" else (classes + 5, 2)


def _box_readings(values: Values, declared: bool) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if value.ndim == 3 and value.shape[2] == COLUMNS and (declared or _is_table(value)):
            yield (name,)
    triples = (
        [tuple(values)]
        if declared and len(values) == 3
        else [(a, b, c) for a in values for b in values for c in values if len({a, b, c}) == 3]
    )
    for labels, boxes, scores in triples:
        a, b, c = values[labels], values[boxes], values[scores]
        whole = declared or not (a.is_floating_point() or not c.is_floating_point())
        if b.ndim in (2, 3) and b.shape[-1] == 4 and a.shape == c.shape == b.shape[:-1] and whole:
            yield labels, boxes, scores


def _within_one(values: Tensor) -> bool:
    return bool(((values >= -1e-3) & (values <= 1 + 1e-3)).all())


def _are_scores(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _is_table(value: Tensor) -> bool:
    """Whether the last two columns may be scores and labels."""
    return _within_one(value[..., 4]) and bool((value[..., 5] == value[..., 5].round()).all())


def decode_outputs(layout: Layout, values: Values, height: int, width: int) -> list[Predictions]:
    """The predictions of each image.

    Args:
        layout: how the outputs are read.
        values: the outputs by name.
        height, width: of the model's input in pixels.
    """
    parts = [values[name] for name in layout.outputs]
    first = parts[0]
    size = first.new_tensor((width, height, width, height), dtype=torch.float32)
    if layout.decode == "boxes":
        boxes, scores = _listed(parts, len(layout.names))
        return [Predictions(*pair) for pair in zip(boxes * size if layout.normalised else boxes, scores, strict=True)]
    if layout.is_detr:
        corners = cxcywh_to_xyxy(parts[1].float() * size)
        logits = first.float()
        scores = logits.softmax(-1)[..., :-1] if layout.decode == "detr" else logits.sigmoid()
        return [Predictions(*three) for three in zip(corners, scores, logits, strict=True)]
    columns, axis = _columns(layout.decode, len(layout.names))
    axis = axis if first.shape[axis] == columns else 3 - axis
    rows = first.float() if axis == 2 else first.float().transpose(1, 2)
    boxes = _off_the_grid(rows[..., :4], layout.strides, height, width) if layout.decode == "yolox" else rows[..., :4]
    scores = rows[..., 4:] if layout.decode == "yolo-no-objectness" else rows[..., 4:5] * rows[..., 5:]
    corners = cxcywh_to_xyxy(boxes * size if layout.normalised else boxes)
    return [Predictions(*pair) for pair in zip(corners, scores, strict=True)]


def _listed(parts: list[Tensor], classes: int) -> tuple[Tensor, Tensor]:
    """Boxes and scores of each class of a list of answers; a label beyond the names has no score."""
    if len(parts) == 1:
        boxes, score, label = parts[0][..., :4].float(), parts[0][..., 4].float(), parts[0][..., 5]
    else:
        batched = [part[None] if parts[1].ndim == 2 else part for part in parts]
        label, boxes, score = batched[0], batched[1].float(), batched[2].float()
    one_hot = label.detach().round().long()[..., None] == torch.arange(classes, device=label.device)
    return boxes, score[..., None] * one_hot


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


def best(found: Predictions, decode: Decode, confidence: float, nms_iou: float, max_detections: int) -> Detections:
    """The detections of one image, in pixels of the model's input.

    A `detr` gives one class a query (Carion et al. 2020), `detr-sigmoid` the best pairs of query and class; both and
    `boxes` need no suppression.

    Args:
        found: what the model says.
        decode: its decode.
        confidence: scores at or below this are dropped.
        nms_iou: greatest overlap of two boxes of one class, for the `yolo` kinds.
        max_detections: at most so many.
    """
    scores = found.scores
    if decode == "detr" and len(scores):
        scores = torch.where(scores == scores.amax(1, keepdim=True), scores, torch.zeros_like(scores))
    place, label = (scores > confidence).nonzero(as_tuple=True)
    score = scores[place, label]
    if decode in ("detr", "detr-sigmoid", "boxes"):
        kept = torch.argsort(score, descending=True, stable=True)[:max_detections]
    else:
        kept = nms(found.boxes[place], score, label, nms_iou, max_detections)
    return Detections(found.boxes[place[kept]], score[kept], label[kept])

"""The choice of the decode for the outputs of an ONNX detector: as declared, or inferred from shapes and values.

The outputs for a trial image give shapes and values. With the chosen decode, their scores must be probabilities, and
their boxes must lie in the image.
"""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from adaptiveisp.detectors.answers import wrong_numbers
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.onnx.decode import (
    Layout,
    Values,
    columns_of,
    decode_outputs,
    raw_scores,
    without_lone_axis,
)
from adaptiveisp.detectors.onnx.sidecar import DECODES, RTDETR_HEAD, Decode, Facts
from adaptiveisp.errors import DetectorError

COLUMNS = 6
"""Columns of a table of boxes: x0, y0, x1, y1, score, label."""

FOUND_BY_SHAPE: tuple[Decode, ...] = ("yolo", "yolo-no-objectness", "detr", "detr-sigmoid", "boxes", "boxes-scores")
"""Decodes that can be inferred; `yolox` has the same shape as `yolo` and must be declared."""

RTDETR_DECODES: tuple[Decode, ...] = ("boxes", "yolo-no-objectness")
"""Decodes of ultralytics' exports of RT-DETR: a table, or in older exports the scores of all classes."""

LEAST_SPAN = 0.1
"""Least share of the input's smaller side that boxes in pixels reach; below it, they are in another unit."""

LEAST_SCORE = 1e-3
"""Boxes of a lower score are not checked on the trial image, since they are never used."""

COORDINATES = "xyxy | yxyx | cxcywh | xywh"


def find_layout(facts: Facts, values: Values, height: int, width: int, model: Path) -> Layout:
    """The interpretation of the outputs: as declared, or as inferred from the outputs for a trial image.

    Args:
        facts: sidecar and metadata of the model.
        values: the outputs for a random image.
        height, width: size of that image in pixels.
        model: the .onnx file, for errors.

    Raises:
        DetectorError: no decode or more than one fits, or the decoded values are invalid; the message names the
            settings to declare.
    """
    sidecar = facts.sidecar
    declared = (sidecar.outputs,) if isinstance(sidecar.outputs, str) else sidecar.outputs
    gone = [name for name in declared if name not in values]
    if gone:
        raise DetectorError(f"{facts.path}: output {gone[0]} does not exist; there are {', '.join(values)}")
    chosen = {name: values[name] for name in declared or values}
    names = facts.names or COCO_80
    told: tuple[Decode, ...] = RTDETR_DECODES if facts.head == RTDETR_HEAD else ("boxes",) if facts.end2end else ()
    decodes = (sidecar.decode,) if sidecar.decode else told or FOUND_BY_SHAPE
    sure = bool(sidecar.decode) or facts.head == RTDETR_HEAD
    found = [
        _layout(facts, names, decode, outputs)
        for decode in decodes
        for outputs in _readings(decode, chosen, len(names), bool(declared), sure)
    ]
    if (
        told and not sidecar.decode
    ):  # with two classes, both decodes of RT-DETR have six columns; a last column of whole numbers decides
        found = found[:1]
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
    if layout.decode == "boxes-scores" and not sidecar.coordinates:
        raise DetectorError(
            f"{model}: the meaning of the four numbers of its boxes is unknown; write {facts.path.name} beside it with "
            f"coordinates: ({COORDINATES}) and boxes: (pixels | normalised)"
        )
    if not sidecar.boxes and not layout.normalised:
        _check_unit(layout, values, height, width, facts, model)
    _check_numbers(layout, values, height, width, facts, model)
    return layout


def _layout(facts: Facts, names: tuple[str, ...], decode: Decode, outputs: tuple[str, ...]) -> Layout:
    """The layout of a decode, with the settings of the sidecar or the usual ones of the decode."""
    sidecar, is_rtdetr = facts.sidecar, facts.head == RTDETR_HEAD
    usual = "xyxy" if decode in ("boxes", "boxes-scores") and not is_rtdetr else "cxcywh"
    return Layout(
        decode,
        outputs,
        names,
        normalised=sidecar.boxes == "normalised" or (is_rtdetr and not sidecar.boxes),
        strides=sidecar.strides,
        coordinates=sidecar.coordinates or usual,  # type: ignore[arg-type]
        logits=sidecar.logits,
        first_label=sidecar.first_label,
        is_set=is_rtdetr or decode in ("detr", "detr-sigmoid", "boxes"),
    )


def _check_unit(layout: Layout, values: Values, height: int, width: int, facts: Facts, model: Path) -> None:
    """Refuses boxes that are not in pixels, unless the sidecar declares it.

    Raises:
        DetectorError: the boxes are too small for pixels; the message names the settings to declare.
    """
    if layout.is_detr:
        return
    reach = [p.boxes.abs().max() for p in decode_outputs(layout, values, height, width) if p.boxes.abs().sum() > 0]
    if reach and float(max(reach)) < LEAST_SPAN * min(height, width):
        raise DetectorError(
            f"{model}: its boxes reach only to {float(max(reach)):.2g} of {width}x{height} pixels; write "
            f"{facts.path.name} with boxes: normalised, or decode: yolox, or boxes: pixels if they are"
        )


def _check_numbers(layout: Layout, values: Values, height: int, width: int, facts: Facts, model: Path) -> None:
    """Refuses a layout that gives scores outside 0..1 or invalid boxes for the trial image.

    Raises:
        DetectorError: scores or boxes are invalid; the message names the settings to declare.
    """
    write = f"write {facts.path.name} beside it with"
    scores = raw_scores(layout, values)
    if scores is not None and scores.numel() and not _are_scores(scores, 1e-3):
        what = f"scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}, which are no probabilities"
        raise DetectorError(
            f"{model}: on a trial image it gives {what}; {write} logits: true if they are logits, or correct "
            "decode:, names: or outputs:"
        )
    for found in decode_outputs(layout, values, height, width):
        if found.unnamed is not None and len(found.unnamed):
            raise DetectorError(
                f"{model}: on a trial image it gives labels that none of its {len(layout.names)} names has; {write} "
                "names: [...] of all classes, or first_label: 1 if they are counted from 1"
            )
        if not found.scores.numel():
            continue
        top = found.scores.amax(dim=1)
        used = ~(top <= LEAST_SCORE)
        wrong = wrong_numbers(found.boxes[used], top[used], height, width)
        if wrong:
            raise DetectorError(
                f"{model}: on a trial image it {wrong}; {write} coordinates: ({COORDINATES}; now "
                f"{layout.coordinates}) and boxes: (pixels | normalised), or correct decode: or outputs:"
            )


def _readings(decode: Decode, values: Values, classes: int, declared: bool, sure: bool) -> Iterator[tuple[str, ...]]:
    """The names of outputs that fit a decode.

    Args:
        decode: the decode to try.
        values: outputs that may be used.
        classes: number of classes.
        declared: whether the sidecar names the outputs.
        sure: whether the decode is known from the sidecar or the metadata.
    """
    if decode in ("yolo", "yolox", "yolo-no-objectness"):
        columns, axis = columns_of(decode, classes)
        for name, value in values.items():
            # The other order of axes is tried only for a known decode, since 4 + c and 5 + c are easily confused.
            axes = (1, 2) if sure else (axis,)
            if value.ndim == 3 and columns in [value.shape[a] for a in axes] and value.is_floating_point():
                yield (name,)
    elif decode in ("detr", "detr-sigmoid"):
        width = classes + (decode == "detr")
        for logits, boxes in _pairs(values, declared):
            a, b = values[logits], values[boxes]
            fits = a.ndim == 3 and a.shape[2] == width and b.shape == (*a.shape[:2], 4)
            if fits and _within_one(b) and (declared or not _are_scores(a)):
                yield logits, boxes
    elif decode == "boxes-scores":
        for boxes, scores in _pairs(values, declared):
            a, b = without_lone_axis(values[boxes]), values[scores]
            fits = b.ndim == 3 and b.shape[2] == classes and a.shape == (*b.shape[:2], 4)
            if fits and (declared or sure or _are_scores(b)):
                yield boxes, scores
    else:
        yield from _box_readings(values, declared)


def _pairs(values: Values, declared: bool) -> list[tuple[str, str]]:
    """The pairs of outputs to try: the declared one, or all."""
    if declared and len(values) == 2:
        first, second = values
        return [(first, second)]
    return [(a, b) for a in values for b in values if a != b]


def _box_readings(values: Values, declared: bool) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if value.ndim == 3 and value.shape[2] == COLUMNS and (declared or _is_table(value)):
            yield (name,)
    triples = (
        [tuple(values)[:3]]
        if declared and len(values) in (3, 4)
        else [(a, b, c) for a in values for b in values for c in values if len({a, b, c}) == 3]
    )
    for labels, boxes, scores in triples:
        a, b, c = values[labels], values[boxes], values[scores]
        whole = declared or not (a.is_floating_point() or not c.is_floating_point())
        if b.ndim in (2, 3) and b.shape[-1] == 4 and a.shape == c.shape == b.shape[:-1] and whole:
            yield labels, boxes, scores, *_counts(values, (labels, boxes, scores))


def _counts(values: Values, others: tuple[str, ...]) -> list[str]:
    """The name of the output with the number of valid boxes of each image, if exactly one output fits."""
    boxes = values[others[1]]
    images, most = (boxes.shape[0] if boxes.ndim == 3 else 1), boxes.shape[-2]
    found = [
        name
        for name, value in values.items()
        if name not in others
        and value.numel() == images
        and value.ndim <= 2
        and bool(((value >= 0) & (value <= most) & (value.float() == value.float().round())).all())
    ]
    return found if len(found) == 1 else []


def _within_one(values: Tensor) -> bool:
    return bool(((values >= -1e-3) & (values <= 1 + 1e-3)).all())


def _are_scores(values: Tensor, slack: float = 0.0) -> bool:
    return bool(((values >= -slack) & (values <= 1 + slack)).all())


def _is_table(value: Tensor) -> bool:
    """Whether the last two columns can be scores and labels."""
    return _within_one(value[..., 4]) and bool((value[..., 5] == value[..., 5].round()).all())

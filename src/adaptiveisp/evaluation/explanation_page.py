"""The page of `run --explain`: what each module is worth to each box, as pictures and coloured tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptiveisp.evaluation.html_page import readable, render_template
from adaptiveisp.evaluation.photo_grid import GRID_BYTES, Kind, Mark, counts_text, marks_view
from adaptiveisp.inference.drawing import DRAW_CONFIDENCE, Rgb8
from adaptiveisp.inference.explanation import (
    MATCH_IOU,
    MOST_EXPLAINED,
    Explanation,
    Explanations,
    FoundBox,
    ModuleWorth,
    is_lost,
)
from adaptiveisp.inference.explanation_html import MOST_BOXES, heat
from adaptiveisp.inference.parameter_text import stage_texts
from adaptiveisp.inference.pictures import PICTURE_BYTES, PICTURE_WIDTH, page_image
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.utils.files import write_text

THUMB_WIDTH, THUMB_BYTES = 240, 9_000
"""Size of the picture without a module, at most."""


def write_explanations(
    found: Explanations, path: Path, policy: str, detector: str, provenance: Mapping[str, Any]
) -> None:
    """Writes the page.

    Args:
        found: the explanations of a batch.
        path: the file.
        policy, detector: their names.
        provenance: shown at the end.

    Raises:
        AdaptiveISPError: jinja2 is not installed.
        OutputError: the file cannot be written.
    """
    write_text(path, render_explanations(found, policy, detector, provenance))


def render_explanations(found: Explanations, policy: str, detector: str, provenance: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    return render_template(
        "explain.html.j2",
        policy=policy,
        detector=detector,
        count=found.count,
        confidence=DRAW_CONFIDENCE,
        iou=MATCH_IOU,
        totals=[
            {
                "module": module,
                "images": total.images,
                "worth": total.worth / total.boxes if total.boxes else None,
                "lost": total.lost,
                "appeared": total.appeared,
                "colour": heat(total.worth / total.boxes if total.boxes else 0.0),
            }
            for module, total in sorted(found.totals.items(), key=lambda one: one[1].place / one[1].stages)
        ],
        images=[explanation_view(one) for one in sorted(found.kept, key=lambda one: (-one.weight, one.name))],
        provenance=readable(provenance),
    )


def explanation_view(explanation: Explanation) -> dict[str, Any]:
    """One image as values for the template: its picture with numbered boxes, and a row for each module."""
    shown = explanation.drawn[:MOST_BOXES]
    boxes = [explanation.boxes[i] for i in shown]
    marks = [_mark(box, explanation.full_size, f"{n}: ") for n, box in enumerate(boxes, 1)]
    room = GRID_BYTES // MOST_EXPLAINED - PICTURE_BYTES
    thumb_bytes = min(THUMB_BYTES, room // max(1, len(explanation.modules)))
    return {
        "name": explanation.name,
        "has_pipeline": explanation.has_pipeline,
        "shot": {**picture_view(explanation.image, marks), "counts": counts_text(marks)},
        "boxes": [{"name": box.name, "score": box.score} for box in boxes],
        "more": len(explanation.drawn) - len(shown),
        "rows": [_row(explanation, module, shown, thumb_bytes) for module in explanation.modules],
        "milliseconds": explanation.milliseconds,
    }


def _row(explanation: Explanation, module: ModuleWorth, shown: tuple[int, ...], thumb_bytes: int) -> dict[str, Any]:
    """A module: what it is worth to each box, and the picture without it."""
    (text,) = stage_texts(Pipeline((Stage(module.module, module.params),), explanation.module_set))
    worth = explanation.worth(module)
    here = [i for i in shown if module.scores[i] >= DRAW_CONFIDENCE]
    marks = [_mark(explanation.boxes[i]._replace(score=module.scores[i]), explanation.full_size) for i in here]
    marks += [_mark(box, explanation.full_size, kind="gained") for box in module.appeared]
    marks += [
        _mark(explanation.boxes[i], explanation.full_size, kind="lost") for i in explanation.lost(module) if i in shown
    ]
    thumb = picture_view(module.image, marks, THUMB_WIDTH, thumb_bytes)
    return {
        "module": module.module,
        "params": text.line,
        "shot": {**thumb, "counts": ""},
        "cells": [
            {
                "worth": worth[i],
                "without": module.scores[i],
                "lost": is_lost(explanation.boxes[i].score, module.scores[i]),
                "colour": heat(worth[i]),
            }
            for i in shown
        ],
        "sum": sum(worth[i] for i in shown),
        "appeared": [{"name": box.name, "score": box.score} for box in module.appeared[:MOST_BOXES]],
    }


def picture_view(
    image: Rgb8, marks: list[Mark], width: int = PICTURE_WIDTH, most_bytes: int = PICTURE_BYTES
) -> dict[str, Any]:
    """A picture with boxes as values for the macro `picture`."""
    made = page_image(image, width, most_bytes)
    return {**made._asdict(), **marks_view(marks, made.width, made.height)}


def _mark(box: FoundBox, full_size: tuple[int, int], prefix: str = "", kind: Kind = "box") -> Mark:
    """A box of the page."""
    height, width = full_size
    x0, y0, x1, y1 = box.box
    return Mark((x0 / width, y0 / height, x1 / width, y1 / height), f"{prefix}{box.name}", kind, box.score)

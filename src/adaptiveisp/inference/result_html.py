"""A result as HTML for notebooks: the raw and the image with boxes, the pipeline in physical units, and the boxes."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from adaptiveisp.inference.drawing import Rgb8
from adaptiveisp.inference.parameter_text import CAMERA_STEPS, NO_MODULE, stage_texts
from adaptiveisp.inference.pictures import half_brightened, page_image

if TYPE_CHECKING:
    from adaptiveisp.inference.result import Result

PICTURE_WIDTH, PICTURE_BYTES = 360, 40_000
"""Most pixels across each of the two pictures, and most bytes of its JPEG, so that a saved notebook stays small."""
MOST_BOXES, MOST_STAGES = 10, 30
"""Most rows of the two tables."""
LONGEST_NAME = 60
"""Most characters of a name, since those from a file can be of any length."""


def result_html(result: "Result") -> str:
    """The result as HTML of at most about 130 kB; names are text.

    Args:
        result: any result.
    """
    raw, gain = half_brightened(result.developed.small[0].clamp(0, 1))
    note = f", right \N{MULTIPLICATION SIGN}{gain:.0f} for the eye" if gain > 1 else ""
    pictures = _picture(raw, f"raw{note}") + _picture(result.drawn(), f"{result.policy}, with boxes")
    stages = stage_texts(result.pipeline)
    if stages:
        rows = [(str(number), stage.module, stage.line) for number, stage in enumerate(stages, 1)]
        pipeline = _table(("", "module", "parameters"), rows, MOST_STAGES)
    else:
        pipeline = f"<p>{escape(CAMERA_STEPS if result.pipeline is None else NO_MODULE)}</p>"
    found = [
        (box["class"], f"{box['score']:.2f}", ", ".join(f"{value:.0f}" for value in box["box"]))
        for box in result.boxes()
    ]
    boxes = _table(("class", "score", "box (x0, y0, x1, y1)"), found, MOST_BOXES) if found else "<p>no box</p>"
    head = f"<p><b>{_text(result.name)}</b>: {_text(result.policy)}, {_text(result.detector)}</p>"
    side = '<div style="margin-right: 2em">'
    tables = f'<div style="display: flex; flex-wrap: wrap">{side}{pipeline}</div>{side}{boxes}</div></div>'
    return f'<div>{head}<div style="display: flex; flex-wrap: wrap">{pictures}</div>{tables}</div>'


def _picture(image: Rgb8, caption: str) -> str:
    """A picture with its caption."""
    made = page_image(image, PICTURE_WIDTH, PICTURE_BYTES)
    shown = f'<img src="{made.src}" width="{made.width}" height="{made.height}" alt="">'
    return f'<figure style="margin: 0 1em 1em 0">{shown}<figcaption>{_text(caption)}</figcaption></figure>'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> str:
    """A table of text, with a last row that counts those that were left out."""
    lines = ["".join(f'<th style="text-align: left">{escape(title)}</th>' for title in header)]
    lines += ["".join(f'<td style="text-align: left">{_text(cell, 300)}</td>' for cell in row) for row in rows[:most]]
    if len(rows) > most:
        lines.append(f'<td colspan="{len(header)}">{len(rows) - most} more</td>')
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _text(text: str, longest: int = LONGEST_NAME) -> str:
    """A text for HTML, cut where it is longer."""
    return escape(text if len(text) <= longest else f"{text[: longest - 1]}…")

"""A grid of photos for a page: rows are photos, columns the clean photo, the raw and policies, with their boxes.

The browser draws the boxes over the pictures, so that they stay sharp and can be hidden.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from adaptiveisp.inference.drawing import Rgb8
from adaptiveisp.inference.parameter_text import names_line, stage_texts
from adaptiveisp.inference.pictures import PICTURE_BYTES, page_image
from adaptiveisp.isp.pipeline import Pipeline

Kind = Literal["found", "missed", "false", "box", "gained", "lost"]
KINDS: dict[Kind, str] = {
    "found": "a label that is found",
    "missed": "a label that is missed",
    "false": "a box without a label",
    "box": "a box",
    "gained": "a box that {reference} does not have",
    "lost": "a box of {reference} that is lost",
}
"""What each kind of box means, for the legend."""
SIGNS: dict[Kind, str] = {"gained": "+", "lost": "\N{MINUS SIGN}"}
"""What stands before the name at a box, so that kinds are told apart without colour; a missed label has no score."""

FRAME_HEIGHT = 620
"""Height of the photos in a notebook, in pixels; they scroll."""
GRID_BYTES = 3_000_000
"""Most bytes of all JPEGs of a page; as data URLs they take a third more, so that the page can be sent by mail."""
SHAPE = 1.5
"""Width of a picture's place on the page by its height."""
TEXT_SHARE = 34
"""Width of a picture's place in heights of a letter at a box; in a grid of many columns there is less room."""
LEAST_TEXT_SHARE, GRID_TEXT_SHARE = 16, 108
"""Least such share, and the share of the width of the whole grid."""
MOST_TEXTS = 8
"""Most boxes of a picture with a text; the others have theirs when the picture is enlarged."""
LETTER_WIDTH = 0.66
"""Mean width of a letter by its height, for the place of the text at a box."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Mark:
    """A box on a picture.

    Attributes:
        box: xyxy in shares of the picture's sides, 0 to 1.
        name: name of its class.
        kind: what it is, see `KINDS`.
        score: in [0, 1]; None for a label that was missed.
    """

    box: tuple[float, float, float, float]
    name: str
    kind: Kind
    score: float | None = None

    @property
    def text(self) -> str:
        """What is written at the box."""
        score = "" if self.score is None else f" {100 * self.score:.0f}"
        return f"{SIGNS.get(self.kind, '')}{self.name}{score}"


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of the grid.

    Attributes:
        image: (height, width, 3) 8-bit RGB.
        marks: its boxes.
        pipeline: the pipeline that made it; None for `camera` and where `caption` says what it is.
        caption: what it is, in place of the modules.
        note: a further line.
    """

    image: Rgb8
    marks: tuple[Mark, ...]
    pipeline: Pipeline | None = None
    caption: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class PhotoRow:
    """The pictures of one photo.

    Attributes:
        title: name of the photo.
        why: why it is shown, in a few words.
        facts: what else is known about it, such as its light.
        shots: a picture for each column; None where there is none.
    """

    title: str
    why: str
    facts: str
    shots: tuple[Shot | None, ...]


@dataclass(frozen=True, eq=False)
class PhotoGrid:
    """A grid of photos.

    Attributes:
        columns: titles of the columns.
        rows: the photos.
        choice: a sentence that says how the photos were chosen.
        detector: name of the detector whose boxes are drawn.
        confidence: least score of the boxes that are drawn.
        reference: name of the policy that boxes are compared with; "" where there are labels.
        left_out: names of policies that have no column.
    """

    columns: tuple[str, ...]
    rows: tuple[PhotoRow, ...]
    choice: str
    detector: str
    confidence: float
    reference: str = ""
    left_out: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[Kind, str]:
        """The kinds of boxes in the grid, with what they mean."""
        found = {mark.kind for row in self.rows for shot in row.shots if shot for mark in shot.marks}
        return {kind: text.format(reference=self.reference) for kind, text in KINDS.items() if kind in found}

    def _repr_html_(self) -> str:
        """The photos as a page within the page, which notebooks show."""
        from adaptiveisp.evaluation.html_page import render_template

        view = {**grid_view(self), "salt": "notebook", "colours": {}}
        page = escape(render_template("photos_page.html.j2", view=view))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'


def grid_view(grid: PhotoGrid, most_bytes: int = GRID_BYTES) -> dict[str, Any]:
    """A grid as values for the template `photos.html.j2`.

    Args:
        grid: the grid.
        most_bytes: most bytes of its JPEGs.
    """
    count = sum(shot is not None for row in grid.rows for shot in row.shots)
    each = min(PICTURE_BYTES, most_bytes // max(1, count))
    letters = min(TEXT_SHARE, max(LEAST_TEXT_SHARE, GRID_TEXT_SHARE // len(grid.columns)))
    return {
        "columns": grid.columns,
        "choice": grid.choice,
        "kinds": grid.kinds,
        "detector": grid.detector,
        "confidence": grid.confidence,
        "reference": grid.reference,
        "left_out": grid.left_out,
        "brightened": any(shot.note for row in grid.rows for shot in row.shots if shot),
        "rows": [
            {
                "title": row.title,
                "why": row.why,
                "facts": row.facts,
                "shots": [None if shot is None else _shot_view(shot, each, letters) for shot in row.shots],
            }
            for row in grid.rows
        ],
    }


def _shot_view(shot: Shot, most_bytes: int, letters: int) -> dict[str, Any]:
    """A picture as values for the template."""
    image = page_image(shot.image, most_bytes=most_bytes)
    return {
        **image._asdict(),
        **marks_view(shot.marks, image.width, image.height, letters),
        "modules": shot.caption or names_line(shot.pipeline),
        "stages": stage_texts(shot.pipeline),
        "counts": counts_text(shot.marks),
        "note": shot.note,
    }


def marks_view(marks: Sequence[Mark], width: int, height: int, letters: int = TEXT_SHARE) -> dict[str, Any]:
    """Boxes as values for the macro that draws them over a picture.

    Args:
        marks: the boxes, the most important first, which is drawn last.
        width, height: sides of the picture in pixels, the unit of the drawing.
        letters: width of the picture's place in heights of a letter.
    """
    size = max(width, SHAPE * height) / letters  # the same for all pictures, which share a shape on the page
    taken: list[Rectangle] = []
    drawn = []
    for number, mark in enumerate(marks):
        x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in mark.box)
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        place = _text_place(box, (LETTER_WIDTH * size * len(mark.text), 1.15 * size), (width, height), taken)
        taken.append(place)
        drawn.append(
            {
                "kind": mark.kind,
                "text": mark.text,
                "further": number >= MOST_TEXTS,
                "x": round(box[0], 1),
                "y": round(box[1], 1),
                "width": round(max(box[2] - box[0], 1.0), 1),
                "height": round(max(box[3] - box[1], 1.0), 1),
                "text_x": round(place[0] + 2, 1),
                "text_y": round(place[3] - 0.25 * size, 1),
            }
        )
    return {"marks": drawn[::-1], "text_size": round(size, 1)}


def _text_place(
    box: Rectangle, size: tuple[float, float], frame: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """The first free place for the text of a box: above it, inside on top, below it, inside at the foot, beside them.

    Args:
        box: the box, xyxy.
        size: width and height of the text.
        frame: width and height of the picture.
        taken: places of other texts. If none is free, the first place inside the picture is taken.
    """
    width, height = size
    places = []
    for left in (box[0], box[2] - width):
        left = min(max(left, 0.0), max(frame[0] - width, 0.0))
        for top in (box[1] - height, box[1], box[3], box[3] - height):
            if 0 <= top <= frame[1] - height:
                places.append((left, top, left + width, top + height))
    free = [p for p in places if not any(p[0] < t[2] and t[0] < p[2] and p[1] < t[3] and t[1] < p[3] for t in taken)]
    return (free or places or [(0.0, 0.0, width, height)])[0]


def counts_text(marks: Sequence[Mark]) -> str:
    """The number of boxes of each kind, for instance "2 found, 1 missed"; "no box" for none.

    >>> counts_text([Mark((0, 0, 1, 1), "cup", "box", 0.5)] * 2), counts_text([])
    ('2 boxes', 'no box')
    """
    counts = Counter(mark.kind for mark in marks)
    words: dict[Kind, str] = {"box": "box" if counts["box"] == 1 else "boxes"}
    return ", ".join(f"{counts[kind]} {words.get(kind, kind)}" for kind in KINDS if counts[kind]) or "no box"

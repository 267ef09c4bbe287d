"""Draws pictures: images with labelled boxes, and sheets of images with captions."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.types import Detections

Colour = tuple[int, int, int]
Rgb8 = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Box = tuple[float, float, float, float]

PALETTE: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
"""Colours that colour-blind readers can distinguish. Source: Okabe and Ito 2008, "Color Universal Design"."""

INK: Colour = (28, 32, 38)
MUTED: Colour = (96, 104, 114)
PAPER: Colour = (255, 255, 255)
FRAME: Colour = (222, 226, 231)
DARK_TEXT_ABOVE = 140
"""Label backgrounds with more luma than this (0..255) get dark text, others white."""


DRAW_CONFIDENCE = 0.25
"""Least score of a box that is drawn; the files have boxes of lower scores too."""


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet.

    Attributes:
        image: (height, width, 3) RGB.
        title: first line of the caption, in bold, for instance the file name.
        lines: further lines of the caption, for instance one for each module with its parameters.
    """

    image: Rgb8
    title: str
    lines: Sequence[str] = ()


@lru_cache(maxsize=32)
def load_font(size: int, bold: bool = False) -> Font:
    """DejaVu Sans of `size` pixels from matplotlib, or Pillow's own font if matplotlib is not installed."""
    found = importlib.util.find_spec("matplotlib")
    if found is not None and found.origin is not None:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def class_colour(index: int) -> Colour:
    """The colour of a class from the palette, which repeats after seven classes.

    >>> class_colour(0) == class_colour(7)
    True
    """
    return PALETTE[index % len(PALETTE)]


def text_colour(background: Colour) -> Colour:
    """Dark or white, whichever is easier to read on `background`.

    >>> text_colour((240, 228, 66)), text_colour((0, 114, 178))
    ((28, 32, 38), (255, 255, 255))
    """
    red, green, blue = background
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > DARK_TEXT_ABOVE else PAPER


def _checked(image: NDArray[Any]) -> Rgb8:
    """The image; raises ValueError unless it is 8-bit RGB."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 (height, width, 3), not {image.dtype} {image.shape}")
    return image


def _as_box(corners: NDArray[np.float64]) -> Box:
    """The corners as four Python floats."""
    left, top, right, bottom = corners.tolist()
    return left, top, right, bottom


def _overlaps(a: Box, b: Box) -> bool:
    """Whether two xyxy boxes share an area."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label_place(box: Box, size: tuple[float, float], frame: tuple[int, int], taken: Sequence[Box]) -> Box:
    """The first free place of a label: above its box, inside at the top, below, or inside at the bottom.

    Args:
        box: the labelled box, xyxy.
        size: width and height of the label.
        frame: width and height of the image.
        taken: places of other labels.
    """
    width, height = size
    left = min(max(box[0], 0.0), max(frame[0] - width, 0.0))
    places = []
    for top in (box[1] - height, box[1], box[3], box[3] - height):
        if 0 <= top <= frame[1] - height:
            places.append((left, top, left + width, top + height))
    free = [place for place in places if not any(_overlaps(place, other) for other in taken)]
    if free or places:
        return (free or places)[0]
    top = max(0.0, min(box[1], frame[1] - height))
    return (left, top, left + width, top + height)


def draw_detections(
    rgb: NDArray[Any],
    boxes: ArrayLike,
    labels: Sequence[str],
    scores: ArrayLike | None = None,
    colours: Sequence[Colour] | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
) -> Rgb8:
    """A copy of the image with boxes and their labels, the best score on top.

    Args:
        rgb: (height, width, 3).
        boxes: (n, 4) xyxy in pixels; parts outside the image are cut off.
        labels: text of each box.
        scores: (n,) in 0..1, appended to the labels as percent; None leaves them out.
        colours: colour of each box; None gives the distinct labels, in alphabetical order, the colours of the palette.
        line_width, font_size: in pixels; None derives them from the image's size.

    Raises:
        ValueError: the image is not 8-bit RGB, or the lists differ in length.
    """
    height, width = _checked(rgb).shape[:2]
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    values = None if scores is None else np.asarray(scores, np.float64).reshape(-1)
    if colours is None:
        names = sorted(set(labels))
        colours = [class_colour(names.index(label)) for label in labels]
    if not len(corners) == len(labels) == len(colours) or (values is not None and len(values) != len(corners)):
        raise ValueError("boxes, labels, scores and colours must have the same length")
    line = line_width or max(2, round(max(height, width) / 220))
    font = load_font(font_size or max(11, round(max(height, width) / 34)))
    best_first = np.arange(len(corners)) if values is None else np.argsort(-values, kind="stable")

    picture = Image.fromarray(rgb)
    canvas = ImageDraw.Draw(picture)
    for i in best_first[::-1]:
        _outline(canvas, corners[i], colours[i], line, (width, height))
    taken: list[Box] = []
    for i in best_first:
        text = labels[i] if values is None else f"{labels[i]} {100 * values[i]:.0f}"
        left, _, right, _ = canvas.textbbox((0, 0), text, font=font, anchor="ls")
        # The height is that of the font and not of the text, so that all labels are equally high.
        rise, fall = _extent(font)
        pad = max(2, line)
        size = (right - left + 2 * pad, rise + fall + pad)
        place = _label_place(_as_box(corners[i]), size, (width, height), taken)
        taken.append(place)
        canvas.rectangle(place, fill=colours[i])
        position = (place[0] + pad - left, place[1] + pad / 2 + rise)
        canvas.text(position, text, font=font, fill=text_colour(colours[i]), anchor="ls")
    return np.asarray(picture)


def draw_found(
    rgb: Rgb8, found: Detections, class_names: Sequence[str], full_width: int, confidence: float = DRAW_CONFIDENCE
) -> Rgb8:
    """A copy of a resized image with the detections of at least `confidence`.

    Args:
        rgb: (height, width, 3), the input image of the detector.
        found: detections in pixels of the full frame.
        class_names: names of their labels.
        full_width: width of the full frame in pixels.
        confidence: least score to draw.
    """
    keep = found.scores >= confidence
    boxes = (found.boxes[keep] * (rgb.shape[1] / full_width)).cpu().numpy()
    labels = [shown_name(class_names[label]) for label in found.labels[keep].tolist()]
    return draw_detections(rgb, boxes, labels, found.scores[keep].cpu().numpy())


@lru_cache(maxsize=32)
def _extent(font: Font) -> tuple[float, float]:
    """Height above and below the base line of ordinary text, in pixels."""
    _, top, _, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), "Ahgy", font=font, anchor="ls")
    return -top, bottom


def _outline(
    canvas: ImageDraw.ImageDraw, corners: NDArray[np.float64], colour: Colour, line: int, frame: tuple[int, int]
) -> None:
    """Draws one box with a thin dark rim, which makes it visible on bright and on dark ground."""
    limit = np.array([frame[0] - 1, frame[1] - 1] * 2, np.float64)
    left, top, right, bottom = np.clip(corners, 0, limit).tolist()
    if right < left or bottom < top:
        return
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=INK, width=line + 2)
    canvas.rectangle((left, top, right, bottom), outline=colour, width=line)


def fit_text(text: str, font: Font, width: float) -> str:
    """`text`, cut to `width` pixels with an ellipsis where it is longer."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle].rstrip() + "…") <= width else (low, middle - 1)
    return text[:low].rstrip() + "…"


def wrap_text(text: str, font: Font, width: float) -> list[str]:
    """`text` broken at spaces into lines of at most `width` pixels; a word that is too long is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(fit_text(word, font, width))
    return lines


def resize_to_width(image: Rgb8, width: int) -> Image.Image:
    """The image at `width` pixels, with its proportions."""
    height = max(1, round(width * _checked(image).shape[0] / image.shape[1]))
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)


def _caption(tile: Tile, width: int, size: int) -> list[tuple[str, Font, Colour]]:
    """Lines of a tile's caption with their font and colour."""
    bold, plain = load_font(size, bold=True), load_font(size - 1)
    lines: list[tuple[str, Font, Colour]] = [(line, bold, INK) for line in wrap_text(tile.title, bold, width)]
    return lines + [(part, plain, MUTED) for line in tile.lines for part in wrap_text(line, plain, width)]


def contact_sheet(
    tiles: Sequence[Tile], columns: int = 4, tile_width: int = 320, gap: int = 20, font_size: int = 14
) -> Image.Image:
    """Pictures in rows of `columns` on white, each with its caption below.

    Args:
        tiles: pictures and captions; rows are as high as their highest tile.
        columns: pictures in a row.
        tile_width, gap, font_size: in pixels.

    Raises:
        ValueError: there are no tiles, or fewer than one column.
    """
    if not tiles or columns < 1:
        raise ValueError("a contact sheet needs at least one tile and one column")
    columns = min(columns, len(tiles))
    step = round(font_size * 1.45)
    pictures = [resize_to_width(tile.image, tile_width) for tile in tiles]
    captions = [_caption(tile, tile_width, font_size) for tile in tiles]
    heights = [p.height + (gap // 3 + step * len(c) if c else 0) for p, c in zip(pictures, captions, strict=True)]
    rows = math.ceil(len(tiles) / columns)
    row_heights = [max(heights[row * columns : (row + 1) * columns]) for row in range(rows)]
    sheet = Image.new("RGB", (gap + columns * (tile_width + gap), gap + sum(row_heights) + gap * rows), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = gap + column * (tile_width + gap), gap + sum(row_heights[:row]) + gap * row
        sheet.paste(picture, (left, top))
        canvas.rectangle((left - 1, top - 1, left + tile_width, top + picture.height), outline=FRAME)
        for number, (text, font, colour) in enumerate(caption):
            base = top + picture.height + gap // 3 + step * number + font_size
            canvas.text((left, base), text, font=font, fill=colour, anchor="ls")
    return sheet


def comparison_figure(
    cells: Sequence[Sequence[Tile]],
    column_titles: Sequence[str],
    row_titles: Sequence[str],
    cell_width: int = 360,
    gap: int = 12,
    font_size: int = 17,
) -> Image.Image:
    """Pictures in a grid with titles above and at the left; rows are images or lights, and columns are policies.

    Args:
        cells: rows of pictures with captions; all pictures of a row should have the same proportions.
        column_titles: one for each column.
        row_titles: one for each row, written upwards; may be empty.
        cell_width, gap, font_size: in pixels.

    Raises:
        ValueError: the rows, columns and titles do not form a grid.
    """
    if not cells or any(len(row) != len(column_titles) for row in cells) or not column_titles:
        raise ValueError("every row needs one picture for each column title")
    if row_titles and len(row_titles) != len(cells):
        raise ValueError("there must be one row title for each row, or none")
    head, side = round(font_size * 1.9), round(font_size * 1.9) if row_titles else 0
    bold, step = load_font(font_size, bold=True), round((font_size - 3) * 1.45)
    sheets = [[resize_to_width(tile.image, cell_width) for tile in row] for row in cells]
    captions = [[_caption(tile, cell_width, font_size - 3) for tile in row] for row in cells]
    picture_heights = [max(picture.height for picture in row) for row in sheets]
    caption_heights = [(gap // 2 + step * lines if (lines := max(len(c) for c in row)) else 0) for row in captions]
    width = 2 * gap + side + len(column_titles) * (cell_width + gap) - gap
    height = gap + head + sum(picture_heights) + sum(caption_heights) + gap * len(cells)
    figure = Image.new("RGB", (width, height), PAPER)
    canvas = ImageDraw.Draw(figure)
    lefts = [gap + side + column * (cell_width + gap) for column in range(len(column_titles))]
    for left, title in zip(lefts, column_titles, strict=True):
        text = fit_text(title, bold, cell_width)
        canvas.text((left + cell_width / 2, gap + font_size), text, font=bold, fill=INK, anchor="ms")
    top = gap + head
    for row, pictures in enumerate(sheets):
        if row_titles:
            _paste_upwards(figure, row_titles[row], load_font(font_size), (gap, top), picture_heights[row])
        for left, picture, caption in zip(lefts, pictures, captions[row], strict=True):
            figure.paste(picture, (left, top))
            for number, (text, font, colour) in enumerate(caption):
                base = top + picture.height + gap // 2 + step * number + font_size - 3
                canvas.text((left, base), text, font=font, fill=colour, anchor="ls")
        top += picture_heights[row] + caption_heights[row] + gap
    return figure


def _paste_upwards(figure: Image.Image, text: str, font: Font, corner: tuple[int, int], length: int) -> None:
    """Writes `text` upwards along `length` pixels, centred."""
    rise, fall = _extent(font)
    strip = Image.new("RGB", (length, math.ceil(rise + fall) + 2), PAPER)
    canvas = ImageDraw.Draw(strip)
    canvas.text((length / 2, rise + 1), fit_text(text, font, length), font=font, fill=MUTED, anchor="ms")
    figure.paste(strip.transpose(Image.Transpose.ROTATE_90), corner)

"""A figure of pipelines: each image as developed, then after each stage, and with the boxes that were found in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from adaptiveisp.inference.drawing import FRAME, INK, MUTED, PAPER, Rgb8, fit_text, load_font, wrap_text
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.policies.base import Planner
from adaptiveisp.utils.color import to_uint8

OneImage = Float[Tensor, "1 3 _ _"]
"""A developed image as a batch of one, linear RGB in [0, 1]; those of a list may differ in size."""

TILE = 200
"""Longer side of an image in pixels; on a screen there is room for nine stages and six rows of 3:2 images."""
GAP = 8
TITLE_SIZE, TEXT_SIZE = 12, 11
LINE = 14
"""Distance between the lines of a caption, in pixels."""
TEXT_LINES = 3
"""Most lines of parameters: the nine of ccm need three, and a longer caption would make its whole row higher."""


@dataclass(frozen=True)
class _Cell:
    """An image, its title in bold, and the lines below the title."""

    picture: Image.Image
    title: str
    lines: Sequence[str]

    @property
    def height(self) -> int:
        """Height with the caption, in pixels."""
        return self.picture.height + GAP // 2 + LINE * (1 + len(self.lines))


def trajectory_sheet(
    policy: Planner,
    images: Sequence[OneImage],
    names: Sequence[str],
    lights: Sequence[float | None] | None = None,
    tile: int = TILE,
    frames: Sequence[RawFrame | None] | None = None,
) -> Rgb8:
    """A figure with a row for each image: as developed, then after each stage of the pipeline planned for it.

    Images are drawn without a tone curve, so that linear ones look dark. Rows with fewer stages end in white.

    Args:
        policy: the policy, which plans for one image at a time.
        images: developed images, linear RGB in [0, 1].
        names: names of the images.
        lights: their brightness factors in (0, 1], None where unknown.
        tile: longer side of each drawn image in pixels.
        frames: the raw of each image, for a policy with an external ISP.

    Returns:
        (height, width, 3) 8-bit RGB.

    Raises:
        ValueError: there are no images, or the lists differ in length.
    """
    lights = [None] * len(images) if lights is None else lights
    if not images or not len(images) == len(names) == len(lights):
        raise ValueError("a trajectory sheet needs at least one image, and a name and a light for each")
    raws = [None] * len(images) if frames is None else frames
    rows = [_planned_row(policy, *of_image, tile) for of_image in zip(images, names, lights, raws, strict=True)]
    return _lay_out(rows, tile)


def stage_strip(
    pipeline: Pipeline, images: Sequence[OneImage], name: str, found: Rgb8 | None = None, tile: int = TILE
) -> Rgb8:
    """One row of `trajectory_sheet` for a pipeline that has run.

    Args:
        pipeline: the pipeline.
        images: the developed image, linear RGB in [0, 1], and that after each stage.
        name: name of the image.
        found: the rendered image with its boxes, (height, width, 3) 8-bit RGB, as a last picture; None leaves it out.
        tile: longer side of each drawn image in pixels.

    Returns:
        (height, width, 3) 8-bit RGB.
    """
    cells = _row(pipeline, images, name, None, tile)
    return _lay_out([cells if found is None else [*cells, _picture_cell(found, "boxes", "", tile)]], tile)


def _planned_row(
    policy: Planner, image: OneImage, name: str, light: float | None, frame: RawFrame | None, tile: int
) -> list[_Cell]:
    """The cells of one image, by the pipeline that a policy plans for it."""
    with torch.inference_mode():
        (pipeline,) = policy.plan(image)
        pipeline = pipeline if frame is None else bound_to(pipeline, frame)
        return _row(pipeline, [image, *pipeline.steps(image)], name, light, tile)


def _row(pipeline: Pipeline, images: Sequence[OneImage], name: str, light: float | None, tile: int) -> list[_Cell]:
    """The cells of one image, as developed and after each stage."""
    about = ["developed"] if light is None else [f"light {light:.3g}", "developed"]
    cells = [_cell(images[0], name, ", ".join(about if pipeline.stages else [*about, "no module"]), tile)]
    for after, line in zip(images[1:], pipeline.describe(), strict=True):
        module, _, params = line.partition(" ")
        cells.append(_cell(after, module, params, tile))
    return cells


def _cell(image: OneImage, title: str, text: str, tile: int) -> _Cell:
    """The image at its size in the figure, with a caption no wider than `tile`."""
    return _picture_cell(to_uint8(image[0]), title, text, tile)


def _picture_cell(pixels: Rgb8, title: str, text: str, tile: int) -> _Cell:
    """The same for 8-bit pixels."""
    picture = Image.fromarray(pixels)
    scale = tile / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    font = load_font(TEXT_SIZE)
    lines = wrap_text(text, font, tile)
    if len(lines) > TEXT_LINES:
        lines[TEXT_LINES - 1 :] = [fit_text(" ".join(lines[TEXT_LINES - 1 :]), font, tile)]
    bold = load_font(TITLE_SIZE, bold=True)
    return _Cell(picture.resize((width, height), Image.Resampling.LANCZOS), fit_text(title, bold, tile), lines)


def _lay_out(rows: Sequence[Sequence[_Cell]], tile: int) -> Rgb8:
    """The rows of cells on white, in columns of equal width; a row is as high as its highest cell."""
    heights = [max(cell.height for cell in row) for row in rows]
    columns = max(len(row) for row in rows)
    sheet = Image.new("RGB", (GAP + columns * (tile + GAP), GAP + sum(height + GAP for height in heights)), PAPER)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            _draw(sheet, cell, GAP + column * (tile + GAP), top)
        top += height + GAP
    return np.asarray(sheet)


def _draw(sheet: Image.Image, cell: _Cell, left: int, top: int) -> None:
    """Draws a cell into the figure; a thin frame shows where a dark image ends."""
    canvas = ImageDraw.Draw(sheet)
    right, bottom = left + cell.picture.width, top + cell.picture.height
    canvas.rectangle((left - 1, top - 1, right, bottom), outline=FRAME)
    sheet.paste(cell.picture, (left, top))
    base = bottom + GAP // 2 + LINE - 3
    canvas.text((left, base), cell.title, font=load_font(TITLE_SIZE, bold=True), fill=INK, anchor="ls")
    for number, line in enumerate(cell.lines, 1):
        canvas.text((left, base + LINE * number), line, font=load_font(TEXT_SIZE), fill=MUTED, anchor="ls")

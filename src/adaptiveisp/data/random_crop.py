"""A square part of a picture, cut, mirrored and resized, and the boxes of its labels that remain.

Sides are in pixels; a picture's values are in [0, 1] unless said otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels import forward as native
from adaptiveisp.kernels import synthesis as native_photos
from adaptiveisp.types import Annotation, Targets

SMALLEST_CROP = 0.75
"""Side of a crop relative to the picture's shorter side, at least, where nothing else is asked for."""
LEAST_VISIBLE = 0.3
"""A box keeps its label while this share of its area is inside the crop."""
LEAST_SIDE = 2.0
"""Pixels of the resized crop below which a box is nothing a detector could find."""

Picture = Float[Tensor, "3 height width"]


class Crop(NamedTuple):
    """A square part of a picture, in its pixels; `flipped` mirrors it left to right."""

    top: int
    left: int
    side: int
    flipped: bool


def draw_crop(height: int, width: int, smallest: float, generator: torch.Generator) -> Crop:
    """A random square of a picture, mirrored or not.

    Args:
        height, width: of the picture.
        smallest: side of the square relative to the shorter side, at least, in (0, 1].
        generator: for sampling.
    """
    top, left, side = _square_crop(height, width, smallest, generator)
    return Crop(top, left, side, bool(torch.rand(1, generator=generator) < 0.5))


def _square_crop(height: int, width: int, smallest: float, generator: torch.Generator) -> tuple[int, int, int]:
    """(top, left, side) of a random square inside a picture."""
    u, v, w = torch.rand(3, generator=generator).tolist()
    side = max(1, round(min(height, width) * (smallest + (1 - smallest) * u)))
    return int(v * (height - side + 1)), int(w * (width - side + 1)), side


def cut(pixels: Tensor, view: Crop) -> Picture:
    """The part of a stored picture, its whole numbers as floats."""
    crop = pixels[:, view.top : view.top + view.side, view.left : view.left + view.side].float()
    return crop.flip(2) if view.flipped else crop


def resized(picture: Picture, height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    """The picture at another size, antialiased bilinear, in [0, 1]; by a kernel where there is one, to 1e-6."""
    if native.takes(picture) and len(picture) == 3 and not picture.requires_grad:
        return native_photos.resize(picture.contiguous(), height, width)
    return _interpolated(picture, height, width)


def _interpolated(picture: Picture, height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    return torch.nn.functional.interpolate(
        picture[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0].clamp(0, 1)


def reduced(picture: Picture, shorter_side: int) -> Float[Tensor, "3 h2 w2"]:
    """The picture scaled down until its shorter side is at most that many pixels; a smaller one as it is."""
    height, width = picture.shape[1:]
    if min(height, width) <= shorter_side:
        return picture
    factor = shorter_side / min(height, width)
    # What is stored of it is rounded to 16 bits: it has to be the same on every machine, with kernels or without.
    return _interpolated(picture, round(height * factor), round(width * factor))


def targets_of(
    annotations: Sequence[Annotation],
    to_label: dict[int, int],
    view: Crop,
    size: int,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Targets:
    """Labels of a view in pixels of the square it is resized to.

    Args:
        annotations: objects of the whole picture.
        to_label: category id → detector label.
        view: the part of the picture that is shown.
        size: side of the square in pixels.
        scale: (x, y), pixels of the picture that `view` cuts per pixel of the annotations.
    """
    boxes: list[list[float]] = []
    labels: list[int] = []
    for annotation in annotations:
        if annotation.iscrowd or annotation.category_id not in to_label:
            continue
        x, width = (value * scale[0] for value in annotation.bbox[::2])
        y, height = (value * scale[1] for value in annotation.bbox[1::2])
        x0, x1 = max(x - view.left, 0.0), min(x + width - view.left, float(view.side))
        y0, y1 = max(y - view.top, 0.0), min(y + height - view.top, float(view.side))
        if x1 <= x0 or y1 <= y0 or (x1 - x0) * (y1 - y0) < LEAST_VISIBLE * width * height:
            continue
        if view.flipped:
            x0, x1 = view.side - x1, view.side - x0
        box = [value * size / view.side for value in (x0, y0, x1, y1)]
        if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE:
            boxes.append(box)
            labels.append(to_label[annotation.category_id])
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.long))

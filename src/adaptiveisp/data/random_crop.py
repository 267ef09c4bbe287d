"""Random square crops of images: cutting, mirroring and resizing, with their labels.

Sides are in pixels, and values of images in [0, 1] unless stated otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels.registry import find
from adaptiveisp.types import Annotation, Targets

SMALLEST_CROP = 0.75
"""Default of the least side of a crop, as a share of the image's shorter side."""
LEAST_VISIBLE = 0.3
"""Least share of a box's area that must be inside the crop for the box to be kept."""
LEAST_SIDE = 2.0
"""Least side of a box in pixels of the resized crop; a detector cannot find smaller objects."""

Picture = Float[Tensor, "3 height width"]


class Crop(NamedTuple):
    """A square part of an image.

    Attributes:
        top, left, side: its place in pixels of the image.
        flipped: whether it is mirrored left to right.
    """

    top: int
    left: int
    side: int
    flipped: bool


def draw_crop(height: int, width: int, smallest: float, generator: torch.Generator) -> Crop:
    """Draws a random square of an image, mirrored with probability 0.5.

    Args:
        height, width: sides of the image in pixels.
        smallest: least side of the square as a share of the shorter side, in (0, 1].
        generator: source of randomness.
    """
    top, left, side = _square_crop(height, width, smallest, generator)
    return Crop(top, left, side, bool(torch.rand(1, generator=generator) < 0.5))


def _square_crop(height: int, width: int, smallest: float, generator: torch.Generator) -> tuple[int, int, int]:
    """(top, left, side) of a random square inside an image."""
    u, v, w = torch.rand(3, generator=generator).tolist()
    side = max(1, round(min(height, width) * (smallest + (1 - smallest) * u)))
    return int(v * (height - side + 1)), int(w * (width - side + 1)), side


def cut(pixels: Tensor, crop: Crop) -> Picture:
    """The crop of an image of whole numbers, as floats of the same values."""
    part = pixels[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side].float()
    return part.flip(2) if crop.flipped else part


def resized(picture: Picture, height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    """The image at another size, by antialiased bilinear interpolation, clipped to [0, 1].

    The compiled kernel, if available, differs from PyTorch by up to 1e-6.
    """
    if len(picture) == 3 and (kernel := find("resize", picture)):
        return kernel(picture.contiguous(), height, width)  # type: ignore[no-any-return]
    return _interpolated(picture, height, width)


def _interpolated(picture: Picture, height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    return torch.nn.functional.interpolate(
        picture[None], size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )[0].clamp(0, 1)


def reduced(picture: Picture, shorter_side: int) -> Float[Tensor, "3 h2 w2"]:
    """The image, downscaled so that its shorter side is at most `shorter_side` pixels; a smaller image is unchanged."""
    height, width = picture.shape[1:]
    if min(height, width) <= shorter_side:
        return picture
    factor = shorter_side / min(height, width)
    # PyTorch always computes this, since the stored result must be the same with and without kernels.
    return _interpolated(picture, round(height * factor), round(width * factor))


def targets_of(
    annotations: Sequence[Annotation],
    to_label: dict[int, int],
    crop: Crop,
    crop_size: int,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Targets:
    """The objects in a crop, in pixels of the square to which it is resized.

    Args:
        annotations: objects of the whole image.
        to_label: category id → detector label; objects of other categories are left out.
        crop: the part of the image.
        crop_size: side in pixels of the square to which the crop is resized.
        scale: (x, y), pixels of the image per pixel of the annotations.
    """
    boxes: list[list[float]] = []
    labels: list[int] = []
    for annotation in annotations:
        if annotation.iscrowd or annotation.category_id not in to_label:
            continue
        x, width = (value * scale[0] for value in annotation.bbox[::2])
        y, height = (value * scale[1] for value in annotation.bbox[1::2])
        x0, x1 = max(x - crop.left, 0.0), min(x + width - crop.left, float(crop.side))
        y0, y1 = max(y - crop.top, 0.0), min(y + height - crop.top, float(crop.side))
        if x1 <= x0 or y1 <= y0 or (x1 - x0) * (y1 - y0) < LEAST_VISIBLE * width * height:
            continue
        if crop.flipped:
            x0, x1 = crop.side - x1, crop.side - x0
        box = [value * crop_size / crop.side for value in (x0, y0, x1, y1)]
        if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE:
            boxes.append(box)
            labels.append(to_label[annotation.category_id])
    return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.long))

"""Images as files that a browser shows, brightened where they are too dark to see, and their histograms."""

import base64
import io

import torch
from jaxtyping import Float
from PIL import Image as PilImage
from torch import Tensor

from adaptiveisp.utils.color import srgb_encode, to_uint8

Picture = Float[Tensor, "3 height width"]

BINS = 48
"""Bins of a histogram."""
THUMB = 176
"""Longer side of a small picture in pixels."""
DARK = 0.25
"""An image whose brightest hundredth begins below this is brightened for viewing."""
SHOWN = 0.9
"""Value of the brightest hundredth of a brightened picture, in linear light."""


def lift_of(image: Picture) -> float:
    """The factor by which a dark linear image is multiplied before it is shown; 1 where it can be seen as it is.

    >>> lift_of(torch.full((3, 8, 8), 0.5)), round(lift_of(torch.full((3, 8, 8), 0.01)))
    (1.0, 90)
    """
    values = image.amax(dim=0).flatten()
    values = values[:: max(1, len(values) // 32768)]  # a sample of the pixels is enough
    bright = float(values.kthvalue(max(1, round(0.99 * len(values)))).values)
    return SHOWN / bright if 0 < bright < DARK else 1.0


def lifted(image: Picture, factor: float) -> Picture:
    """A linear image times a factor, encoded for a display; the image itself for a factor of 1."""
    return image if factor == 1 else srgb_encode((image * factor).clamp(0, 1))


def png(image: Picture) -> bytes:
    """The image as a PNG of 8 bits, with the rounding that `run` writes; fast instead of small."""
    buffer = io.BytesIO()
    PilImage.fromarray(to_uint8(image)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def thumb(image: Picture, lift: bool = True) -> str:
    """A small JPEG in base64.

    Args:
        image: the image.
        lift: whether it is brightened where it is dark.
    """
    picture = PilImage.fromarray(to_uint8(lifted(image, lift_of(image)) if lift else image))
    picture.thumbnail((THUMB, THUMB))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def plain(image: Picture) -> str:
    """A PNG in base64, for small pictures that are shown pixel by pixel."""
    return base64.b64encode(png(image)).decode()


def histogram(image: Picture) -> list[list[float]]:
    """For red, green and blue the share of the pixels in each of `BINS` bins of [0, 1]; values outside are clipped.

    >>> [sum(channel) for channel in histogram(torch.full((3, 4, 4), 2.0))]
    [1.0, 1.0, 1.0]
    """
    n = image[0].numel()
    return [[float(v) for v in torch.histc(one.clamp(0, 1).float(), BINS, 0, 1) / n] for one in image]

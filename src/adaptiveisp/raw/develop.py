"""Develops a raw to upright linear RGB, 0 = black level, 1 = white level, before any policy is applied."""

from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.kernels.registry import available, find
from adaptiveisp.raw.demosaic import bilinear, compiled, malvar
from adaptiveisp.types import BAYER_PATTERNS, MONO, RawImage

DEMOSAICS = {"malvar": malvar, "bilinear": bilinear}
"""Name of a demosaicing method → its function."""
_Picture = TypeVar("_Picture", Tensor, NDArray[Any])


def develop(
    raw: RawImage, camera_white_balance: bool = False, demosaic: Literal["malvar", "bilinear"] = "malvar"
) -> Float[Tensor, "3 height width"]:
    """Upright linear RGB in camera colours: clip((data - black) / (white - black), 0, 1), demosaiced and clipped.

    Args:
        raw: a mosaic; RGB, which is not demosaiced; or the values of a sensor without colour filters, which become
            red, green and blue alike.
        camera_white_balance: whether to multiply by the camera's gains before demosaicing, scaled so that the smallest
            is 1 and saturated white stays white; without effect if `raw.camera_gains` is None.
        demosaic: name of the demosaicing method.

    Returns:
        float32 in [0, 1] on the CPU, with width and height of the upright image.
    """
    if raw.pattern == MONO:
        return upright(_grey(raw), raw.orientation).contiguous()
    gains = _gains(raw, camera_white_balance)
    if raw.pattern is not None and available():
        rgb = _demosaic_compiled(raw, gains, demosaic)
        return upright(rgb, raw.orientation).contiguous()
    data = torch.from_numpy(np.array(raw.data, dtype=np.float32, order="C"))
    if raw.pattern is None:
        black, scale = raw.black_level[0], 1.0 / (raw.white_level - raw.black_level[0])
        scales = torch.tensor([scale * gain for gain in gains])[:, None, None]
        rgb = data.permute(2, 0, 1).sub(black).mul_(scales).clamp_(0.0, 1.0)
    else:
        rgb = DEMOSAICS[demosaic](_normalise_mosaic(data, raw, gains), raw.pattern).clamp_(0.0, 1.0)
    return upright(rgb, raw.orientation).contiguous()


SMALLEST_SCALE = 3.0
"""Least pixels of the sensor for one of the result, on each axis, for which a mosaic is developed at the small size.
Below, boxes begin to differ from those after demosaicing (docs/performance.md, "Developing at the working size")."""


def develop_small(
    raw: RawImage, height: int, width: int, camera_white_balance: bool = False
) -> Float[Tensor, "3 height width"] | None:
    """`develop` at a smaller size in one pass over the mosaic, or None where that is not possible.

    Each value is the mean of the sensor's values of its colour, with the weights of an antialiased bilinear resize. No
    value is interpolated at full size, which takes most of the time of `develop`, so colours at edges differ slightly
    from those of demosaicing and resizing.

    Args:
        raw: any raw; possible for a Bayer mosaic where the kernels are compiled.
        height, width: of the upright result, each at most 1/`SMALLEST_SCALE` of the upright raw's.
        camera_white_balance: as for `develop`.
    """
    kernel = find("develop_small")
    rows, columns = (width, height) if raw.orientation >= 5 else (height, width)
    full_height, full_width = raw.data.shape[:2]
    small = SMALLEST_SCALE * rows <= full_height and SMALLEST_SCALE * columns <= full_width
    if kernel is None or raw.pattern not in BAYER_PATTERNS or not small:
        return None
    data, black, scale = _mosaic_and_levels(raw, _gains(raw, camera_white_balance))
    colours = ["RGB".index(colour) for colour in raw.pattern]
    small_rgb: Tensor = kernel(data, black, scale, colours, rows, columns)
    return upright(small_rgb, raw.orientation).contiguous()


def _gains(raw: RawImage, camera_white_balance: bool) -> tuple[float, float, float]:
    """The camera's gains scaled so that the smallest is 1, or 1 for each channel."""
    if not camera_white_balance or raw.camera_gains is None:
        return (1.0, 1.0, 1.0)
    red, green, blue = raw.camera_gains
    smallest = min(raw.camera_gains)
    return (red / smallest, green / smallest, blue / smallest)


def _mosaic_and_levels(
    raw: RawImage, gains: tuple[float, float, float]
) -> tuple[Tensor, tuple[float, float, float, float], list[float]]:
    """A mosaic as kernels take it, its black levels, and the factors to [0, 1] at each position of the 2x2 block."""
    exact = raw.data.dtype in (np.uint8, np.uint16)
    data = np.ascontiguousarray(raw.data, dtype=np.uint16 if exact else np.float32)
    pattern = raw.pattern or ""
    scale = [gains["RGB".index(colour)] / (raw.white_level - raw.black_level[i]) for i, colour in enumerate(pattern)]
    if not data.flags.writeable:  # of which torch warns
        data = data.copy()
    return torch.from_numpy(data), raw.black_level, scale


def _grey(raw: RawImage) -> Float[Tensor, "3 height width"]:
    """The values of a sensor without colour filters in [0, 1], as red, green and blue."""
    data = torch.from_numpy(np.array(raw.data, dtype=np.float32, order="C"))
    for index, black in enumerate(raw.black_level):
        data[index // 2 :: 2, index % 2 :: 2].sub_(black).mul_(1.0 / (raw.white_level - black))
    return data.clamp_(0.0, 1.0).expand(3, -1, -1)


def _demosaic_compiled(
    raw: RawImage, gains: tuple[float, float, float], demosaic: str
) -> Float[Tensor, "3 height width"]:
    """Applies levels and gains and demosaics in one pass of the compiled kernel, without a copy of the frame."""
    assert raw.pattern is not None
    data, black, scale = _mosaic_and_levels(raw, gains)
    return compiled(data, raw.pattern, demosaic, black, scale)


def _normalise_mosaic(
    data: Float[Tensor, "height width"], raw: RawImage, gains: tuple[float, float, float]
) -> Float[Tensor, "height width"]:
    """The mosaic with black at 0 and white at 1, with the level and gain of each position; changes `data`."""
    for index, colour in enumerate(raw.pattern or ""):
        black = raw.black_level[index]
        scale = gains["RGB".index(colour)] / (raw.white_level - black)
        data[index // 2 :: 2, index % 2 :: 2].sub_(black).mul_(scale)
    return data.clamp_(0.0, 1.0)


def upright(picture: _Picture, orientation: int) -> _Picture:
    """The image as a viewer shows it, mirrored and rotated according to its EXIF orientation.

    >>> upright(torch.tensor([[1, 2], [3, 4]]), 6)  # rotated by 90 degrees clockwise
    tensor([[3, 1],
            [4, 2]])

    Args:
        picture: a tensor with height and width last, or an array with height and width first.
        orientation: EXIF orientation, 1 to 8.

    Raises:
        ValueError: `orientation` is another number.

    Source: EXIF 2.32, tag Orientation.
    """
    if orientation not in range(1, 9):
        raise ValueError(f"orientation must be 1 to 8, not {orientation}")
    rows, columns = (-2, -1) if isinstance(picture, Tensor) else (0, 1)
    swapped = _swap(picture, rows, columns) if orientation >= 5 else picture
    flipped = tuple(axis for axis, cases in ((rows, (3, 4, 7, 8)), (columns, (2, 3, 6, 7))) if orientation in cases)
    if not flipped:
        return swapped
    return torch.flip(swapped, flipped) if isinstance(swapped, Tensor) else np.flip(swapped, flipped)


def _swap(picture: _Picture, rows: int, columns: int) -> _Picture:
    return picture.transpose(rows, columns) if isinstance(picture, Tensor) else np.swapaxes(picture, rows, columns)


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """(width, height) of the upright image.

    >>> upright_size(40, 30, 6), upright_size(40, 30, 3)
    ((30, 40), (40, 30))
    """
    return (height, width) if orientation >= 5 else (width, height)

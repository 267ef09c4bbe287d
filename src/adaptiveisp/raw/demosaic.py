"""Demosaicing of Bayer mosaics to RGB: bilinear interpolation, and the linear filters of Malvar, He and Cutler.

Each method is one small convolution: the four positions of the 2x2 block become four half-size channels, each output
colour at each position is a fixed 3x3 filter over them, and the twelve results are interleaved. This avoids the
multiplications by zero that filters over zero-filled full-size planes would need.
"""

from collections.abc import Sequence
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from adaptiveisp.kernels.forward import demosaic as demosaic_kernel
from adaptiveisp.types import BAYER_PATTERNS

Kernel = tuple[tuple[float, ...], ...]

SMALLEST_SIDE: Final = 4
"""Least side in pixels: the mirrored border of an odd side is 3 pixels wide and must lie inside the image."""

# Each table has the weights, times 16, over the 5x5 neighbours for a missing colour.
#   cross:      green at red or blue; greens lie left, right, above and below
#   row:        red or blue at a green pixel, with samples at the left and right
#   column:     red or blue at a green pixel, with samples above and below
#   diagonal:   red at blue, blue at red
_BILINEAR: Final[dict[str, Kernel]] = {
    "cross": ((0, 0, 0, 0, 0), (0, 0, 4, 0, 0), (0, 4, 0, 4, 0), (0, 0, 4, 0, 0), (0, 0, 0, 0, 0)),
    "row": ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 8, 0, 8, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)),
    "column": ((0, 0, 0, 0, 0), (0, 0, 8, 0, 0), (0, 0, 0, 0, 0), (0, 0, 8, 0, 0), (0, 0, 0, 0, 0)),
    "diagonal": ((0, 0, 0, 0, 0), (0, 4, 0, 4, 0), (0, 0, 0, 0, 0), (0, 4, 0, 4, 0), (0, 0, 0, 0, 0)),
}
_MALVAR: Final[dict[str, Kernel]] = {
    "cross": ((0, 0, -2, 0, 0), (0, 0, 4, 0, 0), (-2, 4, 8, 4, -2), (0, 0, 4, 0, 0), (0, 0, -2, 0, 0)),
    "row": ((0, 0, 1, 0, 0), (0, -2, 0, -2, 0), (-2, 8, 10, 8, -2), (0, -2, 0, -2, 0), (0, 0, 1, 0, 0)),
    "column": ((0, 0, -2, 0, 0), (0, -2, 8, -2, 0), (1, 0, 10, 0, 1), (0, -2, 8, -2, 0), (0, 0, -2, 0, 0)),
    "diagonal": ((0, 0, -3, 0, 0), (0, 4, 0, 4, 0), (-3, 0, 12, 0, -3), (0, 4, 0, 4, 0), (0, 0, -3, 0, 0)),
}
_KERNEL_SUM: Final = 16.0


def bilinear(mosaic: Float[Tensor, "height width"], pattern: str) -> Float[Tensor, "3 height width"]:
    """RGB in which each missing colour is the mean of its 2 or 4 nearest samples; recorded samples are kept exactly.

    >>> bilinear(torch.ones(6, 7), "RGGB").unique()
    tensor([1.])

    Args:
        mosaic: linear values in any unit; at least 4x4, also with odd sides. The border is mirrored about the edge
            pixels, which keeps the colour of each position.
        pattern: one of `BAYER_PATTERNS`, the colours of the top-left 2x2 block row by row.

    Raises:
        ValueError: the pattern is unknown, or the mosaic is too small or is not a floating-point matrix.
    """
    return _interpolate(mosaic, pattern, _BILINEAR)


def malvar(mosaic: Float[Tensor, "height width"], pattern: str) -> Float[Tensor, "3 height width"]:
    """RGB in which each missing colour is its bilinear mean plus a share of the recorded colour's local curvature.

    Values can leave the range of the input at edges and should be clipped. Recorded samples are kept exactly.

    Args:
        mosaic: as for `bilinear`.
        pattern: as for `bilinear`.

    Raises:
        ValueError: as for `bilinear`.

    Source: Malvar, He, Cutler 2004, figure 2.
    """
    return _interpolate(mosaic, pattern, _MALVAR)


def malvar_filters(pattern: str) -> Float[Tensor, "12 4 3 3"]:
    """The filters of `malvar` over half-size channels, one for each position of the 2x2 block, in double precision.

    Output 4·colour + position is the colour at this position; it is 0 where the mosaic itself has the colour.
    """
    return _block_filters(pattern, _MALVAR)


def compiled(
    mosaic: Tensor, pattern: str, method: str, black: Sequence[float], scale: Sequence[float]
) -> Float[Tensor, "3 height width"]:
    """RGB from the compiled kernel, which applies levels to a mosaic, clips to [0, 1], demosaics and clips again.

    Args:
        mosaic: (height, width), uint16 or float32, at least 4x4, on the CPU.
        pattern: one of `BAYER_PATTERNS`.
        method: "bilinear" or "malvar".
        black, scale: four numbers each: (value - black)·scale is the linear value at each position of the 2x2 block,
            row by row.

    Raises:
        ValueError: as for `bilinear`.
    """
    _check(tuple(mosaic.shape), pattern)
    kernels = _BILINEAR if method == "bilinear" else _MALVAR
    names = list(kernels)
    filters = [
        [kernel[y][x] / _KERNEL_SUM for y, x in ((2, 2), (2, 1), (1, 2), (2, 0), (0, 2), (1, 1))]
        for kernel in kernels.values()
    ]

    def source(row: int, column: int, colour: str) -> int:
        if pattern[2 * row + column] == colour:
            return 0
        return 1 + names.index(_direction(pattern, row, column, colour))

    sources = [[[source(row, column, colour) for column in (0, 1)] for colour in "RGB"] for row in (0, 1)]
    return demosaic_kernel(mosaic, black, scale, filters, sources)


def _check(shape: tuple[int, ...], pattern: str) -> None:
    if pattern not in BAYER_PATTERNS:
        raise ValueError(f"unknown pattern {pattern!r}; choose one of {', '.join(BAYER_PATTERNS)}")
    if len(shape) != 2 or min(shape) < SMALLEST_SIDE:
        raise ValueError(f"a mosaic is a matrix of 4x4 or more, not {shape}")


def _interpolate(
    mosaic: Float[Tensor, "height width"], pattern: str, kernels: dict[str, Kernel]
) -> Float[Tensor, "3 height width"]:
    _check(tuple(mosaic.shape), pattern)
    if not mosaic.is_floating_point():
        raise ValueError(f"a mosaic is a floating-point matrix, not {mosaic.dtype}")
    height, width = mosaic.shape
    padded = functional.pad(mosaic[None, None], (2, 2 + width % 2, 2, 2 + height % 2), mode="reflect")
    weight = _block_filters(pattern, kernels).to(mosaic)
    # TF32 keeps only 10 bits of each sample, fewer than sensors record.
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        blocks = functional.conv2d(functional.pixel_unshuffle(padded, 2), weight)
    rgb = functional.pixel_shuffle(blocks, 2)[0, :, :height, :width].contiguous()
    for row, column, colour in _places(pattern):
        # A convolution with an identity filter can round, but recorded samples must be exact.
        rgb["RGB".index(colour), row::2, column::2] = mosaic[row::2, column::2]
    return rgb


def _places(pattern: str) -> list[tuple[int, int, str]]:
    """(row, column, colour) of each position of the 2x2 block."""
    return [(index // 2, index % 2, colour) for index, colour in enumerate(pattern)]


def _block_filters(pattern: str, kernels: dict[str, Kernel]) -> Float[Tensor, "12 4 3 3"]:
    """The 5x5 kernels regrouped for 2x2 blocks; axes: output 4·colour + position, input position, 3x3 blocks."""
    filters = torch.zeros(12, 4, 3, 3, dtype=torch.float64)
    for row, column, own_colour in _places(pattern):
        for index, colour in enumerate("RGB"):
            if colour == own_colour:
                continue
            kernel = kernels[_direction(pattern, row, column, colour)]
            for dy in range(-2, 3):
                for dx in range(-2, 3):
                    block_y, in_y = divmod(row + dy, 2)
                    block_x, in_x = divmod(column + dx, 2)
                    value = kernel[dy + 2][dx + 2] / _KERNEL_SUM
                    filters[4 * index + 2 * row + column, 2 * in_y + in_x, block_y + 1, block_x + 1] = value
    return filters


def _direction(pattern: str, row: int, column: int, colour: str) -> str:
    """The name of the kernel for `colour` at a position that lacks it, from the direction of the nearest samples."""
    if colour == "G":
        return "cross"
    there = pattern.index(colour)
    if there // 2 == row:
        return "row"
    return "column" if there % 2 == column else "diagonal"

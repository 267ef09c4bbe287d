"""Mosaics of other filters than Bayer's: Quad Bayer is binned to Bayer, and the others become linear RGB.

Rules, with the names of the filters for their values:

- RCCB (clear, C): C records red, green and blue, so that green is C - R - B. Clear pixels saturate first; there green
  is at least the mean of red and blue.
- RYYCy (yellow, cyan): yellow records red and green, cyan green and blue, so that green is Y - R and blue Cy - G.
- RGB-IR: infrared passes the colour filters too, so that the interpolated infrared is subtracted from each colour.

These rules ignore how real filters overlap: without a matrix of one's own the colours are uncalibrated.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from adaptiveisp.raw.demosaic import malvar
from adaptiveisp.types import BAYER_PATTERNS, PATTERNS, Remark

QUAD = "QUAD_"
"""Beginning of the name of a Quad Bayer pattern: each cell of the Bayer pattern is 2x2 pixels of one colour."""
QUAD_PATTERNS = tuple(QUAD + pattern for pattern in BAYER_PATTERNS)
INFRARED_LAYOUTS = {"RGBIR": ("RG", "IB"), "RGBIR4": ("BGRG", "GIGI", "RGBG", "GIGI")}
"""Rows of the block of an RGB-IR sensor; I is infrared."""
CLEAR = ((1.0, 0.0, 0.0), (-1.0, 1.0, -1.0), (0.0, 0.0, 1.0))
YELLOW = ((1.0, 0.0, 0.0), (-1.0, 1.0, 0.0), (1.0, -1.0, 1.0))
MIXED = {
    "RCCB": ("RGGB", CLEAR),
    "BCCR": ("BGGR", CLEAR),
    "CRBC": ("GRBG", CLEAR),
    "CBRC": ("GBRG", CLEAR),
    "RYYCY": ("RGGB", YELLOW),
}
"""Pattern → Bayer pattern with the same places, and the matrix from its interpolated filters to RGB by the rules."""
DECLARED_PATTERNS = (*PATTERNS, *QUAD_PATTERNS, *MIXED, *INFRARED_LAYOUTS)
"""Patterns that can be declared; raws have one of `PATTERNS`."""
SATURATED = 0.99

Levels = tuple[float, float, float, float]


class Interpreted(NamedTuple):
    """A mosaic or RGB as a raw can hold it: data, pattern (None for RGB), levels and remarks."""

    data: NDArray[Any]
    pattern: str | None
    black: Levels
    white: float
    remarks: tuple[Remark, ...] = ()


def binned(data: NDArray[Any]) -> NDArray[np.float32]:
    """The mean of each 2x2 pixels; an odd row or column at the end is left out.

    >>> binned(np.array([[1, 2, 5], [3, 4, 5]])).tolist()
    [[2.5]]
    """
    height, width = data.shape[0] // 2 * 2, data.shape[1] // 2 * 2
    parts = [data[row:height:2, column:width:2].astype(np.float32) for row in (0, 1) for column in (0, 1)]
    mean: NDArray[np.float32] = (parts[0] + parts[1] + parts[2] + parts[3]) / np.float32(4)
    return mean


def binned_size(width: int, height: int, pattern: str | None) -> tuple[int, int]:
    """(width, height) of the raw that is made of a mosaic of this pattern.

    >>> binned_size(64, 48, "QUAD_RGGB"), binned_size(64, 48, "RGGB")
    ((32, 24), (64, 48))
    """
    return (width // 2, height // 2) if pattern in QUAD_PATTERNS else (width, height)


def without_quad(data: NDArray[Any], pattern: str | None) -> tuple[NDArray[Any], str | None]:
    """A Quad Bayer mosaic binned to a Bayer mosaic, with its pattern; others as they are."""
    if pattern not in QUAD_PATTERNS or data.ndim != 2:
        return data, pattern
    return binned(data), str(pattern).removeprefix(QUAD)


def interpreted(
    data: NDArray[Any],
    pattern: str | None,
    black: Levels,
    white: float,
    matrix: tuple[float, ...] | None,
    name: object,
) -> Interpreted:
    """The mosaic itself if it is Bayer or monochrome and there is no matrix; otherwise linear RGB, black 0 and white 1.

    Args:
        data: a mosaic that is not Quad Bayer, or (height, width, 3) RGB.
        pattern: one of `DECLARED_PATTERNS`, None for RGB.
        black: black level at each position of the 2x2 block.
        white: white level.
        matrix: nine numbers, row by row, that give RGB from the sensor's red, green and blue; None for none.
        name: the file, for remarks.
    """
    if matrix is None and (pattern is None or pattern in PATTERNS):
        return Interpreted(data, pattern, black, white)
    values = torch.from_numpy(np.array(data, dtype=np.float32, order="C"))
    if pattern is None:
        rgb = (values.permute(2, 0, 1) - black[0]) / (white - black[0])
    else:
        for place, level in enumerate(black):
            values[place // 2 :: 2, place % 2 :: 2].sub_(level).div_(white - level)
        rgb = _rgb_of(values, pattern)
    remarks: tuple[Remark, ...] = ()
    if matrix is not None:
        rgb = torch.einsum("ij,jhw->ihw", rgb.new_tensor(matrix).reshape(3, 3), rgb)
    else:
        found = f"its {pattern} filters become red, green and blue by a rule (docs/raws.md)"
        text = (
            f"{name}: {found}, so that colours are uncalibrated; give raw-matrix in a sidecar, or BayerHeader(matrix=…)"
        )
        remarks = (Remark("uncalibrated colours", text),)
    return Interpreted(rgb.permute(1, 2, 0).contiguous().numpy(), None, (0.0, 0.0, 0.0, 0.0), 1.0, remarks)


def _rgb_of(values: Float[Tensor, "height width"], pattern: str) -> Float[Tensor, "3 height width"]:
    """Linear RGB from a mosaic in [0, 1], by the rules of this module."""
    if pattern in INFRARED_LAYOUTS:
        planes = {colour: _interpolated(values, INFRARED_LAYOUTS[pattern], colour) for colour in "RGBI"}
        return torch.stack([planes[colour] - planes["I"] for colour in "RGB"])
    if pattern in BAYER_PATTERNS:
        return malvar(values, pattern)
    if pattern not in MIXED:
        return values.expand(3, -1, -1)
    places, matrix = MIXED[pattern]
    filters = malvar(values, places)
    red, green, blue = torch.einsum("ij,jhw->ihw", filters.new_tensor(matrix), filters)
    if matrix is CLEAR:
        green = torch.where(filters[1] >= SATURATED, torch.maximum(green, (red + blue) / 2), green)
    return torch.stack([red, green, blue])


def _interpolated(
    values: Float[Tensor, "height width"], layout: tuple[str, ...], colour: str
) -> Float[Tensor, "height width"]:
    """One colour at every pixel: the mean of the nearest samples with triangular weights; samples are kept exactly."""
    mask = torch.zeros_like(values)
    for y, row in enumerate(layout):
        for x, letter in enumerate(row):
            if letter == colour:
                mask[y :: len(layout), x :: len(row)] = 1
    for radius in (1, len(layout) - 1):
        ramp = torch.arange(1.0, radius + 2)
        line = torch.cat([ramp, ramp[:-1].flip(0)])
        kernel = (line[:, None] * line)[None, None]
        sums, weights = (
            functional.conv2d(part[None, None], kernel, padding=radius)[0, 0] for part in (values * mask, mask)
        )
        if bool((weights > 0).all()):
            break
    return torch.where(mask > 0, values, sums / weights.clamp(min=1e-6))


def quad_of(cells: list[int], rows: int, columns: int) -> str | None:
    """The name of a Quad Bayer pattern of DNG's colour codes (0, 1, 2 for red, green, blue); None for another one.

    >>> quad_of([0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2], 4, 4)
    'QUAD_RGGB'
    """
    if (rows, columns) != (4, 4) or len(cells) != 16 or not set(cells) <= {0, 1, 2}:
        return None
    coarse = "".join("RGB"[cells[4 * row + column]] for row in (0, 2) for column in (0, 2))
    fine = "".join("RGB"[cell] for cell in cells)
    expected = "".join(coarse[row // 2 * 2 + column // 2] for row in range(4) for column in range(4))
    return QUAD + coarse if fine == expected and coarse in BAYER_PATTERNS else None

"""Kernels of csrc/ that make raws of photos and resize images.

They compute what `raw.unprocess` and `data.random_crop` compute in PyTorch, to rounding.
"""

import ctypes
import math
from collections.abc import Sequence
from functools import lru_cache, partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.kernels.checks import described, is_float32, overlap, require, require_count, require_image
from adaptiveisp.kernels.forward import rows_for_threads
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread

LEAST_VALUES = 1 << 17
"""Least values of the noise for a thread."""
NUMBERS = 15
"""Nine of the matrix row by row, three gains, brightness, shot, read."""

Axis = tuple[Tensor, Tensor, int]
"""First source pixel of each place, its weights (one row a tap), the number of taps."""


def unprocess(
    pixels: UInt8[Tensor, "3 height width"],
    mirrored: bool,
    table: Float[Tensor, "256"],
    numbers: Sequence[float],
    noisy: bool,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "3 height width"] | None]:
    """The raw of a photo without noise, and the variance of its noise where `noisy` asks for it.

    Args:
        pixels: sRGB code values, a view with any strides.
        mirrored: whether the photo is mirrored left to right.
        table: linear light in [0, 1] of each code.
        numbers: see `NUMBERS`.
        noisy: whether the variance is wanted.

    Raises:
        ValueError: an argument does not fit.
    """
    fits = pixels.dtype == torch.uint8 and pixels.device.type == "cpu" and pixels.ndim == 3 and len(pixels) == 3
    require(fits and pixels.numel() > 0, f"the kernel takes uint8 (3, height, width), not {tuple(pixels.shape)}")
    known = is_float32(table) and table.shape == (256,) and table.is_contiguous()
    require(known and len(numbers) == NUMBERS, f"the kernel takes a table of 256 and {NUMBERS} numbers")
    height, width = pixels.shape[1:]
    clean = torch.empty(pixels.shape, dtype=torch.float32)
    variance = torch.empty(pixels.shape, dtype=torch.float32) if noisy else None
    to_plane, to_row, to_pixel = pixels.stride()
    first = pixels.data_ptr() + (to_pixel * (width - 1) if mirrored else 0)
    strides = (to_plane, to_row, -to_pixel if mirrored else to_pixel)
    targets = (clean.data_ptr(), None if variance is None else variance.data_ptr(), height, width)
    constants = (ctypes.c_float * NUMBERS)(*numbers)
    kernel = function("unprocess")
    parts = rows_for_threads(height, width, LEAST_VALUES // 3)
    spread([partial(kernel, first, *strides, *targets, a, b, table.data_ptr(), constants) for a, b in parts])
    return clean, variance


def add_noise(
    values: Float[Tensor, "*shape"], deviation: Float[Tensor, "*shape"], normal: Float[Tensor, "*shape"], steps: int
) -> None:
    """Adds deviation·normal to the values, clips them to [0, 1] and rounds them to steps of 1/steps, in place.

    Args:
        values: contiguous; they are changed.
        deviation, normal: of the values' shape, contiguous.
        steps: below 2^22; 0 does not round.

    Raises:
        ValueError: an argument does not fit, or the values share memory with another one.
    """
    for tensor in (values, deviation, normal):
        fits = is_float32(tensor) and tensor.is_contiguous() and tensor.shape == values.shape
        require(fits, "the kernel takes contiguous float32 of one shape on the CPU")
    require(not overlap(values, deviation) and not overlap(values, normal), "the values share memory with their noise")
    require(0 <= steps < 1 << 22, f"steps must be in 0..{(1 << 22) - 1}, not {steps}")
    kernel, addresses = function("add_noise"), (values.data_ptr(), deviation.data_ptr(), normal.data_ptr())
    spread([partial(kernel, *addresses, a, b, float(steps)) for a, b in ranges(values.numel(), 1024, LEAST_VALUES)])


@lru_cache(maxsize=512)
def _axis(before: int, after: int) -> Axis:
    """The source pixels and weights of an axis of `after` places from one of `before`."""
    room = min(before, math.ceil(2 * max(1.0, before / after)) + 1)
    firsts, weights = torch.empty(after, dtype=torch.int32), torch.empty(room, after, dtype=torch.float32)
    return firsts, weights, function("resize_axis")(before, after, room, firsts.data_ptr(), weights.data_ptr())


def resize(picture: Float[Tensor, "3 height width"], height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    """The image at another size, antialiased bilinear, clipped to [0, 1].

    Args:
        picture: contiguous.
        height, width: of the result in pixels, at least 1.

    Raises:
        ValueError: an argument does not fit.
    """
    require_image(picture)
    require(min(height, width) > 0, f"the result must have pixels, not {height}x{width}")
    target = torch.empty(3, height, width, dtype=torch.float32)
    rows, columns = _axis(picture.shape[1], height), _axis(picture.shape[2], width)
    kernel, size = function("resize"), (picture.shape[2], height, width)
    axes = [x for first, weights, taps in (rows, columns) for x in (first.data_ptr(), weights.data_ptr(), taps)]

    def work(channel: int, start: int, stop: int) -> None:
        planes = (picture[channel].data_ptr(), target[channel].data_ptr())
        kernel(*planes, *size, start, stop, *axes, scratch(4 * rows[2] * width))

    spread([partial(work, c, a, b) for c in range(3) for a, b in rows_for_threads(height, width)])
    return target


LEAST_DEVELOPED = 1 << 19
"""Least pixels of the sensor for a thread that develops."""


def develop_small(
    mosaic: Tensor,
    black: Sequence[float],
    scale: Sequence[float],
    colours: Sequence[int],
    height: int,
    width: int,
) -> Float[Tensor, "3 h2 w2"]:
    """RGB in [0, 1] at a smaller size: means of (value - black)·scale, clipped, over the values of each colour.

    The weights are those of `resize`. Nothing is interpolated, so that each side must be at most half as long.

    Args:
        mosaic: (height, width), uint16 or float32, contiguous, on the CPU.
        black, scale: by position in the 2x2 block, row by row.
        colours: 0, 1 or 2 for the colour of each position; each colour occurs.
        height, width: of the result in pixels.

    Raises:
        ValueError: an argument does not fit.
    """
    known = mosaic.dtype in (torch.uint16, torch.float32) and mosaic.device.type == "cpu"
    fits = known and mosaic.is_contiguous() and mosaic.ndim == 2
    require(fits, f"the kernel takes a contiguous uint16 or float32 mosaic, not {described(mosaic)}")
    small = height >= 1 and width >= 1 and 2 * height <= mosaic.shape[0] and 2 * width <= mosaic.shape[1]
    require(small, f"each side must be at most half of {tuple(mosaic.shape)}, not {height}x{width}")
    require_count(black, 4, "black")
    require_count(scale, 4, "scale")
    require(len(colours) == 4 and set(colours) == {0, 1, 2}, "colours are four of 0, 1 and 2, and each occurs")
    rows, columns = _axis(mosaic.shape[0], height), _axis(mosaic.shape[1], width)
    target = torch.empty(3, height, width, dtype=torch.float32)
    levels = [torch.tensor(table, dtype=torch.float32) for table in (black, scale)]
    sites = torch.tensor(colours, dtype=torch.int32)
    tables = [*(table.data_ptr() for table in levels), sites.data_ptr()]
    axes = [x for first, weights, taps in (rows, columns) for x in (first.data_ptr(), weights.data_ptr(), taps)]
    kernel, is_float = function("develop_small"), int(mosaic.dtype == torch.float32)
    size = (*mosaic.shape, height, width)

    def work(start: int, stop: int) -> None:
        memory = row_scratch(2, mosaic.shape[1])
        kernel(mosaic.data_ptr(), is_float, target.data_ptr(), *size, start, stop, *tables, *axes, memory)

    least = max(1, LEAST_DEVELOPED * height // mosaic.numel())
    spread([partial(work, start, stop) for start, stop in ranges(height, 1, least)])
    return target

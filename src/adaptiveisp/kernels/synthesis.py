"""The kernels of csrc/ that make raws of photos and resize pictures; `unprocess` and `views` say what they compute."""

import math
from collections.abc import Sequence
from functools import lru_cache, partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.kernels.forward import _FLOAT, _check, _kernel, _refuse_unless, _rows
from adaptiveisp.kernels.thread_pool import ranges, scratch, spread

LEAST_VALUES = 1 << 17
"""A thread gets at least so many values of the noise."""
NUMBERS = 15
"""Nine of the matrix row by row, three gains, brightness, shot, read."""

Axis = tuple[Tensor, Tensor, int]
"""First pixel of each place, its weights (one row for each tap), number of taps."""


def unprocess(
    pixels: UInt8[Tensor, "3 height width"],
    mirrored: bool,
    table: Float[Tensor, "256"],
    numbers: Sequence[float],
    noisy: bool,
) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "3 height width"] | None]:
    """The clean raw of a photo, and the variance of its noise where that is asked for.

    Args:
        pixels: sRGB code values, a view with any strides.
        mirrored: left to right.
        table: linear light of each code.
        numbers: see `NUMBERS`.
        noisy: whether the variance is wanted.
    """
    fits = pixels.dtype == torch.uint8 and pixels.device.type == "cpu" and pixels.ndim == 3 and len(pixels) == 3
    _refuse_unless(fits, f"the kernel takes uint8 (3, height, width), not {tuple(pixels.shape)}")
    known = table.dtype == torch.float32 and table.shape == (256,) and table.is_contiguous()
    _refuse_unless(known and len(numbers) == NUMBERS, f"the kernel takes a table of 256 and {NUMBERS} numbers")
    height, width = pixels.shape[1:]
    clean = torch.empty(pixels.shape, dtype=torch.float32)
    variance = torch.empty(pixels.shape, dtype=torch.float32) if noisy else None
    to_plane, to_row, to_pixel = pixels.stride()
    first = pixels.data_ptr() + (to_pixel * (width - 1) if mirrored else 0)
    strides = (to_plane, to_row, -to_pixel if mirrored else to_pixel)
    targets = (clean.data_ptr(), None if variance is None else variance.data_ptr(), height, width)
    constants = (_FLOAT * NUMBERS)(*numbers)
    kernel = _kernel("unprocess")
    parts = _rows(height, width, LEAST_VALUES // 3)
    spread([partial(kernel, first, *strides, *targets, a, b, table.data_ptr(), constants) for a, b in parts])
    return clean, variance


def add_noise(
    values: Float[Tensor, "*shape"], deviation: Float[Tensor, "*shape"], normal: Float[Tensor, "*shape"], steps: int
) -> None:
    """Adds deviation·normal to the values, clips them to [0, 1] and rounds them to steps of 1/steps, in place.

    Args:
        values: float32, contiguous, on the CPU.
        deviation, normal: as the values.
        steps: below 2^22; 0 does not round.
    """
    for tensor in (values, deviation, normal):
        fits = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
        _refuse_unless(fits and tensor.shape == values.shape, "the kernel takes contiguous float32 of one shape")
    kernel, addresses = _kernel("add_noise"), (values.data_ptr(), deviation.data_ptr(), normal.data_ptr())
    spread([partial(kernel, *addresses, a, b, float(steps)) for a, b in ranges(values.numel(), 1024, LEAST_VALUES)])


@lru_cache(maxsize=512)
def _axis(before: int, after: int) -> Axis:
    """Where the values of an axis of `after` places come from on one of `before`."""
    room = min(before, math.ceil(2 * max(1.0, before / after)) + 1)
    firsts, weights = torch.empty(after, dtype=torch.int32), torch.empty(room, after, dtype=torch.float32)
    return firsts, weights, _kernel("resize_axis")(before, after, room, firsts.data_ptr(), weights.data_ptr())


def resize(picture: Float[Tensor, "3 height width"], height: int, width: int) -> Float[Tensor, "3 h2 w2"]:
    """The picture at another size, antialiased bilinear, clipped to [0, 1].

    Args:
        picture: float32, contiguous, on the CPU.
        height, width: of the target, at least 1.
    """
    _check(picture)
    _refuse_unless(picture.numel() > 0 and min(height, width) > 0, "there must be pixels")
    target = torch.empty(3, height, width, dtype=torch.float32)
    rows, columns = _axis(picture.shape[1], height), _axis(picture.shape[2], width)
    kernel, size = _kernel("resize"), (picture.shape[2], height, width)
    axes = [x for first, weights, taps in (rows, columns) for x in (first.data_ptr(), weights.data_ptr(), taps)]

    def work(channel: int, start: int, stop: int) -> None:
        planes = (picture[channel].data_ptr(), target[channel].data_ptr())
        kernel(*planes, *size, start, stop, *axes, scratch(4 * rows[2] * width))

    spread([partial(work, c, a, b) for c in range(3) for a, b in _rows(height, width)])
    return target

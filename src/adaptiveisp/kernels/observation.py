"""The kernels of csrc/look.c.inc: what a policy that looks once sees of an image, and its encoder.

The rest as in `native`: they compute what the PyTorch code computes that stands beside each call.
"""

import ctypes
import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.kernels import forward as native
from adaptiveisp.kernels.forward import _batch, _kernel, _refuse_unless
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread

FILTERS = 16
"""Filters that the encoder works on at once: a layer has so many or a multiple."""
N_LIGHT = 19
"""Numbers that `light` gives of an image: a histogram of 16 bins, mean, deviation, share of clipped pixels."""

Vector = NDArray[np.float32]
Cells = Float[Tensor, "3 height width"]
Doubles = ctypes.c_double * 3


def scan(
    image: Float[Tensor, "batch 3 height width"], n: int
) -> tuple[Float[Tensor, "batch 3 n n"], Float[Tensor, " batch"]]:
    """What `native.pool` and `native.laplacian` give, the image read once."""
    image = _batch(image)
    batch, _, height, width = image.shape
    _refuse_unless(height > 0 and width > 0, "there must be pixels")
    cells, kernel = image.new_empty(batch, 3, n, n), _kernel("scan")

    def work(i: int, start: int, stop: int) -> float:
        addresses = (image[i].data_ptr(), cells[i].data_ptr())
        found: float = kernel(*addresses, height, width, n, start, stop, row_scratch(7, width))
        return found

    parts = ranges(n, 1, max(1, native.LEAST_CHEAP * n // max(height * width, 1)))
    tasks = [(i, a, b) for i in range(batch) for a, b in parts]
    sums = [0.0] * batch
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += found
    inner = max((height - 2) * (width - 2), 1)
    return cells, torch.tensor([value / inner for value in sums], dtype=image.dtype)


def _planes(cells: Tensor) -> Cells:
    fits = native.takes(cells) and cells.ndim == 3 and cells.shape[0] == 3
    _refuse_unless(fits, f"kernels take float32 (3, height, width), not {tuple(cells.shape)}")
    return cells.contiguous()


def unclipped(cells: Cells, ceiling: float) -> tuple[list[float], int]:
    """Sums of red, green, blue over the pixels that have every channel below the ceiling; how many they are."""
    cells, sums = _planes(cells), Doubles()
    count: int = _kernel("unclipped")(cells.data_ptr(), cells[0].numel(), ceiling, ctypes.addressof(sums))
    return list(sums), count


def below_limit(cells: Cells, gains: Sequence[float]) -> Callable[[float], tuple[list[float], list[float]]]:
    """A function of one more gain: for each channel the sum of the values that stay below 1, and how many do not.

    Args:
        cells: red, green, blue.
        gains: of each; the sums are of values times these.
    """
    cells, own, found = _planes(cells), Doubles(*gains), (ctypes.c_double * 6)()
    kernel, n = _kernel("below_limit"), cells[0].numel()

    def at(gain: float) -> tuple[list[float], list[float]]:
        kernel(cells.data_ptr(), n, ctypes.addressof(own), gain, ctypes.addressof(found))
        return found[:3], found[3:]

    return at


def light(
    cells: Float[Tensor, "batch 3 n n"], begun: Float[Tensor, "batch 3 n n"], ceiling: float
) -> tuple[Float[Tensor, "batch 6 n n"], Float[Tensor, "batch n_light"]]:
    """An observation's view and its first numbers, see `sequence_networks.Observation`.

    Args:
        cells: pooled images.
        begun: the same after the start's stages.
        ceiling: a channel above this is clipped.
    """
    cells, begun = _batch(cells), _batch(begun)
    _refuse_unless(cells.shape == begun.shape, "both pooled images must have one shape")
    batch, _, height, width = cells.shape
    view, numbers = cells.new_empty(batch, 6, height, width), cells.new_empty(batch, N_LIGHT)
    kernel, luminance = _kernel("light"), row_scratch(height, width)
    for row in zip(cells, begun, view, numbers, strict=True):
        one, after, planes, found = (tensor.data_ptr() for tensor in row)
        kernel(one, after, height * width, ceiling, planes, found, luminance)
    return view, numbers


class Encoder:
    """Convolutions 4x4 with stride 2 and a border of one, each with a leaky ReLU; then each channel's mean and maximum.

    Args:
        layers: weights and offsets of each as PyTorch has them; the filters are multiples of `FILTERS`.
        slope: of the leaky ReLU.
    """

    def __init__(self, layers: Sequence[tuple[Vector, Vector]], slope: float):
        channels = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
        _refuse_unless(not any(n % FILTERS for n in channels[1:]), f"filters must be multiples of {FILTERS}")
        packed = []
        for weight, offset in layers:
            blocks = weight.reshape(-1, FILTERS, *weight.shape[1:])
            blocks = blocks.transpose(0, 3, 4, 2, 1)  # block, row, column, input, filter
            flat = blocks.reshape(len(blocks), -1)
            packed.append(np.concatenate([offset.reshape(-1, FILTERS), flat], axis=1).ravel())
        self.weights = np.concatenate(packed).astype(np.float32)
        self.channels = (ctypes.c_int64 * len(channels))(*channels)
        self.slope = slope

    def __call__(self, view: Float[Tensor, "planes side side"]) -> Vector:
        """All means, then all maxima, of one view."""
        planes, side, across = view.shape
        n_layers = len(self.channels) - 1
        fits = native.takes(view) and planes == self.channels[0] and side == across and side % (4 << n_layers) == 0
        _refuse_unless(fits, f"the encoder takes no float32 view {tuple(view.shape)}")
        view = view.contiguous()
        found = np.empty(2 * self.channels[n_layers], dtype=np.float32)
        sides = itertools.accumulate(range(n_layers), lambda now, _: now // 2, initial=side)
        n_values = sum((now + 2) ** 2 * n for now, n in zip(sides, self.channels, strict=True))
        layout = (n_layers, ctypes.addressof(self.channels), self.weights.ctypes.data, self.slope)
        _kernel("encode")(view.data_ptr(), side, *layout, found.ctypes.data, scratch(4 * n_values))
        return found

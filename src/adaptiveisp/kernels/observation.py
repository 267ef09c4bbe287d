"""Kernels of csrc/observation.c.inc: a policy's observation of an image, and the encoder of a sequence policy.

Each computes what the PyTorch code beside its caller computes, to rounding.
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

from adaptiveisp.kernels import forward
from adaptiveisp.kernels.checks import batch_of_images, is_float32, require, require_count
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread

FILTERS = 16
"""Filters that the encoder works on at once: a layer has so many or a multiple."""
N_LIGHT = 19
"""Numbers of an image that `light` returns: a histogram of 16 bins, mean, deviation, share of clipped pixels."""

Vector = NDArray[np.float32]
Cells = Float[Tensor, "3 height width"]
Doubles = ctypes.c_double * 3


def scan(
    image: Float[Tensor, "batch 3 height width"], n: int
) -> tuple[Float[Tensor, "batch 3 n n"], Float[Tensor, " batch"]]:
    """The results of `forward.pool` and `forward.laplacian` (0 for an image below 3x3), in one pass over the image."""
    image = batch_of_images(image)
    require(n >= 1, f"a grid has at least one cell, not {n}")
    batch, _, height, width = image.shape
    cells, kernel = image.new_empty(batch, 3, n, n), function("scan")

    def work(i: int, start: int, stop: int) -> float:
        addresses = (image[i].data_ptr(), cells[i].data_ptr())
        found: float = kernel(*addresses, height, width, n, start, stop, row_scratch(7, width))
        return found

    parts = ranges(n, 1, max(1, forward.LEAST_CHEAP * n // max(height * width, 1)))
    tasks = [(i, a, b) for i in range(batch) for a, b in parts]
    sums = [0.0] * batch
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += found
    inner = max((height - 2) * (width - 2), 1)
    return cells, torch.tensor([value / inner for value in sums], dtype=image.dtype)


def _planes(cells: Tensor) -> Cells:
    fits = is_float32(cells) and cells.ndim == 3 and cells.shape[0] == 3
    require(fits and cells.numel() > 0, f"kernels take float32 (3, height, width), not {tuple(cells.shape)}")
    return cells.contiguous()


def unclipped(cells: Cells, ceiling: float) -> tuple[list[float], int]:
    """Sums of red, green and blue over the pixels with every channel below the ceiling, and the number of them."""
    cells, sums = _planes(cells), Doubles()
    count: int = function("unclipped")(cells.data_ptr(), cells[0].numel(), ceiling, ctypes.addressof(sums))
    return list(sums), count


def below_limit(cells: Cells, gains: Sequence[float]) -> Callable[[float], tuple[list[float], list[float]]]:
    """A function of a common gain: by channel, the sum of the values that stay below 1 and the number of the others.

    Args:
        cells: red, green, blue.
        gains: of each channel; the sums are of values times these.
    """
    require_count(gains, 3, "gains")
    cells, own, found = _planes(cells), Doubles(*gains), (ctypes.c_double * 6)()
    kernel, n = function("below_limit"), cells[0].numel()

    def at(gain: float) -> tuple[list[float], list[float]]:
        kernel(cells.data_ptr(), n, ctypes.addressof(own), gain, ctypes.addressof(found))
        return found[:3], found[3:]

    return at


def light(
    cells: Float[Tensor, "batch 3 n n"], preprocessed: Float[Tensor, "batch 3 n n"], ceiling: float
) -> tuple[Float[Tensor, "batch 6 n n"], Float[Tensor, "batch n_light"]]:
    """An observation's planes and its first numbers, see `policies.sequence.networks.Observation`.

    Args:
        cells: pooled images.
        preprocessed: the same images after the preprocessing.
        ceiling: a channel above this counts as clipped.
    """
    cells, preprocessed = batch_of_images(cells), batch_of_images(preprocessed)
    require(cells.shape == preprocessed.shape, "both pooled images must have one shape")
    batch, _, height, width = cells.shape
    view, numbers = cells.new_empty(batch, 6, height, width), cells.new_empty(batch, N_LIGHT)
    kernel, luminance = function("light"), row_scratch(height, width)
    for row in zip(cells, preprocessed, view, numbers, strict=True):
        one, after, planes, found = (tensor.data_ptr() for tensor in row)
        kernel(one, after, height * width, ceiling, planes, found, luminance)
    return view, numbers


class Encoder:
    """Convolutions 4x4 with stride 2 and a border of one, each with a leaky ReLU; then each channel's mean and maximum.

    Args:
        layers: weights (filters, channels, 4, 4) and offsets (filters) of each; filters are multiples of `FILTERS`.
        slope: of the leaky ReLU for negative values.

    Raises:
        ValueError: a layer does not fit.
    """

    def __init__(self, layers: Sequence[tuple[Vector, Vector]], slope: float):
        channels = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
        for (weight, offset), n_in, n_out in zip(layers, channels, channels[1:], strict=False):
            fits = weight.shape == (n_out, n_in, 4, 4) and offset.shape == (n_out,)
            require(fits, f"weights {weight.shape} and offsets {offset.shape} are no layer of {n_in} channels")
        require(not any(n % FILTERS for n in channels[1:]), f"filters must be multiples of {FILTERS}")
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
        """All channels' means, then all their maxima, of one square view.

        Raises:
            ValueError: the view is not float32, or of another size.
        """
        planes, side, across = view.shape
        n_layers = len(self.channels) - 1
        fits = is_float32(view) and planes == self.channels[0] and side == across and side % (4 << n_layers) == 0
        require(fits, f"the encoder takes no float32 view {tuple(view.shape)}")
        view = view.contiguous()
        found = np.empty(2 * self.channels[n_layers], dtype=np.float32)
        sides = itertools.accumulate(range(n_layers), lambda now, _: now // 2, initial=side)
        n_values = sum((now + 2) ** 2 * n for now, n in zip(sides, self.channels, strict=True))
        layout = (n_layers, ctypes.addressof(self.channels), self.weights.ctypes.data, self.slope)
        function("encode")(view.data_ptr(), side, *layout, found.ctypes.data, scratch(4 * n_values))
        return found

"""Resizing as products of matrices: means over cells, and bilinear resizing with antialiasing.

A pixel of the result depends on few pixels of the image. For blocks of `BLOCK` results those are gathered and
multiplied by their weights, which takes a fraction of a product with the whole matrix. All operators are basic ones,
since many runtimes have no resizing with antialiasing.
"""

from typing import NamedTuple

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value

BLOCK = 16
"""Values of the result whose pixels are gathered together."""


def resized_sides(ops: Ops, height: Value, width: Value, longer_side: int) -> tuple[Value, Value]:
    """(height, width) after resizing so that the longer side is `longer_side`; see `letterbox.resized_size`."""
    longest = ops.cast(ops("Max", height, width), np.float64)
    scale = float(longer_side) / longest
    sides = (ops("Round", ops.cast(side, np.float64) * scale) for side in (height, width))
    tall, wide = (ops("Max", ops.cast(side, np.int64), 1) for side in sides)
    return tall, wide


def pool(ops: Ops, image: Value, height: Value, width: Value, cells: int) -> Value:
    """The means of the image in a grid of cells x cells, as PyTorch's adaptive average pooling takes them."""
    down, across = _cell_weights(ops, height, cells), _cell_weights(ops, width, cells)
    return ops("MatMul", ops("MatMul", down, image), ops("Transpose", across, perm=[1, 0]))


def _cell_weights(ops: Ops, side: Value, cells: int) -> Value:
    """Weights (cells, side) of the pixels in each cell's mean."""
    first = ops.constant(np.arange(cells, dtype=np.int64)[:, None]) * side / cells
    last = (ops.constant(np.arange(1, cells + 1, dtype=np.int64)[:, None]) * side + (cells - 1)) / cells
    place = ops("Range", 0, side, 1, dtype=np.int64)
    inside = ops("And", ops("GreaterOrEqual", place, first), ops("Less", place, last))
    return ops.cast(inside, np.float32) / ops.cast(last - first, np.float32)


class Taps(NamedTuple):
    """The weights of an axis in blocks.

    Attributes:
        places: (blocks, taps) pixels that the values of a block depend on.
        weights: (blocks, BLOCK, taps) weight of each of these pixels for each value of the block, not yet normalised.
        size: number of values.
    """

    places: Value
    weights: Value
    size: Value


def taps_of(ops: Ops, before: Value, after: Value) -> Taps:
    """The pixels and weights by which an axis of `before` pixels becomes one of `after` values.

    A weight falls linearly from the centre of the value to 0 at a distance of one pixel of the coarser grid.
    """
    # The kernels round the scale and the centres to float32, too.
    scale = ops.cast(ops.cast(before, np.float32) / ops.cast(after, np.float32), np.float64)
    support = ops("Max", scale, 1.0)
    blocks = (after + (BLOCK - 1)) / BLOCK
    number = ops("Range", 0, blocks * BLOCK, 1, dtype=np.int64)
    # Values beyond the last one, which fill the last block, repeat it.
    centre = (ops.cast(ops("Min", number, after - 1), np.float64) + 0.5) * scale
    centre = ops.reshape(ops.cast(ops.cast(centre, np.float32), np.float64), blocks, BLOCK)
    first = ops.cast(ops("Floor", ops.slice(centre, 1, 0, 1) - support), np.int64)
    reach = ops("Ceil", scale * float(BLOCK - 1) + 2.0 * support)
    places = first + ops("Range", 0, ops.cast(reach, np.int64) + 2, 1, dtype=np.int64)
    inside = ops("And", ops("GreaterOrEqual", places, 0), ops("Less", places, before))
    pixels = ops("Unsqueeze", ops.cast(places, np.float64) + 0.5, np.asarray([1]))
    distance = pixels - ops("Unsqueeze", centre, np.asarray([2]))
    weights = ops.cast(ops("Max", 1.0 - ops("Abs", distance) / support, 0.0), np.float32)
    weights = weights * ops.cast(ops("Unsqueeze", inside, np.asarray([1])), np.float32)
    return Taps(ops("Max", ops("Min", places, before - 1), 0), weights, after)


def normalised(ops: Ops, weights: Value) -> Value:
    """The weights over their sum."""
    return weights / ops.reduce("Sum", weights, [2], keep=True)


def resample_rows(ops: Ops, image: Value, taps: Taps, weights: Value) -> Value:
    """An image (…, height, width) with the rows of its last two axes resampled.

    Args:
        image: (height, width) or (channels, height, width).
        taps: of the rows.
        weights: their normalised weights.
    """
    gathered = ops("Gather", image, taps.places, axis=-2)  # (…, blocks, taps, width)
    made = ops("MatMul", weights, gathered)
    return made


def resize(ops: Ops, image: Value, before: tuple[Value, Value], after: tuple[Value, Value]) -> Value:
    """An image (1, 3, height, width) resized, bilinear with antialiasing, and clipped to [0, 1]."""
    picture = ops("Squeeze", image, np.asarray([0]))
    for old, new in zip(before, after, strict=True):
        taps = taps_of(ops, old, new)
        rows = resample_rows(ops, picture, taps, normalised(ops, taps.weights))
        # (3, blocks, BLOCK, width) → (3, width, rows): the other axis comes next.
        lines = _joined(ops, rows)
        if new.data is None or new.number % BLOCK:
            lines = ops.slice(lines, 1, 0, new)
        picture = ops("Transpose", lines, perm=[0, 2, 1])
    return ops.clip(ops("Unsqueeze", picture, np.asarray([0])), 0, 1)


def _joined(ops: Ops, rows: Value) -> Value:
    """(3, blocks, BLOCK, width) → (3, blocks·BLOCK, width)."""
    shape = ops("Shape", rows)
    width = ops("Slice", shape, np.asarray([3]), np.asarray([4]), np.asarray([0]))
    return ops("Reshape", rows, ops.concat([ops.constant(np.asarray([3, -1], np.int64)), width], 0))

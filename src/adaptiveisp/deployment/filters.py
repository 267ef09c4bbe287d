"""The modules that look at a pixel's surroundings or at the whole image, as nodes; see `deployment.pointwise`.

They compute in float32 whatever the graph's precision is: they subtract nearly equal numbers and add up many small
ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adaptiveisp.deployment.control_flow import repeat
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.pointwise import blend, exp2, luminance, scale, weighted
from adaptiveisp.deployment.resampling import pool
from adaptiveisp.isp.guided_filter import LEAST
from adaptiveisp.isp.modules import denoise as nlm
from adaptiveisp.isp.modules import gray_world as gray
from adaptiveisp.isp.modules import guided_denoise as guided
from adaptiveisp.isp.modules import local_tone as tone
from adaptiveisp.isp.modules import pos_isp_denoise
from adaptiveisp.isp.modules.fast_denoise import FAST_SEARCH_RADIUS, FAST_SEARCH_STEP, FAST_STRENGTH
from adaptiveisp.isp.modules.sharpen import CENTRE_WEIGHT
from adaptiveisp.utils.color import LUMA, LUMA_BT601


class Window(NamedTuple):
    """The search window of non-local means: offsets up to a radius on each axis, some pixels apart."""

    radius: int
    step: int


FULL, FAST = Window(nlm.SEARCH_RADIUS, 1), Window(FAST_SEARCH_RADIUS, FAST_SEARCH_STEP)
STRIP = 52
"""Most rows of a strip of non-local means: at a width of 416, each of its images takes 0.1 or 0.3 MB."""


def sides(ops: Ops, image: Value) -> tuple[Value, Value]:
    """Height and width of the images of this graph, whole numbers."""
    assert ops.root.sides is not None, "the sides of the images are not set"
    return ops.root.sides


def sharpen(ops: Ops, image: Value, params: Value) -> Value:
    """clip(x + (f - 1)·(x - blur), 0, 1); the 1-pixel border is left as it is."""
    picture = ops.cast(image, np.float32)
    whole = ops("AveragePool", picture, kernel_shape=[3, 3]) * 9.0
    middle = ops.slice(ops.slice(picture, 2, 1, -1), 3, 1, -1)
    detail = ops.pad((9.0 * middle - whole) / (8 + CENTRE_WEIGHT), [1, 1, 1, 1])
    return ops.cast(ops.clip(picture + (ops.item(params, 0) - 1.0) * detail, 0, 1), image.dtype)


def gray_world(ops: Ops, image: Value, params: Value) -> Value:
    """The channels times gains that make their mean grey."""
    cells = pool(ops, ops.cast(image, np.float32), *sides(ops, image), gray.SIDE)
    usable = ops.cast(ops("Less", ops.reduce("Max", cells, [1], keep=True), gray.CLIPPED), np.float32)
    usable = ops.where(ops("Greater", ops.reduce("Sum", usable, [2, 3], keep=True), 0.0), usable, 1.0)
    sums, count = (ops.reduce("Sum", value, [2, 3]) for value in (cells * usable, usable))
    means = ops.clip(ops.reshape(sums / count, 3), gray.LEAST_MEAN)
    light = ops.reduce("Sum", means * np.asarray(LUMA, np.float32), [0], keep=True)
    gains = ops.clip(light / means, 1 / gray.MOST_GAIN, gray.MOST_GAIN)
    return scale(ops, image, ops("Pow", gains, ops.item(params, 0)))


def denoise(ops: Ops, image: Value, params: Value) -> Value:
    """Non-local means."""
    single = ops.cast(image, np.float32)
    return ops.cast(_means(ops, single, weighted(ops, single, LUMA_BT601), params), image.dtype)


def fast_denoise(ops: Ops, image: Value, params: Value) -> Value:
    """Non-local means with every second pixel of a smaller search window, and a wider weight."""
    single = ops.cast(image, np.float32)
    made = _means(ops, single, weighted(ops, single, LUMA_BT601), FAST_STRENGTH * params, window=FAST)
    return ops.cast(made, image.dtype)


def denoise_with_epsilon(ops: Ops, image: Value, params: Value) -> Value:
    """Non-local means of POS-ISP: an epsilon under the root, and patches compared on the clipped image."""
    single = ops.cast(image, np.float32)
    luma = weighted(ops, ops.clip(single, 0, 1), LUMA_BT601)
    made = _means(ops, single, luma, params, pos_isp_denoise.ROOT_EPSILON)
    return ops.cast(ops.clip(made, 0, 1), image.dtype)


def _moved(ops: Ops, padded: Value, pad: int, margin: int, shift: tuple[int, int] = (0, 0)) -> Value:
    """The interior of a padded image plus `margin`, moved by (dy, dx)."""
    rows, columns = pad - margin + shift[0], pad - margin + shift[1]
    ends = [shift[i] - (pad - margin) for i in (0, 1)]  # from the end, negative; 0 is the end itself
    bounds = np.asarray([rows, columns], np.int64), np.asarray([end or np.iinfo(np.int64).max for end in ends])
    return ops("Slice", padded, *bounds, np.asarray([2, 3], np.int64))


def _means(ops: Ops, image: Value, luma: Value, params: Value, epsilon: float = 0.0, window: Window = FULL) -> Value:
    """Σ w_o(p) x(p+o) / Σ w_o(p) over the offsets of a window, in strips of rows: a loop whose images fit into a cache.

    As whole images, the hundreds of intermediate ones would take 0.5 GB at the usual size instead of 0.1 GB.

    Args:
        image: averaged; luma: compared, (1, 1, height, width).
        params: the strength.
        epsilon: added to the sum of squared differences before the root.
        window: the offsets.
    """
    patch = nlm.PATCH_RADIUS
    margin = 2 * window.radius + patch
    (height, width), planes = sides(ops, image), ops.concat([image, luma], 1)
    places = ops("Mod", ops("Range", -margin, width + margin, 1, dtype=np.int64), width)
    planes = ops("Gather", planes, places, axis=3)
    # The root of the mean is taken, so the sum's root is `size` times that.
    factor = -float(2 * patch + 1) / (ops.item(params, 0) + nlm.EPSILON)
    count = (height + (STRIP - 1)) / STRIP if ops.root.loops else ops.constant(np.asarray(1, np.int64))
    rows = (height + (count - 1)) / count
    around = ops("Range", -margin, rows + margin, 1, dtype=np.int64)

    def strip(inner: Ops, number: Value, _: Sequence[Value]) -> tuple[list[Value], Value, list[Value]]:
        near = inner("Gather", planes, inner("Mod", number * rows + around, height), axis=2)
        made = _means_of_strip(inner, inner.slice(near, 1, 0, 3), inner.slice(near, 1, 3, 4), factor, epsilon, window)
        return [], inner.constant(np.asarray(True)), [made]

    if not ops.root.loops:
        return strip(ops, ops.constant(np.asarray(0, np.int64)), [])[2][0]
    _, (strips,) = repeat(ops, count, [], None, [], strip)
    # (strips, 1, 3, rows, width) → (1, 3, height, width); the last strip may go beyond the image.
    joined = ops.reshape(ops("Transpose", strips, perm=[1, 2, 0, 3, 4]), 1, 3, count * rows, width)
    return ops.slice(joined, 2, 0, height)


def _means_of_strip(ops: Ops, image: Value, luma: Value, factor: Value, epsilon: float, window: Window) -> Value:
    """The means of the rows and columns inside a margin of twice the window's radius and a patch; see `_means`.

    An offset and its opposite share their distances.
    """
    patch, reach = nlm.PATCH_RADIUS, window.radius
    size, margin = 2 * patch + 1, 2 * reach + patch
    here = _moved(ops, luma, margin, reach + patch)
    own = ops("Exp", float(np.sqrt(epsilon)) / size * factor) if epsilon else ops.constant(np.float32(1))
    total, sums = own, own * _moved(ops, image, margin, 0)
    for offset in nlm.half_offsets(*window):
        with ops.scope("offset{:+d}{:+d}".format(*offset)):
            step = here - _moved(ops, luma, margin, reach + patch, offset)
            mean = ops("AveragePool", step * step, kernel_shape=[size, size])
            weight = ops("Exp", ops("Sqrt", mean + epsilon / size**2 if epsilon else mean) * factor)
            back = (-offset[0], -offset[1])
            ahead, behind = _moved(ops, weight, reach, 0), _moved(ops, weight, reach, 0, back)
            total = total + ahead + behind
            sums = sums + ahead * _moved(ops, image, margin, 0, offset) + behind * _moved(ops, image, margin, 0, back)
    return sums / total


def _cells(ops: Ops, image: Value, cell: Value) -> tuple[Value, Value, Value]:
    """The guided filter's moments: means and covariances with luminance (1, 6, rows, columns), rows and columns."""
    height, width = sides(ops, image)
    below, right = (ops("Mod", -side, cell) for side in (height, width))
    padded = ops.pad(image, [0, 0, below, right], "edge")
    rows, columns = ((side + rest) / cell for side, rest in ((height, below), (width, right)))
    blocks = ops.reshape(padded, 1, 3, rows, cell, columns, cell)
    means = ops.reduce("Mean", blocks, [3, 5], keep=True)
    deviation = blocks - means
    kernel = np.asarray(LUMA, np.float32).reshape(1, 3, 1, 1, 1, 1)
    light = ops.reduce("Sum", deviation * kernel, [1], keep=True)
    covariance = ops.reduce("Mean", light * deviation, [3, 5])
    return ops.concat([ops.reshape(means, 1, 3, rows, columns), covariance], 1), rows, columns


def _windows(ops: Ops, planes: Value, rows: Value, columns: Value) -> list[Value]:
    """The planes moved by each of the nine steps of a 3x3 window, the border repeated."""
    padded = ops.pad(planes, [1, 1, 1, 1], "edge")
    moved = []
    for y in range(3):
        line = ops.slice(padded, 2, y, rows + y)
        moved += [ops.slice(line, 3, x, columns + x) for x in range(3)]
    return moved


def _mean_of(ops: Ops, values: list[Value]) -> Value:
    return ops("Sum", *values) / float(len(values))


def _coefficients(ops: Ops, cells: Value, rows: Value, columns: Value, ridge: Value) -> Value:
    """The planes a of red, green and blue, then b of each, averaged over windows; see `isp.guided_filter`."""
    own, steps, sums = ops.slice(cells, 1, 0, 3), [], []
    for near in _windows(ops, cells, rows, columns):
        step = ops.slice(near, 1, 0, 3) - own
        steps.append(step)
        sums.append(ops.slice(near, 1, 3, 6) + luminance(ops, step) * step)
    within, shift = _mean_of(ops, sums), _mean_of(ops, steps)
    covariance, colour = within - luminance(ops, shift) * shift, own + shift
    slope = covariance / (ops.clip(luminance(ops, covariance), 0.0) + ridge + LEAST)
    both = ops.concat([slope, colour - slope * luminance(ops, colour)], 1)
    return _mean_of(ops, _windows(ops, both, rows, columns))


def _at_pixels(ops: Ops, coarse: Value, image: Value, planes: int, grid: tuple[Value, Value, Value]) -> Value:
    """The planes at every pixel, bilinear between the centres of cells.

    Args:
        coarse: (1, planes, rows, columns).
        image: gives the size.
        planes: their number.
        grid: side of a cell, rows, columns.
    """
    cell, rows, columns = grid
    wanted = ops.stack([1, planes, rows * cell, columns * cell])
    fine = ops("Resize", coarse, None, None, wanted, mode="linear", coordinate_transformation_mode="half_pixel")
    height, width = sides(ops, image)
    return ops.slice(ops.slice(fine, 2, 0, height), 3, 0, width)


def guided_denoise(ops: Ops, image: Value, params: Value) -> Value:
    """lerp(x, a·L + b, amount), a and b of the guided filter."""
    single, cell = ops.cast(image, np.float32), ops.constant(np.asarray(guided.CELL, np.int64))
    noise = ops.item(params, 0)
    cells, rows, columns = _cells(ops, single, cell)
    coarse = _coefficients(ops, cells, rows, columns, noise * noise)
    fine = _at_pixels(ops, coarse, single, 6, (cell, rows, columns))
    smooth = ops.slice(fine, 1, 0, 3) * luminance(ops, single) + ops.slice(fine, 1, 3, 6)
    return ops.cast(blend(single, smooth, ops.item(params, 1)), image.dtype)


def local_tone(ops: Ops, image: Value, params: Value) -> Value:
    """x·2^(shadows·(1-t)² + highlights·t²), t = sqrt(base)."""
    single = ops.cast(image, np.float32)
    height, width = sides(ops, image)
    cell = ops("Max", ops("Max", height, width) / tone.GRID, 1)
    cells, rows, columns = _cells(ops, single, cell)
    both = _coefficients(ops, cells, rows, columns, ops.constant(np.float32(tone.EDGE**2)))
    planes = ops.concat([luminance(ops, ops.slice(both, 1, 0, 3)), luminance(ops, ops.slice(both, 1, 3, 6))], 1)
    fine = _at_pixels(ops, planes, single, 2, (cell, rows, columns))
    base = ops.slice(fine, 1, 0, 1) * luminance(ops, single) + ops.slice(fine, 1, 1, 2)
    light = ops("Sqrt", ops.clip(base, tone.LEAST_BASE, 1))
    dark = 1.0 - light
    stops = ops.item(params, 0) * (dark * dark) + ops.item(params, 1) * (light * light)
    return ops.cast(single * exp2(ops, stops), image.dtype)

"""Defective pixels, such as hot and dead ones, replaced by the median of their neighbourhood; off by default."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_DIFFERENCE = 0.05
"""Least difference from the median that is a defect, as a share of white - black."""
SPREADS = 4.0
"""A difference below so many times the spread of the four neighbours is no defect, but an edge, texture or noise."""
STRIP = 64
"""Rows that are processed together."""


def without_defects(data: NDArray[Any], step: int, black: float, white: float) -> tuple[NDArray[Any], int]:
    """The mosaic without defects, and their number.

    A pixel that differs from the median of itself and its four neighbours of the same colour by more than a threshold
    becomes that median. The threshold is `LEAST_DIFFERENCE` of the range, or `SPREADS`
    times the range of the neighbours without their farthest one, if that is larger.

    Args:
        data: (height, width); it is not changed.
        step: pixels from one to the next of the same colour, 2 in a Bayer mosaic.
        black, white: levels.
    """
    height = data.shape[0]
    rows = np.pad(np.arange(height), step, mode="reflect")
    columns = np.pad(np.arange(data.shape[1]), step, mode="reflect")
    found, count = data.copy(), 0
    for start in range(0, height, STRIP):  # a few rows fit the processor's cache
        stop = min(start + STRIP, height)
        values = data[np.ix_(rows[start : stop + 2 * step], columns)].astype(np.float32)
        median, defective = _medians(values, step, LEAST_DIFFERENCE * (white - black))
        found[start:stop][defective] = median[defective].astype(data.dtype)
        count += int(np.count_nonzero(defective))
    return found, count


def _medians(
    values: NDArray[np.float32], step: int, least_difference: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The median of five at each pixel of some rows, and whether the pixel is a defect.

    Args:
        values: the rows with a margin of `step` pixels on all sides.
        step: as for `without_defects`.
        least_difference: in codes.
    """
    height, width = values.shape[0] - 2 * step, values.shape[1] - 2 * step
    centre = values[step : step + height, step : step + width]
    up, down = values[:height, step : step + width], values[2 * step :, step : step + width]
    left, right = values[step : step + height, :width], values[step : step + height, 2 * step :]
    low_a, high_a = np.minimum(up, down), np.maximum(up, down)
    low_b, high_b = np.minimum(left, right), np.maximum(left, right)
    least, most = np.minimum(low_a, low_b), np.maximum(high_a, high_b)
    inner_a, inner_b = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
    lower, upper = np.minimum(inner_a, inner_b), np.maximum(inner_a, inner_b)
    median = np.clip(centre, lower, upper)  # of five: the centre between the two middle neighbours
    # One neighbour may be a defect itself, so that the spread is that of the three that lie closest together.
    spread = np.minimum(upper - least, most - lower)
    return median, np.abs(centre - median) > np.maximum(least_difference, SPREADS * spread)

"""Undoes the companding of a sensor: curves that store a large range of light in few bits."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import UsageError, shown

Knees = tuple[tuple[float, float], ...]
"""Points (stored value, linear value) in ascending order."""
MOST_KNEES = 256
"""Most points of a curve; sensors have 3 to 32."""


def _srgb(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _bt709(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))


def _a_law(value: NDArray[np.float64]) -> NDArray[np.float64]:
    rate = 1 + math.log(87.6)
    return np.where(value < 1 / rate, value * rate / 87.6, np.exp(value * rate - 1) / 87.6)


def _sqrt(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return value**2


CURVES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "srgb": _srgb,
    "bt709": _bt709,
    "a-law": _a_law,
    "sqrt": _sqrt,
}
"""Name → function from stored values in [0, 1] to linear light in [0, 1].

Sources: IEC 61966-2-1 (sRGB); ITU-R BT.709, item 1.2; ITU-T G.711 (A-law, A = 87.6).
"""


def checked_knees(given: Any) -> Knees:
    """The points as pairs of plain numbers.

    Raises:
        UsageError: they are not at least two pairs of finite numbers, in ascending order and not negative.
    """
    wanted = "give points [stored, linear] in ascending order, for instance [[0, 0], [2048, 2048], [4095, 65535]]"
    try:
        points = tuple((float(stored), float(linear)) for stored, linear in given)
    except (TypeError, ValueError):
        raise UsageError(f"raw knees {shown(given)} are not pairs of numbers; {wanted}") from None
    rising = all(b[0] > a[0] and b[1] > a[1] for a, b in itertools.pairwise(points))
    finite = all(math.isfinite(value) and value >= 0 for point in points for value in point)
    if not 2 <= len(points) <= MOST_KNEES or not rising or not finite:
        raise UsageError(f"raw knees {shown(given)} do not ascend; {wanted}")
    return points


def linear_values(
    values: NDArray[Any], bits: int, knees: Sequence[Sequence[float]] | None, curve: str | None
) -> NDArray[Any]:
    """The linear values of stored ones: float32 where a curve is undone, else the values themselves.

    Args:
        values: whole numbers up to 2^bits - 1.
        bits: depth of a stored value.
        knees: points of a piecewise linear curve, constant beyond its ends.
        curve: name of a curve; its linear values reach from 0 to 2^bits - 1.
    """
    if knees is None and curve is None:
        return values
    top = 2**bits - 1
    codes = values.astype(np.float64) if bits > 16 else np.arange(top + 1, dtype=np.float64)
    if knees is not None:
        linear = np.interp(codes, [stored for stored, _ in knees], [value for _, value in knees])
    else:
        linear = CURVES[str(curve)](codes / top) * top
    result: NDArray[Any] = linear.astype(np.float32)
    return result if bits > 16 else result[values]


def linear_white(bits: int, knees: Sequence[Sequence[float]] | None) -> float:
    """The linear value of the largest stored one, the default of the white level."""
    top = 2**bits - 1
    return float(top) if knees is None else float(np.interp(top, [k[0] for k in knees], [k[1] for k in knees]))

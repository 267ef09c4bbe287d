"""Checks the fields of a `RawImage`, and converts them to the form in which they are kept."""

import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, shown

BAYER_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
MONO = "MONO"
"""Pattern of a sensor without colour filters."""
PATTERNS = (*BAYER_PATTERNS, MONO)


def checked_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a raw in the form in which they are kept: pattern in upper case, four black levels, plain numbers.

    Pixels are read only where they are floats, once, to find values that are not finite.

    Args:
        given: field of `RawImage` → value.

    Raises:
        RawFileError: a value makes no sense; the message names the raw's file, or `RawImage`.
    """
    path = given["path"]
    path = Path(path) if isinstance(path, str) else path
    name = "RawImage" if path is None else str(path)
    kept: dict[str, Any] = {"path": path}
    kept["pattern"] = _pattern(given["pattern"], name)
    kept["data"] = _data(given["data"], kept["pattern"], name)
    kept["black_level"] = _black_levels(given["black_level"], name)
    kept["white_level"] = _number(given["white_level"], "white_level", "a finite number", name)
    black = max(kept["black_level"])
    if kept["white_level"] <= black:
        levels = f"white level {kept['white_level']:g} is not above black level {black:g}"
        _refuse(name, f"{levels}; correct the levels")
    if kept["pattern"] is None and len(set(kept["black_level"])) > 1:
        _refuse(name, "RGB has one black level, not four different ones; give one number")
    kept["orientation"] = _orientation(given["orientation"], name)
    for field, wanted in (("iso", "a number above 0 or None"), ("exposure_s", "seconds above 0 or None")):
        value = given[field]
        kept[field] = None if value is None else _number(value, field, wanted, name, above_zero=True)
    for field, count in (("camera_gains", 3), ("xyz_to_camera", 9), ("noise_profile", 2)):
        kept[field] = None if given[field] is None else _numbers(given[field], field, count, name)
    return kept


def _refuse(name: str, text: str) -> NoReturn:
    raise RawFileError(f"{name}: {text}")


def _pattern(value: Any, name: str) -> str | None:
    if value is None:
        return None
    pattern = value.upper() if isinstance(value, str) else ""
    if pattern not in PATTERNS:
        _refuse(name, f"pattern {shown(value)} is unknown; choose one of {', '.join(PATTERNS)}, or None for RGB")
    return pattern


def _data(data: Any, pattern: str | None, name: str) -> NDArray[Any]:
    if not isinstance(data, np.ndarray):
        kind = type(data).__name__
        remedy = "tensor.cpu().numpy()" if kind == "Tensor" else "numpy.asarray(…)"
        _refuse(name, f"data is of type {kind}; give a numpy array, for instance {remedy}")
    if data.dtype.kind not in "uif":
        _refuse(name, f"data holds {data.dtype} values; give integers or floats")
    shape = "x".join(map(str, data.shape)) or "no"
    if not (data.ndim == 2 or (data.ndim == 3 and data.shape[2] == 3)):
        _refuse(name, f"data has shape {shape}; {shape_remedy(data.shape)}")
    if data.size == 0:
        _refuse(name, f"data has shape {shape}, no pixels; give at least one")
    if data.ndim == 2 and pattern is None:
        _refuse(name, f"data has shape {shape}, a mosaic; give its pattern, one of {', '.join(PATTERNS)}")
    if data.ndim == 3 and pattern is not None:
        _refuse(name, f"data has shape {shape}, RGB, which has no pattern {pattern}; give None as its pattern")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        _refuse(name, "data holds NaN or infinite values; give finite numbers, for instance by numpy.nan_to_num")
    return data


def shape_remedy(shape: tuple[int, ...]) -> str:
    """The remedy for an array of another shape than a mosaic or RGB.

    >>> shape_remedy((3, 64, 64))
    'colours come last: give data.transpose(1, 2, 0)'
    """
    planes = "if these are the planes of a mosaic, put each at its place, for instance mosaic[0::2, 0::2] = red"
    if len(shape) == 3:
        if shape[0] == 3:
            return "colours come last: give data.transpose(1, 2, 0)"
        if shape[2] == 4:
            return f"give RGB without alpha, data[..., :3]; {planes}"
        if shape[0] == 4:
            return f"give RGB without alpha, data[:3].transpose(1, 2, 0); {planes}"
        if shape[2] == 1:
            return "give data[..., 0]"
        if shape[0] == 1:
            return "give data[0]"
    if len(shape) == 4:
        return "give one frame at a time, data[0]"
    return "give (height, width) for a mosaic or (height, width, 3) for RGB"


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _number(value: Any, field: str, wanted: str, name: str, above_zero: bool = False) -> float:
    if not _is_number(value) or (above_zero and value <= 0):
        _refuse(name, f"{field} is {shown(value)}; give {wanted}")
    return float(value)


def _black_levels(value: Any, name: str) -> tuple[float, float, float, float]:
    if _is_number(value):
        level = float(value)
        return (level, level, level, level)
    levels = list(value) if isinstance(value, list | tuple | np.ndarray) else []
    if len(levels) != 4 or not all(map(_is_number, levels)):
        _refuse(name, f"black_level is {shown(value)}; give one finite number, or four for the 2x2 block row by row")
    return (float(levels[0]), float(levels[1]), float(levels[2]), float(levels[3]))


def _orientation(value: Any, name: str) -> int:
    if not _is_number(value) or value not in range(1, 9):
        _refuse(name, f"orientation is {shown(value)}; give the EXIF orientation, 1 to 8 (1 is upright)")
    return int(value)


def _numbers(value: Any, field: str, count: int, name: str) -> tuple[float, ...]:
    """A tuple of finite numbers; white balance gains must be above 0, since they multiply."""
    values = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    above = field == "camera_gains"
    fits = isinstance(values, list | tuple) and len(values) == count and all(map(_is_number, values))
    if not fits or (above and min(values) <= 0):
        _refuse(name, f"{field} is {shown(value)}; give {count} finite numbers{' above 0' if above else ''} or None")
    return tuple(float(number) for number in values)

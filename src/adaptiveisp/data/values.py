"""Checks of values in label files, and reading of small label files.

Label files are untrusted: they may hold text, a truth value, NaN or infinity instead of a number.
"""

import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError, shown

MAX_SIDE = 100_000
"""Largest side of an image in pixels, far beyond that of any camera."""
MAX_COUNT = 2**31 - 1
"""Largest number of a draw."""
MAX_ID = 2**63 - 1
"""Largest id; ids are kept in arrays of 64-bit integers."""
LARGEST_FILE = 256_000_000
"""Most bytes of a label file, in which some tools include the image, or of a list of images."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]{1,19}")


def is_number_text(value: Any) -> bool:
    """Whether a value is a whole number written as text; some tools write ids in this way."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None


def finite(value: Any) -> float | None:
    """A value of a label file as a finite number; None if it is not one.

    A number may be written as text, as some tools do; a truth value is not a number.

    >>> finite(2), finite("0.5"), finite(True), finite("nan"), finite([1])
    (2.0, 0.5, None, None, None)
    """
    if isinstance(value, str):
        value = value.strip()
        if not _NUMBER.fullmatch(value):
            return None
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """The finite numbers of a list of `count` items; None for any other value.

    >>> numbers([1, "2"], 2), numbers([1, None], 2), numbers("12", 2)
    ((1.0, 2.0), None, None)
    """
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    found = [finite(value) for value in values]
    return None if None in found else tuple(number for number in found if number is not None)


def whole(value: Any, where: str, key: str, low: int, high: int) -> int:
    """A value as a whole number in [low, high]; some tools write it as 12.0 or "12".

    Args:
        value: value of the label file.
        where: file and entry, for errors.
        key: key of the value, for errors.
        low, high: allowed range.

    Raises:
        DataError: the value is anything else.
    """
    given = value
    if is_number_text(value) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        wanted = f"a whole number from {low}" if low >= 0 else "a whole number"
        raise DataError(f"{where}: {key} {shown(given)} must be {wanted} to {high}; correct it")
    return value


def side(value: Any, where: str, key: str) -> int:
    """Width or height of an image in pixels.

    Raises:
        DataError: the value is not a whole number in the range of an image's sides.
    """
    return whole(value, where, key, 1, MAX_SIDE)


def side_or_none(value: Any) -> int:
    """Width or height of an image in pixels; 0 if the label file leaves it out. Some tools write 0 or a fraction.

    Raises:
        ValueError: the value is not a number in the range of an image's sides.
    """
    number = 0.0 if value is None or value == "" else finite(value)
    if number is None or not 0 <= number <= MAX_SIDE:
        raise ValueError(f"a size of {shown(value)}")
    return round(number)


def text(value: Any, where: str, key: str) -> str:
    """A value as text that can be written to a file. JSON can hold surrogates, which cannot be written.

    Raises:
        DataError: the value is anything else.
    """
    if not isinstance(value, str) or re.search(r"[\ud800-\udfff]", value):
        raise DataError(f"{where}: {key} {shown(value)} must be text; correct it")
    return value


def read_label_file(path: Path) -> bytes:
    """The content of a label file or a list of images.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large or not a regular file, such as a pipe, which could block.
    """
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("is no file")
    if facts.st_size > LARGEST_FILE:
        raise ValueError(f"is larger than {LARGEST_FILE // 1_000_000} MB")
    return Path(path).read_bytes()

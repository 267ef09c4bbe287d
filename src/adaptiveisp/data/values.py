"""Values of label files, checked when they are read, and the reading of small label files.

What a label file holds may come from anybody: a number may be a text, a truth value, NaN or without end.
"""

import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError, shown

MAX_SIDE = 100_000
"""Greatest side of an image in pixels. No camera comes near it, and greater ones are damage."""
MAX_COUNT = 2**31 - 1
"""Greatest number of a draw."""
MAX_ID = 2**63 - 1
"""Greatest id; ids are kept in arrays of 64 bits."""
LARGEST_FILE = 256_000_000
"""Bytes of the labels of one image (some tools put the picture itself into them), or of a list of images."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"-?[0-9]{1,19}")


def is_number_text(value: Any) -> bool:
    """Whether this is the text of a whole number, as some tools write ids."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None


def finite(value: Any) -> float | None:
    """The number that a value of a label file stands for, None where it is none or not finite.

    A text of digits counts, as some tools write one; a truth value does not.

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
    """So many finite numbers of a list, None where it is something else.

    >>> numbers([1, "2"], 2), numbers([1, None], 2), numbers("12", 2)
    ((1.0, 2.0), None, None)
    """
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    found = [finite(value) for value in values]
    return None if None in found else tuple(number for number in found if number is not None)


def whole(value: Any, where: str, key: str, low: int, high: int) -> int:
    """A whole number in [low, high]; some tools write it as 12.0 or "12".

    Raises:
        DataError: it is something else.
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
        DataError: it is no whole number, or none that an image can have.
    """
    return whole(value, where, key, 1, MAX_SIDE)


def side_or_none(value: Any) -> int:
    """A side that a label file may leave out, 0 then. Some tools write 0, or a fraction.

    Raises:
        ValueError: it is no number, or none that an image can have.
    """
    number = 0.0 if value is None or value == "" else finite(value)
    if number is None or not 0 <= number <= MAX_SIDE:
        raise ValueError(f"a size of {shown(value)}")
    return round(number)


def text(value: Any, where: str, key: str) -> str:
    """Text that can be written to a file: JSON can hold halves of characters.

    Raises:
        DataError: it is something else.
    """
    if not isinstance(value, str) or re.search(r"[\ud800-\udfff]", value):
        raise DataError(f"{where}: {key} {shown(value)} must be text; correct it")
    return value


def read_label_file(path: Path) -> bytes:
    """The content of a label file or a list.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no plain file, such as a pipe that never ends, or too large.
    """
    facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError("is no file")
    if facts.st_size > LARGEST_FILE:
        raise ValueError(f"is larger than {LARGEST_FILE // 1_000_000} MB")
    return Path(path).read_bytes()

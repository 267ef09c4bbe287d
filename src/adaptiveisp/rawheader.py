"""What a headerless raw does not say of itself: its size, depth, pattern and levels, from flags or a sidecar."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.types import BAYER_PATTERNS
from adaptiveisp.yamlfile import read_yaml

SIDECAR_KEYS = ("raw-size", "raw-bits", "raw-pattern", "raw-black", "raw-white")
SMALLEST_BITS, LARGEST_BITS = 8, 24
PERCENTILE_WHITE = "p99"
"""Stands for the 99th percentile of each image, where no level is known. Source: ROD as AdaptiveISP evaluates it."""
Levels = float | tuple[float, float, float, float]


@dataclass(frozen=True)
class BayerHeader:
    """The facts of a raw without a header; what is None is unknown, and asked for only where it is needed.

    Attributes:
        width, height: pixels of the stored frame (headerless files only; PNG, TIFF and npy know their size).
        bits: depth of a sample, 8 to 24; 8 means one byte a sample, up to 16 two and more than 16 three bytes, low byte
            first. Values are taken as linear light: what a sensor companded has to be decompanded before.
        pattern: one of `BAYER_PATTERNS`; given in any case, kept in upper case.
        black: value of no light, one for all or four for the 2x2 block row by row; None stands for 0.
        white: value of saturation; None stands for the largest value of `bits`, "p99" for the 99th percentile of each
            image.

    Raises:
        UsageError: a value is out of range.
    """

    width: int | None = None
    height: int | None = None
    bits: int | None = None
    pattern: str | None = None
    black: Levels | None = None
    white: float | Literal["p99"] | None = None

    def __post_init__(self) -> None:
        """Brings the pattern to upper case and checks ranges."""
        if self.pattern is not None:
            object.__setattr__(self, "pattern", self.pattern.upper())
        if self.pattern is not None and self.pattern not in BAYER_PATTERNS:
            raise UsageError(f"raw pattern {self.pattern!r} is unknown; choose one of {', '.join(BAYER_PATTERNS)}")
        if self.bits is not None and not SMALLEST_BITS <= self.bits <= LARGEST_BITS:
            raise UsageError(f"raw bits must be {SMALLEST_BITS} to {LARGEST_BITS}, not {self.bits}")
        if any(side is not None and side < 1 for side in (self.width, self.height)):
            raise UsageError(f"raw size must be positive, not {self.width}x{self.height}")
        levels = [*self.black_levels, *([self.white] if isinstance(self.white, int | float) else [])]
        if not all(math.isfinite(level) and level >= 0 for level in levels):
            raise UsageError("raw black and white level must be finite and not negative")

    @property
    def black_levels(self) -> tuple[float, float, float, float]:
        """The black level at each position of the 2x2 block."""
        if isinstance(self.black, tuple):
            return self.black
        level = 0.0 if self.black is None else float(self.black)
        return (level, level, level, level)

    def filled_from(self, other: "BayerHeader") -> "BayerHeader":
        """This header with what it lacks taken from `other`.

        >>> BayerHeader(bits=10).filled_from(BayerHeader(bits=8, pattern="RGGB")).pattern
        'RGGB'
        """
        own = {name: value for name, value in vars(self).items() if value is not None}
        return BayerHeader(**{**vars(other), **own})


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of a text such as "2592x1536".

    >>> parse_size("2592x1536")
    (2592, 1536)

    Raises:
        UsageError: the text is no such size.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if match is None or "0" in {match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"}:
        raise UsageError(f"raw size {text!r} is not WIDTHxHEIGHT; write it like 2592x1536")
    return int(match[1]), int(match[2])


def find_header(path: Path, header: BayerHeader | None) -> BayerHeader:
    """The facts known of `path`: those of `header`, completed by its sidecar.

    The sidecar is the first of `FILE.yaml` (as `x.raw.yaml`), the same with the extension replaced (`x.yaml`) and
    `raw.yaml` in the folder that holds any of `SIDECAR_KEYS`; underscores may stand for the hyphens.

    Raises:
        RawFileError: a sidecar cannot be read or holds an unknown or impossible value.
    """
    given = header if header is not None else BayerHeader()
    for candidate in (path.with_name(path.name + ".yaml"), path.with_suffix(".yaml"), path.with_name("raw.yaml")):
        # Path.is_file would raise where ".yaml" makes a name too long for the file system.
        if os.path.isfile(candidate):
            facts = _read_sidecar(candidate)
            if facts is not None:
                return given.filled_from(facts)
    return given


def _read_sidecar(path: Path) -> BayerHeader | None:
    """The facts in a sidecar, or None when it holds none of our keys (then it belongs to someone else)."""
    content = read_yaml(path, RawFileError, "correct it")
    if not isinstance(content, dict):
        return None
    values = {str(key).replace("_", "-"): value for key, value in content.items() if str(key).startswith("raw")}
    return header_from_values(values, path) if values else None


def header_from_values(values: dict[str, Any], path: Path) -> BayerHeader:
    """The facts that the keys of a sidecar or of a data-set YAML give.

    Args:
        values: `SIDECAR_KEYS` → value.
        path: the file they stand in, for errors.

    Raises:
        RawFileError: a key is unknown, or a value is impossible.
    """
    unknown = sorted(set(values) - set(SIDECAR_KEYS))
    if unknown:
        raise RawFileError(f"{path}: unknown key {unknown[0]}; known are {', '.join(SIDECAR_KEYS)}")
    try:
        return _header_from_values(values)
    except UsageError as error:
        raise RawFileError(f"{path}: {error}") from None
    except (TypeError, ValueError, OverflowError):
        raise RawFileError(
            f"{path}: a value has the wrong type or is too large; write e.g. 'raw-bits: 10', 'raw-black: 64'"
        ) from None


def _header_from_values(values: dict[str, Any]) -> BayerHeader:
    width, height = parse_size(str(values["raw-size"])) if "raw-size" in values else (None, None)
    black = values.get("raw-black")
    if isinstance(black, list):
        if len(black) != 4:
            raise UsageError("raw-black takes one number or four")
        black = (float(black[0]), float(black[1]), float(black[2]), float(black[3]))
    elif black is not None:
        black = float(black)
    return BayerHeader(
        width=width,
        height=height,
        bits=int(values["raw-bits"]) if "raw-bits" in values else None,
        pattern=str(values["raw-pattern"]) if "raw-pattern" in values else None,
        black=black,
        white=_white(values["raw-white"]) if "raw-white" in values else None,
    )


def _white(value: Any) -> float | Literal["p99"]:
    return "p99" if value == PERCENTILE_WHITE else float(value)

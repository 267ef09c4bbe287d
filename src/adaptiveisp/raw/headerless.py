"""The facts that a headerless raw lacks: size, pixel format, pattern, levels and companding."""

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.raw.colour_filters import DECLARED_PATTERNS
from adaptiveisp.raw.companding import CURVES, checked_knees
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat, pixel_format

SMALLEST_BITS, LARGEST_BITS = 8, 24
PERCENTILE_WHITE = "p99"
"""Value of `white` for the 99th percentile of each image, if no level is known. Source: AdaptiveISP's evaluation on
ROD."""
Levels = float | tuple[float, float, float, float]


@dataclass(frozen=True)
class BayerHeader:
    """The facts of a raw without a header; None means unknown, which is an error only if it is needed.

    Attributes:
        width, height: size of the stored frame in pixels (headerless files only; PNG, TIFF and npy state their size).
        bits: depth of a value, 8 to 24. Without a format, values take one byte for 8 bits, two up to 16, three above,
            low byte first.
        pattern: one of `colour_filters.DECLARED_PATTERNS`, in any case; stored in upper case. The four black levels of
            a Quad Bayer pattern are those of the Bayer pattern that it is binned to.
        black: black level, one for all positions or four for the 2x2 block row by row; None means 0.
        white: white level; None means the largest value of `bits`, "p99" the 99th percentile of each image.
        format: name of a pixel format, see `raw.pixel_formats`; it states bits and often the pattern.
        stride: bytes from the beginning of a row to that of the next; None means rows without padding.
        offset: bytes before the first frame; None means 0.
        frames: number of frames in the file; None means 1 in a headerless file without `frame`, else what fits.
        frame: number of the frame to read, from 0; None means the first, where the number of frames is known.
        knees: points (stored value, linear value) of a piecewise linear companding curve of the sensor, which is undone
            after unpacking. Black and white level then refer to linear values.
        curve: name of a companding curve, one of `companding.CURVES`, which is undone likewise.
        shading: .npy file of lens shading gains, see `raw.shading`, or "none" to leave out a DNG's own.
        defects: whether defective pixels are replaced, see `raw.defects`; None means no.
        matrix: 3x3 matrix, row by row, that gives RGB from the sensor's red, green and blue; the raw becomes RGB.

    Raises:
        UsageError: a value is out of range, or two contradict each other.
    """

    width: int | None = None
    height: int | None = None
    bits: int | None = None
    pattern: str | None = None
    black: Levels | None = None
    white: float | Literal["p99"] | None = None
    format: str | None = None
    stride: int | None = None
    offset: int | None = None
    frames: int | None = None
    frame: int | None = None
    knees: Sequence[Sequence[float]] | None = None
    curve: str | None = None
    shading: str | None = None
    defects: bool | None = None
    matrix: Sequence[float] | Sequence[Sequence[float]] | None = None

    def __post_init__(self) -> None:
        """Converts the pattern to upper case, completes it from the format, and checks types and ranges."""
        for name, value in _plain_facts(vars(self)).items():
            object.__setattr__(self, name, value)
        if self.pattern is not None and self.pattern not in DECLARED_PATTERNS:
            choices = ", ".join(DECLARED_PATTERNS)
            raise UsageError(f"raw pattern {shown(self.pattern)} is unknown; choose one of {choices}")
        if self.format is not None:
            self._complete_from_format(pixel_format(self.format))
        self._check_layout()
        if self.bits is not None and not SMALLEST_BITS <= self.bits <= LARGEST_BITS:
            raise UsageError(f"raw bits must be {SMALLEST_BITS} to {LARGEST_BITS}, not {self.bits}")
        if any(side is not None and side < 1 for side in (self.width, self.height)):
            raise UsageError(f"raw size must be positive, not {self.width}x{self.height}")
        levels = [*self.black_levels, *([self.white] if isinstance(self.white, int | float) else [])]
        if not all(math.isfinite(level) and level >= 0 for level in levels):
            raise UsageError("raw black and white level must be finite and not negative")

    def _complete_from_format(self, how: PixelFormat) -> None:
        """Takes bits and pattern from the format where they are unknown.

        Raises:
            UsageError: they contradict the format.
        """
        roomy = how.layout is Layout.WHOLE and not how.msb
        if self.bits is not None and self.bits != how.bits and not (roomy and self.bits < how.bits):
            raise UsageError(f"raw format {self.format} has {how.bits} bits, not {self.bits}; leave out raw-bits")
        if self.pattern is not None and how.pattern is not None and self.pattern != how.pattern:
            raise UsageError(
                f"raw format {self.format} has the pattern {how.pattern}, not {self.pattern}; leave out raw-pattern, "
                "or give a format without a pattern such as RAW10 or u12le16"
            )
        object.__setattr__(self, "bits", self.bits or how.bits)
        object.__setattr__(self, "pattern", self.pattern or how.pattern)

    def _check_layout(self) -> None:
        """Checks stride, offset, frames and companding.

        Raises:
            UsageError: one is impossible.
        """
        for name, least in (("stride", 1), ("offset", 0), ("frames", 1), ("frame", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"raw {name} must be at least {least}, not {value}")
        if self.frame is not None and self.frames is not None and self.frame >= self.frames:
            raise UsageError(f"raw frame {self.frame} does not exist: there are {self.frames}, counted from 0")
        if self.curve is not None and self.curve not in CURVES:
            raise UsageError(f"raw curve {shown(self.curve)} is unknown; choose one of {', '.join(CURVES)}")
        if self.curve is not None and self.knees is not None:
            raise UsageError("give raw-knees or raw-curve, not both")

    @property
    def pixel_format(self) -> PixelFormat | None:
        """The format of the rows: the declared one, or whole bytes with the declared bits; None if neither is known."""
        if self.format is not None:
            return replace(pixel_format(self.format), bits=self.bits or 0)
        if self.bits is None:
            return None
        container = 8 if self.bits == 8 else 16 if self.bits <= 16 else 24
        return PixelFormat(f"u{self.bits}le{container}", self.bits, container=container)

    @property
    def black_levels(self) -> tuple[float, float, float, float]:
        """The black level at each position of the 2x2 block."""
        if isinstance(self.black, tuple):
            return self.black
        level = 0.0 if self.black is None else float(self.black)
        return (level, level, level, level)

    @property
    def matrix_entries(self) -> tuple[float, ...] | None:
        """The nine numbers of the matrix, row by row; None without one."""
        return None if self.matrix is None else _matrix(self.matrix)

    def filled_from(self, other: "BayerHeader") -> "BayerHeader":
        """This header, with its unknown facts taken from `other`.

        >>> BayerHeader(bits=10).filled_from(BayerHeader(bits=8, pattern="RGGB")).pattern
        'RGGB'
        """
        names = [field.name for field in fields(BayerHeader)]
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return BayerHeader(**{**{name: getattr(other, name) for name in names}, **own})

    def completed(self, own: "BayerHeader", folder: "BayerHeader") -> "BayerHeader":
        """These facts, completed from a file's own sidecar and then from its folder's sidecar."""
        return self.filled_from(own).filled_from(folder)

    def without_layout(self) -> "BayerHeader":
        """The facts without the defaults of a layout; a plain `BayerHeader` has none."""
        return self


def _plain_facts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as built-in Python numbers, with four black levels as a tuple.

    Raises:
        UsageError: a fact is of a wrong type.
    """
    facts: dict[str, Any] = {"pattern": given["pattern"], "black": given["black"], "white": given["white"]}
    if isinstance(facts["pattern"], str):
        facts["pattern"] = facts["pattern"].upper()
    for name in ("width", "height", "bits", "stride", "offset", "frames", "frame"):
        facts[name] = _fact(name, given.get(name), "a whole number")
    if facts["white"] != PERCENTILE_WHITE:
        facts["white"] = _fact("white", facts["white"], "a number or p99")
    if isinstance(facts["black"], list | tuple | np.ndarray):
        facts["black"] = tuple(_fact("black", level, "a number") for level in facts["black"])
        if len(facts["black"]) != 4 or None in facts["black"]:
            raise UsageError("raw-black takes one number or four")
    else:
        facts["black"] = _fact("black", facts["black"], "a number")
    facts["knees"] = None if given.get("knees") is None else checked_knees(given["knees"])
    facts["matrix"] = None if given.get("matrix") is None else _matrix(given["matrix"])
    if not isinstance(given.get("defects"), bool | None):
        raise UsageError(f"raw-defects {shown(given['defects'])} is neither true nor false")
    for name in ("format", "curve", "shading"):
        if given.get(name) is not None and not isinstance(given[name], str):
            raise UsageError(f"raw {name} {shown(given[name])} is not a name")
    return facts


def _matrix(value: Any) -> tuple[float, ...]:
    """Nine finite numbers from nine, or from three rows of three.

    Raises:
        UsageError: the value is something else.
    """
    rows = value.tolist() if isinstance(value, np.ndarray) else value
    flat = list(rows) if isinstance(rows, list | tuple) else []
    if len(flat) == 3 and all(isinstance(row, list | tuple) and len(row) == 3 for row in flat):
        flat = [entry for row in flat for entry in row]
    numbers_only = [entry for entry in flat if isinstance(entry, int | float) and not isinstance(entry, bool)]
    if len(flat) != 9 or len(numbers_only) != 9 or not all(map(math.isfinite, numbers_only)):
        raise UsageError(f"raw-matrix {shown(value)} is no 3x3 matrix; give [[1, 0, 0], [0, 1, 0], [0, 0, 1]]")
    return tuple(float(entry) for entry in numbers_only)


def _fact(name: str, value: Any, wanted: str) -> Any:
    """A fact as a built-in Python number; None if it is unknown.

    Raises:
        UsageError: the fact is not of the type `wanted`.
    """
    kind, number = numbers.Integral if wanted == "a whole number" else numbers.Real, value
    if value is None:
        return None
    if isinstance(value, bool | np.bool_) or not isinstance(value, kind):
        raise UsageError(f"raw {name} {shown(value)} is not {wanted}")
    if kind is numbers.Integral:
        return int(number)
    return number if isinstance(number, int | float) else float(number)


@dataclass(frozen=True)
class SetHeader(BayerHeader):
    """The facts that a data-set YAML states about its raws, and the defaults of its layout.

    Both apply to all files of the set, so a file's own sidecar overrides them. The YAML overrides `raw.yaml` in the
    files' folder, and that file overrides the layout.

    Attributes:
        layout: the facts of the layout.
    """

    layout: BayerHeader = BayerHeader()

    @classmethod
    def of(cls, stated: BayerHeader, layout: BayerHeader) -> "SetHeader":
        """One header from the facts that a YAML states and those of its layout."""
        return cls(**vars(stated), layout=layout)

    def completed(self, own: BayerHeader, folder: BayerHeader) -> BayerHeader:
        """The facts of the file's own sidecar, then the YAML, then the folder's sidecar, then the layout."""
        return own.filled_from(self).filled_from(folder).filled_from(self.layout)

    def without_layout(self) -> BayerHeader:
        """The same facts without the defaults of the layout."""
        return replace(self, layout=BayerHeader())


def parse_size(text: str) -> tuple[int, int]:
    """Reads (width, height) from a text such as "2592x1536".

    >>> parse_size("2592x1536")
    (2592, 1536)

    Raises:
        UsageError: the text is not a size.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×]\s*(\d{1,6})\s*", text)
    if match is None or "0" in {match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"}:
        raise UsageError(f"raw size {shown(text)} is not WIDTHxHEIGHT; write it like 2592x1536")
    return int(match[1]), int(match[2])

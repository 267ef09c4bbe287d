"""The facts that a headerless raw lacks: size, depth, pattern and levels, from flags, sidecars or a data set."""

import math
import numbers
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adaptiveisp.errors import RawFileError, UsageError, shown
from adaptiveisp.types import BAYER_PATTERNS
from adaptiveisp.utils.yaml_files import read_yaml

SIDECAR_KEYS = ("raw-size", "raw-bits", "raw-pattern", "raw-black", "raw-white")
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
        bits: depth of a sample, 8 to 24; samples take one byte for 8 bits, two up to 16, three above, low byte first.
            Values must be linear, so companding of the sensor has to be undone before.
        pattern: one of `BAYER_PATTERNS`, in any case; stored in upper case.
        black: black level, one for all positions or four for the 2x2 block row by row; None means 0.
        white: white level; None means the largest value of `bits`, "p99" the 99th percentile of each image.

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
        """Converts the pattern to upper case and checks types and ranges."""
        for name, value in _plain_facts(vars(self)).items():
            object.__setattr__(self, name, value)
        if self.pattern is not None and self.pattern not in BAYER_PATTERNS:
            raise UsageError(f"raw pattern {shown(self.pattern)} is unknown; choose one of {', '.join(BAYER_PATTERNS)}")
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
    for name in ("width", "height", "bits"):
        facts[name] = _fact(name, given[name], "a whole number")
    if facts["white"] != PERCENTILE_WHITE:
        facts["white"] = _fact("white", facts["white"], "a number or p99")
    if isinstance(facts["black"], list | tuple | np.ndarray):
        facts["black"] = tuple(_fact("black", level, "a number") for level in facts["black"])
        if len(facts["black"]) != 4 or None in facts["black"]:
            raise UsageError("raw-black takes one number or four")
    else:
        facts["black"] = _fact("black", facts["black"], "a number")
    return facts


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


def find_header(path: Path, header: BayerHeader | None) -> BayerHeader:
    """The facts about a file from `header` and its sidecars; the most specific source has precedence.

    Flags (a plain `header`) override the file's own sidecar, which is `FILE.yaml` (as `x.raw.yaml`) or the name with
    the extension replaced (`x.yaml`). That sidecar overrides `raw.yaml` in its folder. Each source adds facts that the
    previous ones leave open. Facts of a data set (`SetHeader`) rank between the two sidecars, those of its layout after
    both. A YAML without any of `SIDECAR_KEYS` belongs to other software and is not used. Keys may have underscores
    instead of hyphens.

    Args:
        path: the raw file.
        header: flags, facts of a data set, or None.

    Raises:
        RawFileError: a sidecar cannot be read or holds an unknown or impossible value.
    """
    given = header if header is not None else BayerHeader()
    own = sidecar_facts(path.with_name(path.name + ".yaml"), path.with_suffix(".yaml"))
    return given.completed(own, sidecar_facts(path.with_name("raw.yaml")))


def sidecar_facts(*candidates: Path) -> BayerHeader:
    """The facts in the first of the files that holds any; empty if none does.

    Raises:
        RawFileError: a sidecar cannot be read or holds an unknown or impossible value.
    """
    for candidate in candidates:
        # Path.is_file would raise if ".yaml" makes a name too long for the file system.
        if os.path.isfile(candidate):
            facts = _read_sidecar(candidate)
            if facts is not None:
                return facts
    return BayerHeader()


def _read_sidecar(path: Path) -> BayerHeader | None:
    """The facts in a sidecar; None if it has none of `SIDECAR_KEYS` and so belongs to other software."""
    content = read_yaml(path, RawFileError, "correct it")
    if not isinstance(content, dict):
        return None
    values = {str(key).replace("_", "-"): value for key, value in content.items() if str(key).startswith("raw")}
    return header_from_values(values, path) if values else None


def header_from_values(values: dict[str, Any], path: Path) -> BayerHeader:
    """The facts in the keys of a sidecar or of a data-set YAML.

    Args:
        values: `SIDECAR_KEYS` → value.
        path: the file that holds them, for errors.

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
    black: Levels | None = None
    if isinstance(values.get("raw-black"), list):
        levels = [_float(level) for level in values["raw-black"]]
        if len(levels) != 4:
            raise UsageError("raw-black takes one number or four")
        black = (levels[0], levels[1], levels[2], levels[3])
    elif values.get("raw-black") is not None:
        black = _float(values["raw-black"])
    return BayerHeader(
        width=width,
        height=height,
        bits=_whole(values["raw-bits"]) if "raw-bits" in values else None,
        pattern=str(values["raw-pattern"]) if "raw-pattern" in values else None,
        black=black,
        white=_white(values["raw-white"]) if "raw-white" in values else None,
    )


def _white(value: Any) -> float | Literal["p99"]:
    return "p99" if value == PERCENTILE_WHITE else _float(value)


def _float(value: Any) -> float:
    """A value of a sidecar as a float. YAML's true and false, which Python converts to 1 and 0, are refused."""
    if isinstance(value, bool):
        raise TypeError("no number")
    return float(value)


def _whole(value: Any) -> int:
    """A value of a sidecar as a whole number. A fraction such as 10.7 is refused."""
    number = int(value) if isinstance(value, str) else _float(value)
    if number != int(number):
        raise ValueError("no whole number")
    return int(number)

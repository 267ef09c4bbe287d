"""Facts about raws in sidecars: YAML files beside a raw, or for all raws of a folder."""

import os
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.headerless import PERCENTILE_WHITE, BayerHeader, Levels, parse_size
from adaptiveisp.raw.shading import NO_SHADING
from adaptiveisp.utils.yaml_files import read_yaml

SIDECAR_KEYS = (
    "raw-size",
    "raw-bits",
    "raw-pattern",
    "raw-black",
    "raw-white",
    "raw-format",
    "raw-stride",
    "raw-offset",
    "raw-frames",
    "raw-frame",
    "raw-knees",
    "raw-curve",
    "raw-matrix",
    "raw-shading",
    "raw-defects",
)


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
    return given.completed(sidecar_facts(*own_sidecars(path)), sidecar_facts(path.with_name("raw.yaml")))


def own_sidecars(path: Path) -> tuple[Path, Path]:
    """The names that a raw's own sidecar may have, the first one with precedence."""
    return path.with_name(path.name + ".yaml"), path.with_suffix(".yaml")


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
        shading = values.get("raw-shading")
        if isinstance(shading, str) and shading != NO_SHADING:
            values = {**values, "raw-shading": str(path.parent / shading)}
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
        format=_name(values.get("raw-format")),
        stride=_whole_or_none(values.get("raw-stride")),
        offset=_whole_or_none(values.get("raw-offset")),
        frames=_whole_or_none(values.get("raw-frames")),
        frame=_whole_or_none(values.get("raw-frame")),
        knees=values.get("raw-knees"),
        curve=_name(values.get("raw-curve")),
        matrix=values.get("raw-matrix"),
        shading=_name(values.get("raw-shading")),
        defects=_yes_or_no(values.get("raw-defects")),
    )


def _name(value: Any) -> str | None:
    return None if value is None else str(value)


def _yes_or_no(value: Any) -> bool | None:
    if not isinstance(value, bool | None):
        raise UsageError("raw-defects takes true or false")
    return value


def _whole_or_none(value: Any) -> int | None:
    return None if value is None else _whole(value)


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

"""The data-set YAML: layout, place, split, class names, facts about raws; `FILE.yaml:SPLIT` names a split."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotations import SetConfig, SetOptions
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.headerless import BayerHeader, SetHeader, header_from_values
from adaptiveisp.utils.config import changed
from adaptiveisp.utils.yaml_files import read_yaml

REMEDY = "give a data-set YAML with layout and root (docs/datasets.md)"


def split_spec(data: Path) -> tuple[Path, str]:
    """The YAML and the split that DATA names; "" where it names none.

    >>> split_spec(Path("sets/lod.yaml:val"))
    (PosixPath('sets/lod.yaml'), 'val')
    """
    match = re.fullmatch(r"(.+\.ya?ml):([\w.-]+)", str(data), flags=re.IGNORECASE)
    if match is None or os.path.exists(data):
        return data, ""
    return Path(match[1]), match[2]


def is_set_file(data: Path) -> bool:
    """Whether DATA means a data-set YAML, with a split or without."""
    return split_spec(data)[0].suffix.lower() in (".yaml", ".yml")


def read_content(data: Path) -> dict[str, Any]:
    """What the YAML holds.

    Raises:
        DataError: it is missing or no mapping.
    """
    path = split_spec(data)[0]
    content = read_yaml(path, DataError, REMEDY)
    if not isinstance(content, dict):
        raise DataError(f"{path}: is no mapping; {REMEDY}")
    return {str(key): value for key, value in content.items()}


def read_set(data: Path, content: dict[str, Any], layout: str, defaults: SetOptions, header: BayerHeader) -> SetConfig:
    """The data set that a YAML describes.

    Args:
        data: the YAML, with a split or without.
        content: what it holds.
        layout: its name.
        defaults: of the layout.
        header: of the layout; what the YAML says of the raws wins.

    Raises:
        UsageError: a key does not exist or its value does not fit.
        DataError: root is missing.
    """
    path, split = split_spec(data)
    raw = {key.replace("_", "-"): value for key, value in content.items() if re.match(r"raw[-_]", key)}
    keys = {key.replace("-", "_"): value for key, value in content.items() if not re.match(r"raw[-_]", key)}
    keys = {"root": keys.pop("path"), **keys} if "path" in keys else keys
    plain_ultralytics = "layout" not in keys
    keys.pop("layout", None)
    known = SetOptions.__dataclass_fields__
    if plain_ultralytics:  # such files also hold a download link, counts and credits
        keys = {key: value for key, value in keys.items() if key in known and value is not None}
    options = changed(defaults, _plain(keys, path), str(path))
    if split:
        options = replace(options, split=split)
    root = path.parent / options.root
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder; correct root in {path} (relative to that file)")
    return SetConfig(path, layout, root, options, SetHeader.of(header_from_values(raw, path), header))


def _plain(keys: dict[str, Any], path: Path) -> dict[str, Any]:
    """Values as the options want them: a single extension as a list, empty entries as none."""
    values = {key: value for key, value in keys.items() if not (key in ("train", "val", "test") and value is None)}
    for key in ("extensions", "splits"):
        if isinstance(values.get(key), str):
            values[key] = [values[key]]
    names = values.get("names")
    if isinstance(names, dict):
        values["names"] = {_number(key): _class_name(value, path) for key, value in names.items()}
    elif isinstance(names, list):
        values["names"] = [_class_name(value, path) for value in names]
    return values


def _class_name(value: Any, path: Path) -> str:
    """A class name; YAML takes 3 for a number, which is one too, and no, yes, on and off for truth values."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f'{path}: names: {shown(value)} is no text; put class names such as "no" into quotes')
    return str(value)


def _number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() else key

"""Reads data-set YAMLs: layout, folders, split, class names, facts about raws. `FILE.yaml:SPLIT` names a split."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotations import SetConfig, SetOptions
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.headerless import BayerHeader, SetHeader
from adaptiveisp.raw.sidecars import header_from_values
from adaptiveisp.utils.config import changed
from adaptiveisp.utils.yaml_files import read_yaml

REMEDY = "give a data-set YAML with layout and root (docs/datasets.md)"


def split_spec(data: Path) -> tuple[Path, str]:
    """The YAML and the split that DATA names; the split is "" if it names none.

    >>> split_spec(Path("sets/lod.yaml:val"))
    (PosixPath('sets/lod.yaml'), 'val')
    """
    match = re.fullmatch(r"(.+\.ya?ml):([\w.-]+)", str(data), flags=re.IGNORECASE)
    if match is None or os.path.exists(data):
        return data, ""
    return Path(match[1]), match[2]


def is_set_file(data: Path) -> bool:
    """Whether DATA is the path of a data-set YAML, with or without a split."""
    return split_spec(data)[0].suffix.lower() in (".yaml", ".yml")


def read_content(data: Path) -> dict[str, Any]:
    """The mapping in a data-set YAML.

    Raises:
        DataError: the file is missing, or holds no mapping.
    """
    path = split_spec(data)[0]
    content = read_yaml(path, DataError, REMEDY)
    if not isinstance(content, dict):
        raise DataError(f"{path}: is no mapping; {REMEDY}")
    return {str(key): value for key, value in content.items()}


def read_set(data: Path, content: dict[str, Any], layout: str, defaults: SetOptions, header: BayerHeader) -> SetConfig:
    """The settings of a data-set YAML, and the defaults of its layout for missing keys.

    Args:
        data: the YAML, with or without a split.
        content: its content.
        layout: name of the layout.
        defaults: the layout's defaults.
        header: facts about raws that the layout assumes; those of the YAML have precedence.

    Raises:
        UsageError: a key does not exist or its value does not fit.
        DataError: there is no folder `root`.
    """
    path, split = split_spec(data)
    raw = {key.replace("_", "-"): value for key, value in content.items() if re.match(r"raw[-_]", key)}
    keys = {key.replace("-", "_"): value for key, value in content.items() if not re.match(r"raw[-_]", key)}
    keys = {"root": keys.pop("path"), **keys} if "path" in keys else keys
    plain_ultralytics = "layout" not in keys
    keys.pop("layout", None)
    known = SetOptions.__dataclass_fields__
    if plain_ultralytics:  # such files have further keys, such as a download link, counts and credits
        keys = {key: value for key, value in keys.items() if key in known and value is not None}
    options = changed(defaults, _plain(keys, path), str(path))
    if split:
        options = replace(options, split=split)
    root = path.parent / options.root
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder; correct root in {path} (relative to that file)")
    return SetConfig(path, layout, root, options, SetHeader.of(header_from_values(raw, path), header))


def _plain(keys: dict[str, Any], path: Path) -> dict[str, Any]:
    """Values in the types of `SetOptions`: a single extension becomes a list, empty entries are left out."""
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
    """A class name, which may be a number; no, yes, on and off are refused, since YAML reads them as truth values."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f'{path}: names: {shown(value)} is no text; put class names such as "no" into quotes')
    return str(value)


def _number(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() else key

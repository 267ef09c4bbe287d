"""Checks the nested keys of a manifest, so that what reads it later finds the types it needs."""

from collections.abc import Callable, Mapping
from typing import Any

KINDS = ("mosaic", "rgb")
FRAME_TYPES = ("uint8", "uint16", "uint32")
TENSOR_TYPES = (*FRAME_TYPES, "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool")

Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_level(value: Any) -> bool:
    """None, a number, or four of them at most."""
    return value is None or _is_number(value) or (_is_numbers(value) and 1 <= len(value) <= 4)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_side(value: Any) -> bool:
    return value is None or _is_count(value)


FIELDS: Mapping[str, Mapping[str, Check]] = {
    "policy": {"name": _is_text},
    "detector": {"name": _is_text, "class_names": _is_texts},
    "geometry": {"size": _is_count},
    "pipeline": {"end": _is_whole, "module_set": _is_text, "modules": lambda value: isinstance(value, list)},
    "frame": {
        "kind": lambda value: _is_text(value) and value in KINDS,
        "bits": lambda value: _is_whole(value) and 1 <= value <= 32,
        "dtype": lambda value: _is_text(value) and value in FRAME_TYPES,
        "height": _is_side,
        "width": _is_side,
        "pattern": lambda value: value is None or _is_text(value),
        "patterns": _is_texts,
        "black_level": _is_level,
        "white_level": lambda value: value is None or _is_number(value),
        "orientation": lambda value: _is_whole(value) and 1 <= value <= 8,
        "format": lambda value: value is None or isinstance(value, dict),
    },
}
"""Part of the manifest → its keys, each with what its value must be."""

MODULE: Mapping[str, Check] = {"id": _is_whole, "name": _is_text, "params": lambda value: isinstance(value, list)}
PARAM: Mapping[str, Check] = {"name": _is_text, "low": _is_number, "high": _is_number}
TENSOR: Mapping[str, Check] = {
    "name": _is_text,
    "file": _is_text,
    "dtype": lambda value: _is_text(value) and value in TENSOR_TYPES,
    "shape": lambda value: isinstance(value, list) and all(_is_whole(side) and side >= 0 for side in value),
}
LIMITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("image", "developed", "image_after"), ("image",)),
    "modules": ("params",),
    "boxes": ("confidence", "scores", "iou"),
}
"""Output of a self-test → the tolerances that comparing it takes."""

TOGETHER: Mapping[str, tuple[str, ...]] = {"modules": ("params",), "boxes": ("scores", "labels")}
"""Output of a self-test → those that it is compared with."""


def first_fault(content: Mapping[str, Any]) -> str | None:
    """The first key that is missing or holds something else than it must, in words; None if there is none.

    Args:
        content: a manifest that has all its parts.
    """
    for part, fields in FIELDS.items():
        if fault := _fault(part, content[part], fields):
            return fault
    for place, module in enumerate(content["pipeline"]["modules"]):
        where = f"pipeline.modules[{place}]"
        if fault := _fault(where, module, MODULE) or _first(f"{where}.params", module["params"], PARAM):
            return fault
    for name, entry in content["graphs"].items():
        for side in ("inputs", "outputs"):
            if fault := _first(f"graphs.{name}.{side}", entry[side], {"name": _is_text}):
                return fault
    if not content["graphs"]:
        return "graphs is empty"
    for name, test in content["self_test"].items():
        if fault := _test_fault(f"self_test.{name}", test):
            return fault
    return None


def _test_fault(where: str, test: Any) -> str | None:
    sides = {side: lambda value: isinstance(value, list) for side in ("inputs", "outputs")}
    if fault := _fault(where, test, {**sides, "tolerances": lambda value: isinstance(value, dict)}):
        return fault
    for side in sides:
        if fault := _first(f"{where}.{side}", test[side], TENSOR):
            return fault
    names = {tensor["name"] for tensor in test["outputs"]}
    for name, others in TOGETHER.items():
        if name in names and not names.issuperset(others):
            return f"{where}.outputs has {name} without {' and '.join(others)}"
    needed = {limit: _is_number for tensor in test["outputs"] for limit in LIMITS.get(tensor["name"], ())}
    return _fault(f"{where}.tolerances", test["tolerances"], needed)


def _first(where: str, entries: Any, fields: Mapping[str, Check]) -> str | None:
    """The first fault among the entries of a list."""
    faults = (_fault(f"{where}[{place}]", entry, fields) for place, entry in enumerate(entries))
    return next((fault for fault in faults if fault), None)


def _fault(where: str, value: Any, fields: Mapping[str, Check]) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} is not a table of keys"
    for key, check in fields.items():
        if key not in value:
            return f"{where}.{key} is missing"
        if not check(value[key]):
            return f"{where}.{key} is not valid ({str(value[key])[:40]})"
    return None

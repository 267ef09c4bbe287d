"""Dataclasses of settings filled from YAML and the command line, with every name and type checked."""

import math
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from adaptiveisp.errors import UsageError

Settings = TypeVar("Settings")


def changed(settings: Settings, changes: Mapping[str, Any], origin: str) -> Settings:
    """The settings with some of them replaced.

    Args:
        settings: a frozen dataclass.
        changes: field → value, as YAML gives it.
        origin: where the changes come from, to put into errors.

    Raises:
        UsageError: there is no such setting, or its value is of another type.
    """
    hints = get_type_hints(type(settings))
    names = [field.name for field in fields(settings)]  # type: ignore[arg-type]
    values = {}
    for name, value in changes.items():
        if name not in names:
            raise UsageError(f"{origin}: setting {name!r} does not exist; there are {', '.join(sorted(names))}")
        fitting = _fitted(value, hints[name])
        if fitting is _UNFIT:
            raise UsageError(f"{origin}: {name} = {value!r} does not fit; give {_described(hints[name])}")
        values[name] = fitting
    return replace(settings, **values)  # type: ignore[type-var]


def require(holds: bool, message: str) -> None:
    """Refuses a setting.

    Raises:
        UsageError: it does not hold.
    """
    if not holds:
        raise UsageError(message)


def as_yaml(settings: Any) -> dict[str, Any]:
    """The settings as plain values that YAML can hold and `changed` takes back."""
    return {name: _plain(value) for name, value in asdict(settings).items()}


def parse_changes(pairs: list[str]) -> dict[str, Any]:
    """The KEY=VALUE pairs of a command line; a value is read as YAML.

    >>> parse_changes(["pool=32", "bootstrap=greedy", "loss_limit=null"])
    {'pool': 32, 'bootstrap': 'greedy', 'loss_limit': None}

    Raises:
        UsageError: one has no "=" or is no YAML.
    """
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {pair}: give KEY=VALUE, for instance --set pool=32")
        try:
            found[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(
                f"--set {pair}: the value cannot be read; give a number, true, false, null or a name"
            ) from None
    return found


_UNFIT = object()


def _fitted(value: Any, hint: Any) -> Any:
    """The value as its type hint wants it, `_UNFIT` where it is something else."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        options = [_fitted(value, one) for one in arguments]
        return next((option for option in options if option is not _UNFIT), _UNFIT)
    if origin is Literal:
        return value if value in arguments else _UNFIT
    if origin is tuple:
        items = [_fitted(item, arguments[0]) for item in value] if isinstance(value, list | tuple) else [_UNFIT]
        return _UNFIT if _UNFIT in items else tuple(items)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        inner = {key: _fitted(item, arguments[1]) for key, item in value.items()} if isinstance(value, Mapping) else {}
        return inner if isinstance(value, Mapping) and _UNFIT not in inner.values() else _UNFIT
    if hint is type(None):
        return None if value is None else _UNFIT
    if hint is float:
        return _as_float(value)
    is_bool = isinstance(value, bool)
    return value if isinstance(value, hint) and is_bool == (hint is bool) else _UNFIT


def _as_float(value: Any) -> Any:
    """A number; YAML takes 1e-4, which has no point, for text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _UNFIT
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _UNFIT
    return number if math.isfinite(number) else _UNFIT


def _described(hint: Any) -> str:
    """A type hint for people.

    >>> _described(Literal["td", "greedy"]), _described(float | None)
    ('td or greedy', 'a number or null')
    """
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(one) for one in arguments)
    if origin is Literal:
        return " or ".join(str(one) for one in arguments)
    if origin is tuple:
        return "a list"
    return names.get(hint, "a mapping")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value

"""Fills dataclasses from YAML, JSON and the command line, and checks every name and type."""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, field, fields, replace
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from adaptiveisp.errors import UsageError, one_line, shown
from adaptiveisp.utils.yaml_files import YamlError, parse_yaml

Settings = TypeVar("Settings")

MOST_OF_ANY = (1 << 31) - 1
"""The largest whole number of any setting, the same as of the command line's options."""
MOST = {
    "size": 8192,
    "batch": 4096,
    "group_size": 1024,
    "horizon": 64,
    "rollout": 64,
    "replay_size": 65_536,
    "dev_draws": 1000,
}
"""The largest value of settings on which memory or time depend, far above useful values. 8192 pixels is the largest
`--size`, the horizon is `checkpoint.LONGEST_HORIZON`, and larger batches or replay buffers do not fit into memory."""


FORMERLY = "formerly"
"""Key of a field's metadata with its former names, which files and scripts of older versions use."""


def renamed(*former: str, **how: Any) -> Any:
    """A dataclass field that is also read under its former names.

    Args:
        former: the names.
        how: as for `dataclasses.field`, such as `default`.
    """
    return field(metadata={FORMERLY: former}, **how)


def changed(
    settings: Settings, changes: Mapping[str, Any], origin: str, listed: Callable[[str], str] | None = None
) -> Settings:
    """A copy of the settings with some of them replaced.

    Args:
        settings: a frozen dataclass.
        changes: field → value, as read from YAML.
        origin: source of the changes, for errors.
        listed: says for a setting that is a list how to write it, such as `list_form`; None for no example.

    Raises:
        UsageError: there is no such setting, or its value is of another type.
    """
    values = _checked(type(settings), changes, origin, listed)
    try:
        return replace(settings, **values)  # type: ignore[type-var]
    except UsageError as cause:  # raised by the dataclass, which does not know the source of the changes
        raise UsageError(f"{origin}: {cause}") from None


def record(kind: type[Settings], content: Any, origin: str, error: type[Exception], remedy: str) -> Settings:
    """Fills a dataclass from the content of a file.

    Args:
        kind: the dataclass. The file must have every field without a default, and must not have other keys. The
            dataclass may refuse values in `__post_init__` with `require`.
        content: the parsed file.
        origin: the file, and perhaps the place in it, for errors.
        error: class of the errors.
        remedy: what the user can do, appended to messages.
    """
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise error(f"{origin}: is no mapping of names to values; {remedy}")
    needed = [f for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
    missing = [f.name for f in needed if not any(name in content for name in (f.name, *f.metadata.get(FORMERLY, ())))]
    if missing:
        raise error(f"{origin}: lacks {', '.join(missing)}; {remedy}")
    try:
        values = _checked(kind, content, origin)
    except UsageError as cause:
        raise error(f"{cause}; {remedy}") from None
    try:
        return kind(**values)
    except UsageError as cause:  # raised by the dataclass, which does not know the file
        raise error(f"{origin}: {cause}; {remedy}") from None


def _checked(
    kind: type[Any], values: Mapping[str, Any], origin: str, listed: Callable[[str], str] | None = None
) -> dict[str, Any]:
    """The values in the types of the fields of a dataclass.

    Args:
        kind: the dataclass.
        values: field → value.
        origin: source of the values, for errors.
        listed: as for `changed`.

    Raises:
        UsageError: there is no such field, or its value is of another type.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    former = {old: field.name for field in fields(kind) for old in field.metadata.get(FORMERLY, ())}
    found: dict[str, Any] = {}
    for given, value in values.items():
        name = former.get(given, given)
        if name in found:
            raise UsageError(f"{origin}: {shown(given)} and {name} are names of one setting; give one of them")
        if name not in names:
            raise UsageError(f"{origin}: setting {shown(name)} does not exist; there are {', '.join(sorted(names))}")
        fitting = _fitted(value, hints[name])
        if fitting is _UNFIT:
            wanted = _described(hints[name])
            if listed is not None and get_origin(hints[name]) in (tuple, list):
                wanted = listed(name)
                if get_origin(get_args(hints[name])[0]) in (tuple, list):
                    wanted = wanted.replace("a list", "a list of lists").replace("[a, b]", "[[a, b], [a, c]]")
            raise UsageError(f"{origin}: {name} = {shown(value)} does not fit; give {wanted}")
        most = MOST.get(name, MOST_OF_ANY)
        if isinstance(fitting, int) and not isinstance(fitting, bool) and fitting > most:
            raise UsageError(f"{origin}: {name} = {shown(fitting)} is too large; give at most {most}")
        found[name] = fitting
    return found


def require(holds: bool, message: str) -> None:
    """Refuses a setting unless a condition holds.

    Args:
        holds: the condition.
        message: the error's message.

    Raises:
        UsageError: the condition does not hold.
    """
    if not holds:
        raise UsageError(message)


def as_yaml(settings: Any) -> dict[str, Any]:
    """The settings as plain values that YAML can hold and `changed` can read."""
    return {name: _plain(value) for name, value in asdict(settings).items()}


def parse_changes(pairs: list[str]) -> dict[str, Any]:
    """Reads the KEY=VALUE pairs of a command line; values are YAML.

    >>> parse_changes(["replay_size=32", "bootstrap=greedy", "loss_limit=null"])
    {'replay_size': 32, 'bootstrap': 'greedy', 'loss_limit': None}

    Raises:
        UsageError: a pair has no "=", or its value is not YAML.
    """
    found = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {one_line(pair, 80)}: give KEY=VALUE, for instance --set replay_size=32")
        try:
            found[name] = parse_yaml(text)
        except YamlError as error:
            remedy = "give a number, true, false, null or a name"
            raise UsageError(f"--set {one_line(pair, 80)}: the value cannot be read ({error}); {remedy}") from None
    return found


_UNFIT = object()


def _fitted(value: Any, hint: Any) -> Any:
    """The value in the type of a hint, `_UNFIT` where it does not fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        options = [_fitted(value, one) for one in arguments]
        return next((option for option in options if option is not _UNFIT), _UNFIT)
    if origin is Literal:
        # Types are compared too, since True equals 1.
        return next((one for one in arguments if type(one) is type(value) and one == value), _UNFIT)
    if origin in (tuple, list):
        items = [_fitted(item, arguments[0]) for item in value] if isinstance(value, list | tuple) else [_UNFIT]
        return _UNFIT if any(item is _UNFIT for item in items) else origin(items)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return _UNFIT
        inner = {_fitted(key, arguments[0]): _fitted(item, arguments[1]) for key, item in value.items()}
        return _UNFIT if any(_UNFIT is part for pair in inner.items() for part in pair) else inner
    if hint is type(None):
        return None if value is None else _UNFIT
    if hint is float:
        return _as_float(value)
    is_bool = isinstance(value, bool)
    return value if isinstance(value, hint) and is_bool == (hint is bool) else _UNFIT


def _as_float(value: Any) -> Any:
    """A value as a finite float; a text is converted, since YAML takes 1e-4, which has no point, for text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return _UNFIT
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _UNFIT
    return number if math.isfinite(number) else _UNFIT


def _described(hint: Any) -> str:
    """A type hint in words, for messages.

    >>> _described(Literal["td", "greedy"]), _described(float | None)
    ('td or greedy', 'a number or null')
    """
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(one) for one in arguments))
    if origin is Literal:
        return " or ".join(str(one) for one in arguments)
    if origin in (tuple, list):
        return "a list"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of names to {_described(arguments[1])}"
    return names.get(hint, "a mapping")


def list_form(name: str) -> str:
    """The form of a setting that is a list, for messages.

    >>> list_form("modules")
    "a list, in YAML modules: [a, b], on the command line --set 'modules=[a, b]'"
    """
    return f"a list, in YAML {name}: [a, b], on the command line --set '{name}=[a, b]'"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value

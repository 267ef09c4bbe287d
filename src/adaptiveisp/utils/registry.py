"""Named objects that users can add to: modules, policies, methods, rewards, detectors and data sets.

A name is found in three places, in this order: what the package itself registered, what a program registered by
`register_…`, and what installed packages declare as Python entry points. Files hold registered names only, so that no
file decides which code runs.
"""

import re
from collections.abc import Callable
from importlib import metadata
from typing import Generic, TypeVar

from adaptiveisp.errors import UsageError, logger, shown
from adaptiveisp.utils.own_code import import_object, names_code, path_remedy, reason_of

Value = TypeVar("Value")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
"""Names that can be registered, which are also used in files, tables and file names."""


def declared_names(group: str) -> list[str]:
    """The names of the entry points that installed packages declare in a group; nothing is loaded for that."""
    return [point.name for point in metadata.entry_points(group=group)]


class Registry(Generic[Value]):
    """The objects of one kind by name.

    Args:
        kind: noun for messages, such as "module".
        group: group of entry points in which packages declare such objects, such as "adaptiveisp.modules".
        flag: option of the command line that takes `my_pkg.my_file:name`; "" where there is none.
        check: returns an object if it is of the right kind and raises UsageError otherwise.
        own_name: gives the name that an object has itself, which must be that of its entry point; None for objects
            without a name of their own.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        flag: str = "",
        check: Callable[[str, object], Value] | None = None,
        own_name: Callable[[Value], str] | None = None,
    ):
        self.kind, self.group, self.flag = kind, group, flag
        self._check, self._own_name = check, own_name
        self._values: dict[str, Value] = {}

    def register(self, name: str, value: Value, replace: bool = False) -> Value:
        """Adds an object under a name and returns it.

        Args:
            name: letters, digits, "-" and "_", at most 64.
            value: the object.
            replace: whether it may take the place of another object of that name.

        Raises:
            UsageError: the name is taken or cannot be one, or the object is of another kind.
        """
        if not NAME.fullmatch(name):
            raise UsageError(f"{self.kind} {shown(name)}: give a name of at most 64 letters, digits, - and _")
        checked = self._checked(name, value)
        taken = self._values.get(name)
        if taken is not None and taken is not checked and not replace:
            raise UsageError(f"{self.kind} {name!r} is registered already; choose another name")
        self._values[name] = checked
        return checked

    def find(self, name: str) -> Value:
        """The object of that name.

        Raises:
            UsageError: there is none; the message says how to get it registered.
        """
        if name not in self._values:
            self._load_entry_point(name)
        if name not in self._values:
            names = self.names()
            remedies = [f"choose one of {', '.join(names)}"] if names else []
            if self.flag:
                remedies.append(f"give {self.flag} my_pkg.my_file:name")
            remedies.append("install the package that declares it")
            raise UsageError(f"{self.kind} {shown(name)} is not registered; {', or '.join(remedies)}")
        return self._values[name]

    def from_flag(self, text: str, name_of: Callable[[Value], str]) -> Value:
        """The object that an option of the command line names: a registered name, or `my_pkg.my_file:name`.

        An object of the user's own code is registered under its own name, so that files may name it while this process
        runs.

        Args:
            text: value of the option.
            name_of: gives the name of an object.

        Raises:
            UsageError: there is no such name or code, or the object is of another kind.
        """
        if not names_code(text):
            if remedy := path_remedy(text):
                raise UsageError(f"{self.flag} {text}: {remedy}")
            return self.find(text)
        value = self._checked(text, import_object(text))
        return self.register(name_of(value), value)

    def names(self) -> list[str]:
        """All names, those of entry points among them, which are not loaded for that."""
        return [*self._values, *(name for name in declared_names(self.group) if name not in self._values)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.names()

    def _load_entry_point(self, name: str) -> None:
        """Loads an object that an installed package declares under that name; the first of two packages wins.

        Raises:
            UsageError: the package's code fails, or its object is of another kind or has another name.
        """
        points = [point for point in metadata.entry_points(group=self.group) if point.name == name]
        if not points:
            return
        origin = f"{self.kind} {name!r} of the package {points[0].dist.name if points[0].dist else points[0].module}"
        if len(points) > 1:
            logger.warning("%s: another package declares the same name; the first one is used", origin)
        try:
            value = points[0].load()
        except Exception as error:  # the package's own code
            logger.debug("%s", origin, exc_info=error)
            raise UsageError(f"{origin}: {reason_of(error)}; correct or remove the package") from error
        checked = self._checked(origin, value)
        own = self._own_name(checked) if self._own_name is not None else name
        if own != name:
            raise UsageError(f"{origin}: the entry point {name!r} gives {own!r}; rename it to {own!r}")
        self._values[name] = checked

    def _checked(self, origin: str, value: object) -> Value:
        return self._check(origin, value) if self._check is not None else value  # type: ignore[return-value]

"""Keeps imports of older versions working, such as `from adaptiveisp.predictor import AdaptiveISP`."""

import importlib
import sys
import types
import warnings
from collections.abc import Iterable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any


class _OldModule(Loader):
    """Makes a module whose names are those that `adaptiveisp` itself exports."""

    def __init__(self, name: str, names: Mapping[str, str]):
        self.name, self.names = name, names

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        """An empty module."""
        return types.ModuleType(spec.name, f"Has moved: import from adaptiveisp itself, or from {self.names}.")

    def exec_module(self, module: types.ModuleType) -> None:
        """Gives the module a `__getattr__` that looks the names up when they are asked for."""
        vars(module)["__getattr__"] = moved_names(module.__name__, self.names)


class _Finder(MetaPathFinder):
    """Finds modules that have moved."""

    def __init__(self, package: str, moved: Mapping[str, Mapping[str, str]]):
        self.package, self.moved = package, moved

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module that has moved."""
        package, _, name = fullname.rpartition(".")
        if package != self.package or name not in self.moved:
            return None
        return ModuleSpec(fullname, _OldModule(name, self.moved[name]))


def moved_names(module: str, homes: Mapping[str, str]) -> Any:
    """A `__getattr__` for a module whose public names have moved: it warns and returns them from their new modules.

    Args:
        module: dotted name of the module.
        homes: name → dotted name of the module that has it now.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        remedy = f"use: from adaptiveisp import {name}"
        warnings.warn(f"{module}.{name} has moved to {homes[name]}; {remedy}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(homes[name]), name)

    return get


def keep(package: str, moved: Mapping[str, Mapping[str, str]]) -> None:
    """Lets modules that have moved be imported under their old names.

    Args:
        package: dotted name of the package that they lay in.
        moved: module → its public names, each with the dotted name of the module that has it now.
    """
    if not any(isinstance(finder, _Finder) and finder.package == package for finder in sys.meta_path):
        sys.meta_path.append(_Finder(package, moved))

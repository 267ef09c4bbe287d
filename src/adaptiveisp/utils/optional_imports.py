"""Imports libraries of optional parts of the installation when they are needed."""

import importlib
import importlib.util
from typing import Any

from adaptiveisp.errors import AdaptiveISPError


def import_extra(module: str, extra: str) -> Any:
    """Imports a module of an optional library.

    Args:
        module: dotted name of the module.
        extra: the optional part of this package that installs it, for instance "report".

    Raises:
        AdaptiveISPError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _not_installed(module, extra) from error


def require_extra(extra: str, *libraries: str) -> None:
    """Checks that the libraries of an optional part are installed, without importing them, which takes long.

    Args:
        extra: the optional part of this package that installs them.
        libraries: names of their top-level modules.

    Raises:
        AdaptiveISPError: one is not installed.
    """
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise _not_installed(library, extra)


def _not_installed(module: str, extra: str) -> AdaptiveISPError:
    return AdaptiveISPError(f"{module} is not installed; run: pip install 'adaptiveisp[{extra}]'")

"""Imports libraries of optional parts of the installation when they are needed."""

import importlib
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
        raise AdaptiveISPError(f"{module} is not installed; run: pip install 'adaptiveisp[{extra}]'") from error

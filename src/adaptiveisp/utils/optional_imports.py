"""Optional parts of the installation, imported when they are needed."""

import importlib
from typing import Any

from adaptiveisp.errors import AdaptiveISPError


def import_extra(module: str, extra: str) -> Any:
    """The module, imported now.

    Args:
        module: dotted name of a library's module.
        extra: the optional part of this package that installs it, for instance "report".

    Raises:
        AdaptiveISPError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise AdaptiveISPError(f"{module} is not installed; run: pip install 'adaptiveisp[{extra}]'") from error

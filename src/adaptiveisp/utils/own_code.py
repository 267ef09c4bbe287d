"""Objects that the user names on the command line as `my_pkg.my_file:name`, imported from the user's own code."""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adaptiveisp.errors import AdaptiveISPError, UsageError, logger


def names_code(text: str) -> bool:
    """Whether a text names an object of the user's own code.

    >>> names_code("my_pkg.my_file:load"), names_code("yolov3-tiny")
    (True, False)
    """
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def import_object(text: str) -> Any:
    """The object `name` of the module `my_pkg.my_file`, for the text `my_pkg.my_file:name`.

    Modules are also looked for in the current folder. Importing a module runs its code, so the text must come from the
    command line or from Python, never from a file.

    Args:
        text: module and name with a colon between them.

    Raises:
        UsageError: the module cannot be imported, or has no such name.
    """
    module_name, _, attribute = text.partition(":")
    remedy = f"{module_name or text} must be a module that can be imported; -v shows where it fails"
    with current_folder_importable():
        # The user's own code may raise any exception, also SystemExit.
        try:
            found: Any = importlib.import_module(module_name)
            remedy = f"give a name that is in {module_name}"
            for part in attribute.split("."):
                found = getattr(found, part)
        except AdaptiveISPError as error:  # it has a remedy of its own
            raise UsageError(f"{text}: {error}") from error
        except (Exception, SystemExit) as error:
            logger.debug("%s", text, exc_info=error)
            if isinstance(error, ModuleNotFoundError):
                remedy = path_remedy(text) or module_remedy(error.name or "", module_name)
            raise UsageError(f"{text}: {reason_of(error)}; {remedy}") from error
    return found


def reason_of(error: BaseException) -> str:
    """The kind of an exception and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '') or 'no message'}"


def path_remedy(text: str) -> str:
    """The remedy for a text that names a file in the place of a module; "" where it does not.

    >>> path_remedy("retina/curve.py:CURVE")
    'write the module with dots instead of a path, retina.curve:CURVE'
    >>> path_remedy("retina.curve:CURVE")
    ''
    """
    file, colon, name = text.rpartition(":")
    if not colon or not ("/" in file or os.sep in file or file.endswith(".py")):
        return ""
    path = Path(file)
    parts = path.with_suffix("").parts
    if all(part.isidentifier() for part in parts):
        return f"write the module with dots instead of a path, {'.'.join(parts)}:{name}"
    return f"give a module instead of a path, {path.stem}:{name}; run from its folder, or put that on PYTHONPATH"


def module_remedy(missing: str, module_name: str) -> str:
    """The remedy for a module that is not found: the one that was named, or one that it imports."""
    if missing and f"{module_name}.".startswith(f"{missing}."):
        return "run from the folder that holds it, or put that folder on PYTHONPATH"
    return f"install {missing or 'it'}, or put its folder on PYTHONPATH"


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """A context in which modules of the current folder can be imported, as with `python -m`."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        # The imported code may have changed the list itself.
        with suppress(ValueError):
            sys.path.remove(folder)

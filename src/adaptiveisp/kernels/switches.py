"""Environment variables that turn parts of the package off."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_off(variable: str) -> bool:
    """Whether the variable is 0."""
    return os.environ.get(variable) == "0"


@contextmanager
def switched_off(variable: str) -> Iterator[None]:
    """Within the context the variable is 0; for comparisons, in one thread only."""
    before = os.environ.get(variable)
    os.environ[variable] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before

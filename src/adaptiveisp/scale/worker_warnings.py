"""Warnings that the package logs in the processes of a cluster: handed on to the driver, which logs each one once."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from adaptiveisp.errors import logger


class _Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.found.setdefault(getattr(record, "kind", text), text)


@contextmanager
def kept_warnings() -> Iterator[dict[str, str]]:
    """Yields a dictionary that gets the warnings logged in the block: kind → text of the first one of it.

    The kind of a doubt about a raw is that of its `Remark`; that of any other warning is its text.
    """
    keeping = _Keeping()
    logger.addHandler(keeping)
    try:
        yield keeping.found
    finally:
        logger.removeHandler(keeping)


class TellOnce:
    """Logs warnings that worker processes have kept, each kind once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, warnings: Mapping[str, str]) -> None:
        """Logs those of a kind that was not logged yet.

        Args:
            warnings: kind → text.
        """
        for kind, text in warnings.items():
            if kind not in self._told:
                self._told.add(kind)
                logger.warning("%s", text)

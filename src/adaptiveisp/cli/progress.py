"""Progress of a command: a bar on a terminal, occasional lines elsewhere, and lines in a log file."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, logger

SECONDS_BETWEEN_LINES = 10.0
"""Interval of the lines. It is a time and not a number of steps, which may take a millisecond or a minute each."""


class Progress:
    """Shows the progress of a command; a context manager.

    On a terminal it draws a bar with tqdm. Elsewhere, and in the log file, it writes a line every
    `SECONDS_BETWEEN_LINES` seconds, because a log should not contain partly drawn bars.

    Args:
        total: number of steps, 0 if unknown.
        command: name of the command, at the beginning of each line.
        unit: unit of a step, in the singular.
        log: file to which the lines are written too, or None.
        quiet: whether nothing is shown on standard error.
        clock: returns a time in seconds.

    Attributes:
        n: number of steps done.
    """

    def __init__(
        self,
        total: int,
        command: str,
        unit: str = "image",
        log: Path | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total, self.command, self.unit, self.log = total, command, unit, log
        self.n = 0
        self.disable = quiet
        self._clock = clock
        self._start = self._last = clock()
        self._facts = ""
        self._lines: list[str] = []
        self._bar: Any = None
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=command, unit=unit, leave=False, dynamic_ncols=True)

    def update(self, steps: int = 1) -> None:
        """Adds to the number of steps done."""
        self.n += steps
        if self._bar is not None:
            self._bar.update(steps)
        if self._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._write_line()

    def set_postfix(self, refresh: bool = True, **facts: object) -> None:
        """Sets values that are shown after the progress, such as `loss="0.123"`."""
        self._facts = "".join(f", {name} {value}" for name, value in facts.items())
        if self._bar is not None:
            self._bar.set_postfix(facts, refresh=refresh)

    def line(self) -> str:
        """The progress in words, such as `eval: 20 of 60 images, 2.0 a second, about 20 s left`."""
        elapsed = max(self._clock() - self._start, 1e-9)
        rate = self.n / elapsed
        units = f"{self.unit}es" if self.unit.endswith("s") else f"{self.unit}s"
        of_all = f" of {self.total}" if self.total else ""
        text = f"{self.command}: {self.n}{of_all} {units}, {rate:.3g} a second"
        if self.total and self.n:
            text += f", about {_duration((self.total - self.n) / rate)} left"
        return text + self._facts

    def _write_line(self) -> None:
        self._last = self._clock()
        line = self.line()
        if self._bar is None and not self.disable:
            with suppress(OSError, ValueError):  # standard error is closed or full
                print(line, file=sys.stderr, flush=True)
        if self.log is not None:
            self._lines.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
            self._write_log()

    def _write_log(self) -> None:
        """Writes the whole log again, because appending could follow a link that somebody put there."""
        from adaptiveisp.utils.files import write_text

        assert self.log is not None
        try:
            write_text(self.log, "".join(f"{line}\n" for line in self._lines))
        except OutputError as error:
            logger.warning("the log of the progress ends: %s", error)
            self.log = None

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _duration(seconds: float) -> str:
    """A number of seconds as text, in seconds, minutes or hours.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

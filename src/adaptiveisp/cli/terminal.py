"""How the command line meets its terminal: any text can be printed, pipes may close, SIGTERM interrupts."""

import codecs
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from adaptiveisp.cli.exit_codes import FAILED
from adaptiveisp.errors import logger

ENCODING_ERRORS = "adaptiveisp"
_PLAIN = {"─": "-", "−": "-", "–": "-", "→": "->", "…": "...", "±": "+-", "×": "x", "γ": "gamma"}
"""What a character is replaced by on a terminal whose encoding lacks it; all others become their escapes."""


def take_any_text() -> None:
    """Lets standard output and error print any text, also on a terminal that is not UTF-8 or of a strange file name."""
    codecs.register_error(ENCODING_ERRORS, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(ValueError, OSError):  # a closed one
                stream.reconfigure(errors=ENCODING_ERRORS)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = [_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode("ascii") for char in text]
    return "".join(plain), error.end


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM interrupts as SIGINT does, so that files are cleaned up and processes ended; main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


class _Console(logging.Handler):
    """Shows log messages on standard error as it is then, above a progress bar that is being drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message; a surprise with its traceback."""
        with suppress(OSError, ValueError):  # standard error is closed or full
            text = f"adaptiveisp: {self.format(record)}"
            bars = sys.modules.get("tqdm")
            if bars is not None:
                bars.tqdm.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr)


_console = _Console()


def show_log(verbose: bool) -> None:
    """Shows the package's warnings on standard error.

    Args:
        verbose: also what it says for finding faults, with the tracebacks of surprises.
    """
    _console.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if _console not in logger.handlers:
        logger.addHandler(_console)


def finish_output(code: int, fail: Callable[[object, int], int]) -> int:
    """Writes what standard output still holds, and returns the exit code.

    Args:
        code: of the command.
        fail: says an error and returns its code.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        return fail(f"standard output: cannot be written ({error.strerror}); send it elsewhere", code or FAILED)
    except ValueError:  # somebody has closed it
        pass
    return code


def _discard_output() -> None:
    """Sends what is left to nowhere: the interpreter would complain of it at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

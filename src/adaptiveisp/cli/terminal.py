"""Output and signals of the command line: any text can be printed, pipes may close, and SIGTERM interrupts."""

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
"""Replacements of characters that the encoding of a terminal lacks; all other such characters become escapes."""


def take_any_text() -> None:
    """Lets standard output and error print any text, for instance odd file names, on terminals of any encoding."""
    codecs.register_error(ENCODING_ERRORS, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(ValueError, OSError):  # the stream is closed
                stream.reconfigure(errors=ENCODING_ERRORS)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = [_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode("ascii") for char in text]
    return "".join(plain), error.end


@contextmanager
def terminable() -> Iterator[None]:
    """A context in which SIGTERM interrupts like SIGINT, so that files and processes are cleaned up."""

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
    """Prints log messages on the current standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a message, with the traceback of an unexpected error."""
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
        verbose: whether debug messages are shown too, with tracebacks of unexpected errors.
    """
    _console.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if _console not in logger.handlers:
        logger.addHandler(_console)


def finish_output(code: int, fail: Callable[[object, int], int]) -> int:
    """Flushes standard output and returns the exit code.

    Args:
        code: exit code of the command.
        fail: prints an error and returns its exit code.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        return fail(f"standard output: cannot be written ({error.strerror}); send it elsewhere", code or FAILED)
    except ValueError:  # it is closed already
        pass
    return code


def _discard_output() -> None:
    """Redirects the rest of the output to the null device, so that the interpreter does not fail at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

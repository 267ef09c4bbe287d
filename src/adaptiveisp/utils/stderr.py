"""Captures what libraries written in C print on standard error."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_lock = threading.Lock()


@contextmanager
def captured_stderr(messages: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Yields a list to which, at the end of the block, the lines about damage on stderr from C code are added.

    Other lines are passed on. LibRaw and OpenEXR report some damage, such as truncated compressed data, only on stderr.

    Args:
        messages: parts of lines about damage, in lower case.
    """
    said: list[bytes] = []
    with _lock, tempfile.TemporaryFile() as catcher:
        try:
            kept = os.dup(2)
        except OSError:  # the process has no stderr, as in some services
            yield said
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(catcher.fileno(), 2)
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            catcher.seek(0)
            for line in catcher:
                if any(message in line.lower() for message in messages):
                    said.append(line)
                else:
                    os.write(2, line)

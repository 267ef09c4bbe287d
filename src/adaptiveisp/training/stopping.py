"""Signals that stop a run after its iteration."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals(stop: Callable[[], bool]) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `stop`, and a second SIGINT interrupts the process.

    Outside the main thread, where Python allows no handlers, signals are left alone.

    Args:
        stop: asks the run to stop; returns whether it was asked before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop() and number == signal.SIGINT:
            raise KeyboardInterrupt

    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)

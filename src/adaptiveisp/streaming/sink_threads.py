"""Runs sinks on threads of their own, with queues that either hold the stream back or leave results out."""

import queue
import threading
from types import TracebackType
from typing import Any

from adaptiveisp.streaming.sinks import Sink
from adaptiveisp.streaming.stream import StreamResult

WAITING = 8
"""Most results that wait for a sink."""
POLL_SECONDS = 0.1
"""Longest time after which a writer that waits for room notices that the sink has failed."""
_END = object()


class SinkThread:
    """A sink that writes on a thread of its own; a context manager like the sink itself.

    Args:
        sink: the sink. It is entered and left by the caller's thread, and written to by the new thread only.
        drop: whether the oldest waiting result is left out when the sink is too slow; otherwise `write` waits.
        waiting: most results that wait for the sink.

    Attributes:
        written: results that the sink has taken.
        dropped: results that were left out.
    """

    def __init__(self, sink: Sink, drop: bool = False, waiting: int = WAITING):
        self.sink, self.drop = sink, drop
        self.written = self.dropped = 0
        self._queue: queue.Queue[Any] = queue.Queue(waiting)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=type(sink).__name__, daemon=True)

    @property
    def name(self) -> str:
        """The name of the sink's class, for summaries."""
        return type(self.sink).__name__

    def write(self, result: StreamResult) -> None:
        """Hands a result to the sink's thread.

        Raises:
            OutputError: the sink failed at an earlier result; any other error of the sink is raised in the same way.
        """
        while True:
            if self._error is not None:
                raise self._error
            try:
                self._queue.put(result, timeout=None if self.drop else POLL_SECONDS, block=not self.drop)
                return
            except queue.Full:
                if self.drop:
                    self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._queue.get_nowait()
            self.dropped += 1
        except queue.Empty:  # the sink has just taken it
            pass

    def _work(self) -> None:
        while (result := self._queue.get()) is not _END:
            try:
                self.sink.write(result)
                self.written += 1
            except BaseException as error:
                self._error = error
                return

    def __enter__(self) -> "SinkThread":
        self.sink.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until the sink has taken what waits, and finishes its output; then raises the sink's error, if any."""
        try:
            self._finish()
        finally:
            self.sink.__exit__(kind, error, trace)
        if self._error is not None and error is None:
            raise self._error

    def _finish(self) -> None:
        while self._thread.is_alive():
            try:
                self._queue.put(_END, timeout=POLL_SECONDS)
                break
            except queue.Full:
                continue
        self._thread.join()

"""Sinks on threads of their own: order, what is left out, and errors."""

import threading
import time
from types import TracebackType
from typing import Any

import pytest

from adaptiveisp.errors import OutputError
from adaptiveisp.streaming.sink_threads import SinkThread
from adaptiveisp.streaming.sinks import Callback
from tests.support.stream_results import result_of


class Slow:
    """Takes a result only when it is let."""

    def __init__(self) -> None:
        self.let, self.taken, self.left = threading.Semaphore(0), [], False

    def write(self, result: Any) -> None:
        assert self.let.acquire(timeout=10)
        self.taken.append(result.number)

    def __enter__(self) -> "Slow":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.left = True


def test_a_sink_that_may_drop_never_holds_the_stream_and_counts_what_it_left_out() -> None:
    sink = Slow()
    with SinkThread(sink, drop=True, waiting=2) as thread:
        thread.write(result_of(0))
        while thread._queue.qsize():  # the sink has taken it, and waits
            time.sleep(0.001)
        for number in range(1, 10):
            thread.write(result_of(number))
        for _ in range(10):
            sink.let.release()
    assert sink.taken == [0, 8, 9] and (thread.written, thread.dropped) == (3, 7) and sink.left


def test_a_sink_that_may_not_drop_holds_the_stream_and_gets_everything_in_order() -> None:
    sink = Slow()
    with SinkThread(sink, waiting=2) as thread:

        def write() -> None:
            for number in range(20):
                thread.write(result_of(number))

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.1)
        assert writer.is_alive() and not sink.taken  # it waits: 2 in the queue, 1 in the sink
        for _ in range(20):
            sink.let.release()
        writer.join(timeout=10)
    assert sink.taken == list(range(20)) and (thread.written, thread.dropped) == (20, 0)


@pytest.mark.parametrize("drop", [False, True])
def test_an_error_of_the_sink_reaches_the_stream_once(drop: bool) -> None:
    def full(result: Any) -> None:
        raise OutputError("x.mp4: cannot be written (No space left on device); free space on the disk")

    with pytest.raises(OutputError, match="No space left"), SinkThread(Callback(full), drop) as thread:
        while True:  # a write after the failed one raises
            thread.write(result_of(0))
    with pytest.raises(OutputError, match="No space left"), SinkThread(Callback(full), drop) as thread:
        thread.write(result_of(0))  # the end raises
    with pytest.raises(KeyboardInterrupt), SinkThread(Callback(full), drop) as thread:
        thread.write(result_of(0))
        raise KeyboardInterrupt


def test_a_callback_gets_the_results_as_they_are() -> None:
    found: list[Any] = []
    given = [result_of(number) for number in range(3)]
    with SinkThread(Callback(found.append)) as thread:
        for result in given:
            thread.write(result)
    assert all(one is other for one, other in zip(found, given, strict=True)) and thread.name == "Callback"

"""A loop over frames: one thread fetches and unpacks the next frame while the graph runs on the last one."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptiveisp_runtime.result import Result
    from adaptiveisp_runtime.session import Session

QUEUED = 2
"""Frames that may wait for the graph."""


@dataclass
class StreamStats:
    """What a stream did so far.

    Attributes:
        frames: results given.
        dropped: frames that were passed over because the graph was busy.
        seconds: from the first frame to the last result.
        milliseconds: time of the graph for each frame.
    """

    frames: int = 0
    dropped: int = 0
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)

    @property
    def frames_per_second(self) -> float:
        """Results a second; 0 before the first one."""
        return self.frames / self.seconds if self.seconds else 0.0


def stream(
    session: "Session",
    frames: Iterable[Any],
    stats: StreamStats | None = None,
    *,
    drop: bool = False,
    **facts: Any,
) -> Iterator["Result"]:
    """Yields the result of each frame, in order.

    Args:
        session: runs the graph.
        frames: what `Session` takes, such as `read_frames(…)` or a generator that asks a camera.
        stats: filled while the stream runs.
        drop: whether frames are passed over while the graph is busy, so that a result is always of the newest frame;
            for cameras. Files are read as fast as the graph works.
        facts: further arguments of each call, such as `white_level`.

    Raises:
        RuntimeFault: a frame does not fit, or the source fails.
    """
    counts = StreamStats() if stats is None else stats
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(1 if drop else QUEUED)
    ended = threading.Event()
    fetcher = threading.Thread(target=_fetch, args=(frames, waiting, ended, drop, counts), daemon=True)
    start = time.perf_counter()
    fetcher.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            result = session(value, **facts)
            counts.frames += 1
            counts.milliseconds.append(result.timings.graph)
            counts.seconds = time.perf_counter() - start
            yield result
    finally:
        ended.set()


def _fetch(
    frames: Iterable[Any],
    waiting: "queue.Queue[tuple[str, Any]]",
    ended: threading.Event,
    drop: bool,
    counts: StreamStats,
) -> None:
    """Puts the frames into the queue, until the source or the stream ends."""
    last: tuple[str, Any] = ("end", None)
    try:
        for frame in frames:
            if drop:
                while waiting.full():
                    try:
                        waiting.get_nowait()
                        counts.dropped += 1
                    except queue.Empty:
                        break
            if not _put(waiting, ("frame", frame), ended):
                return
    except BaseException as error:
        last = ("error", error)
    _put(waiting, last, ended)


def _put(waiting: "queue.Queue[tuple[str, Any]]", item: tuple[str, Any], ended: threading.Event) -> bool:
    """Waits for a place in the queue; False if the stream has ended."""
    while not ended.is_set():
        try:
            waiting.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False

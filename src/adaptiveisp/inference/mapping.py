"""Any number of frames through `AdaptiveISP` in bounded memory, on threads that read, develop, render and detect.

A thread does all the work of a batch of frames, so that reading, computing and encoding of different batches overlap;
the results are handed out in order. PyTorch's threads are divided among the workers.
"""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from adaptiveisp.errors import (
    AdaptiveISPError,
    DetectorError,
    OutputError,
    OutputNameError,
    RawFileError,
    UsageError,
    logger,
)
from adaptiveisp.errors import skip_reason as reason_of
from adaptiveisp.inference.frames import Frame, Unreadable, iterate_frames
from adaptiveisp.inference.result import Result
from adaptiveisp.raw.headerless import BayerHeader

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.prepared import Prepared

MOST_WORKERS = 8
"""More threads hinder one another at Python's lock."""
READERS = 2
"""Workers where one batch at a time may be computed: while one computes, another reads, develops or encodes."""
AHEAD = 2
"""Batches that may wait for the caller, in addition to one for each worker."""

Made = TypeVar("Made")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Skipped:
    """A frame without a result.

    Attributes:
        frame: its id.
        reason: why, in one line.
    """

    frame: str
    reason: str


@dataclass(frozen=True)
class Share:
    """How the work is divided.

    Attributes:
        workers: number of threads; 0 for the caller's alone.
        threads: PyTorch's threads for each of them.
    """

    workers: int
    threads: int


class FrameWork(Generic[Made]):
    """The work on a batch of frames, from reading to whatever is made of the results; called on several threads.

    Args:
        isp: policy and detector.
        header: facts of frames without a header of their own.
        finish: makes something of each result, for instance files, on the same thread.
        raise_errors: whether the error of a frame is raised; otherwise the frame becomes a `Skipped`.
        all_errors: whether errors that are not the package's own skip a frame too.
        finish_alone: whether `finish` uses policy or detector, so that it waits for its turn where these may run on one
            thread at a time.
    """

    def __init__(
        self,
        isp: "AdaptiveISP",
        header: BayerHeader | None,
        finish: Callable[[Frame, Result], Made],
        raise_errors: bool = False,
        all_errors: bool = False,
        finish_alone: bool = False,
    ):
        self.isp, self.header, self.finish, self.raise_errors = isp, header, finish, raise_errors
        self._caught: type[Exception] = Exception if all_errors else AdaptiveISPError
        self._alone: AbstractContextManager[Any] = nullcontext() if is_thread_safe(isp) else threading.Lock()
        self._finishing: AbstractContextManager[Any] = self._alone if finish_alone else nullcontext()

    def __call__(self, batch: list[Frame]) -> list[Made | Skipped]:
        """What is made of each frame, in order.

        Raises:
            DetectorError: the detector's output is not valid.
            OutputError: `finish` cannot write.
        """
        found: dict[int, Made | Skipped] = {}
        prepared: dict[int, Prepared] = {}
        for place, frame in enumerate(batch):
            try:
                if isinstance(frame.source, Unreadable):
                    raise RawFileError(frame.source.reason)
                prepared[place] = self.isp.develop(frame.source, self.header_of(frame))
                with self._alone:
                    prepared[place] = self.isp.render(prepared[place])
            except self._caught as error:
                prepared.pop(place, None)
                found[place] = self._skipped(frame, error)
        for place, result in self._detected(batch, prepared).items():
            if isinstance(result, Result):
                try:
                    with self._finishing:
                        found[place] = self.finish(batch[place], replace(result, frame=batch[place].id))
                except self._caught as error:
                    found[place] = self._skipped(batch[place], error)
            else:
                found[place] = result
        return [found[place] for place in range(len(batch))]

    def header_of(self, frame: Frame) -> BayerHeader | None:
        """The header that goes with a frame; a raw in memory has its own facts."""
        from adaptiveisp.types import RawImage

        return None if isinstance(frame.source, RawImage) else self.header

    def _detected(self, batch: list[Frame], prepared: "dict[int, Prepared]") -> dict[int, Result | Skipped]:
        """The results by place; where a batch fails, its frames are tried one by one, so that one spoils no other."""
        if not prepared:
            return {}
        try:
            with self._alone:
                return dict(zip(prepared, self.isp.detect_all(list(prepared.values())), strict=True))
        except DetectorError:
            raise
        except self._caught as error:
            if len(prepared) == 1:
                return {place: self._skipped(batch[place], error) for place in prepared}
        return {place: self._detected(batch, {place: one})[place] for place, one in prepared.items()}

    def _skipped(self, frame: Frame, error: Exception) -> Skipped:
        fatal = isinstance(error, OutputError | DetectorError) and not isinstance(error, OutputNameError)
        if fatal or self.raise_errors:
            raise error
        return Skipped(frame.id, reason_of(frame.id, error))


def map_frames(
    isp: "AdaptiveISP",
    frames: Any,
    batch_size: int,
    workers: int | None,
    header: BayerHeader | None,
    keep_frames: bool,
    raise_errors: bool,
) -> Iterator[Result | Skipped]:
    """Yields the results of `AdaptiveISP.map`; see there."""
    share = shares(isp, workers)
    work = FrameWork(isp, header, lambda _, result: result if keep_frames else result.without_frame(), raise_errors)
    with closing(overlapped(batches(iterate_frames(frames), batch_size), work, share)) as made:
        for found in made:
            for one in found:
                if isinstance(one, Skipped):
                    logger.warning("skipped: %s", one.reason)
                yield one


def batches(frames: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yields the items in lists of `size`.

    Raises:
        UsageError: the size is below 1.
    """
    if size < 1:
        raise UsageError(f"batch size {size}: give at least 1")
    rest = iter(frames)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def is_thread_safe(isp: "AdaptiveISP") -> bool:
    """Whether policy and detector may run in several threads at once; a GPU works on one batch at a time."""
    return isp.device.type == "cpu" and getattr(isp.detector, "thread_safe", False) and isp.policy.thread_safe


def shares(isp: "AdaptiveISP", workers: int | None) -> Share:
    """The number of workers, and of PyTorch's threads for each.

    With a latency there is one worker, since frames that are computed at the same time would slow each other's clock.

    Args:
        isp: policy and detector.
        workers: the wanted number; None chooses it.

    Raises:
        UsageError: the number is negative.
    """
    threads = torch.get_num_threads()
    if workers is not None and workers < 0:
        raise UsageError(f"workers = {workers}: give 0 or more")
    if workers is None and isp.latency_ms is not None:
        workers = 0
    if not is_thread_safe(isp):
        return Share(READERS if workers is None else workers, threads)
    count = min(threads, MOST_WORKERS) if workers is None else workers
    return Share(count, max(1, threads // max(1, count)))


def overlapped(items: Iterable[Item], work: Callable[[Item], Made], share: Share) -> Generator[Made, None, None]:
    """Yields what `work` makes of each item, in order; at most `workers` + `AHEAD` items are on their way.

    The first item is worked on alone, so that whatever is made on first use is made once. An error of an item is raised
    in its turn, and ends the work.

    Args:
        items: taken one by one as there is room.
        work: called in the workers' threads.
        share: number of workers and of PyTorch's threads for each.
    """
    rest = iter(items)
    if not share.workers:
        yield from map(work, rest)
        return
    waiting: deque[Future[Made]] = deque()
    pool = _pool(share)
    try:
        for first in itertools.islice(rest, 1):
            yield pool.submit(work, first).result()
        for item in rest:
            waiting.append(pool.submit(work, item))
            while len(waiting) >= share.workers + AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(share: Share) -> ThreadPoolExecutor:
    """A pool whose threads have started, each with its number of PyTorch's threads."""
    ready = threading.Barrier(share.workers + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first call in a thread sets its number; a later one would undo the next line
        torch.set_num_threads(share.threads)
        ready.wait()

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(share.workers, "adaptiveisp-frames", initializer=begin)
    for _ in range(share.workers):
        pool.submit(lambda: None)
    ready.wait()
    torch.set_num_threads(threads)  # the workers' own number is also that of threads which start later
    return pool

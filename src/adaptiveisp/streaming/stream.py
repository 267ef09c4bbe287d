"""Runs a policy and a detector on a stream of frames: stages on threads of their own, joined by bounded queues.

read → develop, policy, modules → detector → the caller. Each stage works on the next frame while the following stage
works on the one before; results keep the order of the frames. The queues are short, so that a slow stage holds the
source back instead of filling the memory; of a live source, which cannot wait, frames are dropped and counted instead.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger
from adaptiveisp.inference.predictor import AdaptiveISP, Prepared
from adaptiveisp.inference.result import Result
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.smoothing import Smoother, SmoothingConfig
from adaptiveisp.streaming.sources import Frame, frames_of, open_source
from adaptiveisp.types import RawImage
from adaptiveisp.utils.clock import Stopwatch

Drop = Literal["never", "oldest"]
"""What happens to frames that come faster than they are processed: the source waits, or the oldest waiting one goes."""

POLL_SECONDS = 0.1
"""Longest time in which a thread notices that the stream was stopped."""
_END = object()


@dataclass(frozen=True)
class StreamConfig:
    """Settings of a stream.

    Attributes:
        every: the policy runs on every n-th frame; those between use the pipeline of the last one.
        smoothing: how pipelines are kept steady in time; None leaves each frame's own.
        waiting: most frames that wait between two stages.
        drop: "never" lets the source wait, "oldest" drops frames of a live source.

    Raises:
        UsageError: a value is out of range.
    """

    every: int = 1
    smoothing: SmoothingConfig | None = field(default_factory=SmoothingConfig)
    waiting: int = 2
    drop: Drop = "never"

    def __post_init__(self) -> None:
        if self.every < 1 or self.waiting < 1:
            raise UsageError("every and waiting must be at least 1")
        if self.drop not in ("never", "oldest"):
            raise UsageError(f"drop {self.drop!r} does not exist; choose never or oldest")


@dataclass(frozen=True)
class StreamResult:
    """The result of one frame.

    Attributes:
        number: position of the frame in the source, from 0; dropped and failed frames count too.
        name: name of the frame.
        time_s: its time in the source in seconds; None if unknown.
        result: as `AdaptiveISP` returns it, without the image at full size.
    """

    number: int
    name: str
    time_s: float | None
    result: Result

    def to_json(self) -> dict[str, Any]:
        """The frame's numbers as plain values: one line of the sink for JSON lines."""
        pipeline = self.result.pipeline
        return {
            "number": self.number,
            "name": self.name,
            "time_s": self.time_s,
            "boxes": self.result.boxes(),
            "pipeline": None if pipeline is None else pipeline.to_json()["stages"],
            "milliseconds": self.result.timings.to_json(),
        }


@dataclass
class StreamStats:
    """What happened to the frames of a stream.

    Attributes:
        frames: frames that the source gave.
        results: frames with a result.
        dropped: frames that were dropped because the stream was too slow.
        failed: (name, reason) of frames that could not be used.
        cuts: changes of scene that the smoothing noticed.
        seconds: time from the first frame's arrival to the last result.
        busy: stage → seconds in which it worked.
    """

    frames: int = 0
    results: int = 0
    dropped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    cuts: int = 0
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        """Results a second."""
        return self.results / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a summary."""
        return {
            "frames": self.frames,
            "results": self.results,
            "dropped": self.dropped,
            "failed": [{"name": name, "reason": reason} for name, reason in self.failed],
            "cuts": self.cuts,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames_per_second, 2),
            "busy_seconds": {name: round(value, 3) for name, value in self.busy.items()},
        }


@dataclass(frozen=True)
class _Item:
    """A frame on its way: its number and, after each stage, what the stage made of it."""

    number: int
    frame: Frame
    content: Any


class Stream:
    """An iterator of the results of a stream; it ends with the source, or after `stop`.

    Args:
        isp: policy and detector.
        source: SOURCE of the command line, an iterable of frames or raws, or a function that returns one.
        header: size, pixel format and levels of frames without a header.
        config: settings.
        follow: whether to wait for further files of a folder.

    Attributes:
        stats: what happened to the frames so far.

    Raises:
        DetectorError: the detector's output is not valid; raised to the caller, and the stream ends.
        UsageError: the source does not exist, or facts about its frames are missing.
    """

    def __init__(
        self,
        isp: AdaptiveISP,
        source: str | Iterable[Any] | Callable[[], Iterable[Any]],
        header: BayerHeader | None = None,
        config: StreamConfig | None = None,
        follow: bool = False,
    ):
        self.isp, self.header = isp, header
        self.config = config if config is not None else StreamConfig()
        self.stats = StreamStats()
        frames = open_source(source, header, follow) if isinstance(source, str) else source
        self._frames: Iterator[Frame] = frames_of(frames)
        self._smoother = None if self.config.smoothing is None else Smoother(self.config.smoothing)
        self._last: Pipeline | None = None
        self._stopped = threading.Event()
        self._error: BaseException | None = None
        size = self.config.waiting
        self._queues: list[queue.Queue[Any]] = [queue.Queue(size) for _ in range(3)]
        self._started = 0.0
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._work, args=("render", 0, self._render), daemon=True),
            threading.Thread(target=self._work, args=("detect", 1, self._detect), daemon=True),
        ]

    def __iter__(self) -> Iterator[StreamResult]:
        """Starts the threads and yields the results in the order of the frames.

        Raises:
            UsageError: the stream was started before.
        """
        if self._started:
            raise UsageError("a stream gives its results once; make another one")
        self._started = time.perf_counter()
        for thread in self._threads:
            thread.start()
        try:
            while (item := self._take(self._queues[2])) is not None:
                self.stats.results += 1
                self.stats.seconds = time.perf_counter() - self._started
                yield StreamResult(item.number, item.frame.name, item.frame.time_s, item.content)
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the stream: no further frame is read, and the threads end when they have done theirs."""
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=5.0)

    def _read(self) -> None:
        """Reads the frames of the source into the first queue."""
        number = -1
        try:
            for number, frame in enumerate(self._frames):
                self.stats.frames += 1
                if self.config.drop == "oldest" and self._queues[0].full():
                    self._drop_oldest()
                if not self._give(self._queues[0], _Item(number, frame, None)):
                    return
        except AdaptiveISPError as error:  # a damaged frame, after which the position in the source is unknown
            if number < 0:
                self._error = error
            else:
                self._fail(f"frame {number + 1}", error)
        except BaseException as error:
            self._error = error
        finally:
            self._give(self._queues[0], _END)

    def _drop_oldest(self) -> None:
        try:
            self._queues[0].get_nowait()
            self.stats.dropped += 1
        except queue.Empty:
            pass

    def _work(self, name: str, place: int, work: Callable[[_Item], Any]) -> None:
        """Takes items from a queue, works on them, and puts them into the next queue."""
        self.stats.busy[name] = 0.0
        source, target = self._queues[place], self._queues[place + 1]
        try:
            while (item := self._take(source)) is not None:
                start = time.perf_counter()
                try:
                    made = work(item)
                except DetectorError:
                    raise
                except AdaptiveISPError as error:
                    self._fail(item.frame.name, error)
                    continue
                finally:
                    self.stats.busy[name] += time.perf_counter() - start
                if not self._give(target, replace(item, content=made)):
                    return
        except BaseException as error:
            self._error = self._error or error
            self._stopped.set()
        finally:
            self._give(target, _END)

    def _fail(self, name: str, error: AdaptiveISPError) -> None:
        logger.warning("skipped: %s: %s", name, error)
        self.stats.failed.append((name, str(error)))

    def _render(self, item: _Item) -> Prepared:
        """Develops a frame and runs the policy, or the last pipeline, and its modules."""
        raw, header = item.frame.raw, item.frame.header or self.header
        prepared = self.isp.develop(raw, None if isinstance(raw, RawImage) else header)
        if self._last is not None and item.number % self.config.every != 0:
            return self.isp.render(prepared, self._last)
        if self._smoother is None or self.isp.policy.needs_raw:
            return self._own(prepared)
        stopwatch = Stopwatch(self.isp.device)
        with stopwatch.part("policy"), torch.inference_mode():
            chosen = self.isp.policy.plan(prepared.developed.small)[0]
        self._last = self._smoother.update(chosen, prepared.developed.small)
        self.stats.cuts = self._smoother.cuts
        rendered = self.isp.render(prepared, self._last)
        assert rendered.rendered is not None
        milliseconds = rendered.rendered.milliseconds + stopwatch.milliseconds["policy"]
        return replace(rendered, rendered=replace(rendered.rendered, milliseconds=milliseconds))

    def _own(self, prepared: Prepared) -> Prepared:
        """The frame rendered by its own pipeline, which later frames may use."""
        done = self.isp.render(prepared)
        assert done.rendered is not None
        self._last = done.rendered.pipeline
        return done

    def _detect(self, item: _Item) -> Result:
        return self.isp.detect(item.content)

    def _take(self, source: "queue.Queue[Any]") -> Any:
        """The next item of a queue; None at its end or after a stop."""
        while True:
            try:
                item = source.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if self._stopped.is_set():
                    return None
                continue
            return None if item is _END else item

    def _give(self, target: "queue.Queue[Any]", item: Any) -> bool:
        """Puts an item into a queue; False if the stream was stopped before there was room."""
        while not self._stopped.is_set():
            try:
                target.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False


__all__ = ["Stream", "StreamConfig", "StreamResult", "StreamStats"]

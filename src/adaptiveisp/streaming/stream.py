"""Runs a policy and a detector on a stream of frames: several frames at once, results in the order of the frames.

A reader takes frames from the source; workers develop a frame, let the policy choose, run the modules and the detector.
Policies and smoothing come to the frames in their order, all other work of the workers overlaps. Few frames are on
their way at a time, so that a slow stage holds the source back instead of filling the memory; of a live source, which
cannot wait, frames are dropped and counted instead.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.prepared import Prepared
from adaptiveisp.inference.result import Result
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.exposure_hint import ExposureHint, exposure_hint
from adaptiveisp.streaming.flow import OrderedFlow, Stopped
from adaptiveisp.streaming.smoothing import Smoother, SmoothingConfig
from adaptiveisp.streaming.sources import Frame, frames_of, open_source
from adaptiveisp.types import RawImage
from adaptiveisp.utils.clock import Stopwatch

Drop = Literal["never", "oldest"]
"""What happens to frames that come faster than they are processed: the source waits, or the oldest waiting one goes."""

MOST_WORKERS = 8
"""Most workers that are started without being asked for."""
READER_SECONDS, WORKER_SECONDS = 0.5, 5.0
"""Longest time for which `stop` waits for the reader, whose source may wait for its next frame, and for each worker."""
OVERLAPPING = 2
"""Workers where one frame at a time is in the detector: another one can be developed and rendered meanwhile."""


@dataclass(frozen=True)
class StreamConfig:
    """Settings of a stream.

    Attributes:
        every: the policy runs on every n-th frame; those between use the pipeline of the last one.
        smoothing: how pipelines are kept steady in time; None leaves each frame's own.
        waiting: most frames that wait for a worker, and most results that wait for the caller.
        drop: "never" lets the source wait, "oldest" drops frames of a live source.
        workers: frames that are processed at once; torch's threads are shared among them. None takes one worker for
            each of torch's threads, which gives most frames a second; 1 gives each frame all threads, and so the
            least delay. A detector that does not say `thread_safe`, and a GPU, process one frame at a time.
        exposure_hints: whether each result has an `ExposureHint` for the sensor.
        on_exposure_hint: called with the number and the hint of a frame as soon as it is rendered, before its boxes
            are there; hints that come later than that of a newer frame are left out. It must return quickly.

    Raises:
        UsageError: a value is out of range.
    """

    every: int = 1
    smoothing: SmoothingConfig | None = field(default_factory=SmoothingConfig)
    waiting: int = 2
    drop: Drop = "never"
    workers: int | None = None
    exposure_hints: bool = False
    on_exposure_hint: Callable[[int, ExposureHint], None] | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or self.waiting < 1 or (self.workers is not None and self.workers < 1):
            raise UsageError("every, waiting and workers must be at least 1")
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
        latency_ms: milliseconds from the frame's arrival to its result, with the time in which it waited.
        exposure_hint: what the sensor should change for the next frame; None unless the stream gives hints.
    """

    number: int
    name: str
    time_s: float | None
    result: Result
    latency_ms: float = 0.0
    exposure_hint: ExposureHint | None = None

    def to_json(self) -> dict[str, Any]:
        """The frame's numbers as plain values: one line of the sink for JSON lines."""
        pipeline, hint = self.result.pipeline, self.exposure_hint
        values = {
            "number": self.number,
            "name": self.name,
            "time_s": self.time_s,
            "boxes": self.result.boxes(),
            "pipeline": None if pipeline is None else pipeline.to_json()["stages"],
            "milliseconds": self.result.timings.to_json(),
            "latency_ms": round(self.latency_ms, 1),
        }
        return values if hint is None else {**values, "exposure_hint": hint.to_json()}


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
        busy: stage → seconds of work, summed over the workers.
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
    """A frame, its number in the source, and the time of its arrival."""

    number: int
    frame: Frame
    arrived: float


class Stream:
    """An iterator of the results of a stream; it ends with the source, or after `stop`.

    Args:
        isp: policy and detector.
        source: SOURCE of the command line, an iterable of frames or raws, or a function that returns one.
        header: size, pixel format and levels of frames without a header.
        config: settings.
        follow: whether to wait for further files of a folder.
        topic: topic of the images in a recording of ROS.

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
        topic: str | None = None,
    ):
        self.isp, self.header = isp, header
        self.config = config if config is not None else StreamConfig()
        self.stats = StreamStats()
        frames = open_source(source, header, follow, topic) if isinstance(source, str) else source
        self._source, self._frames = frames, frames_of(frames)
        self._smoother = None if self.config.smoothing is None else Smoother(self.config.smoothing)
        self._last: Pipeline | None = None
        self._error: BaseException | None = None
        self._started = 0.0
        self._planned = self._hinted = -1
        self._lock = threading.Lock()
        gpu = isp.device.type != "cpu"
        at_once = getattr(isp.detector, "thread_safe", False) and not gpu
        self._alone: AbstractContextManager[Any] = nullcontext() if at_once else threading.Lock()
        self._gpu = self._alone if gpu else nullcontext()
        self._workers, self._worker_threads = _shares(isp, self.config.workers)
        waiting = self.config.waiting
        self._flow: OrderedFlow[_Item, StreamResult] = OrderedFlow(waiting, self._workers + waiting)
        self._ready = threading.Barrier(self._workers + 1)
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            *(threading.Thread(target=self._work, daemon=True) for _ in range(self._workers)),
        ]

    def __iter__(self) -> Iterator[StreamResult]:
        """Starts the threads and yields the results in the order of the frames.

        Raises:
            UsageError: the stream was started before.
        """
        if self._started:
            raise UsageError("a stream gives its results once; make another one")
        self._started = time.perf_counter()
        threads = torch.get_num_threads()
        self.stats.busy.update(develop=0.0, render=0.0, detect=0.0)
        for thread in self._threads:
            thread.start()
        self._ready.wait()
        torch.set_num_threads(threads)  # the workers' own number is also that of threads which start later
        try:
            for result in self._flow.results():
                self.stats.results += 1
                self.stats.seconds = time.perf_counter() - self._started
                yield result
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Ends the stream: no further frame is read, and the threads end when they have done theirs.

        A source with a method `stop` is told so. A source that waits for its next frame keeps its thread until then.
        """
        self._flow.stop()
        if callable(told := getattr(self._source, "stop", None)):
            told()
        for thread, seconds in zip(self._threads, (READER_SECONDS, *[WORKER_SECONDS] * self._workers), strict=True):
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join(timeout=seconds)
        self.stats.dropped = self._flow.dropped

    def _read(self) -> None:
        """Reads the frames of the source into the flow."""
        number = -1
        try:
            for number, frame in enumerate(self._frames):
                self.stats.frames += 1
                self._flow.put(_Item(number, frame, time.perf_counter()), self.config.drop == "oldest")
        except Stopped:
            pass
        except AdaptiveISPError as error:  # a damaged frame, after which the position in the source is unknown
            if number < 0:
                self._error = error
            else:
                self._fail(f"frame {number + 1}", error)
        except BaseException as error:
            self._error = error
        finally:
            self._flow.end()

    def _work(self) -> None:
        """Takes frames from the flow and gives their results, until the last."""
        torch.get_num_threads()  # the first call in a thread sets its number; a later one would undo the next line
        torch.set_num_threads(self._worker_threads)
        self._ready.wait()
        try:
            while (taken := self._flow.take()) is not None:
                ticket, item = taken
                self._flow.finish(ticket, self._process(ticket, item))
        except Stopped:
            pass
        except BaseException as error:
            self._error = self._error or error
            self._flow.stop()

    def _process(self, ticket: int, item: _Item) -> StreamResult | None:
        """The result of a frame; None if it failed.

        Raises:
            DetectorError: the detector's output is not valid.
        """
        watch = Stopwatch(self.isp.device)
        developed = self._developed(item, watch)
        try:
            with self._flow.turn(ticket):
                if isinstance(developed, AdaptiveISPError):
                    raise developed
                with self._gpu, watch.part("render"):
                    prepared, pipeline, policy_ms = self._choose(item, developed)
            with self._gpu, watch.part("render"):
                prepared = self._render(prepared, pipeline, policy_ms)
                hint = self._hint(item.number, prepared)
            with self._alone, watch.part("detect"):
                result = self.isp.detect(prepared)
        except DetectorError:
            raise
        except AdaptiveISPError as error:
            self._fail(item.frame.name, error)
            return None
        finally:
            with self._lock:
                for stage, milliseconds in watch.milliseconds.items():
                    self.stats.busy[stage] += milliseconds / 1e3
        latency = 1e3 * (time.perf_counter() - item.arrived)
        return StreamResult(item.number, item.frame.name, item.frame.time_s, result, latency, hint)

    def _developed(self, item: _Item, watch: Stopwatch) -> Prepared | AdaptiveISPError:
        """The developed frame, or the reason why it cannot be used: its turn must come all the same."""
        raw, header = item.frame.raw, item.frame.header or self.header
        try:
            with watch.part("develop"):
                return self.isp.develop(raw, None if isinstance(raw, RawImage) else header)
        except AdaptiveISPError as error:
            return error

    def _choose(self, item: _Item, developed: Prepared) -> tuple[Prepared, Pipeline | None, float]:
        """The frame, the pipeline to run on it, and the milliseconds of the policy.

        It is called for one frame after the other, since it needs the pipeline of the frame before. A policy whose
        pipelines are not smoothed renders the frame itself; the pipeline is then None.
        """
        policy = self.isp.policy
        if self._last is not None and item.number - self._planned < self.config.every:
            return developed, self._last, 0.0
        self._planned = item.number  # no multiple of `every`: each of those may have been dropped
        if self._smoother is None or policy.needs_raw:
            done = self.isp.render(developed)
            assert done.rendered is not None
            self._last = done.rendered.pipeline
            return done, None, 0.0
        stopwatch = Stopwatch(self.isp.device)
        with stopwatch.part("policy"), torch.inference_mode():
            chosen = policy.plan(developed.developed.small)[0]
        self._last = self._smoother.update(chosen, developed.developed.small)
        self.stats.cuts = self._smoother.cuts
        return developed, self._last, stopwatch.milliseconds["policy"]

    def _render(self, prepared: Prepared, pipeline: Pipeline | None, policy_ms: float) -> Prepared:
        """The frame rendered by the pipeline, unless the policy has rendered it."""
        if pipeline is None:
            return prepared
        done = self.isp.render(prepared, pipeline)
        assert done.rendered is not None
        return replace(done, rendered=replace(done.rendered, milliseconds=done.rendered.milliseconds + policy_ms))

    def _hint(self, number: int, prepared: Prepared) -> ExposureHint | None:
        """The exposure hint of a rendered frame, which the callback gets; None if no hints are wanted."""
        told = self.config.on_exposure_hint
        if not self.config.exposure_hints and told is None:
            return None
        assert prepared.rendered is not None
        with torch.inference_mode():
            hint = exposure_hint(prepared.developed.small, prepared.rendered.image)
        if told is not None:
            with self._lock:
                if number > self._hinted:
                    self._hinted = number
                    told(number, hint)
        return hint

    def _fail(self, name: str, error: AdaptiveISPError) -> None:
        logger.warning("skipped: %s: %s", name, error)
        with self._lock:
            self.stats.failed.append((name, str(error)))


def _shares(isp: AdaptiveISP, wanted: int | None) -> tuple[int, int]:
    """The number of workers, and of torch's threads for each of them."""
    threads = torch.get_num_threads()
    if isp.device.type == "cpu" and getattr(isp.detector, "thread_safe", False):
        workers = wanted or min(threads, MOST_WORKERS)
        return workers, max(1, threads // workers)
    return wanted or OVERLAPPING, threads


__all__ = ["Stream", "StreamConfig", "StreamResult", "StreamStats"]

"""The stream: results in order, equal to single calls, and steady behaviour when something fails or stops."""

import inspect
import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp import AdaptiveISP
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import DetectorError, OutputError, RawFileError, UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Policy
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.sinks import JsonLines
from adaptiveisp.streaming.smoothing import SmoothingConfig
from adaptiveisp.streaming.sources import Frame
from adaptiveisp.streaming.stream import Stream, StreamConfig, _Item
from adaptiveisp.types import Image
from tests.support.fake_detector import RedDetector

HEADER = BayerHeader(bits=10, pattern="RGGB", black=64)
PLAIN = StreamConfig(smoothing=None)


def frames(n: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(64, 1023, (n, 48, 64), dtype=np.uint16))


class CountedExposure(Policy):
    """Exposure by the number of calls so far."""

    name = "counted"

    def __init__(self) -> None:
        self.calls = 0

    def plan(self, image: Image) -> list[Pipeline]:
        self.calls += 1
        return [Pipeline((Stage("exposure", {"ev": float(self.calls % 3)}),)) for _ in image]


@pytest.fixture
def isp() -> AdaptiveISP:
    return AdaptiveISP("auto-exposure", RedDetector(), size=64)


def test_results_are_those_of_single_calls_in_order(isp: AdaptiveISP) -> None:
    given = frames(7)
    stream = Stream(isp, given, HEADER, PLAIN)
    for number, (found, frame) in enumerate(itertools.zip_longest(stream, given)):
        alone = isp(frame, HEADER)
        assert found.number == number and found.name == f"frame-{number:06d}"
        assert torch.equal(found.result.image, alone.image) and found.result.boxes() == alone.boxes()
    assert stream.stats.frames == stream.stats.results == 7 and not stream.stats.failed
    assert set(stream.stats.busy) == {"develop", "render", "detect"} and stream.stats.frames_per_second > 0


class Uneven(RedDetector):
    """Takes longest for the first of every four frames, and counts the calls that run at once."""

    def __init__(self, thread_safe: bool) -> None:
        super().__init__()
        self.thread_safe = thread_safe
        self.calls = self.running = self.most = 0
        self.threads: set[int] = set()

    def detect(self, image: Image, *args: Any, **kwargs: Any) -> Any:
        self.calls, self.running = self.calls + 1, self.running + 1
        self.most = max(self.most, self.running)
        self.threads.add(torch.get_num_threads())
        time.sleep(0.05 if self.calls % 4 == 1 else 0.001)
        self.running -= 1
        return super().detect(image, *args, **kwargs)


@pytest.mark.parametrize(("thread_safe", "at_once"), [(True, 3), (False, 1)])
def test_frames_overlap_and_keep_their_order(thread_safe: bool, at_once: int) -> None:
    detector = Uneven(thread_safe)
    isp = AdaptiveISP("auto-exposure", detector, size=64)
    given = frames(16)
    found = list(Stream(isp, given, HEADER, StreamConfig(smoothing=None, workers=3, waiting=3)))
    assert [item.number for item in found] == list(range(16)) and detector.most == at_once
    for item, frame in zip(found, given, strict=True):
        assert torch.equal(item.result.image, isp(frame, HEADER).image)
        assert item.latency_ms >= item.result.timings.detector


def test_workers_share_the_threads_and_leave_the_callers_alone() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        detector = Uneven(thread_safe=True)
        list(Stream(AdaptiveISP("auto-exposure", detector, size=64), frames(6), HEADER, StreamConfig(workers=2)))
        assert detector.threads == {2} and torch.get_num_threads() == 4
        assert Stream(AdaptiveISP("auto-exposure", detector, size=64), frames(1), HEADER)._workers == 4
        assert Stream(AdaptiveISP("auto-exposure", RedDetector(), size=64), frames(1), HEADER)._workers == 2
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert found == [4]
    finally:
        torch.set_num_threads(before)


def test_isp_stream_is_the_same(isp: AdaptiveISP) -> None:
    assert len(list(isp.stream(frames(3), HEADER))) == 3


def test_the_policy_runs_on_every_nth_frame() -> None:
    policy = CountedExposure()
    isp = AdaptiveISP(policy, RedDetector(), size=64)
    found = [item.result for item in Stream(isp, frames(7), HEADER, StreamConfig(every=3, smoothing=None))]
    evs = [result.pipeline.stages[0].params["ev"] for result in found if result.pipeline is not None]
    assert policy.calls == 3 and evs == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 0.0]


def test_smoothing_makes_parameters_steady() -> None:
    isp = AdaptiveISP(CountedExposure(), RedDetector(), size=64)

    def changes(smoothing: SmoothingConfig | None) -> float:
        results = [item.result for item in Stream(isp, frames(30), HEADER, StreamConfig(smoothing=smoothing))]
        evs = [result.pipeline.stages[0].params["ev"] for result in results if result.pipeline is not None]
        return float(np.abs(np.diff(evs)).mean())

    assert changes(SmoothingConfig(frames=8.0)) < changes(None) / 5


def test_a_frame_that_fails_is_left_out(isp: AdaptiveISP) -> None:
    given = frames(4)
    given[1] = np.zeros((48, 64), np.uint16)  # the lens cap
    stream = Stream(isp, given, HEADER, PLAIN)
    assert [item.number for item in stream] == [0, 2, 3]
    ((name, reason),) = stream.stats.failed
    assert name == "frame-000001" and "at or below the black level" in reason
    assert stream.stats.to_json()["failed"][0]["name"] == name


def test_errors_of_source_and_detector_end_the_stream(isp: AdaptiveISP) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield frames(1)[0]
        raise OSError("the camera was unplugged")

    stream = Stream(isp, broken, HEADER, PLAIN)
    with pytest.raises(OSError, match="unplugged"):
        list(stream)
    assert stream.stats.results == 1

    class Wrong(RedDetector):
        def detect(self, image: Image, *args: object, **kwargs: object) -> list:
            raise DetectorError("it gave nonsense")

    with pytest.raises(DetectorError, match="nonsense"):
        list(Stream(AdaptiveISP("auto-exposure", Wrong(), size=64), frames(3), HEADER, PLAIN))


def test_a_damaged_end_is_reported_after_the_frames_before(isp: AdaptiveISP) -> None:
    def cut_short() -> Iterator[np.ndarray]:
        yield from frames(2)
        raise RawFileError("pipe: ends after 5 of 864 bytes of frame 2")

    stream = Stream(isp, cut_short, HEADER, PLAIN)
    assert len(list(stream)) == 2 and stream.stats.failed[0][0] == "frame 2"


def test_stopping_ends_all_threads(isp: AdaptiveISP) -> None:
    before = threading.active_count()
    stream = Stream(isp, itertools.cycle(frames(2)), HEADER, PLAIN)
    for item in stream:
        if item.number == 5:
            break
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_a_source_that_waits_does_not_hold_a_stop_up(isp: AdaptiveISP) -> None:
    class Waiting:
        told = False

        def __iter__(self) -> Iterator[np.ndarray]:
            yield frames(1)[0]
            time.sleep(3)

        def stop(self) -> None:
            self.told = True

    source = Waiting()
    stream = Stream(isp, source, HEADER, PLAIN)
    for _ in stream:
        break
    start = time.monotonic()
    stream.stop()
    assert source.told and time.monotonic() - start < 2


def test_the_memory_of_a_slow_caller_is_bounded(isp: AdaptiveISP) -> None:
    """The source waits: no more frames are read than fit the queues and the stages."""
    read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal read
        for frame in itertools.cycle(frames(2)):
            read += 1
            yield frame

    found = iter(Stream(isp, counted, HEADER, StreamConfig(smoothing=None, waiting=2)))
    next(found)
    time.sleep(1.0)
    assert read <= 12
    found.close()  # type: ignore[attr-defined]


def test_a_live_source_drops_frames_instead(isp: AdaptiveISP) -> None:
    stream = Stream(isp, frames(40), HEADER, StreamConfig(smoothing=None, waiting=1, drop="oldest"))
    numbers = []
    for item in stream:
        numbers.append(item.number)
        time.sleep(0.02)
    assert stream.stats.dropped > 0 and numbers == sorted(numbers) and numbers[-1] == 39
    assert len(numbers) + stream.stats.dropped == 40


@pytest.mark.parametrize("facts", [{"every": 0}, {"waiting": 0}, {"drop": "newest"}, {"workers": 0}])
def test_wrong_settings_are_refused(facts: dict[str, object]) -> None:
    made = inspect.unwrap(StreamConfig.__init__)  # without the tests' type checker
    with pytest.raises(UsageError):
        made(object.__new__(StreamConfig), **facts)


COMMON = ["--policy", "auto-exposure", "--detector", "tests.support.fake_detector:load", "--size", "64"]
FACTS = ["--raw-size", "64x48", "--raw-bits", "10", "--raw-pattern", "RGGB", "--raw-black", "64"]


def test_the_command_writes_a_line_a_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "x.raw", tmp_path / "out.jsonl"
    path.write_bytes(np.stack(frames(4)).tobytes())
    assert main(["stream", str(path), *COMMON, *FACTS, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 3] and lines[0]["pipeline"][0]["module"] == "white_balance"
    assert set(lines[0]["milliseconds"]) == {"read", "develop", "policy", "modules", "detector", "total"}
    assert "4 of 4 frames, 0 dropped, 0 failed" in capsys.readouterr().err
    assert main(["stream", str(path), *COMMON, *FACTS, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["stream", str(path), *COMMON, *FACTS, "--limit", "2", "-q"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_command_reports_frames_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = np.stack(frames(3))
    given[1] = 0
    (tmp_path / "x.raw").write_bytes(given.tobytes())
    assert main(["stream", str(tmp_path / "x.raw"), *COMMON, *FACTS, "--out", str(tmp_path / "o.jsonl")]) == 3
    assert "skipped: x-000001: " in capsys.readouterr().err.replace("adaptiveisp: warning: ", "")
    assert main(["stream", str(tmp_path / "none.raw"), *COMMON, *FACTS]) == 2


def test_lines_are_complete_and_readable_at_once(tmp_path: Path, isp: AdaptiveISP) -> None:
    with JsonLines(tmp_path / "x.jsonl") as sink:
        for item in Stream(isp, frames(2), HEADER, PLAIN):
            sink.write(item)
            assert json.loads((tmp_path / "x.jsonl").read_text().splitlines()[-1])["number"] == item.number


def test_earlier_results_stay_until_there_are_new_ones(tmp_path: Path, isp: AdaptiveISP) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("earlier results, which are long enough to be seen behind a shorter line" * 50)
    with JsonLines(path, overwrite=True):
        pass
    assert path.read_text().startswith("earlier")
    with JsonLines(path, overwrite=True) as sink:
        for item in Stream(isp, frames(2), HEADER, PLAIN):
            sink.write(item)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_source_without_a_frame_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "x.raw", tmp_path / "o.jsonl"
    path.write_bytes(b"")
    for _ in range(2):  # the second try does not find a file of the first
        assert main(["stream", str(path), *COMMON, *FACTS, "--out", str(out)]) == 1
        assert "holds no frame" in capsys.readouterr().err and not out.exists()
    path.write_bytes(np.stack(frames(1)).tobytes())
    assert main(["stream", str(path), *COMMON, *FACTS, "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 1


def test_wrong_gains_are_refused_before_the_first_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, gains = tmp_path / "x.raw", tmp_path / "gains.npy"
    path.write_bytes(np.stack(frames(2)).tobytes())
    np.save(gains, np.zeros((2, 2)))
    flags = [*COMMON, *FACTS, "--out", str(tmp_path / "o.jsonl"), "-q"]
    assert main(["stream", str(path), *flags, "--raw-shading", str(gains)]) == 1
    assert main(["stream", str(path), *flags, "--raw-shading", str(tmp_path / "none.npy")]) == 1
    error = capsys.readouterr().err
    assert "gains.npy: holds gains that are not finite, not above 0" in error and "none.npy: no such file" in error
    assert "skipped" not in error and not (tmp_path / "o.jsonl").exists()


def test_a_stream_without_frames_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, isp: AdaptiveISP
) -> None:
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["stream", "-", *COMMON, *FACTS, "-q"]) == 1
    assert "-: gave no frame that could be used" in capsys.readouterr().err
    stream = Stream(isp, frames(1), HEADER, PLAIN)
    assert len(list(stream)) == 1
    with pytest.raises(UsageError, match="once"):
        list(stream)


def test_outputs_never_replace_the_source_or_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "x.raw", tmp_path / "o.jsonl"
    content = np.stack(frames(2)).tobytes()
    path.write_bytes(content)
    (tmp_path / "link.jsonl").symlink_to(path)
    command = ["stream", str(path), *COMMON, *FACTS, "--overwrite", "-q", "--out"]
    for name in ("x.raw", "link.jsonl"):
        assert main([*command, str(tmp_path / name)]) == 2
        assert "is the source, which would be lost" in capsys.readouterr().err
    for option in ("--summary", "--video"):
        assert main([*command, str(out), option, str(out)]) == 2
        assert "would be written twice" in capsys.readouterr().err
    (tmp_path / "old.mp4").write_text("old")
    assert main([*command[:-2], "--out", str(out), "--overwrite", "--video", str(path)]) == 2
    assert main(["stream", str(path), *COMMON, *FACTS, "--out", str(out), "--video", str(tmp_path / "old.mp4")]) == 2
    assert not out.exists() and path.read_bytes() == content
    assert main([*command, "/dev/null"]) == 0


def test_a_full_disk_is_named_with_the_file(isp: AdaptiveISP) -> None:
    sink = JsonLines("/dev/full", overwrite=True)
    with pytest.raises(OutputError, match=r"/dev/full: cannot be written \(No space left on device\)"), sink:
        sink.write(next(iter(Stream(isp, frames(1), HEADER, PLAIN))))


def test_dropped_frames_do_not_keep_the_policy_from_running() -> None:
    policy = CountedExposure()
    stream = Stream(AdaptiveISP(policy, RedDetector(), size=64), frames(1), HEADER, StreamConfig(2, None))
    developed = stream.isp.develop(frames(1)[0], HEADER)
    for number in (1, 3, 5, 7):  # every second frame was dropped: no number is a multiple of two
        stream._choose(_Item(number, Frame(None, ""), 0.0), developed)
    assert policy.calls == 4


def test_videos_that_cannot_be_written_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("av", reason="PyAV is not installed; pip install 'adaptiveisp[stream]'")
    path = tmp_path / "x.raw"
    path.write_bytes(np.stack(frames(2)).tobytes())
    stream = ["stream", str(path), *COMMON, *FACTS, "--out", str(tmp_path / "o.jsonl"), "--overwrite", "-q"]
    assert main([*stream, "--video", str(tmp_path / "x.mp4"), "--rate", "0"]) == 2
    assert "0 frames a second are impossible" in capsys.readouterr().err
    assert main([*stream, "--video", str(tmp_path / "none/x.mp4")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([*stream, "--video", str(tmp_path / "x.mp4")]) == 0 and (tmp_path / "x.mp4").stat().st_size > 0

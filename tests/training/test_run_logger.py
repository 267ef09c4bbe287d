"""The logs of a run: strict lines that survive kills and full disks, and a TensorBoard that may fail but not harm."""

import errno
import importlib.util
import io
import json
import math
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.errors import OutputError
from adaptiveisp.inference.drawing import FRAME, PALETTE
from adaptiveisp.training import curves
from adaptiveisp.training import run_logger as runlog
from adaptiveisp.training.curves import modules_chart
from adaptiveisp.training.run_logger import DEV, LOGS, METRICS, TIMING, RunLogger, cut, remove

needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def metrics_line(iteration: int, exposure: int = 6, gamma: int = 2) -> dict[str, Any]:
    return {
        "iteration": iteration,
        "passes": 8 * iteration,
        "reward": {"detection": iteration / 4, "reuse": -1.0},
        "entropy": 2.25,
        "modules": {"exposure": exposure, "gamma": gamma, "tone": 0},
    }


def write(log: RunLogger, first: int, last: int) -> None:
    for iteration in range(first, last + 1):
        log.metrics(metrics_line(iteration))
        log.timing({"iteration": iteration, "detector forward": 0.5})


def lines(folder: Path, name: str) -> list[Any]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def events(folder: Path) -> Any:
    """What TensorBoard reads from a run folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return read.Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value, abs=1e-6)) for event in events(folder).Scalars(tag)]


def fail_writing(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """The disk is full for files of this name, after so many characters of a line."""

    class Full:
        def __init__(self, path: Path):
            self.path = path

        def __enter__(self) -> "Full":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def write(self, text: str) -> None:
            with open(self.path, "a") as file:
                file.write(text[:after])
            raise OSError(errno.ENOSPC, "No space left on device")

    def limited(path: Path, mode: str, **options: Any) -> Any:
        full = Path(path).name == name and mode == "a"
        return Full(path) if full else open(path, mode, **options)

    monkeypatch.setattr(runlog, "open", limited, raising=False)


def test_every_line_is_in_its_file_at_once(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as log:
        write(log, 1, 2)
        log.dev({"iteration": 2, "ap50": 0.25, "ap": None})
        assert lines(tmp_path, METRICS) == [metrics_line(1), metrics_line(2)]
        assert lines(tmp_path, TIMING)[1] == {"iteration": 2, "detector forward": 0.5}
        assert lines(tmp_path, DEV) == [{"iteration": 2, "ap50": 0.25, "ap": None}]
        assert log.line_counts() == {METRICS: 2, TIMING: 2, DEV: 1}


def test_what_json_lacks_becomes_null(tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    with RunLogger(tmp_path) as log:
        log.metrics({"iteration": 1, "value": math.nan, "gradient_norm": {"actor": math.inf, "critic": 2.5}})
        log.dev({"iteration": 1, "by_class": [-math.inf, 0.5]})
    line = json.loads((tmp_path / METRICS).read_text(), parse_constant=refuse)
    assert line == {"iteration": 1, "value": None, "gradient_norm": {"actor": None, "critic": 2.5}}
    assert json.loads((tmp_path / DEV).read_text(), parse_constant=refuse)["by_class"] == [None, 0.5]


def test_a_cut_run_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, cut_run = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut_run.mkdir()
    with RunLogger(whole) as log:
        write(log, 1, 7)
    with RunLogger(cut_run) as log:
        write(log, 1, 4)
        checkpoint = log.line_counts()
        write(log, 5, 6)
        log.dev({"iteration": 6, "ap50": 0.5})
    with open(cut_run / METRICS, "a") as file:
        file.write('{"iteration": 7, "pas')
    cut(cut_run, checkpoint)
    assert (cut_run / DEV).read_bytes() == b""
    with RunLogger(cut_run, iteration=4) as log:
        assert log.line_counts() == checkpoint == {METRICS: 4, TIMING: 4, DEV: 0}
        write(log, 5, 7)
    for name in (METRICS, TIMING):
        assert (cut_run / name).read_bytes() == (whole / name).read_bytes()


def test_cut_touches_nothing_else(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(b"{}\n{}\n")
    (tmp_path / "photos.txt").write_bytes(b"a\nb\n")
    cut(tmp_path, {METRICS: 5, "photos.txt": 0, DEV: 3})
    assert (tmp_path / METRICS).read_bytes() == b"{}\n{}\n"
    assert (tmp_path / "photos.txt").read_bytes() == b"a\nb\n" and not (tmp_path / DEV).exists()


def test_a_line_that_a_kill_left_unfinished_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_bytes(json.dumps(metrics_line(1)).encode() + b'\n{"iterat')
    with RunLogger(tmp_path) as log:
        assert log.line_counts()[METRICS] == 1
        log.metrics(metrics_line(2))
    assert lines(tmp_path, METRICS) == [metrics_line(1), metrics_line(2)]


def test_remove_takes_the_logs_and_nothing_else(tmp_path: Path) -> None:
    for name in (*LOGS, "config.yaml", "tensorboard/events.out.tfevents.1.host", "tensorboard/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    remove(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["config.yaml", "tensorboard/notes.txt"]
    remove(tmp_path)


@pytest.mark.parametrize("name", LOGS)
def test_a_full_disk_is_one_line_with_its_remedy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def log_one(log: RunLogger, iteration: int) -> None:
        write(log, iteration, iteration)
        log.dev({"iteration": iteration, "ap50": 0.5})

    with RunLogger(tmp_path) as log:
        log_one(log, 1)
        before = (tmp_path / name).read_bytes()
        fail_writing(monkeypatch, name, after=9)
        with pytest.raises(OutputError) as error:
            log_one(log, 2)
        assert log.line_counts()[name] == 1
    assert (tmp_path / name).read_bytes() == before, "no half line stays"
    message = str(error.value)
    assert str(tmp_path / name) in message and "No space left" in message and "\n" not in message
    assert message.endswith(f"free space, then continue with `adaptiveisp train --resume {tmp_path}`")


def test_a_folder_that_vanished_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    log = RunLogger(folder)
    write(log, 1, 1)
    while folder.exists():  # TensorBoard's thread may make its file in between
        shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(OutputError, match=r"metrics\.jsonl: cannot be written.*--resume") as error:
        log.metrics(metrics_line(2))
    assert "free space" not in str(error.value)
    log.close()
    assert not folder.exists()


def test_logs_that_cannot_be_opened_are_named_before_the_run(tmp_path: Path) -> None:
    (tmp_path / TIMING).mkdir()
    for touch in (RunLogger, remove, lambda folder: cut(folder, {TIMING: 1})):
        with pytest.raises(OutputError, match=r"timing\.jsonl: cannot be written"):
            touch(tmp_path)


def test_without_tensorboard_the_logs_are_written_and_a_hint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with RunLogger(tmp_path) as log:
        write(log, 1, 1)
        log.dev({"iteration": 1, "ap50": 0.5})
        log.picture("photo", np.zeros((4, 4, 3), np.uint8), 1)
        assert log.tensorboard is None
    assert log.why_no_tensorboard == "tensorboard is not installed; run: pip install 'adaptiveisp[train]'"
    assert len(lines(tmp_path, METRICS)) == len(lines(tmp_path, DEV)) == 1
    assert not (tmp_path / "tensorboard").exists()


@needs_tensorboard
def test_tensorboard_has_a_curve_for_each_number(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as log:
        assert log.tensorboard == tmp_path / "tensorboard" and log.why_no_tensorboard == ""
        write(log, 1, 3)
        log.metrics({**metrics_line(4, exposure=0, gamma=8), "note": "text", "value": None})
        log.dev({"iteration": 4, "ap50": 0.25, "ap": None})
    tags = {"passes", "reward/detection", "reward/reuse", "entropy", "seconds/detector forward", "dev/ap50"}
    assert set(events(tmp_path).Tags()["scalars"]) == tags | {"modules/exposure", "modules/gamma", "modules/tone"}
    assert points(tmp_path, "reward/detection") == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 1.0)]
    assert points(tmp_path, "seconds/detector forward") == [(1, 0.5), (2, 0.5), (3, 0.5)]
    assert points(tmp_path, "dev/ap50") == [(4, 0.25)]
    assert points(tmp_path, "modules/gamma") == [(1, 0.25), (2, 0.25), (3, 0.25), (4, 14 / 32)]
    assert points(tmp_path, "modules/tone")[-1] == (4, 0.0)


@needs_tensorboard
def test_module_shares_are_of_the_last_hundred_iterations(tmp_path: Path) -> None:
    with RunLogger(tmp_path) as log:
        log.metrics(metrics_line(1, exposure=8, gamma=0))
        for iteration in range(2, 102):
            log.metrics(metrics_line(iteration, exposure=0, gamma=8))
    shares = points(tmp_path, "modules/exposure")
    assert shares[99] == (100, 0.01) and shares[100] == (101, 0.0)


@needs_tensorboard
def test_curves_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, cut_run = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir(), cut_run.mkdir()

    def fill(log: RunLogger, first: int, last: int) -> None:
        for iteration in range(first, last + 1):
            log.metrics(metrics_line(iteration, exposure=iteration % 4))
            if iteration % 2 == 0:
                log.dev({"iteration": iteration, "ap50": iteration / 8})

    with RunLogger(whole) as log:
        fill(log, 1, 8)
    with RunLogger(cut_run) as log:
        fill(log, 1, 4)
        checkpoint = log.line_counts()
        for iteration in (5, 6):  # lost: these points must not be seen again
            log.metrics({**metrics_line(iteration, exposure=99), "lost": 1.0})
        log.dev({"iteration": 6, "ap50": 0.99})
    cut(cut_run, checkpoint)
    # Names of event files have the second and a counter, of which TensorBoard sorts 10 before 9.
    time.sleep(1.05)
    with RunLogger(cut_run, iteration=4) as log:
        fill(log, 5, 8)
    for tag in ("reward/detection", "modules/exposure", "dev/ap50"):
        assert points(cut_run, tag) == points(whole, tag), tag
    assert [step for step, _ in points(cut_run, "dev/ap50")] == [2, 4, 6, 8]
    assert [image.step for image in events(cut_run).Images("modules")] == [2, 4, 6, 8]


@needs_tensorboard
def test_pictures_arrive_as_they_are(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with RunLogger(tmp_path) as log:
        log.picture("photo", rgb, 3)
        log.metrics(metrics_line(3))
        log.dev({"iteration": 3, "ap50": 0.5})
    (photo,), (chart,) = (events(tmp_path).Images(tag) for tag in ("photo", "modules"))
    assert photo.step == chart.step == 3
    assert (decoded(photo.encoded_image_string) == rgb).all()
    shares = {"exposure": 0.75, "gamma": 0.25, "tone": 0.0}
    assert (decoded(chart.encoded_image_string) == modules_chart(shares)).all()


def decoded(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_bars_are_as_long_as_shares() -> None:
    chart = modules_chart({"white_balance": 1.0, "exposure": 0.25, "gamma": 0.0})
    filled = (chart == np.array(PALETTE[-1])).all(axis=2).sum(axis=1)
    ground = (chart == np.array(FRAME)).all(axis=2).sum(axis=1)
    rows = [(bar, rest) for bar, rest in zip(filled.tolist(), ground.tolist(), strict=True) if bar + rest > 100]
    full = max(bar for bar, _ in rows)
    kinds = list(dict.fromkeys(rows))
    assert len(kinds) == 3 and kinds[0] == (full, 0) and kinds[2] == (0, full)
    assert kinds[1][0] / full == pytest.approx(0.25, abs=0.01) and sum(kinds[1]) == full


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What threads that fail would print."""
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(str(failure.exc_value)))
    return seen


@needs_tensorboard
def test_tensorboard_failing_in_its_thread_ends_tensorboard_alone(tmp_path: Path, printed: list[str]) -> None:
    hook = threading.excepthook
    with RunLogger(tmp_path) as log:
        write(log, 1, 2)
        shutil.rmtree(tmp_path / "tensorboard")
        write(log, 3, 60)
        log.dev({"iteration": 60, "ap50": 0.5})
        log.picture("photo", np.zeros((4, 4, 3), np.uint8), 60)
        assert log.tensorboard is None
    assert "No such file or directory" in log.why_no_tensorboard and "\n" not in log.why_no_tensorboard
    assert [line["iteration"] for line in lines(tmp_path, METRICS)] == list(range(1, 61))
    assert len(lines(tmp_path, TIMING)) == 60 and len(lines(tmp_path, DEV)) == 1
    assert not printed and threading.excepthook is hook


@needs_tensorboard
def test_what_tensorboard_had_still_to_write_may_fail_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: list[str]
) -> None:
    """The thread is slow and fails when nothing else is logged: the run hears of it as it ends."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def slow(self: object, data: bytes) -> None:
        time.sleep(0.1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunLogger(tmp_path) as log:
        write(log, 1, 1)
        log._board._writer.flush()  # type: ignore[union-attr]
        monkeypatch.setattr(RecordWriter, "write", slow)
        log.picture("photo", np.zeros((4, 4, 3), np.uint8), 1)
        assert log.tensorboard is not None, "not yet known"
    assert log.tensorboard is None and "No space left" in log.why_no_tensorboard and not printed


@needs_tensorboard
@pytest.mark.parametrize("good", [0, 3])
def test_a_failing_thread_that_ends_late_prints_nothing(
    good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: list[str]
) -> None:
    """Its error is known before the thread prints it; `good` records go well: none, or what opening writes."""
    from tensorboard.summary.writer import event_file_writer, record_writer

    run, put = event_file_writer._AsyncWriterThread.run, record_writer.RecordWriter.write
    records: list[bytes] = []
    threads: list[threading.Thread] = []

    def write_some(self: Any, data: bytes) -> None:
        records.append(data)
        if len(records) > good:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, data)

    def linger(self: Any) -> None:
        threads.append(self)
        try:
            run(self)
        finally:
            time.sleep(0.1)

    monkeypatch.setattr(record_writer.RecordWriter, "write", write_some)
    monkeypatch.setattr(event_file_writer._AsyncWriterThread, "run", linger)
    with RunLogger(tmp_path) as log:
        assert (log.tensorboard is None) == (good == 0)
        write(log, 1, 20)
        assert log.tensorboard is None and "No space left" in log.why_no_tensorboard
    (thread,) = threads
    thread.join()
    assert not printed and len(lines(tmp_path, METRICS)) == 20


@needs_tensorboard
def test_tensorboard_shows_no_more_than_the_logs_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLogger(tmp_path) as log:
        log.metrics({"iteration": 1, "other": 1.0})
        for name in LOGS:
            fail_writing(monkeypatch, name, after=0)
            with pytest.raises(OutputError):
                {METRICS: log.metrics, TIMING: log.timing, DEV: log.dev}[name]({"iteration": 2, "x": 1.0})
    assert events(tmp_path).Tags()["scalars"] == ["other"]


@needs_tensorboard
def test_a_tensorboard_that_cannot_start_or_draw_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: list[str]
) -> None:
    hook = threading.excepthook
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with RunLogger(tmp_path) as log:
        write(log, 1, 1)
        assert log.tensorboard is None and "File exists" in log.why_no_tensorboard
    (tmp_path / "tensorboard").unlink()

    def broken(*_: object) -> None:
        raise RuntimeError("no font\nand more")

    monkeypatch.setattr(curves, "modules_chart", broken)
    with RunLogger(tmp_path) as log:
        write(log, 2, 2)
        log.dev({"iteration": 2, "ap50": 0.5})
        write(log, 3, 3)
    assert log.why_no_tensorboard == "TensorBoard ended: RuntimeError: no font"
    assert len(lines(tmp_path, METRICS)) == 3 and len(lines(tmp_path, DEV)) == 1
    assert not printed and threading.excepthook is hook


@needs_tensorboard
def test_errors_of_other_threads_are_still_printed(tmp_path: Path, printed: list[str]) -> None:
    def fail() -> None:
        raise ValueError("mine")

    with RunLogger(tmp_path):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert printed == ["mine"]


@needs_tensorboard
@pytest.mark.parametrize("damage", [b'{"modules": 3}\n', b"not json\n", b"7\n"])
def test_an_edited_log_costs_the_view_at_most(damage: bytes, tmp_path: Path, printed: list[str]) -> None:
    (tmp_path / METRICS).write_bytes(damage)
    with RunLogger(tmp_path, iteration=1) as log:
        log.metrics(metrics_line(2))
        assert log.line_counts()[METRICS] == 2 and log.tensorboard is None and log.why_no_tensorboard
    assert (tmp_path / METRICS).read_bytes() == damage + json.dumps(metrics_line(2)).encode() + b"\n"


@needs_tensorboard
def test_nothing_is_left_open(tmp_path: Path) -> None:
    threads = threading.active_count
    before = threads()
    with RunLogger(tmp_path) as log:
        assert threads() == before + 1
    assert threads() == before
    log.close()

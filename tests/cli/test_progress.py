"""Progress without a terminal: lines by time, in words, and in a log file."""

from pathlib import Path

import pytest

from adaptiveisp.cli.progress import Progress


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_by_time_and_not_by_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock, log = Clock(), tmp_path / "eval.log"
    with Progress(60, "eval", log=log, clock=clock) as bar:
        for _ in range(19):
            bar.update()
        assert capsys.readouterr().err == "" and not log.exists()
        clock.now = 10.0
        bar.update()
        bar.update()
        line = "eval: 20 of 60 images, 2 a second, about 20 s left"
        assert capsys.readouterr().err == f"{line}\n"
        clock.now = 20.5
        bar.set_postfix(loss="0.123")
        bar.update(19)
    second = "eval: 40 of 60 images, 1.95 a second, about 10 s left, loss 0.123"
    assert capsys.readouterr().err == f"{second}\n"
    assert [text.split(" ", 2)[2] for text in log.read_text().splitlines()] == [line, second]


def test_of_an_unknown_total_only_the_count_is_said() -> None:
    clock = Clock()
    bar = Progress(0, "train", unit="pass", clock=clock)
    clock.now = 5.0
    bar.update(10)
    assert bar.line() == "train: 10 passes, 2 a second" and bar.n == 10


def test_quiet_shows_nothing_and_still_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bar = Progress(2, "eval", log=tmp_path / "log", quiet=True, clock=clock)
    clock.now = 11.0
    bar.update()
    assert capsys.readouterr().err == "" and "1 of 2 images" in (tmp_path / "log").read_text()


def test_a_log_never_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / "log").hardlink_to(tmp_path / "precious")
    clock = Clock()
    bar = Progress(2, "eval", log=tmp_path / "log", quiet=True, clock=clock)
    clock.now = 11.0
    bar.update()
    assert (tmp_path / "precious").read_text() == "keep me"

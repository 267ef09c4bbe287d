"""A finished run goes on with a larger budget; a smaller one is refused."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptiveisp.training.prolonging import warn_of_warmup
from tests.support.photos import labelled_photos
from tests.support.training_runs import QUICK, RED, adaptiveisp, metrics, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

DEV = ("--dev", "labels.json", "--dev-every", 1)


def run(out: str, budget: int, *more: object) -> int:
    return adaptiveisp(*train_arguments(out, budget, ()), *QUICK, *more)


def resume(*more: object) -> int:
    return adaptiveisp("train", "--resume", "run", "--detector", RED, "--threads", 1, *more)


def config(out: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(out, "config.yaml").read_text())
    return content


@pytest.mark.long
@pytest.mark.parametrize(
    "how",
    [
        (*QUICK, "--set", "rate_decay=0"),
        ("--method", "cma_es", "--set", "modules=[exposure, gamma]", "--set", "initial={}", "--set", "batch=1"),
    ],
    ids=["fixed", "cma_es"],
)
def test_without_a_schedule_a_prolonged_run_equals_a_longer_one(how: tuple[str, ...], tmp_path: Path) -> None:
    """Bit by bit: the budget decides only where the run ends."""
    labelled_photos(tmp_path)
    for name, budget in (("whole", 32), ("run", 16)):
        assert adaptiveisp(*train_arguments(name, budget, ()), *how, *DEV) == 0
    assert 1 <= len(metrics(Path("run"))) < len(metrics(Path("whole")))
    assert resume("--budget", 32, "-q") == 0
    for log in ("metrics.jsonl", "dev.jsonl"):
        assert Path("run", log).read_bytes() == Path("whole", log).read_bytes()
    latest = [json.loads(Path(out, "latest.json").read_text())["stages"] for out in ("run", "whole")]
    assert latest[0] == latest[1]


@pytest.mark.long
def test_the_learning_rate_steps_back_to_its_value_at_that_share_of_the_budget(tmp_path: Path) -> None:
    """Of the steps of Adam on the same image only the first is known: as long as its rate."""
    labelled_photos(tmp_path, n=1)
    assert run("short", 16, "--set", "rate_decay=2", "--set", "rate=0.01") == 0

    def move(name: str, first: int) -> float:
        """How far exposure moves in the iteration after `first`."""
        values = [line["parameters"]["exposure"]["ev"] for line in metrics(Path(name))]  # type: ignore[index]
        return abs(values[first] - values[first - 1])

    shutil.copytree("short", "run")
    assert resume("--budget", 64, "-q") == 0
    # In the iteration from pass 8 to 16 the rate was 0.01·10^(-2·8/16); from 16 to 24 it is 0.01·10^(-2·16/64).
    assert move("short", 1) < move("run", 2)
    assert move("run", 2) / move("short", 1) == pytest.approx(10**0.5, rel=0.35)
    assert metrics(Path("run"))[:2] == metrics(Path("short"))


def test_both_budgets_are_kept_and_nothing_else_changes(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert run("run", 16) == 0
    before = config("run")
    assert resume("--budget", 24, "-q") == 0
    assert resume("--budget", 40, "-q") == 0
    after = config("run")
    assert after["train"] == {**before["train"], "budget": 40} and after["settings"] == before["settings"]
    earlier = [{"budget": 16, "iterations": 2, "passes": 16}, {"budget": 24, "iterations": 3, "passes": 24}]
    assert after["provenance"] == {**before["provenance"], "earlier_budgets": earlier}
    summary = json.loads(Path("run", "summary.json").read_text())
    assert summary["passes"] == 40 and summary["provenance"]["earlier_budgets"] == earlier
    assert resume("--budget", 40, "-q") == 0 and config("run") == after  # nothing is left to do
    assert len(metrics(Path("run"))) == 5


def test_a_smaller_budget_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    assert run("run", 16) == 0
    files = {path.name: path.read_bytes() for path in Path("run").iterdir() if path.is_file()}
    capsys.readouterr()
    assert resume("--budget", 8) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--budget 8: the run run has a budget of 16 already" in error
    assert {path.name: path.read_bytes() for path in Path("run").iterdir() if path.is_file()} == files


def test_a_prolonged_run_that_stops_has_no_summary_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its larger budget is in config.yaml, and the summary of the shorter run is no longer true."""
    labelled_photos(tmp_path)
    assert run("run", 16) == 0
    with monkeypatch.context() as stopped:
        stopped.setattr("adaptiveisp.training.methods.fixed.Fixed.iterate", interrupted)
        assert resume("--budget", 32, "-q") != 0
    assert not Path("run", "summary.json").exists() and config("run")["train"]["budget"] == 32
    assert resume("-q") == 0
    assert json.loads(Path("run", "summary.json").read_text())["passes"] == 32


def interrupted(self: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.long
@pytest.mark.parametrize(
    ("share", "passes", "budget", "told"),
    [(0.5, 100, 300, "150"), (0.5, 100, 200, ""), (0.0, 100, 1000, ""), (0.5, 40, 300, "")],
)
def test_an_imitation_warmup_that_begins_again_is_told(
    share: float, passes: int, budget: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Settings:
        imitation_warmup = share

    with caplog.at_level(logging.WARNING):
        warn_of_warmup(Settings(), Path("run"), passes, 100, budget)
    assert bool(caplog.messages) == bool(told) and all(f"imitates up to pass {told};" in m for m in caplog.messages)

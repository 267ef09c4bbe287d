"""Sweeps: the plan of a file, what is refused, runs that are stopped and resumed, and the table at the end."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptiveisp.cli.parser import main
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.evaluation.policy_scores import PolicyScore
from adaptiveisp.evaluation.report import Report
from adaptiveisp.evaluation.seed_groups import Difference, group_score
from adaptiveisp.scale.sweep import Runner, data_warning, run_all
from adaptiveisp.scale.sweep_plan import read_sweep, trials_of
from adaptiveisp.scale.sweep_table import check_comparable, trial_entries, trial_rows
from adaptiveisp.training.config import data_digest, write_config
from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED

TRAIN = {"data": "labels.json", "images": "images", "dev": "labels.json", "light": "mixed", "method": "fixed"}
SETTINGS = {"modules": ["exposure", "gamma"], "initial": {}, "size": 64}


def written(folder: Path, **changes: Any) -> Path:
    content = {"base": {"train": {**TRAIN, "budget": 16, "dev_size": 64}, "settings": SETTINGS}, **changes}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}, sort_keys=False))
    return path


def planned(folder: Path, **changes: Any) -> Any:
    return trials_of(read_sweep(written(folder, **changes)), "sweep.yaml")


def test_every_combination_runs_with_every_seed(tmp_path: Path) -> None:
    grid = {"rate": [0.1, 0.2], "batch": [4, 8]}
    ranges = {"rate_decay": {"low": 0.5, "high": 2}, "highlight_weight": {"low": 1e-3, "high": 1, "scale": "log"}}
    trials = planned(tmp_path, grid=grid, random=ranges, samples=3, seeds=[0, 5])
    assert len(trials) == 2 * 2 * 3 and len({trial.name for trial in trials}) == 12
    assert {(t.values["rate"], t.values["batch"]) for t in trials} == {(0.1, 4), (0.1, 8), (0.2, 4), (0.2, 8)}
    drawn = [{name: trial.values[name] for name in ranges} for trial in trials]
    assert drawn[:3] == drawn[3:6] and all(0.5 <= one["rate_decay"] <= 2 for one in drawn)
    assert all(1e-3 <= one["highlight_weight"] <= 1 for one in drawn)
    for trial in trials:
        contents = [yaml.safe_load(run.config) for run in trial.runs]
        assert [content["train"]["seed"] for content in contents] == [0, 5]
        assert all(trial.values.items() <= content["settings"].items() for content in contents)
        assert all(content["train"]["budget"] == 16 for content in contents)
        assert trial.name.startswith(f"{1 + trials.index(trial):02d}_rate-") and "/" not in trial.name
    again = planned(tmp_path, grid=grid, random=ranges, samples=3, seeds=[0, 5])
    assert [trial.values for trial in again] == [trial.values for trial in trials]
    other = planned(tmp_path, grid=grid, random=ranges, samples=3, seeds=[0, 5], seed=1)
    assert [trial.values for trial in other] != [trial.values for trial in trials]


def test_a_recipe_is_a_base_and_options_can_be_varied(tmp_path: Path) -> None:
    base = {"config": "sequence-tone", "train": {**TRAIN, "method": "sequence"}, "settings": {"size": 64}}
    (trial,) = planned(tmp_path, base={**base, "train": {k: v for k, v in base["train"].items() if k != "method"}})
    content = yaml.safe_load(trial.runs[0].config)
    assert content["train"]["method"] == "sequence" and content["settings"]["size"] == 64
    two = planned(tmp_path, grid={"budget": [100, 200]})
    assert [yaml.safe_load(trial.runs[0].config)["train"]["budget"] for trial in two] == [100, 200]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"rate": 0.1}}, "rate needs a list of values"),
        ({"grid": {"rat": [0.1]}}, "rat"),
        ({"grid": {"seed": [1, 2]}}, "give seeds"),
        ({"random": {"rate": {"low": 1, "high": 0.5}}, "samples": 2}, "low must be below high"),
        ({"random": {"rate": {"low": 0, "high": 0.5, "scale": "log"}}}, "above 0 for scale: log"),
        ({"samples": 2}, "samples needs random"),
        ({"seeds": [1, 1]}, "names a seed twice"),
        ({"grid": {"rate": [0.1] * 200}, "seeds": list(range(100))}, "20000 runs, more than 10000"),
        ({"base": None}, "lacks base:"),
        ({"grids": {}}, "grids"),
        ({"grid": {"rate": [-1.0]}}, "rate must be positive"),
    ],
)
def test_a_wrong_plan_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, DataError)) as caught:
        planned(tmp_path, **changes)
    assert message in str(caught.value) and "sweep.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_runs_are_compared_on_the_same_images(tmp_path: Path) -> None:
    sweep = read_sweep(written(tmp_path, grid={"dev_draws": [1, 2]}))
    with pytest.raises(UsageError, match="dev_draws differs between the trials"):
        check_comparable(sweep, trials_of(sweep, "s"), "sweep.yaml")
    no_dev = {"train": {k: v for k, v in TRAIN.items() if k != "dev"}, "settings": SETTINGS}
    sweep = read_sweep(written(tmp_path, base=no_dev))
    with pytest.raises(UsageError, match="names no data to compare"):
        check_comparable(sweep, trials_of(sweep, "s"), "sweep.yaml")


class Pretended(Runner):
    """Starts processes that leave a summary, or fail, instead of training."""

    codes: tuple[int, ...] = (0,)
    started: list[str]

    def _started(self, run: Any) -> Any:
        self.started = [*getattr(self, "started", []), run.name]
        code = self.codes[(len(self.started) - 1) % len(self.codes)]
        folder = self.folder(run)
        work = f"import sys; print('adaptiveisp: no light'); sys.exit({code})"
        if code == 0:
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text("{}")
        with folder.with_suffix(".log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-S", "-c", work], stdout=log)


def test_finished_runs_are_not_run_again_and_failures_do_not_end_the_sweep(tmp_path: Path) -> None:
    trials = planned(tmp_path, grid={"rate": [0.1, 0.2]}, seeds=[0, 1])
    runs = [run for trial in trials for run in trial.runs]
    runner = Pretended(tmp_path / "out")
    runner.codes = (0, 1)
    runner.prepare(runs)
    failed = run_all(runner, trials, 1, lambda run, reason: None)
    assert failed == {runs[1].name: "no light", runs[3].name: "no light"}
    again = Pretended(tmp_path / "out")
    assert run_all(again, trials, 2, lambda run, reason: None) == {}
    assert sorted(again.started) == sorted([runs[1].name, runs[3].name])
    changed = planned(
        tmp_path, grid={"rate": [0.1, 0.2]}, seeds=[0, 1], base={"train": {**TRAIN, "budget": 24}, "settings": SETTINGS}
    )
    with pytest.raises(UsageError, match="differs from the sweep file"):
        Runner(tmp_path / "out").prepare([run for trial in changed for run in trial.runs])


def test_a_sweep_keeps_the_detector_and_modules_that_it_began_with(tmp_path: Path) -> None:
    runs = [run for trial in planned(tmp_path) for run in trial.runs]
    out = tmp_path / "out"
    Runner(out, ["--device", "cpu", "--threads", "1", "--detector", "one"]).prepare(runs)
    Runner(out, ["--device", "cpu", "--threads", "2", "--detector", "one"]).prepare(runs)
    for other in (["--detector", "two"], ["--detector", "one", "--module", "m:M"], []):
        with pytest.raises(UsageError, match="the sweep began with --detector one, not"):
            Runner(out, other).prepare(runs)


def test_runs_that_began_with_other_data_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.json").write_text("{}")
    trials = planned(tmp_path, grid={"rate": [0.1, 0.2]}, seeds=[0, 1])
    runner = Runner(tmp_path / "out")
    first, second = (trial.runs[0] for trial in trials)
    assert data_warning(runner, trials) == ""
    for run, origin in ((first, {"data": data_digest(trials[0].options)}), (second, {})):
        write_config(runner.folder(run), trials[0].options, trials[0].options, origin)
    assert data_warning(runner, trials) == ""
    (tmp_path / "labels.json").write_text("[]")
    assert data_warning(runner, trials) == (
        f"data or dev have changed since these runs began: {first.name}; "
        "give another --out to compare runs on the same data"
    )


def test_the_table_has_means_over_seeds_and_paired_differences(tmp_path: Path) -> None:
    trials = planned(tmp_path, grid={"rate": [0.1, 0.2]}, seeds=[0, 1])

    def score(ap50: float) -> PolicyScore:
        return PolicyScore(ap50, ap50, ap50, (), {}, 3, 3, 1.0, 2.0, 5.0, clock_ms=4.0)

    names = [trial.name for trial in trials]
    groups = {
        names[0]: {"red": group_score(("a/1", "a/2"), [score(0.2), score(0.3)])},
        names[1]: {"red": group_score(("b/1",), [score(0.5)])},
    }
    difference = Difference(names[1], names[0], "red", "ap50", Interval(0.25, 0.1, 0.4, 0.95, 200))
    report = Report({}, (difference,), {}, (), groups=groups)
    header, rows = trial_rows(trials, report)
    assert header == ["trial", "rate", "seeds", "AP50", "modules", "clock ms", f"minus {names[0]} (interval)"]
    assert rows[0][1:] == ["0.1", "2", "25.0 ± 7.1", "2.0", "4.0", "–"]
    assert rows[1][1:] == ["0.2", "1", "50.0", "2.0", "4.0", "+25.0 (+10.0 to +40.0)"]
    first, second = trial_entries(trials, Runner(tmp_path), {trials[1].runs[1].name: "no light"}, report)
    assert first["ap50_mean"] == pytest.approx(0.25) and first["ap50_sd"] == pytest.approx(0.1 / math.sqrt(2))
    assert [run["state"] for run in second["runs"]] == ["finished", "no light"]
    assert second["difference_to_first"]["low"] == 0.1 and first["difference_to_first"] is None


def test_without_ray_there_is_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else real(name, *rest))
    assert main(["sweep", str(written(tmp_path)), "--out", str(tmp_path / "out"), "--engine", "ray"]) == 1
    assert "ray is not installed; run: pip install 'adaptiveisp[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["sweep", str(written(tmp_path)), "--out", str(tmp_path / "out"), "--address", "x:1"]) == 2
    assert "add --engine ray" in capsys.readouterr().err


def test_an_address_without_a_cluster_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    arguments = ["sweep", str(written(tmp_path)), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main([*arguments, "--address", address]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"adaptiveisp: --address {address}: does not answer") and not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    labelled_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]))
    return tmp_path


@pytest.mark.long
@pytest.mark.usefixtures("without_figures")
def test_a_sweep_is_stopped_and_resumed(photos: Path) -> None:
    """SIGTERM while the first of two runs trains; the same command then finishes, and nothing is done twice."""
    base = {"train": {**TRAIN, "budget": 400, "dev_size": 64, "checkpoint_every": 5}, "settings": SETTINGS}
    path = written(photos, base=base, grid={"rate": [0.05, 0.2]}, resamples=200)
    arguments = ["sweep", str(path), "--out", "out", "--detector", RED, "--threads", "1", "-q"]
    process = subprocess.Popen([sys.executable, "-m", "adaptiveisp", *arguments])
    first = photos / "out" / "runs" / "1_rate-0.05" / "seed-0" / "metrics.jsonl"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 130
    lines = len(first.read_text().splitlines())
    assert 0 < lines < 50
    assert main(arguments) == 0
    found = sorted(
        file.relative_to(photos / "out" / "runs").as_posix() for file in (photos / "out").rglob("summary.json")
    )
    assert found == ["1_rate-0.05/seed-0/summary.json", "2_rate-0.2/seed-0/summary.json"]
    for name in found:
        metrics = (photos / "out" / "runs" / name).with_name("metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["iteration"] for line in metrics] == list(range(1, 51))
    content = json.loads((photos / "out" / "sweep.json").read_text())
    report = json.loads((photos / "out" / "report" / "report.json").read_text())
    for trial in content["trials"]:
        assert trial["ap50_mean"] == report["groups"][trial["name"]]["red"]["ap50_mean"]
    assert "Attention" not in content["note"]
    assert content["trials"][1]["difference_to_first"]["a"] == "2_rate-0.2"
    assert (photos / "out" / "sweep.md").read_text().startswith("| trial | rate | seeds | AP50 |")
    before = first.stat().st_mtime_ns
    assert main(arguments) == 0  # everything is finished, so that only the tables are made again
    assert first.stat().st_mtime_ns == before
    with (photos / "labels.json").open("a") as stream:
        stream.write("\n")
    assert main(arguments) == 0
    assert "Attention: data or dev have changed since these runs began: 1_rate-0.05/seed-0, 2" in (
        (photos / "out" / "sweep.md").read_text()
    )


@pytest.mark.long
@pytest.mark.usefixtures("without_figures")
def test_ray_tune_runs_the_trials(photos: Path) -> None:
    pytest.importorskip("ray.tune", reason="the extra ray is not installed")
    path = written(photos, grid={"rate": [0.05, 0.2]}, resamples=200)
    options = ["--detector", RED, "--threads", "1", "-q", "--engine", "ray", "--jobs", "1"]
    assert main(["sweep", str(path), "--out", "out", *options]) == 0
    content = json.loads((photos / "out" / "sweep.json").read_text())
    assert [run["state"] for trial in content["trials"] for run in trial["runs"]] == ["finished", "finished"]

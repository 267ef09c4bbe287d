"""A training run from the command line: its folder, its resumption after any kind of stop, and its errors."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from adaptiveisp import training
from adaptiveisp.cli import main
from adaptiveisp.exitcodes import INTERRUPTED
from adaptiveisp.methods import find_method
from tests.conftest import REPOSITORY
from tests.data import labelled_photos

RED = "tests.fake_detector:load"


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


SHORT = ("pool=16", "horizon=3", "rollout=3", "demonstrated=[gamma, exposure]")
"""Settings of the actor-critic that make an iteration quick; the rest is the default preset's."""


def train_arguments(out: str, budget: int = 120, changes: Sequence[str] = SHORT) -> list[str]:
    data = ["--data", "labels.json", "--images", "images", "--light", "mixed", "--detector", RED, "--threads", "1"]
    return [
        "train",
        *data,
        "--out",
        out,
        "--budget",
        str(budget),
        "--size",
        "64",
        "-q",
        *(f"--set={change}" for change in changes),
    ]


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_settings_log_and_policy(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert (
        adaptiveisp(
            *train_arguments("run"),
            "--dev",
            "labels.json",
            "--bootstrap",
            "greedy",
            "--set",
            "stop=false",
            "--set",
            "demonstration=0",
        )
        == 0
    )
    run = tmp_path / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["settings"]["bootstrap"] == "greedy" and config["train"]["budget"] == 120
    assert config["provenance"]["seed"] == 0
    lines = metrics(run)
    assert lines[-1]["passes"] >= 120 and [line["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    assert set(lines[0]["reward"]) == {"detection", "reuse", "entropy", "runtime"}
    assert 0 <= json.loads((run / "dev.jsonl").read_text().splitlines()[-1])["ap50"] <= 1
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--detector", RED, "--size", 64)
    code = adaptiveisp("eval", *photos, "--policy", "none", "run", "run/latest.safetensors", "--steps", 2,
                       "--resamples", 200, "--out", "report", "-q")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["policies"]) == {"none", "run", "latest"}
    assert report["policies"]["run"]["red"]["modules_per_image"] == 5  # auto-exposure's three, then two steps


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """kill -9 in the middle; the log of the resumed run is that of a run that nothing disturbed."""
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("whole", 700), "--seed", 5) == 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [
        sys.executable,
        "-m",
        "adaptiveisp",
        *train_arguments("cut", 700),
        "--seed",
        "5",
        "--checkpoint-every",
        "10",
    ]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "cut" / "latest.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # some iterations past the checkpoint, which are lost and done again
        process.send_signal(signal.SIGKILL)
    killed_at = len(metrics(tmp_path / "cut"))
    assert adaptiveisp("train", "--resume", "cut", "--threads", 1, "-q") == 0
    whole, cut = metrics(tmp_path / "whole"), metrics(tmp_path / "cut")
    assert 10 <= killed_at < len(whole)
    assert cut == whole
    assert (tmp_path / "cut" / "latest.safetensors").read_bytes() == (
        tmp_path / "whole" / "latest.safetensors"
    ).read_bytes()


def test_a_signal_writes_a_checkpoint_first(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [sys.executable, "-m", "adaptiveisp", *train_arguments("run", 10**6)]
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        log = tmp_path / "run" / "metrics.jsonl"
        while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    assert (tmp_path / "run" / "latest.pt").exists() and (tmp_path / "run" / "latest.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [], "annotations": []}, "lists no images"),
        ({"annotations": []}, "no labelled object"),
        ({"categories": [{"id": 1, "name": "unicorn"}, {"id": 47, "name": "griffin"}]}, "unicorn"),
    ],
)
def test_unusable_training_data(
    changes: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path, **changes)
    assert adaptiveisp(*train_arguments("run")) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_photos_without_labels_are_trained_on_beside_others(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 20]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert adaptiveisp(*train_arguments("run", 90), "--dev", "labels.json", "--dev-every", 4) == 0


def test_a_run_on_raws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder made by `synth`, without --light; a raw that cannot be read is reported at the end."""
    labelled_photos(tmp_path, n=4)
    photos = ("--data", "labels.json", "--images", "images")
    assert adaptiveisp("synth", *photos, "--light", "normal", "--out", "raws", "-q") == 0
    (first, *_) = sorted((tmp_path / "raws" / "normal" / "images").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    data = ("--data", "raws/normal", "--dev", "raws/normal", "--dev-every", 5, "--detector", RED, "--threads", 1)
    assert adaptiveisp("train", *data, "--out", "run", "--budget", 100, "--size", 64, "--set", "pool=16", "-q") == 3
    assert first.name in capsys.readouterr().err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [first.name in name for name in summary["skipped"]] == [True]
    assert summary["passes"] >= 100 and summary["peak_memory_mb"] > 50
    assert (tmp_path / "run" / "trajectories.png").stat().st_size > 1000
    assert summary["provenance"]["seed"] == 0
    assert adaptiveisp("train", "--resume", "run", "--threads", 1, "-q") == 3  # what was skipped is not forgotten
    capsys.readouterr()
    assert adaptiveisp("train", *data, "--light", "dark", "--out", "other") == 2
    assert "leave out --light" in capsys.readouterr().err


def test_a_learned_fixed_pipeline_is_a_policy(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    arguments = [
        *train_arguments("run", 64, ()),
        "--method",
        "fixed",
        "--preset",
        "auto-exposure",
        "--dev",
        "labels.json",
    ]
    assert adaptiveisp(*arguments, "--set", "rate=0.2") == 0
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["settings"]
    assert settings["rate"] == 0.2 and settings["start"] == "auto-exposure"
    assert json.loads((tmp_path / "run" / "best.json").read_text())["start"] == "auto-exposure"
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--detector", RED, "--size", 64)
    assert adaptiveisp("eval", *photos, "--policy", "auto-exposure", "run", "--out", "report", "-q") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["policies"]["run"]["red"]["modules_per_image"] == 13


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("cma_es", ("modules=[exposure, gamma]", "initial={}", "batch=2")),
        ("random_search", ("modules=[exposure, gamma, contrast]", "initial={}", "candidates=4", "batch=1", "duel=4")),
    ],
)
def test_a_search_without_gradients_is_interrupted_resumed_and_its_file_is_a_policy(
    method: str, changes: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_photos(tmp_path)
    whole, cut = (
        [*train_arguments(out, 64, changes), "--method", method, "--preset", "auto-exposure", "--checkpoint-every", "1"]
        for out in ("whole", "cut")
    )
    assert adaptiveisp(*whole, "--dev", "labels.json") == 0
    lines = metrics(tmp_path / "whole")
    assert len(lines) >= 4 and lines[0]["gradient_norm"] == {}
    learner = find_method(method).learner
    real = learner.iterate  # type: ignore[attr-defined]

    def iterate(self: Any) -> Any:
        if self.iteration == 2:
            raise KeyboardInterrupt
        return real(self)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(learner, "iterate", iterate)
        assert adaptiveisp(*cut) == INTERRUPTED
    assert len(metrics(tmp_path / "cut")) == 2
    assert adaptiveisp("train", "--resume", "cut", "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "cut") == lines
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--detector", RED, "--size", 64)
    assert adaptiveisp("eval", *photos, "--policy", "whole", "cut/latest.json", "--out", "report", "-q") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["policies"]) == {"whole", "latest"}
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["passes"] == lines[-1]["passes"]


def test_a_configuration_file_repeats_a_run_and_flags_replace_it(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("first", 90), "--set", "pool=24", "--seed", 3) == 0
    config = tmp_path / "first" / "config.yaml"
    assert adaptiveisp("train", "--config", config, "--out", "again", "-q", "--threads", 1) == 0
    assert metrics(tmp_path / "again") == metrics(tmp_path / "first")
    assert adaptiveisp("train", "--config", config, "--out", "other", "--budget", 60, "--set", "pool=16", "-q") == 0
    assert adaptiveisp("train", "--config", config, "--preset", "paper", "--budget", 20, "--size", 64, "--out", "p",
                       "--dev", "labels.json", "-q") == 0  # fmt: skip
    assert yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())["settings"]["module_set"] == "paper"
    content = yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())
    assert content["train"]["budget"] == 60 and content["settings"]["pool"] == 16 and content["train"]["seed"] == 3


def test_a_warm_start_goes_on_from_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("first", 90)) == 0
    assert adaptiveisp(*train_arguments("second", 90), "--warm-start", "first") == 0
    assert metrics(tmp_path / "second")[0]["loss"] != metrics(tmp_path / "first")[0]["loss"]  # all else is the same
    assert (
        adaptiveisp(
            *train_arguments("third", 90), "--warm-start", "first", "--set", "stop=false", "--set", "demonstration=0"
        )
        == 1
    )
    assert "has the modules" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_scores_on_dev_change_nothing_that_is_learned(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("without", 150)) == 0
    assert adaptiveisp(*train_arguments("with", 150), "--dev", "labels.json", "--dev-every", 2) == 0
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")


def test_the_best_policy_outlives_worse_ones_and_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.45, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    real = training.coco_average_precision
    monkeypatch.setattr(training, "coco_average_precision", lambda *a: dataclasses.replace(real(*a), ap50=next(scores)))
    arguments = [*train_arguments("run", 130, ()), "--method", "fixed", "--dev", "labels.json", "--dev-every", "1"]
    assert adaptiveisp(*arguments, "--budget", 24, "--checkpoint-every", 1) == 0
    best = (tmp_path / "run" / "best.json").read_bytes()
    assert best != (tmp_path / "run" / "latest.json").read_bytes()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("budget: 24", "budget: 40"))
    assert adaptiveisp("train", "--resume", "run", "--threads", 1) == 0
    assert (tmp_path / "run" / "best.json").read_bytes() == best
    assert "best AP50 on dev 50.0" in capsys.readouterr().out


def test_a_full_disk_ends_the_run_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint finds no space; after that is mended the run goes on as if nothing had been."""
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("whole", 200), "--checkpoint-every", 5) == 0
    real, calls = torch.save, []

    def save(content: object, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(content, path)

    with monkeypatch.context() as full:
        full.setattr(torch, "save", save)
        assert adaptiveisp(*train_arguments("full", 200), "--checkpoint-every", 5) == 1
    error = capsys.readouterr().err
    assert "full: cannot be written" in error and "train --resume full" in error and "Traceback" not in error
    assert not list((tmp_path / "full").glob(".*.part"))
    assert adaptiveisp("train", "--resume", "full", "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "full") == metrics(tmp_path / "whole")


def test_one_photo_is_enough(tmp_path: Path) -> None:
    labelled_photos(tmp_path, n=1)
    assert adaptiveisp(*train_arguments("run", 90)) == 0


def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("run", 90)) == 0
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    checkpoint = tmp_path / "run" / "latest.pt"
    for content in (checkpoint.read_bytes()[:1000], b"", b"text"):
        checkpoint.write_bytes(content)
        assert adaptiveisp("train", "--resume", "run", "-q") == 1
        error = capsys.readouterr().err
        assert "latest.pt: is damaged" in error and "Traceback" not in error
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    (tmp_path / "empty").mkdir()
    assert adaptiveisp("train", "--data", "labels.json") == 2
    assert adaptiveisp(*train_arguments("run"), "--preset", "gpu") == 2
    assert adaptiveisp(*train_arguments("run"), "--light", "dusk") == 2
    assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "magic") == 2
    assert adaptiveisp(*train_arguments("run"), "--set", "speed=9") == 2
    assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "fixed", "--bootstrap", "td") == 2
    assert adaptiveisp("train", "--config", "labels.json", "--out", "run") == 1
    assert adaptiveisp(*train_arguments("run"), "--warm-start", "nowhere") == 2
    assert adaptiveisp(*train_arguments("run"), "--size", 50) == 2
    assert adaptiveisp(*train_arguments("run"), "--device", "cuda") == 2
    for change in ("batch=0", "rollout=0", "averaging=1.5", "actor_rate=-1", "module_set=paper", "overtime=2"):
        assert adaptiveisp(*train_arguments("run"), "--set", change) == 2, change
    for change in (
        "modules=[gama]",
        "initial={exposrue: {ev: 3}}",
        "initial={exposure: 3}",
        "initial={exposure: {e: 1}}",
    ):
        assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "fixed", "--set", change) in (1, 2), change
    assert not (tmp_path / "run").exists()
    assert adaptiveisp("train", "--resume", "empty") == 1
    assert adaptiveisp("train", "--resume", "empty", "--budget", 500) == 2
    assert adaptiveisp("train", "--resume", "empty", "--set", "pool=3") == 2
    assert adaptiveisp("train", "--resume", "nowhere") == 1
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    assert adaptiveisp(*train_arguments("taken")) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "cpu" in error and "config.yaml" in error


def test_import_of_a_released_checkpoint(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = shared / "golden" / "reference-random.pth"
    assert adaptiveisp("import", checkpoint, "--out", "policy.safetensors") == 0
    assert "7,168,869 actor parameters" in capsys.readouterr().out
    assert adaptiveisp("import", checkpoint, "--out", "policy.safetensors") == 2
    assert adaptiveisp("import", "gone.pth", "--out", "other.safetensors") == 1
    labelled_photos(tmp_path)
    code = adaptiveisp("eval", "--data", "labels.json", "--images", "images", "--light", "normal", "--policy",
                       "policy.safetensors", "--detector", RED, "--size", 64, "--out", "out", "-q")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["policies"]["policy"]["red"]["modules_per_image"] == 5


def test_a_run_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path)
    arguments = train_arguments("run", 40)
    assert adaptiveisp(*arguments, "--dev", "labels.json", "--dev-every", 3, "--limit", 1) == 0
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert settings["limit"] == 1 and Path(settings["data"]) == tmp_path / "labels.json"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert adaptiveisp("train", "--resume", tmp_path / "run", "--threads", 1, "-q") == 0
    assert adaptiveisp("train", "--resume", tmp_path / "run", "--limit", 2) == 2


def test_a_run_that_learns_nothing_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    monkeypatch.setattr("adaptiveisp.training.MOST_UNLEARNED", 3)
    monkeypatch.setattr(
        "adaptiveisp.methods.actor_critic.optimiser_step", lambda parts, *_: dict.fromkeys(parts, math.nan)
    )
    assert adaptiveisp(*train_arguments("run", 10**6)) == 1
    assert "gradients were not finite 3 times in a row, up to iteration 3" in capsys.readouterr().err

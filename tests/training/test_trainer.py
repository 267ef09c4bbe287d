"""Training from the command line: what a run leaves, on all kinds of data and by each method, and its use."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from adaptiveisp.cli.exit_codes import INTERRUPTED
from adaptiveisp.training import dev_scores
from adaptiveisp.training.methods.registry import find_method
from tests.support.photos import labelled_photos
from tests.support.training_runs import PHOTOS, QUICK, RED, adaptiveisp, metrics, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")


def test_a_run_leaves_its_settings_log_and_policy(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert (
        adaptiveisp(
            *train_arguments("run", 40),
            "--dev",
            "labels.json",
            "--bootstrap",
            "greedy",
            "--set",
            "stop=false",
            "--set",
            "imitation_warmup=0",
        )
        == 0
    )
    run = tmp_path / "run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["settings"]["bootstrap"] == "greedy" and config["train"]["budget"] == 40
    assert config["provenance"]["seed"] == 0
    lines = metrics(run)
    assert lines[-1]["passes"] >= 40 and [line["iteration"] for line in lines] == list(range(1, len(lines) + 1))
    assert set(lines[0]["reward"]) == {"detection", "reuse", "entropy", "runtime"}
    assert 0 <= json.loads((run / "dev.jsonl").read_text().splitlines()[-1])["ap50"] <= 1
    code = adaptiveisp("eval", *PHOTOS, "--policy", "none", "run", "run/latest.safetensors", "--steps", 2,
                       "--resamples", 200, "--out", "report", "-q")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["policies"]) == {"none", "run", "latest"}
    assert report["policies"]["run"]["red"]["modules_per_image"] == 5  # auto-exposure's three, then two steps


def test_photos_without_labels_are_trained_on_beside_others(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    content = json.loads((tmp_path / "labels.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == 20]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert adaptiveisp(*train_arguments("run", 16, ()), *QUICK, "--dev", "labels.json", "--dev-every", 2) == 0


@pytest.mark.long
def test_a_run_on_raws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder made by `synth`, without --light; a raw that cannot be read is reported at the end."""
    labelled_photos(tmp_path, n=4)
    photos = ("--data", "labels.json", "--images", "images")
    assert adaptiveisp("synth", *photos, "--light", "normal", "--out", "raws", "-q") == 0
    (first, *_) = sorted((tmp_path / "raws" / "normal" / "images").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    data = ("--data", "raws/normal", "--dev", "raws/normal", "--dev-every", 5, "--detector", RED, "--threads", 1)
    assert (
        adaptiveisp("train", *data, "--out", "run", "--budget", 100, "--size", 64, "--set", "replay_size=16", "-q") == 3
    )
    assert first.name in capsys.readouterr().err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [first.name in name for name in summary["skipped"]] == [True]
    assert summary["passes"] >= 100 and summary["peak_memory_mb"] > 50
    assert (tmp_path / "run" / "trajectories.png").stat().st_size > 1000
    assert summary["provenance"]["seed"] == 0
    # What was skipped is not forgotten.
    assert adaptiveisp("train", "--resume", "run", "--detector", RED, "--threads", 1, "-q") == 3
    capsys.readouterr()
    assert adaptiveisp("train", *data, "--light", "dark", "--out", "other") == 2
    assert "leave out --light" in capsys.readouterr().err


@pytest.mark.long
def test_one_photo_is_enough(tmp_path: Path) -> None:
    labelled_photos(tmp_path, n=1)
    assert adaptiveisp(*train_arguments("run", 90)) == 0


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
    assert settings["rate"] == 0.2 and settings["preprocessing"] == "auto-exposure"
    assert json.loads((tmp_path / "run" / "best.json").read_text())["start"] == "auto-exposure"
    assert adaptiveisp("eval", *PHOTOS, "--policy", "auto-exposure", "run", "--out", "report", "-q") == 0
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
    assert adaptiveisp("train", "--resume", "cut", "--detector", RED, "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "cut") == lines
    assert adaptiveisp("eval", *PHOTOS, "--policy", "whole", "cut/latest.json", "--out", "report", "-q") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert set(report["policies"]) == {"whole", "latest"}
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["passes"] == lines[-1]["passes"]


def test_the_best_policy_outlives_worse_ones_and_a_resumption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    scores = iter([0.6, 0.7, 0.3, 0.5, 0.4, 0.2, 0.45, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    real = dev_scores.coco_average_precision
    scored = "adaptiveisp.training.dev_scores.coco_average_precision"
    monkeypatch.setattr(scored, lambda *a: dataclasses.replace(real(*a), ap50=next(scores)))
    arguments = [*train_arguments("run", 130, ()), *QUICK, "--dev", "labels.json", "--dev-every", "1"]
    assert adaptiveisp(*arguments, "--budget", 24, "--checkpoint-every", 1) == 0
    best = (tmp_path / "run" / "best.json").read_bytes()
    assert best != (tmp_path / "run" / "latest.json").read_bytes()
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("budget: 24", "budget: 40"))
    assert adaptiveisp("train", "--resume", "run", "--detector", RED, "--threads", 1) == 0
    assert (tmp_path / "run" / "best.json").read_bytes() == best
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "50.0 AP50 on dev (iteration 2); auto-exposure 70.0 (-20.0), start 60.0 (-10.0)"


def test_import_of_a_released_checkpoint(
    released_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adaptiveisp("import", released_checkpoint, "--out", "policy.safetensors") == 0
    assert "7,168,869 actor parameters" in capsys.readouterr().out
    assert adaptiveisp("import", released_checkpoint, "--out", "policy.safetensors") == 2
    assert adaptiveisp("import", "gone.pth", "--out", "other.safetensors") == 1
    labelled_photos(tmp_path)
    code = adaptiveisp("eval", "--data", "labels.json", "--images", "images", "--light", "normal", "--policy",
                       "policy.safetensors", "--detector", RED, "--size", 64, "--out", "out", "-q")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["policies"]["policy"]["red"]["modules_per_image"] == 5

"""The recipe that continues a shipped policy."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from adaptiveisp.policies.registry import PACKAGED, shipped_file
from adaptiveisp.training import dev_scores
from adaptiveisp.training.config import read_config, recipe_files
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, metrics

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

SMALL = ("--light", "mixed", "--detector", RED, "--threads", 1, "--size", 64, "--dev-size", 64, "--budget", 8)
RATES = ("rate", "sequence_rate", "line_rate")


def finetune(out: str, warm_start: str, *more: object) -> int:
    data = ("--data", "labels.json", "--images", "images", "--set", "batch=4")
    return adaptiveisp("train", "--config", "finetune", *data, *SMALL, "--warm-start", warm_start, "--out", out, *more)


@pytest.mark.parametrize(("later", "kept"), [(0.2, True), (0.4, False)])
def test_a_shipped_policy_is_kept_unless_a_later_one_is_better(
    later: float, kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled_photos(tmp_path)
    values, real = iter([0.3, 0.1, later]), dev_scores.coco_average_precision
    monkeypatch.setattr(
        dev_scores, "coco_average_precision", lambda *a: dataclasses.replace(real(*a), ap50=next(values))
    )
    assert finetune("tuned", "coco-adaptive", "--dev", "labels.json") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("30.0 AP50 on dev: the warm start is kept" if kept else "40.0 AP50 on dev (iteration 2); ")
    ours, shipped = load_file(tmp_path / "tuned" / "best.safetensors"), load_file(shipped_file("coco-adaptive"))
    assert all(ours[name].equal(shipped[name]) for name in shipped) == kept
    latest = load_file(tmp_path / "tuned" / "latest.safetensors")
    assert not all(latest[name].equal(shipped[name]) for name in shipped)
    lines = metrics(tmp_path / "tuned")
    assert len(lines) == 2 and all(sum(dict(line["modules"]).values()) for line in lines)  # type: ignore[call-overload]
    assert json.loads((tmp_path / "tuned" / "summary.json").read_text())["ap50_on_dev_at_start"]["start"] == 0.3


@pytest.mark.long
def test_other_policies_of_the_package_need_what_the_recipe_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    assert finetune("wrong", "coco-fast-1") == 1 and not Path("wrong").exists()
    assert "has the preprocessing auto-gain, this run has auto-exposure" in capsys.readouterr().err
    text = recipe_files()["finetune"].read_text()
    for name in sorted({*PACKAGED} - {"coco-adaptive", "coco-adaptive-1", "coco-selective"}):
        (changes,) = (
            line.partition(f"--warm-start {name} ")[2] for line in text.splitlines() if f"{name} --set" in line
        )
        assert finetune(f"right-{name}", name, *changes.split(), "-q") == 0


@pytest.mark.long
def test_a_choice_of_modules_is_kept_if_its_rates_are_0(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert finetune("tuned", "coco-selective", "--set", "sequence_rate=0.0") == 0
    ours, shipped = load_file(tmp_path / "tuned" / "latest.safetensors"), load_file(shipped_file("coco-selective"))
    chooses = [name for name in shipped if name.startswith("sequence.sequence_line")]
    assert chooses and all(ours[name].equal(shipped[name]) for name in chooses)
    assert not all(ours[name].equal(shipped[name]) for name in shipped)


def test_it_needs_a_warm_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    data = ("--data", "labels.json", "--images", "images")
    assert adaptiveisp("train", "--config", "finetune", *data, *SMALL, "--out", "run") == 2
    assert "--warm-start" in capsys.readouterr().err and not Path("run").exists()


def test_it_learns_slower_than_the_run_that_made_the_policy() -> None:
    """All else that the policy depends on is the same."""
    (_, tuned), (_, made) = (read_config(recipe_files()[name]) for name in ("finetune", "sequence-colours"))
    assert all(0 < tuned[name] <= made[name] / 10 + 1e-12 for name in RATES)
    own: Any = {*RATES, "rate_decay", "expert_modules", "imitation_warmup", "precision"}
    assert {name for name in made if tuned[name] != made[name]} == own

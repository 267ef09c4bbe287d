"""The recipe that continues a shipped policy."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from adaptiveisp.policies.registry import SHIPPED, shipped_file
from adaptiveisp.training import dev_scores
from adaptiveisp.training.config import read_config, recipe_files
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, metrics

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

SMALL = ("--light", "mixed", "--detector", RED, "--threads", 1, "--size", 64, "--dev-size", 64, "--budget", 8)
RATES = ("rate", "sequence_rate", "line_rate", "sequence_line_rate")


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
    assert finetune("tuned", "coco-fast", "--dev", "labels.json") == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("30.0 AP50 on dev: the warm start is kept" if kept else "40.0 AP50 on dev (iteration 2); ")
    ours, shipped = load_file(tmp_path / "tuned" / "best.safetensors"), load_file(shipped_file("coco-fast"))
    assert all(ours[name].equal(shipped[name]) for name in shipped) == kept
    latest = load_file(tmp_path / "tuned" / "latest.safetensors")
    assert not all(latest[name].equal(shipped[name]) for name in shipped)
    lines = metrics(tmp_path / "tuned")
    assert len(lines) == 2 and all(sum(dict(line["modules"]).values()) for line in lines)  # type: ignore[call-overload]
    assert json.loads((tmp_path / "tuned" / "summary.json").read_text())["ap50_on_dev_at_start"]["start"] == 0.3


@pytest.mark.long
def test_the_other_shipped_policy_needs_its_horizon_and_preprocessing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the comments of the recipe say."""
    assert {"coco-fast", "coco-adaptive"} <= set(SHIPPED)
    labelled_photos(tmp_path)
    assert finetune("wrong", "coco-adaptive") == 1 and not Path("wrong").exists()
    assert "has the preprocessing auto-exposure, this run has auto-gain" in capsys.readouterr().err
    (comment,) = (line for line in recipe_files()["finetune"].read_text().splitlines() if "For coco-adaptive" in line)
    changes = comment.partition("--warm-start coco-adaptive ")[2].split()
    assert changes and finetune("right", "coco-adaptive", *changes, "-q") == 0


def test_it_needs_a_warm_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    data = ("--data", "labels.json", "--images", "images")
    assert adaptiveisp("train", "--config", "finetune", *data, *SMALL, "--out", "run") == 2
    assert "--warm-start" in capsys.readouterr().err and not Path("run").exists()


def test_it_learns_slower_than_the_run_that_made_the_policy() -> None:
    """All else that the policy depends on is the same."""
    (_, tuned), (_, made) = (read_config(recipe_files()[name]) for name in ("finetune", "sequence-three-local"))
    assert all(0 < tuned[name] <= made[name] / 10 + 1e-12 for name in RATES)
    own: Any = {*RATES, "rate_decay", "expert_modules", "imitation_warmup", "modules"}
    assert tuned["modules"] == [*made["modules"], "fast_denoise"]
    assert {name for name in made if tuned[name] != made[name]} == own

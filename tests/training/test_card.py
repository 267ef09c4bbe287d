"""A policy's card, from its file, its run and reports."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adaptiveisp.cli.exit_codes import DONE, FAILED, WRONG_USE
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.policies.registry import SHIPPED, shipped_file
from adaptiveisp.training.card import policy_card
from tests.support.training_runs import adaptiveisp

CONFIG = """train:
  data: [/home/someone/coco/train.json, /home/someone/voc/train.json]
  dev: /home/someone/coco/dev.json
  method: fixed
  detector: yolov3-tiny
  light: mixed
  noise: brooks
  illuminants: planckian
  budget: 900
  seed: 4
settings:
  size: 288
"""
SUMMARY = {
    "passes": 904,
    "best_ap50_on_dev": 0.25,
    "ap50_on_dev_at_start": {"start": 0.2},
    "provenance": {
        "commit": "abc123",
        "weights_sha256": {"yolov3-tiny": "ff00"},
        "command": "/usr/bin/adaptiveisp train --data /home/someone/coco/train.json --seed 4",
    },
}


def score(ap50: float, key: str = "ap50") -> dict[str, Any]:
    return {"yolov3-tiny": {key: ap50, "clock_ms": 4.25, "worse_than_auto_exposure": 0.125, "n_images": 1200}}


def report() -> dict[str, Any]:
    one = {
        "policies": {"ours/1": score(0.3), "auto-exposure": score(0.2)},
        "groups": {"ours": score(0.31, "ap50_mean")},
    }
    difference = {"detector": "yolov3-tiny", "metric": "ap50", "mean": 0.11, "low": 0.05, "high": 0.2}
    return {
        **one,
        "sets": {"coco/val": one},
        "differences": [
            {"a": "ours", "b": "auto-exposure", **difference},
            {"a": "others", "b": "auto-exposure", **difference},
        ],
        "settings": {"light": "dark", "noise": "sensor", "size": 416, "seed": 0},
        "provenance": {"commit": "def456"},
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of a fixed pipeline, and beside it a report."""
    folder = tmp_path / "mine"
    folder.mkdir()
    pipeline = Pipeline((Stage("gamma", {"gamma": 2.0}),))
    save_fixed(folder / "best.json", FixedPipeline(pipeline, preprocessing="auto-exposure"))
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "report.json").write_text(json.dumps(report()))
    return folder


def test_the_card_of_a_run_says_what_its_files_say(run: Path) -> None:
    card = policy_card(str(run))
    assert "# mine\n" in card and "One pipeline for all images: gamma (preprocessing: auto-exposure)." in card
    assert hashlib.sha256((run / "best.json").read_bytes()).hexdigest() in card
    for row in (
        "| method | fixed |",
        "| detector | yolov3-tiny, SHA-256 `ff00` |",
        "| data | coco/train.json, voc/train.json |",
        "| chosen on | coco/dev.json |",
        "| light | mixed: 0.003 to 1 of full |",
        "| noise model | brooks |",
        "| light sources | planckian |",
        "| starts from | random weights |",
        "| detector passes | 904 |",
        "| seed | 4 |",
        "| code | abc123 |",
        "| AP50 on dev | 25.0 (start 20.0) |",
    ):
        assert row in card
    assert "adaptiveisp train --data coco/train.json --seed 4" in card and "/home/someone" not in card
    assert "Not known: no report" in card


@pytest.mark.parametrize(("name", "ap50"), [("ours/1", "30.0"), ("ours", "31.0")])
def test_scores_come_from_the_report(run: Path, tmp_path: Path, name: str, ap50: str) -> None:
    card = policy_card(str(run), [tmp_path], name)
    assert "Light dark, noise sensor, 416 pixels; 1,200 raws, seed 0; code of def456." in card
    assert f"| yolov3-tiny | {ap50} | {ap50} | 4.2 | 12.5 % |" in card
    assert "| ours - auto-exposure | yolov3-tiny | +11.0 | +5.0 to +20.0 |" in card and "others -" not in card


def test_a_file_alone_says_what_is_not_known(run: Path) -> None:
    (run / "config.yaml").unlink()
    card = policy_card(str(run / "best.json"))
    assert "Not known: the policy's file came without the folder of its run." in card
    own = policy_card(str(shipped_file(SHIPPED[0])))
    assert "the file itself says: sequence, iteration" in own and "It chooses from exposure, gamma" in own


def test_the_command_prints_or_writes_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "card.md"
    assert adaptiveisp("card", run, "--report", tmp_path / "report.json", "--name", "ours", "--out", out) == DONE
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_text() == policy_card(str(run), [tmp_path], "ours")
    assert adaptiveisp("card", run, "--out", out) == WRONG_USE and "--overwrite" in capsys.readouterr().err
    assert adaptiveisp("card", SHIPPED[0]) == DONE
    assert capsys.readouterr().out == shipped_file(SHIPPED[0], ".md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none",), WRONG_USE, "policy none is part of the package and was not learned"),
        (("nowhere",), WRONG_USE, "policy 'nowhere' does not exist"),
        (("mine", "--report", "."), FAILED, "has no policy 'mine'; give one of auto-exposure, ours, ours/1 by --name"),
        (("mine", "--report", "broken.json"), FAILED, "broken.json: is no report of this version"),
        (("mine", "--report", "list.json"), FAILED, "list.json: holds no report; give the folder or the report.json"),
        (("mine", "--report", "absent"), FAILED, "absent"),
        (("odd",), FAILED, "odd: is no folder of a run of this version"),
    ],
)
def test_what_cannot_be_described_is_one_line(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{}")
    Path("list.json").write_text("[]")
    Path("odd").mkdir()
    for name in ("best.json", "config.yaml"):
        (tmp_path / "odd" / name).write_bytes((run / name).read_bytes())
    Path("odd/summary.json").write_text('{"provenance": 3}')
    assert adaptiveisp("card", *arguments) == code
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]

"""What a run says about itself on dev: the start, auto-exposure, the best policy and the curve; and prolonged runs."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp.cli.exit_codes import INTERRUPTED
from adaptiveisp.training import dev_curve, dev_scores
from adaptiveisp.training.dev_curve import DevCurve
from adaptiveisp.training.dev_scores import DevScore
from adaptiveisp.training.dev_selection import DevSelection
from adaptiveisp.training.methods.fixed import Fixed
from tests.support.photos import labelled_photos
from tests.support.training_runs import PHOTOS, QUICK, RED, adaptiveisp, metrics, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place")

KEPT = "the warm start is kept, since no later policy was better"
DEV = ("--dev", "labels.json", "--dev-every", "1")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the AP50 that the next scores on dev find; one score too many is an error."""

    def set_scores(*values: float) -> None:
        left = iter(values)
        monkeypatch.setattr(
            dev_scores, "coco_average_precision", lambda *a: dataclasses.replace(real(*a), ap50=next(left))
        )

    real = dev_scores.coco_average_precision
    return set_scores


@pytest.fixture
def no_curve(without_figures: None) -> None:
    """Runs draw no picture."""


def quick(out: str, budget: int, *more: object) -> int:
    """A run of 8 images an iteration, whose last line is printed."""
    arguments = [argument for argument in train_arguments(out, budget, ()) if argument != "-q"]
    return adaptiveisp(*arguments, *QUICK, *more)


def resume(out: str, *more: object) -> int:
    return adaptiveisp("train", "--resume", out, "--detector", RED, "--threads", 1, *more)


def dev_lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "dev.jsonl").read_text().splitlines()]


def score(ap50: float | None, cost_ms: float = 0.0) -> DevScore:
    return DevScore(ap50, ap50, 1.0, cost_ms, {}, ("exposure",))


def test_a_policy_is_better_by_its_ap50_less_the_price_of_its_cost() -> None:
    selection = DevSelection(runtime_weight=0.5)
    assert not selection.takes(score(None), 1) and selection.best is None
    assert selection.takes(score(0.2, cost_ms=4.0), 2) and selection.best == pytest.approx(18.0)
    assert not selection.takes(score(0.21, cost_ms=6.0), 3)  # worth 18 as well, so that the earlier one stays
    assert not selection.takes(score(0.3, cost_ms=30.0), 4)
    assert selection.takes(score(0.19), 5)
    assert (selection.best_ap50, selection.best_iteration, selection.best_modules) == (0.19, 5, ("exposure",))


@pytest.mark.long
def test_the_start_is_scored_like_any_policy_of_eval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_curve: None
) -> None:
    """The line of iteration 0 agrees with `eval` of the same pipelines on the same draws."""
    labelled_photos(tmp_path)
    assert quick("run", 8, *DEV) == 0
    first, last = dev_lines(tmp_path / "run")
    assert (first["iteration"], first["passes"]) == (0, 0) and (last["iteration"], last["passes"]) == (1, 8)
    assert set(first) == {*last, "auto-exposure"} and set(first["auto-exposure"]) == set(last) - {"iteration", "passes"}
    start = {"version": 1, "start": "raw", "module_set": "wide"}
    stages = [{"module": "exposure", "params": {"ev": 0.0}}, {"module": "gamma", "params": {"gamma": 1.0}}]
    (tmp_path / "begin.json").write_text(json.dumps({**start, "stages": stages}))
    code = adaptiveisp("eval", *PHOTOS, "--draws", 2, "--policy", "begin.json", "auto-exposure", "--out", "report",
                       "--resamples", 200, "-q")  # fmt: skip
    assert code == 0
    found = json.loads((tmp_path / "report" / "report.json").read_text())["policies"]
    for name, line in (("begin", first), ("auto-exposure", first["auto-exposure"])):
        assert line["ap50"] == pytest.approx(found[name]["red"]["ap50"], abs=1e-9), name
        assert line["ap"] == pytest.approx(found[name]["red"]["ap"], abs=1e-9), name
        assert line["modules_per_image"] == found[name]["red"]["modules_per_image"]
    assert first["modules_per_image"] != first["auto-exposure"]["modules_per_image"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["ap50_on_dev_at_start"] == {"start": first["ap50"], "auto-exposure": first["auto-exposure"]["ap50"]}
    assert (summary["best_iteration_on_dev"], summary["best_ap50_on_dev"]) == (1, last["ap50"])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{100 * last['ap50']:.1f} AP50 on dev (iteration 1); auto-exposure ")


def test_an_untrained_start_is_told_but_never_chosen(
    tmp_path: Path, scores: Any, capsys: pytest.CaptureFixture[str], no_curve: None
) -> None:
    labelled_photos(tmp_path)
    scores(0.213, 0.196, 0.1, 0.211)
    assert quick("run", 16, *DEV) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "21.1 AP50 on dev (iteration 2); auto-exposure 19.6 (+1.5), start 21.3 (-0.2)"
    assert (tmp_path / "run" / "best.json").read_bytes() == (tmp_path / "run" / "latest.json").read_bytes()


@pytest.mark.parametrize(
    ("later", "kept", "line"),
    [
        (0.2, True, f"21.0 AP50 on dev: {KEPT}; auto-exposure 30.0 (-9.0)"),
        (0.22, False, "22.0 AP50 on dev (iteration 1); auto-exposure 30.0 (-8.0), warm start 21.0 (+1.0)"),
    ],
)
def test_a_warm_start_is_kept_where_nothing_is_better(
    later: float, kept: bool, line: str, tmp_path: Path, scores: Any, capsys: pytest.CaptureFixture[str], no_curve: None
) -> None:
    labelled_photos(tmp_path)
    assert quick("first", 8) == 0
    scores(0.21, 0.3, later)
    assert quick("second", 8, "--warm-start", "first", *DEV) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line
    stages = [json.loads((tmp_path / run).read_text())["stages"] for run in ("first/latest.json", "second/best.json")]
    for ours, theirs in zip(*stages, strict=True):
        near = ours["params"] == pytest.approx(theirs["params"], abs=1e-5)
        assert ours["module"] == theirs["module"] and near == kept
    assert json.loads((tmp_path / "second" / "summary.json").read_text())["best_iteration_on_dev"] == (not kept)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fixed", "sequence"])
def test_scores_of_the_start_change_nothing_that_is_learned(method: str, tmp_path: Path, no_curve: None) -> None:
    labelled_photos(tmp_path)
    how = QUICK if method == "fixed" else ("--method", "sequence", "--set=batch=4", "--set=imitation_warmup=0.5",
                                           "--set=dropout=0.2")  # fmt: skip
    for out, dev in (("without", ()), ("with", ("--dev", "labels.json"))):
        assert adaptiveisp(*train_arguments(out, 16, ()), *how, *dev) == 0
    assert metrics(tmp_path / "with") == metrics(tmp_path / "without")
    (suffix,) = (path.suffix for path in (tmp_path / "with").glob("best.*"))
    with_dev, without = ((tmp_path / run / f"latest{suffix}").read_bytes() for run in ("with", "without"))
    assert suffix == ".json" or with_dev == without  # a JSON holds the command


def interrupt_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    real = Fixed.iterate

    def iterate(self: Fixed) -> Any:
        if self.iteration == iteration:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Fixed, "iterate", iterate)


@pytest.mark.parametrize("stop", [0, 1])
@pytest.mark.parametrize("warm", [False, True])
def test_a_run_that_stops_early_scores_the_start_once(
    stop: int, warm: bool, tmp_path: Path, scores: Any, monkeypatch: pytest.MonkeyPatch, no_curve: None
) -> None:
    """Before the first checkpoint of an iteration; the logs hold no line twice."""
    labelled_photos(tmp_path)
    assert not warm or quick("first", 8) == 0
    with monkeypatch.context() as stopped:
        interrupt_at(stopped, stop)
        scores(0.2, 0.3, 0.4)
        assert quick("run", 16, *DEV, *(("--warm-start", "first") if warm else ())) == INTERRUPTED
    scores(0.4, 0.5)
    assert resume("run") == 0
    assert [line["iteration"] for line in dev_lines(tmp_path / "run")] == [0, 1, 2]
    assert [line["iteration"] for line in metrics(tmp_path / "run")] == [1, 2]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["ap50_on_dev_at_start"] == {"start": 0.2, "auto-exposure": 0.3}


def test_a_warm_started_run_without_dev_repeats_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path)
    assert quick("first", 8) == 0
    with monkeypatch.context() as stopped:
        interrupt_at(stopped, 1)
        assert quick("run", 24, "--warm-start", "first") == INTERRUPTED
    assert resume("run") == 0
    assert [line["iteration"] for line in metrics(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.long
def test_a_run_of_an_earlier_version_goes_on_without_the_start(
    tmp_path: Path, scores: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, no_curve: None
) -> None:
    labelled_photos(tmp_path)
    run = tmp_path / "run"
    with monkeypatch.context() as stopped:
        interrupt_at(stopped, 2)
        scores(0.9, 0.9, 0.4, 0.3)
        assert quick("run", 24, *DEV, "--checkpoint-every", 2) == INTERRUPTED
    content = torch.load(run / "latest.pt", weights_only=True)
    del content["start"], content["best_iteration"]
    content["lines"]["dev.jsonl"] -= 1
    torch.save(content, run / "latest.pt")
    (run / "dev.jsonl").write_text("".join((run / "dev.jsonl").read_text().splitlines(keepends=True)[1:]))
    scores(0.2)
    assert resume("run") == 0
    assert [line["iteration"] for line in dev_lines(run)] == [1, 2, 3]
    assert capsys.readouterr().out.splitlines()[-1] == "40.0 AP50 on dev"
    assert json.loads((run / "summary.json").read_text())["ap50_on_dev_at_start"] is None


def rows_of(path: Path, colour: tuple[int, int, int]) -> list[int]:
    """Rows of a picture with at least a hundred pixels of about the colour."""
    with Image.open(path) as picture:
        far = np.abs(np.asarray(picture.convert("RGB")).astype(int) - np.array(colour)).max(axis=2)
    same = (far < 12).sum(axis=1)
    return np.flatnonzero(same > 100).tolist()


def logs(folder: Path, dev: list[dict[str, Any]], losses: list[float | None]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in dev))
    lines = [{"iteration": i, "detector_loss": loss} for i, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


RED_LINE, GREEN_LINE = (0xEE, 0x66, 0x77), (0x22, 0x88, 0x33)


def test_the_curve_has_lines_for_the_start_and_auto_exposure(tmp_path: Path) -> None:
    """The higher score is the higher line; a run of an earlier version has neither."""
    scored = [{"iteration": i, "ap50": ap50} for i, ap50 in ((1, 0.1), (2, None), (3, 0.3))]
    for name, start, auto_exposure in (("above", 0.25, 0.15), ("below", 0.15, 0.25)):
        first = {"iteration": 0, "ap50": start, "auto-exposure": {"ap50": auto_exposure}}
        logs(tmp_path / name, [first, *scored], [3.0, None, 2.0])
        (tmp_path / f"{name}.png").write_bytes(DevCurve(tmp_path / name).png(3, "start") or b"")
        red, green = (rows_of(tmp_path / f"{name}.png", colour) for colour in (RED_LINE, GREEN_LINE))
        assert red and green and (max(red) < min(green)) == (name == "above")
    logs(tmp_path / "old", scored, [3.0])
    (tmp_path / "old.png").write_bytes(DevCurve(tmp_path / "old").png(None, "start") or b"")
    assert not rows_of(tmp_path / "old.png", RED_LINE) and not rows_of(tmp_path / "old.png", GREEN_LINE)


def test_the_curve_reads_each_loss_once_and_survives_edited_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(dev_curve, "_draw", lambda scores, losses, *_: drawn.append(list(losses)) or b"png")
    run = tmp_path / "run"
    curve = DevCurve(run)
    logs(run, [{"iteration": 1, "ap50": 0.1}], [3.0, 2.0])
    assert curve.png(1, "start") == b"png"
    with open(run / "metrics.jsonl", "a") as file:
        file.write('garbage\n7\n{"iteration": 4, "detector_loss": "x"}\n{"iteration": 5, "detector_loss": 1.0}\n')
    assert curve.png(1, "start") == b"png"
    assert drawn == [[(1, 3.0), (2, 2.0)], [(1, 3.0), (2, 2.0), (5, 1.0)]]

    def broken(*_: object) -> bytes:
        raise RuntimeError("no font\nand more")

    monkeypatch.setattr(dev_curve, "_draw", broken)
    assert curve.png(1, "start") is None and curve.png(1, "start") is None
    assert [record.getMessage() for record in caplog.records] == [
        "no curve of the scores on dev: RuntimeError: no font"
    ]


@pytest.mark.long
def test_a_run_draws_its_curve_at_each_score_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path)
    run, written = tmp_path / "run", []
    real = dev_curve._draw

    def draw(scores: Any, *others: Any) -> bytes:
        written.append((len(scores), (run / "dev.png").exists()))
        return real(scores, *others)

    monkeypatch.setattr(dev_curve, "_draw", draw)
    assert quick("run", 16, *DEV, "-q") == 0
    assert written == [(1, False), (2, True), (3, True)]
    with Image.open(run / "dev.png") as picture:
        picture.load()
        assert picture.format == "PNG"
    before = (run / "dev.png").read_bytes()

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert resume("run", "--budget", 24, "-q") == 1
    monkeypatch.undo()
    assert (run / "dev.png").read_bytes() == before


def test_without_matplotlib_there_is_no_curve_and_no_complaint(
    tmp_path: Path, no_curve: None, caplog: pytest.LogCaptureFixture
) -> None:
    labelled_photos(tmp_path)
    assert quick("run", 8, *DEV, "-q") == 0
    assert not (tmp_path / "run" / "dev.png").exists() and "curve" not in caplog.text

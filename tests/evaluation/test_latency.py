"""`eval` and `run` under a latency: times by the table, what was dropped, the share that kept it, and the figure."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp import EvalConfig, Pipeline, Stage, SynthesisConfig, evaluate
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.evaluation import latency as times_of_evaluation
from adaptiveisp.evaluation.figures.latency import latency_figure, latency_markdown, latency_png, latency_row
from adaptiveisp.policies import clock_table
from adaptiveisp.policies import latency as policies_latency
from adaptiveisp.policies.clock_table import pixels_of
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures", "known_times")

RED = "tests.support.fake_detector:load"
TIMES = {"denoise": 800.0, "gamma": 100.0}
BOTH = Pipeline((Stage("gamma", {"gamma": 0.8}), Stage("denoise", {"h": 0.1})))


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements find `TIMES`, 1 ms for other modules, and 10 ms for a policy."""

    def times(names: Sequence[str], *_: Any) -> dict[str, float]:
        return {name: TIMES.get(name, 1.0) for name in names}

    for module in (clock_table, policies_latency, times_of_evaluation):
        monkeypatch.setattr(module, "module_times", times)
    monkeypatch.setattr(clock_table, "policy_times", lambda *_: (10.0, 0.0))
    monkeypatch.setattr(policies_latency, "excess_ms", lambda *_: 0.0)


def config(folder: Path, **changes: Any) -> EvalConfig:
    policies = ["none", FixedPipeline(BOTH, "both")]
    return EvalConfig(
        labelled_photos(folder), policies, (RED,), folder / "images", SynthesisConfig("mixed"),
        size=64, resamples=200, **changes
    )  # fmt: skip


def test_eval_drops_modules_and_says_so(tmp_path: Path) -> None:
    report = evaluate(config(tmp_path, latency_ms=500.0))
    score, nothing = (report.policies[name]["red"] for name in ("both", "none"))
    assert score.dropped_modules == {"denoise": 3} and nothing.dropped_modules == {}
    assert {run.pipeline for run in report.runs if run.policy == "none"} == {()}
    assert all([m for m, _ in run.pipeline or ()] == ["gamma"] for run in report.runs if run.policy == "both")
    assert score.within_latency == 1.0  # 64 pixels take no half second
    assert score.table_ms is not None and 100.0 <= score.table_ms < 400.0
    assert report.clock_table["milliseconds"] == {"gamma": 100.0} and report.settings["latency_ms"] == 500.0
    kept = "both took at most 500 ms for 100.0 % of the images by the clock"
    assert f"Latency: {kept}; modules dropped, and from how many images: denoise (3)." in report.notes
    written = report.to_json()
    assert written["policies"]["both"]["red"]["within_latency"] == 1.0 and "within latency" in report.table()


def test_several_sets_count_what_was_dropped_in_all_of_them(tmp_path: Path) -> None:
    one = config(tmp_path / "one", latency_ms=500.0)
    labels = [one.data, labelled_photos(tmp_path / "two", n=4)]
    report = evaluate(replace(one, data=labels, images=[path.parent / "images" for path in labels]))
    assert report.policies["both"]["red"].dropped_modules == {"denoise": 7}
    kept = "both took at most 500 ms for 100.0 % of the images by the clock"
    assert f"Latency: {kept}; modules dropped, and from how many images: denoise (7)." in report.notes


def test_without_a_latency_nothing_is_dropped(tmp_path: Path) -> None:
    report = evaluate(config(tmp_path))
    score = report.policies["both"]["red"]
    assert score.within_latency is None and not score.dropped_modules and score.modules_per_image == 2.0
    assert score.table_ms is not None and 900.0 <= score.table_ms < 1100.0 and score.cost_ms != score.table_ms
    assert "within latency" not in report.table() and not any(note.startswith("Latency") for note in report.notes)
    assert pixels_of(64) == 64 * 48


def test_a_module_that_cannot_be_timed_loses_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(names: Sequence[str], *_: Any) -> dict[str, float]:
        if names:
            raise RuntimeError("no such size")
        return {}

    monkeypatch.setattr(times_of_evaluation, "module_times", fails)
    report = evaluate(config(tmp_path))
    score, nothing = (report.policies[name]["red"] for name in ("both", "none"))
    assert score.table_ms is None and score.modules_per_image == 2.0 and nothing.table_ms is not None
    assert "both: has no table ms: a module cannot be timed alone (RuntimeError: no such size)" in caplog.text


def test_a_latency_that_is_not_kept_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = evaluate(config(tmp_path, latency_ms=1e-4))
    assert report.policies["both"]["red"].within_latency == 0.0
    assert "both: a latency of 0.0001 ms cannot be kept" in caplog.text
    assert "both took at most 0.0001 ms for 0.0 % of the images by the clock, less than 95 %" in caplog.text
    with pytest.raises(UsageError, match="latency_ms -1"):
        EvalConfig("x.json", ["none"], latency_ms=-1.0)


def test_run_drops_modules_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes = np.random.default_rng(0).integers(500, 3000, (48, 64), dtype=np.uint16)
    for name in ("a", "b"):
        write_dng(RawImage(codes, "RGGB", (0.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), tmp_path / f"{name}.dng")
    BOTH.save(tmp_path / "both.json")
    command = ["run", "a.dng", "b.dng", "--pipeline", "both.json", "--detector", RED, "--size", "64", "--out", "out"]
    assert main([*command, "--latency-ms", "500"]) == 0
    assert "at most 500 ms for 100 % of the images; dropped: denoise from 2" in capsys.readouterr().out
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["latency"] == {"latency_ms": 500.0, "share_within": 1.0, "dropped_modules": {"denoise": 2}}
    assert [image["modules"] for image in summary["images"]] == [["gamma"]] * 2
    assert json.loads((tmp_path / "out" / "a.boxes.json").read_text())["dropped_modules"] == ["denoise"]
    assert main([*command, "--overwrite", "--latency-ms", "1e-3"]) == 0
    assert "0.001 ms are kept for 0 % of the images, less than 95 %" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--latency-ms", "0"]) == 2


def report_of(latency_ms: float | None, scale: float = 1.0, reverse: bool = False) -> dict[str, Any]:
    """A report of a group of seeds and a single policy, as report.json has it."""
    ours = {"ap50_mean": 0.2 * scale, "ap50_sd": 0.01, "clock_ms": 0.9 * (latency_ms or 1), "within_latency": 0.97}
    other = {"ap50": 0.18, "clock_ms": 0.8 * (latency_ms or 1), "within_latency": 0.5}
    names = ("fixed", "ours") if reverse else ("ours", "fixed")
    sign = -1.0 if reverse else 1.0
    low, high = sorted((sign * 0.01, sign * 0.04))
    difference = {"a": names[0], "b": names[1], "detector": "red", "mean": sign * 0.02, "low": low, "high": high}
    return {
        "settings": {"latency_ms": latency_ms},
        "groups": {"ours": {"red": ours}},
        "policies": {"ours/1": {"red": other}, "fixed": {"red": other}},
        "differences": [{**difference, "metric": "ap50", "level": 0.95, "resamples": 200}],
    }


def test_the_figure_shows_both_sides_at_each_latency() -> None:
    rows = [latency_row(report_of(ms, reverse=ms == 4), "ours", "fixed") for ms in (16.0, 4.0, 8.0)]
    left, right = latency_figure(rows).axes
    markers = [line for line in left.lines if line.get_marker() not in ("None", "")]
    assert [tuple(line.get_xydata()[0].round(1)) for line in markers] == [
        *((0.9 * ms, 20.0) for ms in (4, 8, 16)),
        *((round(0.8 * ms, 1), 18.0) for ms in (4, 8, 16)),
    ]
    assert [line.get_fillstyle() for line in markers] == ["full"] * 3 + ["none"] * 3
    assert [line.get_label() for line in markers if not line.get_label().startswith("_")] == ["ours", "fixed"]
    bars = right.collections[0].get_segments()
    assert [sorted(segment[:, 1].round(2)) for segment in bars] == [[1.0, 4.0]] * 3
    assert [text.get_text() for text in right.get_xticklabels()] == ["4 ms", "8 ms", "16 ms"]
    assert latency_png(rows).startswith(b"\x89PNG")
    table = latency_markdown(rows).splitlines()
    assert table[2] == "| 4 | ours | 20.0 (1.0) | 3.6 | 97 % | +2.0, +1.0 to +4.0 |"
    assert table[3] == "| 4 | fixed | 18.0 | 3.2 | 50 % |  |"


@pytest.mark.parametrize(
    ("report", "names", "message"),
    [
        (report_of(None), ("ours", "fixed"), "was made without a latency"),
        (report_of(4.0), ("ours", "theirs"), "has no policy or group theirs; it has ours/1, fixed"),
        (report_of(4.0), ("ours", "ours/1"), "has no difference of ours and ours/1"),
        ({**report_of(4.0), "groups": {"ours": {"red": {"ap50_mean": None}}}}, ("ours", "fixed"), "has no AP50"),
    ],
)
def test_reports_that_cannot_be_drawn_are_refused(report: Any, names: tuple[str, str], message: str) -> None:
    with pytest.raises(DataError, match=f"^r.json: .*{message}"):
        latency_row(report, *names, "r.json")

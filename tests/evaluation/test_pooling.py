"""Several data sets: the mean over them against hand-made numbers, its intervals, and every table that shows it."""

import csv
import io
import json
import math
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest

from adaptiveisp.evaluation.bootstrap import bootstrap_weights
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.html_report import render_html, write_report
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.pooling import pooled_report
from adaptiveisp.evaluation.report import Report, build_report
from adaptiveisp.evaluation.tables import markdown_tables, score_tables, scores_csv, scores_html
from adaptiveisp.types import Annotation

LABEL = (Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0),)
GROUPS = {"ours": ("ours/1", "ours/2")}
SMALL = {"none": {0}, "ours/1": {0, 1}, "ours/2": {0, 1, 2}, "plain": {1, 2}}
LARGE = {"none": {0, 1}, "ours/1": set(range(6)), "ours/2": set(range(9)), "plain": {0, 1, 2}}
"""Policy → photos in which it finds the only object."""


def ap_of_share(share: float) -> float:
    """Interpolated AP where a share of the labels is found and nothing else: the recall levels up to it, of 101."""
    return (math.floor(100 * share + 1e-9) + 1) / 101 if share > 0 else 0.0


def images(found: set[int], n_photos: int, draws: int = 2) -> list[ScoredImage]:
    result = []
    for photo in range(n_photos):
        n = int(photo in found)
        boxes, scores = np.tile([0.0, 0.0, 10.0, 10.0], (n, 1)), np.full(n, 0.9)
        result += [ScoredImage(photo, draw, 0.1, LABEL, boxes, scores, np.ones(n, int)) for draw in range(draws)]
    return result


def report_on(found: dict[str, set[int]], n_photos: int, cost: float, detectors: tuple[str, ...] = ("d",)) -> Report:
    n = 2 * n_photos
    results = {
        (policy, detector): PolicyResult(
            images(photos, n_photos),
            ms=[1.0] * n,
            modules=[2] * n,
            cost_ms=[cost] * n,
            pipelines=[(("exposure", {"ev": 1.0}),)] * n,
            static=policy in ("none", "plain"),
        )
        for policy, photos in found.items()
        for detector in detectors
    }
    return build_report(results, {1: "person"}, {"version": "1"}, ["own note"], resamples=200, seed=5, groups=GROUPS)


@pytest.fixture(scope="module")
def sets() -> dict[str, Report]:
    return {"a/val": report_on(SMALL, 4, 3.0), "b <val>": report_on(LARGE, 12, 5.0)}


@pytest.fixture(scope="module")
def pooled(sets: dict[str, Report]) -> Report:
    return pooled_report(sets, 200, seed=5)


def shares(policy: str) -> tuple[float, float]:
    return len(SMALL[policy]) / 4, len(LARGE[policy]) / 12


def test_each_set_has_the_same_weight(pooled: Report) -> None:
    for policy in SMALL:
        score = pooled.policies[policy]["d"]
        assert score.ap50 == pytest.approx(fmean(map(ap_of_share, shares(policy))))
        assert pooled.ap50_of_sets(policy, "d") == pytest.approx([ap_of_share(share) for share in shares(policy)])
        assert (score.cost_ms, score.n_images, score.n_photos) == (4.0, 32, 16)
    group = pooled.groups["ours"]["d"]
    seeds = [fmean(map(ap_of_share, shares(member))) for member in GROUPS["ours"]]
    assert group.mean.ap50 == pytest.approx(fmean(seeds)) and group.ap50_sd == pytest.approx(stdev(seeds))
    assert pooled.best_static["d"].name == "plain"


def test_photos_are_resampled_in_each_set_with_the_same_ones_for_all_policies(pooled: Report) -> None:
    """The intervals follow from weights that are drawn for each set and AP50 worked out from shares."""
    samples: dict[str, list[np.ndarray]] = {policy: [] for policy in SMALL}
    for stream, (found, n_photos) in enumerate(((SMALL, 4), (LARGE, 12))):
        keys = [(photo, draw) for photo in range(n_photos) for draw in range(2)]
        weights = bootstrap_weights(keys, 200, 5, stream)
        for policy, photos in found.items():
            hit = np.array([photo in photos for photo, _ in keys])
            samples[policy].append(np.array([ap_of_share(row[hit].sum() / row.sum()) for row in weights]))
    mean = {policy: np.mean(both, axis=0) for policy, both in samples.items()}
    mean["ours"] = np.mean([mean["ours/1"], mean["ours/2"]], axis=0)
    assert [(d.a, d.b) for d in pooled.differences] == [("ours", "none"), ("plain", "none"), ("plain", "ours")]
    for d in pooled.differences:
        low, high = np.quantile(mean[d.a] - mean[d.b], [0.025, 0.975])
        assert (d.interval.low, d.interval.high) == pytest.approx((low, high)) and low < high
    assert [d.a for d in pooled.best_static["d"].differences] == ["ours"]


def test_the_sets_are_drawn_independently_and_a_single_set_as_ever() -> None:
    keys = [(photo, 0) for photo in range(500)]
    alone, first, second = (bootstrap_weights(keys, 200, 5, stream) for stream in (None, 0, 1))
    for a, b in pairwise((alone, first, second)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    entropy = np.random.SeedSequence(5)
    assert (alone == np.random.default_rng(entropy).multinomial(500, np.full(500, 1 / 500), size=200)).all()


def test_the_mean_of_the_sets_is_surer_than_each(pooled: Report, sets: dict[str, Report]) -> None:
    difference = pooled.differences[0]
    own = pooled.intervals_of_sets(difference)
    assert own == [one.differences[0].interval for one in sets.values()]
    widths = [interval.high - interval.low for interval in own if interval is not None]
    # Independent sets: the variance of a mean of two is a quarter of the sum of theirs.
    expected = math.hypot(*widths) / 2
    assert difference.interval.high - difference.interval.low == pytest.approx(expected, rel=0.35)
    reversed_ = replace(difference, a=difference.b, b=difference.a)
    assert pooled.intervals_of_sets(reversed_) == [interval.reversed() for interval in own if interval is not None]


def test_reports_that_do_not_fit_together_are_refused(sets: dict[str, Report]) -> None:
    with pytest.raises(ValueError, match="at least two"):
        pooled_report({"a": sets["a/val"]})
    with pytest.raises(ValueError, match="same policies, groups and detectors"):
        pooled_report({"a": sets["a/val"], "b": report_on(LARGE, 12, 1.0, ("d", "e"))})


def test_tables_have_a_column_for_each_set_and_the_mean(pooled: Report, sets: dict[str, Report]) -> None:
    text = score_tables(pooled)
    titles = text.splitlines()[0]
    for title in ("AP50 a/val", "AP50 b <val>", "mean of sets", "sd", "AP75"):
        assert title in titles
    assert "mean of the sets' AP50" in text and "a/val (interval)" in text and " to " in text
    assert "AP50 a/val" not in score_tables(sets["a/val"]) and "mean of sets" not in score_tables(sets["a/val"])
    rows = list(csv.DictReader(io.StringIO(scores_csv(pooled))))
    plain = next(row for row in rows if row["policy"] == "plain")
    of_sets = [float(plain[title]) for title in ("AP50 a/val", "AP50 b <val>")]
    assert float(plain["mean of sets"]) == pytest.approx(fmean(of_sets)) == pytest.approx(fmean([51 / 101, 26 / 101]))
    assert next(row for row in rows if row["policy"] == "ours/2")["AP50 a/val"] == str(76 / 101)
    markdown = markdown_tables(pooled).splitlines()
    assert "| AP50 a/val | AP50 b <val> | mean of sets | sd |" in markdown[0]
    assert "<th>AP50 b &lt;val&gt;</th>" in scores_html(pooled)


@pytest.mark.usefixtures("without_figures")
def test_files_hold_each_set_and_the_mean(pooled: Report, sets: dict[str, Report], tmp_path: Path) -> None:
    write_report(pooled, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert list(content["sets"]) == ["a/val", "b <val>"]
    assert content["sets"]["a/val"] == json.loads(json.dumps(sets["a/val"].to_json()))
    assert "sets" not in content["sets"]["a/val"] and content["notes"][0].startswith("Mean of sets")
    assert any("rough" in note for note in content["notes"]), "12 photos are few, though not in both sets together"
    assert content["policies"]["none"]["d"]["ap50"] == pytest.approx(fmean([26 / 101, 17 / 101]))
    lines = [json.loads(line) for line in (tmp_path / "pipelines.jsonl").read_text().splitlines()]
    assert len(lines) == 4 * 32 and {line["set"] for line in lines} == {"a/val", "b <val>"}
    files = {path.relative_to(tmp_path / "coco").as_posix() for path in (tmp_path / "coco").rglob("*.json")}
    names = ("ground-truth", "none--d", "ours_1--d", "ours_2--d", "plain--d")
    assert files == {f"{folder}/{name}.json" for folder in ("a_val", "b__val_") for name in names}
    html = (tmp_path / "report.html").read_text()
    for text in ("Mean of the data sets: detector d", "a/val: detector d", "b &lt;val&gt;: detector d"):
        assert html.count(f"<h2>{text}</h2>") == 1
    assert "<th>AP50 a/val</th>" in html and "in each data set independently" in html and "<val>" not in html
    write_report(sets["a/val"], tmp_path)  # in the place of the former files
    files = {path.relative_to(tmp_path / "coco").as_posix() for path in (tmp_path / "coco").rglob("*")}
    assert files == {f"{name}.json" for name in names}
    write_report(pooled, tmp_path)
    assert sorted(path.name for path in (tmp_path / "coco").iterdir()) == ["a_val", "b__val_"]


@pytest.mark.long
def test_the_page_with_figures_has_no_id_twice(pooled: Report) -> None:
    import re

    html = render_html(pooled, "T")
    assert html.count("<svg") >= 6
    ids = re.findall(r' id="(m[0-9a-f]{10}|p[0-9a-f]{10})"', html)
    assert ids and len(set(ids)) == len(ids)


def test_a_pooled_report_shows_itself_and_pickles(pooled: Report) -> None:
    assert repr(pooled).startswith("Report(4 policies, 1 detectors, 32 images, d: best 'ours'")
    copy: Report = pickle.loads(pickle.dumps(pooled))
    assert copy.to_json() == pooled.to_json()

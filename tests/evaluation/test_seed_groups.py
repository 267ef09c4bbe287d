"""Groups of seeds: means and deviations by hand, and paired differences against AP50 worked out from the weights."""

import math
from dataclasses import replace

import numpy as np
import pytest

from adaptiveisp.evaluation.bootstrap import Resampling, bootstrap_weights
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.policy_scores import LightBin, PolicyScore
from adaptiveisp.evaluation.seed_groups import compare, group_score, units_of
from adaptiveisp.types import Annotation

LABEL = (Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0),)
NAMES = {1: "person"}
PLAIN = PolicyScore(0.1, 0.2, 0.05, (), {"person": 0.2}, 8, 4, 10.0, 3.0, 5.0, 0.3, 0.6, 0.0, 0.25, False)


def images(found: set[int], n_photos: int = 4, draws: int = 2) -> list[ScoredImage]:
    """Photos with one label each, found without fail in those given, in all draws."""
    result = []
    for photo in range(n_photos):
        n = int(photo in found)
        boxes, scores = np.tile([0.0, 0.0, 10.0, 10.0], (n, 1)), np.full(n, 0.9)
        result += [ScoredImage(photo, draw, 0.1, LABEL, boxes, scores, np.ones(n, int)) for draw in range(draws)]
    return result


def ap_of_share(share: float) -> float:
    """Interpolated AP where a share of the labels is found and nothing else: the recall levels up to it, of 101."""
    return (math.floor(100 * share + 1e-9) + 1) / 101 if share > 0 else 0.0


FOUND = {
    "none": {0},
    "ours/1": {0, 1},
    "ours/2": {0, 1, 2},
    "heuristic": {3, 2},
    "seeded/1": {1},
    "seeded/2": {1, 2, 3},
}
SCORED = {name: images(photos) for name, photos in FOUND.items()}
UNITS = {
    "none": ("none",),
    "ours": ("ours/1", "ours/2"),
    "heuristic": ("heuristic",),
    "seeded": ("seeded/1", "seeded/2"),
}


def test_a_groups_difference_is_the_mean_over_its_members_in_every_resample() -> None:
    static = {"none": True, "ours": False, "heuristic": True, "seeded": False}
    found = compare("d", SCORED, UNITS, static, NAMES, Resampling(200, 3, 0.9))
    weights = bootstrap_weights([image.key for image in SCORED["none"]], 200, 3)
    keys = [image.key for image in SCORED["none"]]

    def sampled(policy: str) -> np.ndarray:
        hit = np.array([photo in FOUND[policy] for photo, _ in keys])
        return np.array([ap_of_share(row[hit].sum() / row.sum()) for row in weights])

    expected = {unit: np.mean([sampled(member) for member in members], axis=0) for unit, members in UNITS.items()}
    pairs = [(d.a, d.b) for d in found.differences]
    assert pairs == [
        ("ours", "none"), ("heuristic", "none"), ("seeded", "none"),
        ("heuristic", "ours"), ("seeded", "ours"), ("seeded", "heuristic"),
    ]  # fmt: skip
    # By hand: one of four photos is 26 of 101 recall levels, two are 51, three are 76.
    assert found.differences[0].interval.mean == pytest.approx(((51 + 76) / 2 - 26) / 101)
    assert found.differences[4].interval.mean == pytest.approx(((26 + 76) / 2 - (51 + 76) / 2) / 101)
    for d in found.differences:
        low, high = np.quantile(expected[d.a] - expected[d.b], [0.05, 0.95])
        assert (d.interval.low, d.interval.high) == pytest.approx((low, high))
        assert (d.interval.level, d.interval.resamples) == (0.9, 200)
        assert d.interval.low < d.interval.high and d.detector == "d"


def test_the_best_static_policy_meets_every_adaptive_one() -> None:
    static = {"none": True, "ours": False, "heuristic": True, "seeded": False}
    best = compare("d", SCORED, UNITS, static, NAMES, Resampling(200)).best_static
    assert best is not None and (best.name, best.ap50) == ("heuristic", pytest.approx(51 / 101))
    assert [(d.a, d.b) for d in best.differences] == [("ours", "heuristic"), ("seeded", "heuristic")]
    assert best.differences[0].interval.mean == pytest.approx((51 + 76) / 2 / 101 - 51 / 101)
    # A group of static runs stands for them with its mean: its best seed alone is not chosen.
    with_group = compare(
        "d", SCORED, UNITS, {**static, "seeded": True, "ours": True}, NAMES, Resampling(200)
    ).best_static
    assert with_group is not None and with_group.name == "ours" and with_group.differences == ()
    assert compare("d", SCORED, UNITS, dict.fromkeys(UNITS, False), NAMES, Resampling(200)).best_static is None


def test_nothing_to_compare() -> None:
    few = Resampling(200)
    alone = compare("d", {"a": SCORED["none"]}, {"a": ("a",)}, {"a": True}, NAMES, few)
    unlabelled = {name: [replace(image, annotations=()) for image in own] for name, own in SCORED.items()}
    empty = compare("d", {name: [] for name in SCORED}, UNITS, dict.fromkeys(UNITS, True), NAMES, few)
    for found in (alone, empty, compare("d", unlabelled, UNITS, dict.fromkeys(UNITS, True), NAMES, few)):
        assert found.differences == [] and found.best_static is None


def test_mean_and_deviation_by_hand() -> None:
    bins = (LightBin(0.003, 0.01, 4, None), LightBin(0.01, 0.03, 4, 0.1))
    first = replace(PLAIN, per_light=bins, per_size={"small": 0.0})
    other_bins = (LightBin(0.003, 0.01, 4, 0.2), LightBin(0.01, 0.03, 4, 0.3))
    second = replace(PLAIN, ap50=0.3, ap=0.1, cost_ms=7.0, loss_worst5=0.8, per_light=other_bins)
    second = replace(second, per_class={"person": 0.4}, per_size={"small": 0.2})
    third = replace(first, ap50=0.7, ms_per_image=None, clock_ms=None)
    group = group_score(("g/1", "g/2", "g/3"), (first, second, third))
    # Deviations from 0.4 are -0.2, -0.1 and 0.3: 0.14 / 2 is the variance.
    assert group.mean.ap50 == pytest.approx(0.4) and group.ap50_sd == pytest.approx(math.sqrt(0.07))
    assert group.ap_sd == 0.0 and group.mean.cost_ms == pytest.approx(17 / 3) and group.mean.ms_per_image is None
    assert group.mean.loss_worst5 == pytest.approx(2 / 3) and group.mean.per_class == {"person": pytest.approx(0.8 / 3)}
    assert group.mean.per_size == {"small": pytest.approx(0.2 / 3)}
    assert [part.ap50 for part in group.mean.per_light] == [None, pytest.approx(0.5 / 3)]
    timed = [replace(PLAIN, clock_ms=ms) for ms in (2.0, 5.0)]
    assert group.mean.clock_ms is None and group_score(("a", "b"), timed).mean.clock_ms == pytest.approx(3.5)
    written = group.to_json()
    assert written["members"] == ["g/1", "g/2", "g/3"] and written["ap50_mean"] == group.mean.ap50
    assert (written["ap50_sd"], written["n_photos"], written["static"]) == (group.ap50_sd, 4, False)
    assert "ap50" not in written
    assert group_score(("g/1",), (first,)).ap50_sd is None
    unscored = group_score(("g/1", "g/2"), (first, replace(first, ap50=None)))
    assert unscored.mean.ap50 is None and unscored.ap50_sd is None


def test_a_group_is_static_only_if_all_its_members_are() -> None:
    fixed = replace(PLAIN, static=True)
    assert group_score("ab", (fixed, fixed)).mean.static
    assert not group_score("ab", (fixed, PLAIN)).mean.static


def test_units_keep_the_order_of_the_policies() -> None:
    groups = {"x": ("x/1", "x/2"), "y": ("y/1",)}
    units = units_of(["y/1", "a", "x/1", "x/2", "b"], groups)
    assert list(units.items()) == [("y", ("y/1",)), ("a", ("a",)), ("x", ("x/1", "x/2")), ("b", ("b",))]

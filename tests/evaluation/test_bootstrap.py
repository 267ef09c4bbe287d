"""The paired bootstrap: its AP against pycocotools on physically repeated images, its intervals on simulated data."""

from dataclasses import replace

import numpy as np
import pytest

from adaptiveisp.evaluation.bootstrap import (
    MatchTable,
    bootstrap_weights,
    paired_difference,
    percentile_interval,
)
from adaptiveisp.evaluation.coco_ap import IOU_THRESHOLDS, ScoredImage, coco_average_precision
from adaptiveisp.types import Annotation
from tests.evaluation.test_coco_ap import CATEGORIES, mean_of, oracle, random_images


@pytest.mark.parametrize("seed", range(30))
def test_weights_of_one_are_coco(seed: int) -> None:
    images = random_images(seed, n_images=2 + seed % 13, ties=seed % 4 == 0, crowds=(0.0, 0.2, 0.8)[seed % 3])
    expected, table = coco_average_precision(images, CATEGORIES), MatchTable(images, CATEGORIES)
    assert table.ap() == pytest.approx(expected.ap50, abs=1e-9)
    assert table.ap(iou=0.75) == pytest.approx(expected.ap75, abs=1e-9)
    assert table.ap(iou=None) == pytest.approx(expected.ap, abs=1e-9)
    assert table.ap(np.ones(len(images), int)) == table.ap()
    assert table.category_ids == list(expected.per_class)


@pytest.mark.parametrize("seed", range(30))
def test_integer_weights_are_repeated_images(seed: int) -> None:
    images = random_images(seed, n_images=10)
    weights = np.random.default_rng(seed).integers(0, 4, len(images))
    repeated = [
        replace(image, image_id=n)
        for n, image in enumerate(i for i, w in zip(images, weights, strict=True) for _ in range(w))
    ]
    precision, table = oracle(repeated)[..., 0], MatchTable(images, CATEGORIES)
    assert table.ap(weights, None) == pytest.approx(mean_of(precision), abs=1e-9)
    for t, threshold in enumerate(IOU_THRESHOLDS):
        assert table.ap(weights, threshold) == pytest.approx(mean_of(precision[t]), abs=1e-9)


def test_matching_agrees_at_the_edges() -> None:
    # Overlap of exactly one half, boxes without area, and more detections than COCO keeps.
    annotations = (
        Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0),
        Annotation(1, (50.0, 50.0, 0.0, 0.0), 0.0),
        Annotation(3, (20.0, 20.0, 40.0, 40.0), 1600.0, iscrowd=1),
        Annotation(3, (20.0, 20.0, 10.0, 10.0), 100.0),
        Annotation(7, (5.0, 5.0, 10.0, 10.0), 100.0),
    )
    crowded = [[21, 21, 31, 31], [30, 30, 40, 40], [40, 40, 50, 50], [55, 55, 65, 65]]
    boxes = np.array([[0, 0, 10, 5], [50, 50, 50, 50], *crowded, *[[80, 80, 90, 90]] * 100, [5, 5, 15, 15]], float)
    categories = np.array([1, 1, 3, 3, 3, 3] + [7] * 101)
    image = ScoredImage(1, 0, None, annotations, boxes, np.linspace(0.9, 0.1, len(boxes)), categories)
    precision, table = oracle([image])[..., 0], MatchTable([image], CATEGORIES)
    for t, threshold in enumerate(IOU_THRESHOLDS):
        assert table.ap(iou=threshold) == pytest.approx(mean_of(precision[t]), abs=1e-9)
    assert coco_average_precision([image], CATEGORIES).ap == pytest.approx(mean_of(precision), abs=1e-9)


def test_many_resamples_at_once_are_the_single_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(8, n_images=20)
    weights = bootstrap_weights([image.key for image in images], 50, seed=3)
    table = MatchTable(images, CATEGORIES)
    together = table.resampled_ap(weights)
    assert together == pytest.approx([table.ap(row) for row in weights], abs=1e-12, nan_ok=True)
    # Chunks must not change anything.
    monkeypatch.setattr("adaptiveisp.evaluation.bootstrap.CHUNK_ELEMENTS", 7)
    assert table.resampled_ap(weights) == pytest.approx(together, abs=1e-12, nan_ok=True)


def test_a_shuffled_set_needs_shuffled_weights_only() -> None:
    images = random_images(5, n_images=15, ties=True)
    weights = np.random.default_rng(0).integers(0, 4, 15)
    order = np.random.default_rng(1).permutation(15)
    shuffled = MatchTable([images[i] for i in order], CATEGORIES)
    assert shuffled.ap(weights[order], None) == pytest.approx(
        MatchTable(images, CATEGORIES).ap(weights, None), abs=1e-12
    )


def test_undefined_and_wrong_weights() -> None:
    labelled = ScoredImage(
        1,
        0,
        None,
        (Annotation(1, (0.0, 0.0, 5.0, 5.0), 25.0),),
        np.array([[0.0, 0.0, 5.0, 5.0]]),
        np.ones(1),
        np.ones(1),
    )
    empty = ScoredImage(2, 0, None, (), np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    table = MatchTable([labelled, empty], CATEGORIES)
    assert table.ap() == pytest.approx(1.0)
    assert table.ap(np.array([0, 2])) is None
    assert MatchTable([], CATEGORIES).ap() is None
    for wrong in (np.ones(3, int), np.array([0.5, 1.0]), np.array([1, -1])):
        with pytest.raises(ValueError, match="weights"):
            table.ap(wrong)
    with pytest.raises(ValueError, match=r"0\.52"):
        table.ap(iou=0.52)


def test_resampling_takes_a_photo_with_all_its_draws() -> None:
    keys = [(7, 0), (9, 0), (7, 1), (8, 0), (9, 1)]
    weights = bootstrap_weights(keys, 300, seed=1)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3)
    assert len(np.unique(weights[:, [0, 1, 3]], axis=0)) == 10  # all ways to draw 3 of 3 photos
    np.testing.assert_array_equal(bootstrap_weights(keys, 300, seed=1), weights)
    assert (bootstrap_weights(keys, 300, seed=2) != weights).any()


def test_identical_detections_have_no_width_and_order_is_irrelevant() -> None:
    images = random_images(2, n_images=30)
    for iou in (0.5, None):
        interval = paired_difference(images, images[::-1], CATEGORIES, iou=iou, resamples=200)
        assert (interval.mean, interval.low, interval.high) == (0.0, 0.0, 0.0)
        assert (interval.level, interval.resamples) == (0.95, 200)


def without(images: list[ScoredImage], share: float, seed: int) -> list[ScoredImage]:
    """The images with each detection dropped with probability `share`."""
    rng = np.random.default_rng(seed)
    kept = [rng.random(len(image.scores)) >= share for image in images]
    return [
        replace(image, boxes=image.boxes[k], scores=image.scores[k], category_ids=image.category_ids[k])
        for image, k in zip(images, kept, strict=True)
    ]


def test_a_clear_advantage_excludes_zero_and_changes_sign_with_the_order() -> None:
    good = random_images(1, n_images=60, skill=1.0)
    poor = without(good, 0.6, seed=0)
    interval = paired_difference(good, poor, CATEGORIES, resamples=300, seed=5)
    a, b = (coco_average_precision(x, CATEGORIES).ap50 for x in (good, poor))
    assert a is not None and b is not None
    assert interval.mean == pytest.approx(a - b, abs=1e-9)
    assert 0 < interval.low < interval.mean < interval.high
    swapped = paired_difference(poor, good, CATEGORIES, resamples=300, seed=5)
    assert (swapped.mean, swapped.low, swapped.high) == pytest.approx((-interval.mean, -interval.high, -interval.low))


def test_pairing_is_narrower_than_independent_samples() -> None:
    a = random_images(4, n_images=80, skill=0.9)
    b = without(a, 0.1, seed=1)
    paired = paired_difference(a, b, CATEGORIES, resamples=400)
    keys = [image.key for image in a]
    apart = MatchTable(a, CATEGORIES).resampled_ap(bootstrap_weights(keys, 400, 1)) - MatchTable(
        b, CATEGORIES
    ).resampled_ap(bootstrap_weights(keys, 400, 2))
    independent = percentile_interval(paired.mean, apart)
    assert paired.high - paired.low < 0.6 * (independent.high - independent.low)


@pytest.mark.long
def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # One label per photo, found without stray boxes with probability p: then AP50 = the share found, to 1/101, and the
    # true difference is p_a - p_b. Three draws of a photo share their luck, so treating them as independent would
    # shrink the interval by sqrt(3) and cover only about 75 %.
    rng = np.random.default_rng(0)
    label = (Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0),)
    trials, covered = 80, 0
    for trial in range(trials):
        sets: list[list[ScoredImage]] = [[], []]
        for photo in range(40):
            for policy, chance in enumerate((0.7, 0.5)):
                n = int(rng.random() < chance)
                boxes = np.tile([0.0, 0.0, 10.0, 10.0], (n, 1))
                sets[policy] += [
                    ScoredImage(photo, draw, None, label, boxes, rng.random(n), np.ones(n, int)) for draw in range(3)
                ]
        interval = paired_difference(sets[0], sets[1], [1], resamples=200, seed=trial)
        covered += interval.low <= 0.2 <= interval.high
    assert 0.86 <= covered / trials <= 0.995


def test_only_the_same_labelled_images_can_be_paired() -> None:
    images = random_images(6, n_images=8)
    with pytest.raises(ValueError, match="different images"):
        paired_difference(images, images[1:], CATEGORIES)
    with pytest.raises(ValueError, match="different images"):
        paired_difference(images, [*images[:-1], replace(images[-1], draw=9)], CATEGORIES)
    with pytest.raises(ValueError, match="labels differ"):
        paired_difference(images, [*images[:-1], replace(images[-1], annotations=())], CATEGORIES)
    with pytest.raises(ValueError, match="resamples 100"):
        paired_difference(images, images, CATEGORIES, resamples=100)
    unlabelled = [replace(image, annotations=()) for image in images]
    with pytest.raises(ValueError, match="undefined"):
        paired_difference(unlabelled, unlabelled, CATEGORIES)


def test_percentiles_by_hand() -> None:
    interval = percentile_interval(0.5, np.append(np.arange(101) / 100, np.nan), level=0.9)
    assert (interval.low, interval.high, interval.resamples) == pytest.approx((0.05, 0.95, 101))


def test_any_whole_number_is_a_seed() -> None:
    keys = [(photo, 0) for photo in range(20)]
    plus, minus, huge = (bootstrap_weights(keys, 50, seed) for seed in (3, -3, -(10**30)))
    np.testing.assert_array_equal(minus, bootstrap_weights(keys, 50, -3))
    assert (minus.sum(axis=1) == 20).all() and (huge.sum(axis=1) == 20).all()
    assert (plus != minus).any()
    # Seeds from 0 are NumPy's own.
    drawn = np.random.default_rng(3).multinomial(20, np.full(20, 1 / 20), size=50)
    np.testing.assert_array_equal(plus, drawn)

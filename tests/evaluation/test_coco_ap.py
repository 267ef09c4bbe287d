"""COCO AP against pycocotools, an implementation that shares no code with the one behind `coco_average_precision`."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from adaptiveisp.evaluation.coco_ap import AveragePrecision, ScoredImage, coco_average_precision, xywh
from adaptiveisp.types import Annotation

CATEGORIES = (1, 3, 7)


def random_images(
    seed: int, n_images: int = 12, ties: bool = False, crowds: float = 0.2, draws: int = 2, skill: float = 0.7
) -> list[ScoredImage]:
    """Images with labels, detections near them, stray detections, crowds, and images that lack one or the other."""
    rng = np.random.default_rng(seed)
    images = []
    for index in range(n_images):
        corner = rng.uniform(0, 200, (rng.integers(0, 7), 2))
        size = rng.uniform(5, 120, corner.shape)
        kinds = rng.choice(CATEGORIES, len(corner))
        annotations = tuple(
            Annotation(int(k), (*map(float, c), *map(float, s)), float(s[0] * s[1]), int(rng.random() < crowds))
            for c, s, k in zip(corner, size, kinds, strict=True)
        )
        boxes, labels = [], []
        for c, s, k in zip(corner, size, kinds, strict=True):
            for _ in range(rng.integers(0, 4)):
                moved = c + rng.normal(0, 0.12, 2) * s
                boxes.append(np.concatenate([moved, moved + s * rng.uniform(0.7, 1.4, 2)]))
                labels.append(k if rng.random() < skill else rng.choice(CATEGORIES))
        for _ in range(rng.integers(0, 5)):
            c = rng.uniform(0, 200, 2)
            boxes.append(np.concatenate([c, c + rng.uniform(5, 120, 2)]))
            labels.append(rng.choice((*CATEGORIES, 99)))
        scores = rng.choice([0.1, 0.5, 0.9], len(boxes)) if ties else rng.random(len(boxes))
        images.append(
            ScoredImage(
                image_id=100 + index // draws,
                draw=index % draws,
                light=float(rng.choice([0.002, 0.02, 0.2, 1.0])),
                annotations=annotations,
                boxes=np.array(boxes, np.float64).reshape(-1, 4),
                scores=scores,
                category_ids=np.array(labels, np.int64),
            )
        )
    return images


def oracle(images: list[ScoredImage], categories: tuple[int, ...] = CATEGORIES) -> np.ndarray:
    """Precision (10 thresholds, 101 recalls, categories) by pycocotools, -1 where undefined."""
    truth = COCO()
    labels = [
        {
            "id": 0,
            "image_id": i,
            "category_id": a.category_id,
            "bbox": list(a.bbox),
            "area": a.area,
            "iscrowd": a.iscrowd,
        }
        for i, image in enumerate(images)
        for a in image.annotations
    ]
    for number, label in enumerate(labels, start=1):
        label["id"] = number
    truth.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(images))],
        "categories": [{"id": c} for c in categories],
        "annotations": labels,
    }
    found = [
        {"image_id": i, "category_id": int(c), "bbox": xywh(b)[0].tolist(), "score": float(s)}
        for i, image in enumerate(images)
        for b, s, c in zip(image.boxes, image.scores, image.category_ids, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.params.catIds = list(categories)
        evaluation.evaluate()
        evaluation.accumulate()
    precision: np.ndarray = evaluation.eval["precision"][..., -1]
    return precision


def mean_of(precision: np.ndarray) -> float | None:
    """Mean over what is defined."""
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


@pytest.mark.parametrize("seed", range(40))
def test_agrees_with_pycocotools(seed: int) -> None:
    images = random_images(seed, n_images=3 + seed % 12, crowds=(0.0, 0.2, 0.8)[seed % 3])
    result, by_size = coco_average_precision(images, CATEGORIES), oracle(images)
    precision = by_size[..., 0]
    assert result.ap == pytest.approx(mean_of(precision), abs=1e-9)
    assert result.ap50 == pytest.approx(mean_of(precision[0]), abs=1e-9)
    assert result.ap75 == pytest.approx(mean_of(precision[5]), abs=1e-9)
    expected = {c: mean_of(precision[0, :, k]) for k, c in enumerate(CATEGORIES)}
    assert result.per_class == pytest.approx({c: v for c, v in expected.items() if v is not None}, abs=1e-9)
    sizes = {name: mean_of(by_size[0, ..., k]) for k, name in enumerate(("small", "medium", "large"), start=1)}
    assert result.per_size == pytest.approx({n: v for n, v in sizes.items() if v is not None}, abs=1e-9)


def test_keeps_a_hundred_detections_per_image_and_category() -> None:
    annotations = (Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0),)
    stray = np.tile([50.0, 50.0, 60.0, 60.0], (100, 1))
    scores = np.linspace(0.9, 0.5, 101)
    for hit, expected in ((99, 1 / 100), (100, 0.0)):
        boxes = np.insert(stray, hit, [0, 0, 10, 10], axis=0)
        image = ScoredImage(1, 0, None, annotations, boxes, scores, np.ones(101, np.int64))
        assert coco_average_precision([image], [1]).ap50 == pytest.approx(expected, abs=1e-9)


def test_value_by_hand() -> None:
    # Two labels; ranked hit, stray, hit: precision 1 up to recall 0.5 (51 levels), then 2/3 for the other 50.
    annotations = (Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0), Annotation(1, (20.0, 0.0, 10.0, 10.0), 100.0))
    boxes = np.array([[20, 0, 30, 10], [70, 0, 80, 10], [0, 0, 10, 10]], np.float32)
    image = ScoredImage(5, 0, 0.1, annotations, boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([1, 1, 1]))
    result = coco_average_precision([image], [1, 2])
    expected = (51 + 50 * 2 / 3) / 101
    assert result.ap == pytest.approx(expected, abs=1e-9)
    assert result.per_class == pytest.approx({1: expected})


def test_without_detections_it_is_zero_and_without_labels_it_is_none() -> None:
    label = Annotation(1, (0.0, 0.0, 10.0, 10.0), 100.0)
    crowd = Annotation(3, (0.0, 0.0, 10.0, 10.0), 100.0, iscrowd=1)
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    something = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([0.5]), np.array([1])
    missed = coco_average_precision([ScoredImage(1, 0, None, (label, crowd), *nothing)], CATEGORIES)
    assert missed == AveragePrecision(0.0, 0.0, 0.0, {1: 0.0}, {"small": 0.0})
    for annotations in ((), (crowd,)):
        undefined = coco_average_precision([ScoredImage(1, 0, None, annotations, *something)], CATEGORIES)
        assert undefined == AveragePrecision(None, None, None, {}, {})
    assert coco_average_precision([], CATEGORIES).ap is None
    assert coco_average_precision([ScoredImage(1, 0, None, (label,), *something)], []).ap is None


def test_draws_of_a_photo_are_images_of_their_own_and_order_does_not_matter() -> None:
    images = random_images(3, ties=True)
    forward = coco_average_precision(images, CATEGORIES)
    assert coco_average_precision(images[::-1], CATEGORIES) == forward
    assert forward.ap == pytest.approx(mean_of(oracle(images)[..., 0]), abs=1e-9)
    with pytest.raises(ValueError, match="given twice"):
        coco_average_precision([images[0], images[0]], CATEGORIES)


@pytest.mark.parametrize(
    ("boxes", "scores", "categories"),
    [
        (np.zeros((2, 4)), np.zeros(1), np.zeros(1)),
        (np.zeros((1, 4)), np.zeros(1), np.zeros(2)),
        (np.full((1, 4), np.nan), np.zeros(1), np.zeros(1)),
        (np.zeros((1, 4)), np.array([np.inf]), np.zeros(1)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray) -> None:
    with pytest.raises(ValueError, match="image 4, draw 2"):
        ScoredImage(4, 2, None, (), boxes, scores, categories)

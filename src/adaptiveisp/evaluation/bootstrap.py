"""Paired bootstrap: intervals for the difference of average precision between two policies on the same images.

Detections are matched to labels once per image, since the matches do not depend on the other images of the sample; a
resample then only counts each image as often as it was drawn. Along the detections of a category, highest score
first, precision rises at hits and falls between them. The interpolated average therefore needs the precision at the
hits alone, which follows from the number of hits and of detections up to each hit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.evaluation.coco_ap import IOU_THRESHOLDS, MAX_DETECTIONS, SIZES, ScoredImage, in_order, xywh
from adaptiveisp.utils import defaults

RECALL_LEVELS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is read. Source: COCO detection evaluation, `recThrs`."""

MIN_RESAMPLES = defaults.MIN_RESAMPLES
"""Fewest resamples; with 200, five of them lie beyond each end of a 95 % interval."""

CHUNK_ELEMENTS = 2_000_000
"""Detections times resamples handled at once, to bound memory (some tens of MB)."""

HIT, MISS, IGNORED = 1, 0, -1


class Resampling(NamedTuple):
    """Settings of the paired bootstrap.

    Attributes:
        resamples: number of resamples.
        seed: seed of the resampling.
        level: nominal coverage of the intervals, between 0 and 1.
    """

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class Interval:
    """A difference a - b of average precision, in 0..1 units, with its bootstrap percentile interval.

    Attributes:
        mean: the difference on the full sample.
        low, high: ends of the interval.
        level: its nominal coverage, e.g. 0.95.
        resamples: number of resamples that it is computed from.
    """

    mean: float
    low: float
    high: float
    level: float
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether both ends lie on one side of zero."""
        return self.low > 0 or self.high < 0

    def reversed(self) -> "Interval":
        """The interval of b - a."""
        return Interval(-self.mean, -self.high, -self.low, self.level, self.resamples)


@dataclass(frozen=True)
class _Ranking:
    """Detections of one category at one IoU threshold, highest score first, up to the last hit.

    Attributes:
        images: image index of each detection; those ignored (on crowds) are left out.
        starts: first detection of each run that ends with a hit.
        hits: image index of each hit.
    """

    images: NDArray[np.intp]
    starts: NDArray[np.intp]
    hits: NDArray[np.intp]


def box_iou(found_xywh: NDArray[np.float64], labels_xywh: NDArray[np.float64], crowd: NDArray[np.bool_]) -> Any:
    """(n, m) intersection over union; for a crowd label, intersection over the detection's own area.

    Args:
        found_xywh: (n, 4) detections.
        labels_xywh: (m, 4) labels.
        crowd: (m,) whether a label is a crowd.

    >>> one, shifted = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 2.0, 2.0]])
    >>> box_iou(one, shifted, np.array([False])).tolist(), box_iou(one, shifted, np.array([True])).tolist()
    ([[0.3333333333333333]], [[0.5]])
    """
    found, label = found_xywh[:, None], labels_xywh[None]
    ends = np.minimum(found[..., :2] + found[..., 2:], label[..., :2] + label[..., 2:])
    sides = np.maximum(ends - np.maximum(found[..., :2], label[..., :2]), 0.0)
    shared = sides[..., 0] * sides[..., 1]
    found_area = found[..., 2] * found[..., 3]
    union = np.where(crowd, found_area, found_area + label[..., 2] * label[..., 3] - shared)
    return np.where(shared > 0, shared / np.where(shared > 0, union, 1.0), 0.0)


def match(iou: NDArray[np.float64], ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(thresholds, n) outcome of each detection, `HIT`, `MISS` or `IGNORED`, by COCO's greedy rule.

    In the order of their scores, each detection is matched to the free label that it overlaps most, if the IoU reaches
    the threshold. A label is matched once. A crowd is matched any number of times, but only to detections that match
    no other label.

    Args:
        iou: (n, m), detections by falling score.
        ignored: (m,) labels that count neither as found nor as missed.
        crowd: (m,) labels that may be matched again.
    """
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    outcome = np.full((len(thresholds), len(iou)), MISS, np.int8)
    free = np.ones((len(thresholds), len(ignored)), np.bool_)
    for detection in np.flatnonzero((iou >= thresholds[0]).any(axis=1)):
        overlap = iou[detection]
        fits = (overlap >= thresholds) & free
        for kind, labels in ((HIT, ~ignored), (IGNORED, ignored)):
            candidates = fits & labels
            rows = np.flatnonzero(candidates.any(axis=1) & (outcome[:, detection] == MISS))
            # Of equal overlaps COCO takes the last label: argmax of the reversed row.
            best = len(ignored) - 1 - np.argmax(np.where(candidates, overlap, -1.0)[rows, ::-1], axis=1)
            outcome[rows, detection] = kind
            free[rows, best] = crowd[best]
    return outcome


def _match_image(image: ScoredImage, category: int) -> tuple[NDArray[np.float64], NDArray[np.int8], int]:
    """Scores (falling), outcomes (thresholds, n) and the number of labels to find, of one image and category."""
    chosen = np.flatnonzero(np.asarray(image.category_ids) == category)
    scores = np.asarray(image.scores, np.float64)[chosen]
    order = np.argsort(-scores, kind="stable")[:MAX_DETECTIONS]
    boxes = xywh(image.boxes)[chosen[order]]
    labels = [annotation for annotation in image.annotations if annotation.category_id == category]
    crowd = np.array([bool(label.iscrowd) for label in labels], np.bool_)
    low, high = SIZES["all"]
    outside = np.array([not low <= label.area <= high for label in labels], np.bool_)
    ignored = crowd | outside
    if not labels:
        return scores[order], np.full((len(IOU_THRESHOLDS), len(order)), MISS, np.int8), 0
    label_boxes = np.array([label.bbox for label in labels], np.float64).reshape(-1, 4)
    return scores[order], match(box_iou(boxes, label_boxes, crowd), ignored, crowd), int((~ignored).sum())


def _rank(scores: NDArray[np.float64], outcome: NDArray[np.int8], images: NDArray[np.intp]) -> _Ranking:
    """The ranking of one category's detections at one threshold."""
    order = np.argsort(-scores, kind="stable")
    order = order[outcome[order] != IGNORED]
    ends = np.flatnonzero(outcome[order] == HIT)
    if len(ends) == 0:
        none = np.zeros(0, np.intp)
        return _Ranking(none, none, none)
    ranked = images[order]
    return _Ranking(ranked[: ends[-1] + 1], np.concatenate([[0], ends[:-1] + 1]), ranked[ends])


class MatchTable:
    """Detections matched to labels once, from which the AP of any resample of the images is computed.

    Args:
        images: labels and detections; weights are given in their order.
        category_ids: the categories to average over.

    Raises:
        ValueError: an image is given twice.
    """

    def __init__(self, images: Sequence[ScoredImage], category_ids: Iterable[int]) -> None:
        self.keys = [image.key for image in images]
        self.category_ids: list[int] = []
        """Categories with at least one label to find."""
        self._labels: list[NDArray[np.int64]] = []
        self._rankings: list[list[_Ranking]] = []
        order = in_order(images)
        present = [
            {int(c) for c in image.category_ids} | {annotation.category_id for annotation in image.annotations}
            for image in images
        ]
        for category in sorted({int(c) for c in category_ids}):
            members = [i for i in order if category in present[i]]
            matched = [_match_image(images[i], category) for i in members]
            labels = np.zeros(len(images), np.int64)
            labels[members] = [n_labels for _, _, n_labels in matched]
            if labels.sum() == 0:
                continue
            scores = np.concatenate([s for s, _, _ in matched])
            outcome = np.concatenate([o for _, o, _ in matched], axis=1)
            owner = np.repeat(np.array(members, np.intp), [len(s) for s, _, _ in matched])
            self.category_ids.append(category)
            self._labels.append(labels)
            self._rankings.append([_rank(scores, row, owner) for row in outcome])

    def ap(self, weights: NDArray[Any] | None = None, iou: float | None = 0.5) -> float | None:
        """AP in 0..1, or None if no label is left to find.

        Args:
            weights: (images,) how often each image counts, integers from 0; None counts each image once.
            iou: one of `IOU_THRESHOLDS`, or None for the mean over all ten.
        """
        counts = np.ones(len(self.keys), np.int64) if weights is None else np.asarray(weights)
        value = float(self.resampled_ap(counts[None], iou)[0])
        return None if np.isnan(value) else value

    def resampled_ap(self, weights: NDArray[Any], iou: float | None = 0.5) -> NDArray[np.float64]:
        """(resamples,) AP in 0..1 of each row of weights, NaN where no label is left to find.

        Args:
            weights: (resamples, images) how often each image counts, integers from 0.
            iou: one of `IOU_THRESHOLDS`, or None for the mean over all ten.

        Raises:
            ValueError: the shape or kind of weights is wrong, or `iou` is not one of the thresholds.
        """
        counts = np.asarray(weights)
        if counts.ndim != 2 or counts.shape[1] != len(self.keys):
            raise ValueError(f"weights {counts.shape} must be (resamples, {len(self.keys)})")
        if not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
            raise ValueError("weights must be integers from 0")
        chosen = range(len(IOU_THRESHOLDS)) if iou is None else [_threshold_index(iou)]
        by_image = np.ascontiguousarray(counts.T, np.int64)
        total = np.zeros(len(counts))
        categories = np.zeros(len(counts))
        for labels, rankings in zip(self._labels, self._rankings, strict=True):
            n_labels = labels @ by_image
            categories += n_labels > 0
            for index in chosen:
                total += _class_ap(rankings[index], by_image, n_labels) / len(chosen)
        return np.where(categories > 0, total / np.maximum(categories, 1), np.nan)


def _threshold_index(iou: float) -> int:
    """Position of `iou` among `IOU_THRESHOLDS`."""
    index = int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
    if abs(IOU_THRESHOLDS[index] - iou) > 1e-9:
        raise ValueError(f"iou {iou} is not one of {', '.join(f'{t:.2f}' for t in IOU_THRESHOLDS)}")
    return index


def _class_ap(ranking: _Ranking, by_image: NDArray[np.int64], n_labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(resamples,) interpolated AP of one category; 0 where it has no label.

    Args:
        ranking: its detections.
        by_image: (images, resamples) weights.
        n_labels: (resamples,) labels to find.
    """
    result = np.zeros(by_image.shape[1])
    if len(ranking.hits) == 0:
        return result
    chunk = max(1, CHUNK_ELEMENTS // len(ranking.images))
    for first in range(0, len(result), chunk):
        part = slice(first, first + chunk)
        weights = by_image[:, part]
        hits = np.cumsum(weights[ranking.hits], axis=0)
        detections = np.cumsum(np.add.reduceat(weights[ranking.images], ranking.starts, axis=0), axis=0)
        # The same guard against 0 / 0 as COCO's code, so that results agree to the last digits.
        precision = hits / (detections + np.spacing(1))
        best_later = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recall = hits / np.maximum(n_labels[part], 1)
        reached = np.searchsorted(RECALL_LEVELS, recall, side="right")
        newly = np.diff(reached, axis=0, prepend=0)
        result[part] = (best_later * newly).sum(axis=0) / len(RECALL_LEVELS)
    return np.where(n_labels > 0, result, 0.0)


def bootstrap_weights(
    keys: Sequence[tuple[int, int]], resamples: int = 1000, seed: int = 0, stream: int | None = None
) -> NDArray[np.int64]:
    """(resamples, images) how often each image is drawn; the draws of a photo are always drawn together.

    The draws of one photo show the same objects, so they are not independent, and photos are resampled as a whole.

    Args:
        keys: (image_id, draw) of each image.
        resamples: number of resamples.
        seed: seed of NumPy's default generator; any whole number.
        stream: number, from 0, of one of several data sets whose photos are drawn independently; None for a single set.
    """
    photos, member = np.unique([image_id for image_id, _ in keys], return_inverse=True)
    n = len(photos)
    # NumPy takes no negative seeds; a second number stands for the sign, so that 3 and -3 differ.
    entropy = seed if seed >= 0 else [1, -seed]
    sequence = np.random.SeedSequence(entropy, spawn_key=() if stream is None else (stream,))
    drawn = np.random.default_rng(sequence).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.asarray(drawn[:, member], np.int64)


def percentile_interval(point: float, samples: NDArray[np.float64], level: float = 0.95) -> Interval:
    """The interval between the (1-level)/2 and (1+level)/2 quantiles of `samples`; NaN samples are left out.

    Args:
        point: value on the full sample.
        samples: (resamples,) values on the resamples.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: all samples are NaN.

    Source: Efron 1979, "Bootstrap methods".
    """
    kept = samples[~np.isnan(samples)]
    if len(kept) == 0:
        raise ValueError("no resample holds a labelled object")
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(point), float(low), float(high), level, len(kept))


def paired_difference(
    a: Sequence[ScoredImage],
    b: Sequence[ScoredImage],
    category_ids: Iterable[int],
    iou: float | None = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """AP of `a` minus AP of `b` in 0..1 units, with a paired bootstrap interval: both have the same resampled photos.

    Args:
        a, b: the same images and labels with the detections of two policies, in any order.
        category_ids: the categories to average over.
        iou: IoU threshold, or None for the mean over 0.50:0.95:0.05.
        resamples: number of resamples, at least `MIN_RESAMPLES`.
        seed: seed of the resampling.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: `a` and `b` are not the same images, no label exists, or a setting is out of range.
    """
    if resamples < MIN_RESAMPLES or not 0 < level < 1:
        raise ValueError(f"resamples {resamples} must be at least {MIN_RESAMPLES} and level {level} between 0 and 1")
    matched_b = aligned(a, b)
    wanted = list(category_ids)
    tables = MatchTable(a, wanted), MatchTable(matched_b, wanted)
    points = [table.ap(iou=iou) for table in tables]
    if points[0] is None or points[1] is None:
        raise ValueError("no labelled object of these categories: average precision is undefined")
    weights = bootstrap_weights(tables[0].keys, resamples, seed)
    first, second = (table.resampled_ap(weights, iou) for table in tables)
    return percentile_interval(points[0] - points[1], first - second, level)


def aligned(a: Sequence[ScoredImage], b: Sequence[ScoredImage]) -> list[ScoredImage]:
    """The images of `b` in the order of `a`.

    Raises:
        ValueError: they are not the same images with the same labels.
    """
    by_key = {image.key: image for image in b}
    keys = [image.key for image in a]
    if set(keys) != set(by_key) or len(b) != len(a):
        odd = sorted(set(keys) ^ set(by_key))
        raise ValueError(f"the two policies were scored on different images, e.g. {odd[:3]}: pair the same images")
    result = [by_key[key] for key in keys]
    for image, other in zip(a, result, strict=True):
        if image.annotations != other.annotations:
            raise ValueError(f"image {image.image_id}, draw {image.draw}: the labels differ between the two policies")
    return result

"""COCO average precision of one detector's output over a set of images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.types import Annotation
from adaptiveisp.utils.optional_imports import import_extra

MAX_DETECTIONS = 100
"""Detections kept per image and category, highest score first. Source: COCO detection evaluation, `maxDets`."""

IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""Thresholds that `ap` averages over. Source: COCO detection evaluation, `iouThrs`."""

SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas of objects, in square pixels of the upright full frame. Source: COCO detection evaluation, `areaRng`."""


@dataclass(frozen=True)
class ScoredImage:
    """One draw of an image with its labels and one detector's output, in pixels of the upright full frame.

    Attributes:
        image_id: id in the data set; draws of one photo share it.
        draw: number of the random draw of light and noise; 0 for real raws.
        light: brightness factor in (0, 1], None if unknown.
        annotations: labelled objects, boxes xywh.
        boxes: (n, 4) detected boxes, xyxy.
        scores: (n,) confidence of each box.
        category_ids: (n,) category of each box, in the ids of `annotations`.

    Raises:
        ValueError: the three arrays disagree in length, or a box or a score is not finite.
    """

    image_id: int
    draw: int
    light: float | None
    annotations: tuple[Annotation, ...]
    boxes: NDArray[Any]
    scores: NDArray[Any]
    category_ids: NDArray[Any]

    def __post_init__(self) -> None:
        """Checks the shapes of the arrays, and that boxes and scores are finite."""
        n = len(self.scores)
        if np.shape(self.boxes) != (n, 4) or np.shape(self.scores) != (n,) or np.shape(self.category_ids) != (n,):
            raise ValueError(
                f"image {self.image_id}, draw {self.draw}: boxes {np.shape(self.boxes)}, "
                f"scores {np.shape(self.scores)} and category_ids {np.shape(self.category_ids)} "
                "must be (n, 4), (n,) and (n,)"
            )
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError(f"image {self.image_id}, draw {self.draw}: a box or a score is not finite")

    @property
    def key(self) -> tuple[int, int]:
        """(image_id, draw), unique in a data set."""
        return self.image_id, self.draw


@dataclass(frozen=True)
class AveragePrecision:
    """COCO average precision in 0..1; None where there is no label to find.

    Attributes:
        ap: mean over IoU thresholds 0.50:0.95:0.05 and categories.
        ap50, ap75: at one IoU threshold.
        per_class: AP50 of each category with at least one label that is not a crowd.
        per_size: AP50 of each size of `SIZES` with at least one label that is not a crowd.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    per_class: dict[int, float]
    per_size: dict[str, float]


def in_order(images: Sequence[ScoredImage]) -> list[int]:
    """The indices that sort `images` by (image_id, draw), the order in which equal scores are ranked.

    Raises:
        ValueError: two of them are the same image and draw.
    """
    order = sorted(range(len(images)), key=lambda i: images[i].key)
    for before, after in pairwise(order):
        if images[before].key == images[after].key:
            raise ValueError(f"image {images[after].image_id}, draw {images[after].draw} is given twice")
    return order


def xywh(boxes_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """The same boxes as (left, top, width, height) in float64.

    >>> xywh(np.array([[1, 2, 4, 8]])).tolist()
    [[1.0, 2.0, 3.0, 6.0]]
    """
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_average_precision(images: Sequence[ScoredImage], category_ids: Iterable[int]) -> AveragePrecision:
    """COCO's average precision, where each (image_id, draw) counts as one image.

    At most 100 detections per image and category count; crowds count neither as found nor as missed. The order of
    `images` does not matter: equal scores are ranked by image id, then draw, then position.

    Args:
        images: labels and detections.
        category_ids: the categories to average over; labels and detections of others are left out.

    Raises:
        ValueError: an image is given twice.
        AdaptiveISPError: faster-coco-eval is not installed.

    Source: Lin et al. 2014, "Microsoft COCO", and its evaluation code.
    """
    order = in_order(images)
    wanted = sorted({int(category) for category in category_ids})
    ids = {images[i].key: number for number, i in enumerate(order, start=1)}
    labels, found = coco_dictionaries([images[i] for i in order], wanted, ids)
    if all(label["iscrowd"] for label in labels):
        return AveragePrecision(None, None, None, {}, {})
    present = sorted({label["category_id"] for label in labels if not label["iscrowd"]})
    if not found:
        return AveragePrecision(0.0, 0.0, 0.0, dict.fromkeys(present, 0.0), dict.fromkeys(_sizes(labels), 0.0))
    by_size = _precision(len(images), wanted, labels, found)
    precision = by_size[..., 0]
    kept = np.isin(wanted, present)
    at50, at75 = precision[0][:, kept], precision[5][:, kept]
    sizes = {name: by_size[0, :, :, place] for place, name in enumerate(SIZES)}
    return AveragePrecision(
        ap=float(precision[:, :, kept].mean()),
        ap50=float(at50.mean()),
        ap75=float(at75.mean()),
        per_class={category: float(value) for category, value in zip(present, at50.mean(axis=0), strict=True)},
        per_size={name: float(sizes[name][sizes[name] > -1].mean()) for name in _sizes(labels)},
    )


def precision_curve(images: Sequence[ScoredImage], category_ids: Iterable[int], iou: float = 0.5) -> list[float]:
    """Interpolated precision in 0..1 at the recalls 0, 0.01, … 1, the mean over the categories that have a label.

    Its mean is the average precision. Empty where there is no label to find.

    Args:
        images, category_ids: as for `coco_average_precision`.
        iou: one of `IOU_THRESHOLDS`.

    Raises:
        ValueError, AdaptiveISPError: as for `coco_average_precision`.
    """
    order = in_order(images)
    wanted = sorted({int(category) for category in category_ids})
    ids = {images[i].key: number for number, i in enumerate(order, start=1)}
    labels, found = coco_dictionaries([images[i] for i in order], wanted, ids)
    present = sorted({label["category_id"] for label in labels if not label["iscrowd"]})
    if not present:
        return []
    if not found:
        return [0.0] * 101
    place = int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))
    precision = _precision(len(images), wanted, labels, found)[place, :, np.isin(wanted, present), 0]
    curve: list[float] = precision.mean(axis=0).tolist()
    return curve


def finds_anything(images: Iterable[ScoredImage], category_ids: Iterable[int]) -> bool:
    """Whether any detection overlaps a label of its category with an IoU of 0.5 or more; crowds do not count.

    Args:
        images: labels and detections.
        category_ids: the categories that count.
    """
    wanted = set(category_ids)
    for image in images:
        for label in image.annotations:
            if label.iscrowd or label.category_id not in wanted:
                continue
            x, y, width, height = label.bbox
            boxes = np.asarray(image.boxes, np.float64)[np.asarray(image.category_ids) == label.category_id]
            over_x = np.minimum(boxes[:, 2], x + width) - np.maximum(boxes[:, 0], x)
            over_y = np.minimum(boxes[:, 3], y + height) - np.maximum(boxes[:, 1], y)
            shared = over_x.clip(0) * over_y.clip(0)
            union = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + width * height - shared
            if (shared >= IOU_THRESHOLDS[0] * union)[union > 0].any():
                return True
    return False


def _sizes(labels: Iterable[Mapping[str, Any]]) -> list[str]:
    """The sizes (without `all`) of labels that are not crowds; an area on a border has both, as in COCO's code."""
    areas = [label["area"] for label in labels if not label["iscrowd"]]
    return [name for name, (low, high) in SIZES.items() if name != "all" and any(low <= a <= high for a in areas)]


def coco_dictionaries(
    images: Sequence[ScoredImage], wanted: Sequence[int], ids: Mapping[tuple[int, int], int]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Labels and detections of the wanted categories as COCO's annotations and results.

    Args:
        images: scored images.
        wanted: ids of categories.
        ids: (image id, draw) → image_id in the dictionaries.
    """
    labels: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in images:
        image_number = ids[image.key]
        for annotation in image.annotations:
            if annotation.category_id in wanted:
                labels.append(
                    {
                        # COCO's evaluation takes id 0 for "unmatched".
                        "id": len(labels) + 1,
                        "image_id": image_number,
                        "category_id": int(annotation.category_id),
                        "bbox": [float(value) for value in annotation.bbox],
                        "area": float(annotation.area),
                        "iscrowd": int(annotation.iscrowd),
                    }
                )
        kept = np.isin(image.category_ids, wanted)
        boxes = xywh(image.boxes)[kept].tolist()
        scores = np.asarray(image.scores, np.float64)[kept].tolist()
        for box, score, category in zip(boxes, scores, np.asarray(image.category_ids)[kept].tolist(), strict=True):
            found.append({"image_id": image_number, "category_id": int(category), "bbox": box, "score": score})
    return labels, found


def _precision(
    n_images: int, wanted: Sequence[int], labels: list[dict[str, Any]], found: list[dict[str, Any]]
) -> NDArray[np.float64]:
    """Interpolated precision, (thresholds, 101 recalls, categories, sizes); -1 for categories without a label."""
    faster_coco_eval = import_extra("faster_coco_eval", "report")
    truth = faster_coco_eval.COCO(
        {
            "images": [{"id": number} for number in range(1, n_images + 1)],
            "categories": [{"id": category, "name": str(category)} for category in wanted],
            "annotations": labels,
        }
    )
    evaluation = faster_coco_eval.COCOeval_faster(truth, truth.loadRes(found), iouType="bbox")
    evaluation.params.areaRng = [list(area) for area in SIZES.values()]
    evaluation.params.areaRngLbl = list(SIZES)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.iouThrs = IOU_THRESHOLDS
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"], np.float64)[:, :, :, :, 0]

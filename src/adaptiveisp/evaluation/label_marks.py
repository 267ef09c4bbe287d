"""Labels and boxes of one image for a page: labels that are found or missed, and boxes without a label."""

from collections.abc import Mapping

import numpy as np

from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.evaluation.bootstrap import box_iou
from adaptiveisp.evaluation.coco_ap import ScoredImage, xywh
from adaptiveisp.evaluation.photo_grid import Mark
from adaptiveisp.inference.drawing import DRAW_CONFIDENCE

FOUND_IOU = 0.5
"""Least overlap of a box with a label of its class that it finds."""


def label_marks(
    image: ScoredImage,
    categories: Mapping[int, str],
    full_size: tuple[int, int],
    confidence: float = DRAW_CONFIDENCE,
) -> tuple[Mark, ...]:
    """The labels and boxes of an image by COCO's rule at an IoU of 0.5: found first, then missed, then false.

    In the order of their scores, each box takes the free label of its class that it overlaps most. Boxes that lie in a
    crowd, and crowds themselves, are neither.

    Args:
        image: labels and detections.
        categories: id → name of the classes that are scored; others are left out.
        full_size: (height, width) of the full frame.
        confidence: least score of a box.
    """
    found, missed, false = list[Mark](), list[Mark](), list[Mark]()
    for category, name in categories.items():
        labels = [a for a in image.annotations if a.category_id == category and min(a.bbox[2:]) > 0]
        chosen = np.flatnonzero((image.category_ids == category) & (image.scores >= confidence))
        order = chosen[np.argsort(-image.scores[chosen], kind="stable")]
        crowd = np.array([bool(a.iscrowd) for a in labels], bool)
        corners = np.array([a.bbox for a in labels], np.float64).reshape(-1, 4)
        overlaps = box_iou(xywh(image.boxes[order]), corners, crowd)
        free = ~crowd
        for index, row in zip(order.tolist(), overlaps, strict=True):
            fits = np.where((row >= FOUND_IOU) & free, row, -1.0)
            box, score = _shares(image.boxes[index].tolist(), full_size), float(image.scores[index])
            if len(fits) and fits.max() > 0:
                free[int(fits.argmax())] = False
                found.append(Mark(box, shown_name(name), "found", score))
            elif not (crowd & (row >= FOUND_IOU)).any():
                false.append(Mark(box, shown_name(name), "false", score))
        for place in np.flatnonzero(free).tolist():
            x, y, width, height = corners[place].tolist()
            missed.append(Mark(_shares([x, y, x + width, y + height], full_size), shown_name(name), "missed"))
    return (*found, *missed, *false)


def _shares(box: list[float], full_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box xyxy in pixels as shares of the sides."""
    height, width = full_size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height

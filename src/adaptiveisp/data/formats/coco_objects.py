"""Reads and checks the annotations of a COCO JSON: their boxes, or the boxes around their polygons."""

from collections.abc import Mapping
from typing import Any

from adaptiveisp.data.values import MAX_ID, finite, numbers, whole
from adaptiveisp.errors import DataError, shown
from adaptiveisp.types import Annotation

BOX_SLACK = 1.0
"""Pixels by which a box may extend beyond its image, since the boxes of COCO are rounded."""
MAX_AREA = 1e10
"""Largest area of an object in square pixels; COCO's evaluation ignores larger ones."""

Box = tuple[float, float, float, float]


def read_annotation(
    entry: Mapping[str, Any],
    sizes: Mapping[int, tuple[str, int, int]],
    categories: Mapping[int, str],
    where: str,
) -> tuple[int, Annotation]:
    """The image id of an annotation, and the annotation itself, checked.

    Args:
        entry: an entry of the list `annotations`.
        sizes: image id → file name, width and height in pixels.
        categories: category id → name.
        where: file and annotation, for errors.

    Raises:
        DataError: the image or category does not exist, or a value is of the wrong kind or out of range.
    """
    image_id, category = (_id(entry, key, where) for key in ("image_id", "category_id"))
    if image_id not in sizes:
        raise DataError(f"{where} belongs to image {image_id}, which is not listed; remove it or list its image")
    if category not in categories:
        raise DataError(f"{where} has the unknown class id {category}; add it to categories or correct it")
    box = _box(entry, where)
    name, width, height = sizes[image_id]
    if not _is_inside(box, width, height):
        x, y, right, bottom = box
        corners = x < right and y < bottom and _is_inside((x, y, right - x, bottom - y), width, height)
        hint = " (these look like the corners x0, y0, x1, y1)" if corners else ""
        raise DataError(
            f"{where}: box {shown(list(box))} (x, y, width, height) does not lie inside its image "
            f"{name} of {width}x{height} pixels; correct or remove it{hint}"
        )
    given, crowd = entry.get("area"), entry.get("iscrowd")
    area = box[2] * box[3] if given is None else finite(given)
    if area is None or not 0 <= area <= MAX_AREA:
        raise DataError(f"{where}: area {shown(given)} must be from 0 to {MAX_AREA:g} square pixels; correct it")
    crowd = int(crowd or 0) if isinstance(crowd, bool | None) else crowd
    return image_id, Annotation(category, box, area, whole(crowd, where, "iscrowd", 0, 1))


def has_box(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation has its own box; some tools write an empty list if there is none."""
    return entry.get("bbox") not in (None, [])


def _id(entry: Mapping[str, Any], key: str, where: str) -> int:
    if key not in entry:
        raise DataError(f"{where}: lacks {key}; add it or remove the annotation")
    return whole(entry[key], where, key, -MAX_ID, MAX_ID)


def _box(entry: Mapping[str, Any], where: str) -> Box:
    """The box xywh of an annotation: its own, or the smallest one around its polygons.

    Raises:
        DataError: the annotation has neither, or its box or polygons are malformed.
    """
    if has_box(entry):
        found = numbers(entry["bbox"], 4)
        if found is None:
            given = shown(entry["bbox"])
            raise DataError(f"{where}: bbox {given} must be four numbers x, y, width, height; correct or remove it")
        return found[0], found[1], found[2], found[3]
    outline = entry.get("segmentation")
    if isinstance(outline, dict):
        remedy = "write its box, which pycocotools.mask.toBbox gives"
        raise DataError(f"{where}: has a mask (run lengths) but no bbox; {remedy}, or remove the annotation")
    if not isinstance(outline, list) or not outline:
        raise DataError(f"{where}: has no bbox and no polygon to take it from; add bbox [x, y, width, height]")
    polygons = outline if all(isinstance(part, list) for part in outline) else [outline]
    corners: list[float] = []
    for polygon in polygons:
        found = numbers(polygon, len(polygon))
        if found is None or len(found) < 6 or len(found) % 2:
            raise DataError(f"{where}: polygon {shown(polygon)} must be x, y of three points or more; correct it")
        corners += found
    xs, ys = corners[::2], corners[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _is_inside(box: Box, width: int, height: int) -> bool:
    """Whether a box xywh lies in its image up to `BOX_SLACK`; a box with infinite values does not."""
    x, y, w, h = box
    return min(w, h) >= 0 and min(x, y) >= -BOX_SLACK and x + w <= width + BOX_SLACK and y + h <= height + BOX_SLACK

"""COCO JSON labels, checked once when they are read, and raws labelled by them.

Source: the COCO data format (Lin et al. 2014), cocodataset.org/#format-data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError
from adaptiveisp.files import read_json
from adaptiveisp.raw import read_raw
from adaptiveisp.types import Annotation, RawImage, Sample

BOX_SLACK = 1.0
"""Pixels a box may stick out of its image: COCO's own boxes are rounded."""

REMEDY = "give a COCO JSON with images, annotations and categories"


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images` with its annotations."""

    id: int
    file_name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    extra: dict[str, Any]


@dataclass(frozen=True)
class CocoLabels:
    """The checked contents of a COCO JSON."""

    path: Path
    images: tuple[CocoImage, ...]
    categories: dict[int, str]


def load_coco(path: Path) -> CocoLabels:
    """Labels of a COCO JSON file; boxes may stick out of their image by a pixel.

    Raises:
        DataError: the file is missing, malformed or empty, or an annotation has an unknown image or class or lies
            outside its image.
    """
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path}: is a folder; {REMEDY}")
    content = read_json(path, DataError, REMEDY)
    try:
        categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        entries = {int(i["id"]): i for i in content["images"]}
        by_image: dict[int, list[Annotation]] = {key: [] for key in entries}
        for number, annotation in enumerate(content["annotations"], 1):
            image_id, checked = _annotation(
                annotation, entries, categories, f"{path}: annotation {annotation.get('id', number)}"
            )
            by_image[image_id].append(checked)
        images = tuple(
            CocoImage(key, str(i["file_name"]), int(i["width"]), int(i["height"]), tuple(by_image[key]), dict(i))
            for key, i in entries.items()
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: malformed ({type(error).__name__}: {error}); {REMEDY}") from error
    if not images:
        raise DataError(f"{path}: lists no images; {REMEDY}")
    return CocoLabels(path, images, categories)


def _annotation(
    entry: dict[str, Any], images: dict[int, dict[str, Any]], categories: dict[int, str], where: str
) -> tuple[int, Annotation]:
    """The image id and the checked annotation."""
    image_id, category = int(entry["image_id"]), int(entry["category_id"])
    if image_id not in images:
        raise DataError(f"{where} belongs to image {image_id}, which is not listed; remove it or list its image")
    if category not in categories:
        raise DataError(f"{where} has the unknown class id {category}; add it to categories or correct it")
    x, y, width, height = (float(v) for v in entry["bbox"])
    image = images[image_id]
    inside = (
        all(math.isfinite(v) for v in (x, y, width, height))
        and min(width, height) >= 0
        and min(x, y) >= -BOX_SLACK
        and x + width <= int(image["width"]) + BOX_SLACK
        and y + height <= int(image["height"]) + BOX_SLACK
    )
    if not inside:
        raise DataError(
            f"{where}: box {entry['bbox']} (x, y, width, height) does not lie inside its image "
            f"{image['file_name']} of {image['width']}x{image['height']} pixels; correct or remove it"
        )
    area = float(entry.get("area", width * height))
    return image_id, Annotation(category, (x, y, width, height), area, int(entry.get("iscrowd", 0)))


class CocoRaws:
    """Raw files labelled by a COCO JSON, for instance a folder made by `synth`.

    An image entry may carry `photo_id`, `draw` and `light` (brightness factor); draws of one photo are resampled
    together when policies are compared.

    Args:
        labels: path of the COCO JSON.
        images: folder that `file_name` is relative to.
        limit: keep the first so many photos, with all their draws; 0 keeps all.
        draw_offset: added to each draw, so that several label files can be joined.
    """

    def __init__(self, labels: Path, images: Path, limit: int = 0, draw_offset: int = 0):
        checked = load_coco(labels)
        self.name = str(labels)
        self.categories = checked.categories
        samples = [self._sample(image, Path(images), draw_offset) for image in checked.images]
        self.samples: Sequence[Sample] = limit_photos(samples, limit)

    @staticmethod
    def _sample(image: CocoImage, folder: Path, draw_offset: int) -> Sample:
        light = image.extra.get("light")
        return Sample(
            image_id=int(image.extra.get("photo_id", image.id)),
            draw=int(image.extra.get("draw", 0)) + draw_offset,
            name=image.file_name,
            width=image.width,
            height=image.height,
            annotations=image.annotations,
            light=None if light is None else float(light),
            source=folder / image.file_name,
        )

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return read_raw(sample.source)


def limit_photos(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """The samples of the first `limit` photos (all for 0), whatever their draws."""
    photos = list(dict.fromkeys(sample.image_id for sample in samples))
    kept = set(photos[:limit] if limit else photos)
    return [sample for sample in samples if sample.image_id in kept]

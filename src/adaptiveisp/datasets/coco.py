"""COCO JSON labels, checked once when they are read, and raws labelled by them.

Source: the COCO data format (Lin et al. 2014), cocodataset.org/#format-data.
"""

import math
import os
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptiveisp.datasets.labels import (
    LabelledImage,
    LabelledObject,
    ParsedSet,
    Problem,
    SetConfig,
    SetOptions,
    files_by_stem,
    shown_name,
    stem_key,
    the_only,
)
from adaptiveisp.errors import DataError
from adaptiveisp.files import read_json
from adaptiveisp.raw import read_raw
from adaptiveisp.rawheader import BayerHeader
from adaptiveisp.types import Annotation, RawImage, Sample

BOX_SLACK = 1.0
"""Pixels a box may stick out of its image: COCO's own boxes are rounded."""

MAX_AREA = 1e10
"""Greatest area of an object in square pixels; COCO's evaluation ignores larger ones."""
MAX_COUNT = 2**31 - 1
"""Greatest side of an image and number of a draw; greater ones are no counts but damage."""
MAX_ID = 2**63 - 1
"""Greatest id; ids are kept in arrays of 64 bits."""

DEFAULTS = SetOptions(images="images", labels="labels.json", annotations="coco")
"""Of the layout `coco`."""

REMEDY = "give a COCO JSON with images, annotations and categories"


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images` with its annotations.

    Attributes:
        id: its id.
        file_name: path of the file, relative and without `..`.
        width, height: size in pixels, upright.
        annotations: its labelled objects.
        photo_id: the photo that a draw was made from; the image's own id if the file does not say.
        draw: which random draw of the photo, 0 if the file does not say.
        light: brightness factor in (0, 1], None if unknown.
    """

    id: int
    file_name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    photo_id: int
    draw: int
    light: float | None


@dataclass(frozen=True)
class CocoLabels:
    """The checked contents of a COCO JSON."""

    path: Path
    images: tuple[CocoImage, ...]
    categories: dict[int, str]


def load_coco(path: Path, labelled: bool = True) -> CocoLabels:
    """Labels of a COCO JSON file; boxes may stick out of their image by a pixel.

    Args:
        path: the file.
        labelled: False takes its images only; classes and annotations are not looked at and may be absent.

    Raises:
        DataError: the file is missing, malformed or empty; an id, or a draw of a photo, is listed twice; a value is of
            the wrong kind or out of range; a file name leads out of its folder; an annotation has an unknown image or
            class or lies outside its image.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder; {REMEDY}")
    return _checked(read_json(path, DataError, REMEDY), path, labelled)


def _checked(content: Any, path: Path, labelled: bool, problems: list[Problem] | None = None) -> CocoLabels:
    """The checked labels; annotations that make no sense are raised, or left out and added to `problems`."""
    where = str(path)
    try:
        categories: dict[int, str] = {}
        for number, entry in enumerate(content["categories"] if labelled else (), 1):
            where = f"{path}: category {number}"
            key = _whole(entry["id"], where, "id", -MAX_ID, MAX_ID)
            if key in categories:
                raise DataError(f"{path}: category id {key} is listed twice; give each class its own id")
            categories[key] = _text(str(entry["name"]), where, "name")
        images: dict[int, CocoImage] = {}
        for number, entry in enumerate(content["images"], 1):
            where = f"{path}: image {number}"
            image = _image(entry, path, where)
            if image.id in images:
                raise DataError(f"{path}: image id {image.id} is listed twice; give each image its own id")
            images[image.id] = image
        by_image: dict[int, list[Annotation]] = {key: [] for key in images}
        for number, entry in enumerate(content["annotations"] if labelled else (), 1):
            where = f"{path}: annotation {number}"
            where = f"{path}: annotation {_shown(entry.get('id', number))}"  # by its own id, once it surely is a dict
            try:
                image_id, checked = _annotation(entry, images, categories, where)
                by_image[image_id].append(checked)
            except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
                if problems is None:
                    raise
                text = str(error) if isinstance(error, DataError) else f"{where}: malformed ({error}); correct it"
                problems.append(Problem("bad box" if "does not lie" in text else "bad label", where, text))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        detail = next(iter(str(error).splitlines()), "")
        raise DataError(f"{where}: malformed ({type(error).__name__}: {detail}); {REMEDY}") from error
    if not images:
        raise DataError(f"{path}: lists no images; {REMEDY}")
    _check_draws(images.values(), path)
    complete = tuple(replace(image, annotations=tuple(by_image[key])) for key, image in images.items())
    return CocoLabels(path, complete, categories)


def _image(entry: dict[str, Any], path: Path, where: str) -> CocoImage:
    """The checked entry, its annotations still missing."""
    key = _whole(entry["id"], where, "id", -MAX_ID, MAX_ID)
    where = f"{path}: image {key}"
    light, photo_id, draw = (entry.get(name) for name in ("light", "photo_id", "draw"))
    return CocoImage(
        id=key,
        file_name=_file_name(entry["file_name"], where),
        width=_whole(entry["width"], where, "width", 1, MAX_COUNT),
        height=_whole(entry["height"], where, "height", 1, MAX_COUNT),
        annotations=(),
        photo_id=key if photo_id is None else _whole(photo_id, where, "photo_id", 0, MAX_ID),
        draw=0 if draw is None else _whole(draw, where, "draw", 0, MAX_COUNT),
        light=None if light is None else _light(light, where),
    )


def _whole(value: Any, where: str, key: str, low: int, high: int) -> int:
    """A whole number in [low, high]; some tools write it as 12.0 or "12"."""
    is_text = isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value)
    if is_text or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        wanted = f"a whole number from {low}" if low >= 0 else "a whole number"
        raise DataError(f"{where}: {key} {_shown(value)} must be {wanted} to {high}; correct it")
    return value


def _light(value: Any, where: str) -> float:
    """A brightness factor in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise DataError(
            f"{where}: light {_shown(value)} must be a number above 0, at most 1; correct it or leave it out"
        )
    return float(value)


def _text(value: Any, where: str, key: str) -> str:
    """Text that can be written to a file: JSON can hold halves of characters."""
    if not isinstance(value, str) or re.search(r"[\ud800-\udfff]", value):
        raise DataError(f"{where}: {key} {_shown(value)} must be text; correct it")
    return value


def _file_name(value: Any, where: str) -> str:
    """A path that stays below the folder it is relative to, in one line."""
    name = _text(value, where, "file_name")
    path = Path(name)
    # Both kinds of separators, so that a label file means the same on every system.
    leads_out = bool(path.anchor) or ".." in re.split(r"[/\\]", name)
    if leads_out or not path.name or "\0" in name or name.splitlines() != [name]:
        raise DataError(f"{where}: file_name {_shown(name)} must be a path below the folder of the images; correct it")
    return name


def _shown(value: Any) -> str:
    """A value for a message: one line, not too long, printable."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_draws(images: Iterable[CocoImage], path: Path) -> None:
    """Refuses two images that would be the same draw of the same photo: results could not be told apart.

    Raises:
        DataError: names both images.
    """
    seen: dict[tuple[int, int], int] = {}
    for image in images:
        first = seen.setdefault((image.photo_id, image.draw), image.id)
        if first != image.id:
            raise DataError(
                f"{path}: images {first} and {image.id} are both draw {image.draw} of photo {image.photo_id}; "
                "number the draws of a photo"
            )


def _annotation(
    entry: dict[str, Any], images: dict[int, CocoImage], categories: dict[int, str], where: str
) -> tuple[int, Annotation]:
    """The image id and the checked annotation."""
    image_id = _whole(entry["image_id"], where, "image_id", -MAX_ID, MAX_ID)
    category = _whole(entry["category_id"], where, "category_id", -MAX_ID, MAX_ID)
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
        and x + width <= image.width + BOX_SLACK
        and y + height <= image.height + BOX_SLACK
    )
    if not inside:
        raise DataError(
            f"{where}: box {_shown(entry['bbox'])} (x, y, width, height) does not lie inside its image "
            f"{image.file_name} of {image.width}x{image.height} pixels; correct or remove it"
        )
    given, crowd = entry.get("area"), entry.get("iscrowd", 0)
    area = width * height if given is None else float(given)
    if not 0 <= area <= MAX_AREA:
        raise DataError(f"{where}: area {area:g} must be from 0 to {MAX_AREA:g} square pixels; correct it")
    iscrowd = _whole(int(crowd) if isinstance(crowd, bool) else crowd, where, "iscrowd", 0, 1)
    return image_id, Annotation(category, (x, y, width, height), area, iscrowd)


class CocoRaws:
    """Raw files labelled by a COCO JSON, for instance a folder made by `synth`.

    An image entry may carry `photo_id`, `draw` and `light` (brightness factor); draws of one photo are resampled
    together when policies are compared.

    Args:
        labels: path of the COCO JSON.
        images: folder that `file_name` is relative to.
        limit: keep the first so many photos, with all their draws; 0 keeps all.
        draw_offset: added to each draw, so that several label files can be joined.
        labelled: False takes the images without classes and annotations, which may be absent.
    """

    def __init__(self, labels: Path, images: Path, limit: int = 0, draw_offset: int = 0, labelled: bool = True):
        checked = load_coco(labels, labelled)
        self.name = str(labels)
        self.categories = checked.categories
        samples = [self._sample(image, Path(images), draw_offset) for image in checked.images]
        self.samples: Sequence[Sample] = limit_photos(samples, limit)

    @staticmethod
    def _sample(image: CocoImage, folder: Path, draw_offset: int) -> Sample:
        return Sample(
            image_id=image.photo_id,
            draw=image.draw + draw_offset,
            name=image.file_name,
            width=image.width,
            height=image.height,
            annotations=image.annotations,
            light=image.light,
            source=folder / image.file_name,
        )

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return read_raw(sample.source)

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample; a sidecar knows the rest."""
        return sample.source, None


def limit_photos(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """The samples of the first `limit` photos (all for 0), whatever their draws."""
    photos = list(dict.fromkeys(sample.image_id for sample in samples))
    kept = set(photos[:limit] if limit else photos)
    return [sample for sample in samples if sample.image_id in kept]


def parse(config: SetConfig, by_stem: bool = False) -> ParsedSet:
    """The images of a COCO JSON named by a data-set YAML.

    Args:
        config: the data set.
        by_stem: take the raw that has the stem of `file_name`, which may be that of a JPG.

    Raises:
        DataError: the JSON is missing, malformed or empty.
    """
    path = config.below(config.options.labels)
    problems: list[Problem] = []
    content = _with_numbers(read_json(path, DataError, REMEDY))
    checked = _checked(content, path, True, problems)
    folder = config.below(config.options.images)
    files = files_by_stem(folder, config.options.extensions) if by_stem else {}
    images = []
    for image in checked.images:
        stem = stem_key(image.file_name)
        if by_stem and stem not in files:
            text = f"{path}: {image.file_name} has no raw below {folder}; add it"
            problems.append(Problem("label without image", f"{path}: {image.file_name}", text))
            continue
        file = the_only(files[stem]) if by_stem else folder / image.file_name
        name = shown_name(file, config.root) if by_stem else image.file_name
        images.append(_labelled(image, file, name, checked.categories, path))
    if not images:
        raise DataError(f"{path}: none of its images is below {folder}; correct images in {config.path}")
    return ParsedSet(tuple(images), tuple(checked.categories.values()), True, tuple(problems))


def _with_numbers(content: Any) -> Any:
    """The JSON with numbers in the place of ids that are texts, as in RAW-NOD; anything else is left as it is."""
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return content
    ids = [entry.get("id") for entry in entries]
    labels = content.get("annotations") or []
    if not isinstance(labels, list) or not all(isinstance(key, Hashable) for key in ids):
        return content  # the checks will say so
    if not any(isinstance(key, str) and not re.fullmatch(r"-?[0-9]{1,19}", key) for key in ids):
        return content
    number: dict[Any, int] = {key: i for i, key in enumerate(ids, 1) if isinstance(key, str)}
    if len(number) < len(ids):
        return content  # listed twice, or of several kinds: the checks will say so
    annotations = [
        {**entry, "image_id": number.get(key, key) if isinstance(key := entry.get("image_id"), str) else key}
        for entry in labels
        if isinstance(entry, dict)
    ]
    images = [{**entry, "id": number[entry["id"]]} for entry in entries]
    return {**content, "images": images, "annotations": annotations}


def _labelled(image: CocoImage, file: Path, name: str, categories: dict[int, str], path: Path) -> LabelledImage:
    """The image as the other readers of labels give it."""
    objects = tuple(
        LabelledObject(
            categories[a.category_id],
            (a.bbox[0], a.bbox[1], a.bbox[0] + a.bbox[2], a.bbox[1] + a.bbox[3]),
            f"{path}: image {image.id} object {number}",
            a.area,
            bool(a.iscrowd),
        )
        for number, a in enumerate(image.annotations, 1)
    )
    return LabelledImage(
        file,
        name,
        image.width,
        image.height,
        objects,
        photo_id=image.photo_id,
        draw=image.draw,
        light=image.light,
    )

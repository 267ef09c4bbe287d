"""Reads and checks COCO JSON labels, and raws that are labelled by them.

Source: the COCO data format (Lin et al. 2014), cocodataset.org/#format-data.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.annotation_checks import UnitWatch, classes_of, outside_note, repeated_note
from adaptiveisp.data.annotations import (
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
from adaptiveisp.data.formats.coco_ids import labelled_categories, unlabelled_note, with_numbers
from adaptiveisp.data.formats.coco_objects import has_box, read_annotation
from adaptiveisp.data.image_paths import find_file, leads_out, read_listed
from adaptiveisp.data.values import MAX_COUNT, MAX_ID, finite, side, text, whole
from adaptiveisp.detectors.class_names import shown_name as class_name
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import Annotation, RawImage, Sample
from adaptiveisp.utils.files import read_json

DEFAULTS = SetOptions(images="images", labels="labels.json", annotations="coco")
"""Defaults of the layout `coco`."""

REMEDY = "give a COCO JSON with images, annotations and categories"


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images` with its annotations.

    Attributes:
        id: its id.
        file_name: path of the file; relative to the folder of the images unless it is absolute.
        width, height: pixels of the upright image.
        annotations: its labelled objects.
        photo_id: id of the photo from which a draw was made; the image's own id if the file does not state it.
        draw: number of the random draw of the photo; 0 if the file does not state it.
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
    """The checked contents of a COCO JSON.

    Attributes:
        path: the file.
        images: its images, in the order of the file.
        categories: category id → name, of the labelled classes alone if the file states which ones are.
        notes: notes on the set as a whole, one line each.
        partly_labelled: whether the file states which classes are labelled, see `coco_ids.labelled_categories`.
    """

    path: Path
    images: tuple[CocoImage, ...]
    categories: dict[int, str]
    notes: tuple[str, ...] = ()
    partly_labelled: bool = False


def load_coco(path: Path, labelled: bool = True) -> CocoLabels:
    """Reads the labels of a COCO JSON file; boxes may extend beyond their image by a pixel.

    Ids may be texts. Categories that are spellings of one class become one category. A missing box is taken from the
    polygons of `segmentation`.

    Args:
        path: the file.
        labelled: whether to read classes and annotations, which may otherwise be absent.

    Raises:
        DataError: the file is missing, malformed or empty; an id, or a draw of a photo, is listed twice; a value is of
            the wrong kind or out of range; an annotation has an unknown image or class or lies outside its image; all
            boxes are in fractions of the image.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder; {REMEDY}")
    checked = _checked(read_json(path, DataError, REMEDY), path, labelled)
    watch = UnitWatch()
    for image in checked.images:
        for x, y, width, height in (annotation.bbox for annotation in image.annotations):
            watch.add(image.file_name, (x, y, x + width, y + height), (image.width, image.height))
    if watch.refusal:
        raise DataError(f"{path}: {watch.refusal}")
    categories, becomes, joined = classes_of(checked.categories)
    categories = {key: class_name(name) for key, name in categories.items()}
    images = tuple(
        replace(image, annotations=tuple(replace(a, category_id=becomes[a.category_id]) for a in image.annotations))
        for image in checked.images
    )
    twice = repeated_note(image.annotations for image in images)
    notes = (*checked.notes, *joined, *watch.notes, *twice)
    return CocoLabels(path, images, categories, notes, checked.partly_labelled)


def _checked(content: Any, path: Path, labelled: bool, problems: list[Problem] | None = None) -> CocoLabels:
    """The checked labels of a parsed JSON.

    Args:
        content: the parsed JSON.
        path: the file, for errors.
        labelled: as for `load_coco`.
        problems: list to which problems of invalid annotations are added; None raises the first of them.
    """
    if not isinstance(content, dict):
        raise DataError(f"{path}: is no mapping of names to lists; {REMEDY}")
    content = with_numbers(content)
    categories = _categories(content, path) if labelled else {}
    images: dict[int, CocoImage] = {}
    for where, entry in _entries(content, "images", "image", path):
        image = _image(entry, path, where)
        if image.id in images:
            raise DataError(f"{path}: image id {image.id} is listed twice; give each image its own id")
        images[image.id] = image
    if not images:
        raise DataError(f"{path}: lists no images; {REMEDY}")
    _check_draws(images.values(), path)
    notes = outside_note(image.file_name for image in images.values() if leads_out(image.file_name))
    by_image: dict[int, list[Annotation]] = {key: [] for key in images}
    if labelled:
        notes += _add_annotations(content, path, categories, images, by_image, problems)
    kept = labelled_categories(content, categories, path) if labelled else None
    if kept is not None:
        categories = {key: name for key, name in categories.items() if key in kept}
        notes += unlabelled_note(by_image.values(), categories)
        by_image = {key: [one for one in own if one.category_id in kept] for key, own in by_image.items()}
    complete = tuple(replace(image, annotations=tuple(by_image[key])) for key, image in images.items())
    return CocoLabels(path, complete, categories, tuple(notes), kept is not None)


def _entries(content: Mapping[str, Any], key: str, what: str, path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yields the place of each entry of a list, for errors, and the entry.

    Raises:
        DataError: the list is missing, or an entry is not a mapping.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        found = f"{key} is no list" if key in content else f"lacks the list {key}"
        raise DataError(f"{path}: {found}; {REMEDY}")
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: {what} {number}: {shown(entry)} is no mapping; {REMEDY}")
        yield f"{path}: {what} {number}", entry


def _needed(entry: Mapping[str, Any], key: str, where: str) -> Any:
    """The value of a required key of an entry.

    Raises:
        DataError: the entry lacks it.
    """
    if key not in entry:
        raise DataError(f"{where}: lacks {key}; {REMEDY}")
    return entry[key]


def _categories(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    """Category id → name."""
    categories: dict[int, str] = {}
    for where, entry in _entries(content, "categories", "category", path):
        key, name = whole(_needed(entry, "id", where), where, "id", -MAX_ID, MAX_ID), _needed(entry, "name", where)
        if key in categories:
            raise DataError(f"{path}: category id {key} is listed twice; give each class its own id")
        if isinstance(name, int | float) and not isinstance(name, bool):
            name = str(name)
        if not text(name, where, "name").strip():
            raise DataError(f"{where}: name {shown(name)} must be text; correct it")
        categories[key] = name
    return categories


def _add_annotations(
    content: Mapping[str, Any],
    path: Path,
    categories: Mapping[int, str],
    images: Mapping[int, CocoImage],
    by_image: Mapping[int, list[Annotation]],
    problems: list[Problem] | None,
) -> list[str]:
    """Adds each annotation to its image in `by_image`, and returns notes on all of them."""
    sizes = {key: (image.file_name, image.width, image.height) for key, image in images.items()}
    derived = 0
    for place, entry in _entries(content, "annotations", "annotation", path):
        where = f"{path}: annotation {shown(entry['id'])}" if "id" in entry else place
        try:
            image_id, annotation = read_annotation(entry, sizes, categories, where)
        except DataError as error:
            if problems is None:
                raise
            problems.append(Problem("bad box" if "does not lie" in str(error) else "bad label", where, str(error)))
        else:
            by_image[image_id].append(annotation)
            derived += not has_box(entry)
    return [f"{derived} annotations have no bbox; their boxes are those of their polygons"] if derived else []


def _image(entry: dict[str, Any], path: Path, where: str) -> CocoImage:
    """A checked entry of `images`, without its annotations."""
    key = whole(_needed(entry, "id", where), where, "id", -MAX_ID, MAX_ID)
    where = f"{path}: image {key}"
    light, photo_id, draw = (entry.get(name) for name in ("light", "photo_id", "draw"))
    return CocoImage(
        id=key,
        file_name=_file_name(_needed(entry, "file_name", where), where),
        width=side(_needed(entry, "width", where), where, "width"),
        height=side(_needed(entry, "height", where), where, "height"),
        annotations=(),
        photo_id=key if photo_id is None else whole(photo_id, where, "photo_id", 0, MAX_ID),
        draw=0 if draw is None else whole(draw, where, "draw", 0, MAX_COUNT),
        light=None if light is None else _light(light, where),
    )


def _light(value: Any, where: str) -> float:
    """A brightness factor in (0, 1]."""
    number = None if isinstance(value, str) else finite(value)
    if number is None or not 0 < number <= 1:
        raise DataError(
            f"{where}: light {shown(value)} must be a number above 0, at most 1; correct it or leave it out"
        )
    return number


def _file_name(value: Any, where: str) -> str:
    """A checked path of an image.

    Raises:
        DataError: the path names no file, or is not one line of text.
    """
    name = text(value, where, "file_name")
    last = Path(name.replace("\\", "/")).name
    if last in ("", "..") or "\0" in name or name.splitlines() != [name]:
        raise DataError(f"{where}: file_name {shown(name)} must be the path of an image; correct it")
    return name


def _check_draws(images: Iterable[CocoImage], path: Path) -> None:
    """Refuses two images that are the same draw of one photo, since their results would have the same key.

    Raises:
        DataError: two images are the same draw.
    """
    seen: dict[tuple[int, int], int] = {}
    for image in images:
        first = seen.setdefault((image.photo_id, image.draw), image.id)
        if first != image.id:
            raise DataError(
                f"{path}: images {first} and {image.id} are both draw {image.draw} of photo {image.photo_id}; "
                "number the draws of a photo"
            )


class CocoRaws:
    """Raw files labelled by a COCO JSON, for instance a folder made by `synth`.

    An entry of `images` may have `photo_id`, `draw` and `light` (brightness factor). Draws of one photo are resampled
    together when policies are compared.

    Args:
        labels: path of the COCO JSON.
        images: folder that `file_name` is relative to.
        limit: number of photos to keep from the start, with all their draws; 0 keeps all.
        draw_offset: added to each draw, so that several label files can be joined.
        labelled: whether to use classes and annotations, which may otherwise be absent.

    Raises:
        DataError: as for `load_coco`.
    """

    def __init__(self, labels: Path, images: Path, limit: int = 0, draw_offset: int = 0, labelled: bool = True):
        checked = load_coco(labels, labelled)
        self.name = str(labels)
        self.categories, self.partly_labelled = checked.categories, checked.partly_labelled
        self.notes: Sequence[str] = checked.notes
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
            source=find_file(folder, image.file_name),
        )

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return read_listed(sample.source)

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample; its sidecar may state facts about it."""
        return sample.source, None


def limit_photos(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """The samples of the first `limit` photos, with all their draws; 0 keeps all photos."""
    photos = list(dict.fromkeys(sample.image_id for sample in samples))
    kept = set(photos[:limit] if limit else photos)
    return [sample for sample in samples if sample.image_id in kept]


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a COCO JSON that a data-set YAML names.

    With `by_stem`, each image is the raw with the stem of `file_name`, which may be the name of a JPEG file.

    Raises:
        DataError: the JSON is missing, malformed or empty.
    """
    by_stem = config.options.by_stem
    path = config.below(config.options.labels)
    problems: list[Problem] = []
    checked = _checked(read_json(path, DataError, REMEDY), path, True, problems)
    folder = config.below(config.options.images)
    files = files_by_stem(folder, config.options.extensions) if by_stem else {}
    images = []
    for image in checked.images:
        stem = stem_key(image.file_name.replace("\\", "/"))
        if by_stem and stem not in files:
            missing = f"{path}: {image.file_name} has no raw below {folder}; add it"
            problems.append(Problem("label without image", f"{path}: {image.file_name}", missing))
            continue
        file = the_only(files[stem]) if by_stem else find_file(folder, image.file_name)
        name = shown_name(file, config.root) if by_stem else image.file_name
        images.append(_labelled(image, file, name, checked.categories, path))
    if not images:
        raise DataError(f"{path}: none of its images is below {folder}; correct images in {config.path}")
    names = tuple(dict.fromkeys(checked.categories.values()))
    return ParsedSet(tuple(images), names, True, tuple(problems), checked.notes, checked.partly_labelled)


def _labelled(image: CocoImage, file: Path, name: str, categories: dict[int, str], path: Path) -> LabelledImage:
    """The image in the common form of all layouts."""
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

"""Validates a whole data set for the command `doctor`, so that its errors are known before a long run.

Every file is read as in training. A problem is a file or label that training or evaluation would leave out, learn
wrongly from, or count twice; `ValidationResult.verdict` states whether they can start.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.image_paths import raw_beside
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.data.opening import Dataset, FolderRaws, left_out, notes_of
from adaptiveisp.data.splits import UnusablePart, why_refused
from adaptiveisp.data.synthetic import read_photo
from adaptiveisp.data.validation_result import ClassFacts, Finding, ImageFacts, ValidationResult
from adaptiveisp.detectors.class_names import canonical, map_classes
from adaptiveisp.errors import DataError, first_few, shown, skip_reason
from adaptiveisp.inference.drawing import Tile, draw_detections
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.raw.develop import upright_size
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.raw.reader import PHOTO_EXTENSIONS
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.files import sha256_of

SHOWN = 12
"""Number of images in the report."""
TILE_SIZE = 416
"""Longer side in pixels of the images in the report."""


def validate_dataset(
    parts: Sequence[tuple[str, Dataset]],
    class_names: Sequence[str],
    known_by: str,
    on_image: Callable[[str], None] = lambda name: None,
) -> ValidationResult:
    """Reads every image and label, and collects the problems.

    Args:
        parts: (name of a split, its data set) of each split, from `open_parts`.
        class_names: class names of the detector for which a policy would be trained.
        known_by: name of that detector, for messages.
        on_image: called with each image's name, for progress.
    """
    opened = [(split, dataset) for split, dataset in parts if not isinstance(dataset, UnusablePart)]
    found = ValidationResult(known_by=known_by, labelled=any(_has_labels(dataset) for _, dataset in opened))
    hashes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    known_names = {canonical(name) for name in class_names}
    stride, number = max(1, sum(len(dataset.samples) for _, dataset in opened) // SHOWN), 0
    for split, dataset in parts:
        found.splits[split] = found.splits.get(split, 0) + len(dataset.samples)
        if isinstance(dataset, UnusablePart):
            found.findings.append(Finding("unusable split", split, dataset.reason))
            continue
        _check_labels(found, split, dataset)
        watch = RemarkWatch()
        known = {key for key, name in dataset.categories.items() if canonical(name) in known_names}
        for sample in dataset.samples:
            try:
                facts, picture = _read_image(split, dataset, sample, known, number % stride == 0, watch)
                hashes[_content_hash(dataset, sample)].append((split, sample.name))
            except Exception as error:  # no error in one file may stop the check
                found.findings.append(Finding("unreadable", split, skip_reason(sample.name, error)))
            else:
                found.images.append(facts)
                found.tiles += [picture] if picture is not None and len(found.tiles) < SHOWN else []
            number += 1
            on_image(sample.name)
        found.findings += [Finding(remark.kind, split, remark.text) for remark, _ in watch.remarks()]
    found.findings += _repeated(hashes)
    _check_classes(found, opened, class_names)
    found.fatal = found.fatal or next(filter(None, (why_refused(dataset) for _, dataset in opened)), "")
    for split, dataset in opened:
        if not any(image.known or not found.labelled for image in found.images if image.split == split):
            reason = _why_nothing_to_learn(split, dataset, known_names, found.labelled)
            found.findings.append(Finding("nothing to learn from", split, reason))
    return found


def _check_labels(found: ValidationResult, split: str, dataset: Dataset) -> None:
    """Adds the problems of single labels, and the notes on a split as a whole."""
    if isinstance(dataset, LabelledRaws):
        found.findings += [Finding(problem.kind, split, problem.text) for problem in dataset.problems]
        found.findings += [Finding("wrong unit", split, dataset.unit_problem)] if dataset.unit_problem else []
        if found.labelled and dataset.unlabelled:
            found.unlabelled[split] = len(dataset.unlabelled)
    else:
        found.findings += [Finding("bad label", split, text) for text in left_out(dataset).values()]
    notes = notes_of(dataset)
    paths = [_path_of(dataset, sample) for sample in dataset.samples]
    beside = [
        path for path in paths if path.suffix.lower() in PHOTO_EXTENSIONS and os.path.isfile(path) and raw_beside(path)
    ]
    if beside:
        found_beside = f"{len(beside)} images are photos with a raw of the same name beside them, first {beside[0]}"
        notes.append(f"{found_beside}; to use the raws set layout: coco and by-stem: true in a data-set YAML")
    found.notes += [f"{split}: {note}" if split else note for note in notes]


def _why_nothing_to_learn(split: str, dataset: Dataset, known_names: set[str], labelled: bool) -> str:
    """The reason why training can learn nothing from a split."""
    where = f"split {split}" if split else "the data set"
    if not labelled:
        return f"{where} has no raw that can be read"
    known = {key for key, name in dataset.categories.items() if canonical(name) in known_names}
    reason = why_nothing((sample.annotations for sample in dataset.samples), known)
    return f"{where} has no image with an object that the detector knows: {reason or 'those with one cannot be read'}"


def _has_labels(dataset: Dataset) -> bool:
    return not isinstance(dataset, FolderRaws) and not (
        isinstance(dataset, LabelledRaws) and dataset.config.options.annotations == "none"
    )


def _path_of(dataset: Dataset, sample: Sample) -> Path:
    return Path(sample.source.image.path if isinstance(dataset, LabelledRaws) else sample.source)


def _content_hash(dataset: Dataset, sample: Sample) -> str:
    return sha256_of(_path_of(dataset, sample))


def _read_image(
    split: str, dataset: Dataset, sample: Sample, known: set[int], with_picture: bool, watch: RemarkWatch
) -> tuple[ImageFacts, Tile | None]:
    """Reads one image, and returns its facts and, if `with_picture`, a rendering with its labels.

    Raises:
        AdaptiveISPError: the image cannot be read, or its size is not that of its labels.
    """
    path = _path_of(dataset, sample)
    if path.suffix.lower() in PHOTO_EXTENSIONS and os.path.exists(path):
        photo = read_photo(path)
        width, height, level, sensor = photo.shape[2], photo.shape[1], _photo_level(photo), "photo, for train --light"
        raw = None
    else:
        photo, raw = None, dataset.read(sample)
        watch.add(raw)
        width, height = upright_size(raw.data.shape[1], raw.data.shape[0], raw.orientation)
        level, sensor = raw_level(raw), raw.camera or f"unknown ({path.suffix.lower()})"
    if sample.width and (width, height) != (sample.width, sample.height):
        expected = f"{sample.width}x{sample.height}"
        remedy = "correct them, or set scale-labels: true in a data-set YAML if only the resolution differs"
        raise DataError(f"{sample.name}: is {width}x{height} upright, its labels say {expected}; {remedy}")
    objects = [annotation for annotation in sample.annotations if not annotation.iscrowd]
    facts = ImageFacts(
        split,
        sample.name,
        width,
        height,
        sensor,
        level,
        len(objects),
        sum(1 for annotation in objects if annotation.category_id in known),
    )
    if not with_picture:
        return facts, None
    return facts, _tile(dataset, sample, raw, photo, f"{width}x{height}, mean level {level:.2g}")


def raw_level(raw: RawImage) -> float:
    """Mean linear value of all pixels and colours; 0 is the black level, 1 the white level."""
    tiles = [raw.data] if raw.pattern is None else [raw.data[i::2, j::2] for i in (0, 1) for j in (0, 1)]
    total = sum(
        float(np.clip((tile - np.float32(black)) / np.float32(raw.white_level - black), 0, 1).sum(dtype=np.float64))
        for tile, black in zip(tiles, raw.black_level, strict=False)
    )
    return total / raw.data.size


def _photo_level(photo: torch.Tensor) -> float:
    """Mean linear value of a photo of sRGB code values in [0, 1]. Source: IEC 61966-2-1."""
    linear = torch.where(photo <= 0.04045, photo / 12.92, ((photo + 0.055) / 1.055) ** 2.4)
    return float(linear.double().mean())


@torch.inference_mode()
def _tile(dataset: Dataset, sample: Sample, raw: RawImage | None, photo: torch.Tensor | None, line: str) -> Tile:
    """The image with its labels; a raw is rendered with auto-exposure, since a dark raw would look black."""
    if raw is not None:
        small = develop_at_size(raw, TILE_SIZE).small
        rgb = to_uint8(AutoExposure().plan(small)[0].render(small)[0])
    else:
        assert photo is not None
        rgb = to_uint8(photo)
    width = sample.width or rgb.shape[1]
    scale = rgb.shape[1] / width
    boxes = [
        (x * scale, y * scale, (x + w) * scale, (y + h) * scale) for x, y, w, h in (a.bbox for a in sample.annotations)
    ]
    names = [dataset.categories.get(annotation.category_id, "") for annotation in sample.annotations]
    return Tile(draw_detections(rgb, boxes, names), sample.name, [line])


def _repeated(hashes: Mapping[str, Sequence[tuple[str, str]]]) -> list[Finding]:
    """Finds images with the same content.

    Two of them in one split count twice; one in each of two splits means that a policy is tested on a training image.

    Args:
        hashes: hash of the content → (split, name) of each image with this content.
    """
    findings = []
    for places in hashes.values():
        by_split: dict[str, list[str]] = defaultdict(list)
        for split, name in places:
            by_split[split].append(name)
        for split, names in by_split.items():
            if len(names) > 1:
                text = f"{names[0]}: the same content as {first_few(names[1:])}; remove all but one"
                findings.append(Finding("duplicate", split, text))
        if len(by_split) > 1:
            where = first_few(f"{names[0]} in {split}" for split, names in by_split.items())
            text = f"{where}: the same content in several splits; keep it in one"
            findings.append(Finding("in several splits", next(iter(by_split)), text))
    return findings


def _check_classes(found: ValidationResult, parts: Sequence[tuple[str, Dataset]], class_names: Sequence[str]) -> None:
    """Counts the objects of each class, and compares the class names with those of the detector."""
    known_names = {canonical(name) for name in class_names}
    counts: Counter[tuple[str, str | None]] = Counter()
    for _, dataset in parts:
        if isinstance(dataset, LabelledRaws):
            counts.update({(name, target): dataset.counts[name] for name, target in dataset.mapping.items()})
    found.classes = [
        ClassFacts(name, target, count, target is not None and canonical(target) in known_names)
        for (name, target), count in counts.most_common()
    ]
    for entry in found.classes:
        if not entry.known and entry.target is not None and entry.count:
            remedy = "name the detector's class under classes in a data-set YAML, or null to leave it out"
            text = f"class {shown(entry.name)} ({entry.count} objects) is unknown to {found.known_by}; {remedy}"
            found.findings.append(Finding("unknown class", "", text))
    reasons = [(split, _why_unmatched(dataset, class_names)) for split, dataset in parts if found.labelled]
    if reasons and all(reason for _, reason in reasons):
        found.fatal = reasons[0][1]
    else:
        found.findings += [Finding("unusable classes", split, reason) for split, reason in reasons if reason]


def _why_unmatched(dataset: Dataset, class_names: Sequence[str]) -> str:
    """The reason why no class of a data set is known to a detector, "" if one is."""
    try:
        map_classes(class_names, dataset.categories)
    except DataError as error:
        return str(error)
    return ""

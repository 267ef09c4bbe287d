"""`doctor`: what a data set holds and what is wrong with it, before a run of hours finds out.

Every file is read as training would read it. A problem is something that training or evaluation would leave out, learn
wrongly from, or count twice; `ValidationResult.verdict` says whether they may start.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.image_paths import raw_beside
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.data.opening import Dataset, FolderRaws, left_out, notes_of
from adaptiveisp.data.splits import UnusablePart, why_refused
from adaptiveisp.data.synthetic import read_photo
from adaptiveisp.detectors.classes import canonical, map_classes
from adaptiveisp.errors import DataError, first_few, shown, skip_reason
from adaptiveisp.inference.drawing import Tile, draw_detections
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.policies.base import AutoExposure
from adaptiveisp.raw.develop import upright_size
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.raw.reader import PHOTO_EXTENSIONS
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.color import to_uint8

SCHEMA_VERSION = 1
LIGHT_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Edges of the histogram of mean levels; they are about half a power of ten apart, since light counts in stops."""
SHOWN = 12
"""Pictures on the page."""
TILE_SIZE = 416

Verdict = Literal["ready", "problems", "unusable"]


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: what it is, in a few words.
        split: where it was found.
        text: one line that names the file and what helps.
    """

    kind: str
    split: str
    text: str


@dataclass(frozen=True)
class ImageFacts:
    """What was seen of one image that can be read.

    Attributes:
        split, name: where it is.
        width, height: pixels, upright.
        sensor: make and model, or the kind of the file.
        level: mean of the linear values, 0 = black level, 1 = white level.
        objects, known: labelled objects, and those whose class the detector knows.
    """

    split: str
    name: str
    width: int
    height: int
    sensor: str
    level: float
    objects: int
    known: int


@dataclass(frozen=True)
class ClassFacts:
    """A class of the data set: its name there, the one it is matched by (None: left out), objects, known or not."""

    name: str
    target: str | None
    count: int
    known: bool


@dataclass
class ValidationResult:
    """All that was found.

    Attributes:
        splits: split → images it lists.
        images: those that can be read.
        classes: in the order of their number of objects.
        findings: the problems.
        known_by: whose class names were compared.
        labelled: the data set is one of labels; without them only `train --labels teacher` can use it.
        unlabelled: split → images without a label file, which are taken as showing nothing; no problem by themselves.
        notes: what a user should know of a split although it can be used, each with the split before it.
        fatal: why training cannot start although there are images, "" otherwise.
        tiles: pictures with their labels.
    """

    splits: dict[str, int] = field(default_factory=dict)
    images: list[ImageFacts] = field(default_factory=list)
    classes: list[ClassFacts] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    known_by: str = ""
    labelled: bool = True
    unlabelled: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fatal: str = ""
    tiles: list[Tile] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Images that training can learn from: readable, with an object that the detector knows if there are labels.

        Where a split is named train, it is the one that counts.
        """
        learned = [image for image in self.images if "train" not in self.splits or image.split == "train"]
        return sum(1 for image in learned if image.known or not self.labelled)

    @property
    def verdict(self) -> Verdict:
        """Whether training may start: "ready"; "problems" where it may, but there are some; "unusable"."""
        if self.fatal or not self.usable:
            return "unusable"
        return "problems" if self.findings else "ready"

    def counts(self) -> dict[str, int]:
        """Kind of problem → how many, most first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def light_histogram(self) -> list[int]:
        """Images in each bin of `LIGHT_EDGES`, the outer bins open."""
        places = np.searchsorted(LIGHT_EDGES, [image.level for image in self.images], side="right")
        return [int(count) for count in np.bincount(places, minlength=len(LIGHT_EDGES) + 1)]

    def to_json(self, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """The content of doctor.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "usable_images": self.usable,
            "fatal": self.fatal,
            "labelled": self.labelled,
            "without_label_file": dict(self.unlabelled),
            "notes": list(self.notes),
            "splits": {split: self._split(split, listed) for split, listed in self.splits.items()},
            "sizes": sizes(self.images),
            "sensors": dict(Counter(image.sensor for image in self.images).most_common()),
            "light": {"edges": list(LIGHT_EDGES), "images": self.light_histogram(), "mean": mean_level(self.images)},
            "classes": [vars(entry) for entry in self.classes],
            "classes_known_by": self.known_by,
            "problems": [vars(finding) for finding in self.findings],
            "problem_counts": self.counts(),
            "provenance": dict(provenance),
        }

    def _split(self, split: str, listed: int) -> dict[str, Any]:
        own = [image for image in self.images if image.split == split]
        return {
            "listed": listed,
            "readable": len(own),
            "with_objects": sum(1 for image in own if image.objects),
            "objects": sum(image.objects for image in own),
            "objects_known": sum(image.known for image in own),
            "mean_level": mean_level(own),
        }


def sizes(images: Iterable[ImageFacts]) -> dict[str, int]:
    """Width x height → images, most first."""
    return dict(Counter(f"{image.width}x{image.height}" for image in images).most_common())


def mean_level(images: Sequence[ImageFacts]) -> float | None:
    """The mean of the images' mean levels, None of nothing."""
    return float(np.mean([image.level for image in images])) if images else None


def validate_dataset(
    parts: Sequence[tuple[str, Dataset]],
    class_names: Sequence[str],
    known_by: str,
    on_image: Callable[[str], None] = lambda name: None,
) -> ValidationResult:
    """Looks at every image and label.

    Args:
        parts: split → data set.
        class_names: of the detector.
        known_by: its name.
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
        _look_at_labels(found, split, dataset)
        watch = RemarkWatch()
        known = {key for key, name in dataset.categories.items() if canonical(name) in known_names}
        for sample in dataset.samples:
            try:
                facts, picture = _look_at(split, dataset, sample, known, number % stride == 0, watch)
                hashes[_content_hash(dataset, sample)].append((split, sample.name))
            except Exception as error:  # whatever one file does to its reader, the others are looked at
                found.findings.append(Finding("unreadable", split, skip_reason(sample.name, error)))
            else:
                found.images.append(facts)
                found.tiles += [picture] if picture is not None and len(found.tiles) < SHOWN else []
            number += 1
            on_image(sample.name)
        found.findings += [Finding(remark.kind, split, remark.text) for remark, _ in watch.remarks()]
    found.findings += _repeated(hashes)
    _look_at_classes(found, opened, class_names)
    found.fatal = found.fatal or next(filter(None, (why_refused(dataset) for _, dataset in opened)), "")
    for split, dataset in opened:
        if not any(image.known or not found.labelled for image in found.images if image.split == split):
            reason = _nothing(split, dataset, known_names, found.labelled)
            found.findings.append(Finding("nothing to learn from", split, reason))
    return found


def _look_at_labels(found: ValidationResult, split: str, dataset: Dataset) -> None:
    """Adds what is wrong with single labels, and what to know of them all."""
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
        told = f"{len(beside)} images are photos with a raw of the same name beside them, first {beside[0]}"
        notes.append(f"{told}; to use the raws set layout: coco and by-stem: true in a data-set YAML")
    found.notes += [f"{split}: {note}" if split else note for note in notes]


def _nothing(split: str, dataset: Dataset, known_names: set[str], labelled: bool) -> str:
    """Why training can learn nothing from a split."""
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
    with _path_of(dataset, sample).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _look_at(
    split: str, dataset: Dataset, sample: Sample, known: set[int], with_picture: bool, watch: RemarkWatch
) -> tuple[ImageFacts, Tile | None]:
    """The facts of one image, and its picture.

    Raises:
        AdaptiveISPError: it cannot be read, or is of another size than its labels say.
    """
    path = _path_of(dataset, sample)
    if path.suffix.lower() in PHOTO_EXTENSIONS and os.path.exists(path):
        photo = read_photo(path)
        width, height, level, sensor = photo.shape[2], photo.shape[1], _photo_level(photo), "photo, for train --light"
        raw = None
    else:
        photo, raw = None, dataset.read(sample)
        watch.look(raw)
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
    """Mean of the linear values between black (0) and white level (1), over all pixels and colours."""
    tiles = [raw.data] if raw.pattern is None else [raw.data[i::2, j::2] for i in (0, 1) for j in (0, 1)]
    total = sum(
        float(np.clip((tile - np.float32(black)) / np.float32(raw.white_level - black), 0, 1).sum(dtype=np.float64))
        for tile, black in zip(tiles, raw.black_level, strict=False)
    )
    return total / raw.data.size


def _photo_level(photo: torch.Tensor) -> float:
    """Mean linear value of an sRGB photo. Source: IEC 61966-2-1."""
    linear = torch.where(photo <= 0.04045, photo / 12.92, ((photo + 0.055) / 1.055) ** 2.4)
    return float(linear.double().mean())


@torch.inference_mode()
def _tile(dataset: Dataset, sample: Sample, raw: RawImage | None, photo: torch.Tensor | None, line: str) -> Tile:
    """The image as auto-exposure shows it, since dark raws show nothing by themselves, with its labels."""
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
    """Images with the same content: in one split they count twice, in two one is tested on what the other learned."""
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


def _look_at_classes(found: ValidationResult, parts: Sequence[tuple[str, Dataset]], class_names: Sequence[str]) -> None:
    """Counts the objects of each class, and compares names."""
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
    """Why a detector cannot learn from a data set's classes, "" if it can."""
    try:
        map_classes(class_names, dataset.categories)
    except DataError as error:
        return str(error)
    return ""

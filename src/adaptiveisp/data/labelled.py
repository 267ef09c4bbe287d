"""The data set of a YAML: labels read by its layout, classes mapped by name, boxes in pixels of the raw."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adaptiveisp.data.annotation_checks import UnitWatch, joined_spellings, repeated_note
from adaptiveisp.data.annotations import LabelledImage, LabelledObject, ParsedSet, Problem, SetConfig
from adaptiveisp.data.formats.coco import limit_photos
from adaptiveisp.data.formats.coco_objects import BOX_SLACK, MAX_AREA
from adaptiveisp.data.image_paths import read_listed
from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.errors import AdaptiveISPError, DataError, RawFileError, UsageError, first_few, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.types import Annotation, RawImage, Sample

ASPECT_SLACK = 0.02
"""Share by which the aspect ratio of scaled labels may differ from that of the raw, by rounding or a crop of a few
pixels."""


@dataclass(frozen=True)
class _Source:
    """A sample's labelled image, and the reason why it cannot be used, or ""."""

    image: LabelledImage
    problem: str = ""


class LabelledRaws:
    """The raws of one split with their labels.

    Args:
        config: the settings of the YAML.
        parsed: the content of its label files.
        limit: number of photos to keep from the start, with all their draws; 0 keeps all.
        labelled: whether to use classes and annotations.
        strict: whether to raise the first invalid label, unless the YAML drops those; otherwise all are left out.

    Attributes:
        problems: problems of single labels, whose objects or images are left out.
        counts: class name of the data set → number of objects, including those that the YAML leaves out.
        mapping: class name of the data set → name of the class here, None for a class that the YAML leaves out.
        partly_labelled: as in `ParsedSet`.
        notes: notes on the set as a whole, one line each.

    Raises:
        DataError: `strict` is set and a label is invalid, or all boxes are in fractions instead of pixels.
        UsageError: `classes` names a class that the data set does not have.
    """

    def __init__(
        self, config: SetConfig, parsed: ParsedSet, limit: int = 0, labelled: bool = True, strict: bool = True
    ):
        self.config = config
        self.name = f"{config.path}:{config.options.split}" if config.options.split else str(config.path)
        self.partly_labelled = parsed.partly_labelled
        self.mapping, joined = _mapping(config, parsed)
        targets = list(dict.fromkeys(target for target in self.mapping.values() if target is not None))
        self.categories = {key: shown_name(name) for key, name in enumerate(targets, 1)} if labelled else {}
        self._ids = (
            {name: targets.index(t) + 1 for name, t in self.mapping.items() if t is not None} if labelled else {}
        )
        self.problems = list(parsed.problems) if labelled else []
        self.counts: Counter[str] = Counter()
        self._units = UnitWatch()
        samples = [
            Sample(_id(image, number), image.draw, image.name, 0, 0, (), image.light, _Source(image))
            for number, image in enumerate(parsed.images, 1)
        ]
        self.samples: Sequence[Sample] = limit_photos(samples, limit)
        if labelled:
            self.samples = [self._labelled(sample) for sample in self.samples]
        twice = repeated_note(sample.annotations for sample in self.samples)
        self.notes = [*parsed.notes, *joined, *self._units.notes, *twice] if labelled else []
        if strict and self.refusal:
            raise DataError(self.refusal)

    @property
    def unlabelled(self) -> list[str]:
        """Names of the images without a label file, which are assumed to show no object."""
        return [sample.name for sample in self.samples if sample.source.image.unlabelled]

    @property
    def refusal(self) -> str:
        """The reason why `strict` refuses the set, with the remedy: its first invalid label; "" if there is none."""
        if self.unit_problem:
            return self.unit_problem
        bad = [problem for problem in self.problems if problem.kind in ("bad label", "bad box")]
        if not bad or self.config.options.bad_labels == "drop":
            return ""
        remedy = f"or set bad-labels: drop in {self.config.path} ({len(bad)} such labels in all)"
        return f"{bad[0].text}, {remedy}; `adaptiveisp doctor` lists them"

    @property
    def unit_problem(self) -> str:
        """The reason why the boxes cannot be in pixels, "" if they can."""
        return f"{self.name}: {self._units.refusal}" if self._units.refusal else ""

    @property
    def left_out(self) -> dict[str, str]:
        """Place of each label or image that is left out → the reason."""
        return {problem.where: problem.text for problem in self.problems}

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample.

        Raises:
            RawFileError: the file cannot be read, or its labels do not fit it.
        """
        raw = read_listed(sample.source.image.path, self.config.header)
        if sample.source.problem:
            raise RawFileError(sample.source.problem)
        return raw

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample, and the facts that the YAML states about it; None for a sample that cannot be used."""
        return None if sample.source.problem else (sample.source.image.path, self.config.header)

    def _labelled(self, sample: Sample) -> Sample:
        """The sample with size and annotations; if the labels do not state its size, the raw's header is read."""
        image: LabelledImage = sample.source.image
        self.counts.update(labelled.name for labelled in image.objects)
        width, height = image.width, image.height
        scale = (1.0, 1.0)
        if image.fractions or self.config.options.scale_labels or not (width and height):
            try:
                full = raw_size(image.path, self.config.header)
                scale = _scale(image, full)
            except AdaptiveISPError as error:
                # The raw is probably unreadable. If `read` can read it nevertheless, it raises this error.
                return replace(sample, source=replace(sample.source, problem=str(error)))
            width, height = full
        annotations = []
        for labelled in image.objects:
            if not image.fractions:
                self._units.add(image.name, labelled.box, (image.width or width, image.height or height))
            if labelled.name in self._ids:
                found = _annotation(labelled, self._ids[labelled.name], scale, (width, height), image)
                if isinstance(found, Problem):
                    self.problems.append(found)
                else:
                    annotations.append(found)
        return replace(sample, width=width, height=height, annotations=tuple(annotations))


def _id(image: LabelledImage, number: int) -> int:
    return number if image.photo_id is None else image.photo_id


def _mapping(config: SetConfig, parsed: ParsedSet) -> tuple[dict[str, str | None], list[str]]:
    """Class name of the data set → name of the class here, and notes on names that mean the same class.

    A name that is not in `classes` is kept in its first spelling.

    Raises:
        UsageError: `classes` names a class that the data set does not have.
    """
    classes = config.options.classes
    unknown = [name for name in classes if name not in parsed.names]
    if unknown and parsed.declared:
        known = first_few(parsed.names)
        raise UsageError(f"{config.path}: classes: {shown(unknown[0])} is no class of the data set; there are {known}")
    targets = {name: classes.get(name, name) for name in parsed.names}
    joined, notes = joined_spellings(target for target in targets.values() if target is not None)
    return {name: None if target is None else joined[target] for name, target in targets.items()}, notes


def _scale(image: LabelledImage, full: tuple[int, int]) -> tuple[float, float]:
    """Pixels of the raw per unit of the labels, (x, y).

    Args:
        image: the labelled image.
        full: (width, height) of the upright raw.

    Raises:
        DataError: the aspect ratios differ, so the labels belong to another image.
    """
    if image.fractions:
        return float(full[0]), float(full[1])
    if not (image.width and image.height):
        return 1.0, 1.0
    scale = (full[0] / image.width, full[1] / image.height)
    if abs(scale[0] / scale[1] - 1) > ASPECT_SLACK:
        found, labels = f"{full[0]}x{full[1]}", f"{image.width}x{image.height}"
        raise DataError(f"{image.path}: is {found} upright, its labels are made on {labels}; correct them")
    return scale


def _annotation(
    labelled: LabelledObject,
    category: int,
    scale: tuple[float, float],
    full: tuple[int, int],
    image: LabelledImage,
) -> Annotation | Problem:
    """The annotation in pixels of the raw, or the problem of its box.

    Args:
        labelled: the object of the label file.
        category: its category id.
        scale: pixels of the raw per unit of the labels, (x, y).
        full: (width, height) of the upright raw.
        image: the image of the object.
    """
    x0, y0, x1, y1 = (value * scale[i % 2] for i, value in enumerate(labelled.box))
    slack_x, slack_y = (BOX_SLACK * max(1.0, ratio if not image.fractions else 1.0) for ratio in scale)
    shown = f"{x0:.1f} {y0:.1f} {x1:.1f} {y1:.1f} (xyxy)"
    if x1 <= x0 or y1 <= y0:
        text = f"{labelled.where}: box {shown} has no area; correct or remove it"
    elif min(x0 / slack_x, y0 / slack_y, (full[0] - x1) / slack_x, (full[1] - y1) / slack_y) < -1 or not math.isfinite(
        x0 + y0 + x1 + y1
    ):
        text = f"{labelled.where}: box {shown} does not lie inside {image.name} of {full[0]}x{full[1]}; correct it"
    else:
        area = (x1 - x0) * (y1 - y0) if labelled.area is None else labelled.area * scale[0] * scale[1]
        return Annotation(category, (x0, y0, x1 - x0, y1 - y0), min(area, MAX_AREA), int(labelled.crowd))
    return Problem("bad box", labelled.where, text)

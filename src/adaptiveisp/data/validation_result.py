"""The result of validating a data set: facts of its images and classes, problems, and whether training can start."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from adaptiveisp.inference.drawing import Tile

SCHEMA_VERSION = 1
LIGHT_EDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Edges of the histogram of mean levels, about half a power of ten apart, since ratios of light matter and differences
do not."""

Verdict = Literal["ready", "problems", "unusable"]


@dataclass(frozen=True)
class Finding:
    """One problem.

    Attributes:
        kind: a few words that are the same for all problems of this kind.
        split: split in which it was found, "" for the whole data set.
        text: one line that names the file and the remedy.
    """

    kind: str
    split: str
    text: str


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one readable image.

    Attributes:
        split, name: its split and its name in the split.
        width, height: size of the upright image in pixels.
        sensor: make and model of the camera, or the extension of the file.
        level: mean of the linear values, 0 = black level, 1 = white level.
        objects: number of its labelled objects, without crowds.
        known: number of objects whose class the detector knows.
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
    """A class of the data set.

    Attributes:
        name: its name in the label files.
        target: the name that is compared with those of the detector; None if the YAML leaves the class out.
        count: number of its objects.
        known: whether the detector knows it.
    """

    name: str
    target: str | None
    count: int
    known: bool


@dataclass
class ValidationResult:
    """The facts and problems of a data set.

    Attributes:
        splits: split → number of images that it lists.
        images: facts of the readable images.
        classes: the classes, in falling order of their number of objects.
        findings: the problems.
        known_by: name of the detector whose class names were compared.
        labelled: whether the data set has labels; without them only `train --labels teacher` can use it.
        unlabelled: split → number of images without a label file. They are assumed to show no object, which is not a
            problem.
        notes: notes on splits that can be used, each beginning with the split.
        fatal: the reason why training cannot start although there are images; "" otherwise.
        tiles: some images with their labels.
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
        """Number of images that training can learn from.

        These are readable and, in a labelled set, have an object that the detector knows. If a split is named train,
        only its images count.
        """
        learned = [image for image in self.images if "train" not in self.splits or image.split == "train"]
        return sum(1 for image in learned if image.known or not self.labelled)

    @property
    def verdict(self) -> Verdict:
        """Whether training can start: "ready", "problems" (it can, but there are problems) or "unusable"."""
        if self.fatal or not self.usable:
            return "unusable"
        return "problems" if self.findings else "ready"

    def counts(self) -> dict[str, int]:
        """Kind of problem → number of problems, the most frequent first."""
        return dict(Counter(finding.kind for finding in self.findings).most_common())

    def light_histogram(self) -> list[int]:
        """Number of images in each bin of `LIGHT_EDGES`; the outer bins are open."""
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
    """Size as WIDTHxHEIGHT → number of images, the most frequent first."""
    return dict(Counter(f"{image.width}x{image.height}" for image in images).most_common())


def mean_level(images: Sequence[ImageFacts]) -> float | None:
    """The mean of the images' mean levels; None if there are no images."""
    return float(np.mean([image.level for image in images])) if images else None

"""What is doubtful about the labels of a whole set, though each label makes sense by itself."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from adaptiveisp.detectors.classes import canonical
from adaptiveisp.errors import first_few, shown
from adaptiveisp.types import Annotation

LEAST_REACH = 0.7
"""Share of width and height that some box of a set should pass. If none does, labels may be of a smaller copy."""
LEAST_BOXES = 30
"""So many boxes are looked at before it is said that none of them reaches far."""
SMALLEST_SIDE = 16
"""Pixels. In a smaller image a box of one pixel may be meant."""


@dataclass
class UnitWatch:
    """Looks for boxes in another unit than pixels of the image.

    Fractions all end within the first pixel. Pixels of a smaller copy all end in the upper left part.
    """

    total: int = 0
    inside: int = 0
    first: str = ""
    reach: tuple[float, float] = (0.0, 0.0)

    def look(self, name: str, box: Sequence[float], size: tuple[int, int]) -> None:
        """Takes a box.

        Args:
            name: of its image.
            box: xyxy in what should be pixels.
            size: width and height of the image that the labels were made on.
        """
        if max(size) < SMALLEST_SIDE or box[2] <= box[0] or box[3] <= box[1]:
            return
        self.total += 1
        self.reach = (max(self.reach[0], box[2] / size[0]), max(self.reach[1], box[3] / size[1]))
        if box[2] <= 1 and box[3] <= 1:
            self.inside += 1
            self.first = self.first or name

    @property
    def refusal(self) -> str:
        """Why the labels cannot be meant so, "" if they can."""
        if not self.total or self.inside < self.total:
            return ""
        found = f"all {self.total} boxes end" if self.total > 1 else "the only box ends"
        return (
            f"{found} within the first pixel of the image, so these look like fractions (0 to 1); write pixels: "
            "x and width times the width of the image, y and height times its height"
        )

    @property
    def notes(self) -> list[str]:
        """A line where some boxes look so and others do not, or where none reaches far."""
        if max(self.reach) < LEAST_REACH and self.total >= LEAST_BOXES and not self.inside:
            across, down = (f"{share:.0%}" for share in self.reach)
            found = f"all {self.total} boxes end within the first {across} of the width and {down} of the height"
            return [f"{found} of their images: were they made on smaller copies?"]
        if not 0 < self.inside < self.total:
            return []
        found = f"{self.inside} of {self.total} boxes end within the first pixel of their image, first in {self.first}"
        return [f"{found}: are these fractions (0 to 1) among pixels?"]


def joined_spellings(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Spelling → the first spelling of the same class, and a note of those that are joined.

    >>> joined_spellings(["Car", "cup", "car"])
    ({'Car': 'Car', 'cup': 'cup', 'car': 'Car'}, ["'Car' and 'car' are spellings of one class and taken for 'Car'"])
    """
    spellings = list(dict.fromkeys(names))
    groups: dict[str, list[str]] = {}
    for name in spellings:
        groups.setdefault(canonical(name), []).append(name)
    joined = {name: group[0] for group in groups.values() for name in group}
    order = {name: joined[name] for name in spellings}
    notes = [
        f"{' and '.join(map(shown, group))} are spellings of one class and taken for {shown(group[0])}"
        for group in groups.values()
        if len(group) > 1
    ]
    return order, notes


def repeated_note(annotations: Iterable[Sequence[Annotation]]) -> list[str]:
    """A line on objects that are labelled twice, with the same box and class: they count twice."""
    repeated = images = 0
    for own in annotations:
        extra = len(own) - len({(one.category_id, one.bbox) for one in own})
        repeated, images = repeated + extra, images + bool(extra)
    if not repeated:
        return []
    return [f"{repeated} objects in {images} images are labelled more than once with the same class and box"]


def why_nothing(annotations: Iterable[Sequence[Annotation]], known: Collection[int]) -> str:
    """Why there is no object to learn from or to score, "" if there is one.

    Args:
        annotations: of each image.
        known: category ids that the detector knows.
    """
    crowds = others = 0
    for one in (label for own in annotations for label in own):
        if one.iscrowd:
            crowds += 1
        elif one.category_id in known:
            return ""
        else:
            others += 1
    if not crowds + others:
        return "no object is labelled"
    told = "a crowd (iscrowd: 1, or marked difficult), which is neither learned from nor scored"
    if not others:
        return f"each of the {crowds} objects is {told}" if crowds > 1 else f"the only object is {told}"
    return f"{others} objects are of other classes" + (f", and each of {crowds} more is {told}" if crowds else "")


def outside_note(names: Iterable[str]) -> list[str]:
    """A line on paths of images that are absolute or go up, where there are any."""
    found = list(names)
    if not found:
        return []
    what = (
        f"{len(found)} file names are absolute or hold `..`"
        if len(found) > 1
        else "a file name is absolute or holds `..`"
    )
    return [f"{what}, so the set cannot be moved and may read files outside its folder: {first_few(found, 3)}"]


def classes_of(categories: Mapping[int, str]) -> tuple[dict[int, str], dict[int, int], list[str]]:
    """Categories with the spellings of a class joined, category id → the id that it becomes, and a note.

    >>> classes_of({1: "tv", 2: "cup", 5: "tvmonitor"})[:2]
    ({1: 'tv', 2: 'cup'}, {1: 1, 2: 2, 5: 1})
    """
    groups: dict[str, list[int]] = {}
    for key, name in categories.items():
        groups.setdefault(canonical(name), []).append(key)
    becomes = {key: groups[canonical(name)][0] for key, name in categories.items()}
    kept = {key: name for key, name in categories.items() if becomes[key] == key}
    notes = [
        f"categories {first_few(f'{key} ({categories[key]})' for key in group)} are one class and taken for the first"
        for group in groups.values()
        if len(group) > 1
    ]
    return kept, becomes, notes

"""Checks the labels of a whole data set for errors that no single label reveals."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from adaptiveisp.detectors.class_names import canonical
from adaptiveisp.errors import first_few, shown
from adaptiveisp.types import Annotation

LEAST_REACH = 0.7
"""Share of width and height that some box of a set should reach; otherwise the labels may be of a smaller copy."""
LEAST_BOXES = 30
"""Least number of boxes for the note that all of them stay below `LEAST_REACH`."""
SMALLEST_SIDE = 16
"""Images with a smaller longer side in pixels are not checked, since a box of one pixel may be correct in them."""


@dataclass
class UnitWatch:
    """Detects boxes that are not in pixels of the image.

    Boxes in fractions all end within the first pixel. Boxes in pixels of a smaller copy all end in the upper left part.

    Attributes:
        total: number of boxes that were added.
        inside: number of those that end within the first pixel.
        first: name of the image of the first of these.
        reach: largest right and bottom edge, as shares of width and height.
    """

    total: int = 0
    inside: int = 0
    first: str = ""
    reach: tuple[float, float] = (0.0, 0.0)

    def add(self, name: str, box: Sequence[float], image_size: tuple[int, int]) -> None:
        """Adds a box.

        Args:
            name: name of its image.
            box: xyxy, supposed to be in pixels.
            image_size: (width, height) of the image that the labels were made on.
        """
        if max(image_size) < SMALLEST_SIDE or box[2] <= box[0] or box[3] <= box[1]:
            return
        self.total += 1
        self.reach = (max(self.reach[0], box[2] / image_size[0]), max(self.reach[1], box[3] / image_size[1]))
        if box[2] <= 1 and box[3] <= 1:
            self.inside += 1
            self.first = self.first or name

    @property
    def refusal(self) -> str:
        """The reason why the boxes cannot be in pixels, "" if they can."""
        if not self.total or self.inside < self.total:
            return ""
        found = f"all {self.total} boxes end" if self.total > 1 else "the only box ends"
        return (
            f"{found} within the first pixel of the image, so these look like fractions (0 to 1); write pixels: "
            "x and width times the width of the image, y and height times its height"
        )

    @property
    def notes(self) -> list[str]:
        """A note if only some boxes look like fractions, or if all boxes stay below `LEAST_REACH`."""
        if max(self.reach) < LEAST_REACH and self.total >= LEAST_BOXES and not self.inside:
            across, down = (f"{share:.0%}" for share in self.reach)
            found = f"all {self.total} boxes end within the first {across} of the width and {down} of the height"
            return [f"{found} of their images: were they made on smaller copies?"]
        if not 0 < self.inside < self.total:
            return []
        found = f"{self.inside} of {self.total} boxes end within the first pixel of their image, first in {self.first}"
        return [f"{found}: are these fractions (0 to 1) among pixels?"]


def joined_spellings(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Spelling → first spelling of the same class, and a note on each class with several spellings.

    >>> joined_spellings(["Car", "cup", "car"])[0]
    {'Car': 'Car', 'cup': 'cup', 'car': 'Car'}
    >>> joined_spellings(["Car", "cup", "car"])[1]
    ["'Car' and 'car' are spellings of one class, which is called 'Car' here"]
    """
    spellings = list(dict.fromkeys(names))
    groups: dict[str, list[str]] = {}
    for name in spellings:
        groups.setdefault(canonical(name), []).append(name)
    joined = {name: group[0] for group in groups.values() for name in group}
    order = {name: joined[name] for name in spellings}
    notes = [
        f"{' and '.join(map(shown, group))} are spellings of one class, which is called {shown(group[0])} here"
        for group in groups.values()
        if len(group) > 1
    ]
    return order, notes


def repeated_note(annotations: Iterable[Sequence[Annotation]]) -> list[str]:
    """A note on objects that are labelled more than once with the same box and class, and so are counted repeatedly."""
    repeated = images = 0
    for own in annotations:
        extra = len(own) - len({(one.category_id, one.bbox) for one in own})
        repeated, images = repeated + extra, images + bool(extra)
    if not repeated:
        return []
    return [f"{repeated} objects in {images} images are labelled more than once with the same class and box"]


def why_nothing(annotations: Iterable[Sequence[Annotation]], known: Collection[int]) -> str:
    """The reason why there is no object to learn from or to score, "" if there is one.

    Args:
        annotations: the annotations of each image.
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
    crowd = "a crowd (iscrowd: 1, or marked difficult), which is neither learned from nor scored"
    if not others:
        return f"each of the {crowds} objects is {crowd}" if crowds > 1 else f"the only object is {crowd}"
    return f"{others} objects are of other classes" + (f", and each of {crowds} more is {crowd}" if crowds else "")


def outside_note(names: Iterable[str]) -> list[str]:
    """A note on paths of images that are absolute or have a part `..`; empty if there are none."""
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
    """Categories with joined spellings of a class, category id → id of its class, and notes on the joined categories.

    >>> classes_of({1: "tv", 2: "cup", 5: "tvmonitor"})[:2]
    ({1: 'tv', 2: 'cup'}, {1: 1, 2: 2, 5: 1})
    """
    groups: dict[str, list[int]] = {}
    for key, name in categories.items():
        groups.setdefault(canonical(name), []).append(key)
    becomes = {key: groups[canonical(name)][0] for key, name in categories.items()}
    kept = {key: name for key, name in categories.items() if becomes[key] == key}
    joined = [first_few(f"{key} ({categories[key]})" for key in group) for group in groups.values() if len(group) > 1]
    notes = [f"categories {names} are spellings of one class and become the first" for names in joined]
    return kept, becomes, notes

"""Class names: the 80 of COCO, names read from files, and the matching of a detector's names with a data set's."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from adaptiveisp.errors import DataError, DetectorError, first_few, one_line, shown

LONGEST_NAME = 100
"""Most characters of a class name. Names of known data sets have fewer than 50; a file may hold any length."""

MOST_CLASSES = 30_000
"""Most classes of a detector; the largest known vocabulary, ImageNet-21k, has 21,841."""

LARGEST_FILE = 16_000_000
"""Most bytes of a file of class names."""

COCO_80: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
    *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
"""COCO's detection classes; the index is the label in YOLO-style detectors. Source: COCO 2017 categories by id."""

ALIASES: dict[str, str] = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""Pascal VOC's spelling → COCO's. Darknet's list of COCO names keeps the former."""


class ClassMap(NamedTuple):
    """The correspondence of a detector's labels with a data set's categories.

    Attributes:
        label_to_category: detector label → category id, for the labels that the data set knows.
        category_to_label: category id → detector label (the lowest, if several labels share a name).
        unmatched: names of the data set's classes that the detector does not have, ordered by category id.
    """

    label_to_category: dict[int, int]
    category_to_label: dict[int, int]
    unmatched: tuple[str, ...]


def canonical(name: str) -> str:
    """The spelling by which class names are compared: lower case, single spaces, COCO's words.

    >>> canonical("Motorbike"), canonical("traffic_light"), canonical("zebra")
    ('motorcycle', 'traffic light', 'zebra')
    """
    plain = re.sub(r"[\s_]+", " ", name).strip().lower()
    return ALIASES.get(plain, plain)


def shown_name(name: str) -> str:
    """A class name for printing, drawing and storing: one printable line of at most `LONGEST_NAME` characters.

    >>> shown_name("traffic\\tlight"), len(shown_name("x" * 5000))
    ('traffic light', 100)
    """
    return one_line(str(name), LONGEST_NAME)


def map_classes(
    detector_names: Sequence[str], dataset_categories: Mapping[int, str], strict: bool = False, where: str = ""
) -> ClassMap:
    """The correspondence of a detector's labels with a data set's categories, matched by canonical name.

    Args:
        detector_names: names of the detector's classes, index = label.
        dataset_categories: category id → name.
        strict: whether to refuse a data set with a class that the detector does not have.
        where: names of data set and detector, for errors.

    Raises:
        DataError: the detector has none of the data set's classes, or (strict) lacks some, or two categories of the
            data set are the same class.

    >>> map_classes(["person", "sofa"], {1: "person", 63: "couch", 99: "unicorn"})
    ClassMap(label_to_category={0: 1, 1: 63}, category_to_label={1: 0, 63: 1}, unmatched=('unicorn',))
    """
    begin = f"{where}: " if where else ""
    by_name: dict[str, int] = {}
    for category_id, name in sorted(dataset_categories.items()):
        first = by_name.setdefault(canonical(name), category_id)
        if first != category_id:
            raise DataError(
                f"{begin}categories {first} ({shown_name(dataset_categories[first])}) and {category_id} "
                f"({shown_name(name)}) "
                "are the same class; merge them in the data set"
            )
    label_to_category = {
        label: by_name[canonical(name)] for label, name in enumerate(detector_names) if canonical(name) in by_name
    }
    category_to_label: dict[int, int] = {}
    for label, category_id in label_to_category.items():
        category_to_label.setdefault(category_id, label)
    unmatched = tuple(name for key, name in sorted(dataset_categories.items()) if key not in category_to_label)
    if unmatched and (strict or not label_to_category):
        amount = "none" if not label_to_category else "some"
        raise DataError(
            f"{begin}{amount} of the data set's classes are known to the detector; "
            f"unknown: {first_few(unmatched)}; "
            "rename them as the detector does or choose another detector"
        )
    return ClassMap(label_to_category, category_to_label, unmatched)


def tidy_names(names: Sequence[str], origin: str | Path) -> tuple[str, ...]:
    """The names, each as one printable line of limited length, see `shown_name`.

    Args:
        names: class names from any file, index = label.
        origin: the file, for errors.

    Raises:
        DetectorError: there are more than `MOST_CLASSES`.
    """
    if len(names) > MOST_CLASSES:
        raise DetectorError(f"{origin}: has {len(names)} class names; at most {MOST_CLASSES} are supported")
    return tuple(shown_name(name) for name in names)


def read_names(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line; empty lines are skipped.

    Raises:
        DetectorError: the file cannot be read, is no text, or is larger than `LARGEST_FILE`.
    """
    remedy = "it must be a text file with one class name a line"
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        lines = content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DetectorError(f"{path}: cannot be read; {remedy}") from error
    if len(content) > LARGEST_FILE:
        raise DetectorError(f"{path}: is larger than {LARGEST_FILE // 1_000_000} MB; {remedy}")
    return tidy_names([line.strip() for line in lines if line.strip()], path)


def names_beside(origin: Path, given: str) -> tuple[str, ...]:
    """The class names in a file to which another file refers; it must lie in the folder of that file or below.

    A model and its sidecar may come from an untrusted source, and must not be able to have other files of the machine
    read and printed.

    Args:
        origin: the file that refers to the list of names.
        given: path of the list, relative to the folder of `origin`.

    Raises:
        DetectorError: the path leads out of that folder, or the file cannot be read.
    """
    paths = (PurePosixPath(given), PureWindowsPath(given))
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)
    path = origin.parent / given
    try:
        leaves = leaves or not path.resolve().is_relative_to(origin.parent.resolve())
    except (OSError, ValueError, RuntimeError):  # not a valid path, such as one with a null byte, or a loop of links
        leaves = True
    if leaves:
        raise DetectorError(
            f"{origin}: names: {shown(given)} lies outside its folder; copy that file beside it and give its name"
        )
    return read_names(path)

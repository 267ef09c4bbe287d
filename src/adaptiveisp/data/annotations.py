"""Types and functions that all layouts share: labelled images, problems, settings, lists of images and stems."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.data.values import read_label_file
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import KNOWN_EXTENSIONS
from adaptiveisp.utils.files import walk_files

ProblemKind = Literal["image without label", "label without image", "bad label", "bad box"]


@dataclass(frozen=True)
class Problem:
    """A problem of the labels of one image.

    Attributes:
        kind: kind of the problem.
        where: the file, with its line or object if there is one.
        text: the problem and the remedy, in one line that begins with `where`.
    """

    kind: ProblemKind
    where: str
    text: str


@dataclass(frozen=True)
class LabelledObject:
    """One object as a label file describes it.

    Attributes:
        name: name of its class in the data set.
        box: xyxy, in pixels or in fractions of the image, see `LabelledImage.fractions`.
        where: file and line, for errors.
        area: area in square pixels; None takes the area of the box.
        crowd: whether it stands for a group of objects, which is neither learned from nor scored.
    """

    name: str
    box: tuple[float, float, float, float]
    where: str
    area: float | None = None
    crowd: bool = False


@dataclass(frozen=True)
class LabelledImage:
    """One image as its labels describe it.

    Attributes:
        path: its file, which may be missing.
        name: name for messages, unique in the set.
        width, height: size in pixels of the upright image that was labelled; 0 if the labels do not state it.
        objects: its labelled objects.
        fractions: whether boxes are fractions of width and height instead of pixels.
        photo_id, draw, light: as in `Sample`; if photo_id is None, the images are numbered.
        unlabelled: whether it has no label file and is assumed to show no object.
    """

    path: Path
    name: str
    width: int
    height: int
    objects: tuple[LabelledObject, ...]
    fractions: bool = False
    photo_id: int | None = None
    draw: int = 0
    light: float | None = None
    unlabelled: bool = False


@dataclass(frozen=True)
class ParsedSet:
    """The content of the label files of a split.

    Attributes:
        images: the images, in a fixed order.
        names: class names, in the order of the data set if it has one.
        declared: whether the data set lists its classes; otherwise `names` are those that its labels use.
        problems: problems of single labels; problems of the whole set are raised as errors instead.
        notes: notes on the set as a whole, one line each.
        partly_labelled: whether objects of classes that are not in `names` may be in the images without a label.
    """

    images: tuple[LabelledImage, ...]
    names: tuple[str, ...]
    declared: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    partly_labelled: bool = False


@dataclass(frozen=True)
class SetOptions:
    """The keys of a data-set YAML, written there with hyphens. Every layout has its own defaults.

    Attributes:
        root: folder of the data set, relative to the folder of the YAML.
        split: name of the split, "" for the whole set.
        splits: the splits that `doctor` compares; if it is empty, they are searched for.
        images, labels: folders (or the label file) below root; `{split}` stands for the name of the split.
        list: the file below root that lists the images of a split; "" if there is none.
        annotations: kind of the label files: "own" is known only to the layout's parser, "none" means no labels.
        extensions: extensions of the image files, if a folder has several files of one stem; empty allows all kinds.
        classes: name in the data set → name of the detector's class, or null to leave its objects out.
        by_stem: whether a COCO JSON names files of another extension, so that raws are found by their stems.
        names: class names by id, if labels are numbers.
        train, val, test: images of a split as in Ultralytics' files: a folder, glob or list file, or several of these.
        scale_labels: whether the labels were made on a resized image, so that boxes are scaled to the raw.
        first_pixel: coordinate of the first pixel in Pascal VOC files, 1 as in the devkit, or 0.
        difficult: "ignore" neither learns from nor scores objects that are marked as difficult.
        bad_labels: "refuse" stops at an invalid label, "drop" leaves it out and reports it.
        missing_labels: an image without a label file shows no object ("background"), is left out and reported ("skip"),
            or is an error ("refuse").
        layout_options: options for the parser of a layout from outside the package.
    """

    root: str = "."
    split: str = ""
    splits: tuple[str, ...] = ()
    images: str = ""
    labels: str = ""
    list: str = ""
    annotations: Literal["yolo", "xml", "labelme", "coco", "own", "none"] = "own"
    extensions: tuple[str, ...] = ()
    classes: Mapping[str, str | None] = field(default_factory=dict)
    by_stem: bool = False
    names: Mapping[int, str] | tuple[str, ...] = ()
    train: str | tuple[str, ...] = ""
    val: str | tuple[str, ...] = ""
    test: str | tuple[str, ...] = ""
    scale_labels: bool = False
    first_pixel: Literal[0, 1] = 0
    difficult: Literal["keep", "ignore"] = "keep"
    bad_labels: Literal["refuse", "drop"] = "refuse"
    missing_labels: Literal["background", "skip", "refuse"] = "skip"
    layout_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SetConfig:
    """The settings for reading a data set.

    Attributes:
        path: the YAML, or another file that errors name.
        layout: name of the layout.
        root: folder of the data set.
        options: the keys of the YAML, and the layout's defaults for the others.
        header: facts about raws whose files do not state them.
    """

    path: Path
    layout: str
    root: Path
    options: SetOptions
    header: BayerHeader | None = None

    def below(self, text: str) -> Path:
        """A path of the options below the root, with `{split}` filled in; an absolute path stays as it is."""
        return self.root / text.replace("{split}", self.options.split)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not blank, without surrounding spaces; a byte-order mark is skipped.

    Args:
        path: the file.
        what: kind of the file for messages, such as "list of images".

    Raises:
        DataError: the file is missing, unreadable, or no UTF-8 text.
    """
    return [line for _, line in numbered_lines(path, what)]


def numbered_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of `read_lines`, each with its number in the file.

    Raises:
        DataError: as for `read_lines`.
    """
    try:
        text = read_label_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save the {what} as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as {what} ({reason}); check the path") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def files_by_stem(folder: Path, extensions: Collection[str]) -> dict[str, list[Path]]:
    """Stem in the Unicode form NFC → the files below a folder that have it, sorted.

    Args:
        folder: the folder, which is searched with its subfolders.
        extensions: extensions of the files; empty allows those of all raws that can be read.

    Raises:
        DataError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder; correct root, images or labels in the data-set YAML")
    wanted = {extension.lower() for extension in extensions} or KNOWN_EXTENSIONS
    found: dict[str, list[Path]] = {}
    for path in files_of_set(folder, wanted):
        found.setdefault(stem_key(path.name), []).append(path)
    return found


def files_of_set(folder: Path, extensions: Collection[str]) -> Iterator[Path]:
    """The files of a folder that a data-set YAML names, with its subfolders; see `walk_files`.

    Raises:
        DataError: the folder is the root of the file system, whose search could take hours.
    """
    top = os.path.realpath(folder)
    if os.path.dirname(top) == top:
        raise DataError(f"{folder}: is the whole file system; name the folder of the set in the data-set YAML")
    return walk_files(folder, extensions)


def stem_key(name: str) -> str:
    """A file name without its extension, as `files_by_stem` keeps it.

    >>> stem_key("raw/2014_000001.nef"), stem_key("12")
    ('2014_000001', '12')
    """
    return unicodedata.normalize("NFC", Path(name).stem)


def the_only(files: list[Path]) -> Path:
    """The only file of a list.

    Raises:
        DataError: there are several files.
    """
    if len(files) > 1:
        names = " and ".join(str(path) for path in files[:2])
        raise DataError(f"{names} have the same name; say which in the data-set YAML, for instance extensions: [.nef]")
    return files[0]


def listed_stems(config: SetConfig) -> list[str] | None:
    """The stems in the list of a split; None if there is no list or no split.

    A line is a stem, a file name or a path.

    Raises:
        DataError: the list is missing or empty, or states which images show a class.
    """
    if not config.options.list or not config.options.split:
        return None
    path = config.below(config.options.list)
    lines = [line.replace("\\", "/") for line in read_lines(path, "list of images")]
    if not lines:
        raise DataError(f"{path}: lists no images; correct it, or `list` in the data-set YAML")
    if is_class_list(lines):
        remedy = "name a split, or write one name a line"
        raise DataError(f"{path}: lists whether each image shows a class ({shown(lines[0])}) and is no split; {remedy}")
    known = KNOWN_EXTENSIONS | {".jpg", ".jpeg", ".xml", ".json"}
    names = [line.rsplit("/", 1)[-1] for line in lines]
    return [stem_key(name) if Path(name).suffix.lower() in known else stem_key(f"{name}.x") for name in names]


def is_class_list(lines: Sequence[str]) -> bool:
    """Whether the lines state for each image whether it shows a class, as in lists beside the splits of Pascal VOC.

    Source: Everingham et al. 2010, Pascal VOC devkit: 1 for shown, -1 for not shown, 0 for difficult ones only.

    >>> is_class_list(["000012 -1", "000017  1"]), is_class_list(["000012", "000017"]), is_class_list(["im 0", "im 1"])
    (True, False, False)
    """
    found = [re.fullmatch(r"(\S+)\s+(?:-1|0|1)", line) for line in lines]
    names = {match[1] for match in found if match is not None}
    return len(names) == len(lines) > 0  # file names such as "im 0" and "im 1" share the part before the number


def shown_name(path: Path, root: Path) -> str:
    """The path relative to the root of the data set, or the whole path if it is not below the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

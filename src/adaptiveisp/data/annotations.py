"""What the readers of label files share: labelled images as the files tell them, problems, lists, files by stem."""

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
    """Something that is wrong with the labels of one image.

    Attributes:
        kind: what it is.
        where: the file, with its line or object if there is one.
        text: what is wrong and what helps, in one line that begins with `where`.
    """

    kind: ProblemKind
    where: str
    text: str


@dataclass(frozen=True)
class LabelledObject:
    """One object as a label file gives it.

    Attributes:
        name: of its class in the data set.
        box: xyxy in the unit of its image's labels.
        where: file and line, for errors.
        area: square pixels, None for that of the box.
        crowd: neither learned from nor scored.
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
        name: to show; unique in the set.
        width, height: of the image the labels were made on, in pixels; 0 where they do not tell it.
        objects: what is labelled.
        fractions: boxes are fractions of width and height instead of pixels.
        photo_id, draw, light: as in `Sample`; photo_id None numbers the images.
        unlabelled: it has no label file, which is taken to say that it shows nothing.
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
    """What the label files of a split say.

    Attributes:
        images: in a fixed order.
        names: class names, in the order of the data set where it has one.
        declared: the data set lists its classes itself; otherwise `names` are those that its labels use.
        problems: of single labels; whatever is wrong with the set as a whole is raised.
        notes: what a user should know about the set as a whole, a line each.
    """

    images: tuple[LabelledImage, ...]
    names: tuple[str, ...]
    declared: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetOptions:
    """What a data-set YAML may say; a key is the name here with hyphens. Every layout has its own defaults.

    Attributes:
        root: folder of the data set, relative to the YAML's own.
        split: which part, by its name; "" is the whole.
        splits: the parts there are, for `doctor`; empty looks for them.
        images, labels: folders (or the label file) below root, `{split}` standing for the split.
        list: the file that lists the images of a split, below root; "" has none.
        annotations: kind of the label files: "own" is known to the layout's parser alone, "none" has no labels.
        extensions: of the image files, where several lie side by side; empty takes all that can be read.
        classes: name in the data set → name of the detector's class, or null to leave its objects out.
        by_stem: a COCO JSON names files of another extension: take the raws that have their stems.
        names: class names by id, where labels are numbers.
        train, val, test: images of a split in the manner of Ultralytics: a folder, glob or list file, or several.
        scale_labels: the labels were made on a resized image: fit their boxes to the raw's size.
        first_pixel: what Pascal VOC files call the first pixel, 1 as the devkit does, or 0.
        difficult: "ignore" takes objects that are marked so out of learning and scoring.
        bad_labels: "refuse" stops at a label that makes no sense, "drop" leaves it out and reports it.
        missing_labels: an image without a label file is "background", left out and reported ("skip"), or an error.
        layout_options: options of a layout from outside the package, for its parser alone.
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
    """A data set to read.

    Attributes:
        path: the YAML, or what stands for it in errors.
        layout: its name.
        root: the folder.
        options: the rest of the YAML over the layout's defaults.
        header: facts about raws that do not carry them.
    """

    path: Path
    layout: str
    root: Path
    options: SetOptions
    header: BayerHeader | None = None

    def below(self, text: str) -> Path:
        """A path of the options, `{split}` filled in; absolute ones are left as they are."""
        return self.root / text.replace("{split}", self.options.split)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not blank, without spaces around them; any line ends, with or without a mark.

    Raises:
        DataError: it is missing, unreadable, or no UTF-8 text.
    """
    return [line for _, line in numbered_lines(path, what)]


def numbered_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The same with the number of each line."""
    try:
        text = read_label_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start}); save the {what} as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read as {what} ({reason}); check the path") from error
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def files_by_stem(folder: Path, extensions: Collection[str]) -> dict[str, list[Path]]:
    """Stem, in the NFC form → the files below a folder that have it, sorted.

    Args:
        folder: searched with its subfolders.
        extensions: of the files, in lower case; none takes all raws that can be read.

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
        DataError: the YAML names the top of the file system: to search it all would take minutes, or hours.
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
    """The file, if there is one only.

    Raises:
        DataError: there are several.
    """
    if len(files) > 1:
        names = " and ".join(str(path) for path in files[:2])
        raise DataError(f"{names} have the same name; say which in the data-set YAML, for instance extensions: [.nef]")
    return files[0]


def listed_stems(config: SetConfig) -> list[str] | None:
    """The stems that the list of the split names, None where there is no list or no split.

    A line is a stem, a file name or a path.

    Raises:
        DataError: the list is missing or empty, or one of a class.
    """
    if not config.options.list or not config.options.split:
        return None
    path = config.below(config.options.list)
    lines = [line.replace("\\", "/") for line in read_lines(path, "list of images")]
    if not lines:
        raise DataError(f"{path}: lists no images; correct it, or `list` in the data-set YAML")
    if is_class_list(lines):
        remedy = "name a split, or write one name a line"
        raise DataError(
            f"{path}: says of each image whether it shows one class ({shown(lines[0])}), no split; {remedy}"
        )
    known = KNOWN_EXTENSIONS | {".jpg", ".jpeg", ".xml", ".json"}
    names = [line.rsplit("/", 1)[-1] for line in lines]
    return [stem_key(name) if Path(name).suffix.lower() in known else stem_key(f"{name}.x") for name in names]


def is_class_list(lines: Sequence[str]) -> bool:
    """Whether these lines say which images show one class, as the lists beside Pascal VOC's splits do.

    Source: Everingham et al. 2010, Pascal VOC devkit: 1 for shown, -1 for not shown, 0 for difficult ones only.

    >>> is_class_list(["000012 -1", "000017  1"]), is_class_list(["000012", "000017"]), is_class_list(["im 0", "im 1"])
    (True, False, False)
    """
    found = [re.fullmatch(r"(\S+)\s+(?:-1|0|1)", line) for line in lines]
    names = {match[1] for match in found if match is not None}
    return len(names) == len(lines) > 0  # file names that end so, as "im 0" and "im 1", share what is before


def shown_name(path: Path, root: Path) -> str:
    """The path relative to the data set where it lies below it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

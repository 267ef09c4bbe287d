"""YOLO text labels: a line `class x y width height` an object, fractions of the image, in a file beside each image.

Source: the format of Ultralytics' detection data sets, docs.ultralytics.com/datasets/detect (facts only): train, val
and test are a folder, a list of paths or several of these; labels lie in a parallel folder `labels`; class numbers are
positions in `names`; an image without a label file, or with an empty one, shows nothing.
Differs: globs are taken too; `path` is relative to the YAML's own folder.
"""

import glob
import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from adaptiveisp.datasets.labels import (
    LabelledImage,
    LabelledObject,
    ParsedSet,
    Problem,
    SetConfig,
    SetOptions,
    existing,
    numbered_lines,
    read_lines,
    shown_name,
)
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.files import walk_files
from adaptiveisp.raw import KNOWN_EXTENSIONS

DEFAULTS = SetOptions(images="images", labels="labels", annotations="yolo", missing_labels="background")
SPLITS = ("train", "val", "test")


def parse(config: SetConfig) -> ParsedSet:
    """The images of a split with their labels.

    Raises:
        UsageError: the split is not named, or there is no such one.
        DataError: a list or folder is missing, the set has no images, or no class names.
    """
    names = class_names(config)
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    used: set[Path] = set()
    for path in dict.fromkeys(_images(config)):
        label_file = existing(_label_file(path, config))
        used.add(label_file)
        unlabelled = not label_file.is_file()
        if unlabelled:
            kept = _without_label(path, label_file, config, problems)
            objects: tuple[LabelledObject, ...] = ()
            if not kept:
                continue
        else:
            objects = _read_labels(label_file, names, problems)
        name = shown_name(path, config.root)
        images.append(LabelledImage(path, name, 0, 0, objects, fractions=True, unlabelled=unlabelled))
    if not images:
        name = f"split {config.options.split!r}" if config.options.split else "the data set"
        remedy = "correct its paths; JPEG photos need a COCO JSON and --light"
        raise DataError(f"{config.path}: {name} has no raw images; {remedy}")
    problems += _orphans(config, used)
    return ParsedSet(tuple(images), tuple(names.values()), True, tuple(problems))


def class_names(config: SetConfig) -> dict[int, str]:
    """Class id → name, as the YAML gives it.

    Raises:
        DataError: there are none, or an id is no whole number.
    """
    given = config.options.names
    names = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if not names or not all(isinstance(key, int) and key >= 0 for key in names):
        raise DataError(f"{config.path}: names must give the name of each class, for instance names: {{0: person}}")
    return names


def splits(config: SetConfig) -> tuple[str, ...]:
    """The splits that the YAML has entries for."""
    return tuple(split for split in SPLITS if getattr(config.options, split))


def _images(config: SetConfig) -> Iterator[Path]:
    """The image files of the split, in order."""
    split = config.options.split
    entries = getattr(config.options, split) if split in SPLITS else ""
    if not entries and config.options.list and split:
        entries = config.options.list
    if not entries and not splits(config) and not config.options.list:
        entries = config.options.images  # a set that is not split
    if not entries:
        known = ", ".join(splits(config)) or "none"
        name = f"has no split {split!r}" if split else "has splits"
        raise UsageError(f"{config.path}: {name}; name one as {config.path.name}:SPLIT (there are: {known})")
    for entry in (entries,) if isinstance(entries, str) else entries:
        yield from _expand(entry, config)


def _expand(entry: str, config: SetConfig) -> Iterator[Path]:
    """The files that one entry stands for: a folder with its subfolders, a list, a glob or a file."""
    path = config.below(entry)
    extensions = {extension.lower() for extension in config.options.extensions} or KNOWN_EXTENSIONS
    if path.is_dir():
        yield from walk_files(path, extensions)
    elif path.suffix.lower() == ".txt":
        yield from (_listed(line, path, config) for line in read_lines(path, "list of images"))
    elif glob.has_magic(str(entry)):
        found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        yield from (match for match in found if match.suffix.lower() in extensions)
    elif path.exists():
        yield path
    else:
        raise DataError(f"{path}: no such folder, list or image; correct {config.options.split} in {config.path}")


def _listed(line: str, listing: Path, config: SetConfig) -> Path:
    """The image of a line: absolute, relative to the list where it begins with ./, else to the root."""
    plain = existing(Path(line))
    if plain.is_absolute() and plain.exists():
        return plain
    text = line.replace("\\", "/")
    base = listing.parent if text.startswith("./") else config.root
    return existing(base / text)


def _label_file(image: Path, config: SetConfig) -> Path:
    """Where the labels of an image are looked for: the last folder `images` of its path becomes `labels`.

    Without one, `labels` stands in the root and mirrors the rest of the path.
    """
    relative = image.relative_to(config.root) if image.is_relative_to(config.root) else image
    parts = list(relative.parent.parts)
    labels = PurePosixPath(config.options.labels)
    for name in ("images", config.options.images):
        if name in parts:
            place = len(parts) - 1 - parts[::-1].index(name)
            parts[place : place + 1] = labels.parts
            return config.root / Path(*parts, f"{image.stem}.txt")
    inside = relative if not relative.is_absolute() else Path(image.name)
    return config.root / labels / inside.with_suffix(".txt")


def _without_label(path: Path, label_file: Path, config: SetConfig, problems: list[Problem]) -> bool:
    """Notes an image without label file, and whether it is kept."""
    policy = config.options.missing_labels
    text = f"{path}: has no label file {label_file}"
    if policy == "refuse":
        raise DataError(f"{text}; add an empty one if it shows nothing")
    if path.exists() and policy == "skip":
        problems.append(Problem("image without label", str(path), f"{text}; add an empty one if it shows nothing"))
    return policy == "background"


def _read_labels(path: Path, names: dict[int, str], problems: list[Problem]) -> tuple[LabelledObject, ...]:
    """The objects of a label file; lines that make no sense are noted."""
    try:
        lines = numbered_lines(path, "labels")
    except DataError as error:
        problems.append(Problem("bad label", str(path), str(error)))
        return ()
    objects = []
    for number, line in lines:
        found = _object(line, f"{path}:{number}", names)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            objects.append(found)
    return tuple(objects)


def _object(line: str, where: str, names: dict[int, str]) -> LabelledObject | Problem:
    """The object of one line. What follows the fifth value is no part of a box (a segment has more, a pose too)."""
    values = line.split()
    try:
        if len(values) != 5:
            raise ValueError(f"{len(values)} values")
        key, (x, y, width, height) = float(values[0]), (float(value) for value in values[1:])
        if not (key.is_integer() and all(math.isfinite(value) for value in (x, y, width, height))):
            raise ValueError("no numbers")
    except (ValueError, OverflowError) as error:
        text = f"{where}: {line[:60]!r} is no label ({error}); write class x y width height"
        return Problem("bad label", where, text)
    if key not in names:
        known = f"{min(names)} to {max(names)}"
        return Problem("bad label", where, f"{where}: class id {key:.0f} is not among names ({known}); correct it")
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return LabelledObject(names[int(key)], box, where)


def _orphans(config: SetConfig, used: set[Path]) -> Iterator[Problem]:
    """Label files in the folders of the split's labels that belong to none of its images."""
    if isinstance(entry := getattr(config.options, config.options.split, ""), str) and entry.endswith(".txt"):
        return  # other splits share the folder
    if config.options.list:
        return
    for folder in sorted({path.parent for path in used}):
        for path in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if path not in used and path.name != "classes.txt":
                text = f"{path}: belongs to no image; remove it or add its image"
                yield Problem("label without image", str(path), text)

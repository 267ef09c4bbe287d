"""Reads YOLO text labels: a file per image with a line `class x y width height` per object, in fractions of the image.

Source: the format of Ultralytics' detection data sets, docs.ultralytics.com/datasets/detect (facts only): train, val
and test are a folder, a list of paths or several of these; labels are in a parallel folder `labels`; class numbers are
positions in `names`; an image without a label file, or with an empty one, shows no object.
Exports of Roboflow write `../` before an entry. As in Ultralytics' reader, it is dropped if only the path without it
exists. Differs: globs are allowed too; `path` is relative to the YAML's own folder.
"""

import glob
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from adaptiveisp.data.annotations import (
    LabelledImage,
    LabelledObject,
    ParsedSet,
    Problem,
    SetConfig,
    SetOptions,
    files_of_set,
    numbered_lines,
    read_lines,
    shown_name,
)
from adaptiveisp.data.image_paths import existing, find_file
from adaptiveisp.data.values import finite
from adaptiveisp.errors import DataError, UsageError, shown
from adaptiveisp.raw.reader import KNOWN_EXTENSIONS

DEFAULTS = SetOptions(images="images", labels="labels", annotations="yolo", missing_labels="background")
SPLITS = ("train", "val", "test")
LARGEST_FRACTION = 2.0
"""Larger values must be pixels. Fractions end at 1, or slightly above in labels with another error."""


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels.

    Raises:
        UsageError: no split is named, or the split does not exist.
        DataError: a list or folder is missing, the set has no images, or no class names.
    """
    names = class_names(config)
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    notes: list[str] = []
    used: dict[Path, None] = {}
    for path in dict.fromkeys(_images(config, notes)):
        label_file = existing(_label_file(path, config))
        used[label_file] = None
        # `os.path` returns False for an impossible name, such as one that is too long, where pathlib raises.
        unlabelled = not os.path.isfile(label_file)
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
    if all(image.unlabelled for image in images):
        notes.append(f"none of its {len(images)} images has a label file; looked for {next(iter(used))} first")
    return ParsedSet(tuple(images), tuple(names.values()), True, tuple(problems), tuple(notes))


def class_names(config: SetConfig) -> dict[int, str]:
    """Class id → name, from the YAML.

    Raises:
        DataError: the YAML has no names, or an id is not a whole number.
    """
    given = config.options.names
    names = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    if not names or not all(isinstance(key, int) and key >= 0 for key in names):
        raise DataError(f"{config.path}: names must give the name of each class, for instance names: {{0: person}}")
    return names


def splits(config: SetConfig) -> tuple[str, ...]:
    """The names of the splits for which the YAML has entries."""
    return tuple(split for split in SPLITS if getattr(config.options, split))


def _images(config: SetConfig, notes: list[str]) -> Iterator[Path]:
    """Yields the image files of the split, in order; adds to `notes`."""
    split = config.options.split
    entries = getattr(config.options, split) if split in SPLITS else ""
    if not entries and config.options.list and split:
        entries = config.options.list
    if not entries and not splits(config) and not config.options.list:
        entries = config.options.images  # a set without splits
    if not entries:
        known = ", ".join(splits(config)) or "none"
        name = f"has no split {split!r}" if split else "has splits"
        raise UsageError(f"{config.path}: {name}; name one as {config.path.name}:SPLIT (there are: {known})")
    for entry in (entries,) if isinstance(entries, str) else entries:
        yield from _expand(entry, config, notes)


def _expand(entry: str, config: SetConfig, notes: list[str]) -> Iterator[Path]:
    """Yields the files of one entry: a folder with its subfolders, a list, a glob or a file; adds to `notes`."""
    path = find_file(config.root, entry.replace("{split}", config.options.split))
    below = config.below(entry.replace("\\", "/").removeprefix("../"))
    if entry.startswith(("../", "..\\")) and not os.path.exists(path) and os.path.exists(below):
        notes.append(f"{config.path}: {shown(entry)} does not exist, and {below} is used instead")
        path = below
    extensions = {extension.lower() for extension in config.options.extensions} or KNOWN_EXTENSIONS
    if os.path.isdir(path):
        yield from files_of_set(path, extensions)
    elif path.suffix.lower() == ".txt":
        for line in read_lines(path, "list of images"):
            if PurePosixPath(line.replace("\\", "/")).name in (
                "",
                "..",
            ):  # such as the first line of the output of `find .`
                notes.append(f"{path}: {shown(line)} names a folder and is left out; list images only")
            else:
                yield _listed(line, path, config)
    elif glob.has_magic(str(entry)):
        found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        yield from (match for match in found if match.suffix.lower() in extensions)
    elif os.path.exists(path):
        yield path
    else:
        raise DataError(f"{path}: no such folder, list or image; correct {config.options.split} in {config.path}")


def _listed(line: str, listing: Path, config: SetConfig) -> Path:
    """The image in a line of a list; a relative path starts at the list if it begins with ./, otherwise at the root."""
    return find_file(listing.parent if line.startswith(("./", ".\\")) else config.root, line)


def _label_file(image: Path, config: SetConfig) -> Path:
    """The path of an image's label file: the last folder `images` of the image's path becomes `labels`.

    For a path without such a folder, the folder `labels` is in the root and mirrors the path of the image.
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
    """Whether an image without label file is kept; adds a problem if it is left out, or raises DataError."""
    policy = config.options.missing_labels
    text = f"{path}: has no label file {label_file}"
    if policy == "refuse":
        raise DataError(f"{text}; add an empty one if it shows nothing")
    if os.path.exists(path) and policy == "skip":
        problems.append(Problem("image without label", str(path), f"{text}; add an empty one if it shows nothing"))
    return policy == "background"


def _read_labels(path: Path, names: dict[int, str], problems: list[Problem]) -> tuple[LabelledObject, ...]:
    """The objects of a label file; invalid lines are added to `problems`."""
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
    """The object of one line, or its problem; a line with more than five values is a segment or a pose, not a box."""
    values = [finite(value) for value in line.split()]
    numbers = [value for value in values if value is not None]
    if len(numbers) != 5 or len(values) != 5 or not numbers[0].is_integer():
        reason = f"{len(values)} values" if len(values) != 5 else "no numbers"
        text = f"{where}: {shown(line, 60)} is no label ({reason}); write class x y width height"
        return Problem("bad label", where, text)
    key, x, y, width, height = numbers
    if key not in names:
        text = f"{where}: class id {key:g} is not among names ({min(names)} to {max(names)}); correct it"
        return Problem("bad label", where, text)
    if max(map(abs, numbers[1:])) > LARGEST_FRACTION:
        remedy = "divide x and width by the width of the image, y and height by its height"
        return Problem("bad label", where, f"{where}: {shown(line, 60)} is in pixels, not in fractions; {remedy}")
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return LabelledObject(names[int(key)], box, where)


def _orphans(config: SetConfig, used: Collection[Path]) -> Iterator[Problem]:
    """Yields a problem for each label file without an image in the folders of the split's labels."""
    if isinstance(entry := getattr(config.options, config.options.split, ""), str) and entry.endswith(".txt"):
        return  # other splits share the folder
    if config.options.list:
        return
    for folder in sorted({path.parent for path in used}):
        for path in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            if path not in used and path.name != "classes.txt":
                text = f"{path}: belongs to no image; remove it or add its image"
                yield Problem("label without image", str(path), text)

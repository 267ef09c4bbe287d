"""What data sets are opened from: several of them, each with its folder of images and a short name."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from adaptiveisp.data.dataset import Dataset, raw_file
from adaptiveisp.data.dataset_yaml import is_set_file, split_spec
from adaptiveisp.errors import UsageError, one_line
from adaptiveisp.types import Sample

Data = str | Path | Dataset
"""A path that names a data set, or an opened data set."""

LONGEST_NAME = 60
"""Most characters of a data set's name in a table."""


class Source(NamedTuple):
    """What one data set is opened from: a path or an opened data set, and the folder of its images, if it needs one."""

    data: Data
    images: str | Path | None


def sources_of(
    data: Data | Sequence[Data], images: str | Path | Sequence[str | Path] | None, option: str = "images"
) -> list[Source]:
    """The data sets, each with its folder of images.

    Args:
        data: one data set, or several.
        images: a folder for all COCO JSONs among them, or one for each of these, in their order; None for no folder.
        option: name of the option of `images`, for errors.

    Raises:
        UsageError: there is no data set, the number of folders does not fit, or a set is given twice.
    """
    several: list[Data] = list(data) if isinstance(data, Sequence) and not isinstance(data, str) else [data]
    folders: list[str | Path] = []
    if images is not None:
        folders = [images] if isinstance(images, str | Path) else list(images)
    if not several:
        raise UsageError("give at least one data set")
    if len(several) == 1 and len(folders) <= 1:
        return [Source(several[0], folders[0] if folders else None)]
    need = [index for index, one in enumerate(several) if needs_images(one)]
    if (len(folders) > 1 and len(folders) != len(need)) or (folders and not need):
        raise UsageError(
            f"{option}: {len(folders)} folders for {len(need)} COCO JSONs among {len(several)} data sets; give a "
            "folder for each JSON, in their order, or one for all"
        )
    own = dict(zip(need, folders * len(need) if len(folders) == 1 else folders, strict=bool(folders)))
    sources = [Source(one, own.get(index)) for index, one in enumerate(several)]
    for source, count in Counter(map(_identity, sources)).items():
        if count > 1:
            raise UsageError(f"{source[0]}: this data set is given {count} times; give each set once")
    return sources


def needs_images(data: Data) -> bool:
    """Whether a data set needs a folder of images, as a COCO JSON does."""
    return isinstance(data, str | Path) and not is_set_file(Path(data)) and not os.path.isdir(data)


def _identity(source: Source) -> tuple[str, str]:
    """Texts that are the same for two sources of one data set: the files that are read."""
    if not isinstance(source.data, str | Path):
        return f"{source.data.name}", str(id(source.data))
    path, split = split_spec(Path(source.data))
    images = "" if source.images is None else os.path.realpath(source.images)
    return f"{os.path.realpath(path)}{':' if split else ''}{split}", images


def names_of(sources: Sequence[Source]) -> list[str]:
    """A short name for each data set, with as many folders of its path as tell them apart.

    >>> names_of([Source("sets/coco/val.json", "a"), Source("sets/voc/val.json", "b"), Source("lod.yaml:test", None)])
    ['coco/val', 'voc/val', 'lod:test']
    """
    paths = [tuple(_parts(source.data)) for source in sources]
    short = {parts: parts[-1] for parts in paths}
    for depth in range(2, max(map(len, paths)) + 1):
        count = Counter(short.values())
        short = {parts: name if count[name] == 1 else "/".join(parts[-depth:]) for parts, name in short.items()}
    count = Counter(short[parts] for parts in paths)  # one JSON may label the images of several folders
    names = [
        f"{short[parts]} ({Path(source.images).name})" if count[short[parts]] > 1 and source.images else short[parts]
        for parts, source in zip(paths, sources, strict=True)
    ]
    names = [one_line(name, LONGEST_NAME) for name in names]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} {number}" for number, name in enumerate(names, 1)]


def _parts(data: Data) -> list[str]:
    """The folders and the stem of a data set's file."""
    # The name of an opened data set may end with the settings of its raws in brackets.
    text = str(data) if isinstance(data, str | Path) else data.name.partition(" (")[0]
    path, split = split_spec(Path(text))
    parts = [part for part in Path(os.path.abspath(path)).parts if part != os.sep] or [text]
    last = path.stem if path.suffix.lower() in (".json", ".yaml", ".yml") else parts[-1]
    return [*parts[:-1], f"{last}:{split}" if split else last]


def shared_images(sets: Mapping[str, Dataset]) -> list[str]:
    """A line for each two data sets that hold the same image files.

    Args:
        sets: name → data set.
    """
    owner: dict[str, str] = {}
    repeated: Counter[tuple[str, str]] = Counter()
    for name, dataset in sets.items():
        own = {file for sample in dataset.samples if (file := _file(dataset, sample))}
        repeated.update((owner[file], name) for file in own if file in owner)
        owner |= dict.fromkeys(own - owner.keys(), name)
    return [f"{first} and {second} share {count} images" for (first, second), count in repeated.items()]


def _file(dataset: Dataset, sample: Sample) -> str:
    """The path of a sample's file; "" if it is not known."""
    found = raw_file(dataset, sample)
    path = found[0] if found else sample.source
    return os.path.abspath(path) if isinstance(path, str | Path) else ""

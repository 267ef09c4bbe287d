"""Finds the raw files that the inputs of a command name, and chooses the names of their outputs."""

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from adaptiveisp.errors import RawFileError, UsageError, logger, unreadable
from adaptiveisp.raw.extensions import (
    CONVERTIBLE_EXTENSIONS,
    KNOWN_EXTENSIONS,
    PHOTO_EXTENSIONS,
    PHOTO_REMEDY,
    converter,
)
from adaptiveisp.raw.remote import TAR
from adaptiveisp.utils.files import walk_files
from adaptiveisp.utils.output_folder import marker_kind

Source = TypeVar("Source")

RESERVED_STEMS = frozenset({"overview", "summary", "skipped", "params"})
"""Stems of the files that a run writes for all inputs together."""

_DERIVED_ENDING = re.compile(r"\.(?=(?:boxes|full|pipeline|step\d+-[^.]*)$)", re.IGNORECASE)
"""The dot before an ending of outputs: x.boxes.png could be the boxes of x, or the image of x.boxes.dng."""

RESULT_KINDS = frozenset({"run", "eval", "doctor", "train"})
"""Kinds of output folders that hold results and no raws; `synth` and `demo` write raws."""


def find_raw_files(
    inputs: list[str], exclude: Path | None = None
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """Finds the raw files that `inputs` name, each with the relative path, without extension, of its outputs.

    A folder is searched with its subfolders for known extensions; hidden files are left out, and the files are sorted.
    The outputs of a folder mirror its subfolders. Those of a glob pattern (also with `**`) mirror the folders from the
    first wildcard on. A single file keeps its name, and a file that is named twice is used once. If two files would
    share an output, or a file has the name of a file that a run writes (`RESERVED_STEMS`), the extension is added to
    the name (`x_dng`), and a number if two names are still equal (`x_dng_2`). In a name that ends like the outputs of
    another input (`x.boxes`, `x.full`, `x.pipeline`, `x.step1-exposure`), an underscore replaces that dot (`x_boxes`).

    Args:
        inputs: files, folders, glob patterns.
        exclude: the output folder; files in it are left out, unless they are named one by one.

    Returns:
        The files, and the missing inputs with a message each, so that a batch can go on without them.

    Raises:
        RawFileError: there is no raw file.
        UsageError: an input is an empty text.
    """
    if not all(inputs):
        raise UsageError("an input is empty; check the shell variable")
    excluded = os.path.realpath(exclude) if exclude is not None else None
    found: dict[str, tuple[Path, Path]] = {}
    missing: list[tuple[str, str]] = []
    n_excluded = 0
    for text in inputs:
        try:
            for path, relative in _expand(text):
                if excluded is not None and path != Path(text) and _lies_in(path, excluded):
                    n_excluded += 1
                elif not _is_utf8(relative):
                    missing.append((str(path), f"{path}: its name is not UTF-8, which no result could name; rename it"))
                else:
                    found.setdefault(os.path.realpath(path), (path, relative))
        except RawFileError as error:
            missing.append((text, str(error)))
        except OSError as error:
            missing.append((text, unreadable(text, error)))
    if not found and missing:
        raise RawFileError(missing[0][1])
    if not found and n_excluded:
        raise RawFileError(f"all {n_excluded} raw files lie in the output folder {exclude}; choose another --out")
    if not found:
        raise RawFileError(f"no raw files in {', '.join(inputs) or 'nothing'}; {_remedy_for(inputs)}")
    return with_unique_stems(list(found.values())), missing


def _remedy_for(inputs: list[str]) -> str:
    """The remedy if the inputs hold no raw file: for photos, for files to convert, or else the known extensions."""
    for extensions in (CONVERTIBLE_EXTENSIONS, PHOTO_EXTENSIONS):
        for text in inputs:
            path = Path(text)
            found = path if path.suffix.lower() in extensions else next(walk_files(path, extensions), None)
            if found is not None:
                return PHOTO_REMEDY if extensions is PHOTO_EXTENSIONS else f"convert {found.name}: {converter(found)}"
    return f"known are {' '.join(sorted(KNOWN_EXTENSIONS))}"


def _is_utf8(path: Path) -> bool:
    """Whether a name is valid UTF-8; archives from other systems can have names in other encodings."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _lies_in(path: Path, folder: str) -> bool:
    """Whether `path` is below `folder`, a resolved path; a link counts by its own place, not by its target."""
    return Path(os.path.realpath(path.parent)).is_relative_to(folder)


def _expand(text: str) -> Iterator[tuple[Path, Path]]:
    """Yields the files of one input, each with its path relative to the folder that the outputs mirror."""
    path = Path(text)
    if path.is_dir():
        kinds: dict[Path, str | None] = {}
        shards = 0
        for file in walk_files(path, KNOWN_EXTENSIONS | {TAR}):
            if not _is_result(file, path, kinds):
                if file.suffix.lower() == TAR:
                    shards += 1
                else:
                    yield file, file.relative_to(path)
        _warn_of_shards(text, shards, path / "*.tar")
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(text):
        parts = Path(text).parts
        first_wild = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:first_wild])
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        if not matches:
            raise RawFileError(f"{text}: nothing matches; check the pattern")
        for match in matches:
            if match.is_file() and match.suffix.lower() in KNOWN_EXTENSIONS:
                yield match, match.relative_to(root)
        shards = sum(match.suffix.lower() == TAR for match in matches)
        _warn_of_shards(text, shards, matches[0].with_name("*.tar"))
    else:
        raise RawFileError(f"{text}: no such file or folder; check the path")


def _warn_of_shards(text: str, count: int, pattern: Path) -> None:
    """Warns of .tar files that an input holds, which are read only where they are named."""
    if count:
        logger.warning("%s: %d .tar files in it are not read; name them, for instance %s", text, count, pattern)


def _is_result(file: Path, top: Path, kinds: dict[Path, str | None]) -> bool:
    """Whether a file lies in an output folder of this package below `top`, which holds results and no raws.

    Args:
        file: a file below `top`.
        top: the folder that is searched; it may itself be an output folder, since the user named it.
        kinds: cache of folder → the command that filled it, to which folders are added.
    """
    for folder in file.parents:
        if folder == top:
            return False
        if folder not in kinds:
            kinds[folder] = marker_kind(folder)
        if kinds[folder] in RESULT_KINDS:
            return True
    return False


def with_unique_stems(files: Sequence[tuple[Source, Path]], taken: Collection[Path] = ()) -> list[tuple[Source, Path]]:
    """The files with unique output stems; see `find_raw_files`.

    Args:
        files: files or other sources, each with the relative path that its outputs mirror.
        taken: stems that other files have.
    """
    stems = [_own_stem(relative) for _, relative in files]
    # Stems are compared in lower case, since some file systems ignore case.
    counts = Counter(str(stem).lower() for stem in stems)
    counts.update(str(stem).lower() for stem in taken)
    used = {key for key, count in counts.items() if count == 1} | RESERVED_STEMS
    used |= {str(stem).lower() for stem in taken}
    result: list[tuple[Source, Path]] = []
    for (path, relative), stem in zip(files, stems, strict=True):
        key = str(stem).lower()
        if counts[key] > 1 or key in RESERVED_STEMS:
            base = stem.with_name(f"{stem.name}_{relative.suffix[1:].lower()}")
            stem, number = base, 2
            while str(stem).lower() in used:
                stem, number = base.with_name(f"{base.name}_{number}"), number + 1
            used.add(str(stem).lower())
        result.append((path, stem))
    return result


def _own_stem(relative: Path) -> Path:
    """The path without its extension, with an underscore for the dot before an ending of outputs."""
    name = relative.stem
    while _DERIVED_ENDING.search(name):
        name = _DERIVED_ENDING.sub("_", name)
    return relative.with_name(name)

"""Any raw file → `RawImage`: camera files, DNG, headerless Bayer dumps, 16-bit PNG and TIFF, npy arrays."""

import glob
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from adaptiveisp.errors import OutputError, RawFileError, UsageError, logger
from adaptiveisp.raw.array_files import read_npy, read_png, write_png16
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array, read_headerless
from adaptiveisp.raw.camera import read_camera
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.extensions import (
    CAMERA_EXTENSIONS,
    CONVERTIBLE_EXTENSIONS,
    HEADERLESS_EXTENSIONS,
    KNOWN_EXTENSIONS,
    PHOTO_EXTENSIONS,
    PHOTO_REMEDY,
    converter,
)
from adaptiveisp.raw.headerless import BayerHeader, find_header, parse_size
from adaptiveisp.raw.level_checks import level_remarks
from adaptiveisp.raw.libraw import libraw_render
from adaptiveisp.raw.synthesis_metadata import unprocessing_from_note
from adaptiveisp.raw.tiff import read_tiff, tag_remarks
from adaptiveisp.types import RawImage, Remark
from adaptiveisp.utils.files import walk_files
from adaptiveisp.utils.output_folder import marker_kind

__all__ = [
    "CAMERA_EXTENSIONS",
    "KNOWN_EXTENSIONS",
    "PHOTO_EXTENSIONS",
    "BayerHeader",
    "camera_render",
    "check_usable",
    "find_raw_files",
    "is_libraw_file",
    "parse_size",
    "raw_in_memory",
    "read_raw",
    "write_png16",
]

SMALLEST_SIDE = 16
"""Pixels; below this no module or detector can do anything sensible."""

RESERVED_STEMS = frozenset({"overview", "summary", "skipped", "params"})
"""Files that a run writes beside the outputs of its inputs, without their extensions."""

_DERIVED_ENDING = re.compile(r"\.(?=(?:boxes|full|pipeline|step\d+-[^.]*)$)", re.IGNORECASE)
"""The dot of a stem that ends as the outputs of another stem do: x.boxes.png belongs to x as well as to x.boxes."""

RESULT_KINDS = frozenset({"run", "eval", "doctor", "train"})
"""Kinds of output folders whose pictures are results; `synth` and `demo` make raws."""


def read_raw(path: Path, header: BayerHeader | None = None) -> RawImage:
    """What `path` recorded, unprocessed, with the metadata the file or its sidecar carries.

    Args:
        path: camera raw or DNG; headerless Bayer (.raw, .bin, .bayer: size, bits and pattern from `header` or a
            sidecar); 8- or 16-bit PNG or TIFF, linear RGB or a mosaic; .npy, (H, W, 3), (3, H, W) or (H, W). Float
            arrays with values up to 1 are taken as they are; other floats and long integers without declared bits are
            HDR, white at their 99th percentile.
        header: facts about files that do not carry them; see `find_header` for what wins, and `camera_facts` for what
            is used for camera files.

    Returns:
        The raw; what is doubtful about its declared facts is in its `remarks`.

    Raises:
        RawFileError: the file is missing, damaged, of unknown type, too small, black, lacks facts, or its values
            contradict what is declared.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    path = Path(path)
    try:
        extension = _checked_extension(path)
        if extension in CAMERA_EXTENSIONS:
            raw = read_camera(path, header)
        elif extension in HEADERLESS_EXTENSIONS:
            raw = read_headerless(path, find_header(path, header))
        else:
            raw = _read_array(path, extension, header)
    except OSError as error:
        raise RawFileError(_unreadable(path, error)) from None
    check_usable(raw)
    return raw


def is_libraw_file(path: Path) -> bool:
    """Whether `path` has the extension of a camera file or DNG, which LibRaw reads.

    >>> is_libraw_file(Path("x.NEF")), is_libraw_file(Path("x.png"))
    (True, False)
    """
    return Path(path).suffix.lower() in CAMERA_EXTENSIONS


def camera_render(raw: RawImage) -> UInt8[np.ndarray, "height width 3"]:
    """The photo as LibRaw develops it by default: camera white balance, sRGB, automatic brightness, upright.

    Args:
        raw: read from a camera file or DNG, or any Bayer mosaic (which goes through a temporary DNG).

    Raises:
        RawFileError: LibRaw cannot develop the raw: RGB already, no 8- or 16-bit integers, too small, damaged; or
            there is no room for the temporary DNG.
    """
    if raw.path is not None and is_libraw_file(raw.path):
        rendered = libraw_render(raw.path, raw)
        if rendered is not None:  # otherwise other levels were declared, which LibRaw learns from a DNG that says so
            return rendered
    name = raw.path or "raw image"
    if raw.pattern is None:
        raise RawFileError(f"{name}: LibRaw develops mosaics only, and this is RGB; use another policy than camera")
    try:
        with tempfile.TemporaryDirectory() as folder:
            mosaic = Path(folder) / "mosaic.dng"
            try:
                write_dng(raw, mosaic)
                rendered = libraw_render(mosaic)
                assert rendered is not None
                return rendered
            except (OutputError, RawFileError) as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                # The caller knows nothing of the temporary file that these messages name.
                reason = str(error).removeprefix(f"{mosaic}: ")
                raise RawFileError(f"{name}: {reason}") from None
    except OSError as error:
        raise RawFileError(
            f"{name}: no temporary DNG could be written ({error.strerror or error}); free space or set TMPDIR"
        ) from None


def _unreadable(name: Path | str, error: OSError) -> str:
    return f"{name}: cannot be read ({error.strerror or error}); check its name and permissions"


def _checked_extension(path: Path) -> str:
    """The extension in lower case, after checking that there is a file of a known kind."""
    if not path.exists():
        raise RawFileError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise RawFileError(f"{path}: is a folder; give a raw file")
    extension = path.suffix.lower()
    if extension in PHOTO_EXTENSIONS:
        raise RawFileError(f"{path}: is a photo; {PHOTO_REMEDY}")
    if converter(path):
        raise RawFileError(f"{path}: {extension} is not read; convert it: {converter(path)}")
    if extension not in KNOWN_EXTENSIONS:
        raise RawFileError(f"{path}: unknown extension {extension!r}; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")
    if path.stat().st_size == 0:
        raise RawFileError(f"{path}: is empty; copy it again from its source")
    return extension


def _read_array(path: Path, extension: str, header: BayerHeader | None) -> RawImage:
    """PNG, TIFF or npy → RawImage; the facts give the pattern of a mosaic and may correct the levels."""
    facts = find_header(path, header)
    orientation, note, tags, remarks = 1, None, BayerHeader(), list[Remark]()
    if extension == ".png":
        pixels, note = read_png(path)
    elif extension == ".npy":
        pixels = read_npy(path)
    else:
        pixels, (tags, orientation) = read_tiff(path)
        remarks += tag_remarks(facts, tags, path)
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and note is None and facts == BayerHeader():
        _warn_of_photos(path.parent)
    remarks += _size_remark(path, pixels, header)
    if pixels.ndim == 3 and header is not None and header.without_layout().pattern:
        text = f"{path}: is RGB, so the pattern {header.pattern} has no effect; leave it out"
        remarks.append(Remark("pattern of RGB", text))
    try:
        unprocessing = unprocessing_from_note(note)
    except RawFileError as error:
        raise RawFileError(f"{path}: {error}") from None
    known = ArrayFacts(path, path, orientation, unprocessing, tuple(remarks))
    return raw_from_array(pixels, facts.filled_from(tags), known)


def _size_remark(path: Path, pixels: NDArray[Any], header: BayerHeader | None) -> list[Remark]:
    """That an array is of another size than somebody stated; it knows its own, and a layout states nothing."""
    if header is None:
        return []
    stated = find_header(path, header.without_layout())
    size = pixels.shape[1::-1] if pixels.ndim == 2 or pixels.shape[-1] == 3 else pixels.shape[:0:-1]
    if stated.width is None or stated.height is None or size == (stated.width, stated.height):
        return []
    found = f"is {size[0]}x{size[1]}, though --raw-size says {stated.width}x{stated.height}"
    return [Remark("another size than declared", f"{path}: {found}; an array knows its size: correct or leave it out")]


@cache
def _warn_of_photos(folder: Path) -> None:
    """Says once that pictures which may be photos are taken for linear light; nothing in the files tells."""
    logger.warning("%s: its pictures of 8 bits a channel are taken for linear light; %s", folder, PHOTO_REMEDY)


def check_usable(raw: RawImage) -> None:
    """Refuses a raw that no module or detector can make anything of.

    Raises:
        RawFileError: it is smaller than `SMALLEST_SIDE`, or has no value above the black level.
    """
    name = raw.path or "RawImage"
    height, width = raw.data.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise RawFileError(f"{name}: {width}x{height} is too small; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} is needed")
    tiles = [raw.data[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    if raw.data.max() <= max(raw.black_level) and all(
        tile.max() <= black for tile, black in zip(tiles, raw.black_level, strict=True)
    ):
        raise RawFileError(f"{name}: all pixels are at or below the black level; check the lens cap or the black level")


def raw_in_memory(frame: RawImage | NDArray[Any], header: BayerHeader | None) -> RawImage:
    """A frame in memory, checked as `read_raw` checks a file.

    Args:
        frame: a raw, or an array of its pixels, as a .npy file would hold it.
        header: facts about an array; a `RawImage` carries its own.

    Raises:
        RawFileError: the frame makes no sense.
        UsageError: an array without header, or a `RawImage` with one.
    """
    if isinstance(frame, RawImage):
        if header is not None:
            raise UsageError(
                "header is for files and arrays: a RawImage has pattern and levels of its own; leave it out"
            )
        check_usable(frame)
        if frame.path is not None or frame.unprocessing is not None:
            return frame
        whole = frame.data.dtype.kind in "ui"
        levels = (frame.pattern, frame.black_level, frame.white_level)
        remarks = level_remarks(frame.data, *levels, "RawImage", white_is_declared=whole, in_memory=True)
        return _with_remarks(frame, remarks) if remarks else frame
    if header is None:
        raise UsageError(
            "an array has no pattern and no levels: give RawImage(array, pattern, black_level, white_level), or "
            'header=BayerHeader(pattern="RGGB", bits=10, black=64)'
        )
    raw = raw_from_array(frame, header, ArrayFacts("array"))
    check_usable(raw)
    return raw


def _with_remarks(raw: RawImage, remarks: tuple[Remark, ...]) -> RawImage:
    known = raw.remarks
    return replace(raw, remarks=known + tuple(remark for remark in remarks if remark not in known))


def find_raw_files(
    inputs: list[str], exclude: Path | None = None
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """Every raw file that `inputs` name, each with the relative path, without extension, that its outputs get.

    A folder is searched with its subfolders for known extensions, sorted, hidden files left out; its outputs mirror
    it. A glob pattern (`**` included) mirrors from the part before the first wildcard. A single file keeps its name.
    A file named twice is taken once. Where two would share an output, or one is called like a file that a run writes
    (`RESERVED_STEMS`), the extension joins the name (`x_dng`), and if that does not tell them apart, a number
    (`x_dng_2`). A name that ends like the outputs of another input (`x.boxes`, `x.full`, `x.pipeline`,
    `x.step1-exposure`) gets an underscore for that dot (`x_boxes`).

    Args:
        inputs: files, folders, glob patterns.
        exclude: the output folder; what lies in it is no input unless a file is named by itself.

    Returns:
        The files, and the inputs that do not exist, each with its message, so that a batch can go on without them.

    Raises:
        RawFileError: nothing was found.
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
            missing.append((text, _unreadable(text, error)))
    if not found and missing:
        raise RawFileError(missing[0][1])
    if not found and n_excluded:
        raise RawFileError(f"all {n_excluded} raw files lie in the output folder {exclude}; choose another --out")
    if not found:
        raise RawFileError(f"no raw files in {', '.join(inputs) or 'nothing'}; {_remedy_for(inputs)}")
    return _with_unique_stems(list(found.values())), missing


def _remedy_for(inputs: list[str]) -> str:
    """What helps where inputs hold no raw that is read: photos, arrays to convert, or nothing of the kind."""
    for extensions in (CONVERTIBLE_EXTENSIONS, PHOTO_EXTENSIONS):
        for text in inputs:
            path = Path(text)
            found = path if path.suffix.lower() in extensions else next(walk_files(path, extensions), None)
            if found is not None:
                return PHOTO_REMEDY if extensions is PHOTO_EXTENSIONS else f"convert {found.name}: {converter(found)}"
    return f"known are {' '.join(sorted(KNOWN_EXTENSIONS))}"


def _is_utf8(path: Path) -> bool:
    """Whether a name is text; archives from other systems leave names in other encodings."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _lies_in(path: Path, folder: str) -> bool:
    """Whether the directory entry `path` is somewhere below `folder`, a real path; a link counts where it lies."""
    return Path(os.path.realpath(path.parent)).is_relative_to(folder)


def _expand(text: str) -> Iterator[tuple[Path, Path]]:
    """The files of one input, each with its path relative to where mirroring starts."""
    path = Path(text)
    if path.is_dir():
        kinds: dict[Path, str | None] = {}
        for file in walk_files(path, KNOWN_EXTENSIONS):
            if not _is_result(file, path, kinds):
                yield file, file.relative_to(path)
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
    else:
        raise RawFileError(f"{text}: no such file or folder; check the path")


def _is_result(file: Path, top: Path, kinds: dict[Path, str | None]) -> bool:
    """Whether a file lies in a folder of results of ours below `top`: its pictures are no raws.

    Args:
        file: below `top`.
        top: the folder that is searched; it may be one of ours itself, if it was named.
        kinds: folder → what made it, as far as it is known already.
    """
    for folder in file.parents:
        if folder == top:
            return False
        if folder not in kinds:
            kinds[folder] = marker_kind(folder)
        if kinds[folder] in RESULT_KINDS:
            return True
    return False


def _with_unique_stems(files: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    stems = [_own_stem(relative) for _, relative in files]
    # Compared in lower case: two outputs must not be one file where the file system ignores case.
    counts = Counter(str(stem).lower() for stem in stems)
    taken = {key for key, count in counts.items() if count == 1} | RESERVED_STEMS
    result: list[tuple[Path, Path]] = []
    for (path, relative), stem in zip(files, stems, strict=True):
        key = str(stem).lower()
        if counts[key] > 1 or key in RESERVED_STEMS:
            base = stem.with_name(f"{stem.name}_{relative.suffix[1:].lower()}")
            stem, number = base, 2
            while str(stem).lower() in taken:
                stem, number = base.with_name(f"{base.name}_{number}"), number + 1
            taken.add(str(stem).lower())
        result.append((path, stem))
    return result


def _own_stem(relative: Path) -> Path:
    """The path without extension, and without an ending that marks the outputs of another stem."""
    name = relative.stem
    while _DERIVED_ENDING.search(name):
        name = _DERIVED_ENDING.sub("_", name)
    return relative.with_name(name)

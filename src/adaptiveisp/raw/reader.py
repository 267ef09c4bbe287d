"""Reads raw files of any kind: camera files, DNG, headerless Bayer dumps, and files of arrays."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, UsageError, logger, unreadable
from adaptiveisp.raw.array_content import Content, opened_frames
from adaptiveisp.raw.array_files import write_png16
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array, read_headerless
from adaptiveisp.raw.camera import camera_render, is_libraw_file, read_camera
from adaptiveisp.raw.extensions import (
    CAMERA_EXTENSIONS,
    HEADERLESS_EXTENSIONS,
    KNOWN_EXTENSIONS,
    NUMPY_EXTENSIONS,
    PHOTO_EXTENSIONS,
    PHOTO_REMEDY,
    STACK_EXTENSIONS,
    converter,
)
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.headerless import BayerHeader, parse_size
from adaptiveisp.raw.in_memory import BinaryFile, content_as_file, raw_in_memory
from adaptiveisp.raw.level_checks import check_usable
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.raw.stacks import frame_number
from adaptiveisp.raw.synthesis_metadata import unprocessing_from_note
from adaptiveisp.types import RawImage, Remark

__all__ = [
    "CAMERA_EXTENSIONS",
    "KNOWN_EXTENSIONS",
    "PHOTO_EXTENSIONS",
    "BayerHeader",
    "camera_render",
    "check_usable",
    "count_frames",
    "find_raw_files",
    "is_libraw_file",
    "parse_size",
    "raw_in_memory",
    "read_frames",
    "read_raw",
    "write_png16",
]


def read_raw(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile,
    header: BayerHeader | None = None,
    name: str | None = None,
) -> RawImage:
    """Reads a raw, unprocessed, with the metadata of the file and its sidecar.

    Args:
        source: a path, the content of a file, or an open binary file, which is read from its position to its end. It
            is a camera raw or DNG; headerless Bayer (.raw, .bin, .bayer: size, bits and pattern from `header` or a
            sidecar); 8- or 16-bit PNG, TIFF, PGM or PPM, or OpenEXR, linear RGB or a mosaic; or .npy or .npz,
            (H, W, 3), (3, H, W), (H, W), or the planes of a mosaic, (H, W, 4). Float arrays with values up to 1 have
            the white level 1; other floats and long integers without declared bits are HDR, with the white level at
            their 99th percentile. Of several frames, `header.frame` is read.
        header: facts about files that do not state them. `find_header` documents the precedence of sources, and
            `camera_facts` the facts that are used for camera files.
        name: name of a content or an open file in messages, whose extension states the kind of file. Without one, an
            open file has its own name, and a content is called "bytes". If the name has no known extension, the first
            bytes decide the kind, and a headerless mosaic needs a header with size and bits.

    Returns:
        The raw, with `remarks` on doubtful declared facts. `path` is None for a content or an open file, which have no
        sidecars.

    Raises:
        RawFileError: the file is missing, damaged, of unknown type, too small or black; facts are missing, or its
            values contradict the declared facts.
        UsageError: `name` is given for a path, or `source` is of another type.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    if isinstance(source, str | os.PathLike):
        if name is not None:
            raise UsageError(f"{os.fspath(source)}: name is for bytes and open files; leave it out")
        return _read_file(Path(source), header)
    with content_as_file(source, name, header) as content:
        return content.without_path(_read_file(content.path, header, content.name))


def read_frame(path: Path, header: BayerHeader | None = None) -> RawImage:
    """Reads a raw like `read_raw`, also one without light, which `read_raw` refuses, for calibration.

    Raises:
        RawFileError: the file cannot be read, see `read_raw`.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    return _read_file(path, header, is_dark=True)


def _read_file(path: Path, header: BayerHeader | None, name: str | None = None, is_dark: bool = False) -> RawImage:
    """The raw in a file; `name` replaces its folder in a warning, and a dark frame may hold no light."""
    try:
        extension = _checked_extension(path)
        if extension in CAMERA_EXTENSIONS:
            raw = read_camera(path, header)
        elif extension in HEADERLESS_EXTENSIONS:
            raw = read_headerless(path, find_header(path, header))
        else:
            raw = _read_array(path, header, name or str(path.parent))
    except OSError as error:
        raise RawFileError(unreadable(path, error)) from None
    if not is_dark:
        check_usable(raw)
    return raw


def _checked_extension(path: Path) -> str:
    """The extension in lower case of an existing file of a known kind.

    Raises:
        RawFileError: the file does not exist, is empty, or is of an unsupported kind.
    """
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


def count_frames(path: Path, header: BayerHeader | None = None) -> int:
    """The number of frames of a file that states it; see `read_frames`."""
    with opened_frames(path, find_header(path, header)) as frames:
        return frames.n_frames


def read_frames(path: Path, header: BayerHeader | None = None) -> Iterator[RawImage | RawFileError]:
    """Yields the raws of a file that states how many it holds; a frame that is unusable is given as its error.

    Args:
        path: a TIFF of several pages, a stack in a .npy or .npz file, or PGMs or PPMs one behind the other.
        header: declared facts.

    Raises:
        RawFileError: the file is missing, damaged, or of another kind.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    try:
        extension = _checked_extension(path)
        if extension not in STACK_EXTENSIONS:
            raise RawFileError(f"{path}: {extension} files do not state a number of frames; read them by read_raw")
        facts = find_header(path, header)
        with opened_frames(path, facts) as frames:
            for number in range(frames.n_frames):
                try:
                    raw = _raw_of(frames.read(number), path, facts, header, str(path.parent))
                    check_usable(raw)
                    yield raw
                except RawFileError as error:
                    yield error
    except OSError as error:
        raise RawFileError(unreadable(path, error)) from None


def _read_array(path: Path, header: BayerHeader | None, origin: str) -> RawImage:
    """The raw in a file of `ARRAY_EXTENSIONS`; `origin` names its source in a warning that is given once.

    The declared facts give the pattern of a mosaic and can override the levels.
    """
    facts = find_header(path, header)
    with opened_frames(path, facts) as frames:
        content = frames.read(frame_number(frames.n_frames, facts, path, frames.unit))
    return _raw_of(content, path, facts, header, origin)


def _raw_of(content: Content, path: Path, facts: BayerHeader, header: BayerHeader | None, origin: str) -> RawImage:
    """The raw of a frame and the declared facts.

    Args:
        content: pixels, and what the file states.
        path: the file.
        facts: flags with sidecars.
        header: flags alone.
        origin: source in a warning that is given once.
    """
    pixels, note = content.pixels, content.note
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and note is None and facts == BayerHeader():
        _warn_of_photos(origin)
    remarks = [*content.remarks, *_size_remark(path, pixels, header)]
    if pixels.ndim == 3 and header is not None and header.without_layout().pattern:
        text = f"{path}: is RGB, so the pattern {header.pattern} has no effect; leave it out"
        if path.suffix.lower() in NUMPY_EXTENSIONS and pixels.shape[2] != 3:
            text += ", or give --raw-frames 3 if these are three mosaics"
        remarks.append(Remark("pattern of RGB", text))
    try:
        unprocessing = unprocessing_from_note(note)
    except RawFileError as error:
        raise RawFileError(f"{path}: {error}") from None
    known = ArrayFacts(path, path, content.orientation, unprocessing, tuple(remarks))
    return raw_from_array(pixels, facts.filled_from(content.facts), known)


def _size_remark(path: Path, pixels: NDArray[Any], header: BayerHeader | None) -> list[Remark]:
    """A remark if the size of an array is not that of flags or a sidecar; the array's own size is used.

    The size that a data set's layout assumes is not compared.
    """
    if header is None:
        return []
    stated = find_header(path, header.without_layout())
    size = pixels.shape[1::-1] if pixels.ndim == 2 or pixels.shape[-1] == 3 else pixels.shape[:0:-1]
    if stated.width is None or stated.height is None or size == (stated.width, stated.height):
        return []
    found = f"is {size[0]}x{size[1]}, though --raw-size says {stated.width}x{stated.height}"
    return [Remark("another size than declared", f"{path}: {found}; an array knows its size: correct or leave it out")]


@cache
def _warn_of_photos(origin: str) -> None:
    """Warns once that images which may be photos are read as linear RGB, since their files do not state it."""
    logger.warning("%s: its pictures of 8 bits a channel are taken for linear light; %s", origin, PHOTO_REMEDY)

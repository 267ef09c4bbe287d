"""Finds the images that label files name, also with other separators, Unicode forms or extensions."""

import os
import re
import unicodedata
from pathlib import Path, PureWindowsPath

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.extensions import (
    ARRAY_EXTENSIONS,
    CAMERA_EXTENSIONS,
    HEADERLESS_EXTENSIONS,
    PHOTO_EXTENSIONS,
    TIFF_EXTENSIONS,
)
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.types import RawImage

_FIRST = (*sorted(CAMERA_EXTENSIONS), *sorted(TIFF_EXTENSIONS), ".png", ".npy")
_RAW_EXTENSIONS = (*_FIRST, *sorted(ARRAY_EXTENSIONS - set(_FIRST)), *sorted(HEADERLESS_EXTENSIONS))


def existing(path: Path) -> Path:
    """The path of the existing file with one of the name's two Unicode forms; `path` itself if there is none.

    Archives made on a Mac write ä as the letter a and a combining mark; most label files write it as one character.
    """
    if str(path).isascii():
        return path
    for form in ("NFC", "NFD"):
        other = Path(unicodedata.normalize(form, str(path)))
        # `os.path.exists` is False for an impossible name, such as one that is too long; pathlib raises.
        if not os.path.exists(path) and os.path.exists(other):
            return other
    return path


def find_file(folder: Path, name: str) -> Path:
    """The path of a file that a label file names, relative to a folder.

    Backslashes separate folders as on Windows, unless a file with backslashes in its name exists.
    """
    path = existing(folder / name)
    if "\\" in name and not os.path.exists(path):
        return existing(folder / name.replace("\\", "/"))
    return path


def leads_out(name: str) -> bool:
    """Whether a path may leave its folder: it is absolute by the rules of any system, or has a part `..`.

    >>> [leads_out(name) for name in ("a/b.dng", "../b.dng", "/b.dng", "C:\\\\b.dng", "a..b.dng")]
    [False, True, True, True, False]
    """
    return bool(Path(name).anchor or PureWindowsPath(name).anchor) or ".." in re.split(r"[/\\]", name)


def inside(name: str) -> str:
    """The path without the parts that lead out of a folder, for the names of files that are derived from it.

    >>> inside("../a/./b.jpg"), inside("/c/d.jpg"), inside("C:\\\\e.jpg"), inside("f.jpg")
    ('a/./b.jpg', 'c/d.jpg', 'C_/e.jpg', 'f.jpg')
    """
    if not leads_out(name):
        return name
    parts = [part.replace(":", "_") for part in re.split(r"[/\\]", name) if part not in ("", "..")]
    return "/".join(parts) or "_"


def raw_beside(path: Path) -> Path | None:
    """A raw beside a file, with the same stem and another extension; None if there is none."""
    for extension in _RAW_EXTENSIONS:
        for written in (extension, extension.upper()):
            try:
                other = path.with_suffix(written)
            except ValueError:  # a path without a name
                return None
            if other != path and os.path.isfile(other):
                return other
    return None


def read_listed(path: Path, header: BayerHeader | None = None) -> RawImage:
    """Reads the raw that a label file names.

    Raises:
        RawFileError: as for `read_raw`; the message names a raw with the same stem and another extension.
    """
    try:
        return read_raw(path, header)
    except RawFileError as error:
        missing = not os.path.exists(path)
        other = raw_beside(path) if missing or path.suffix.lower() in PHOTO_EXTENSIONS else None
        if other is None:
            raise
        reason = "no such file" if missing else "is a photo, to be used with --light"
        remedy = "correct the name in the labels; a COCO JSON is read by stems with layout: coco and by-stem: true in a"
        raise RawFileError(f"{path}: {reason}, but the raw {other.name} is there; {remedy} data-set YAML") from error

"""Class names from files: a text file with one a line, and names of any kind made fit to be printed and drawn."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from adaptiveisp.detectors.classes import shown_name
from adaptiveisp.errors import DetectorError, shown

MOST_CLASSES = 30_000
"""Classes of a detector; the largest known vocabulary, ImageNet-21k's, has 21,841."""

LARGEST_FILE = 16_000_000
"""Bytes of a file of names."""


def tidy_names(names: Sequence[str], origin: str | Path) -> tuple[str, ...]:
    """The names, each as one printable line of limited length, see `classes.shown_name`.

    Args:
        names: index = label; they may come from any file.
        origin: the file, for errors.

    Raises:
        DetectorError: there are more than `MOST_CLASSES`.
    """
    if len(names) > MOST_CLASSES:
        raise DetectorError(f"{origin}: has {len(names)} class names; at most {MOST_CLASSES} are supported")
    return tuple(shown_name(name) for name in names)


def read_names(path: Path) -> tuple[str, ...]:
    """The lines of a text file of class names; empty ones do not count.

    Raises:
        DetectorError: it cannot be read, is no text, or is larger than any list of names.
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
    """The class names of a file that another file names, which must lie beside it or below.

    A model and its sidecar may come from anywhere; they must not make us read, and print, files of the machine.

    Args:
        origin: the file that names it.
        given: a path, relative to the folder of `origin`.

    Raises:
        DetectorError: it leads out of that folder, or cannot be read.
    """
    paths = (PurePosixPath(given), PureWindowsPath(given))
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)
    path = origin.parent / given
    try:
        leaves = leaves or not path.resolve().is_relative_to(origin.parent.resolve())
    except (OSError, ValueError, RuntimeError):  # no path at all, for instance with a null byte, or a loop of links
        leaves = True
    if leaves:
        raise DetectorError(
            f"{origin}: names: {shown(given)} lies outside its folder; copy that file beside it and give its name"
        )
    return read_names(path)

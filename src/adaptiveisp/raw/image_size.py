"""Width and height of a raw file from its header, needed to convert labels in fractions of the image to pixels."""

from pathlib import Path

import numpy as np

from adaptiveisp.errors import RawFileError, unreadable
from adaptiveisp.raw.array_files import PNG_SIGNATURE
from adaptiveisp.raw.develop import upright_size
from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS, TIFF_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.libraw import libraw_size
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.raw.tiff import tiff_size


def raw_size(path: Path, header: BayerHeader | None = None) -> tuple[int, int]:
    """(width, height) of the upright image that `read_raw` and `develop` would give, without reading pixels.

    Args:
        path: a raw file of any kind that `read_raw` supports.
        header: facts with the size of files that do not state it.

    Raises:
        RawFileError: the file is missing or damaged, or neither it nor `header` nor a sidecar states its size.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    extension = path.suffix.lower()
    try:
        if extension in CAMERA_EXTENSIONS:
            return libraw_size(path)
        if extension == ".png":
            return _png_size(path)
        if extension == ".npy":
            return _size_of(_npy_shape(path))
        if extension in TIFF_EXTENSIONS:
            shape, orientation = tiff_size(path)
            return upright_size(*_size_of(shape), orientation)
    except OSError as error:
        raise RawFileError(unreadable(path, error)) from None
    except ValueError as error:
        reason = next(iter(str(error).splitlines()), "no size")
        raise RawFileError(f"{path}: is damaged ({reason}); copy it again from its source") from None
    facts = find_header(path, header)
    if facts.width is None or facts.height is None:
        remedy = (
            f"give --raw-size or a sidecar {path.name}.yaml with raw-size; in Python header=BayerHeader(width, height)"
        )
        raise RawFileError(f"{path}: has no header; {remedy}")
    return facts.width, facts.height


def _size_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) of an array of a given shape.

    Raises:
        ValueError: the array has fewer than two axes.
    """
    planes_first = len(shape) == 3 and shape[2] != 3 and shape[0] == 3
    height, width = shape[1:] if planes_first else shape[:2]
    return width, height


def _png_size(path: Path) -> tuple[int, int]:
    """(width, height) of a PNG. Source: W3C, PNG specification 3rd edition, 11.2.2 (IHDR)."""
    with path.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or not head.startswith(PNG_SIGNATURE):
        raise ValueError("no PNG header")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _npy_shape(path: Path) -> tuple[int, ...]:
    try:
        shape: tuple[int, ...] = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except OSError:
        raise
    except Exception as error:  # a damaged header is an invalid Python literal, which can cause any error
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return shape

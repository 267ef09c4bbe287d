"""Reads OpenEXR files: linear RGB, or one channel with a mosaic.

Source: Academy Software Foundation, "OpenEXR File Layout" and "Technical Introduction to OpenEXR".
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, shown
from adaptiveisp.raw.array_files import require_sane_size
from adaptiveisp.types import Remark
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.stderr import captured_stderr

MAGIC = b"\x76\x2f\x31\x01"
_LARGEST_RATIO = 20_000
"""Most bytes of pixels for each byte of the file; frames with any content stay far below."""
_LARGEST_SAMPLE = 4
_TYPES = ("u4", "f2", "f4")
"""Type of the values by their number in the file: unsigned integers, half, float."""
_DAMAGE_MESSAGES = (b"exr_err", b"exception raised")
"""Parts of the lines that OpenEXR prints about damaged files."""


def read_exr(path: Path) -> tuple[NDArray[Any], tuple[Remark, ...]]:
    """Reads the pixels of the data window, (height, width, 3) or (height, width).

    Returns:
        The pixels, and a remark if the data window is not the whole picture.

    Raises:
        RawFileError: the file is damaged, has several parts, or other channels than RGB or a single one.
        AdaptiveISPError: OpenEXR is not installed.
    """
    header = _header(path)
    names = sorted(channel.name for channel in header["channels"])
    width, height = _size(header)
    channels = _channels(path, names, (height, width))
    if set(names) == {"A", "B", "G", "R"} and not (channels["A"] == 1).all():
        raise RawFileError(f"{path}: has transparent pixels (channel A); save it without alpha")
    colours = [channels[name] for name in ("R", "G", "B")] if len(names) > 1 else [channels[names[0]]]
    pixels: NDArray[Any] = np.stack(colours, axis=-1) if len(colours) > 1 else colours[0]
    return pixels, _window_remark(header, path)


def exr_size(path: Path) -> tuple[int, int]:
    """(width, height) of the data window, without reading the pixels.

    Raises:
        RawFileError: as for `read_exr`.
    """
    return _size(_header(path))


def _size(header: dict[str, Any]) -> tuple[int, int]:
    (left, top), (right, bottom) = header["dataWindow"]
    return int(right) - int(left) + 1, int(bottom) - int(top) + 1


def _window_remark(header: dict[str, Any], path: Path) -> tuple[Remark, ...]:
    data, display = (np.asarray(header[name]).tolist() for name in ("dataWindow", "displayWindow"))
    if data == display:
        return ()
    text = f"{path}: its pixels are those of the data window {data}, though the display window is {display}"
    return (Remark("another data window", f"{text}; labels must refer to the data window"),)


def _header(path: Path) -> dict[str, Any]:
    """The header of the only part.

    Raises:
        RawFileError: it cannot be read, states more pixels than the file can hold, or is of another kind.
    """
    exr = import_extra("OpenEXR", "exr")
    with path.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise RawFileError(f"{path}: is no OpenEXR file; give it the extension of its real format")
    try:
        with captured_stderr(_DAMAGE_MESSAGES), exr.File(str(path), header_only=True) as file:
            n_parts, header = len(file.parts), dict(file.header())
        width, height = _size(header)
        names = sorted(channel.name for channel in header["channels"])
        sampled = {(channel.xSampling, channel.ySampling) for channel in header["channels"]}
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RawFileError(f"{path}: is damaged ({_reason(error, path)}); copy it again from its source") from None
    if n_parts != 1 or "deep" in str(header.get("type")):
        raise RawFileError(f"{path}: holds {n_parts} parts, or deep pixels; save one flat image")
    pixels = width * height
    require_sane_size(path, pixels)
    if min(width, height) < 1 or pixels * len(names) * _LARGEST_SAMPLE > _LARGEST_RATIO * path.stat().st_size:
        raise RawFileError(f"{path}: is damaged or truncated: too short for {pixels} pixels; copy it again")
    if len(names) != 1 and names not in (["B", "G", "R"], ["A", "B", "G", "R"]):
        found = ", ".join(map(shown, names[:8]))
        raise RawFileError(f"{path}: has the channels {found}; save R, G and B, or a single channel with the mosaic")
    if sampled != {(1, 1)}:
        raise RawFileError(f"{path}: its channels are subsampled; save them at full resolution")
    return header


def _channels(path: Path, names: list[str], shape: tuple[int, int]) -> dict[str, NDArray[Any]]:
    """The pixels of each channel.

    Raises:
        RawFileError: the file is damaged.
    """
    exr = import_extra("OpenEXR", "exr")
    try:
        # OpenEXR.File only prints that pixels are damaged, on standard output; this reader raises an error.
        with captured_stderr(_DAMAGE_MESSAGES), closing(exr.InputFile(str(path))) as file:
            kinds = {name: _TYPES[channel.type.v] for name, channel in file.header()["channels"].items()}
            return {name: np.frombuffer(file.channel(name), kinds[name]).reshape(shape) for name in names}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise RawFileError(f"{path}: is damaged ({_reason(error, path)}); copy it again from its source") from None


def _reason(error: Exception, path: Path) -> str:
    return (next(iter(str(error).splitlines()), "") or type(error).__name__).replace(str(path), path.name)

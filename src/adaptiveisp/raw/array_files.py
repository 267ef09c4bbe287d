"""Reads and writes 16-bit PNG, with the note on the synthesis of a raw; limits on the size of all arrays."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16
from numpy.typing import NDArray

from adaptiveisp.errors import OutputError, RawFileError
from adaptiveisp.raw.synthesis_metadata import MARKER, note_from_unprocessing
from adaptiveisp.types import Unprocessing
from adaptiveisp.utils.files import write_bytes
from adaptiveisp.utils.optional_imports import import_extra

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NPY_MAGIC = b"\x93NUMPY"
MOST_PIXELS = 250_000_000
"""Most pixels of a frame. The largest sensors have 150 MP, but a small compressed file can state any number."""
_HEADER_END = 33  # signature and IHDR, which has a fixed length
_PALETTE = 3  # PNG colour type
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_LARGEST_RATIO = 1100
"""Most bytes of pixels for each byte of the file. Source: zlib's technical details, 1032 for deflate."""
LONGEST_NOTE = 2**20
"""Most characters of a note that are unpacked; a note has a few hundred."""
PNG_LEVEL = 1
"""Level of zlib's compression. Noise hardly compresses: level 6 is five times slower for files that are 2 % smaller."""


def write_png16(
    array: UInt16[np.ndarray, "height width 3"], path: Path, unprocessing: Unprocessing | None = None
) -> None:
    """Writes linear RGB as a 16-bit PNG, with `unprocessing` in a text chunk that `read_raw` understands.

    Args:
        array: linear RGB, 0 = black level, 65535 = white level.
        path: the file, which is written atomically.
        unprocessing: parameters by which the image was made from a photo, or None.

    Raises:
        OutputError: `array` has another shape or type, or the file cannot be written.
        AdaptiveISPError: imagecodecs is not installed.

    Source: W3C, PNG specification 3rd edition, 11.3.3.2 (tEXt).
    """
    imagecodecs = import_extra("imagecodecs", "raw")
    if array.dtype != np.uint16 or array.ndim != 3 or array.shape[2] != 3:
        raise OutputError(f"{path}: a 16-bit PNG needs (height, width, 3) uint16, not {array.shape} {array.dtype}")
    content = bytes(imagecodecs.png_encode(np.ascontiguousarray(array), level=PNG_LEVEL))
    if unprocessing is not None:
        text = MARKER.encode("latin-1") + b"\0" + note_from_unprocessing(unprocessing).encode("latin-1")
        content = content[:_HEADER_END] + _chunk(b"tEXt", text) + content[_HEADER_END:]
    write_bytes(path, content)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk: length, kind, content, checksum of kind and content."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def read_png(path: Path) -> tuple[NDArray[Any], str | None]:
    """Reads the pixels at their full depth, and the text under the key `adaptiveisp` (None without one).

    Raises:
        RawFileError: the file is damaged, or is not an 8- or 16-bit greyscale or colour PNG.
        AdaptiveISPError: imagecodecs is not installed.
    """
    imagecodecs = import_extra("imagecodecs", "raw")
    content = path.read_bytes()
    if not content.startswith(PNG_SIGNATURE):
        raise RawFileError(f"{path}: is not a PNG file; give it the extension of its real format")
    if len(content) < _HEADER_END:
        raise RawFileError(f"{path}: is truncated; copy it again from its source")
    bits, colour_type = content[24], content[25]
    if bits not in (8, 16) or colour_type == _PALETTE:
        raise RawFileError(f"{path}: palette and {bits}-bit PNG hold no raw data; save it as 16-bit RGB")
    width, height = struct.unpack_from(">II", content, 16)
    if width * height * _CHANNELS.get(colour_type, 1) * bits // 8 > _LARGEST_RATIO * len(content):
        raise RawFileError(f"{path}: is damaged or truncated: too short for {width}x{height} pixels; copy it again")
    require_sane_size(path, width * height)
    if any(kind == b"acTL" for kind, _, _ in _chunks(content)):
        raise RawFileError(f"{path}: holds several frames (animated PNG); save each as a file of its own")
    orientation = _orientation(content)
    if orientation not in (0, 1):
        raise RawFileError(
            f"{path}: its Exif data say orientation {orientation}; save it upright, or without Exif data"
        )
    # If the checksum of an optional chunk is wrong, libpng only prints a line on stderr.
    if not all(intact for _, _, intact in _chunks(content)):
        raise RawFileError(f"{path}: is damaged (wrong checksum); copy it again from its source")
    try:
        pixels: NDArray[Any] = imagecodecs.png_decode(content)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise RawFileError(f"{path}: is damaged ({first_line(error)}); copy it again from its source") from None
    return pixels, _note_of(content)


def _orientation(content: bytes) -> int:
    """The EXIF orientation in an eXIf chunk, 1 without one. Source: PNG specification 3rd edition, 11.3.3.5."""
    from PIL import Image

    for kind, body, _ in _chunks(content):
        if kind == b"eXIf":
            exif = Image.Exif()
            with suppress(Exception):  # damaged Exif data raise many kinds of errors, and are ignored
                exif.load(body)
                return int(exif.get(274, 1))
    return 1


def _note_of(content: bytes) -> str | None:
    """The text under the key `adaptiveisp`; None without one, or if its compression is damaged."""
    for kind, body, _ in _chunks(content):
        keyword, _, rest = body.partition(b"\0")
        if keyword != MARKER.encode("latin-1"):
            continue
        if kind == b"tEXt":
            return rest.decode("latin-1")
        if kind == b"iTXt" and len(rest) > 2:
            compressed, text = rest[0] == 1, rest[2:].split(b"\0", 2)[-1]
            try:
                # A short compressed text can expand to gigabytes.
                text = zlib.decompressobj().decompress(text, LONGEST_NOTE) if compressed else text
                return text.decode("utf-8", errors="replace")
            except zlib.error:
                return None
    return None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yields type and content of each chunk, and whether its checksum is correct."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        body, checksum = content[at + 8 : at + 8 + length], content[at + 8 + length : at + 12 + length]
        yield kind, body, checksum == struct.pack(">I", zlib.crc32(kind + body))
        at += length + 12


def require_sane_size(path: Path, pixels: int) -> None:
    """Refuses an image with more pixels than any camera records, before memory is allocated.

    Args:
        path: file of the image, for the message.
        pixels: number of pixels.

    Raises:
        RawFileError: there are more pixels than `MOST_PIXELS`.
    """
    if pixels > MOST_PIXELS:
        raise RawFileError(
            f"{path}: has {pixels / 1e6:.0f} MP; the most are {MOST_PIXELS / 1e6:.0f} MP: crop or downscale it"
        )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without addresses of objects, which differ from run to run."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"<(\S+) object at 0x\w+>", r"\1", line)

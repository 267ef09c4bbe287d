"""Reads binary PGM and PPM files, of one image or several one behind the other.

Source: Netpbm, "PGM Format Specification" and "PPM Format Specification".
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.array_files import require_sane_size
from adaptiveisp.raw.headerless import SMALLEST_BITS, BayerHeader
from adaptiveisp.types import Remark

_HEADER = re.compile(rb"P[56](?:\s|#[^\n\r]*[\n\r])+(\d{1,9})(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})")
_MAXVAL = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,9})(?:#[^\n\r]*)?\s")
_LONGEST_HEADER = 64 * 1024
"""Most bytes of a header with its comments."""
_CHANNELS = {b"P5": 1, b"P6": 3}
_REFUSED = {
    **{b"P1": "is an ASCII PBM", b"P2": "is an ASCII PGM", b"P3": "is an ASCII PPM"},
    **{b"P4": "is a PBM", b"P7": "is a PAM"},
}
_FULL = (255, 65535)
"""Values of maxval that programs write whatever the depth of the sensor."""


class PnmImage(NamedTuple):
    """Where an image lies in its file.

    Attributes:
        offset: bytes before its pixels.
        shape: (height, width), or (height, width, 3).
        maxval: largest value that its header allows.
    """

    offset: int
    shape: tuple[int, ...]
    maxval: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the stored values, the high byte first."""
        return np.dtype(">u2" if self.maxval > 255 else "u1")

    @property
    def n_bytes(self) -> int:
        """Bytes of its pixels."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def pnm_images(path: Path) -> list[PnmImage]:
    """The images of a file, without reading their pixels.

    Raises:
        RawFileError: the file is damaged or truncated, or of another kind than binary PGM and PPM.
    """
    size, images, at = path.stat().st_size, list[PnmImage](), 0
    with path.open("rb") as stream:
        while True:
            stream.seek(at)
            head = stream.read(_LONGEST_HEADER)
            blank = len(head) - len(head.lstrip())
            if images and blank == len(head) and at + blank == size:
                return images
            if images and not _HEADER.match(head, blank):
                rest = f"{size - at} bytes behind its last image"
                raise RawFileError(f"{path}: has {rest}; copy it again, or correct the size in its header")
            image = _parsed(head, blank if images else 0, at, path)
            if image.offset + image.n_bytes > size:
                sides = "x".join(map(str, image.shape))
                raise RawFileError(f"{path}: is truncated: too short for {sides} values; copy it again from its source")
            images.append(image)
            at = image.offset + image.n_bytes


def _parsed(head: bytes, start: int, at: int, path: Path) -> PnmImage:
    """The image whose header begins at `start` of the bytes that were read at `at`.

    Raises:
        RawFileError: it is no header of a binary PGM or PPM.
    """
    kind = head[start : start + 2]
    if kind in _REFUSED:
        remedy = "save it as binary PGM (P5) or PPM (P6), for instance by OpenCV's imwrite"
        raise RawFileError(f"{path}: {_REFUSED[kind]} file ({kind.decode()}); {remedy}")
    if kind not in _CHANNELS:
        raise RawFileError(f"{path}: is no PGM or PPM file; give it the extension of its real format")
    found = _HEADER.match(head, start)
    number = _MAXVAL.match(head, found.end()) if found is not None else None
    if found is None or number is None or not (int(found[1]) and int(found[2])):
        raise RawFileError(f"{path}: is damaged: its header is incomplete; copy it again from its source")
    width, height = int(found[1]), int(found[2])
    maxval = int(number[1])
    if not 1 <= maxval <= 65535:
        raise RawFileError(f"{path}: its maxval is {maxval}, not 1 to 65535; correct the header")
    require_sane_size(path, width * height)
    shape = (height, width) if _CHANNELS[kind] == 1 else (height, width, 3)
    return PnmImage(at + number.end(), shape, maxval)


def read_pnm(path: Path, image: PnmImage) -> NDArray[Any]:
    """The values of one image, in the byte order of this machine.

    Raises:
        RawFileError: a value is above maxval.
    """
    values = np.fromfile(path, image.dtype, int(np.prod(image.shape)), offset=image.offset).reshape(image.shape)
    pixels: NDArray[Any] = values.astype(image.dtype.newbyteorder("="))
    largest = int(pixels.max())
    if largest > image.maxval:
        found = f"has values up to {largest}, above its maxval {image.maxval}"
        if pixels.dtype == np.uint16 and int(pixels.byteswap().max()) <= image.maxval:
            raise RawFileError(
                f"{path}: {found}: its values look little-endian, though PGM is big-endian; save it again"
            )
        raise RawFileError(f"{path}: {found}; copy it again, or correct maxval")
    return pixels


def pnm_facts(image: PnmImage, stated: BayerHeader, path: Path) -> tuple[BayerHeader, tuple[Remark, ...]]:
    """The depth or white level that maxval states, and a remark if a declared one contradicts it.

    Programs write 255 or 65535 for any sensor, so that there is no remark on these.

    Args:
        image: an image of the file.
        stated: facts of flags and sidecars, which are used.
        path: the file, for the text.
    """
    bits = image.maxval.bit_length()
    if image.maxval == 2**bits - 1 and bits >= SMALLEST_BITS:
        facts = BayerHeader(bits=bits)
    else:
        facts = BayerHeader(white=float(image.maxval) if stated.bits is None else None)
    companded = stated.curve is not None or stated.knees is not None
    if (
        image.maxval in _FULL
        or companded
        or isinstance(stated.white, str)
        or (stated.white, stated.bits) == (None, None)
    ):
        return facts, ()
    white = stated.white if stated.white is not None else 2 ** (stated.bits or 0) - 1
    if white == image.maxval:
        return facts, ()
    text = (
        f"{path}: the white level {white:g} is used, though the file's maxval is {image.maxval}; check which is right"
    )
    return facts, (Remark("white level against the file's maxval", text),)

"""Reads the tags of TIFF-based raw files (DNG, NEF, CR2, ARW, PEF, …), even damaged ones, in bounded time and memory.

These are tags that LibRaw does not expose, and tags that reveal files that LibRaw would misread.
Source: Adobe, TIFF 6.0 and TIFF technical note 1; BigTIFF design (Aware Systems); EXIF 2.32; Adobe DNG 1.7.1.
"""

import io
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Directory = dict[int, str | tuple[float, ...]]
"""Tag → its numbers (rationals divided) or text."""

CFA, LINEAR_RAW = 32803, 34892
"""Values of PhotometricInterpretation for a mosaic, and for a raw that is already demosaiced."""
DNG_VERSION = 50706
OPCODES = 51009
"""Tag OpcodeList2: corrections of linear values before demosaicing."""
DEFLATE, LOSSLESS_JPEG, LOSSY_JPEG = 8, 7, 34892
"""Values of Compression."""
BIG_MAGIC, PANASONIC_MAGIC = 43, 0x55
_SUB_DIRECTORIES, _EXIF = 330, 34665
_D65_ILLUMINANT = 21  # EXIF LightSource
_LARGEST_SHORT = 2**16 - 1
_KNOWN_TAGS = frozenset(
    {254, 256, 257, 258, 259, 262, 270, 271, 272, 273, 274, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339}
    | {_SUB_DIRECTORIES, _EXIF, 33421, 33422, 33434, 34855, 34866, 34867, DNG_VERSION, 50710, 50711, 50712, 50713}
    | {50714, 50715, 50716, 50717, 50718, 50721, 50722, 50778, 50779, 50975, OPCODES, 51041, 52547}
    | {2, 3, 45, 280}  # Panasonic's SensorWidth, SensorHeight, RawFormat, RawDataOffset
)
_STRUCT_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_STRUCT_CODES |= {13: "I", 16: "Q", 17: "q", 18: "Q"}  # IFD; LONG8, SLONG8, IFD8
# Bounds for damaged files, which can refer to the same long values many times.
_MAX_ENTRIES, _MAX_VALUES, _MAX_DIRECTORIES, _MAX_VALUES_OF_A_FILE = 2000, 200_000, 32, 1_000_000


@dataclass(frozen=True)
class TagFile:
    """The directories of a file; empty if the file is not a TIFF or cannot be read.

    Attributes:
        directories: the first one, its sub-images and EXIF, then those that are chained to it.
        magic: the number after the byte order: 42 in a TIFF, 43 in a BigTIFF, others in some makers' files.
        n_bytes: bytes of the file.
    """

    directories: tuple[Directory, ...] = ()
    magic: int = 0
    n_bytes: int = 0

    @property
    def is_dng(self) -> bool:
        """Whether the first directory marks the file as a DNG."""
        return bool(self.directories) and DNG_VERSION in self.directories[0]

    @property
    def raw(self) -> Directory:
        """The directory of the largest mosaic or linear raw that is not a preview; empty without one."""
        raws = [directory for directory in self.directories if number(directory, 262) in (CFA, LINEAR_RAW)]
        full = [directory for directory in raws if not number(directory, 254)] or raws
        return max(
            full, key=lambda directory: (number(directory, 256) or 0) * (number(directory, 257) or 0), default={}
        )


def read_tag_file(path: Path) -> TagFile:
    """The tags of a file.

    Args:
        path: any file. A file that is not a TIFF or cannot be read has no tags, and LibRaw reports the error.
    """
    try:
        with Path(path).open("rb") as stream:
            return parse_tags(stream)
    except (OSError, OverflowError):  # OverflowError: a seek beyond the largest offset
        return TagFile()


class _Format(NamedTuple):
    """The format of counts and offsets.

    Attributes:
        order: byte order as in `struct`, "<" or ">".
        entries: `struct`'s code of the number of tags.
        offset: `struct`'s code of an offset.
    """

    order: str
    entries: str
    offset: str

    @property
    def inline(self) -> int:
        """Bytes of a value that is stored in the entry itself."""
        return struct.calcsize("<" + self.offset)

    @property
    def entry(self) -> int:
        """Bytes of an entry: tag, type, count and value."""
        return 4 + 2 * self.inline


def parse_tags(stream: io.BufferedIOBase) -> TagFile:
    """The tags in an open file.

    Args:
        stream: a seekable stream, which is read from its beginning.
    """
    n_bytes = stream.seek(0, 2)
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return TagFile(n_bytes=n_bytes)
    magic = struct.unpack_from(order + "H", head, 2)[0]
    is_big = magic == BIG_MAGIC and len(head) == 16
    form = _Format(order, "Q", "Q") if is_big else _Format(order, "H", "I")
    waiting, chained = [struct.unpack_from(order + form.offset, head, 8 if is_big else 4)[0]], list[int]()
    visited, directories, left = set[int](), list[Directory](), _MAX_VALUES_OF_A_FILE
    while (waiting or chained) and len(directories) < _MAX_DIRECTORIES:
        at = waiting.pop(0) if waiting else chained.pop(0)
        if at in visited or not 0 < at < n_bytes:
            continue
        visited.add(at)
        directory, following, left = _read_directory(stream, at, form, left)
        directories.append(directory)
        waiting += offsets(directory, _SUB_DIRECTORIES) + offsets(directory, _EXIF)
        chained.append(following)
    return TagFile(tuple(directories), magic, n_bytes)


def _read_directory(stream: io.BufferedIOBase, at: int, form: _Format, left: int) -> tuple[Directory, int, int]:
    """Reads one directory.

    Args:
        stream: the file.
        at: offset of the directory.
        form: byte order and widths.
        left: number of values that may still be read from this file.

    Returns:
        Its known tags, the offset of the next directory, and the new `left`.
    """
    stream.seek(at)
    head = stream.read(struct.calcsize("<" + form.entries))
    if len(head) < struct.calcsize("<" + form.entries):
        return {}, 0, left
    count = struct.unpack(form.order + form.entries, head)[0]
    table = stream.read(form.entry * min(count, _MAX_ENTRIES))
    next_at = stream.read(form.inline) if count <= _MAX_ENTRIES else b""
    following = struct.unpack(form.order + form.offset, next_at)[0] if len(next_at) == form.inline else 0
    directory: Directory = {}
    for start in range(0, len(table) - form.entry + 1, form.entry):
        tag, kind, n_values = struct.unpack_from(form.order + "HH" + form.offset, table, start)
        code = _STRUCT_CODES.get(kind)
        if code is None or tag not in _KNOWN_TAGS or tag in directory or n_values > min(_MAX_VALUES, left):
            continue
        n_bytes = struct.calcsize("<" + code) * n_values
        content = table[start + 4 + form.inline : start + form.entry]
        if n_bytes > form.inline:
            stream.seek(struct.unpack(form.order + form.offset, content)[0])
            content = stream.read(n_bytes)
        if len(content) >= n_bytes:
            directory[tag] = _decode(content[:n_bytes], code, form.order)
            left -= n_values
    return directory, following, left


def _decode(content: bytes, code: str, order: str) -> str | tuple[float, ...]:
    if code == "s":
        return content.split(b"\0")[0].decode("utf-8", errors="replace")
    n_values = len(content) // struct.calcsize("<" + code)
    values = struct.unpack(order + code * n_values, content)
    if len(code) == 1:
        return values
    return tuple(top / bottom if bottom else math.nan for top, bottom in zip(values[::2], values[1::2], strict=True))


def numbers(directory: Directory, tag: int) -> tuple[float, ...]:
    """The values of a tag; () for text or without the tag."""
    value = directory.get(tag, ())
    return () if isinstance(value, str) else value


def offsets(directory: Directory, tag: int) -> list[int]:
    """The values of a tag that can be offsets or lengths; damaged files have fractions, NaN and negatives too."""
    return [value for value in numbers(directory, tag) if isinstance(value, int) and value >= 0]


def opcode_list(file: TagFile) -> bytes:
    """The value of OpcodeList2 of a DNG's raw; an empty list without one."""
    values = offsets(file.raw, OPCODES) if file.is_dng else []
    return bytes(value & 255 for value in values) or bytes(4)


def number(directory: Directory, tag: int) -> float | None:
    """The first value of a tag; None if it is missing or not finite."""
    values = numbers(directory, tag)
    return values[0] if values and math.isfinite(values[0]) else None


@dataclass(frozen=True)
class DngTags:
    """Metadata of a TIFF-based raw file that LibRaw does not expose; None if the file does not state it.

    Attributes:
        description: ImageDescription of the first directory.
        camera: Make and Model of the first directory, without a repeated make.
        xyz_to_camera: ColorMatrix1 or ColorMatrix2, preferably that for daylight (D65), row-major.
        black_level: BlackLevel at each position of the 2x2 block, with its fraction.
        noise_profile: (shot, read), the mean over the planes of NoiseProfile.
        iso: PhotographicSensitivity.
        exposure_s: ExposureTime in seconds.
    """

    description: str | None = None
    camera: str | None = None
    xyz_to_camera: tuple[float, ...] | None = None
    black_level: tuple[float, float, float, float] | None = None
    noise_profile: tuple[float, float] | None = None
    iso: float | None = None
    exposure_s: float | None = None


def dng_tags(file: TagFile) -> DngTags:
    """The metadata in a file's tags; all None if the file is not a TIFF or is damaged."""
    directories = list(file.directories)
    if not directories:
        return DngTags()
    description = directories[0].get(270)
    return DngTags(
        description=description if isinstance(description, str) else None,
        camera=_camera_of(directories[0]),
        xyz_to_camera=_color_matrix_of(directories[0]),
        black_level=_black_of(file.raw),
        noise_profile=_noise_of([file.raw, *directories]),
        iso=_iso_of(directories),
        exposure_s=_first_number(directories, 33434),
    )


def read_dng_tags(path: Path) -> DngTags:
    """The metadata in the tags of a file; all None if it is not a TIFF, is damaged or cannot be read."""
    return dng_tags(read_tag_file(path))


def _first_number(directories: list[Directory], tag: int) -> float | None:
    found = (number(directory, tag) for directory in directories)
    return next((value for value in found if value is not None and value > 0), None)


def _camera_of(directory: Directory) -> str | None:
    """The camera's name, such as "Canon EOS 5D Mark IV"; many makers repeat their name in the model."""
    make, model = (str(directory.get(tag, "")).strip() for tag in (271, 272))
    words = make.split()
    name = model if words and model.lower().startswith(words[0].lower()) else f"{make} {model}".strip()
    return name or None


def _iso_of(directories: list[Directory]) -> float | None:
    """PhotographicSensitivity, or from 65535 on the value of the tags that can hold larger numbers."""
    iso = _first_number(directories, 34855)
    if iso is None or iso >= _LARGEST_SHORT:
        return _first_number(directories, 34867) or _first_number(directories, 34866) or iso
    return iso


def _color_matrix_of(directory: Directory) -> tuple[float, ...] | None:
    """The 3x3 colour matrix for daylight; if none is marked as such, the second one, which is for bluer light."""
    found = None
    for matrix_tag, illuminant_tag in ((50721, 50778), (50722, 50779)):
        matrix = numbers(directory, matrix_tag)
        if len(matrix) == 9 and all(math.isfinite(entry) for entry in matrix):
            if number(directory, illuminant_tag) == _D65_ILLUMINANT:
                return matrix
            found = matrix
    return found


def _black_of(directory: Directory) -> tuple[float, float, float, float] | None:
    """BlackLevel at each position of the 2x2 block.

    It is None if the levels repeat in another way, or if there are offsets per row or column, which LibRaw adds.
    """
    values = numbers(directory, 50714)
    if not all(math.isfinite(value) for value in values) or 50715 in directory or 50716 in directory:
        return None
    repeat = numbers(directory, 50713) or (1, 1)
    if repeat == (1, 1) and len(values) == 1:
        return (values[0],) * 4
    if repeat == (2, 2) and len(values) == 4:
        return values[0], values[1], values[2], values[3]
    return None


def _noise_of(directories: list[Directory]) -> tuple[float, float] | None:
    for directory in directories:
        profile: NDArray[np.float64] = np.asarray(numbers(directory, 51041), dtype=np.float64)
        if profile.size >= 2 and profile.size % 2 == 0 and np.isfinite(profile).all():
            shot, read = profile.reshape(-1, 2).mean(axis=0)
            return float(shot), float(read)
    return None

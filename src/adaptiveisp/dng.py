"""DNG files: a small writer for uncompressed Bayer mosaics, and a reader of the few tags that LibRaw does not hand out.

The writer exists because common ones duplicate tags or leave them unordered, which strict readers refuse.
Source: Adobe, Digital Negative specification 1.7.1; TIFF 6.0; EXIF 2.32.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt16
from numpy.typing import NDArray

from adaptiveisp.errors import OutputError
from adaptiveisp.files import atomic_path
from adaptiveisp.rawnote import note_from_unprocessing
from adaptiveisp.types import BAYER_PATTERNS, RawImage

XYZ_TO_SRGB = (
    3.2404542, -1.5371385, -0.4985314,
    -0.9692660, 1.8760108, 0.0415560,
    0.0556434, -0.2040259, 1.0572252,
)  # fmt: skip
"""Stands in for an unknown camera: colours that are already linear sRGB. Source: IEC 61966-2-1, primaries under D65."""

SMALLEST_SIDE = 22
"""LibRaw takes a file with a shorter side for a thumbnail and refuses it."""

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL, _DOUBLE = 1, 2, 3, 4, 5, 10, 12
_CFA_INDEX = {"R": 0, "G": 1, "B": 2}
_DNG_VERSION = 50706
_D65_ILLUMINANT = 21  # EXIF LightSource
_ISO_IS_EXPOSURE_INDEX = 2  # EXIF SensitivityType: the value is in RecommendedExposureIndex
_LARGEST_SHORT = 2**16 - 1
_LARGEST_LONG = 2**32 - 1

_Entry = tuple[int, int, int, bytes]
"""Tag, type, number of values, the values' bytes (little-endian)."""


def write_dng(raw: RawImage, path: Path) -> None:
    """Writes `raw` as an uncompressed 16-bit Bayer DNG, pixel for pixel, with all that `RawImage` knows in its tags.

    A `raw.unprocessing` goes into ImageDescription as JSON, so that a synthetic file describes itself. Gains that
    are unknown leave AsShotNeutral out; an unknown colour matrix is written as that of linear sRGB.

    Args:
        raw: a mosaic of 8- or 16-bit unsigned integers (8-bit values are kept, not stretched), any pattern and size
            from 22x22 on, odd ones included.
        path: the file; it appears whole or not at all.

    Raises:
        OutputError: `raw` is not such a mosaic, or the file cannot be written.

    Source: Adobe DNG specification 1.7.1, chapters 3 and 4.
    """
    pixels = _writable_pixels(raw, path)
    description = note_from_unprocessing(raw.unprocessing) if raw.unprocessing is not None else None
    exif_entries = _exif_entries(raw)
    # Lengths do not depend on the offsets, so a first pass with zeros finds where everything lies.
    exif_at = 8 + len(_pack_ifd(_main_entries(raw, description, 0, 0 if exif_entries else None), 8))
    exif = _pack_ifd(exif_entries, exif_at) if exif_entries else b""
    pixels_at = exif_at + len(exif)
    main = _pack_ifd(_main_entries(raw, description, pixels_at, exif_at if exif_entries else None), 8)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<2sHI", b"II", 42, 8) + main + exif)
        stream.write(pixels.tobytes())


def _writable_pixels(raw: RawImage, path: Path) -> UInt16[np.ndarray, "height width"]:
    """The mosaic as little-endian 16-bit values, after checking that a DNG can hold it."""
    if raw.pattern not in BAYER_PATTERNS or raw.data.ndim != 2:
        raise OutputError(f"{path}: only Bayer mosaics can be written as DNG; write this image as 16-bit PNG")
    if raw.data.dtype not in (np.uint8, np.uint16):
        raise OutputError(f"{path}: a DNG holds 8- or 16-bit integers, not {raw.data.dtype}; convert the data first")
    if min(raw.data.shape) < SMALLEST_SIDE:
        raise OutputError(f"{path}: {raw.data.shape[1]}x{raw.data.shape[0]} is too small; LibRaw needs 22x22 or more")
    black_fits = all(0 <= level < raw.white_level for level in raw.black_level)
    if not (black_fits and 0.5 < raw.white_level < _LARGEST_SHORT + 0.5):
        raise OutputError(f"{path}: black and white level must satisfy 0 <= black < white <= 65535")
    return np.ascontiguousarray(raw.data, dtype="<u2")


def _main_entries(raw: RawImage, description: str | None, pixels_at: int, exif_at: int | None) -> list[_Entry]:
    """The tags of the image itself."""
    height, width = raw.data.shape
    pattern = raw.pattern or ""
    matrix = raw.xyz_to_camera if raw.xyz_to_camera is not None else XYZ_TO_SRGB
    entries = [
        _longs(254, 0),  # NewSubfileType: the full image
        _longs(256, width),
        _longs(257, height),
        _shorts(258, 16),  # BitsPerSample
        _shorts(259, 1),  # Compression: none
        _shorts(262, 32803),  # PhotometricInterpretation: CFA
        _text(271, "adaptiveisp"),  # Make
        _text(272, "synthetic" if description else "mosaic"),  # Model
        _longs(273, pixels_at),  # StripOffsets
        _shorts(274, raw.orientation),
        _shorts(277, 1),  # SamplesPerPixel
        _longs(278, height),  # RowsPerStrip: one strip
        _longs(279, 2 * height * width),  # StripByteCounts
        _shorts(284, 1),  # PlanarConfiguration
        _shorts(33421, 2, 2),  # CFARepeatPatternDim
        _bytes(33422, *(_CFA_INDEX[letter] for letter in pattern)),  # CFAPattern
        _bytes(_DNG_VERSION, 1, 4, 0, 0),
        _bytes(50707, 1, 1, 0, 0),  # DNGBackwardVersion
        _text(50708, "adaptiveisp"),  # UniqueCameraModel
        _bytes(50710, 0, 1, 2),  # CFAPlaneColor
        _shorts(50711, 1),  # CFALayout: rectangular
        _shorts(50713, 2, 2),  # BlackLevelRepeatDim
        _rationals(50714, raw.black_level),
        _longs(50717, round(raw.white_level)),
        _rationals(50721, matrix, signed=True),  # ColorMatrix1
        _shorts(50778, _D65_ILLUMINANT),  # CalibrationIlluminant1
    ]
    if description:
        entries.append(_text(270, description))
    if exif_at is not None:
        entries.append(_longs(34665, exif_at))
    if raw.camera_gains is not None:
        smallest = min(raw.camera_gains)
        # AsShotNeutral is what the sensor records of a neutral surface: the inverse of the gains, at most 1.
        entries.append(_rationals(50728, [smallest / gain for gain in raw.camera_gains]))
    if raw.noise_profile is not None:
        entries.append((51041, _DOUBLE, 6, struct.pack("<6d", *(raw.noise_profile * 3))))
    return entries


def _exif_entries(raw: RawImage) -> list[_Entry]:
    """Exposure time and ISO, as far as they are known."""
    entries = []
    if raw.exposure_s is not None:
        entries.append(_rationals(33434, [raw.exposure_s]))
    if raw.iso is not None:
        iso = round(raw.iso)
        entries.append(_shorts(34855, min(iso, _LARGEST_SHORT)))
        if iso > _LARGEST_SHORT:
            # EXIF 2.3: 65535 there means "look at the longer tags"; LibRaw cuts a LONG in 34855 to its low 16 bits.
            entries += [_shorts(34864, _ISO_IS_EXPOSURE_INDEX), _longs(34866, iso)]
    return entries


def _bytes(tag: int, *values: int) -> _Entry:
    return tag, _BYTE, len(values), bytes(values)


def _shorts(tag: int, *values: int) -> _Entry:
    return tag, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def _longs(tag: int, *values: int) -> _Entry:
    return tag, _LONG, len(values), struct.pack(f"<{len(values)}I", *values)


def _text(tag: int, value: str) -> _Entry:
    content = value.encode("ascii") + b"\0"
    return tag, _ASCII, len(content), content


def _rationals(tag: int, values: Sequence[float], signed: bool = False) -> _Entry:
    limit = 2**31 - 1 if signed else _LARGEST_LONG
    content = b"".join(struct.pack("<ii" if signed else "<II", *_as_rational(value, limit)) for value in values)
    return tag, _SRATIONAL if signed else _RATIONAL, len(values), content


def _as_rational(value: float, limit: int) -> tuple[int, int]:
    """The closest fraction with numerator and denominator up to `limit`.

    >>> _as_rational(12.5, 100), _as_rational(-0.25, 100), _as_rational(1 / 8000, 10000)
    ((25, 2), (-1, 4), (1, 8000))
    """
    if not math.isfinite(value) or abs(value) > limit:
        raise OutputError(f"{value} does not fit a TIFF rational")
    fraction = Fraction(value).limit_denominator(max(1, math.floor(limit / (abs(value) + 1))))
    return fraction.numerator, fraction.denominator


def _pack_ifd(entries: list[_Entry], at: int) -> bytes:
    """One image file directory that starts at byte `at`, tags in ascending order, long values after it.

    Source: TIFF 6.0, section 2.
    """
    values_at = at + 2 + 12 * len(entries) + 4
    directory, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, content in sorted(entries):
        if len(content) <= 4:
            directory += struct.pack("<HHI4s", tag, kind, count, content)
            continue
        directory += struct.pack("<HHII", tag, kind, count, values_at + len(values))
        values += content + b"\0" * (len(content) % 2)
    return directory + struct.pack("<I", 0) + values


@dataclass(frozen=True)
class DngTags:
    """What a TIFF-based raw file says of itself beyond LibRaw's answers; None where it says nothing.

    Attributes:
        description: ImageDescription of the first directory.
        camera: Make and Model of the first directory that has them, the make once.
        xyz_to_camera: ColorMatrix1 or 2, the one for daylight (D65) if there is one, row-major.
        black_level: BlackLevel per position of the 2x2 block of the raw directory, with its fraction.
        noise_profile: (shot, read), mean over the planes of NoiseProfile.
        iso: PhotographicSensitivity.
        exposure_s: ExposureTime in seconds.
        missing_bytes: how many bytes of pixels a DNG promises beyond the end of the file.
    """

    description: str | None = None
    camera: str | None = None
    xyz_to_camera: tuple[float, ...] | None = None
    black_level: tuple[float, float, float, float] | None = None
    noise_profile: tuple[float, float] | None = None
    iso: float | None = None
    exposure_s: float | None = None
    missing_bytes: int = 0


_STRUCT_CODES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_STRUCT_CODES[13] = "I"  # IFD, an offset as LONG. Source: TIFF technical note 1
_MAX_ENTRIES, _MAX_VALUES, _MAX_DIRECTORIES = 2000, 200_000, 16  # damaged files must not cost memory or time
_Directory = dict[int, str | tuple[float, ...]]


def read_dng_tags(path: Path) -> DngTags:
    """The tags of a TIFF-based raw file (DNG, NEF, CR2, ARW, PEF, …); all empty when the file is none or is damaged.

    Args:
        path: the file; an unreadable one gives empty tags, since LibRaw is the one to say what is wrong with it.
    """
    try:
        with Path(path).open("rb") as stream:
            directories = _read_directories(stream)
            size = stream.seek(0, 2)
    except OSError:
        return DngTags()
    if not directories:
        return DngTags()
    raw_directories = [directory for directory in directories if _number(directory, 262) in (32803, 34892)]
    raw_directory = raw_directories[0] if raw_directories else {}
    description = directories[0].get(270)
    return DngTags(
        description=description if isinstance(description, str) else None,
        camera=_camera_of(directories[0]),
        xyz_to_camera=_color_matrix_of(directories[0]),
        black_level=_black_of(raw_directory),
        noise_profile=_noise_of([raw_directory, *directories]),
        iso=_iso_of(directories),
        exposure_s=_first_number(directories, 33434),
        # Other makers' files may use these tags in their own way.
        missing_bytes=_missing_bytes(raw_directory, size) if _DNG_VERSION in directories[0] else 0,
    )


def _read_directories(stream: BinaryIO) -> list[_Directory]:
    """The first directory and those it points to (sub-images, EXIF)."""
    order = {b"II": "<", b"MM": ">"}.get(stream.read(2))
    if order is None:
        return []
    directories: list[_Directory] = []
    header = stream.read(6)
    if len(header) < 6:
        return []
    waiting = [struct.unpack(order + "HI", header)[1]]
    while waiting and len(directories) < _MAX_DIRECTORIES:
        directory = _read_directory(stream, waiting.pop(0), order)
        directories.append(directory)
        for pointer in (330, 34665):  # SubIFDs, EXIF
            waiting += _offsets(directory, pointer)
    return directories


def _read_directory(stream: BinaryIO, at: int, order: str) -> _Directory:
    """The tags of one directory that can be read; values are numbers (rationals divided) or text."""
    stream.seek(at)
    head = stream.read(2)
    if len(head) < 2:
        return {}
    count = min(struct.unpack(order + "H", head)[0], _MAX_ENTRIES)
    table = stream.read(12 * count)
    directory: _Directory = {}
    for start in range(0, len(table) - 11, 12):
        tag, kind, n_values = struct.unpack_from(order + "HHI", table, start)
        code = _STRUCT_CODES.get(kind)
        if code is None or n_values > _MAX_VALUES:
            continue
        n_bytes = struct.calcsize("<" + code) * n_values
        content = table[start + 8 : start + 12]
        if n_bytes > 4:
            stream.seek(struct.unpack(order + "I", content)[0])
            content = stream.read(n_bytes)
        if len(content) >= n_bytes:
            directory[tag] = _decode(content[:n_bytes], code, order)
    return directory


def _decode(content: bytes, code: str, order: str) -> str | tuple[float, ...]:
    if code == "s":
        return content.split(b"\0")[0].decode("utf-8", errors="replace")
    n_values = len(content) // struct.calcsize("<" + code)
    numbers = struct.unpack(order + code * n_values, content)
    if len(code) == 1:
        return numbers
    return tuple(top / bottom if bottom else math.nan for top, bottom in zip(numbers[::2], numbers[1::2], strict=True))


def _numbers(directory: _Directory, tag: int) -> tuple[float, ...]:
    value = directory.get(tag, ())
    return () if isinstance(value, str) else value


def _offsets(directory: _Directory, tag: int) -> list[int]:
    """The values that can be offsets or lengths; damaged files have fractions, NaN and negative ones there too."""
    return [value for value in _numbers(directory, tag) if isinstance(value, int) and value >= 0]


def _number(directory: _Directory, tag: int) -> float | None:
    values = _numbers(directory, tag)
    return values[0] if values and math.isfinite(values[0]) else None


def _first_number(directories: list[_Directory], tag: int) -> float | None:
    found = (_number(directory, tag) for directory in directories)
    return next((value for value in found if value is not None and value > 0), None)


def _camera_of(directory: _Directory) -> str | None:
    """The camera's name, such as "Canon EOS 5D Mark IV"; makers often repeat their name in the model's."""
    make, model = (str(directory.get(tag, "")).strip() for tag in (271, 272))
    words = make.split()
    name = model if words and model.lower().startswith(words[0].lower()) else f"{make} {model}".strip()
    return name or None


def _iso_of(directories: list[_Directory]) -> float | None:
    """PhotographicSensitivity, or the longer tags that stand in for it beyond 65534."""
    iso = _first_number(directories, 34855)
    if iso is None or iso >= _LARGEST_SHORT:
        return _first_number(directories, 34867) or _first_number(directories, 34866) or iso
    return iso


def _color_matrix_of(directory: _Directory) -> tuple[float, ...] | None:
    """The 3x3 colour matrix for daylight; the second one if neither says so, being the one of the bluer light."""
    found = None
    for matrix_tag, illuminant_tag in ((50721, 50778), (50722, 50779)):
        matrix = _numbers(directory, matrix_tag)
        if len(matrix) == 9 and all(math.isfinite(entry) for entry in matrix):
            if _number(directory, illuminant_tag) == _D65_ILLUMINANT:
                return matrix
            found = matrix
    return found


def _black_of(directory: _Directory) -> tuple[float, float, float, float] | None:
    """BlackLevel per 2x2 position; None for other repeats and with offsets per row or column, which LibRaw adds."""
    values = _numbers(directory, 50714)
    if not all(math.isfinite(value) for value in values) or 50715 in directory or 50716 in directory:
        return None
    repeat = _numbers(directory, 50713) or (1, 1)
    if repeat == (1, 1) and len(values) == 1:
        return (values[0],) * 4
    if repeat == (2, 2) and len(values) == 4:
        return values[0], values[1], values[2], values[3]
    return None


def _noise_of(directories: list[_Directory]) -> tuple[float, float] | None:
    for directory in directories:
        profile: NDArray[np.float64] = np.asarray(_numbers(directory, 51041), dtype=np.float64)
        if profile.size >= 2 and profile.size % 2 == 0 and np.isfinite(profile).all():
            shot, read = profile.reshape(-1, 2).mean(axis=0)
            return float(shot), float(read)
    return None


def _missing_bytes(directory: _Directory, size: int) -> int:
    """How far strips or tiles reach beyond the end of a file of `size` bytes."""
    ends = [0]
    for offset_tag, count_tag in ((273, 279), (324, 325)):
        offsets, counts = _offsets(directory, offset_tag), _offsets(directory, count_tag)
        ends += [offset + count for offset, count in zip(offsets, counts, strict=False)]
    return max(0, max(ends) - size)

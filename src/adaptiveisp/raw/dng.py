"""Writes mosaics, and the values of monochrome sensors, as uncompressed DNG files.

Common TIFF writers repeat tags or write them in any order, which strict readers refuse; this one avoids both.
Source: Adobe, Digital Negative specification 1.7.1; TIFF 6.0; EXIF 2.32.
"""

import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from adaptiveisp.errors import OutputError
from adaptiveisp.raw.synthesis_metadata import note_from_unprocessing
from adaptiveisp.types import BAYER_PATTERNS, MONO, RawImage
from adaptiveisp.utils.files import atomic_path

XYZ_TO_SRGB = (
    3.2404542, -1.5371385, -0.4985314,
    -0.9692660, 1.8760108, 0.0415560,
    0.0556434, -0.2040259, 1.0572252,
)  # fmt: skip
"""Colour matrix for an unknown camera, whose colours are assumed to be linear sRGB. Source: IEC 61966-2-1, primaries
under D65."""

SMALLEST_SIDE = 22
"""Least side in pixels; LibRaw refuses a smaller image as a thumbnail."""

_BYTE, _ASCII, _SHORT, _LONG, _RATIONAL, _SRATIONAL, _DOUBLE = 1, 2, 3, 4, 5, 10, 12
_CFA_INDEX = {"R": 0, "G": 1, "B": 2}
_DNG_VERSION = 50706
_D65_ILLUMINANT = 21  # EXIF LightSource
_ISO_IS_EXPOSURE_INDEX = 2  # EXIF SensitivityType: the value is in RecommendedExposureIndex
_LARGEST_SHORT = 2**16 - 1
_LARGEST_LONG = 2**32 - 1

Tag = tuple[int, int, int, bytes]
"""Tag, type, number of values, the values' bytes (little-endian)."""


def write_dng(raw: RawImage, path: Path) -> None:
    """Writes `raw` as an uncompressed 16-bit DNG, with unchanged pixels and the metadata of `raw` in its tags.

    `raw.unprocessing` is written to ImageDescription as JSON, which documents the synthesis in the file. Without gains,
    the tag AsShotNeutral is left out; an unknown colour matrix is written as that of linear sRGB.

    Args:
        raw: a Bayer mosaic of any pattern, or values without colour filters; 8- or 16-bit unsigned integers (8-bit
            values are kept, not stretched), of any size from 22x22, also with odd sides.
        path: the file, which is written atomically.

    Raises:
        OutputError: `raw` is not such a mosaic, or the file cannot be written.

    Source: Adobe DNG specification 1.7.1, chapters 3 and 4.
    """
    content = dng_bytes(raw, path)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def dng_bytes(raw: RawImage, path: Path, more: Sequence[Tag] = ()) -> bytes:
    """The content of the file that `write_dng` writes, for programs that read it from a pipe.

    Args:
        raw: as for `write_dng`.
        path: name for errors.
        more: further tags, which are none of those that `raw` gives.

    Raises:
        OutputError: `raw` is not such a mosaic.
    """
    pixels = _writable_pixels(raw, path)
    description = note_from_unprocessing(raw.unprocessing) if raw.unprocessing is not None else None
    exif_entries = _exif_entries(raw)
    # The length of a directory does not depend on its offsets, so a first pass with zeros gives all offsets.
    zeros = [*_main_entries(raw, description, 0, 0 if exif_entries else None), *more]
    exif_at = 8 + len(_pack_ifd(zeros, 8))
    exif = _pack_ifd(exif_entries, exif_at) if exif_entries else b""
    pixels_at = exif_at + len(exif)
    main = _pack_ifd([*_main_entries(raw, description, pixels_at, exif_at if exif_entries else None), *more], 8)
    return struct.pack("<2sHI", b"II", 42, 8) + main + exif + pixels.tobytes()


def _writable_pixels(raw: RawImage, path: Path) -> UInt16[np.ndarray, "height width"]:
    """The mosaic as little-endian 16-bit values, after checking that a DNG can hold it."""
    if raw.pattern not in (*BAYER_PATTERNS, MONO) or raw.data.ndim != 2:
        raise OutputError(
            f"{path}: only Bayer mosaics and monochrome raws can be written as DNG; write this image as 16-bit PNG"
        )
    if raw.data.dtype not in (np.uint8, np.uint16):
        raise OutputError(f"{path}: a DNG holds 8- or 16-bit integers, not {raw.data.dtype}; convert the data first")
    if min(raw.data.shape) < SMALLEST_SIDE:
        raise OutputError(f"{path}: {raw.data.shape[1]}x{raw.data.shape[0]} is too small; LibRaw needs 22x22 or more")
    black_fits = all(0 <= level < raw.white_level for level in raw.black_level)
    if not (black_fits and 0.5 < raw.white_level < _LARGEST_SHORT + 0.5):
        raise OutputError(f"{path}: black and white level must satisfy 0 <= black < white <= 65535")
    return np.ascontiguousarray(raw.data, dtype="<u2")


def _main_entries(raw: RawImage, description: str | None, pixels_at: int, exif_at: int | None) -> list[Tag]:
    """The tags of the main directory.

    Args:
        raw: the raw.
        description: value of ImageDescription, or None.
        pixels_at: offset of the pixels in bytes.
        exif_at: offset of the EXIF directory in bytes, None without one.
    """
    height, width = raw.data.shape
    is_mono = raw.pattern == MONO
    matrix = raw.xyz_to_camera if raw.xyz_to_camera is not None else XYZ_TO_SRGB
    entries = [
        _longs(254, 0),  # NewSubfileType: the full image
        _longs(256, width),
        _longs(257, height),
        _shorts(258, 16),  # BitsPerSample
        _shorts(259, 1),  # Compression: none
        _shorts(262, 34892 if is_mono else 32803),  # PhotometricInterpretation: LinearRaw or CFA
        _text(271, "adaptiveisp"),  # Make
        _text(272, "synthetic" if description else "mosaic"),  # Model
        _longs(273, pixels_at),  # StripOffsets
        _shorts(274, raw.orientation),
        _shorts(277, 1),  # SamplesPerPixel
        _longs(278, height),  # RowsPerStrip: one strip
        _longs(279, 2 * height * width),  # StripByteCounts
        _shorts(284, 1),  # PlanarConfiguration
        _bytes(_DNG_VERSION, 1, 4, 0, 0),
        _bytes(50707, 1, 1, 0, 0),  # DNGBackwardVersion
        _text(50708, "adaptiveisp"),  # UniqueCameraModel
        _shorts(50713, 2, 2),  # BlackLevelRepeatDim
        _rationals(50714, raw.black_level),
        _longs(50717, round(raw.white_level)),
    ]
    if not is_mono:
        entries += [
            _shorts(33421, 2, 2),  # CFARepeatPatternDim
            _bytes(33422, *(_CFA_INDEX[letter] for letter in raw.pattern or "")),  # CFAPattern
            _bytes(50710, 0, 1, 2),  # CFAPlaneColor
            _shorts(50711, 1),  # CFALayout: rectangular
            _rationals(50721, matrix, signed=True),  # ColorMatrix1
            _shorts(50778, _D65_ILLUMINANT),  # CalibrationIlluminant1
        ]
    if description:
        entries.append(_text(270, description))
    if exif_at is not None:
        entries.append(_longs(34665, exif_at))
    if raw.camera_gains is not None and not is_mono:
        smallest = min(raw.camera_gains)
        # AsShotNeutral is the sensor's answer to a neutral surface: the inverse of the gains, scaled to at most 1.
        entries.append(_rationals(50728, [smallest / gain for gain in raw.camera_gains]))
    if raw.noise_profile is not None:
        entries.append((51041, _DOUBLE, 6, struct.pack("<6d", *(raw.noise_profile * 3))))
    return entries


def _exif_entries(raw: RawImage) -> list[Tag]:
    """The tags of the EXIF directory: exposure time and ISO, if they are known."""
    entries = []
    if raw.exposure_s is not None:
        entries.append(_rationals(33434, [raw.exposure_s]))
    if raw.iso is not None:
        iso = round(raw.iso)
        entries.append(_shorts(34855, min(iso, _LARGEST_SHORT)))
        if iso > _LARGEST_SHORT:
            # EXIF 2.3: the value 65535 refers to the longer tags. LibRaw keeps only the low 16 bits of a LONG in 34855.
            entries += [_shorts(34864, _ISO_IS_EXPOSURE_INDEX), _longs(34866, iso)]
    return entries


def _bytes(tag: int, *values: int) -> Tag:
    return tag, _BYTE, len(values), bytes(values)


def _shorts(tag: int, *values: int) -> Tag:
    return tag, _SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def _longs(tag: int, *values: int) -> Tag:
    return tag, _LONG, len(values), struct.pack(f"<{len(values)}I", *values)


def _text(tag: int, value: str) -> Tag:
    content = value.encode("ascii") + b"\0"
    return tag, _ASCII, len(content), content


def _rationals(tag: int, values: Sequence[float], signed: bool = False) -> Tag:
    limit = 2**31 - 1 if signed else _LARGEST_LONG
    content = b"".join(struct.pack("<ii" if signed else "<II", *_as_rational(value, limit)) for value in values)
    return tag, _SRATIONAL if signed else _RATIONAL, len(values), content


def _as_rational(value: float, limit: int) -> tuple[int, int]:
    """Numerator and denominator, both up to `limit`, of the fraction that is closest to a value.

    >>> _as_rational(12.5, 100), _as_rational(-0.25, 100), _as_rational(1 / 8000, 10000)
    ((25, 2), (-1, 4), (1, 8000))
    """
    if not math.isfinite(value) or abs(value) > limit:
        raise OutputError(f"{value} does not fit a TIFF rational")
    fraction = Fraction(value).limit_denominator(max(1, math.floor(limit / (abs(value) + 1))))
    return fraction.numerator, fraction.denominator


def _pack_ifd(entries: list[Tag], at: int) -> bytes:
    """The bytes of an image file directory: tags in ascending order, then the values longer than 4 bytes.

    Args:
        entries: its tags.
        at: offset of the directory in bytes.

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

"""Makes raws from arrays and their declared facts: headerless files, PNG, TIFF, npy, frames in memory."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.colour_filters import interpreted, without_quad
from adaptiveisp.raw.companding import linear_values, linear_white
from adaptiveisp.raw.corrections import corrected
from adaptiveisp.raw.extensions import PHOTO_REMEDY
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.level_checks import level_remarks, require_bits
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat
from adaptiveisp.raw.size_guess import guesses
from adaptiveisp.raw.stacks import frame_number
from adaptiveisp.raw.unpacking import unpack
from adaptiveisp.types import RawImage, Remark, Unprocessing
from adaptiveisp.utils.raw_fields import shape_remedy

FAR_ABOVE = 256
"""A white level above this multiple of the largest value of the array's type cannot belong to the array."""
HDR_PERCENTILE = 99.0
"""Percentile that becomes the white level of HDR arrays. Source: AdaptiveISP's evaluation on the ROD data set."""


class ArrayFacts(NamedTuple):
    """Further facts of an array, beside its declared levels and pattern.

    Attributes:
        name: name of its file, for errors.
        path: its file; None for a frame in memory.
        orientation: EXIF orientation, 1 to 8.
        unprocessing: parameters by which a synthetic raw was made; None for a real raw.
        remarks: remarks that were found before.
    """

    name: Path | str
    path: Path | None = None
    orientation: int = 1
    unprocessing: Unprocessing | None = None
    remarks: tuple[Remark, ...] = ()


def read_headerless(path: Path, header: BayerHeader) -> RawImage:
    """Reads the mosaic in a file without a header.

    Args:
        path: the file; it holds one or more frames, row by row, in the declared pixel format.
        header: facts; size, bits (or the format) and pattern must be known.

    Raises:
        RawFileError: a fact is missing, or the size of the file or its values contradict the facts.
    """
    width, height, pattern, how = header.width, header.height, header.pattern, header.pixel_format
    if width is None or height is None or how is None or pattern is None:
        known = {"--raw-size": width, "--raw-bits or --raw-format": how, "--raw-pattern": pattern}
        missing = ", ".join(flag for flag, value in known.items() if value is None)
        raise RawFileError(
            f"{path}: has no header; give {missing} or a sidecar {path.name}.yaml with the same keys; in Python "
            "header=BayerHeader(width, height, bits, pattern)"
        )
    row = how.row_bytes(width)
    stride, offset = header.stride or row, header.offset or 0
    if stride < row:
        raise RawFileError(f"{path}: {width} pixels of {how.name} take {row} bytes, more than --raw-stride {stride}")
    frame_bytes, padding = stride * height, stride - row
    found = path.stat().st_size
    held = 1 if header.frame is None else max(1, (found - offset) // frame_bytes)
    frames = header.frames or held
    expected = offset + frames * frame_bytes
    # Some programs leave out the padding behind the last row.
    if found != expected and not (frames == 1 and found == expected - padding):
        needs = f"{width}x{height} with {_in_words(header, how)} needs {expected} bytes, found {found}"
        raise RawFileError(f"{path}: {needs}; {_size_remedy(path, found, expected, header, how)}")
    start = offset + frame_number(frames, header, path) * frame_bytes
    content = np.fromfile(path, np.uint8, min(frame_bytes, found - start), offset=start)
    values = unpack(content, how, width, height, stride)
    if how.layout is Layout.WHOLE and not how.msb:
        require_bits(values, how.bits, path)
    linear = linear_values(values, how.bits, header.knees, header.curve)
    # float32 is exact for whole numbers up to 2^24.
    data = linear.astype(np.float32) if linear.dtype == np.uint32 else linear
    white = header.white if header.white is not None else linear_white(how.bits, header.knees)
    return _raw(data, header, white, ArrayFacts(path, path))


def _in_words(header: BayerHeader, how: PixelFormat) -> str:
    """The declared format, stride, offset and frames, for a message."""
    kind = f"{how.bits} bits" if header.format is None else how.name
    facts = (("a stride of {} bytes", header.stride), ("{} bytes before them", header.offset))
    stated = [text.format(value) for text, value in facts if value]
    stated += [f"{header.frames} frames"] if (header.frames or 1) > 1 else []
    return ", ".join([kind, *stated])


def _size_remedy(path: Path, found: int, expected: int, header: BayerHeader, how: PixelFormat) -> str:
    """The remedy for a file of another size: likely explanations of its size, or the facts to correct."""
    assert header.width is not None and header.height is not None
    flags = "--raw-size or --raw-bits" if header.format is None else "--raw-size or --raw-format"
    correct = f"correct {flags} (in Python header=BayerHeader(…)), or the sidecar or data-set YAML"
    plain = header.stride is None and not header.offset and (header.frames or 1) == 1
    likely = guesses(path, found, header.width, header.height, how) if plain else []
    if not likely:
        return f"{correct}{'; or the file is cut short: copy it again' if found < expected else ''}"
    others = "".join(f", or {guess.text} ({guess.remedy})" for guess in likely[1:])
    return f"looks like {likely[0].text}{others}; {likely[0].remedy} (docs/raws.md); otherwise {correct}"


def raw_from_array(pixels: NDArray[Any], header: BayerHeader, known: ArrayFacts) -> RawImage:
    """Makes a raw from the pixels of a mosaic or RGB image, with its levels.

    Args:
        pixels: (height, width), (height, width, 3) or (3, height, width); or the bytes of a frame in the pixel format
            of the header, one row of bytes for each row of pixels, or all in one dimension.
        header: the pattern of a mosaic, and facts that override the levels; its size is used for bytes only.
        known: further facts.

    Raises:
        RawFileError: the shape or the values are invalid, the pattern is missing, or declared facts contradict them.
    """
    pixels = _arranged(_unpacked(pixels, header, known.name), known.name)
    if pixels.ndim == 2 and header.pattern is None:
        hint = f"; {PHOTO_REMEDY}" if pixels.dtype == np.uint8 else ""
        how = "header=BayerHeader(pattern=…)"
        if known.path is not None:
            how = f"--raw-pattern or a sidecar {known.path.name}.yaml; in Python {how}"
        raise RawFileError(f"{known.name}: has one channel, so it needs {how}{hint}")
    data, white = _levelled(pixels, header, known.name)
    return _raw(data, header, white, known)


def _unpacked(pixels: NDArray[Any], header: BayerHeader, name: Path | str) -> NDArray[Any]:
    """The pixels of a frame that is given as bytes in a pixel format, such as picamera2's arrays; else as they are.

    Raises:
        RawFileError: the size is unknown, or the bytes are too few.
    """
    how = header.pixel_format if header.format is not None else None
    if how is None or pixels.dtype != np.uint8 or pixels.ndim > 2 or (how.bits <= 8 and pixels.ndim == 2):
        return pixels
    width, height = header.width, header.height or (len(pixels) if pixels.ndim == 2 else None)
    if width is None or height is None:
        raise RawFileError(f"{name}: holds bytes in the format {how.name}; give raw-size, in Python width and height")
    stride = header.stride or (pixels.shape[1] if pixels.ndim == 2 else None)
    try:
        return unpack(np.ascontiguousarray(pixels).reshape(-1)[header.offset or 0 :], how, width, height, stride)
    except ValueError as error:
        raise RawFileError(f"{name}: {error}; correct raw-size, raw-stride or raw-format") from None


def _raw(data: NDArray[Any], header: BayerHeader, white: float | str, known: ArrayFacts) -> RawImage:
    """The raw, with remarks on doubtful levels; the levels of a synthetic raw are known and not checked."""
    level = percentile_white(data, header) if isinstance(white, str) else white
    data, pattern = without_quad(data, header.pattern if data.ndim == 2 else None)
    remarks = known.remarks
    if known.unprocessing is None and level > max(header.black_levels):
        declared = isinstance(header.white, int | float)
        remarks += level_remarks(data, pattern, header.black_levels, level, known.name, declared)
    data = corrected(data, pattern, header.black_levels, level, header, known.name)
    made = interpreted(data, pattern, header.black_levels, level, header.matrix_entries, known.name)
    return RawImage(
        *made[:4],
        orientation=known.orientation,
        unprocessing=known.unprocessing,
        path=known.path,
        remarks=(*remarks, *made.remarks),
    )


def _arranged(pixels: NDArray[Any], name: Path | str) -> NDArray[Any]:
    """The pixels as (height, width) or (height, width, 3), for any supported order of the axes.

    Raises:
        RawFileError: the pixels have another shape, or there are none.
    """
    if pixels.size == 0:
        raise RawFileError(f"{name}: holds no pixels; save it again")
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3):
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    shape = "x".join(map(str, pixels.shape)) or "a single number"
    hint = f"; {PHOTO_REMEDY}" if pixels.dtype == np.uint8 else ""
    wanted = "save it with one channel (mosaic) or three (RGB), without alpha"
    how = f" ({shape_remedy(pixels.shape)})" if pixels.ndim in (3, 4) else ""
    raise RawFileError(f"{name}: has shape {shape}; {wanted}{how}{hint}")


def _levelled(pixels: NDArray[Any], header: BayerHeader, name: Path | str) -> tuple[NDArray[Any], float | str]:
    """The values in the type in which they are kept, and their white level."""
    if pixels.dtype.kind not in "uif":
        raise RawFileError(f"{name}: holds {pixels.dtype} values; save integers or floats")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if header.bits is not None and pixels.dtype.kind in "ui":
        require_bits(pixels, header.bits, name)
    if header.knees is not None or header.curve is not None:
        return _decompanded(pixels, header, name)
    if pixels.dtype in (np.uint8, np.uint16):
        most = int(np.iinfo(pixels.dtype).max)
        full = 2**header.bits - 1 if header.bits is not None else most
        white = header.white if header.white is not None else float(full)
        if not isinstance(white, str) and white > FAR_ABOVE * most:  # for instance, byte planes were read as colours
            remedy = "correct it, or put the bytes of each value together first"
            raise RawFileError(
                f"{name}: holds {pixels.dtype}, up to {most}, but its white level is {white:g}; {remedy}"
            )
        return pixels, white
    # Values beyond the range of float32 become infinite, which is reported below instead of by NumPy's warning.
    with np.errstate(over="ignore", invalid="ignore"):
        values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise RawFileError(f"{name}: holds NaN, infinite or too large values; save finite numbers below 1e38")
    values = np.maximum(values, 0.0)
    if header.white is not None:
        return values, header.white
    peak = float(values.max(initial=0.0))
    if pixels.dtype.kind == "f" and peak <= 1:
        return values, 1.0
    if header.bits is not None:
        most = 2**header.bits - 1
        if peak > most:
            found = f"the largest value is {peak:g}, but {header.bits} bits are declared, which end at {most}"
            raise RawFileError(f"{name}: {found}; correct --raw-bits, or give --raw-white")
        return values, float(most)
    return values, percentile_white(values, header)


def _decompanded(pixels: NDArray[Any], header: BayerHeader, name: Path | str) -> tuple[NDArray[Any], float | str]:
    """The linear values of an array with companded ones, and their white level.

    Raises:
        RawFileError: the values are not whole, or have more than 24 bits.
    """
    bits = header.bits or {1: 8, 2: 16}.get(pixels.dtype.itemsize, 0)
    if pixels.dtype.kind not in "ui" or not bits or int(pixels.min()) < 0:
        raise RawFileError(f"{name}: raw-knees and raw-curve are for whole numbers of 8 to 24 bits; give --raw-bits")
    require_bits(pixels, bits, name)
    white = header.white if header.white is not None else linear_white(bits, header.knees)
    return linear_values(pixels.astype(np.int64), bits, header.knees, header.curve), white


def percentile_white(values: NDArray[Any], header: BayerHeader) -> float:
    """The 99th percentile of an HDR image, or its largest value if that percentile is not above black."""
    percentile, peak = float(np.percentile(values, HDR_PERCENTILE)), float(values.max(initial=0.0))
    black = max(header.black_levels)
    # With less than 1 % of lit pixels the percentile is not above black, and without any the peak is not either.
    return percentile if percentile > black else peak if peak > black else black + 1

"""Makes raws from arrays and their declared facts: headerless files, PNG, TIFF, npy, frames in memory."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.extensions import PHOTO_REMEDY
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.level_checks import level_remarks, require_bits
from adaptiveisp.raw.size_guess import guesses
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
        path: the file: values row by row, low byte first.
        header: facts; size, bits and pattern must be known.

    Raises:
        RawFileError: a fact is missing, or the size of the file or its values contradict the facts.
    """
    width, height, bits, pattern = header.width, header.height, header.bits, header.pattern
    if width is None or height is None or bits is None or pattern is None:
        known = {"--raw-size": width, "--raw-bits": bits, "--raw-pattern": pattern}
        missing = ", ".join(flag for flag, value in known.items() if value is None)
        raise RawFileError(
            f"{path}: has no header; give {missing} or a sidecar {path.name}.yaml with the same keys; in Python "
            "header=BayerHeader(width, height, bits, pattern)"
        )
    n_bytes = 1 if bits == 8 else 2 if bits <= 16 else 3
    expected, found = width * height * n_bytes, path.stat().st_size
    if expected != found:
        needs = f"{width}x{height} with {bits} bits needs {expected} bytes, found {found}"
        raise RawFileError(f"{path}: {needs}; {_size_remedy(path, found, expected, header)}")
    if n_bytes == 3:
        low, middle, high = np.moveaxis(np.fromfile(path, "u1").reshape(height, width, 3).astype(np.uint32), 2, 0)
        values = low | middle << 8 | high << 16
    else:
        values = np.fromfile(path, "u1" if n_bytes == 1 else "<u2").reshape(height, width)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    require_bits(values, bits, path)
    # float32 is exact for whole numbers up to 2^24.
    data = values.astype(np.float32) if n_bytes == 3 else values
    white = header.white if header.white is not None else float(2**bits - 1)
    return _raw(data, header, white, ArrayFacts(path, path))


def _size_remedy(path: Path, found: int, expected: int, header: BayerHeader) -> str:
    """The remedy for a file of another size: likely explanations of its size, or the facts to correct."""
    assert header.width is not None and header.height is not None and header.bits is not None
    correct = "correct --raw-size or --raw-bits (in Python header=BayerHeader(…)), or the sidecar or data-set YAML"
    likely = guesses(path, found, header.width, header.height, header.bits)
    if not likely:
        return f"{correct}{'; or the file is cut short: copy it again' if found < expected else ''}"
    others = "".join(f", or {guess.text}" for guess in likely[1:])
    return f"looks like {likely[0].text}{others}; {likely[0].remedy} (docs/raws.md); otherwise {correct}"


def raw_from_array(pixels: NDArray[Any], header: BayerHeader, known: ArrayFacts) -> RawImage:
    """Makes a raw from the pixels of a mosaic or RGB image, with its levels.

    Args:
        pixels: (height, width), (height, width, 3) or (3, height, width).
        header: the pattern of a mosaic, and facts that override the levels; its size is not used.
        known: further facts.

    Raises:
        RawFileError: the shape or the values are invalid, the pattern is missing, or declared facts contradict them.
    """
    pixels = _arranged(pixels, known.name)
    if pixels.ndim == 2 and header.pattern is None:
        hint = f"; {PHOTO_REMEDY}" if pixels.dtype == np.uint8 else ""
        how = "header=BayerHeader(pattern=…)"
        if known.path is not None:
            how = f"--raw-pattern or a sidecar {known.path.name}.yaml; in Python {how}"
        raise RawFileError(f"{known.name}: has one channel, so it needs {how}{hint}")
    data, white = _levelled(pixels, header, known.name)
    return _raw(data, header, white, known)


def _raw(data: NDArray[Any], header: BayerHeader, white: float | str, known: ArrayFacts) -> RawImage:
    """The raw, with remarks on doubtful levels; the levels of a synthetic raw are known and not checked."""
    level = percentile_white(data, header) if isinstance(white, str) else white
    pattern = header.pattern if data.ndim == 2 else None
    remarks = known.remarks
    if known.unprocessing is None and level > max(header.black_levels):
        declared = isinstance(header.white, int | float)
        remarks += level_remarks(data, pattern, header.black_levels, level, known.name, declared)
    return RawImage(
        data,
        pattern,
        header.black_levels,
        level,
        orientation=known.orientation,
        unprocessing=known.unprocessing,
        path=known.path,
        remarks=remarks,
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


def percentile_white(values: NDArray[Any], header: BayerHeader) -> float:
    """The 99th percentile of an HDR image, or its largest value if that percentile is not above black."""
    percentile, peak = float(np.percentile(values, HDR_PERCENTILE)), float(values.max(initial=0.0))
    black = max(header.black_levels)
    # With less than 1 % of lit pixels the percentile is not above black, and without any the peak is not either.
    return percentile if percentile > black else peak if peak > black else black + 1

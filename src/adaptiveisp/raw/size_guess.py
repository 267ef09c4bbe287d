"""Guesses the content of a headerless raw from its number of bytes: packed values, padded rows, frames, a header."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adaptiveisp.raw.pixel_formats import Layout, PixelFormat, pixel_format

MOST_GUESSES = 3
"""Most guesses in a message."""
LARGEST_PADDING = 1024
"""Most bytes of padding at the end of a row, which must also be at most half of its pixels' bytes. Drivers align rows
to 16 to 256 bytes, seldom more."""
MOST_FRAMES = 100_000
LARGEST_HEADER = 65_536
"""Most bytes before or after the pixels; Raspberry Pi's BRCM header of 32,768 is the largest in common use."""
HEADER_BLOCK = 256
"""Bytes of which headers before packed pixels are multiples."""
ALIGNED_ROWS = 16
"""Multiple to which drivers may round up the number of rows."""

_PACKED = ("RAW10", "RAW12", "RAW14")
"""Packed formats that a size is compared with; the other packed formats of the same bits have rows of the same size."""
_WHOLE = {1: "--raw-bits 8", 2: "--raw-bits 9 to 16", 3: "--raw-bits 17 to 24", 4: "--raw-format u24le32"}


class Guess(NamedTuple):
    """One explanation of a file's size.

    Attributes:
        text: description of the file.
        remedy: flags to give, or a line of Python that writes a readable file.
    """

    text: str
    remedy: str


def guesses(path: Path, file_bytes: int, width: int, height: int, declared: PixelFormat) -> list[Guess]:
    """The explanations that fit a file's size, the most likely first, at most `MOST_GUESSES`.

    Args:
        path: the file; the ends of its rows are read, since padding is usually constant.
        file_bytes: number of its bytes.
        width, height, declared: the declared size and pixel format.
    """
    same_bits = [declared, *(how for how in map(pixel_format, _PACKED) if _is_packed_form(how, declared))]
    found: dict[str, Guess] = {}
    for guess in (
        *_exact(path, file_bytes, width, height, declared, same_bits),
        *_padded_rows(path, file_bytes, width, height, same_bits),
        *_frames(path, file_bytes, width, height, same_bits),
        *_with_header(file_bytes, width, height, same_bits),
        *_other_height(file_bytes, width, height, declared),
    ):
        found.setdefault(guess.text, guess)
    return list(found.values())[:MOST_GUESSES]


def _is_packed_form(how: PixelFormat, declared: PixelFormat) -> bool:
    return declared.layout is Layout.WHOLE and how.bits == declared.bits and declared.container == 16


def _flags(how: PixelFormat, declared: bool, stride: int = 0, **others: int) -> str:
    """The flags that describe a file, for a remedy."""
    parts = [] if declared else [f"--raw-format {how.name}"]
    parts += [f"--raw-stride {stride}"] if stride else []
    parts += [f"--raw-{name} {value}" for name, value in others.items()]
    return f"give {' '.join(parts)}"


def _exact(
    path: Path, file_bytes: int, width: int, height: int, declared: PixelFormat, same_bits: list[PixelFormat]
) -> Iterator[Guess]:
    """Guesses that the file holds the declared number of pixels in another format."""
    packed = [how for how in same_bits if how is not declared]
    packed += [how for how in map(pixel_format, _PACKED) if how not in same_bits and how.bits != declared.bits]
    for how in packed:
        if file_bytes == how.row_bytes(width) * height:
            kin = _kin(how)
            yield Guess(f"{how.described()} or a format with rows of the same size, {kin}", _flags(how, False))
    for n_bytes, flag in _WHOLE.items():
        own = declared.layout is Layout.WHOLE and declared.container == 8 * n_bytes
        if not own and file_bytes == n_bytes * width * height:
            yield Guess(f"{n_bytes} byte{'s' if n_bytes > 1 else ''} a pixel", f"give {flag}")
    if file_bytes == 4 * width * height:
        remedy = _save(path, f"numpy.fromfile({path.name!r}, '<f4').reshape({height}, {width})")
        yield Guess("float32", remedy)


def _kin(how: PixelFormat) -> str:
    """Names of other packed formats whose rows have the same size."""
    if how.bits == 12:
        return "BayerRG12p, BayerRG12Packed"
    return f"BayerRG{how.bits}p"


def _padded_rows(path: Path, file_bytes: int, width: int, height: int, same_bits: list[PixelFormat]) -> Iterator[Guess]:
    """Guesses that rows are padded; those with constant padding come first."""
    candidates: list[tuple[bool, Guess]] = []
    for rows in (height, -(-height // ALIGNED_ROWS) * ALIGNED_ROWS):
        stride = file_bytes // rows
        if stride * rows != file_bytes:
            continue
        for how in (*same_bits[1:], same_bits[0]):
            row = how.row_bytes(width)
            if not row < stride <= row + min(LARGEST_PADDING, row // 2):
                continue
            constant = _is_constant(path, rows, stride, row)
            # Many combinations fit an aligned number of rows, so constant padding is required for these.
            if constant or rows == height:
                kind = "" if how is same_bits[0] else f"{how.described()}, "
                text = f"{kind}rows padded to {stride} bytes ({row} of them pixels)"
                candidates.append((constant, Guess(text, _flags(how, how is same_bits[0], stride))))
    candidates.sort(key=lambda candidate: not candidate[0])  # sorting is stable
    yield from (guess for _, guess in candidates)


def _is_constant(path: Path, rows: int, stride: int, row: int) -> bool:
    """Whether the ends of the rows hold a single value, judged by a sample of the rows."""
    ends = np.memmap(path, np.uint8, "r", shape=(rows, stride))[:: max(1, rows // 64), row:]
    return bool((ends == ends[0, 0]).all())


def _frames(path: Path, file_bytes: int, width: int, height: int, same_bits: list[PixelFormat]) -> Iterator[Guess]:
    for how in same_bits:
        frame = how.row_bytes(width) * height
        count = file_bytes // frame
        if 2 <= count <= MOST_FRAMES and count * frame == file_bytes:
            own = how is same_bits[0]
            each = "" if own else f", each {how.described()}"
            yield Guess(f"{count} frames of {frame} bytes{each}", _flags(how, own, frames=count))
    for dtype, value in (("u1", 1), ("<u2", 2)):
        if file_bytes == 3 * value * width * height:
            code = f"numpy.fromfile({path.name!r}, {dtype!r}).reshape({height}, {width}, 3)"
            yield Guess(f"RGB of {8 * value} bits instead of a mosaic", _save(path, code))


def _with_header(file_bytes: int, width: int, height: int, same_bits: list[PixelFormat]) -> Iterator[Guess]:
    for how in same_bits:
        extra = file_bytes - how.row_bytes(width) * height
        own = how is same_bits[0]
        # Most sizes fit a packed format with some header, so a header of whole blocks is required for these.
        if 0 < extra <= LARGEST_HEADER and (own or extra % HEADER_BLOCK == 0):
            kind = "" if own else f"{how.described()} with "
            text = f"{kind}{extra} bytes of header before the pixels (or of something behind them)"
            yield Guess(text, _flags(how, own, offset=extra))


def _save(path: Path, code: str) -> str:
    """A line of Python that writes the pixels to a file that states its shape."""
    return f"save the pixels: numpy.save({path.stem + '.npy'!r}, {code})"


def _other_height(file_bytes: int, width: int, height: int, declared: PixelFormat) -> Iterator[Guess]:
    row = declared.row_bytes(width)
    rows = file_bytes // row
    if rows * row == file_bytes and rows != height and abs(rows - height) <= height // 4:
        yield Guess(f"{rows} rows instead of {height}", f"give --raw-size {width}x{rows}")

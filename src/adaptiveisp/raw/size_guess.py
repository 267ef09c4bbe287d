"""Guesses the content of a headerless raw with an unexpected number of bytes: packed values, padded rows, frames, …

Sources: MIPI Alliance, CSI-2, formats RAW10, RAW12 and RAW14; GenICam PFNC, Mono10p and Mono12p have the same sizes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_GUESSES = 3
"""Most guesses in a message."""
LARGEST_PADDING = 1024
"""Most bytes of padding at the end of a row, which must also be at most half of its pixels' bytes. Drivers align rows
to 16 to 256 bytes, seldom more."""
MOST_FRAMES = 100_000
LARGEST_HEADER = 65_536
"""Most bytes before or after the pixels; Raspberry Pi's BRCM header of 32,768 is the largest in common use."""
ALIGNED_ROWS = 16
"""Multiple to which drivers may round up the number of rows."""


class _Packing(NamedTuple):
    """A format of packed values.

    Attributes:
        bits: depth of a value.
        group: number of values that are packed together.
        n_bytes: bytes of a group.
        name: name for messages.
        code: Python code that unpacks `rows`.
    """

    bits: int
    group: int
    n_bytes: int
    name: str
    code: str


_LOW = "rows.reshape({height}, -1, {n_bytes}).astype('u2'); a = a"
_PACKED = (
    _Packing(
        *(10, 4, 5, "MIPI RAW10 packed (5 bytes for 4 pixels)"),
        _LOW + "[..., :4] << 2 | a[..., 4:] >> [0, 2, 4, 6] & 3",
    ),
    _Packing(
        *(12, 2, 3, "MIPI RAW12 packed (3 bytes for 2 pixels)"),
        _LOW + "[..., :2] << 4 | a[..., 2:] >> [0, 4] & 15",
    ),
    _Packing(
        *(14, 4, 7, "MIPI RAW14 packed (7 bytes for 4 pixels)"),
        _LOW + "[..., :4] << 6 | (a[..., 4:] @ numpy.array([1, 256, 65536]))[..., None] >> [0, 6, 12, 18] & 63",
    ),
)
_WHOLE = {
    1: ("one byte a pixel", "--raw-bits 8"),
    2: ("two bytes a pixel", "--raw-bits 9 to 16"),
    3: ("three bytes a pixel", "--raw-bits 17 to 24"),
}


class Guess(NamedTuple):
    """One explanation of a file's size.

    Attributes:
        text: description of the file.
        remedy: flags to give, or a line of Python that writes a readable file.
    """

    text: str
    remedy: str


def guesses(path: Path, file_bytes: int, width: int, height: int, bits: int) -> list[Guess]:
    """The explanations that fit a file's size, the most likely first, at most `MOST_GUESSES`.

    Args:
        path: the file; the ends of its rows are read, since padding is usually constant.
        file_bytes: number of its bytes.
        width, height, bits: the declared facts.
    """
    n_bytes = 1 if bits <= 8 else 2 if bits <= 16 else 3
    packings = [packing for packing in _PACKED if packing.bits == bits] if n_bytes == 2 else []
    found: dict[str, Guess] = {}
    for guess in (
        *_exact(path, file_bytes, width, height, n_bytes, packings),
        *_padded_rows(path, file_bytes, width, height, n_bytes, packings),
        *_frames(path, file_bytes, width, height, n_bytes, packings),
        *_with_header(path, file_bytes, width, height, n_bytes),
        *_other_height(file_bytes, width, height, n_bytes),
    ):
        found.setdefault(guess.text, guess)
    return list(found.values())[:MOST_GUESSES]


def _exact(
    path: Path, file_bytes: int, width: int, height: int, n_bytes: int, packings: list[_Packing]
) -> Iterator[Guess]:
    """Guesses that the file holds the declared number of pixels with another depth or packing."""
    others = [packing for packing in _PACKED if packing not in packings] if n_bytes == 2 else list(_PACKED)
    for packing in (*packings, *others):
        row = _row(packing, width)
        if row and file_bytes == row * height:
            yield _packed(path, packing, width, height, row)
    for whole, (name, flag) in _WHOLE.items():
        if whole != n_bytes and file_bytes == whole * width * height:
            yield Guess(name, f"give {flag}")
    if file_bytes == 4 * width * height:
        remedy = _save(path, f"numpy.fromfile({path.name!r}, '<f4').reshape({height}, {width})")
        yield Guess("four bytes a pixel, such as float32", remedy)


def _padded_rows(
    path: Path, file_bytes: int, width: int, height: int, n_bytes: int, packings: list[_Packing]
) -> Iterator[Guess]:
    """Guesses that rows are padded; those with constant padding come first."""
    candidates: list[tuple[bool, Guess]] = []
    for rows in (height, -(-height // ALIGNED_ROWS) * ALIGNED_ROWS):
        stride = file_bytes // rows
        if stride * rows != file_bytes:
            continue
        # Many combinations fit an aligned number of rows, so constant padding is required for these.
        needed = rows != height
        for packing in packings:
            row = _row(packing, width)
            if row and row < stride <= row + min(LARGEST_PADDING, row // 2):
                guess = _packed(path, packing, width, height, stride)
                constant = _is_constant(path, rows, stride, row)
                candidates += [(constant, guess)] if constant or not needed else []
        row = n_bytes * width
        if row < stride <= row + min(LARGEST_PADDING, row // 2) and stride % n_bytes == 0:
            code = _whole_rows(
                path, n_bytes, f"[:{height * stride}].reshape({height}, {stride})[:, :{row}]", height, width
            )
            text = f"rows padded to {stride} bytes ({row} of them pixels)"
            constant = _is_constant(path, rows, stride, row)
            candidates += [(constant, Guess(text, _save(path, code)))] if constant or not needed else []
    candidates.sort(key=lambda candidate: not candidate[0])  # sorting is stable
    yield from (guess for _, guess in candidates)


def _is_constant(path: Path, rows: int, stride: int, row: int) -> bool:
    """Whether the ends of the rows hold a single value, judged by a sample of the rows."""
    ends = np.memmap(path, np.uint8, "r", shape=(rows, stride))[:: max(1, rows // 64), row:]
    return bool((ends == ends[0, 0]).all())


def _frames(
    path: Path, file_bytes: int, width: int, height: int, n_bytes: int, packings: list[_Packing]
) -> Iterator[Guess]:
    for row, kind in ((n_bytes * width, ""), *((_row(packing, width), packing.name) for packing in packings)):
        count = file_bytes // (row * height) if row else 0
        if not 2 <= count <= MOST_FRAMES or count * row * height != file_bytes:
            continue
        frame = row * height
        remedy = (
            f"split it: for i in range({count}): numpy.fromfile({path.name!r}, 'u1', {frame}, offset=i * {frame})"
            f".tofile({path.stem + '-'!r} + str(i) + {path.suffix!r})"
        )
        yield Guess(f"{count} frames of {frame} bytes{f', each {kind}' if kind else ''}", remedy)
    for dtype, value in (("u1", 1), ("<u2", 2)):
        if file_bytes == 3 * value * width * height:
            code = f"numpy.fromfile({path.name!r}, {dtype!r}).reshape({height}, {width}, 3)"
            yield Guess(f"RGB of {8 * value} bits instead of a mosaic", _save(path, code))


def _with_header(path: Path, file_bytes: int, width: int, height: int, n_bytes: int) -> Iterator[Guess]:
    extra = file_bytes - n_bytes * width * height
    if 0 < extra <= LARGEST_HEADER:
        code = _whole_rows(path, n_bytes, f"[{extra}:].reshape({height}, {n_bytes * width})", height, width)
        yield Guess(f"{extra} bytes of header before the pixels (or of something behind them)", _save(path, code))


def _other_height(file_bytes: int, width: int, height: int, n_bytes: int) -> Iterator[Guess]:
    rows = file_bytes // (n_bytes * width)
    if rows * n_bytes * width == file_bytes and rows != height and abs(rows - height) <= height // 4:
        yield Guess(f"{rows} rows instead of {height}", f"give --raw-size {width}x{rows}")


def _row(packing: _Packing, width: int) -> int:
    """Bytes of a row's pixels; 0 if the width is not a multiple of the group."""
    return width // packing.group * packing.n_bytes if width % packing.group == 0 else 0


def _packed(path: Path, packing: _Packing, width: int, height: int, stride: int) -> Guess:
    row = _row(packing, width)
    padding = f", rows padded to {stride} bytes ({row} of them pixels)" if stride > row else ""
    rows = f"numpy.fromfile({path.name!r}, 'u1')[:{height * stride}].reshape({height}, {stride})[:, :{row}]"
    unpack = packing.code.format(height=height, n_bytes=packing.n_bytes).removeprefix("rows")
    steps = f"a = {rows}{unpack}"
    saved = f"{steps}; numpy.save({path.stem + '.npy'!r}, a.reshape({height}, {width}).astype('u2'))"
    return Guess(f"{packing.name}{padding}", f"unpack it: {saved}")


def _whole_rows(path: Path, n_bytes: int, cut: str, height: int, width: int) -> str:
    """Python code that reads the pixels of a file whose values have whole bytes.

    Args:
        path: the file.
        n_bytes: bytes of a value.
        cut: code that selects the pixels' bytes, as (height, bytes of a row).
        height, width: size in pixels.
    """
    rows = f"numpy.fromfile({path.name!r}, 'u1'){cut}"
    if n_bytes == 1:
        return rows
    if n_bytes == 2:
        return f"{rows}.copy().view('<u2')"
    return f"{rows}.reshape({height}, {width}, 3).astype('u4') @ numpy.array([1, 256, 65536], 'u4')"


def _save(path: Path, code: str) -> str:
    return f"save the pixels: numpy.save({path.stem + '.npy'!r}, {code})"

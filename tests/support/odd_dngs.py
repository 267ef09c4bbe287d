"""A writer of odd DNGs for the tests, apart from the package's own: any tags, segments, byte order, BigTIFF."""

import struct
from pathlib import Path
from typing import Any

import numpy as np

CODES = {1: "B", 3: "H", 4: "I", 5: "II", 7: "B", 9: "i", 10: "ii", 12: "d", 16: "Q"}
RGGB = (0, 1, 1, 2)
BLACK, WHITE = 512, 16383


def scene(height: int = 48, width: int = 64) -> np.ndarray:
    """Linear RGB in 0..0.8 that differs at every pixel and between colours."""
    rows, columns = np.mgrid[:height, :width]
    grey = 0.1 + 0.5 * columns / width + 0.1 * np.sin(rows / 5)
    return np.stack([grey * 0.5, grey, grey * 0.7], -1)


def mosaic(rgb: np.ndarray, cells: tuple[int, ...] = RGGB, columns: int = 2) -> np.ndarray:
    """The mosaic of a picture as 16-bit values between BLACK and WHITE."""
    rows = len(cells) // columns
    values = np.empty(rgb.shape[:2])
    for place, colour in enumerate(cells):
        row, column = divmod(place, columns)
        values[row::rows, column::columns] = rgb[row::rows, column::columns, colour]
    return np.round(BLACK + values * (WHITE - BLACK)).astype(np.uint16)


def tags_of(pixels: np.ndarray, **changes: Any) -> dict[int, Any]:
    """Tag → (type, values) of a plain DNG; a change `t262=(3, [1])` replaces a tag, `t262=None` removes it."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [16] * channels),
        259: (3, [1]),
        262: (3, [32803 if channels == 1 else 34892]),
        277: (3, [channels]),
        278: (4, [height]),
        50706: (1, [1, 4, 0, 0]),
        50707: (1, [1, 1, 0, 0]),
        50708: (1, list(b"Odd\0")),
        50714: (4, [BLACK] * channels),
        50717: (4, [WHITE] * channels),
        50721: (10, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
        50778: (3, [21]),
        50728: (5, [1, 2, 1, 1, 7, 10]),
    }
    if channels == 1:
        tags |= {33421: (3, [2, 2]), 33422: (1, list(RGGB)), 50710: (1, [0, 1, 2]), 50711: (3, [1])}
    tags |= {int(name[1:]): change for name, change in changes.items()}
    return {tag: entry for tag, entry in tags.items() if entry is not None}


def write_odd_dng(
    path: Path,
    pixels: np.ndarray,
    segments: list[bytes] | None = None,
    tiled: bool = False,
    order: str = "<",
    big: bool = False,
    **changes: Any,
) -> Path:
    """A DNG of one directory behind its pixels.

    Args:
        path: the file.
        pixels: their shape, and their 16-bit values where there are no segments.
        segments: strips or tiles, one after the other.
        tiled: they are tiles.
        order: byte order.
        big: a BigTIFF.
        changes: see `tags_of`; one of 273, 279, 324 or 325 replaces what would be right.
    """
    parts = segments if segments is not None else [pixels.astype(order + "u2").tobytes()]
    start = 16 if big else 8
    places = [start + sum(map(len, parts[:index])) for index in range(len(parts))]
    where, lengths = (324, 325) if tiled else (273, 279)
    tags = {where: (4, places), lengths: (4, list(map(len, parts)))} | tags_of(pixels, **changes)
    body = b"".join(parts)
    body += b"\0" * (-len(body) % 2)
    offset, count = ("Q", "Q") if big else ("I", "H")
    inline = struct.calcsize(offset)
    at = start + len(body)
    values_at = at + struct.calcsize("<" + count) + len(tags) * (4 + 2 * inline) + inline
    table, values = struct.pack(order + count, len(tags)), b""
    for tag, (kind, content) in sorted(tags.items()):
        code = CODES[kind]
        packed = struct.pack(f"{order}{code[0] * len(content)}", *content)
        table += struct.pack(f"{order}HH{offset}", tag, kind, len(content) // len(code))
        if len(packed) > inline:
            table += struct.pack(order + offset, values_at + len(values))
            values += packed
        else:
            table += packed.ljust(inline, b"\0")
    name = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, at) if big else struct.pack(order + "HI", 42, at)
    path.write_bytes(name + head + body + table + struct.pack(order + offset, 0) + values)
    return path

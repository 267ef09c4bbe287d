"""Frames in arrays: one of a stack, and the mosaic whose four planes an array holds.

Shapes: (height, width) is a mosaic, (height, width, 3) and (3, height, width) are RGB, (height, width, 4) are the four
planes of a Bayer mosaic at half its size. One axis more in front makes a stack. A shape such as (3, height, width) is
taken for a stack only if the header speaks of frames.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import BAYER_PATTERNS, Remark

SMALLEST_SIDE = 16
"""Shortest side of a frame of a stack; a shape such as (480, 640, 2) is no stack of 480 frames."""
PLANES = 4
SWAPPED_PLANES = 0.5
"""The two green planes of a mosaic are similar. Another pair that differs by less than this share of their difference
means that the planes are in another order."""


def frames_in(shape: tuple[int, ...], header: BayerHeader) -> int | None:
    """The number of frames along the first axis; None if the array is a single frame.

    >>> frames_in((7, 480, 640), BayerHeader()), frames_in((480, 640, 3), BayerHeader())
    (7, None)
    >>> frames_in((3, 480, 640), BayerHeader()), frames_in((3, 480, 640), BayerHeader(frame=1))
    (None, 3)
    """
    if len(shape) == 4:
        return shape[0]
    if len(shape) != 3 or shape[2] in (1, 3, PLANES) or min(shape[1:]) < SMALLEST_SIDE:
        return None
    if shape[0] in (3, PLANES) and header.frame is None and header.frames is None:
        return None
    return shape[0]


def frame_number(count: int, header: BayerHeader, name: object, unit: str = "frames") -> int:
    """The frame to read of a file or array that states how many it holds: the declared one, or the only one.

    Args:
        count: number of frames.
        header: `frame` is the declared one; with `frames` alone it is the first.
        name: the file, for messages.
        unit: noun for messages, in the plural.

    Raises:
        RawFileError: there are several and none is declared, or there is no such frame.
    """
    last = count - 1
    choose = f"give --raw-frame 0 to {last} (in Python BayerHeader(frame=0)), or give all of them to stream"
    if count < 1:
        raise RawFileError(f"{name}: holds no {unit}; save it again")
    if count > 1 and header.frames is not None and header.frames != count:
        found = f"holds {count} {unit}, but --raw-frames says {header.frames}"
        raise RawFileError(f"{name}: {found}; correct it or leave it out")
    if header.frame is None:
        if count > 1 and header.frames is None:
            raise RawFileError(f"{name}: holds {count} {unit}; {choose}")
        return 0
    if header.frame >= count:
        remedy = f"give --raw-frame 0 to {last}" if count > 1 else "leave out --raw-frame"
        held = f"{count} {unit}" if count > 1 else "a single image"
        raise RawFileError(f"{name}: holds {held}, so there is no frame {header.frame}, counted from 0; {remedy}")
    return header.frame


def mosaic_of_planes(
    pixels: NDArray[Any], header: BayerHeader, name: object
) -> tuple[NDArray[Any], tuple[Remark, ...]]:
    """The mosaic of (height, width, 4) planes, twice as high and wide, and a remark if their order is doubtful.

    Plane k holds the pixels at place k of the 2x2 block, row by row, so that its colour is letter k of the pattern.

    Args:
        pixels: array of any shape; others than (height, width, 4) are returned as they are.
        header: the pattern.
        name: the file, for messages.

    Raises:
        RawFileError: the pattern is unknown, since four channels may also be RGB with alpha.

    >>> mosaic_of_planes(np.arange(4).reshape(1, 1, 4), BayerHeader(pattern="GRBG"), "x.npy")[0].tolist()
    [[0, 1], [2, 3]]
    """
    if pixels.ndim != 3 or pixels.shape[2] != PLANES:
        if pixels.ndim == 3 and pixels.shape[0] == PLANES and min(pixels.shape[1:]) >= SMALLEST_SIDE:
            shape = "x".join(map(str, pixels.shape))
            planes = "planes of a mosaic are saved as array.transpose(1, 2, 0)"
            raise RawFileError(f"{name}: has shape {shape}; a stack needs --raw-frame or --raw-frames 4, and {planes}")
        return pixels, ()
    if header.pattern not in BAYER_PATTERNS:
        shape = "x".join(map(str, pixels.shape))
        how = "give --raw-pattern if they are the planes of a Bayer mosaic, else save RGB without alpha, array[..., :3]"
        raise RawFileError(f"{name}: has shape {shape}, four channels; {how}")
    height, width = pixels.shape[:2]
    blocks = pixels.reshape(height, width, 2, 2).swapaxes(1, 2)
    return blocks.reshape(2 * height, 2 * width), _order_remark(pixels, header.pattern, name)


def _order_remark(planes: NDArray[Any], pattern: str, name: object) -> tuple[Remark, ...]:
    """A remark if two other planes than the green ones of the pattern are by far the most similar."""
    step = max(1, planes.shape[0] * planes.shape[1] // 100_000)
    sample = planes.reshape(-1, PLANES)[::step].astype(np.float64)
    pairs = [(a, b) for a in range(PLANES) for b in range(a + 1, PLANES)]
    differences = {(a, b): float(np.abs(sample[:, a] - sample[:, b]).mean()) for a, b in pairs}
    green = tuple(place for place, letter in enumerate(pattern) if letter == "G")
    closest = min(pairs, key=differences.__getitem__)
    if not differences[closest] < SWAPPED_PLANES * differences[green[0], green[1]]:
        return ()
    found = f"planes {closest[0]} and {closest[1]} are more similar than {green[0]} and {green[1]}, the green ones of"
    remedy = "put the planes into the order of the pattern, row by row"
    return (Remark("order of planes", f"{name}: its {found} {pattern}; {remedy}"),)


def frame_of_array(pixels: NDArray[Any], header: BayerHeader, name: object) -> tuple[NDArray[Any], tuple[Remark, ...]]:
    """The declared frame of an array in memory, as a mosaic or RGB, with remarks.

    Raises:
        RawFileError: it is a stack and no frame of it is declared, or its four channels have no pattern.
    """
    count = frames_in(pixels.shape, header)
    number = frame_number(1 if count is None else count, header, name)
    return mosaic_of_planes(pixels if count is None else pixels[number], header, name)


def size_of_shape(shape: tuple[int, ...], header: BayerHeader) -> tuple[int, int]:
    """(width, height) of the frames in an array of a given shape.

    Raises:
        ValueError: the array has fewer than two axes.
    """
    frame = shape if frames_in(shape, header) is None else shape[1:]
    if len(frame) == 3 and frame[2] != 3 and frame[0] == 3:
        frame = frame[1:]
    height, width = frame[:2]
    scale = 2 if len(frame) == 3 and frame[2] == PLANES else 1
    return scale * width, scale * height

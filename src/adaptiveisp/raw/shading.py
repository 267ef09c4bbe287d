"""Lens shading: gains that brighten the corners of a mosaic, from a DNG's GainMap or from a file of one's own.

Source: Adobe, DNG 1.7.1, chapter 7, opcode 9 (GainMap) of OpcodeList2, which applies to linear values above black.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch.nn import functional

from adaptiveisp.errors import RawFileError, logger
from adaptiveisp.utils.files import require_regular

NO_SHADING = "none"
"""Value of `raw-shading` that switches off the GainMap of a DNG."""
MOST_POINTS = 1024
"""Most rows and columns of the grid of a gain map; phones have 13 to 17."""
MOST_GAIN = 64.0
"""Largest gain; real ones are below 8."""
_GAIN_MAP = 9  # opcode
_HEAD, _OPCODE, _MAP = struct.Struct(">I"), struct.Struct(">4I"), struct.Struct(">10I4dI")

Gains = Float32[np.ndarray, "height width"]


class GainMap(NamedTuple):
    """A grid of gains for some of the pixels.

    Attributes:
        area: top, left, bottom, right of the pixels in the active area.
        pitch: rows and columns from one of these pixels to the next.
        spacing, origin: vertical and horizontal distance of the points, and place of the first, as shares of the frame.
        points: (rows, columns) gains.
    """

    area: tuple[int, int, int, int]
    pitch: tuple[int, int]
    spacing: tuple[float, float]
    origin: tuple[float, float]
    points: NDArray[np.float64]


def parse_gain_maps(content: bytes) -> list[GainMap]:
    """The gain maps of an opcode list; other opcodes are ignored.

    Args:
        content: value of the tag OpcodeList2.

    Raises:
        ValueError: the list is damaged.
    """
    maps: list[GainMap] = []
    try:
        (count,) = _HEAD.unpack_from(content, 0)
        at = _HEAD.size
        for _ in range(min(count, 64)):
            code, _, _, size = _OPCODE.unpack_from(content, at)
            at += _OPCODE.size
            if code == _GAIN_MAP:
                maps.append(_gain_map(content[at : at + size]))
            at += size
    except struct.error:
        raise ValueError("the list of opcodes is cut off") from None
    return maps


def _gain_map(content: bytes) -> GainMap:
    values = _MAP.unpack_from(content, 0)
    top, left, bottom, right, _, _, row_pitch, column_pitch, rows, columns = values[:10]
    spacing, origin, planes = (values[10], values[11]), (values[12], values[13]), values[14]
    numbers = np.frombuffer(content, ">f4", offset=_MAP.size)
    possible = min(rows, columns, planes, row_pitch, column_pitch) >= 1 and max(rows, columns) <= MOST_POINTS
    if not possible or len(numbers) != rows * columns * planes:
        raise ValueError("the size of a gain map is impossible")
    points = numbers.reshape(rows, columns, planes)[:, :, 0].astype(np.float64)
    usable = np.isfinite([*spacing, *origin]).all() and np.isfinite(points).all()
    if not usable or min(spacing) < 0 or points.min() < 0 or points.max() > MOST_GAIN:
        raise ValueError("a gain map has impossible values")
    return GainMap((top, left, bottom, right), (row_pitch, column_pitch), spacing, origin, points)


def gains_of_maps(maps: Sequence[GainMap], height: int, width: int) -> Gains:
    """The product of the gains of all maps at each pixel, interpolated bilinearly.

    A pixel of row y has the place (y + 0.5) / height, as in Adobe's DNG SDK (dng_gain_map_interpolator).
    """
    gains = np.ones((height, width), np.float32)
    for one in maps:
        top, left, bottom, right = one.area
        rows = np.arange(top, min(bottom, height), one.pitch[0])
        columns = np.arange(left, min(right, width), one.pitch[1])
        if not len(rows) or not len(columns):
            continue
        vertical = _weights(rows, height, one.spacing[0], one.origin[0], one.points.shape[0])
        horizontal = _weights(columns, width, one.spacing[1], one.origin[1], one.points.shape[1])
        gains[np.ix_(rows, columns)] *= (vertical @ one.points @ horizontal.T).astype(np.float32)
    return gains


def _weights(pixels: NDArray[Any], length: int, spacing: float, origin: float, count: int) -> NDArray[np.float64]:
    """(pixels, points) weights of linear interpolation along one axis."""
    place = ((pixels + 0.5) / length - origin) / spacing if spacing > 0 else np.zeros(len(pixels))
    place = np.clip(place, 0, count - 1)
    low = np.minimum(place.astype(np.int64), max(count - 2, 0))
    share = place - low
    weights = np.zeros((len(pixels), count))
    index = np.arange(len(pixels))
    weights[index, low] += 1 - share
    weights[index, np.minimum(low + 1, count - 1)] += share
    return weights


def gains_of_file(path: str, height: int, width: int) -> Gains:
    """The gains in a .npy file, resized bilinearly to a frame.

    Args:
        path: (h, w) gains for all pixels, or (h, w, 4) for each place of the 2x2 block, row by row; of any size.
        height, width: of the frame in pixels.

    Raises:
        RawFileError: the file is missing, or holds something else.
    """
    return _resized_file(path, *_version(path), height, width)


def check_gains(path: str) -> None:
    """Refuses a file of gains that `gains_of_file` would refuse for every frame.

    Raises:
        RawFileError: the file is missing, or holds something else.
    """
    _grid(path, *_version(path))


def _version(path: str) -> tuple[int, int]:
    """Time of change and size of a regular file.

    Raises:
        RawFileError: there is no such file.
    """
    try:
        stat = Path(path).stat()
    except OSError:
        raise RawFileError(f"{path}: no such file; correct raw-shading") from None
    require_regular(Path(path), RawFileError, "correct raw-shading")  # reading a pipe could block
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=2)
def _grid(path: str, changed: int, size: int) -> NDArray[Any]:
    """The gains as they are stored, checked; cached as long as the file does not change."""
    try:
        grid = np.load(path, allow_pickle=False)
    except Exception as error:  # the header is a Python literal, so a damaged one can cause any error
        raise RawFileError(
            f"{path}: is no .npy file of gains ({type(error).__name__}); save it by numpy.save"
        ) from None
    wanted = "give (height, width) or (height, width, 4) gains above 0"
    if not isinstance(grid, np.ndarray) or grid.dtype.kind not in "uif" or grid.size == 0:
        raise RawFileError(f"{path}: holds no gains; {wanted}")
    if not (grid.ndim == 2 or (grid.ndim == 3 and grid.shape[2] == 4)):
        raise RawFileError(f"{path}: has shape {'x'.join(map(str, grid.shape))}; {wanted}")
    if not np.isfinite(grid).all() or grid.min() <= 0 or grid.max() > MOST_GAIN:
        raise RawFileError(f"{path}: holds gains that are not finite, not above 0, or above {MOST_GAIN:g}; {wanted}")
    if grid.max() <= 1 and grid.min() < 1:
        remedy = "if it is a flat frame, which its gains undo, save flat.max() / flat instead"
        logger.warning("%s: no gain is above 1, so that pixels are darkened only; %s", path, remedy)
    return grid


@lru_cache(maxsize=2)
def _resized_file(path: str, changed: int, size: int, height: int, width: int) -> Gains:
    """`gains_of_file`, cached as long as the file does not change."""
    grid = _grid(path, changed, size)
    planes = torch.from_numpy(np.atleast_3d(grid).astype(np.float32)).permute(2, 0, 1)[None]
    if planes.shape[1] == 1:
        whole: Gains = _resize(planes, height, width)[0]
        return whole
    gains = np.empty((height, width), np.float32)
    for place in range(4):
        row, column = divmod(place, 2)
        gains[row::2, column::2] = _resize(planes[:, place : place + 1], height, width)[0, row::2, column::2]
    return gains


def _resize(planes: torch.Tensor, height: int, width: int) -> NDArray[np.float32]:
    resized = functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False)[0]
    found: NDArray[np.float32] = resized.numpy()
    return found


def shaded(data: NDArray[Any], gains: Gains, black: Sequence[float], white: float) -> NDArray[np.float32]:
    """The mosaic black + gain·(value - black), not above the white level, which keeps saturated pixels white.

    Args:
        data: the mosaic.
        gains: of each pixel.
        black: black level at each position of the 2x2 block.
        white: white level.
    """
    out = data.astype(np.float32)
    for place, level in enumerate(black):
        part = out[place // 2 :: 2, place % 2 :: 2]
        own = gains[place // 2 :: 2, place % 2 :: 2]
        np.minimum((part - level) * own + level, np.maximum(part, white), out=part)
    return out

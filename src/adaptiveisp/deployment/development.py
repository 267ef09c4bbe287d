"""From the camera's numbers to linear RGB at the working size, as nodes of a graph; see `raw.develop`."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.control_flow import choose
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.resampling import BLOCK, Taps, normalised, resize, resized_sides, taps_of
from adaptiveisp.raw.demosaic import malvar_filters
from adaptiveisp.raw.develop import SMALLEST_SCALE
from adaptiveisp.raw.pixel_formats import PixelFormat
from adaptiveisp.types import BAYER_PATTERNS

Sides = tuple[Value, Value]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Frame:
    """The frame that a graph takes.

    Attributes:
        kind: "mosaic", (height, width), or "rgb", (height, width, 3).
        bits: of a value: up to 8 are uint8, up to 16 uint16, more uint32.
        height, width: in pixels; None for any size.
        pattern: of `BAYER_PATTERNS`; None makes it an input.
        black, white: levels; None makes them inputs. One black level for "rgb", four for "mosaic".
        orientation: EXIF orientation of the sensor's picture, 1 to 8.
        packing: how a camera delivers the values as bytes; None where that is not known.
        stride: bytes from the beginning of a row to that of the next; None for rows without padding.
        offset: bytes before the first row.
    """

    kind: str
    bits: int = 16
    height: int | None = None
    width: int | None = None
    pattern: str | None = None
    black: tuple[float, ...] | None = None
    white: float | None = None
    orientation: int = 1
    packing: PixelFormat | None = None
    stride: int | None = None
    offset: int = 0

    @property
    def dtype(self) -> np.dtype:
        """Type of the input."""
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32)

    @property
    def is_free(self) -> bool:
        """Whether frames of any size are taken."""
        return self.height is None or self.width is None

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Shape of the input, free sizes by name."""
        sides = (self.height or "height", self.width or "width")
        return sides if self.kind == "mosaic" else (*sides, 3)


def frame_sides(ops: Ops, value: Value, frame: Frame) -> Sides:
    """Height and width of the input in pixels."""
    if frame.height is not None and frame.width is not None:
        sides = [ops.constant(np.asarray(side, np.int64)) for side in (frame.height, frame.width)]
    else:
        shape = ops("Shape", value)
        sides = [ops.item(shape, axis) for axis in (0, 1)]
    return sides[0], sides[1]


def levels(ops: Ops, frame: Frame) -> tuple[Value, Value]:
    """Black levels, a vector, and the white level, a vector of one: constants or inputs of the graph."""
    count = 4 if frame.kind == "mosaic" else 1
    if frame.black is not None and frame.white is not None:
        black = ops.constant(np.asarray(frame.black, np.float32))
        return black, ops.constant(np.asarray([frame.white], np.float32))
    return ops.input("black_level", np.float32, [count]), ops.input("white_level", np.float32, [1])


def develop(ops: Ops, value: Value, frame: Frame, size: int) -> tuple[Value, Sides]:
    """The developed image (1, 3, h, w) of a frame at the working size, and the sides of the upright full frame.

    Args:
        ops: the graph; its `sides` are set to those of the image.
        value: the frame.
        frame: describes it.
        size: longer side in pixels.
    """
    with ops.scope("develop"):
        black, white = levels(ops, frame)
        sensor = frame_sides(ops, value, frame)
        full = sensor[::-1] if frame.orientation >= 5 else sensor
        ops.root.sides = after = resized_sides(ops, *full, size)
        if frame.kind == "rgb":
            linear = ops.clip((ops.cast(value, np.float32) - black) * (1.0 / (white - black)), 0, 1)
            image = ops("Unsqueeze", ops("Transpose", linear, perm=[2, 0, 1]), np.asarray([0]))
            return _resized(ops, _upright(ops, image, frame.orientation), full, after), full
        pattern = _pattern(ops, frame)
        linear = _linear_mosaic(ops, value, sensor, black, white)

        def demosaiced(inner: Ops) -> list[Value]:
            image = _upright(inner, _demosaic(inner, linear, sensor, pattern), frame.orientation)
            return [_resized(inner, image, full, after)]

        def small(inner: Ops) -> list[Value]:
            wanted = after[::-1] if frame.orientation >= 5 else after
            image = _develop_small(inner, linear, sensor, wanted, pattern)
            return [_upright(inner, image, frame.orientation)]

        fits = [
            ops("LessOrEqual", ops.cast(new, np.float32) * SMALLEST_SCALE, ops.cast(old, np.float32))
            for old, new in zip(full, after, strict=True)
        ]
        which = ops.cast(ops("And", *fits), np.int64)
        return choose(ops, which, [demosaiced, small], ["demosaic", "small"])[0], full


def _resized(ops: Ops, image: Value, before: Sides, after: Sides) -> Value:
    same = [old.data is not None and old.data == new.data for old, new in zip(before, after, strict=True)]
    return image if all(same) else resize(ops, image, before, after)


def _upright(ops: Ops, image: Value, orientation: int) -> Value:
    """The image (1, 3, height, width) as a viewer shows it; see `raw.develop.upright`."""
    if orientation >= 5:
        image = ops("Transpose", image, perm=[0, 1, 3, 2])
    for axis, cases in ((2, (3, 4, 7, 8)), (3, (2, 3, 6, 7))):
        if orientation in cases:
            whole = (np.asarray([-1]), np.asarray([np.iinfo(np.int64).min]), np.asarray([axis]), np.asarray([-1]))
            image = ops("Slice", image, *whole)
    return image


def _pattern(ops: Ops, frame: Frame) -> Value:
    """The index of the pattern in `BAYER_PATTERNS`, a constant or an input of the graph."""
    if frame.pattern is not None:
        return ops.constant(np.asarray(BAYER_PATTERNS.index(frame.pattern), np.int64))
    return ops.input("pattern", np.int64, [])


def _linear_mosaic(ops: Ops, mosaic: Value, sides: Sides, black: Value, white: Value) -> Value:
    """The mosaic with black at 0 and white at 1, clipped; an odd side has one more pixel, which repeats the last."""
    extra = [ops("Mod", side, 2) for side in sides]
    values = ops.cast(mosaic, np.float32)
    if any(one.data is None or one.number for one in extra):
        values = ops("Pad", values, ops.stack([0, 0, *extra]), None, mode="edge")
    rows, columns = (side + one for side, one in zip(sides, extra, strict=True))
    if black.data is not None and len(set(black.data.tolist())) == 1:
        first = ops.item(black, 0)
        return ops.clip((values - first) * (1.0 / (ops.item(white, 0) - first)), 0, 1)
    blocks = ops.reshape(values, rows / 2, 2, columns / 2, 2)
    offset, scale = (ops.reshape(one, 1, 2, 1, 2) for one in (black, 1.0 / (white - black)))
    return ops.reshape(ops.clip((blocks - offset) * scale, 0, 1), rows, columns)


def _demosaic(ops: Ops, linear: Value, sides: Sides, pattern: Value) -> Value:
    """The image (1, 3, height, width) by the filters of Malvar, He and Cutler; see `raw.demosaic.malvar`.

    Each colour at each position of the 2x2 block is a 3x3 filter over the four half-size channels.
    """
    height, width = sides
    filters = [malvar_filters(name).numpy() for name in BAYER_PATTERNS]
    for kernel, name in zip(filters, BAYER_PATTERNS, strict=True):
        for place, colour in enumerate(name):  # recorded samples stay
            kernel[4 * "RGB".index(colour) + place, place, 1, 1] = 1
    kernels = ops("Gather", np.stack(filters).astype(np.float32), pattern, axis=0)
    mosaic = ops.slice(ops.slice(linear, 0, 0, height), 1, 0, width)
    picture = ops("Unsqueeze", mosaic, np.asarray([0, 1]))
    padded = ops.pad(picture, [2, 2, ops("Mod", height, 2) + 2, ops("Mod", width, 2) + 2], "reflect")
    made = ops("Conv", ops("SpaceToDepth", padded, blocksize=2), kernels)
    whole = ops("DepthToSpace", made, blocksize=2, mode="CRD")
    for axis, side in ((2, height), (3, width)):
        if side.data is None or side.number % 2:  # a constant even side has no more pixels
            whole = ops.slice(whole, axis, 0, side)
    return ops.clip(whole, 0, 1)


def _develop_small(ops: Ops, linear: Value, before: Sides, after: Sides, pattern: Value) -> Value:
    """The image (1, 3, h, w) in one pass over the mosaic: means of each colour's own values; see `develop_small`.

    The values at each of the four positions of the 2x2 block are resampled by themselves, first the rows, then the
    columns. The two positions of green are then averaged.
    """
    (rows, columns), (height, width) = before, after
    vertical, horizontal = taps_of(ops, rows, height), taps_of(ops, columns, width)
    lines = ops("MatMul", _by_parity(ops, vertical), ops("Gather", linear, vertical.places, axis=0))
    # (blocks, 2·BLOCK, columns) → (2, columns, height)
    lines = ops("Transpose", ops.reshape(lines, -1, 2, BLOCK, _last(ops, linear)), perm=[1, 0, 2, 3])
    lines = ops.slice(ops.reshape(lines, 2, -1, _last(ops, linear)), 1, 0, height)
    lines = ops("Transpose", lines, perm=[0, 2, 1])
    sites = ops("MatMul", _by_parity(ops, horizontal), ops("Gather", lines, horizontal.places, axis=1))
    # (2, blocks, 2·BLOCK, height) → (4, width, height)
    sites = ops("Transpose", ops.reshape(sites, 2, -1, 2, BLOCK, height), perm=[0, 2, 1, 3, 4])
    sites = ops.slice(ops.reshape(sites, 4, -1, height), 1, 0, width)
    shares = [[[float(one == c) / name.count(c) for one in name] for c in "RGB"] for name in BAYER_PATTERNS]
    mixture = ops("Gather", np.asarray(shares, np.float32), pattern, axis=0)
    colours = ops("MatMul", mixture, ops.reshape(sites, 4, -1))
    image = ops("Transpose", ops.reshape(colours, 1, 3, width, height), perm=[0, 1, 3, 2])
    return ops.clip(image, 0, 1)


def _by_parity(ops: Ops, taps: Taps) -> Value:
    """Normalised weights of the even pixels, then of the odd ones, (blocks, 2·BLOCK, taps)."""
    odd = ops.cast(ops("Unsqueeze", ops("Mod", taps.places, 2), np.asarray([1])), np.float32)
    return ops.concat([normalised(ops, taps.weights * share) for share in (1.0 - odd, odd)], 1)


def _last(ops: Ops, matrix: Value) -> Value:
    """Number of columns of a matrix."""
    return ops.item(ops("Shape", matrix), 1)

"""From the camera's numbers to linear RGB at the working size, as nodes of a graph; see `raw.develop`."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.resampling import resize, resized_sides
from adaptiveisp.raw.pixel_formats import PixelFormat


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
    def shape(self) -> tuple[int | str, ...]:
        """Shape of the input, free sizes by name."""
        sides = (self.height or "height", self.width or "width")
        return sides if self.kind == "mosaic" else (*sides, 3)


def frame_sides(ops: Ops, value: Value, frame: Frame) -> tuple[Value, Value]:
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


def develop_rgb(ops: Ops, value: Value, frame: Frame, size: int) -> tuple[Value, tuple[Value, Value]]:
    """The developed image (1, 3, h, w) of an RGB frame at the working size, and the sides of the upright full frame.

    Args:
        ops: the graph; its `sides` are set to those of the image.
        value: the frame.
        frame: describes it.
        size: longer side in pixels.
    """
    with ops.scope("develop"):
        black, white = levels(ops, frame)
        before = frame_sides(ops, value, frame)
        linear = ops.clip((ops.cast(value, np.float32) - black) * (1.0 / (white - black)), 0, 1)
        image = ops("Unsqueeze", ops("Transpose", linear, perm=[2, 0, 1]), np.asarray([0]))
        image, before = upright(ops, image, before, frame.orientation)
        after = resized_sides(ops, *before, size)
        ops.root.sides = after
        same = [old.data is not None and old.data == new.data for old, new in zip(before, after, strict=True)]
        return (image if all(same) else resize(ops, image, before, after)), before


def upright(
    ops: Ops, image: Value, sides: tuple[Value, Value], orientation: int
) -> tuple[Value, tuple[Value, Value]]:
    """The image (1, 3, height, width) as a viewer shows it, and its sides; see `raw.develop.upright`."""
    if orientation >= 5:
        image, sides = ops("Transpose", image, perm=[0, 1, 3, 2]), (sides[1], sides[0])
    for axis, cases in ((2, (3, 4, 7, 8)), (3, (2, 3, 6, 7))):
        if orientation in cases:
            whole = (np.asarray([-1]), np.asarray([np.iinfo(np.int64).min]), np.asarray([axis]), np.asarray([-1]))
            image = ops("Slice", image, *whole)
    return image, sides

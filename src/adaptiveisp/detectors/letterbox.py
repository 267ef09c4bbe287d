"""Letterboxing: resizing to the detector's frame, padding to it, and mapping boxes between it and the full frame."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.types import Letterbox

PAD_GREY = 0.5
"""Grey of the border, as in Darknet."""


def resized_size(height: int, width: int, longer_side: int) -> tuple[int, int]:
    """(height, width) with the longer side equal to `longer_side`, aspect kept, at least one pixel.

    >>> resized_size(480, 640, 416)
    (312, 416)
    """
    scale = longer_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_longer_side(image: Float[Tensor, "3 height width"], longer_side: int) -> Float[Tensor, "3 h2 w2"]:
    """The image scaled so that its longer side is `longer_side` pixels, antialiased bilinear, in [0, 1].

    Resizing averages pixels, which is correct for linear RGB only, so it comes before any tone curve.
    """
    size = resized_size(image.shape[1], image.shape[2], longer_side)
    if size == tuple(image.shape[1:]):
        return image
    resized = F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def pad_to_frame(
    image: Float[Tensor, "batch 3 height width"],
    frame: int,
    full_size: tuple[int, int],
    value: float = PAD_GREY,
) -> tuple[Float[Tensor, "batch 3 frame frame"], Letterbox]:
    """The images centred in a square frame, and their place in it.

    Args:
        image: resized images, at most `frame` pixels a side.
        frame: side of the square in pixels.
        full_size: (height, width) in pixels of the full frame before it was resized.
        value: value of the border, in the image's own encoding.
    """
    height, width = image.shape[2:]
    top, left = (frame - height) // 2, (frame - width) // 2
    padded = F.pad(image, (left, frame - width - left, top, frame - height - top), value=value)
    box = Letterbox(left, top, width, height, full_size[1], full_size[0])
    return padded, box


def boxes_to_frame(boxes: Float[Tensor, "n 4"], letterbox: Letterbox) -> Float[Tensor, "n 4"]:
    """xyxy boxes in pixels of the padded frame, from boxes in pixels of the full frame."""
    return boxes * _scales(boxes, letterbox) + _offset(boxes, letterbox)


def boxes_to_full(boxes: Float[Tensor, "n 4"], letterbox: Letterbox) -> Float[Tensor, "n 4"]:
    """xyxy boxes in pixels of the full frame, clipped to it, from boxes in pixels of the padded frame."""
    full = (boxes - _offset(boxes, letterbox)) / _scales(boxes, letterbox)
    limits = full.new_tensor([letterbox.full_width, letterbox.full_height] * 2)
    return torch.minimum(full.clamp(min=0), limits)


def frame_size(longer_side: int, stride: int) -> int:
    """Side of the square frame in pixels: `longer_side` rounded up to a multiple of the detector's stride.

    >>> frame_size(416, 32), frame_size(400, 32)
    (416, 416)
    """
    return -(-longer_side // stride) * stride


def _offset(boxes: Tensor, letterbox: Letterbox) -> Tensor:
    return boxes.new_tensor([letterbox.left, letterbox.top] * 2)


def _scales(boxes: Tensor, letterbox: Letterbox) -> Tensor:
    # The sides are rounded to whole pixels, so each axis has its own exact scale.
    x, y = letterbox.width / letterbox.full_width, letterbox.height / letterbox.full_height
    return boxes.new_tensor([x, y, x, y])

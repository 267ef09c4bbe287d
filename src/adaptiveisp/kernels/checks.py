"""What every kernel checks before it hands out a pointer: the compiled code reads and writes where it is told."""

from collections.abc import Sequence

import torch
from torch import Tensor


def require(holds: bool, message: str) -> None:
    """Refuses arguments that do not fit.

    Raises:
        ValueError: the condition does not hold.
    """
    if not holds:
        raise ValueError(message)


def is_float32(tensor: Tensor) -> bool:
    """Whether the tensor is float32 on the CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def require_image(image: Tensor) -> None:
    """Refuses what is no contiguous float32 image of shape (3, height, width) on the CPU with at least one pixel."""
    fits = is_float32(image) and image.is_contiguous() and image.ndim == 3 and image.shape[0] == 3
    if not fits or image.numel() == 0:  # asked before each kernel: the message is made only where it is needed
        raise ValueError(f"kernels take contiguous float32 (3, height, width) on the CPU, not {described(image)}")


def require_target(image: Tensor, target: Tensor, *others: Tensor, in_place: bool = False) -> None:
    """Refuses an image, or a target for it, that does not fit.

    Args:
        image: what is read.
        target: what is written; of the image's shape.
        others: also read, and so not to be written over.
        in_place: whether the target may be the image itself; any other overlap is refused.
    """
    require_image(image)
    require_image(target)
    if target.shape != image.shape:
        raise ValueError(f"kernels take a target of the image's shape, {tuple(image.shape)}, not {tuple(target.shape)}")
    same = in_place and target.data_ptr() == image.data_ptr()
    apart = all(not overlap(target, other) for other in ((*others,) if same else (image, *others)))
    require(apart, "the target must not share memory with what is read")


def batch_of_images(images: Tensor) -> Tensor:
    """The images, contiguous.

    Raises:
        ValueError: they are not float32 of shape (batch, 3, height, width) on the CPU, or have no pixels.
    """
    fits = is_float32(images) and images.ndim == 4 and images.shape[1] == 3 and images.numel() > 0
    require(fits, f"kernels take float32 (batch, 3, height, width) on the CPU, not {described(images)}")
    return images.contiguous()


def require_planes(planes: Tensor, shape: Sequence[int], name: str) -> None:
    """Refuses planes that are not contiguous float32 of exactly this shape on the CPU."""
    fits = is_float32(planes) and planes.is_contiguous() and tuple(planes.shape) == tuple(shape)
    require(fits, f"{name} must be contiguous float32 {tuple(shape)} on the CPU, not {described(planes)}")


def require_cell(cell: int) -> None:
    """Refuses a side of a cell below one pixel."""
    require(cell >= 1, f"a cell has a side of at least 1 pixel, not {cell}")


def cells_of(height: int, width: int, cell: int) -> tuple[int, int]:
    """Rows and columns of the cells that cover an image.

    >>> cells_of(9, 8, 4)
    (3, 2)
    """
    return -(-height // cell), -(-width // cell)


def overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two contiguous tensors share memory."""
    start, begin = one.data_ptr(), other.data_ptr()
    n_bytes, length = one.numel() * one.element_size(), other.numel() * other.element_size()
    return start < begin + length and begin < start + n_bytes


def described(tensor: Tensor) -> str:
    """Type, shape and device of a tensor, for a message."""
    strided = "" if tensor.is_contiguous() else ", not contiguous"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)} on {tensor.device.type}{strided}"


def require_count(numbers: Sequence[float], count: int, name: str) -> None:
    """Refuses a list of another length than `count`."""
    require(len(numbers) == count, f"{name} takes {count} numbers, not {len(numbers)}")

"""Kernels of csrc/bilateral_grid.c.inc: bilateral grids of colour transforms, forward and backward.

They compute what `isp.bilateral_grid` computes in PyTorch, with the clip to [0, 1], and take grid and guide as `packed`
and `guide_numbers` there lay them out.
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from adaptiveisp.kernels import forward
from adaptiveisp.kernels.checks import batch_of_images, described, is_float32, require
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import ranges, scratch, spread
from adaptiveisp.types import Image

CELL_SIZE = 16
"""Numbers of a cell: for each of red, green, blue and offset its share in the three channels, and a 0."""

Packed = Float[Tensor, "batch rows columns depth 16"]
GuideNumbers = Float[Tensor, " n"]


def _checked(image: Tensor, grid: Tensor, guide: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """The tensors, contiguous, and the sizes that the kernels take: of the image, of the grid, number of knots.

    Raises:
        ValueError: they do not fit.
    """
    image = batch_of_images(image)
    fits = is_float32(grid) and grid.ndim == 5 and grid.shape[4] == CELL_SIZE and len(grid) == len(image)
    require(fits and grid.numel() > 0, f"a grid for each image is needed, not {described(grid)}")
    knots = (guide.numel() - 10) // 6
    fits = is_float32(guide) and guide.ndim == 1 and knots >= 1 and guide.numel() == 10 + 6 * knots
    require(fits, f"a guide has 10 + 6·knots numbers, not {described(guide)}")
    return image, grid.contiguous(), guide.contiguous(), (*image.shape[2:], *grid.shape[1:4], knots)


def _tasks(image: Image) -> list[tuple[int, int, int]]:
    """(image, start, stop) of each part of a batch: whole images where there are enough for all threads."""
    batch, _, height, width = image.shape
    whole = batch >= torch.get_num_threads()
    cuts = [(0, height)] if whole else ranges(height, forward.TILE_ROWS, forward.LEAST_PIXELS // width)
    return [(i, start, stop) for i in range(batch) for start, stop in cuts]


def transform(image: Image, grid: Packed, guide: GuideNumbers) -> Image:
    """The images after their grids, clipped to [0, 1].

    Args:
        image: RGB in [0, 1].
        grid: of each image.
        guide: the same for all images.
    """
    image, grid, guide, sizes = _checked(image, grid, guide)
    made, kernel = torch.empty_like(image), function("bilateral_grid")
    _, width, _, columns, depth, _ = sizes
    n_bytes = 4 * (columns * depth * CELL_SIZE + 4 * width)

    def work(i: int, start: int, stop: int) -> None:
        addresses = (image[i].data_ptr(), grid[i].data_ptr(), guide.data_ptr(), made[i].data_ptr())
        kernel(*addresses, *sizes, start, stop, scratch(n_bytes))

    spread([partial(work, *task) for task in _tasks(image)])
    return made


def transform_backward(
    image: Image, grid: Packed, guide: GuideNumbers, grad: Image, of_image: bool
) -> tuple[Image | None, Packed, GuideNumbers]:
    """Gradients of the images, if `of_image`, of the grids and of the guide's numbers.

    Args:
        image, grid, guide: the inputs of `transform`.
        grad: gradient of its result.
        of_image: False leaves out the gradient of the images.
    """
    image, grid, guide, sizes = _checked(image, grid, guide)
    grad = batch_of_images(grad)
    require(grad.shape == image.shape, "the gradient must have the shape of the images")
    target = torch.empty_like(image) if of_image else None
    kernel = function("bilateral_grid_backward")
    _, width, _, columns, depth, _ = sizes
    n_bytes = 4 * (2 * columns * depth * CELL_SIZE + 6 * width)

    def work(i: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        # Of its own: parts of an image meet in rows of cells.
        of_grid, of_guide = torch.zeros_like(grid[i]), torch.zeros_like(guide, dtype=torch.float64)
        read = (image[i].data_ptr(), grid[i].data_ptr(), guide.data_ptr(), grad[i].data_ptr())
        to = None if target is None else target[i].data_ptr()
        kernel(*read, to, of_grid.data_ptr(), of_guide.data_ptr(), *sizes, start, stop, scratch(n_bytes))
        return of_grid, of_guide

    tasks = _tasks(image)
    total, of_guide = torch.zeros_like(grid), torch.zeros_like(guide, dtype=torch.float64)
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        total[i] += found[0]
        of_guide += found[1]
    return target, total, of_guide.to(guide.dtype)


class BilateralGrid(Function):
    """`transform`, differentiable in images, grids and the guide's numbers."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor, guide: Tensor) -> Tensor:
        """The transformed and clipped images."""
        ctx.save_for_backward(image, grid, guide)
        return transform(image, grid, guide)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Gradients of images, grids and numbers."""
        image, grid, guide = ctx.saved_tensors
        return transform_backward(image, grid, guide, grad, ctx.needs_input_grad[0])


def bilateral_grid(image: Image, grid: Packed, guide: GuideNumbers) -> Image:
    """The images after their grids, clipped to [0, 1], differentiable."""
    found: Tensor = BilateralGrid.apply(image, grid, guide)  # type: ignore[no-untyped-call]
    return found

"""Modules by compiled kernels, differentiable in the image and in the kernel's numbers.

Each `torch.autograd.Function` here keeps its inputs and little else; its backward kernel computes the rest again, with
the clip to [0, 1], in the one pass over the memory that it needs anyway. PyTorch turns a module's parameters into its
kernel's numbers (2^EV, a matrix divided by its row sums), since these are a few values an image.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from adaptiveisp.kernels import backward
from adaptiveisp.kernels.non_local_means import nlm_backward, nlm_forward
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel


class Pointwise(Function):
    """One operation of `forward.chain`; each image has its own numbers."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, numbers: Tensor, name: str) -> Tensor:
        """The clipped images."""
        ctx.save_for_backward(image, numbers)
        ctx.name = name
        return backward.pointwise(image, name, numbers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """Gradients of images and numbers."""
        image, numbers = ctx.saved_tensors
        of_image = ctx.needs_input_grad[0]
        return *backward.pointwise_backward(image, ctx.name, numbers, grad, of_image), None


class Sharpen(Function):
    """`isp.modules.sharpen`: images, and one column with the factor of each."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, numbers: Tensor) -> Tensor:
        """The sharpened images."""
        ctx.save_for_backward(image, numbers)
        return backward.sharpen(image, numbers[:, 0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        """Gradients of images and factors."""
        image, numbers = ctx.saved_tensors
        found = backward.sharpen_backward(image, numbers[:, 0], grad, ctx.needs_input_grad[0])
        return found[0], found[1][:, None]


class GuidedDenoise(Function):
    """`isp.modules.guided_denoise`: images, columns with the ridge and the amount of each, the side of a cell."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, numbers: Tensor, cell: int) -> Tensor:
        """The filtered images."""
        cells, coarse = backward.filter_planes(image, cell, numbers[:, 0])
        ctx.save_for_backward(image, numbers, cells, coarse)
        ctx.cell = cell
        return backward.guided(image, coarse, cell, numbers[:, 1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Gradients of images and numbers."""
        image, numbers, cells, coarse = ctx.saved_tensors
        ridge, amount = numbers[:, 0], numbers[:, 1]
        found = backward.guided_backward(image, coarse, ctx.cell, amount, grad, ctx.needs_input_grad[0], True)
        grad_image, grad_coarse, grad_amount = found
        assert grad_coarse is not None
        grad_ridge = backward.filter_planes_backward(image, cells, ctx.cell, ridge, grad_coarse, grad_image)
        return grad_image, torch.stack([grad_ridge, grad_amount], dim=1), None


class LocalTone(Function):
    """`isp.modules.local_tone`: images, columns with shadows and highlights of each, side of a cell, ridge.

    Its planes are those of luminance: the three colours' planes, weighted by LUMA.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, stops: Tensor, cell: int, ridge: float) -> Tensor:
        """The images with their tones changed."""
        ridges = image.new_full((len(image),), ridge)
        cells, both = backward.filter_planes(image, cell, ridges)
        coarse = base_planes(both)
        ctx.save_for_backward(image, stops, cells, coarse, ridges)
        ctx.cell = cell
        return backward.local_tone(image, coarse, cell, stops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Gradients of images and stops."""
        image, stops, cells, coarse, ridges = ctx.saved_tensors
        of_image = ctx.needs_input_grad[0]
        grad_image, grad_coarse, found = backward.local_tone_backward(image, coarse, ctx.cell, stops, grad, of_image)
        if grad_coarse is not None:
            weights = grad_coarse.new_tensor(LUMA)[None, None, :, None, None]
            both = (grad_coarse[:, :, None] * weights).flatten(1, 2)
            backward.filter_planes_backward(image, cells, ctx.cell, ridges, both, grad_image)
        return grad_image, found, None, None


class NonLocalMeans(Function):
    """`isp.modules.denoise` before the clip: images, a column with the strength h of each, the search window."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, numbers: Tensor, search_radius: int, search_step: int) -> Tensor:
        """The filtered images."""
        strength = numbers[:, :, None]
        output, total = nlm_forward(image, strength, 0.0, search_radius, search_step)
        ctx.save_for_backward(image, strength, output, total)
        ctx.window = search_radius, search_step
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Gradients of images and strengths."""
        image, strength, output, total = ctx.saved_tensors
        of_image = ctx.needs_input_grad[0]
        found = nlm_backward(image, strength, output, total, grad, of_image, *ctx.window)
        grad_image, grad_strength = found
        return grad_image, grad_strength[:, :, 0], None, None


def base_planes(planes: Float[Tensor, "batch 6 rows columns"]) -> Float[Tensor, "batch 2 rows columns"]:
    """Planes a and b of luminance filtered by itself, from the guided filter's planes of the three channels."""
    return torch.cat([weighted_channel(planes[:, :3], LUMA), weighted_channel(planes[:, 3:], LUMA)], dim=1)


def pointwise(image: Image, numbers: ParamTensor, name: str) -> Image:
    """The clipped images after the operation `name` of `forward.OPERATIONS`."""
    found: Tensor = Pointwise.apply(image, numbers, name)  # type: ignore[no-untyped-call]
    return found


def sharpen(image: Image, numbers: ParamTensor) -> Image:
    """The clipped images after sharpening; one column, the factor."""
    found: Tensor = Sharpen.apply(image, numbers)  # type: ignore[no-untyped-call]
    return found


def guided_denoise(image: Image, numbers: ParamTensor, cell: int) -> Image:
    """The clipped images after the guided filter; columns: ridge, amount."""
    found: Tensor = GuidedDenoise.apply(image, numbers, cell)  # type: ignore[no-untyped-call]
    return found


def local_tone(image: Image, numbers: ParamTensor, cell_of: Callable[[int, int], int], ridge: float) -> Image:
    """The clipped images after local tone mapping; columns: shadows, highlights, in stops."""
    cell = cell_of(image.shape[2], image.shape[3])
    found: Tensor = LocalTone.apply(image, numbers, cell, ridge)  # type: ignore[no-untyped-call]
    return found


def non_local_means(image: Image, numbers: ParamTensor, search_radius: int, search_step: int = 1) -> Image:
    """The clipped images after non-local means; one column, h above 0."""
    found: Tensor = NonLocalMeans.apply(image, numbers, search_radius, search_step)  # type: ignore[no-untyped-call]
    return found.clamp(0, 1) if found.requires_grad else found.clamp_(0, 1)

"""Modules by compiled kernels, differentiable in the image and in the parameters: forward and backward put together.

Each `torch.autograd.Function` here keeps what went in and little else; its backward kernel works out the rest again,
the clip to [0, 1] included, in the one pass over the memory that it needs anyway. What turns a module's parameters into
its kernel's numbers (2^EV, a matrix divided by its row sums) is a few numbers for each image: that stays in PyTorch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from adaptiveisp.kernels import backward as native_training
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel


class Pointwise(Function):
    """One operation of `native.chain`, each image with its own numbers."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, constants: Tensor, name: str) -> Tensor:
        """The clipped images."""
        ctx.save_for_backward(image, constants)
        ctx.name = name
        return native_training.pointwise(image, name, constants)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        """Gradients of images and numbers."""
        image, constants = ctx.saved_tensors
        of_image = ctx.needs_input_grad[0]
        return *native_training.pointwise_backward(image, ctx.name, constants, grad, of_image), None


class Sharpen(Function):
    """See `isp.sharpen`: images, and the factor of each."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, factor: Tensor) -> Tensor:
        """The sharpened images."""
        ctx.save_for_backward(image, factor)
        return native_training.sharpen(image, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        """Gradients of images and factors."""
        image, factor = ctx.saved_tensors
        return native_training.sharpen_backward(image, factor, grad, ctx.needs_input_grad[0])


class GuidedDenoise(Function):
    """See `isp.guided_denoise`: images, the ridge and the amount of each, the side of a cell."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, ridge: Tensor, amount: Tensor, cell: int) -> Tensor:
        """The filtered images."""
        cells, coarse = native_training.filter_planes(image, cell, ridge)
        ctx.save_for_backward(image, ridge, amount, cells, coarse)
        ctx.cell = cell
        return native_training.guided(image, coarse, cell, amount)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor, None]:
        """Gradients of images, ridges and amounts."""
        image, ridge, amount, cells, coarse = ctx.saved_tensors
        of_image, of_ridge = ctx.needs_input_grad[:2]
        found = native_training.guided_backward(image, coarse, ctx.cell, amount, grad, of_image, of_image or of_ridge)
        grad_image, down, grad_amount = found
        if down is None:
            return grad_image, None, grad_amount, None
        grad_ridge = native_training.filter_planes_backward(image, cells, ctx.cell, ridge, down, grad_image)
        return grad_image, grad_ridge, grad_amount, None


class LocalTone(Function):
    """See `isp.local_tone`: images, shadows and highlights of each, the side of a cell, the ridge.

    Its planes are those of luminance: the three colours' planes, weighted by LUMA.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, stops: Tensor, cell: int, ridge: float) -> Tensor:
        """The images with their tones changed."""
        ridges = image.new_full((len(image),), ridge)
        cells, both = native_training.filter_planes(image, cell, ridges)
        coarse = torch.cat([weighted_channel(both[:, :3], LUMA), weighted_channel(both[:, 3:], LUMA)], dim=1)
        ctx.save_for_backward(image, stops, cells, coarse, ridges)
        ctx.cell = cell
        return native_training.local_tone(image, coarse, cell, stops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Gradients of images and stops."""
        image, stops, cells, coarse, ridges = ctx.saved_tensors
        of_image = ctx.needs_input_grad[0]
        grad_image, down, found = native_training.local_tone_backward(image, coarse, ctx.cell, stops, grad, of_image)
        if down is not None:
            weights = down.new_tensor(LUMA)[None, None, :, None, None]
            both = (down[:, :, None] * weights).flatten(1, 2)
            native_training.filter_planes_backward(image, cells, ctx.cell, ridges, both, grad_image)
        return grad_image, found, None, None


def pointwise(
    image: Image, params: ParamTensor, name: str, constants: Callable[[ParamTensor], Tensor] | None = None
) -> Image:
    """The clipped image of a pointwise module.

    Args:
        image, params: as for `IspModule`; float32 on the CPU.
        name: of `native.OPERATIONS`.
        constants: parameters → the operation's numbers, one row per image, differentiable; None takes the parameters
            as they are.
    """
    numbers = params if constants is None else constants(params)
    found: Tensor = Pointwise.apply(image, numbers, name)  # type: ignore[no-untyped-call]
    return found

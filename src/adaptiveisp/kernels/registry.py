"""The registry of compiled kernels, and the one place where the package asks for them.

`find` returns a kernel by name where it can work on the given tensors, and None where PyTorch has to compute. A module
declares by a `KernelCall` which kernel computes its function and with which numbers; it calls no kernel itself. The
reference is the PyTorch function: a kernel gives the same values to 1e-5 and the same gradients to 1e-4 of the largest.

Gradients come from `torch.autograd.Function`. Registering the kernels by `torch.library.custom_op` was tried and
measured: it passed `opcheck`, but added 2 s to the import and a fifth to the time of a module on an image of 416x416.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.kernels import autograd, bilateral_grid, forward, non_local_means, observation, synthesis, unpacking
from adaptiveisp.kernels.loading import available, takes
from adaptiveisp.types import Image, ParamTensor

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "demosaic": forward.demosaic,
    "pool": forward.pool,
    "laplacian": forward.laplacian,
    "pool_and_laplacian": observation.scan,
    "unclipped": observation.unclipped,
    "below_limit": observation.below_limit,
    "light": observation.light,
    "encode": observation.Encoder.__call__,
    "unprocess": synthesis.unprocess,
    "add_noise": synthesis.add_noise,
    "resize": synthesis.resize,
    "develop_small": synthesis.develop_small,
    "unpack": unpacking.unpack,
}
"""Kernels without a gradient, by name."""


def find(name: str, *tensors: Tensor) -> Callable[..., Any] | None:
    """The kernel of this name, or None where it cannot work on these tensors.

    It works on float32 tensors on the CPU that need no gradient, if the kernels are compiled and not turned off.

    Args:
        name: of a kernel without a gradient.
        tensors: the float32 tensors that the kernel is to read; with none, the answer says whether there are kernels.

    Raises:
        KeyError: there is no kernel of this name.
    """
    kernel = _FUNCTIONS[name]
    return kernel if takes(*tensors) and not any(tensor.requires_grad for tensor in tensors) else None


_DIFFERENTIABLE: dict[str, Callable[..., Any]] = {"bilateral_grid": bilateral_grid.bilateral_grid}
"""Kernels with a gradient that compute no module alone, by name."""


def differentiable(name: str, *tensors: Tensor) -> Callable[..., Any] | None:
    """The kernel of this name, which is differentiable, or None where it cannot work on these tensors.

    Raises:
        KeyError: there is no kernel of this name.
    """
    kernel = _DIFFERENTIABLE[name]
    return kernel if takes(*tensors) and all(tensor.numel() for tensor in tensors) else None


@dataclass(frozen=True)
class ModuleKernel:
    """A kernel that computes a module.

    Attributes:
        differentiable: (images, numbers, **options) → clipped images, differentiable in both; None where there is none.
        write: (image, numbers, target, **options) writes the clipped image into the target; None where `differentiable`
            does that too.
        in_chain: whether it is an operation of `forward.chain`, which runs consecutive operations in one pass.
    """

    differentiable: Callable[..., Image] | None
    write: Callable[..., None] | None = None
    in_chain: bool = False


def _write_sharpen(image: Tensor, numbers: Sequence[float], target: Tensor) -> None:
    forward.sharpen(image, numbers[0], target)


def _write_non_local_means(image: Tensor, numbers: Sequence[float], target: Tensor, epsilon: float) -> None:
    strength = torch.tensor(numbers, dtype=torch.float32).reshape(1, 1, 1)
    torch.clamp(non_local_means.nlm_forward(image[None], strength, epsilon)[0][0], 0, 1, out=target)


def _write_guided(image: Tensor, numbers: Sequence[float], target: Tensor, cell: int) -> None:
    ridge, amount = numbers
    forward.guided(image, forward.coefficients(forward.moments(image, cell), ridge), cell, amount, target)


def _write_local_tone(
    image: Tensor, numbers: Sequence[float], target: Tensor, cell_of: Callable[[int, int], int], ridge: float
) -> None:
    cell = cell_of(image.shape[1], image.shape[2])
    planes = forward.coefficients(forward.moments(image, cell), ridge)[None]
    shadows, highlights = numbers
    forward.local_tone(image, autograd.base_planes(planes)[0].contiguous(), cell, shadows, highlights, target)


def _write_gray_world(
    image: Tensor, numbers: Sequence[float], target: Tensor, gains: Callable[[Tensor, Tensor], Tensor], side: int
) -> None:
    found = gains(forward.pool(image[None], side), torch.tensor([numbers[0]]))[0].tolist()
    forward.chain(image, [("scale", found)], target)


MODULE_KERNELS: Mapping[str, ModuleKernel] = {
    **{name: ModuleKernel(partial(autograd.pointwise, name=name), in_chain=True) for name in forward.OPERATIONS},
    "sharpen": ModuleKernel(autograd.sharpen, _write_sharpen),
    "guided_denoise": ModuleKernel(autograd.guided_denoise, _write_guided),
    "local_tone": ModuleKernel(autograd.local_tone, _write_local_tone),
    "gray_world": ModuleKernel(None, _write_gray_world),
    "non_local_means": ModuleKernel(autograd.non_local_means),
    "non_local_means_epsilon": ModuleKernel(None, _write_non_local_means),
}
"""Kernels that modules may declare, by name."""


def _as_they_are(params: Any) -> Any:
    """The parameters themselves, for a kernel whose numbers they are."""
    return params


@dataclass(frozen=True)
class KernelCall:
    """How a kernel computes a module.

    Attributes:
        name: of `MODULE_KERNELS`.
        numbers: parameters of one image in order → the kernel's numbers.
        batch_numbers: the same for a batch, one row an image, differentiable.
        options: keyword arguments of the kernel that depend on no parameter.

    Raises:
        ValueError: there is no kernel of this name.
    """

    name: str
    numbers: Callable[[Sequence[float]], Sequence[float]] = _as_they_are
    batch_numbers: Callable[[ParamTensor], Tensor] = _as_they_are
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in MODULE_KERNELS:
            raise ValueError(f"there is no kernel {self.name!r}; choose one of {', '.join(MODULE_KERNELS)}")

    @property
    def in_chain(self) -> bool:
        """Whether it can share a pass over the image with its neighbours, see `run_chain`."""
        return MODULE_KERNELS[self.name].in_chain

    @property
    def writes(self) -> bool:
        """Whether `run` serves it."""
        return MODULE_KERNELS[self.name].write is not None


def apply(call: KernelCall | None, image: Image, params: ParamTensor) -> Image | None:
    """The clipped images of a module, differentiable; None where PyTorch has to compute them.

    Args:
        call: the module's, None where it has none.
        image: RGB in [0, 1].
        params: one row an image.
    """
    if call is None or not image.numel() or not takes(image, params):
        return None
    kernel = MODULE_KERNELS[call.name].differentiable
    return None if kernel is None else kernel(image, call.batch_numbers(params), **call.options)


def run_chain(image: Tensor, calls: Sequence[tuple[KernelCall, Sequence[float]]], target: Tensor) -> None:
    """Writes the image after consecutive pointwise modules into `target`, in one pass over the memory.

    Args:
        image: (3, height, width), contiguous.
        calls: kernels with `in_chain`, each with its module's parameters in order.
        target: of the image's shape; it may be the image itself.
    """
    forward.chain(image, [(call.name, call.numbers(params)) for call, params in calls], target)


def run(call: KernelCall, image: Tensor, params: Sequence[float], target: Tensor) -> None:
    """Writes the clipped image of one module into `target`; for kernels with `writes`.

    Args:
        call: the module's.
        image: (3, height, width), contiguous.
        params: the module's parameters in order.
        target: of the image's shape, without shared memory.
    """
    write = MODULE_KERNELS[call.name].write
    if write is None:
        raise ValueError(f"the kernel {call.name} does not write into a target")
    write(image, call.numbers(params), target, **call.options)


__all__ = ["MODULE_KERNELS", "KernelCall", "ModuleKernel", "apply", "available", "find", "run", "run_chain", "takes"]

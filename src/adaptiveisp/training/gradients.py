"""The detector's loss while training, its gradient, and optimiser steps; shared by the methods."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from adaptiveisp.training.clock import Clock
from adaptiveisp.training.distributed import ALONE, Ranks
from adaptiveisp.types import Detector, Image, Targets

Precision = Literal["float32", "bfloat16", "auto"]
"""Precision of the detector's network while training."""


@cache
def has_fast_bfloat16(device_type: str) -> bool:
    """Whether this machine multiplies bfloat16 faster than float32.

    Processors that have no bfloat16 emulate it: a backward pass of YOLOv3-tiny took 10 s instead of 0.6 s on an AMD
    EPYC (Zen 3). Those with AMX take half the time of float32. With bfloat16 in the vector units alone (avx512_bf16)
    forward and backward took 1.46 times the time of float32, on a Xeon without AMX. Nothing is timed here, because a
    resumed run has to take the precision that it began with. That of ARM (bf16) was not measured.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name, False) for name in ("amx_bf16", "bf16"))


def detector_loss(
    detector: Detector, image: Image, targets: list[Targets], precision: Precision
) -> Float[Tensor, " batch"]:
    """The detector's loss of each image, in float32 for every precision of its network, in float64 for such images.

    Args:
        detector: the frozen detector.
        image, targets: as it takes them.
        precision: of its network and its gradients. "bfloat16" takes half the time of "float32" on devices with
            matrix units for it and ten times as long on others; "auto" uses it on the former.
    """
    half = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16(image.device.type))
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        loss = detector.loss(image, targets)
    return loss.to(torch.float64 if image.dtype == torch.float64 else torch.float32)


def differentiated_loss(
    detector: Detector, image: Image, targets: list[Targets], precision: Precision, clock: Clock
) -> Float[Tensor, " batch"]:
    """`detector_loss` with its gradient for the image computed immediately, which frees the detector's graph.

    Args:
        detector, image, targets, precision: as for `detector_loss`.
        clock: measures forward and backward pass separately.
    """
    leaf = image.detach().requires_grad_()
    losses = detector_loss(detector, leaf, targets, precision)
    clock.lap("detector forward")
    if losses.requires_grad:  # an image's loss depends on no other image, so the sum gives each image its gradient
        (gradient,) = torch.autograd.grad(losses.sum(), leaf, materialize_grads=True)
    else:
        gradient = torch.zeros_like(leaf)
    clock.lap("detector backward")
    attached: Tensor = _Attached.apply(image, losses.detach(), gradient)  # type: ignore[no-untyped-call]
    return attached


def finite_images(image: Image) -> Bool[Tensor, " batch"]:
    """Whether the sum of each image's values is finite, which also excludes values so large that the sum overflows.

    The sum takes a thirtieth of the time that a test of each value takes.
    """
    return image.detach().flatten(1).sum(dim=1).isfinite()


class _Attached(torch.autograd.Function):
    """Connects losses to images by a gradient that was computed before."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return losses.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return weight[:, None, None, None] * gradient, None, None


def optimiser_step(
    parts: Mapping[str, Sequence[nn.Parameter]],
    optimiser: torch.optim.Optimizer,
    loss: torch.Tensor,
    scale: float,
    limit: float | None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Does one optimiser step on some parameters and returns the gradient norm of each part before clipping.

    If a norm is not finite, the step is skipped.

    Args:
        parts: parameters by the name of their part; each part is clipped separately.
        optimiser: of these parameters; each of its groups has its initial rate under "start".
        loss: differentiated for these parameters only; its graph is freed.
        scale: factor on the initial rate of each group.
        limit: largest norm of a part's gradient; None for no limit.
        ranks: of the run; all take the gradients of the first one, so that their weights stay the same bit by bit.
    """
    parameters = [parameter for part in parts.values() for parameter in part]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    if not ranks.alone:
        same = iter(ranks.same(*(gradient for gradient in gradients if gradient is not None)))
        gradients = tuple(None if gradient is None else next(same) for gradient in gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norms = {}
    for name, part in parts.items():
        norm = nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])
        if limit is not None:
            nn.utils.clip_grads_with_norm_(part, limit, norm)
        norms[name] = float(norm)
    if all(math.isfinite(norm) for norm in norms.values()):
        for group in optimiser.param_groups:
            group["lr"] = group["start"] * scale
        optimiser.step()
    return norms

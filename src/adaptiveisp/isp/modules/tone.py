"""Tone: a piecewise linear curve of eight slopes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

SEGMENTS = 8


def tone(image: Image, params: ParamTensor) -> Image:
    """(8/Σt) Σ_i clip(x - i/8, 0, 1/8)·t_i: eight slopes over equal pieces of [0, 1], scaled so that 1 stays 1.

    One look-up of the piece that a value lies in gives where the piece begins and its slope.

    Args:
        image: RGB in [0, 1].
        params: the eight slopes before scaling, dark to bright.

    Source: Hu et al. 2018 (Exposure), section 4. Differs: exactly on a corner between two pieces the derivative is
    the upper slope, in the original the sum of both.
    """
    slopes = params * (SEGMENTS / params.sum(dim=1, keepdim=True))
    begins = torch.cat([torch.zeros_like(slopes[:, :1]), slopes.cumsum(dim=1)[:, :-1] / SEGMENTS], dim=1)
    values = image.flatten(1)
    piece = (values.detach() * SEGMENTS).long().clamp_(0, SEGMENTS - 1)
    along = values - piece.to(values.dtype) / SEGMENTS
    return (begins.gather(1, piece) + slopes.gather(1, piece) * along).view_as(image)


def numbers(params: Sequence[float]) -> list[float]:
    """The kernel's sum of hinges, one where each piece begins: the differences between neighbouring slopes."""
    slopes = [slope * SEGMENTS / sum(params) for slope in params]
    return [after - before for before, after in zip((0.0, *slopes), slopes, strict=False)]


def batch_numbers(params: ParamTensor) -> Tensor:
    """The same of each image."""
    slopes = params * (SEGMENTS / params.sum(dim=1, keepdim=True))
    return slopes.diff(dim=1, prepend=torch.zeros_like(slopes[:, :1]))


PAPER = IspModule(
    "tone",
    "T",
    tuple(Param(f"t{i}", 0.5, 2.0, "", 1.0) for i in range(SEGMENTS)),
    tone,
    2.7,
    source="Hu et al. 2018 (Exposure)",
    effect="Shapes the brightness curve freely, by the slopes of eight pieces from dark to bright.",
    pointwise=True,
    kernel=KernelCall("curve", numbers, batch_numbers),
)

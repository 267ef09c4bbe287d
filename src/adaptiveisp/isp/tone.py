"""Tone: a piecewise linear curve of eight slopes."""

from collections.abc import Sequence

import torch

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.native import Operation
from adaptiveisp.types import Image, ParamTensor

SEGMENTS = 8


def tone(image: Image, params: ParamTensor) -> Image:
    """(8/Σt) Σ_i clip(x - i/8, 0, 1/8)·t_i: eight slopes over equal pieces of [0, 1], scaled so that 1 stays 1.

    Args:
        image: RGB in [0, 1].
        params: the eight slopes before scaling, dark to bright.

    Source: Hu et al. 2018 (Exposure), section 4.
    """
    slopes = params[:, :, None, None, None]
    curve = torch.zeros_like(image)
    for i in range(SEGMENTS):
        curve = curve + (image - i / SEGMENTS).clamp(0, 1 / SEGMENTS) * slopes[:, i]
    return curve * (SEGMENTS / params.sum(dim=1))[:, None, None, None]


def operation(params: Sequence[float]) -> Operation:
    """The same for `native.chain`: a sum of hinges, one where each piece begins."""
    slopes = [slope * SEGMENTS / sum(params) for slope in params]
    return "curve", [after - before for before, after in zip((0.0, *slopes), slopes, strict=False)]


PAPER = IspModule(
    "tone",
    "T",
    tuple(Param(f"t{i}", 0.5, 2.0, "", 1.0) for i in range(SEGMENTS)),
    tone,
    2.7,
    source="Hu et al. 2018 (Exposure)",
    pointwise=True,
    operation=operation,
)

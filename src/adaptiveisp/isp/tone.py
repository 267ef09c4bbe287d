"""Tone: a piecewise linear curve of eight slopes."""

import torch

from adaptiveisp.isp.module import IspModule, Param
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


PAPER = IspModule(
    "tone",
    "T",
    tuple(Param(f"t{i}", 0.5, 2.0, "", 1.0) for i in range(SEGMENTS)),
    tone,
    2.7,
    source="Hu et al. 2018 (Exposure)",
)

"""The ten modules as POS-ISP has them: the set `pos-isp`, whose parameters are linear in the networks' outputs.

Sharpen, ccm, tone, denoise and saturation clip to [0, 1]; nothing else does, so that values above 1 travel on to the
next module. Modules without a function here compute what the paper's do.

Source: Won et al. 2026 (POS-ISP), its released code.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.isp.modules import (
    ccm,
    contrast,
    denoise,
    desaturation,
    exposure,
    gamma,
    pos_isp_denoise,
    saturation,
    sharpen,
    tone,
    white_balance,
)
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA

GAMMA_FLOOR = 1e-6
SUM_EPSILON = 1e-8
"""Added to the sum of a row of the ccm."""
CHROMA_EPSILON = 1e-8
"""Added to the value and to the chroma that saturation divides by."""
GAINS_EPSILON = 1e-6
"""Added to the luminance that the gains of white balance are divided by."""
MOST_GAIN = 1.1
LEAST = 1e-5
"""Least factor of sharpen and least strength of denoise."""


def matrix(params: ParamTensor) -> Tensor:
    """The nine entries of each image's M, row-major: the parameters over (the sum of their row + 1e-8)."""
    entries = params.reshape(-1, 3, 3)
    return (entries / (entries.sum(dim=2, keepdim=True) + SUM_EPSILON)).flatten(1)


def matrix_numbers(params: Sequence[float]) -> list[float]:
    """The nine entries of M for the kernel."""
    entries: list[float] = matrix(torch.tensor([list(params)]))[0].tolist()
    return entries


def clipped_ccm(image: Image, params: ParamTensor) -> Image:
    """clip(Σ_j M_ij x_j, 0, 1), where M is the entries over (their row sum + 1e-8).

    Args:
        image: RGB; it may exceed 1.
        params: the nine entries before the division, row-major.
    """
    return torch.einsum("bij,bjhw->bihw", matrix(params).reshape(-1, 3, 3), image).clamp(0, 1)


def clipped_tone(image: Image, params: ParamTensor) -> Image:
    """The curve of `tone` for the clipped image: every piece of the curve is clipped, so that 1 is its largest value.

    Args:
        image: RGB; it may exceed 1.
        params: the eight slopes before scaling, dark to bright.
    """
    return tone.tone(image.clamp(0, 1), params)


def hue_saturation(image: Image, params: ParamTensor) -> Image:
    """lerp(x, x', a) of the clipped image, where x' has HSV saturation s' = s + (1-s)(0.5-|0.5-v|)·0.8.

    Saturation is s = c/(v + 1e-8), and hue is computed in sixths with c + 1e-8 as divisor. An exactly grey pixel has
    hue 0 and therefore turns red.

    Args:
        image: RGB; it is clipped to [0, 1].
        params: column 0: a, dimensionless.
    """
    image = image.clamp(0, 1)
    red, green, blue = image.unbind(dim=1)
    value, chroma = image.amax(dim=1), image.amax(dim=1) - image.amin(dim=1)
    divisor = chroma + CHROMA_EPSILON
    from_red = torch.remainder((green - blue) / divisor, 6)
    from_green, from_blue = 2 + (blue - red) / divisor, 4 + (red - green) / divisor
    hue = torch.where(value == red, from_red, torch.where(value == green, from_green, from_blue))
    s = chroma / (value + CHROMA_EPSILON)
    raised = s + (1 - s) * (0.5 - (0.5 - value).abs()) * saturation.STRENGTH
    made = []
    for sixth in (5, 3, 1):  # HSV to RGB without cases: v - v·s'·clip(min(k, 4-k), 0, 1), k = (n + hue) mod 6
        k = torch.remainder(sixth + hue, 6)
        made.append(value - value * raised * torch.minimum(k, 4 - k).clamp(0, 1))
    amount = params[:, 0][:, None, None, None]
    return image + amount * (torch.stack(made, dim=1) - image)


def balanced(image: Image, params: ParamTensor) -> Image:
    """The channels times their gains over (1e-6 + the luminance that the gains give to white).

    Args:
        image: RGB; it may exceed 1.
        params: gains of red, green, blue before the division, dimensionless.
    """
    red, green, blue = params.unbind(dim=1)
    luminance = GAINS_EPSILON + LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return image * (params / luminance[:, None])[:, :, None, None]


def _linear(module: IspModule, *params: Param) -> IspModule:
    """The module with these parameters, or its own with the scale "linear"; nothing clips its result any more."""
    own = params or tuple(replace(param, scale="linear") for param in module.params)
    return replace(module, params=own, head=None, inverse=None, clips=False, kernel=None)


MODULES = (
    _linear(exposure.PAPER),
    replace(_linear(gamma.PAPER), function=partial(gamma.gamma, floor=GAMMA_FLOOR)),
    replace(ccm.PAPER, function=clipped_ccm, kernel=KernelCall("matrix", matrix_numbers, matrix)),
    replace(sharpen.PAPER, params=(Param("factor", LEAST, 10.0, "", 1.0),)),
    replace(
        denoise.PAPER,
        params=(Param("h", LEAST, 1.0, "", LEAST),),
        function=pos_isp_denoise.denoise,
        kernel=KernelCall(
            "non_local_means_epsilon",
            pos_isp_denoise.strength,
            options={"epsilon": pos_isp_denoise.ROOT_EPSILON},
        ),
    ),
    replace(tone.PAPER, function=clipped_tone),
    _linear(contrast.PAPER),
    replace(_linear(saturation.PAPER), function=hue_saturation),
    _linear(desaturation.PAPER),
    replace(
        _linear(
            white_balance.PAPER,
            *(Param(name, 1 / MOST_GAIN, MOST_GAIN, "", 1.0) for name in ("red", "green", "blue")),
        ),
        function=balanced,
    ),
)
"""The set, in the order of the action ids."""

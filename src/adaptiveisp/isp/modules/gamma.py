"""Gamma: y = max(x, floor)^γ."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

PAPER_FLOOR = 0.001
"""Values below are flattened in the paper's gamma, half the pixels of a dark raw."""

WIDE_FLOOR = 1e-5
"""Below 1/16 of the least step of a 12-bit raw (1.5e-5), so that no two values a sensor tells apart become one."""


def gamma(image: Image, params: ParamTensor, floor: float = PAPER_FLOOR) -> Image:
    """The power curve y = max(x, floor)^γ; γ < 1 brightens.

    Args:
        image: RGB in [0, 1].
        params: column 0: γ, dimensionless.
        floor: smaller values are raised to it, which bounds the slope.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    return image.clamp(min=floor).pow(params[:, 0][:, None, None, None])


def numbers(params: Sequence[float], floor: float) -> tuple[float, float]:
    """Exponent and least value for the kernel."""
    return params[0], floor


def batch_numbers(params: ParamTensor, floor: float) -> Tensor:
    """Exponent and least value of each image for the kernel."""
    return torch.cat([params, torch.full_like(params, floor)], dim=1)


def make_gamma(floor: float) -> IspModule:
    """Gamma with γ in [1/3, 3] on values of at least `floor`."""
    exponent = Param("gamma", 1 / 3, 3.0, "", 1.0, "log")
    return IspModule(
        "gamma",
        "G",
        (exponent,),
        partial(gamma, floor=floor),
        2.0,
        source="Hu et al. 2018",
        effect="Lifts shadows and mid-tones (below 1) or deepens them (above 1); black and white stay where they are.",
        pointwise=True,
        kernel=KernelCall("power", partial(numbers, floor=floor), partial(batch_numbers, floor=floor)),
    )


PAPER = make_gamma(PAPER_FLOOR)
WIDE = make_gamma(WIDE_FLOOR)

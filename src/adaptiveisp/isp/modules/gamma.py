"""Gamma: y = max(x, floor)^γ."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from adaptiveisp.isp.differentiable import pointwise
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.forward import Operation
from adaptiveisp.types import Image, ParamTensor

PAPER_FLOOR = 0.001
"""Values below are flattened in the paper's gamma, half the pixels of a dark raw."""

WIDE_FLOOR = 1e-5
"""1/16 of the least step of a 12-bit raw is 1.5e-5: nothing a sensor tells apart is flattened."""


def gamma(image: Image, params: ParamTensor, floor: float = PAPER_FLOOR) -> Image:
    """The power curve y = max(x, floor)^γ; γ < 1 brightens.

    Args:
        image: RGB in [0, 1].
        params: column 0: γ, dimensionless.
        floor: least value the power sees, which bounds its slope.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    return image.clamp(min=floor).pow(params[:, 0][:, None, None, None])


def operation(params: Sequence[float], floor: float) -> Operation:
    """The same for `native.chain`."""
    return "power", (params[0], floor)


def constants(params: ParamTensor, floor: float) -> Tensor:
    """The operation's numbers."""
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
        pointwise=True,
        operation=partial(operation, floor=floor),
        differentiable=partial(pointwise, name="power", constants=partial(constants, floor=floor)),
    )


PAPER = make_gamma(PAPER_FLOOR)
WIDE = make_gamma(WIDE_FLOOR)

"""White balance: one gain a channel, luminance kept."""

import math
from collections.abc import Mapping
from functools import partial

import torch

from adaptiveisp.isp.module import IspModule, Logits, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA

EPSILON = 1e-5
MOST = 0.96
"""Share of the limit that `balance_inverse` goes to at most: beyond, tanh has no slope to learn by."""


def white_balance(image: Image, params: ParamTensor) -> Image:
    """The channels times their gains.

    Args:
        image: linear RGB in [0, 1].
        params: gains of red, green, blue, dimensionless.

    Source: Hu et al. 2018 (Exposure), section 4.
    """
    return image * params[:, :, None, None]


def balance_head(logits: Logits, limit: float) -> ParamTensor:
    """Gains exp(limit·tanh z), red's z replaced by 0, divided by the luminance (plus 1e-5) that they give to white.

    Args:
        logits: three unbounded numbers; the first is ignored.
        limit: greatest logarithm of a gain relative to red's.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    free = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1)
    gains = torch.exp(limit * torch.tanh(free))
    luminance = LUMA[0] * gains[:, 0] + LUMA[1] * gains[:, 1] + LUMA[2] * gains[:, 2]
    return gains / (EPSILON + luminance)[:, None]


def balance_inverse(params: Mapping[str, float], limit: float) -> list[float]:
    """The outputs for which `balance_head` gives these gains, as near as `limit` lets it; red's is 0."""
    reach = [math.log(params[name] / params["red"]) / limit for name in ("red", "green", "blue")]
    return [math.atanh(min(max(value, -MOST), MOST)) for value in reach]


def make_white_balance(limit: float) -> IspModule:
    """White balance whose gains relative to red lie in exp(±limit).

    Two gains may then differ by twice the limit and luminance-weighted means lie between them, which bounds the
    reported values by exp(±2·limit).
    """
    bound = math.exp(2 * limit)
    params = tuple(Param(name, 1 / bound, bound, "", 1.0, "log") for name in ("red", "green", "blue"))
    return IspModule(
        "white_balance",
        "W",
        params,
        white_balance,
        1.7,
        head=partial(balance_head, limit=limit),
        inverse=partial(balance_inverse, limit=limit),
        source="Hu et al. 2018",
        effect="Removes the colour cast of the light by scaling red, green and blue; brightness is kept.",
        colour_only=True,
        pointwise=True,
        kernel=KernelCall("scale"),
    )


PAPER = make_white_balance(0.5)
# Sensors need gains to 2.4 for red and 1.9 for blue in daylight (Brooks et al. 2019), more under a lamp; e^1.2 = 3.3.
WIDE = make_white_balance(1.2)

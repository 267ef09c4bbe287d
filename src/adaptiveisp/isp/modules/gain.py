"""Gain: one factor a channel, which is white balance and exposure in one."""

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

MOST_STOPS = 14.0
"""Ten stops of exposure and the largest gain of white balance, that of `wide`."""


def gain(image: Image, params: ParamTensor) -> Image:
    """The channels times their factors, as a sensor's digital gain.

    Args:
        image: linear RGB in [0, 1].
        params: factors of red, green, blue, dimensionless.

    Source: the product of `white_balance` and `exposure`.
    """
    return image * params[:, :, None, None]


# A helper and not one of the modules that policies choose from: a policy learns exposure and white balance faster if it
# sets them separately. It computes what white_balance computes, and so has its cost.
PAPER = IspModule(
    "gain",
    "Gn",
    tuple(Param(name, 2**-MOST_STOPS, 2**MOST_STOPS, "", 1.0, "log") for name in ("red", "green", "blue")),
    gain,
    1.7,
    source="product of white_balance and exposure",
    effect="Multiplies each channel by a factor of its own: exposure and white balance in one.",
    pointwise=True,
    kernel=KernelCall("scale"),
)

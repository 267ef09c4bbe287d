"""Gain: one factor a channel, which is white balance and exposure in one."""

from collections.abc import Sequence
from functools import partial

from adaptiveisp.isp.differentiable import pointwise
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.forward import Operation
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


def operation(params: Sequence[float]) -> Operation:
    """The same for `native.chain`."""
    return "scale", params


# A helper, since a policy that sets exposure and balance apart learns either sooner. It is the operation of
# white_balance, so that its cost is set to that one's.
PAPER = IspModule(
    "gain",
    "Gn",
    tuple(Param(name, 2**-MOST_STOPS, 2**MOST_STOPS, "", 1.0, "log") for name in ("red", "green", "blue")),
    gain,
    1.7,
    source="product of white_balance and exposure",
    pointwise=True,
    operation=operation,
    differentiable=partial(pointwise, name="scale"),
)

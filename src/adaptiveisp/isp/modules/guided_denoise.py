"""Guided denoise: noise of luminance and colour flattened between edges, at a fraction of non-local means' time."""

from collections.abc import Sequence

from torch import Tensor

from adaptiveisp.isp.differentiable import GuidedDenoise
from adaptiveisp.isp.guided_filter import LEAST, coefficients, moments, to_pixels
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels import forward as native
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel

CELL = 4
"""Pixels: windows are then 12x12, about those of non-local means."""


def guided_denoise(image: Image, params: ParamTensor) -> Image:
    """lerp(x, a·L + b, amount), a and b of the guided filter: what varies by less than `noise` becomes its mean.

    Args:
        image: RGB in [0, 1].
        params: column 0: noise, a standard deviation of luminance; column 1: amount in [0, 1].

    Source: He, Sun, Tang 2013, see `guided`.
    """
    noise, amount = params[:, 0][:, None, None, None], params[:, 1][:, None, None, None]
    coarse = coefficients(moments(image, CELL), noise.square())
    fine = to_pixels(coarse, CELL, image.shape[2], image.shape[3])
    smooth = fine[:, :3] * weighted_channel(image, LUMA) + fine[:, 3:]
    return image + amount * (smooth - image)


def fast(image: Tensor, params: Sequence[float], target: Tensor) -> None:
    """The same by the compiled kernels."""
    coarse = native.coefficients(native.moments(image, CELL), params[0] ** 2 + LEAST)
    native.guided(image, coarse, CELL, params[1], target)


def differentiable(image: Image, params: ParamTensor) -> Image:
    """The same by the compiled kernels, with their gradients."""
    ridge = params[:, 0].square() + LEAST
    filtered: Tensor = GuidedDenoise.apply(image, ridge, params[:, 1], CELL)  # type: ignore[no-untyped-call]
    return filtered


EXTENDED = IspModule(
    "guided_denoise",
    "GF",
    (Param("noise", 0.002, 0.3, "", 0.03, "log"), Param("amount", 0.0, 1.0, "", 0.0, "sigmoid")),
    guided_denoise,
    2.2,
    source="He et al. 2013",
    fast=fast,
    differentiable=differentiable,
)

"""Contrast: an S-curve of the luminance, blended in or out."""

import math

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel

EPSILON = 1e-6


def contrast(image: Image, params: ParamTensor) -> Image:
    """lerp(x, x·c/(L+1e-6), a) with c = 0.5 - 0.5·cos πL: more contrast for a > 0, less for a < 0.

    Args:
        image: RGB in [0, 1].
        params: column 0: a, dimensionless.

    Source: Hu et al. 2018 (Exposure), section 4.
    """
    amount = params[:, 0][:, None, None, None]
    luminance = weighted_channel(image, LUMA).clamp(0, 1)
    curve = 0.5 - 0.5 * (math.pi * luminance).cos()
    return image + amount * (image * (curve / (luminance + EPSILON)) - image)


PAPER = IspModule(
    "contrast",
    "Ct",
    (Param("amount", -1.0, 1.0, "", 0.0),),
    contrast,
    2.1,
    source="Hu et al. 2018",
    effect="Bends the tones into an S-curve, which separates mid-tones; a negative amount flattens them.",
    pointwise=True,
    kernel=KernelCall("contrast"),
)

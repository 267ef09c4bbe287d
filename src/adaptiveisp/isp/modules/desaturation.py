"""Desaturation: towards the luminance."""

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel


def desaturation(image: Image, params: ParamTensor) -> Image:
    """lerp(x, L, a): a = 1 is black and white.

    Args:
        image: RGB in [0, 1].
        params: column 0: a, dimensionless.

    Source: Hu et al. 2018 (Exposure), section 4.
    """
    amount = params[:, 0][:, None, None, None]
    return image + amount * (weighted_channel(image, LUMA) - image)


PAPER = IspModule(
    "desaturation",
    "BW",
    (Param("amount", 0.0, 1.0, "", 0.0, "sigmoid"),),
    desaturation,
    1.9,
    source="Hu et al. 2018",
    effect="Fades colours towards grey; the full amount gives black and white.",
    colour_only=True,
    pointwise=True,
    kernel=KernelCall("desaturation"),
)

"""Saturation: HSV saturation raised most at half value; hue and value kept."""

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

STRENGTH = 0.8

BLACK = 1e-20
"""Values and chromas up to here count as 0: earlier modules produce such numbers, and dividing by them overflows."""

Plane = Float[Tensor, "batch 1 height width"]


def _value_and_saturations(image: Image) -> tuple[Plane, Plane, Plane]:
    """HSV value v, chroma v - min, and the raised saturation s' = s + (1-s)(0.5-|0.5-v|)·0.8."""
    value = image.amax(dim=1, keepdim=True)
    chroma = value - image.amin(dim=1, keepdim=True)
    lit = value > BLACK
    saturation = torch.where(lit, chroma / torch.where(lit, value, 1), 0)
    raised = saturation + (1 - saturation) * (0.5 - (0.5 - value).abs()) * STRENGTH
    return value, chroma, raised


def saturation(image: Image, params: ParamTensor) -> Image:
    """lerp(x, x', a): x' has HSV saturation s' = s + (1-s)(0.5-|0.5-v|)·0.8; grey stays grey.

    With hue and v kept every channel is x'_c = v - (v - x_c)·s'/s, so no hue has to be computed.

    Args:
        image: RGB in [0, 1].
        params: column 0: a, dimensionless.

    Source: Hu et al. 2018 (Exposure), section 4. Differs: the original turns grey red, see
    `saturation_released`.
    """
    amount = params[:, 0][:, None, None, None]
    value, chroma, raised = _value_and_saturations(image)
    coloured = chroma > BLACK
    # v·s'/chroma is s'/s; chroma's own zero is replaced so that no gradient there is NaN.
    ratio = torch.where(coloured, value * raised / torch.where(coloured, chroma, 1), 1)
    return image + amount * ((value - image) * (1 - ratio))


def saturation_released(image: Image, params: ParamTensor) -> Image:
    """`saturation` with the fault of the original: an exactly grey pixel gets hue 0 and so turns red.

    Source: behaviour of the released code of Wang et al. 2024 (AdaptiveISP).
    """
    amount = params[:, 0][:, None, None, None]
    value, chroma, raised = _value_and_saturations(image)
    reddened = torch.cat([value, value * (1 - raised), value * (1 - raised)], dim=1)
    return torch.where(chroma > BLACK, saturation(image, params), image + amount * (reddened - image))


def make_saturation(released: bool) -> IspModule:
    """Saturation; `released` reproduces the original's red grey."""
    function = saturation_released if released else saturation
    amount = Param("amount", 0.0, 1.0, "", 0.0, "sigmoid")
    return IspModule(
        "saturation",
        "S+",
        (amount,),
        function,
        2.0,
        source="Hu et al. 2018",
        effect="Makes colours stronger, most of all at middle brightness.",
        colour_only=True,
        pointwise=True,
        kernel=None if released else KernelCall("saturation"),
    )


PAPER = make_saturation(released=False)
RELEASED = make_saturation(released=True)

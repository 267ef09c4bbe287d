"""Sharpen: extrapolation away from a 3x3 blur."""

import torch
import torch.nn.functional as F

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

CENTRE_WEIGHT = 5.0
"""The blur is 3x3 ones with this centre, divided by their sum, 13: PIL's SMOOTH filter."""


def detail(image: Image) -> Image:
    """The image minus its blur, see `smooth`; 0 on the 1-pixel border."""
    if min(image.shape[2:]) < 3:
        return torch.zeros_like(image)
    rows = image[:, :, :-2] + image[:, :, 1:-1] + image[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    return F.pad((9 * image[:, :, 1:-1, 1:-1] - total) / (8 + CENTRE_WEIGHT), (1, 1, 1, 1))


def smooth(image: Image) -> Image:
    """The image blurred by 3x3 ones with centre 5, over 13; the 1-pixel border is left as it is.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    return image - detail(image)


def sharpen(image: Image, params: ParamTensor) -> Image:
    """clip(f·x + (1-f)·smooth(x), 0, 1): f = 0 is the blur, 1 the image, above 1 sharper.

    Args:
        image: RGB in [0, 1].
        params: column 0: f, dimensionless.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    factor = params[:, 0][:, None, None, None]
    return (image + (factor - 1) * detail(image)).clamp(0, 1)


PAPER = IspModule(
    "sharpen",
    "Shr",
    (Param("factor", 0.0, 10.0, "", 1.0),),
    sharpen,
    6.3,
    source="Wang et al. 2024 (AdaptiveISP)",
    effect="Emphasises edges and texture (above 1) or softens them (below 1).",
    kernel=KernelCall("sharpen"),
)

"""Black level: an offset taken off (haze, flare, a wrong black level) or added, white kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor


def black_level(image: Image, params: ParamTensor) -> Image:
    """(x - offset) / (1 - offset): what was `offset` becomes black, 1 stays 1.

    Args:
        image: RGB in [0, 1].
        params: column 0: offset, in units of the white level.

    Source: Chavez 1988 (dark-object subtraction of haze).
    """
    offset = params[:, 0][:, None, None, None]
    return (image - offset) / (1 - offset)


def numbers(params: Sequence[float]) -> tuple[float, float]:
    """Offset and factor for the kernel."""
    return params[0], 1 / (1 - params[0])


def batch_numbers(params: ParamTensor) -> Tensor:
    """Offset and factor of each image for the kernel."""
    return torch.cat([params, 1 / (1 - params)], dim=1)


EXTENDED = IspModule(
    "black_level",
    "BL",
    (Param("offset", -0.1, 0.3, "", 0.0),),
    black_level,
    1.7,
    source="Chavez 1988",
    effect="Removes a grey veil (haze, flare, a black level set too low) or lifts the shadows; white stays white.",
    pointwise=True,
    kernel=KernelCall("affine", numbers, batch_numbers),
)

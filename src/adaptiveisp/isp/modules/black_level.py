"""Black level: an offset taken off (haze, flare, a wrong black level) or added, white kept."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from adaptiveisp.isp.differentiable import pointwise
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.forward import Operation
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


def operation(params: Sequence[float]) -> Operation:
    """The same for `native.chain`."""
    return "affine", (params[0], 1 / (1 - params[0]))


def constants(params: ParamTensor) -> Tensor:
    """The operation's numbers."""
    return torch.cat([params, 1 / (1 - params)], dim=1)


EXTENDED = IspModule(
    "black_level",
    "BL",
    (Param("offset", -0.1, 0.3, "", 0.0),),
    black_level,
    1.7,
    source="Chavez 1988",
    pointwise=True,
    operation=operation,
    differentiable=partial(pointwise, name="affine", constants=constants),
)

"""Gray world: white balance from the image's own mean colour, a starting point that needs no network."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel

SIDE = 64
"""Side of the pooled image over which the mean is taken."""
CLIPPED = 0.98
"""A cell with a channel above this is clipped and says nothing about the illuminant."""
LEAST_MEAN = 1e-4
MOST_GAIN = 8.0


def mean_colour(cells: Float[Tensor, "batch 3 rows columns"]) -> Float[Tensor, "batch 3"]:
    """Mean over the cells that are not clipped; over all where all are."""
    usable = (cells.detach().amax(dim=1, keepdim=True) < CLIPPED).to(cells.dtype)
    usable = torch.where(usable.sum(dim=(2, 3), keepdim=True) > 0, usable, 1)
    return (cells * usable).sum(dim=(2, 3)) / usable.sum(dim=(2, 3))


def gains(cells: Float[Tensor, "batch 3 rows columns"], amount: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3"]:
    """(mean luminance / mean of the channel)^amount, limited to 1/8 .. 8."""
    means = mean_colour(cells).clamp(min=LEAST_MEAN)
    luminance = weighted_channel(means[:, :, None, None], LUMA)[:, :, 0, 0]
    return (luminance / means).clamp(1 / MOST_GAIN, MOST_GAIN).pow(amount[:, None])


def gray_world(image: Image, params: ParamTensor) -> Image:
    """The channels times gains that make their mean grey (amount 1), or go part of the way (in logarithms).

    At amount 1 the mean luminance is kept.

    Args:
        image: linear RGB in [0, 1].
        params: column 0: amount in [0, 1].

    Source: Buchsbaum 1980.
    """
    return image * gains(F.adaptive_avg_pool2d(image, SIDE), params[:, 0])[:, :, None, None]


EXTENDED = IspModule(
    "gray_world",
    "GW",
    (Param("amount", 0.0, 1.0, "", 0.0, "sigmoid"),),
    gray_world,
    1.9,
    source="Buchsbaum 1980",
    effect="Removes a colour cast by making the average of the picture grey.",
    colour_only=True,
    kernel=KernelCall("gray_world", options={"gains": gains, "side": SIDE}),
)

"""The clean photo of a training image, made small: what its colours should be."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.data.random_crop import Crop, cut

SIDE = 64
"""Side of a reference in cells, as of the policies' observation."""

Reference = Float[Tensor, "3 64 64"]


def reference_of(pixels: UInt8[Tensor, "3 height width"], crop: Crop) -> Reference:
    """The crop of a photo averaged to 64x64 cells, as sRGB code values in [0, 1].

    The code values themselves are averaged, as are those of a rendered image that is compared with it.

    Args:
        pixels: sRGB code values, 0 to 255.
        crop: the part of the photo, as for the raw that is made of it.
    """
    return F.adaptive_avg_pool2d(cut(pixels, crop)[None] / 255, SIDE)[0]


def stacked_references(
    references: Sequence[Reference | None], repeats: int = 1
) -> Float[Tensor, "batch 3 64 64"] | None:
    """The references of a batch, each `repeats` times in succession.

    Args:
        references: of each image; None where it is unknown, which becomes NaN.
        repeats: number of rendered images of each.

    Returns:
        The references on the CPU; None if all are unknown.
    """
    if all(one is None for one in references):
        return None
    unknown = torch.full((3, SIDE, SIDE), torch.nan)
    stacked = torch.stack([unknown if one is None else one for one in references])
    return stacked.repeat_interleave(repeats, dim=0)

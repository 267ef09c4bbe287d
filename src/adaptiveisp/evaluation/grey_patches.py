"""How neutral known grey patches of rendered images are, and how many bright ones are burnt."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.utils.color import neutral_difference

CLIPPED = 0.98
"""A patch is clipped if the mean of a channel is above this."""


class Patch(NamedTuple):
    """A rectangle in a grey area.

    Attributes:
        left, top, right, bottom: its edges in pixels of the upright full frame.
        bright: whether it counts for the share of clipped patches.
    """

    left: float
    top: float
    right: float
    bottom: float
    bright: bool


class PatchColours(NamedTuple):
    """The colours of some patches.

    Attributes:
        difference: CIE ΔE2000 between the mean of each patch and the neutral grey of the same L*.
        clipped: whether the mean of a channel is above `CLIPPED`, for each bright patch.
    """

    difference: Float[Tensor, " n"]
    clipped: Tensor


def patch_colours(
    image: Float[Tensor, "3 height width"], patches: Sequence[Patch], full_size: tuple[int, int]
) -> PatchColours:
    """The colours of the patches of one image.

    Args:
        image: rendered, shown as sRGB code values in [0, 1].
        patches: in pixels of the full frame.
        full_size: (height, width) of the full frame; the image is the same frame at another size.

    Raises:
        ValueError: a patch is outside the image or smaller than a pixel of it.
    """
    y, x = (n / full for n, full in zip(image.shape[1:], full_size, strict=True))
    means = []
    for patch in patches:
        rows = slice(round(patch.top * y), round(patch.bottom * y))
        columns = slice(round(patch.left * x), round(patch.right * x))
        part = image[:, rows, columns]
        if min(patch[:4]) < 0 or not part.numel():
            raise ValueError(f"{patch}: has no pixel in an image of {tuple(image.shape[1:])}; give a larger image")
        means.append(part.mean(dim=(1, 2)))
    colours = torch.stack(means)
    bright = torch.tensor([patch.bright for patch in patches])
    difference = neutral_difference(colours[:, :, None, None])[:, 0, 0]
    return PatchColours(difference, colours.amax(dim=1)[bright] > CLIPPED)

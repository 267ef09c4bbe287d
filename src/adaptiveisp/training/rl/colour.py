"""Penalties on colours that the clean photo does not have, and on burnt highlights.

Both compare cells of 64x64: noise is averaged away, and the penalty is about areas, as for an eye.
"""

import torch  # noqa: F401  (the examples of the docstrings use it)
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from adaptiveisp.types import Image
from adaptiveisp.utils.color import neutral_difference_of_lab, srgb_to_lab

GREY = 5.0
"""Greatest chroma in CIE L*a*b* of a cell of the reference that counts as grey."""
DARKEST = 10.0
"""Least L* in the reference of a cell that counts: darker ones look black with any cast."""
LEAST_SHARE = 0.05
"""Share of grey (or coloured) cells from which they count in full; fewer count less, as those may be chance."""
BRIGHT = 0.9
"""Code value from which a channel is on its way to being clipped, which it is at 1."""
OFFSET = 16.0
"""L* + 16, a* and b* grow by the same factor if linear light does, so that their ratio is that of a chromaticity."""
LEAST_SQUARE = 1e-4
"""Keeps the slope of a root finite."""

Scalars = Float[Tensor, " batch"]
Cells = Float[Tensor, "batch 3 rows columns"]
Mask = Bool[Tensor, "batch rows columns"]


def grey_cells(reference: Cells) -> tuple[Mask, Mask]:
    """Which cells of a reference are nearly grey, and which are coloured; neither where it is dark or NaN.

    Args:
        reference: sRGB code values in [0, 1].
    """
    lightness, a, b = srgb_to_lab(reference).unbind(dim=1)
    grey = a.square() + b.square() < GREY**2
    return grey & (lightness >= DARKEST), ~grey & (lightness >= DARKEST)


def colour_penalty(image: Image, reference: Cells | None) -> Scalars:
    """Casts of what is grey in the reference, plus colours of it that were lost or turned into others.

    The rendered cells are first brought to the L* of the reference with their chromaticity kept, since a darker image
    has less chroma. Of cells that are grey in the reference the ΔE2000 to neutral counts. Of the coloured ones it is
    √(lost² + ΔH²) / (1 + 0.015·C), with the chroma C of the reference, what is lost of it, and the difference of hue
    ΔH; chroma beyond C is free. Without this part, an image that fades to grey would have no cast. Lost chroma has the
    weight of ΔH in CIE94, since with its own, 1 + 0.045·C, fading would still pay. Both parts are means over their
    cells, in units of a just visible difference.

    Differences of CIE L*a*b* and not logarithms of the ratios of channels, because those grow without limit in dark,
    noisy places, where no eye sees a colour.

    Args:
        image: rendered images, shown as sRGB code values in [0, 1].
        reference: the clean photos, sRGB code values in [0, 1]; an image that is NaN has no penalty. None for no
            penalty at all.

    Source: Sharma, Wu and Dalal 2005 (ΔE2000); CIE 116:1995 (CIE94).

    >>> grey = torch.full((1, 3, 64, 64), 0.5)
    >>> reddish = grey * torch.tensor([1.1, 1.0, 1.0]).reshape(1, 3, 1, 1)
    >>> pairs = (grey, grey), (reddish, grey), (0.5 * reddish, grey), (reddish, reddish), (grey, reddish)
    >>> [round(float(colour_penalty(image, reference))) for image, reference in pairs]
    [0, 6, 6, 0, 5]
    """
    if reference is None:
        return image.new_zeros(len(image))
    grey, coloured = grey_cells(reference)
    wanted = srgb_to_lab(reference.nan_to_num(0.0))
    found = srgb_to_lab(_in_cells(image, reference))
    found = found * ((wanted[:, :1] + OFFSET) / (found[:, :1] + OFFSET))
    return _mean(neutral_difference_of_lab(found), grey) + _mean(_lost_or_turned(found, wanted), coloured)


def _lost_or_turned(found: Cells, wanted: Cells) -> Float[Tensor, "batch rows columns"]:
    """√(lost² + ΔH²) / (1 + 0.015·C) of colours in L*a*b*, see `colour_penalty`."""
    square = [one[:, 1:].square().sum(dim=1) for one in (found, wanted)]
    theirs, ours = ((each + LEAST_SQUARE).sqrt() for each in square)
    hue = 2 * (theirs * ours - (found[:, 1:] * wanted[:, 1:]).sum(dim=1)).clamp(min=0)
    lost = (ours - theirs).clamp(min=0)
    return (lost.square() + hue + LEAST_SQUARE).sqrt() / (1 + 0.015 * ours)


def _mean(values: Float[Tensor, "batch rows columns"], mask: Mask) -> Scalars:
    """Mean over the cells of a mask, which count less if they are few."""
    count = mask.sum(dim=(1, 2)).clamp(min=LEAST_SHARE * mask[0].numel())
    return (values * mask).sum(dim=(1, 2)) / count


def highlight_penalty(image: Image, reference: Cells | None) -> Scalars:
    """Share of the image that is burnt and is not so in the reference, in [0, 1].

    A cell counts from 0 to 1 as its brightest channel goes from 0.9 to 1, if in the reference it is below 0.9. Clipped
    values have no derivative, so that the gradient comes from those on their way there.

    Args:
        image, reference: as for `colour_penalty`.

    >>> reference = torch.full((1, 3, 64, 64), 0.5)
    >>> [round(float(highlight_penalty(torch.full_like(reference, x), reference)), 2) for x in (0.8, 0.95, 1.0)]
    [0.0, 0.5, 1.0]
    """
    if reference is None:
        return image.new_zeros(len(image))
    kept = (reference.amax(dim=1) < BRIGHT).to(image.dtype)
    brightest = _in_cells(image, reference).amax(dim=1)
    return (((brightest - BRIGHT).clamp(min=0) / (1 - BRIGHT)) * kept).mean(dim=(1, 2))


def _in_cells(image: Image, reference: Cells) -> Cells:
    """The image averaged to the cells of a reference."""
    return F.adaptive_avg_pool2d(image, (reference.shape[2], reference.shape[3]))

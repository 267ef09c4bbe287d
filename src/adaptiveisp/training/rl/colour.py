"""Penalties on colours that the clean photo does not have: greys with a cast, and burnt highlights.

Both compare cells of 64x64: noise is averaged away, and the penalty is about areas, as for an eye.
"""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from adaptiveisp.types import Image
from adaptiveisp.utils.color import neutral_difference, srgb_to_lab

GREY = 5.0
"""Greatest chroma in CIE L*a*b* of a cell of the reference that counts as grey."""
DARKEST_GREY = 10.0
"""Least L* of such a cell: darker ones look black with any cast."""
LEAST_SHARE = 0.05
"""Share of grey cells from which an image counts in full; with fewer it counts less, as those may be chance."""
BRIGHT = 0.9
"""Code value from which a channel is on its way to being clipped, which it is at 1."""

Scalars = Float[Tensor, " batch"]
Cells = Float[Tensor, "batch 3 rows columns"]


def grey_cells(reference: Cells) -> Bool[Tensor, "batch rows columns"]:
    """Which cells of a reference are nearly grey and not nearly black; none where it is NaN.

    Args:
        reference: sRGB code values in [0, 1].
    """
    lightness, a, b = srgb_to_lab(reference).unbind(dim=1)
    return (a.square() + b.square() < GREY**2) & (lightness >= DARKEST_GREY)


def colour_penalty(image: Image, reference: Cells | None) -> Scalars:
    """Mean ΔE2000 between the image and neutral grey, over the cells that are grey in the reference.

    Differences of CIE L*a*b* and not logarithms of the ratios of channels, because those grow without limit in dark,
    noisy places, where no eye sees a colour.

    Args:
        image: rendered images, shown as sRGB code values in [0, 1].
        reference: the clean photos, sRGB code values in [0, 1]; an image that is NaN has no penalty. None for no
            penalty at all.

    >>> grey = torch.full((1, 3, 64, 64), 0.5)
    >>> reddish = grey * torch.tensor([1.1, 1.0, 1.0]).reshape(1, 3, 1, 1)
    >>> [round(float(colour_penalty(one, grey)), 1) for one in (grey, reddish)]
    [0.0, 9.0]
    """
    if reference is None:
        return image.new_zeros(len(image))
    grey = grey_cells(reference).to(image.dtype)
    different = neutral_difference(_in_cells(image, reference))
    count = grey.sum(dim=(1, 2)).clamp(min=LEAST_SHARE * grey[0].numel())
    return (different * grey).sum(dim=(1, 2)) / count


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

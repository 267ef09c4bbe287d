"""The guided filter with luminance as its guide and coefficients on a coarse grid, which two modules use.

In a window every channel is fitted by a line a·L + b over the luminance L, by least squares with a ridge ε:
a = cov(L, x) / (var(L) + ε), b = mean(x) - a·mean(L). Where luminance varies by less than sqrt ε, a is small and the
window's mean remains; at edges a keeps the structure. a and b are averaged over windows again and used at each pixel.
Windows are 3x3 cells; a cell's moments are those of all its pixels, and between cell centres a and b are interpolated.

Source: He, Sun, Tang 2013, "Guided Image Filtering", equations 5, 6 and 8; He and Sun 2015, "Fast Guided Filter", for
the coarse grid. Differs: moments are taken over all pixels, not over a subsampled image, which would miss the noise.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA, weighted_channel

Coarse = Float[Tensor, "batch planes rows columns"]
LEAST = 1e-12
"""Added to the variance, so that the mean remains where both it and ε are 0."""


def moments(image: Image, cell: int) -> Float[Tensor, "batch 6 rows columns"]:
    """Means of r, g, b and their covariances with L over cells of `cell` x `cell` pixels; the last repeat the border.

    Covariances are taken about the means, since E[L·x] - E[L]·E[x] loses all digits in flat bright areas.
    """
    right, below = -image.shape[3] % cell, -image.shape[2] % cell
    padded = F.pad(image, (0, right, 0, below), mode="replicate")
    means = F.avg_pool2d(padded, cell)
    deviation = padded - F.interpolate(means, scale_factor=float(cell), mode="nearest")
    return torch.cat([means, F.avg_pool2d(weighted_channel(deviation, LUMA) * deviation, cell)], dim=1)


def _windows(planes: Coarse) -> list[Coarse]:
    """The planes moved by each of the nine steps of a 3x3 window, the border repeated; the fifth is not moved."""
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    rows, columns = planes.shape[2:]
    return [padded[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(3)]


def window_mean(planes: Coarse) -> Coarse:
    """Means over 3x3 cells, the border repeated."""
    return torch.stack(_windows(planes)).mean(dim=0)


def coefficients(
    cells: Float[Tensor, "batch 6 rows columns"], ridge: Float[Tensor, "batch 1 1 1"]
) -> Float[Tensor, "batch 6 rows columns"]:
    """The planes a of red, green and blue, then b of each, averaged over windows.

    Args:
        cells: from `moments`.
        ridge: ε of each image, a variance of luminance.
    """
    near = torch.stack(_windows(cells))
    step = near[:, :, :3] - cells[:, :3]  # from a cell's means to those of its neighbours
    luminance_step = sum(weight * step[:, :, i : i + 1] for i, weight in enumerate(LUMA))
    within_and_between = (near[:, :, 3:] + luminance_step * step).mean(dim=0)
    shift = step.mean(dim=0)
    covariance = within_and_between - weighted_channel(shift, LUMA) * shift
    colour = cells[:, :3] + shift
    variance = weighted_channel(covariance, LUMA)
    slope = covariance / (variance.clamp(min=0) + ridge + LEAST)
    return window_mean(torch.cat([slope, colour - slope * weighted_channel(colour, LUMA)], dim=1))


def to_pixels(coarse: Coarse, cell: int, height: int, width: int) -> Float[Tensor, "batch planes height width"]:
    """The planes at every pixel, bilinear between cell centres."""
    if cell == 1:
        return coarse
    size = (coarse.shape[2] * cell, coarse.shape[3] * cell)
    fine = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return fine[:, :, :height, :width]

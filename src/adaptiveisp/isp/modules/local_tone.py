"""Local tone: shadows lifted and highlights lowered by what surrounds a pixel, so that details keep their contrast."""

from adaptiveisp.isp.guided_filter import LEAST, coefficients, moments, to_pixels
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.autograd import base_planes
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel

GRID = 64
"""Cells on the longer side, so that the base is as coarse on a small image as on the full frame."""
EDGE = 0.1
"""Standard deviation of luminance from which an edge is kept in the base."""
LEAST_BASE = 1e-6
"""Keeps the slope of the square root finite."""


def cell_of(height: int, width: int) -> int:
    """Side of a cell in pixels.

    >>> cell_of(312, 416), cell_of(3000, 4000), cell_of(20, 30)
    (6, 62, 1)
    """
    return max(1, max(height, width) // GRID)


def local_tone(image: Image, params: ParamTensor) -> Image:
    """x·2^(shadows·(1-t)² + highlights·t²), t = sqrt(base), base the luminance smoothed but for its edges.

    All channels get the same gain, so that hue and saturation stay.

    Args:
        image: RGB in [0, 1].
        params: column 0: shadows, column 1: highlights, in stops.

    Source: a base layer that is changed and details that are not, Durand and Dorsey 2002; the base by He et al. 2013.
    Differs: the gain is a curve of the base's square root, about its lightness, instead of a compressed logarithm.
    """
    height, width = image.shape[2:]
    cell = cell_of(height, width)
    both = coefficients(moments(image, cell), image.new_full((image.shape[0], 1, 1, 1), EDGE**2))
    fine = to_pixels(base_planes(both), cell, height, width)
    base = fine[:, :1] * weighted_channel(image, LUMA) + fine[:, 1:]
    lightness = base.clamp(LEAST_BASE, 1).sqrt()
    shadows, highlights = params[:, 0][:, None, None, None], params[:, 1][:, None, None, None]
    return image * (shadows * (1 - lightness).square() + highlights * lightness.square()).exp2()


EXTENDED = IspModule(
    "local_tone",
    "LT",
    (Param("shadows", -2.0, 3.0, "stops", 0.0), Param("highlights", -2.0, 2.0, "stops", 0.0)),
    local_tone,
    2.6,
    source="Durand and Dorsey 2002",
    effect="Opens shadows and holds back highlights separately, with the contrast of details kept.",
    kernel=KernelCall("local_tone", options={"cell_of": cell_of, "ridge": EDGE**2 + LEAST}),
)

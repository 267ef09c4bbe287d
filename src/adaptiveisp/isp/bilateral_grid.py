"""Slicing and applying a bilateral grid of affine colour transforms, differentiable in grid, guide and image.

The grid has `depth` layers of `rows` x `columns` cells, each with 3x4 numbers: three rows of a matrix for red, green
and blue and an offset. A guide in [0, 1] says for each pixel at which depth the grid is read. Place and depth lie between
the centres of cells, where the numbers are interpolated linearly in all three directions; outside of the outermost
centres they are constant. The pixel is then multiplied by its own matrix.

Source: Chen, Paris, Durand 2007, "Real-time Edge-Aware Image Processing with the Bilateral Grid"; Gharbi et al. 2017,
"Deep Bilateral Learning for Real-Time Image Enhancement" (HDRnet), for affine transforms in the cells and the guide.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA

N_COEFFICIENTS = 12
"""Numbers of a cell: three rows of (red, green, blue, offset)."""
STRIP_PIXELS = 1 << 16
"""Pixels that are sliced at once where no gradient is wanted, so that a large frame needs little memory."""

Grid = Float[Tensor, "batch 12 depth rows columns"]


class GuideCurves(NamedTuple):
    """The learned guide: mixtures of the channels, a piecewise linear curve for each, and their weighted sum.

    guide = bias + Σ_k mix_k Σ_i slopes_ki·max(matrix_k·x + offset_k - thresholds_ki, 0), clipped to [0, 1]

    Attributes:
        matrix, offset: three mixtures of the channels.
        thresholds, slopes: where each curve changes its slope, and by how much.
        mix, bias: the sum.

    Source: Gharbi et al. 2017, section 3.4.1.
    """

    matrix: Float[Tensor, "3 3"]
    offset: Float[Tensor, " 3"]
    thresholds: Float[Tensor, "3 knots"]
    slopes: Float[Tensor, "3 knots"]
    mix: Float[Tensor, " 3"]
    bias: Float[Tensor, ""]

    def __call__(self, image: Image) -> Float[Tensor, "batch height width"]:
        """The guide of each pixel."""
        mixed = torch.einsum("kc,bchw->bkhw", self.matrix, image) + self.offset[None, :, None, None]
        # The sums over mix and over knots are taken at once: one product for each knot.
        weights = (self.slopes * self.mix[:, None])[:, :, None, None]
        guide = self.bias
        for i in range(self.slopes.shape[1]):
            above = (mixed - self.thresholds[None, :, i, None, None]).relu()
            guide = guide + (weights[:, i] * above).sum(dim=1)
        return guide.clamp(0, 1)


def sliced(
    grid: Grid, guide: Float[Tensor, "batch rows_of_image width"], height: int, first_row: int = 0
) -> Float[Tensor, "batch 12 rows_of_image width"]:
    """The 3x4 numbers of each pixel.

    Args:
        grid: of each image.
        guide: in [0, 1]; of all rows of the image, or of some.
        height: of the image in pixels.
        first_row: number of the guide's first row in the image.
    """
    rows, width = guide.shape[1:]
    down = (torch.arange(rows, device=guide.device, dtype=guide.dtype) + first_row + 0.5) * (2 / height) - 1
    right = (torch.arange(width, device=guide.device, dtype=guide.dtype) + 0.5) * (2 / width) - 1
    place = torch.stack(
        [right.expand(len(guide), rows, -1), down[None, :, None].expand(len(guide), -1, width), 2 * guide - 1], dim=-1
    )
    return F.grid_sample(grid, place[:, None], mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


def transformed(image: Image, coefficients: Float[Tensor, "batch 12 height width"]) -> Image:
    """Each pixel by its own matrix and offset, before the clip to [0, 1]."""
    by_row = coefficients.unflatten(1, (3, 4))
    return (by_row[:, :, :3] * image[:, None]).sum(dim=2) + by_row[:, :, 3]


def apply_grid(image: Image, grid: Grid, curves: GuideCurves) -> Image:
    """The images after their grids, before the clip to [0, 1].

    Args:
        image: RGB in [0, 1].
        grid: of each image.
        curves: of the guide, the same for all images.
    """
    height, width = image.shape[2:]
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (image, grid, *curves))
    if wanted or height * width <= STRIP_PIXELS:
        return transformed(image, sliced(grid, curves(image), height))
    made = torch.empty_like(image)
    rows = max(1, STRIP_PIXELS // width)
    for start in range(0, height, rows):
        strip = image[:, :, start : start + rows]
        made[:, :, start : start + rows] = transformed(strip, sliced(grid, curves(strip), height, start))
    return made


def grey_grid(grid: Grid) -> Grid:
    """The grid whose result is the luminance of the original's, the same for red, green and blue."""
    by_row = grid.unflatten(1, (3, 4))
    luminance = sum(weight * by_row[:, i] for i, weight in enumerate(LUMA))
    assert isinstance(luminance, Tensor)
    return luminance[:, None].expand(-1, 3, -1, -1, -1, -1).flatten(1, 2)


def identity_cell() -> Float[Tensor, " 12"]:
    """The numbers of a cell that leaves colours unchanged."""
    return torch.eye(3, 4).flatten()

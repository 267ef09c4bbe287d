"""Slicing and applying a bilateral grid of affine colour transforms, differentiable in grid, guide and image.

The grid has `depth` layers of `rows` x `columns` cells, each with 3x4 numbers: three rows of a matrix for red, green
and blue and an offset. A guide in [0, 1] says for each pixel at which depth the grid is read. Between the centres of
cells the numbers are interpolated linearly in all three directions; beyond the outermost centres they are constant. The
pixel is then multiplied by its own matrix.

Source: Chen, Paris, Durand 2007, "Real-time Edge-Aware Image Processing with the Bilateral Grid"; Gharbi et al. 2017,
"Deep Bilateral Learning for Real-Time Image Enhancement" (HDRnet), for affine transforms in the cells and the guide.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels.registry import differentiable
from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA

N_COEFFICIENTS = 12
"""Numbers of a cell: three rows of (red, green, blue, offset)."""
STRIP_PIXELS = {"cpu": 1 << 12, "other": 1 << 20}
"""Pixels that are sliced at once, by device: on a CPU the numbers of a strip stay in a core's second-level cache."""

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

    @property
    def numbers(self) -> Float[Tensor, " n"]:
        """The weights as the kernels read them: matrix, thresholds, slopes with the sum's weights, bias."""
        weights = self.slopes * self.mix[:, None]
        parts = (self.matrix, self.thresholds - self.offset[:, None], weights, self.bias)
        return torch.cat([part.flatten() for part in parts])

    def __call__(self, image: Image) -> Float[Tensor, "batch height width"]:
        """The guide of each pixel."""
        batch, _, height, width = image.shape
        mixed = self.matrix @ image.reshape(batch, 3, -1)
        # Each curve and threshold is a row: one product sums over both.
        above = (mixed[:, :, None] + (self.offset[:, None] - self.thresholds)[None, :, :, None]).flatten(1, 2).relu()
        guide = (self.slopes * self.mix[:, None]).reshape(1, -1) @ above
        return (guide + self.bias).clamp(0, 1).view(batch, height, width)


def apply_grid(image: Image, grid: Grid, curves: GuideCurves) -> Image:
    """The images after their grids, clipped to [0, 1].

    Args:
        image: RGB in [0, 1].
        grid: of each image.
        curves: of the guide, the same for all images.
    """
    if not image.numel():
        return image.clone()
    if kernel := differentiable("bilateral_grid", image, grid, *curves):
        return kernel(image, packed(grid), curves.numbers)  # type: ignore[no-any-return]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (image, grid, *curves)):
        return transformed(image, sliced(grid, curves(image))).clamp(0, 1)
    return apply_by_products(image, grid, curves).clamp_(0, 1)


def _by_row(numbers: Float[Tensor, "batch 12 *places"]) -> Float[Tensor, "batch 3 4 *places"]:
    """The numbers as three rows of four."""
    return numbers.view(len(numbers), 3, 4, *numbers.shape[2:])


def packed(grid: Grid) -> Float[Tensor, "batch rows columns depth 16"]:
    """The grid as the kernels read it: the numbers of a cell together, those of a column of the 3x4 matrix first."""
    return F.pad(_by_row(grid).permute(0, 4, 5, 3, 2, 1), (0, 1)).flatten(4)


def sliced(grid: Grid, guide: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch 12 height width"]:
    """The numbers of each pixel, differentiable in grid and guide.

    Args:
        grid: of each image.
        guide: in [0, 1].
    """
    height, width = guide.shape[1:]
    down, right = (_centres(n, guide) * (2 / n) - 1 for n in (height, width))
    place = torch.stack([right.expand_as(guide), down[:, None].expand_as(guide), 2 * guide - 1], dim=-1)
    return F.grid_sample(grid, place[:, None], mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]


def transformed(image: Image, numbers: Float[Tensor, "batch 12 height width"]) -> Image:
    """Each pixel by its own matrix and offset, before the clip to [0, 1]."""
    by_row = _by_row(numbers)
    return (by_row[:, :, :3] * image[:, None]).sum(dim=2) + by_row[:, :, 3]


@torch.no_grad()
def apply_by_products(image: Image, grid: Grid, curves: GuideCurves) -> Image:
    """The images after their grids, before the clip, without a gradient.

    `grid_sample` gathers eight cells for each pixel. Here two products of matrices interpolate the numbers of all
    depths in place, since cells and pixels are regular there, and the guide gives the weights of the depths; on a CPU
    this is faster. Strips of rows stay in a core's cache, and a large frame needs little more memory than itself.

    Args:
        image, grid, curves: as for `apply_grid`.
    """
    batch, _, height, width = image.shape
    depth, n_rows, n_columns = grid.shape[2:]
    across = hats(_centres(width, image) * (n_columns / width), n_columns, 0)
    down = hats(_centres(height, image) * (n_rows / height), n_rows, 1)
    step = max(1, STRIP_PIXELS["cpu" if image.device.type == "cpu" else "other"] // width)
    made, space = torch.empty_like(image), image.new_empty(0)
    for strip in (slice(start, start + step) for start in range(0, height, step)):
        some = image[:, :, strip]
        lines = (down[strip] @ grid.flatten(1, 2)).view(-1, n_columns)
        if space.shape != (len(lines), width):  # the same memory for all strips: new memory has to be cleared first
            space = image.new_empty(len(lines), width)
        numbers = torch.mm(lines, across, out=space).view(batch, 3, 4, depth, -1, width)
        weights = hats(curves(some) * depth, depth, 1)[:, None]
        numbers[:, :, :3] *= some[:, None, :, None]
        numbers *= weights[:, None]
        torch.sum(numbers, dim=(2, 3), out=made[:, :, strip])
    return made


def hats(place: Tensor, n: int, dim: int) -> Tensor:
    """Weights of linear interpolation between n centres, which lie at 0.5, 1.5 and so on.

    Args:
        place: places in [0, n]; below the first centre and above the last one these have the whole weight.
        n: number of centres.
        dim: where the dimension of the centres is put in the result.
    """
    place = (place - 0.5).clamp(0, n - 1).unsqueeze(dim)
    shape = [1] * place.ndim
    shape[dim] = n
    return (1 - (place - torch.arange(n, device=place.device, dtype=place.dtype).view(shape)).abs()).relu()


def _centres(n: int, like: Tensor) -> Float[Tensor, " n"]:
    """Places of the centres of n pixels, in pixels."""
    return torch.arange(n, device=like.device, dtype=like.dtype) + 0.5


def grey_grid(grid: Grid) -> Grid:
    """The grid whose result is the luminance of the original's, the same for red, green and blue."""
    by_row = _by_row(grid)
    luminance = sum(weight * by_row[:, i] for i, weight in enumerate(LUMA))
    assert isinstance(luminance, Tensor)
    return luminance[:, None].expand(-1, 3, -1, -1, -1, -1).flatten(1, 2)


def identity_cell() -> Float[Tensor, " 12"]:
    """The numbers of a cell that leaves colours unchanged."""
    return torch.eye(3, 4).flatten()

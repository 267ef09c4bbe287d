"""3D look-up tables of a pipeline's colours as `.cube` files.

All pointwise modules take part, whatever they compute, at the exact values of the pipeline on the grid.

Source: Adobe, Cube LUT Specification 1.0 (2013).
"""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.tuning.decomposition import OTHER_PIXELS
from adaptiveisp.utils.color import srgb_decode

Encoding = Literal["linear", "srgb", "cube-root"]
ENCODINGS: tuple[Encoding, ...] = ("linear", "srgb", "cube-root")
"""What the table is looked up by: linear light, its sRGB code value, or its cube root, which is finest in the dark."""
SIZES = (2, 256)
"""Least and greatest number of grid points along an axis that the specification allows."""


def pointwise_part(pipeline: Pipeline) -> tuple[Pipeline, list[str]]:
    """The pipeline without stages that no table of colours can hold, and a line for each of these.

    Raises:
        PipelineError: a stage develops the raw itself.
    """
    kept, notes = [], []
    for stage, module in zip(pipeline.stages, pipeline.modules, strict=True):
        if module.external is not None:
            raise PipelineError(f"{module.name}: is an ISP of its own; take its parameters from the pipeline JSON")
        if module.pointwise:
            kept.append(stage)
        else:
            notes.append(f"{module.name}: left out, {OTHER_PIXELS}")
    return pipeline.with_stages(kept), notes


def decoded(values: Float[Tensor, "*shape"], encoding: Encoding) -> Float[Tensor, "*shape"]:
    """Linear light of a place in the table, both in [0, 1]."""
    if encoding == "linear":
        return values
    return srgb_decode(values) if encoding == "srgb" else values**3


def table_of(pipeline: Pipeline, size: int, encoding: Encoding) -> NDArray[np.float32]:
    """The pipeline's colours at the points of a grid, (size, size, size, 3), by blue, green, red.

    Args:
        pipeline: of pointwise stages.
        size: points along each axis.
        encoding: of the places.
    """
    axis = decoded(torch.linspace(0, 1, size, dtype=torch.float64), encoding).float()
    blue, green, red = torch.meshgrid(axis, axis, axis, indexing="ij")
    image = torch.stack([red, green, blue]).reshape(1, 3, size, size * size)
    made = pipeline.clipped(pipeline.render(image))
    return np.asarray(made[0].reshape(3, size, size, size).permute(1, 2, 3, 0).numpy(), dtype=np.float32)


def cube_text(table: NDArray[np.float32], title: str, notes: list[str]) -> str:
    """The file's text.

    Args:
        table: from `table_of`.
        title: one line.
        notes: comments, a line each.
    """
    lines = [*(f"# {note}" for note in notes), f'TITLE "{title}"', f"LUT_3D_SIZE {len(table)}"]
    lines += [f"{red:.7f} {green:.7f} {blue:.7f}" for red, green, blue in table.reshape(-1, 3).tolist()]
    return "\n".join(lines) + "\n"


def interpolation_error(pipeline: Pipeline, table: NDArray[np.float32], encoding: Encoding, n: int = 4096) -> float:
    """Greatest difference on random colours between the pipeline and trilinear interpolation in the table.

    Args:
        pipeline: of pointwise stages.
        table: of it.
        encoding: of its places.
        n: number of colours, which are even in the table's encoding.
    """
    places = torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image = decoded(places, encoding).float().T.reshape(1, 3, 1, n)
    exact = pipeline.clipped(pipeline.render(image)).reshape(3, n).T.numpy()
    return float(np.abs(looked_up(table, places.numpy()) - exact).max())


def looked_up(table: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trilinear interpolation at places (n, 3) of red, green and blue in [0, 1]."""
    scaled = places[:, ::-1] * (len(table) - 1)  # the table's axes are blue, green, red
    base = np.clip(np.floor(scaled).astype(int), 0, len(table) - 2)
    share = scaled - base
    total = np.zeros((len(places), 3))
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        total += weight[:, None] * table[tuple((base + corner).T)]
    return total

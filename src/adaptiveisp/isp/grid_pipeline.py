"""A pipeline with a bilateral grid, which is held in memory beside the stages.

The stage `bilateral_grid` of the pipeline states the grid's mean gain and size; the JSON has no more than that, says
so, and is refused when it is read as a pipeline. In the process that made it, the pipeline renders any image as another
pipeline does: at full size, step by step, or the next frame of a stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.bilateral_grid import GuideCurves, apply_grid, grey_grid
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.isp.modules.bilateral_grid import IN_NO_FILE, PAPER
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.types import Image, ParamTensor

NAME = PAPER.name
INCOMPLETE_KEY = "incomplete"
"""Key of a pipeline's JSON that says why the file cannot be run."""


@dataclass(frozen=True)
class GridPipeline(Pipeline):
    """A pipeline whose stage `bilateral_grid` has its grid and its guide.

    Attributes:
        grid: numbers of the cells, see `isp.bilateral_grid`.
        curves: of the guide.

    Raises:
        ValueError: there is no grid or no guide.
    """

    grid: Float[Tensor, "12 depth rows columns"] | None = field(default=None, compare=False, repr=False)
    curves: GuideCurves | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid is None or self.curves is None:
            raise ValueError("a pipeline with a bilateral grid needs the grid and the guide's curves")

    def __reduce__(self) -> tuple[type["GridPipeline"], tuple[Any, ...]]:
        return GridPipeline, (self.stages, self.module_set, self.grid, self.curves)

    @property
    def modules(self) -> tuple[IspModule, ...]:
        """The modules in the order they run; that of the grid computes with this grid."""
        assert self.grid is not None and self.curves is not None
        own = module_with(self.grid, self.curves)
        return tuple(own if module.name == NAME else module for module in super().modules)

    def to_json(self) -> dict[str, Any]:
        """The stages, and that they do not reproduce the image if the grid is one of them."""
        content = super().to_json()
        has_grid = any(stage.module == NAME for stage in self.stages)
        return {**content, INCOMPLETE_KEY: f"{NAME}: {IN_NO_FILE}"} if has_grid else content

    def with_stages(self, stages: Sequence[Stage]) -> "GridPipeline":
        """Other stages with the same grid."""
        return replace(self, stages=tuple(stages))

    def for_monochrome(self) -> "GridPipeline":
        """The pipeline whose grid gives the luminance of this one's for all three channels."""
        assert self.grid is not None
        return replace(self, grid=grey_grid(self.grid[None])[0])

    def blended(self, before: Pipeline, share: float) -> "GridPipeline":
        """The pipeline with a grid between that of an earlier frame and its own.

        Args:
            before: pipeline of the earlier frame.
            share: weight of this pipeline's own grid.
        """
        if not isinstance(before, GridPipeline):
            return self
        assert self.grid is not None and before.grid is not None
        if before.grid.shape != self.grid.shape:
            return self
        grid = torch.lerp(before.grid, self.grid, share)
        stages = [stage_of_grid(grid) if stage.module == NAME else stage for stage in self.stages]
        return replace(self, stages=tuple(stages), grid=grid)


def module_with(grid: Float[Tensor, "12 depth rows columns"], curves: GuideCurves) -> IspModule:
    """The module that transforms colours by this grid, whatever its parameters state.

    Args:
        grid: numbers of the cells.
        curves: of the guide.
    """
    return replace(PAPER, function=partial(_with_grid, grid, curves))


def _with_grid(
    grid: Float[Tensor, "12 depth rows columns"], curves: GuideCurves, image: Image, params: ParamTensor
) -> Image:
    """The module's function with a grid of its own: each image after this grid."""
    placed = GuideCurves(*(tensor.to(image) for tensor in curves))
    return apply_grid(image, grid.to(image)[None].expand(len(image), -1, -1, -1, -1), placed)


def stage_of_grid(grid: Float[Tensor, "12 depth rows columns"]) -> Stage:
    """The stage that states a grid.

    Its `gain` is the factor by which grey is multiplied (a third of the sum of the 3x3 matrix), the mean over all
    cells; `spread` is its standard deviation over them, and `offset` the mean of the three offsets. All are clipped to
    the module's ranges.
    """
    by_row = grid.detach().view(3, 4, *grid.shape[1:])
    gains = by_row[:, :3].sum(dim=(0, 1)) / 3
    depth, rows, columns = grid.shape[1:]
    found = [gains.mean(), gains.std(correction=0), by_row[:, 3].mean()]
    values = [*torch.stack(found).tolist(), rows, columns, depth]
    return Stage(NAME, {param.name: _clipped(param, value) for param, value in zip(PAPER.params, values, strict=True)})


def _clipped(param: Param, value: float) -> float:
    return float(min(max(value, param.low), param.high))

"""Keeps pipelines steady from frame to frame: parameters are smoothed, and modules change only when that lasts.

A policy decides about each frame alone, so that noise makes its parameters flicker, and the brightness with them. Here
each parameter is smoothed exponentially in the unbounded space of its own range, z ← z + (1 - e^(-1/τ))·(z' - z), with
`Param.unsquash` and `Param.squash`. A module's head is not used: the inverse of white balance's, for instance, does not
give back gains that no head made, such as those of auto-exposure. A cut to another scene, or a sudden change of light,
is followed at once.

Source: the exponential moving average is standard; the detection of cuts compares the luminance of neighbouring frames
on a coarse grid, in stops.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from adaptiveisp.errors import PipelineError, UsageError
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA, weighted_channel

GRID = 8
"""Side of the grid on which frames are compared."""
MARGIN = 1e-6
"""Share of a parameter's range by which a value keeps off its ends, where z is infinite."""
DARKEST = 1e-4
"""Luminance below which stops are not counted, since noise dominates there."""


@dataclass(frozen=True)
class SmoothingConfig:
    """Settings of the smoothing.

    Attributes:
        frames: time constant τ in frames; 0 takes each frame's own parameters.
        cut_stops: median change of luminance between two frames, over the grid and in stops, from which the new frame
            belongs to another scene or light.
        persist: frames for which a policy must choose other modules before the modules change.

    Raises:
        UsageError: a value is out of range.
    """

    frames: float = 4.0
    cut_stops: float = 0.5
    persist: int = 5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.frames) and self.frames >= 0):
            raise UsageError(f"smoothing over {self.frames} frames is impossible; give a number from 0")
        if not self.cut_stops > 0 or self.persist < 1:
            raise UsageError("cut_stops must be above 0 and persist at least 1")


class Smoother:
    """Smooths the pipelines of one stream; `update` is called for each frame in order.

    Args:
        config: settings.

    Attributes:
        cuts: number of cuts so far.
    """

    def __init__(self, config: SmoothingConfig):
        self.config = config
        self.cuts = 0
        self._rows: list[list[float]] = []
        self._held: Pipeline | None = None
        self._waiting: tuple[str, ...] = ()
        self._waited = 0
        self._light: Tensor | None = None

    def update(self, chosen: Pipeline, image: Image) -> Pipeline:
        """The smoothed pipeline of a frame.

        Args:
            chosen: the policy's own pipeline for the frame.
            image: the developed frame, (1, 3, h, w), linear RGB in [0, 1].
        """
        light = luminance_stops(image)
        cut = self._light is not None and is_cut(self._light, light, self.config.cut_stops)
        self._light = light
        self.cuts += int(cut)
        if self._held is None or cut or self.config.frames == 0:
            return self._restart(chosen)
        if not _same_modules(chosen, self._held):
            return self._wait(chosen)
        self._waited = 0
        share = 1 - math.exp(-1 / self.config.frames)
        new = _rows(chosen)
        self._rows = [
            [old + share * (value - old) for old, value in zip(before, after, strict=True)]
            for before, after in zip(self._rows, new, strict=True)
        ]
        try:
            self._held = _pipeline(chosen, self._rows).blended(self._held, share)
        except PipelineError:  # between two valid matrices lies one that is not
            return self._restart(chosen)
        return self._held

    def _restart(self, chosen: Pipeline) -> Pipeline:
        self._rows, self._held, self._waited = _rows(chosen), chosen, 0
        return chosen

    def _wait(self, chosen: Pipeline) -> Pipeline:
        """Keeps the former modules until others were chosen for `persist` frames in a row."""
        names = tuple(stage.module for stage in chosen.stages)
        self._waited = self._waited + 1 if names == self._waiting else 1
        self._waiting = names
        if self._waited >= self.config.persist:
            return self._restart(chosen)
        assert self._held is not None
        return self._held


def luminance_stops(image: Image) -> Tensor:
    """log2 of the luminance of a frame on a grid of `GRID` x `GRID` cells."""
    cells = F.adaptive_avg_pool2d(weighted_channel(image, LUMA), GRID)
    return cells.clamp(min=DARKEST).log2().flatten()


def is_cut(before: Tensor, after: Tensor, stops: float) -> bool:
    """Whether the median change of the cells' luminance exceeds `stops`.

    >>> import torch
    >>> is_cut(torch.zeros(64), torch.full((64,), 1.0), 0.5), is_cut(torch.zeros(64), torch.zeros(64), 0.5)
    (True, False)
    """
    return bool((after - before).abs().median() > stops)


def _same_modules(one: Pipeline, other: Pipeline) -> bool:
    names = [[stage.module for stage in pipeline.stages] for pipeline in (one, other)]
    return names[0] == names[1] and one.module_set == other.module_set


def _rows(pipeline: Pipeline) -> list[list[float]]:
    """The unbounded value of each parameter, one row a stage."""
    return [
        [param.unsquash(stage.params[param.name], MARGIN) for param in module.params]
        for module, stage in zip(pipeline.modules, pipeline.stages, strict=True)
    ]


def _pipeline(like: Pipeline, rows: list[list[float]]) -> Pipeline:
    """The pipeline with the modules of `like` and the parameters of these rows."""
    stages = (_stage(module, row) for module, row in zip(like.modules, rows, strict=True))
    return like.with_stages(tuple(stages))


def _stage(module: IspModule, row: list[float]) -> Stage:
    return Stage(module.name, {param.name: param.value(z) for param, z in zip(module.params, row, strict=True)})

"""The bilateral-grid policy: preprocessing, perhaps a denoiser, then a predicted grid of colour transforms."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.grid_pipeline import GridPipeline, stage_of_grid
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Policy, Preprocessing, Shortener
from adaptiveisp.policies.bilateral_grid.checkpoint import load_grid_file
from adaptiveisp.policies.bilateral_grid.networks import BilateralGridNetwork
from adaptiveisp.policies.checkpoint import PolicyHeader
from adaptiveisp.policies.sequence.networks import Observation, observe
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch, timed


@dataclass(frozen=True)
class BilateralGridPolicy(Policy):
    """A small network in place of named modules.

    Its pipelines state the grid's mean gain and size; they render in this process, and their JSON cannot be replayed,
    see `isp.grid_pipeline`.

    Attributes:
        header: module set, denoiser and preprocessing.
        network: the network.
        name: short name for tables.
    """

    header: PolicyHeader
    network: BilateralGridNetwork = field(repr=False)
    name: str = "bilateral_grid"

    @cached_property
    def inference(self) -> BilateralGridNetwork:
        """A copy of the network without gradients, made on first use; later training does not change it."""
        return copy.deepcopy(self.network).eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies, without `inference`, which is made anew on first use."""
        return {name: value for name, value in vars(self).items() if name != "inference"}

    @property
    def preprocessing(self) -> Preprocessing:
        """The stages that run before the grid."""
        return self.header.start

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the preprocessing, the denoiser, and the grid."""
        return list(self.plan_and_observe(image)[0])

    @torch.inference_mode()
    def process(self, image: Image, *, stopwatch: Stopwatch | None = None) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; the preprocessing, which the network observes, runs once.

        Args:
            image: developed images, linear RGB in [0, 1].
            stopwatch: measures the part "modules".
        """
        return self._run(*self.plan_and_observe(image, stopwatch=stopwatch), stopwatch)

    @torch.inference_mode()
    def process_within(
        self, image: Image, shortener: Shortener, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """`process` without the denoiser or the grid where a shortener does not keep them."""
        plans, observation = self.plan_and_observe(image, stopwatch=stopwatch)
        return self._run([self._shortened_plan(plan, shortener) for plan in plans], observation, stopwatch)

    def _run(
        self, plans: Sequence[Pipeline], observation: Observation, stopwatch: Stopwatch | None
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines, and the images that they make of the observed images after the preprocessing."""
        n_done = len(observation.prefix[0])
        with timed(stopwatch, "modules"):
            made = [
                run_one(picture, plan.calls[n_done:], owned=self.header.start != "raw")
                for picture, plan in zip(observation.preprocessed, plans, strict=True)
            ]
            return list(plans), made[0][None] if len(made) == 1 else torch.stack(made)

    @torch.inference_mode()
    def plan_and_observe(
        self, image: Image, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[GridPipeline], Observation]:
        """The pipelines, and the observation that they were predicted from.

        Args:
            image: developed images, linear RGB in [0, 1].
            stopwatch: measures the preprocessing as the part "modules".
        """
        network, module_set = self.inference, self.header.module_set
        observation = observe(image, self.header.start, module_set, stopwatch=stopwatch)
        grids, strengths = network(observation.planes, observation.numbers)
        rows = [None] * len(image) if strengths is None else strengths.tolist()
        plans = []
        for prefix, grid, row in zip(observation.prefix, grids, rows, strict=True):
            stages = [*prefix]
            if network.denoiser is not None and row is not None:
                names = (param.name for param in network.denoiser.params)
                stages.append(Stage(network.denoiser.name, dict(zip(names, row, strict=True))))
            stages.append(stage_of_grid(grid))
            plans.append(GridPipeline(tuple(stages), module_set, grid, network.guide.curves))
        return plans, observation


def load_bilateral_grid(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> BilateralGridPolicy:
    """The policy in a file made by training.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the network runs.
        steps: ignored, since the policy takes no steps.

    Raises:
        WeightsError: the file is missing, damaged or no such policy.
    """
    header, network = load_grid_file(path)
    return BilateralGridPolicy(header, network.to(device), name or Path(path).stem)

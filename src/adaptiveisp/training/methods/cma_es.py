"""One pipeline for all images whose parameters are found without gradients by CMA-ES, as in black-box ISP tuning.

As for `fixed`, the modules and their order are given, and each parameter is one unbounded number z. An iteration is a
generation of λ pipelines. All of them are scored on the same minibatch, so that their mean losses differ by the
pipeline and not by the images (common random numbers). The policy is the mean of the distribution. CMA-ES uses only the
order of the losses, so the detector's loss needs no gradient.

Source: Hansen 2016 (see `cma_distribution`); Mosleh et al. 2020, Hardware-in-the-loop end-to-end optimization of camera
image processing pipelines (CMA-ES on the parameters of an ISP, with a detector's loss). Differs: one loss, and a new
minibatch in each generation.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.logits import pipeline_of, starting_row
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import Precision
from adaptiveisp.training.methods import fixed
from adaptiveisp.training.methods.cma_distribution import Constants, Distribution, default_population
from adaptiveisp.training.methods.learner import Metrics, PipelineLearner, initial_pipeline
from adaptiveisp.training.methods.minibatch import Minibatch, pipeline_losses, take
from adaptiveisp.types import Detector
from adaptiveisp.utils.config import renamed, require

Vector = Float[Tensor, " n"]


@dataclass(frozen=True)
class CmaEsConfig:
    """Settings of a run, all of which are kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the parameters.
        modules: names in the order they run.
        initial: module → parameter → initial value, as for `fixed`; all others start at their neutral values.
        preprocessing: heuristic whose stages run before the pipeline: "raw" for none, "auto-exposure" or "auto-gain".
        population: λ, number of pipelines in a generation; 0 means 4 + ⌊3 ln n⌋ for n parameters.
        batch: images in a generation, the same for all its pipelines; a generation costs λ·batch passes.
        size: side of the square training images in pixels.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        sigma: initial step size, in units of z.
        precision: of the detector's network.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: fixed.Values = field(default_factory=dict)
    preprocessing: Preprocessing = renamed("start", default="raw")
    population: int = 0
    batch: int = 8
    size: int = 320
    smallest_crop: float = SMALLEST_CROP
    sigma: float = 0.3
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        require(self.batch >= 1 and self.size >= 1, "batch and size must be at least 1")
        require(self.population == 0 or self.population >= 4, "population must be 0 or at least 4")
        require(self.sigma > 0, "sigma must be positive")
        fixed.check_modules(self.module_set, self.modules, self.initial)


RAW = CmaEsConfig(modules=fixed.RAW.modules, initial=fixed.RAW.initial)
"""The pipeline and the initial values of `fixed`: ten modules with 27 parameters, hence 13 pipelines in a generation.
With 8 images a generation costs 104 passes, so a budget of 12,000 holds 116 generations. More images would leave too
few generations, and fewer images would make the order of the losses too noisy."""

AFTER_AUTO_EXPOSURE = replace(RAW, preprocessing="auto-exposure", initial={})
"""The same modules after the three stages of auto-exposure, from their neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


class CmaEs(PipelineLearner[CmaEsConfig]):
    """Moves a normal distribution over z by one generation in each iteration; arguments as for `BaseLearner`.

    Each generation draws its random numbers from (seed, iteration).
    """

    name = "cma_es"

    def __init__(
        self,
        config: CmaEsConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        self.modules = tuple(find_module(name, config.module_set) for name in config.modules)
        require(any(module.params for module in self.modules), "modules must have a parameter")
        rows = [starting_row(module, config.initial.get(module.name, {})) for module in self.modules]
        self.distribution = Distribution.around(torch.cat(rows).double(), config.sigma)
        n = len(self.distribution.mean)
        self.population = config.population or default_population(n)
        self.constants = Constants.of(n, self.population)

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one generation and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: a pipeline's loss is NaN or infinite; the distribution was not changed by it.
        """
        clock = Clock.started()
        config = self.config
        first = self.iteration * config.batch
        batch = take(self.stream, first, config.batch, config.preprocessing, config.module_set, self.device)
        clock.lap("data")
        generator = seeded_generator(self.seed, self.iteration, 0, "cma_es")
        points = self.distribution.ask(self.population, generator)
        losses = torch.stack([self._loss(point, batch) for point in points])
        clock.lap("modules and detector")
        self.distribution = self.distribution.updated(points, losses, self.constants)
        clock.lap("distribution")
        finite = losses[losses.isfinite()]
        self.iteration += 1
        self.passes += len(finite) * config.batch
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": float(finite.mean()),
            "best_loss": float(finite.min()),
            "gradient_norm": {},
            "sigma": self.distribution.sigma,
            "axis_ratio": self.distribution.axis_ratio,
            "parameters": {stage.module: dict(stage.params) for stage in self.pipeline.stages},
        }
        return metrics, clock.seconds

    def _loss(self, point: Vector, batch: Minibatch) -> Float[Tensor, ""]:
        """The mean loss of a point's pipeline on the batch; infinite, without a pass, for an invalid pipeline."""
        try:
            pipeline = self._pipeline_at(point)
        except PipelineError:  # a colour matrix with a row that sums to zero
            return torch.tensor(math.inf, dtype=torch.float64)
        return pipeline_losses(pipeline, batch, self.detector, self.config.precision).mean()

    def _pipeline_at(self, point: Vector) -> Pipeline:
        rows = torch.split(point, [len(module.params) for module in self.modules])
        return pipeline_of(self.modules, rows, self.config.module_set)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline at the mean of the distribution."""
        return self._pipeline_at(self.distribution.mean)

    def warm_start(self, policy: str) -> None:
        """Starts around the parameters of a pipeline file with the same modules, with the step size of the settings.

        Raises:
            PolicyError: its modules, their order or its preprocessing are others.
        """
        given = initial_pipeline(policy, self.config.modules, self.config.preprocessing)
        rows = [starting_row(m, stage.params) for m, stage in zip(self.modules, given.stages, strict=True)]
        self.distribution = Distribution.around(torch.cat(rows).double(), self.config.sigma)

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {"distribution": dict(vars(self.distribution)), "counters": [self.iteration, self.passes]}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`.

        Raises:
            ValueError: it has another number of parameters.
        """
        given = Distribution(**content["distribution"])
        if given.mean.shape != self.distribution.mean.shape:
            raise ValueError("the distribution is over another number of parameters")
        self.distribution = given
        self.iteration, self.passes = content["counters"]

"""One pipeline for all images, its parameters found without gradients by CMA-ES: what black-box ISP tuning does.

The modules and their order are given, as for `fixed`; so is the space, one unbounded z a parameter. An iteration is a
generation: λ pipelines, all on the same minibatch, so that what differs between their mean losses is the pipeline and
not the images (common random numbers). The policy is the mean of the distribution. Only the order of the losses
counts: the detector's loss needs no gradient.

Source: Hansen 2016 (the method, see `cma`); Mosleh et al. 2020, Hardware-in-the-loop end-to-end optimization of camera
image processing pipelines (CMA-ES for the parameters of an ISP by a detector's loss). Differs: one loss, a fresh
minibatch each generation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
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
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.training.methods import fixed
from adaptiveisp.training.methods.cma_distribution import Constants, Distribution, default_population
from adaptiveisp.training.methods.learner import Clock, Metrics, Precision, pipeline_to_start_from
from adaptiveisp.training.methods.minibatch import Minibatch, pipeline_losses, take
from adaptiveisp.types import Detector
from adaptiveisp.utils.config import require

Vector = Float[Tensor, " n"]


@dataclass(frozen=True)
class CmaEsConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set whose ranges the parameters keep.
        modules: names in the order they run.
        initial: module → parameter → value at the start, as for `fixed`; the others begin at their neutral values.
        start: "raw", "auto-exposure" or "auto-gain": what comes first, see `policies.STARTS`.
        population: λ, pipelines a generation; 0 takes 4 + ⌊3 ln n⌋ for n parameters.
        batch: images a generation, the same for all its pipelines: λ·batch passes through the detector.
        size: side of the square training images in pixels.
        smallest_crop: side of the crop that they show, relative to the shorter side of the photo or raw, at least.
        sigma: step size at the start, in units of z.
        precision: of the detector's network.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: fixed.Values = field(default_factory=dict)
    start: Preprocessing = "raw"
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
"""The pipeline and the start of `fixed`: all ten modules, 27 parameters, so 13 pipelines a generation. With 8 images
that is 104 passes: a budget of 12,000 holds 116 generations; more images would leave too few, fewer too much noise in
the ranks."""

AFTER_AUTO_EXPOSURE = replace(RAW, start="auto-exposure", initial={})
"""The same modules after auto-exposure's three stages, from their neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


class CmaEs:
    """The learner: a distribution over z, and one `iterate` that moves it by a generation.

    Args:
        config: settings.
        stream: training images by number.
        detector: the frozen detector.
        budget: image passes through the detector after which the run is done.
        seed: of the run; each generation draws by (seed, iteration).
        device: where images are, and the detector.
    """

    def __init__(
        self,
        config: CmaEsConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector, self.budget, self.seed = config, stream, detector, budget, seed
        self.device = device
        self.modules = tuple(find_module(name, config.module_set) for name in config.modules)
        require(any(module.params for module in self.modules), "modules must have a parameter")
        rows = [starting_row(module, config.initial.get(module.name, {})) for module in self.modules]
        self.distribution = Distribution.around(torch.cat(rows).double(), config.sigma)
        n = len(self.distribution.mean)
        self.population = config.population or default_population(n)
        self.constants = Constants.of(n, self.population)
        self.iteration = 0
        self.passes = 0

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.passes >= self.budget

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One generation: its metrics, and the seconds of its parts.

        Raises:
            NonFiniteLossError: a pipeline's loss is NaN or infinite; nothing was changed by it.
        """
        clock = Clock.started()
        config = self.config
        first = self.iteration * config.batch
        batch = take(self.stream, first, config.batch, config.start, config.module_set, self.device)
        clock.lap("data")
        generator = seeded_generator(self.seed, self.iteration, 0, "cma_es")
        points = self.distribution.ask(self.population, generator)
        losses = torch.stack([self._loss(point, batch) for point in points])
        clock.lap("modules and detector")
        self.distribution = self.distribution.told(points, losses, self.constants)
        clock.lap("distribution")
        measured = losses[losses.isfinite()]
        self.iteration += 1
        self.passes += len(measured) * config.batch
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": float(measured.mean()),
            "best_loss": float(measured.min()),
            "gradient_norm": {},
            "sigma": self.distribution.sigma,
            "axis_ratio": self.distribution.axis_ratio,
            "parameters": {stage.module: dict(stage.params) for stage in self.pipeline.stages},
        }
        return metrics, clock.seconds

    def _loss(self, point: Vector, batch: Minibatch) -> Float[Tensor, ""]:
        """The mean loss of a point's pipeline on the batch; infinite, without a pass, where it is no pipeline."""
        try:
            pipeline = self._pipeline_at(point)
        except PipelineError:  # a colour matrix whose row sums to zero, which z can come to by chance
            return torch.tensor(math.inf, dtype=torch.float64)
        return pipeline_losses(pipeline, batch, self.detector, self.config.precision).mean()

    def _pipeline_at(self, point: Vector) -> Pipeline:
        rows = torch.split(point, [len(module.params) for module in self.modules])
        return pipeline_of(self.modules, rows, self.config.module_set)

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline at the mean of the distribution."""
        return self._pipeline_at(self.distribution.mean)

    def policy(self) -> FixedPipeline:
        """The policy as it stands."""
        return FixedPipeline(self.pipeline, "cma_es", self.config.start)

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.json: a pipeline file, with the start it needs and where it came from."""
        save_fixed(folder / f"{stem}.json", self.policy(), provenance=provenance)

    def warm_start(self, policy: str) -> None:
        """Begins around the parameters of a pipeline file with the same modules, with the step size of the settings.

        Raises:
            PolicyError: its modules, their order or its start are others.
        """
        given = pipeline_to_start_from(policy, self.config.modules, self.config.start)
        rows = [starting_row(m, stage.params) for m, stage in zip(self.modules, given.stages, strict=True)]
        self.distribution = Distribution.around(torch.cat(rows).double(), self.config.sigma)

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {"distribution": dict(vars(self.distribution)), "counters": [self.iteration, self.passes]}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            ValueError: it has another number of parameters.
        """
        given = Distribution(**content["distribution"])
        if given.mean.shape != self.distribution.mean.shape:
            raise ValueError("the distribution is over another number of parameters")
        self.distribution = given
        self.iteration, self.passes = content["counters"]

"""Random search over pipelines: the baseline that every other method has to beat.

A random pipeline has a random length, random modules in a random order, and parameters z that are normal around their
initial values. A bracket is a set of random pipelines that is halved repeatedly (successive halving): all of them are
scored on the same few images, the better half by the mean loss so far is scored on twice as many new images, and so on
until one pipeline is left. The lowest of many noisy scores is low partly by chance, so these scores are not used again.
In a duel the winner and the best pipeline so far are scored on the same new images, and the winner replaces the other
only if its mean loss is lower by more than a standard error of the paired differences. Keeping the lowest score so far
would instead select the luckiest pipeline, increasingly so in longer runs.

An iteration is one rung of a bracket or its duel. The initial best pipeline has no modules after the preprocessing.

Source: Bergstra and Bengio 2012 (random search); Jamieson and Talwalkar 2016 (successive halving). Differs: the duel.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.errors import PipelineError, PolicyError
from adaptiveisp.isp.logits import pipeline_of, starting_row
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import HORIZON
from adaptiveisp.policies.fixed import load_fixed
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import Precision
from adaptiveisp.training.methods import fixed
from adaptiveisp.training.methods.learner import Metrics, PipelineLearner
from adaptiveisp.training.methods.minibatch import Minibatch, pipeline_losses, take
from adaptiveisp.types import Detector
from adaptiveisp.utils.config import renamed, require


@dataclass(frozen=True)
class RandomSearchConfig:
    """Settings of a run, all of which are kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the parameters.
        modules: names of the modules to draw from; empty for all of the set. A run writes them out.
        initial: module → parameter → value around which it is drawn; all others are drawn around their neutral values.
        preprocessing: heuristic whose stages run before the pipeline: "raw" for none, "auto-exposure" or "auto-gain".
        longest: largest number of modules in a pipeline; all lengths from 1 to this are equally likely.
        spread: standard deviation of a parameter around that value, in units of z.
        candidates: number of pipelines in a bracket, a power of two.
        batch: images of a bracket's first rung; each later rung has twice as many.
        duel: images on which the winner of a bracket is compared with the best pipeline so far.
        size: side of the square training images in pixels.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        precision: of the detector's network.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: fixed.Values = field(default_factory=dict)
    preprocessing: Preprocessing = renamed("start", default="raw")
    longest: int = HORIZON
    spread: float = 0.5
    candidates: int = 32
    batch: int = 4
    duel: int = 64
    size: int = 320
    smallest_crop: float = SMALLEST_CROP
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        require(self.batch >= 1 and self.size >= 1, "batch and size must be at least 1")
        require(self.longest >= 1, "longest must be at least 1")
        require(self.spread > 0, "spread must be positive")
        require(self.duel >= 2, "duel must be at least 2: a standard error needs two images")
        power = self.candidates >= 2 and self.candidates & (self.candidates - 1) == 0
        require(power, "candidates must be a power of two, at least 2")
        fixed.check_modules(self.module_set, self.chosen, self.initial)

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the modules to draw from."""
        return self.modules or tuple(module.name for module in modules_of(self.module_set))

    def bracket_passes(self, candidates: int) -> int:
        """Detector passes of a bracket with its duel.

        Args:
            candidates: number of pipelines at the beginning of the bracket.

        >>> RandomSearchConfig(batch=4, duel=64).bracket_passes(32)  # 5 rungs of 32 · 4, and 2 · 64
        768
        """
        return candidates * self.batch * int(math.log2(candidates)) + 2 * self.duel


RAW = RandomSearchConfig(initial=fixed.RAW.initial)
"""Starts from the raw, around the initial values of `fixed`. A bracket costs 768 passes, so a budget of 12,000 holds 15
brackets and a smaller one, with about 500 pipelines in all."""

AFTER_AUTO_EXPOSURE = replace(RAW, preprocessing="auto-exposure", initial={})
"""After the three stages of auto-exposure, around neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


@dataclass(frozen=True)
class Candidate:
    """A pipeline of the current bracket.

    Attributes:
        pipeline: its stages after the preprocessing.
        total: sum of its losses over the images of all rungs so far.
    """

    pipeline: Pipeline
    total: float = 0.0


class RandomSearch(PipelineLearner[RandomSearchConfig]):
    """Keeps the best pipeline and the current bracket, of which an iteration does the next rung.

    The arguments are those of `BaseLearner`. The budget is never exceeded: the last bracket is made small enough. Each
    pipeline is drawn from (seed, bracket, its number).

    Raises:
        UsageError: the budget does not hold the smallest bracket.
    """

    name = "random_search"

    def __init__(
        self,
        config: RandomSearchConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        least = config.bracket_passes(2)
        require(
            budget >= least,
            f"budget must be at least {least}: two pipelines on {config.batch} images each, and a comparison of the "
            f"better one with the best so far on {config.duel} images; raise the budget, or lower batch or duel",
        )
        self.best = Pipeline((), config.module_set)
        self.candidates: list[Candidate] = []
        self.bracket = 0
        self.rung = 0
        self.images = 0

    @property
    def done(self) -> bool:
        """Whether the rest of the budget is too small for another bracket."""
        return not self.candidates and self.budget - self.passes < self.config.bracket_passes(2)

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one rung or duel and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: a pipeline's loss is NaN or infinite; the bracket was not changed by it.
        """
        clock = Clock.started()
        candidates = self.candidates or self._new_candidates()
        duel = len(candidates) == 1
        n = self.config.duel if duel else self.config.batch * 2**self.rung
        batch = take(self.stream, self.images, n, self.config.preprocessing, self.config.module_set, self.device)
        clock.lap("data")
        pipelines = [*(candidate.pipeline for candidate in candidates), *([self.best] if duel else [])]
        losses = torch.stack([self._losses(pipeline, batch) for pipeline in pipelines])
        clock.lap("modules and detector")
        if duel:
            if clearly_lower(losses[0], losses[1]):
                self.best = candidates[0].pipeline
            self.candidates, self.rung = [], 0
            self.bracket += 1
        else:
            self.candidates = better_half(candidates, losses)
            self.rung += 1
        self.images += n
        self.iteration += 1
        self.passes += losses.numel()
        means = losses.mean(dim=1)
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": float(means.mean()),
            "best_loss": float(means.min()),
            "gradient_norm": {},
            "brackets": self.bracket,
            "pipelines": len(pipelines),
            "kept": {stage.module: dict(stage.params) for stage in self.best.stages},
        }
        return metrics, clock.seconds

    def _new_candidates(self) -> list[Candidate]:
        """Random pipelines for the next bracket, fewer than in the settings where the budget ends."""
        n = self.config.candidates
        while n > 2 and self.passes + self.config.bracket_passes(n) > self.budget:
            n //= 2
        generators = (seeded_generator(self.seed, self.bracket, number, "random_search") for number in range(n))
        return [Candidate(random_pipeline(self.config, generator)) for generator in generators]

    def _losses(self, pipeline: Pipeline, batch: Minibatch) -> Float[Tensor, " batch"]:
        return pipeline_losses(pipeline, batch, self.detector, self.config.precision)

    @property
    def pipeline(self) -> Pipeline:
        """The best pipeline so far, by the duels."""
        return self.best

    def warm_start(self, policy: str) -> None:
        """Makes the pipeline of a file the initial best one; it may have any modules.

        Raises:
            PolicyError: its preprocessing is another.
        """
        given = load_fixed(policy_file(policy))
        if given.preprocessing != self.config.preprocessing:
            raise PolicyError(f"{policy}: has the preprocessing {given.preprocessing}; set preprocessing to the same")
        self.best = given.pipeline

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {
            "kept": self.best.to_json(),
            "candidates": [(candidate.pipeline.to_json(), candidate.total) for candidate in self.candidates],
            "counters": [self.bracket, self.rung, self.images, self.iteration, self.passes],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        self.best = Pipeline.from_json(content["kept"], "kept")
        self.candidates = [Candidate(Pipeline.from_json(one), total) for one, total in content["candidates"]]
        self.bracket, self.rung, self.images, self.iteration, self.passes = content["counters"]


def random_pipeline(config: RandomSearchConfig, generator: torch.Generator) -> Pipeline:
    """A pipeline of distinct modules in random order with random parameters.

    Args:
        config: its modules, longest and spread are used.
        generator: draws the pipeline.
    """
    longest = min(config.longest, len(config.chosen))
    while True:  # drawn again if a row of a colour matrix sums to zero, which is not valid
        length = 1 + int(torch.randint(longest, (), generator=generator))
        order = torch.randperm(len(config.chosen), generator=generator)[:length].tolist()
        modules = [find_module(config.chosen[index], config.module_set) for index in order]
        rows = []
        for module in modules:
            around = starting_row(module, config.initial.get(module.name, {})).double()
            rows.append(around + config.spread * torch.randn(around.shape, dtype=torch.float64, generator=generator))
        try:
            return pipeline_of(modules, rows, config.module_set)
        except PipelineError:
            continue


def better_half(candidates: list[Candidate], losses: Float[Tensor, "pipelines images"]) -> list[Candidate]:
    """The half of the candidates with the lower sums of losses, in their given order; ties go to the earlier one.

    Args:
        candidates: with their sums over the earlier rungs.
        losses: of this rung, on the same images for all.
    """
    totals = losses.sum(dim=1) + losses.new_tensor([candidate.total for candidate in candidates])
    kept = sorted(totals.argsort(stable=True)[: len(candidates) // 2].tolist())
    return [Candidate(candidates[place].pipeline, float(totals[place])) for place in kept]


def clearly_lower(ours: Float[Tensor, " images"], theirs: Float[Tensor, " images"]) -> bool:
    """Whether the mean of `ours` is lower by more than a standard error of the paired differences.

    >>> clearly_lower(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.1, 2.2, 3.1]))
    True
    >>> clearly_lower(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    False
    """
    differences = theirs - ours
    return bool(differences.mean() > differences.std() / math.sqrt(len(differences)))

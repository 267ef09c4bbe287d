"""Random pipelines, the best of them kept: what a method has to beat before its cleverness counts for anything.

A pipeline is drawn by its length, then its modules and their order, then a normal z around the start of each parameter.
A bracket draws some of them and halves them: all are scored on the same few images, the better half goes on to twice as
many fresh ones, by the mean over all it has seen, until one is left (successive halving). The minimum of many noisy
scores is low by luck, so the winner's own scores do not count any more: in a duel both it and the pipeline kept so far
see the same fresh images, and it takes over only if its mean loss is lower by more than a standard error of the paired
differences. Plain "best score so far" would keep the luckiest pipeline instead, and the more so the longer it runs.

An iteration is one rung of a bracket, or its duel. The first pipeline kept is the start alone, with no module after it.

Source: Bergstra and Bengio 2012 (random search); Jamieson and Talwalkar 2016 (successive halving); the duel is ours.
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
from adaptiveisp.errors import PipelineError, PolicyError
from adaptiveisp.isp.logits import pipeline_of, starting_row
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import HORIZON
from adaptiveisp.policies.fixed import FixedPipeline, load_fixed, save_fixed
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.training.methods import fixed
from adaptiveisp.training.methods.learner import Clock, Metrics, Precision
from adaptiveisp.training.methods.minibatch import Minibatch, pipeline_losses, take
from adaptiveisp.types import Detector
from adaptiveisp.utils.config import require


@dataclass(frozen=True)
class RandomSearchConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set whose ranges the parameters keep.
        modules: names to draw from; none takes all of the set.
        initial: module → parameter → value around which it is drawn; the others are drawn around their neutral values.
        start: "raw", "auto-exposure" or "auto-gain": what comes first, see `policies.STARTS`.
        longest: modules of a pipeline at most; lengths from 1 to this are equally likely.
        spread: standard deviation of a parameter around that value, in units of z.
        candidates: pipelines of a bracket, a power of two.
        batch: images of a bracket's first rung; each later rung has twice as many.
        duel: images on which a bracket's winner meets the pipeline kept so far.
        size: side of the square training images in pixels.
        smallest_crop: side of the crop that they show, relative to the shorter side of the photo or raw, at least.
        precision: of the detector's network.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: fixed.Values = field(default_factory=dict)
    start: Preprocessing = "raw"
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
        fixed.check_modules(self.module_set, self.names, self.initial)

    @property
    def names(self) -> tuple[str, ...]:
        """The modules to draw from."""
        return self.modules or tuple(module.name for module in modules_of(self.module_set))

    def bracket_passes(self, candidates: int) -> int:
        """Detector passes of a bracket that begins with so many pipelines, its duel with them.

        >>> RandomSearchConfig(batch=4, duel=64).bracket_passes(32)  # 5 rungs of 32 · 4, and 2 · 64
        768
        """
        return candidates * self.batch * int(math.log2(candidates)) + 2 * self.duel


RAW = RandomSearchConfig(initial=fixed.RAW.initial)
"""From the raw, around the values that `fixed` begins at. A bracket takes 768 passes: 12,000 hold 15 of them and what
a smaller one needs, about 500 pipelines in all."""

AFTER_AUTO_EXPOSURE = replace(RAW, start="auto-exposure", initial={})
"""After auto-exposure's three stages, around neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


@dataclass(frozen=True)
class Candidate:
    """A pipeline of the bracket that goes on.

    Attributes:
        pipeline: its stages after the start.
        total: sum of its losses over the images of all rungs so far.
    """

    pipeline: Pipeline
    total: float = 0.0


class RandomSearch:
    """The learner: a pipeline that is kept, the bracket that goes on, and one `iterate` that does its next rung.

    Args:
        config: settings.
        stream: training images by number.
        detector: the frozen detector.
        budget: image passes through the detector, never exceeded: the last bracket is made small enough.
        seed: of the run; each pipeline is drawn by (seed, bracket, its place).
        device: where images are, and the detector.

    Raises:
        UsageError: the budget does not hold the smallest bracket.
    """

    def __init__(
        self,
        config: RandomSearchConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector, self.budget, self.seed = config, stream, detector, budget, seed
        self.device = device
        least = config.bracket_passes(2)
        require(budget >= least, f"budget must be at least {least}: two pipelines and their duel, see batch and duel")
        self.kept = Pipeline((), config.module_set)
        self.candidates: list[Candidate] = []
        self.bracket = 0
        self.rung = 0
        self.images = 0
        self.iteration = 0
        self.passes = 0

    @property
    def done(self) -> bool:
        """Whether what is left of the budget holds no further bracket."""
        return not self.candidates and self.budget - self.passes < self.config.bracket_passes(2)

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One rung or duel: its metrics, and the seconds of its parts.

        Raises:
            NonFiniteLossError: a pipeline's loss is NaN or infinite; nothing was changed by it.
        """
        clock = Clock.started()
        candidates = self.candidates or self._drawn()
        duel = len(candidates) == 1
        n = self.config.duel if duel else self.config.batch * 2**self.rung
        batch = take(self.stream, self.images, n, self.config.start, self.config.module_set, self.device)
        clock.lap("data")
        pipelines = [*(candidate.pipeline for candidate in candidates), *([self.kept] if duel else [])]
        losses = torch.stack([self._losses(pipeline, batch) for pipeline in pipelines])
        clock.lap("modules and detector")
        if duel:
            if clearly_lower(losses[0], losses[1]):
                self.kept = candidates[0].pipeline
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
            "kept": {stage.module: dict(stage.params) for stage in self.kept.stages},
        }
        return metrics, clock.seconds

    def _drawn(self) -> list[Candidate]:
        """The pipelines of the next bracket: fewer than the settings' where the budget ends."""
        n = self.config.candidates
        while n > 2 and self.passes + self.config.bracket_passes(n) > self.budget:
            n //= 2
        generators = (seeded_generator(self.seed, self.bracket, place, "random_search") for place in range(n))
        return [Candidate(random_pipeline(self.config, generator)) for generator in generators]

    def _losses(self, pipeline: Pipeline, batch: Minibatch) -> Float[Tensor, " batch"]:
        return pipeline_losses(pipeline, batch, self.detector, self.config.precision)

    def policy(self) -> FixedPipeline:
        """The policy as it stands: the pipeline that won the last duel."""
        return FixedPipeline(self.kept, "random_search", self.config.start)

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.json: a pipeline file, with the start it needs and where it came from."""
        save_fixed(folder / f"{stem}.json", self.policy(), provenance=provenance)

    def warm_start(self, policy: str) -> None:
        """The pipeline of a file is the first one kept: what is drawn has to beat it. Its modules may be any.

        Raises:
            PolicyError: its start is another.
        """
        given = load_fixed(policy_file(policy))
        if given.preprocessing != self.config.start:
            raise PolicyError(f"{policy}: has the start {given.preprocessing}; set start as it has it")
        self.kept = given.pipeline

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            "kept": self.kept.to_json(),
            "candidates": [(candidate.pipeline.to_json(), candidate.total) for candidate in self.candidates],
            "counters": [self.bracket, self.rung, self.images, self.iteration, self.passes],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        self.kept = Pipeline.from_json(content["kept"], "kept")
        self.candidates = [Candidate(Pipeline.from_json(one), total) for one, total in content["candidates"]]
        self.bracket, self.rung, self.images, self.iteration, self.passes = content["counters"]


def random_pipeline(config: RandomSearchConfig, generator: torch.Generator) -> Pipeline:
    """A pipeline of distinct modules in random order with random parameters.

    Args:
        config: says from what, how long and how wide.
        generator: the same one gives the same pipeline.
    """
    longest = min(config.longest, len(config.names))
    while True:  # until it is a pipeline: the rows of a colour matrix may by chance sum to zero
        length = 1 + int(torch.randint(longest, (), generator=generator))
        order = torch.randperm(len(config.names), generator=generator)[:length].tolist()
        modules = [find_module(config.names[index], config.module_set) for index in order]
        rows = []
        for module in modules:
            around = starting_row(module, config.initial.get(module.name, {})).double()
            rows.append(around + config.spread * torch.randn(around.shape, dtype=torch.float64, generator=generator))
        try:
            return pipeline_of(modules, rows, config.module_set)
        except PipelineError:
            continue


def better_half(candidates: list[Candidate], losses: Float[Tensor, "pipelines images"]) -> list[Candidate]:
    """The half with the lower sums of losses so far, in the order they came; of equal ones the earlier.

    Args:
        candidates: with their sums of the rungs before.
        losses: of this rung, on the same images for all.
    """
    totals = losses.sum(dim=1) + losses.new_tensor([candidate.total for candidate in candidates])
    places = sorted(totals.argsort(stable=True)[: len(candidates) // 2].tolist())
    return [Candidate(candidates[place].pipeline, float(totals[place])) for place in places]


def clearly_lower(ours: Float[Tensor, " images"], theirs: Float[Tensor, " images"]) -> bool:
    """Whether the mean of `ours` is lower by more than a standard error of the paired differences.

    >>> clearly_lower(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.1, 2.2, 3.1]))
    True
    >>> clearly_lower(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    False
    """
    differences = theirs - ours
    return bool(differences.mean() > differences.std() / math.sqrt(len(differences)))

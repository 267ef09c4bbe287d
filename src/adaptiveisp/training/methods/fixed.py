"""One pipeline for all images whose parameters are learned by gradient: the baseline of every adaptive policy.

The modules and their order are given. Each parameter is one number z, which the module maps into its range in the same
way as a network's output. An iteration takes a batch of new images and moves all z along the negative gradient of the
frozen detector's mean loss. With `preprocessing: auto-exposure` each image first runs through its own heuristic stages.

Source: Wang et al. 2024 (AdaptiveISP) compare with fixed pipelines that have optimised parameters, for instance those
of Mosleh et al. 2020 (Hardware-in-the-loop end-to-end optimization). Here the modules are differentiable, so that the
parameters are learned by gradient descent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.data.references import stacked_references
from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.isp.costs import CostSetting, check_costs
from adaptiveisp.isp.logits import pipeline_of, starting_row
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.latency import check_latency
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import Precision, optimiser_step
from adaptiveisp.training.methods.learner import Metrics, NonFiniteLossError, PipelineLearner, initial_pipeline
from adaptiveisp.training.methods.module_choice import find_runnable
from adaptiveisp.training.rl.colour import colour_penalty, highlight_penalty
from adaptiveisp.training.rl.rewards import DETECTION_SCALE
from adaptiveisp.training.run_state import check_optimiser
from adaptiveisp.training.split_batch import own_leaf, rejoined, split_losses
from adaptiveisp.types import Detector, Image
from adaptiveisp.utils.config import renamed, require

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class FixedConfig:
    """Settings of a run, all of which are kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the parameters.
        modules: names in the order they run.
        initial: module → parameter → initial value, kept 0.1 % of the range away from its ends. All others start at
            their neutral values, kept 2 % away from the ends, because the mapping of z has no slope there: denoise
            starts at h = 0.02 instead of 0.
        preprocessing: heuristic whose stages run before the pipeline: "raw" for none, "auto-exposure" or "auto-gain".
        batch: images in an iteration.
        size: side of the square training images in pixels.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        rate: initial learning rate of Adam, in units of z.
        rate_decay: powers of ten by which the rate falls over the run.
        colour_weight, highlight_weight: penalties on casts and burnt highlights, as in the method `sequence`: relative
            to 100 times the detector's loss.
        precision: of the detector's network while training.
        latency_ms: X, most milliseconds of policy and modules for 95 % of the images on this machine, by the clock
            table that the run measures; modules for which there is no time are left out. None for no limit. See
            `training.latency`.
        policy_ms, step_ms: the policy's own time in that table, and what it grows by with each module that it chooses;
            a run fills them in.
        excess_ms: what 95 % of the images take beyond that table's sum, for a latency; a run fills it in.
        costs: module → milliseconds of that table, which a run with a latency writes out here.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: Values = field(default_factory=dict)
    preprocessing: Preprocessing = renamed("start", default="raw")
    batch: int = 8
    size: int = 320
    smallest_crop: float = SMALLEST_CROP
    rate: float = 0.05
    rate_decay: float = 1.5
    colour_weight: float = 0.0
    highlight_weight: float = 0.0
    precision: Precision = "auto"
    latency_ms: float | None = None
    policy_ms: float = 0.0
    step_ms: float = 0.0
    excess_ms: float = 0.0
    costs: CostSetting = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        require(self.batch >= 1 and self.size >= 1, "batch and size must be at least 1")
        require(self.rate > 0 and self.rate_decay >= 0, "rate must be positive, rate_decay not negative")
        require(self.colour_weight >= 0, "colour_weight must not be negative")
        require(self.highlight_weight >= 0, "highlight_weight must not be negative")
        check_modules(self.module_set, self.modules, self.initial)
        check_costs(self.costs, self.modules)
        check_latency(self.latency_ms, self.policy_ms, self.step_ms, self.excess_ms)


def check_modules(module_set: str, modules: tuple[str, ...], initial: Values) -> None:
    """Refuses modules that the set lacks, and initial values that are out of range or of other modules.

    Raises:
        PipelineError, UsageError: names what is wrong.
    """
    for name in modules:
        find_runnable(name, module_set)
    for name, values in initial.items():
        require(name in modules, f"initial: {name!r} is not one of the modules {', '.join(modules)}")
        module = find_module(name, module_set)
        module.check({**module.neutral_params, **values})


RAW = FixedConfig(
    modules=(
        "denoise",
        "white_balance",
        "exposure",
        "ccm",
        "gamma",
        "tone",
        "contrast",
        "saturation",
        "desaturation",
        "sharpen",
    ),
    initial={"denoise": {"h": 0.002}, "exposure": {"ev": 4.0}, "gamma": {"gamma": 0.45}},
)
"""All ten modules in the order of a camera, with a gain of 16 and about the sRGB curve as initial values, so that the
first images are bright enough for the detector. The denoiser works on the dark linear raw, where a strength of 0.02
already blurs. It runs first because no gradient has to pass through it there, which halves its time."""

AFTER_AUTO_EXPOSURE = replace(RAW, preprocessing="auto-exposure", initial={})
"""The same modules after the three stages of auto-exposure, from their neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


class Fixed(PipelineLearner[FixedConfig]):
    """Learns the parameters of one pipeline; the arguments are those of `BaseLearner`."""

    name = "fixed"

    def __init__(
        self,
        config: FixedConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        self.modules = tuple(find_module(name, config.module_set) for name in config.modules)
        rows = [starting_row(module, config.initial.get(module.name, {})) for module in self.modules if module.params]
        self.rows = [nn.Parameter(row.to(device)) for row in rows]
        self.optimiser = torch.optim.Adam([{"params": self.rows, "start": config.rate}])

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one iteration and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite; no parameter was changed by it.
        """
        clock = Clock.started()
        config = self.config
        sources = self.load(self.iteration * config.batch, config.batch)
        image = torch.stack([source.image for source in sources]).to(self.device)
        image = preprocessed_image(image, config.preprocessing, config.module_set)
        clock.lap("data")
        counts = self.ranks.counts(config.batch)
        rendered = self._rendered(image, counts)
        clock.lap("modules")
        targets = [source.targets for source in sources]
        loss = split_losses(self.ranks, counts, self.detector, rendered, targets, config.precision, clock).mean()
        found, reference = loss, stacked_references([source.reference for source in sources])
        if config.colour_weight or config.highlight_weight:
            loss = loss + self._penalty(rendered, reference) / DETECTION_SCALE
        if not loss.isfinite():
            numbers = [source.number for source in sources]
            batch = {"iteration": self.iteration, "numbers": numbers, "images": image, "rows": list(self.rows)}
            raise NonFiniteLossError(f"the loss is not finite at iteration {self.iteration}", batch)
        scale = 0.1 ** (config.rate_decay * self.progress)
        norms = optimiser_step({"parameters": self.rows}, self.optimiser, loss, scale, None, self.ranks)
        clock.lap("backward")
        self.iteration += 1
        self.passes += config.batch
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": found.item(),
            "gradient_norm": norms,
            "parameters": {stage.module: dict(stage.params) for stage in self.pipeline.stages},
        }
        return metrics, clock.seconds

    def _penalty(self, rendered: Image, reference: Float[Tensor, "batch 3 64 64"] | None) -> Float[Tensor, ""]:
        """The penalties on casts and burnt highlights, in units of 100 times the detector's loss."""
        reference = None if reference is None else reference.to(rendered.device)
        casts = self.config.colour_weight * colour_penalty(rendered, reference)
        return (casts + self.config.highlight_weight * highlight_penalty(rendered, reference)).mean()

    def _rendered(self, image: Image, counts: Sequence[int]) -> Image:
        """All images after the modules, of which each rank renders its number in `counts`."""
        rows = iter(self.rows)
        logits = [next(rows) if module.params else image.new_zeros(0) for module in self.modules]
        pairs = zip(self.modules, logits, strict=True)
        params = [module.params_from_logits(row[None]).expand(len(image), -1) for module, row in pairs]
        if self.ranks.alone or not params:
            return self._render(image, params)
        whole = torch.cat(params, dim=1)
        leaf = own_leaf(self.ranks, whole, counts)
        own = torch.split(leaf, [one.shape[1] for one in params], dim=1)
        made = self._render(image[self.ranks.own(counts)], own)
        return rejoined(self.ranks, whole, [leaf], made, counts)

    def _render(self, image: Image, params: Sequence[Float[Tensor, "_ _"]]) -> Image:
        """The images after the modules, whose parameters have a row for each image."""
        for module, values in zip(self.modules, params, strict=True):
            image = module(image, values)
        return image

    @property
    def pipeline(self) -> Pipeline:
        """The current pipeline."""
        rows = iter(self.rows)
        every = [next(rows) if module.params else torch.zeros(0) for module in self.modules]
        return pipeline_of(self.modules, every, self.config.module_set)

    def warm_start(self, policy: str) -> None:
        """Starts from the parameters of a pipeline file with the same modules.

        Raises:
            PolicyError: its modules, their order or its preprocessing differ from those of the settings.
        """
        given = initial_pipeline(policy, self.config.modules, self.config.preprocessing)
        values = [starting_row(m, s.params) for m, s in zip(self.modules, given.stages, strict=True) if m.params]
        for row, value in zip(self.rows, values, strict=True):
            row.data.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {
            "rows": [row.detach().clone() for row in self.rows],
            "optimiser": self.optimiser.state_dict(),
            "counters": [self.iteration, self.passes],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        for row, value in zip(self.rows, content["rows"], strict=True):
            row.data.copy_(value)
        check_optimiser(content["optimiser"], self.optimiser, "optimiser")
        self.optimiser.load_state_dict(content["optimiser"])
        self.iteration, self.passes = content["counters"]

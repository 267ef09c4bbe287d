"""One pipeline for all images, its parameters learned by gradient: the honest opponent of every adaptive policy.

The modules and their order are given; each parameter is one number z that a module squashes into its range, as it
does with a network's output. An iteration takes a batch of fresh images and moves all z down the gradient of the
frozen detector's mean loss. With `start: auto-exposure` each image goes through its own heuristic stages first.

Source: the fixed pipelines with optimised parameters that Wang et al. 2024 (AdaptiveISP) compare with, for instance
Mosleh et al. 2020 (Hardware-in-the-loop end-to-end optimization); straight gradients as the modules are differentiable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.isp.logits import pipeline_of, starting_row
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.training.methods.learner import (
    Clock,
    Metrics,
    NonFiniteLossError,
    Precision,
    differentiated_loss,
    optimiser_step,
    pipeline_to_start_from,
)
from adaptiveisp.training.run_state import check_optimiser
from adaptiveisp.types import Detector, Image
from adaptiveisp.utils.config import require

Values = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class FixedConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set whose ranges the parameters keep.
        modules: names in the order they run.
        initial: module → parameter → value at the start, moved 0.1 % of the range off its ends; the others begin at
            their neutral values, moved off by 2 %, since a squashing has no slope at an end: denoise begins at
            h = 0.02, not 0.
        start: "raw", "auto-exposure" or "auto-gain": what comes first, see `policies.STARTS`.
        batch: images an iteration.
        size: side of the square training images in pixels.
        smallest_crop: side of the crop that they show, relative to the shorter side of the photo or raw, at least.
        rate: learning rate of Adam at the start, in units of z.
        rate_decay: powers of ten that it falls over the run.
        precision: of the detector's network while training.
    """

    module_set: str = "wide"
    modules: tuple[str, ...] = ()
    initial: Values = field(default_factory=dict)
    start: Preprocessing = "raw"
    batch: int = 8
    size: int = 320
    smallest_crop: float = SMALLEST_CROP
    rate: float = 0.05
    rate_decay: float = 1.5
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        require(self.batch >= 1 and self.size >= 1, "batch and size must be at least 1")
        require(self.rate > 0 and self.rate_decay >= 0, "rate must be positive, rate_decay not negative")
        check_modules(self.module_set, self.modules, self.initial)


def check_modules(module_set: str, modules: tuple[str, ...], initial: Values) -> None:
    """Refuses modules that the set does not have, and starting values of others or out of range.

    Raises:
        PipelineError, UsageError: names what is wrong.
    """
    for name in modules:
        find_module(name, module_set)
    for name, values in initial.items():
        require(name in modules, f"initial: {name!r} is none of the modules {', '.join(modules)}")
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
"""All ten modules in the order of a camera, from a gain of 16 and about the sRGB curve: a start that can be seen. The
denoiser works on the dark linear raw, where a strength of 0.02 would already blur.

Denoise comes first, where no gradient has to go through it to the image: that halves its time."""

AFTER_AUTO_EXPOSURE = replace(RAW, start="auto-exposure", initial={})
"""The same modules after auto-exposure's three stages, from their neutral values."""

PRESETS = {"raw": RAW, "auto-exposure": AFTER_AUTO_EXPOSURE}


class Fixed:
    """The learner: one z a parameter, an optimiser, and one `iterate` that moves both.

    Args:
        config: settings.
        stream: training images by number.
        detector: the frozen detector.
        budget: image passes through the detector after which the run is done.
        seed: of the run; the stream's order depends on it, nothing is sampled here.
        device: where images and parameters are, and the detector.
    """

    def __init__(
        self,
        config: FixedConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector, self.budget = config, stream, detector, budget
        self.device = device
        self.modules = tuple(find_module(name, config.module_set) for name in config.modules)
        rows = [starting_row(module, config.initial.get(module.name, {})) for module in self.modules if module.params]
        self.rows = [nn.Parameter(row.to(device)) for row in rows]
        self.optimiser = torch.optim.Adam([{"params": self.rows, "start": config.rate}])
        self.iteration = 0
        self.passes = 0

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.passes >= self.budget

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One iteration: its metrics, and the seconds of its parts.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite; nothing was changed by it.
        """
        clock = Clock.started()
        config = self.config
        sources = [self.stream[self.iteration * config.batch + i] for i in range(config.batch)]
        image = torch.stack([source.image for source in sources]).to(self.device)
        image = preprocessed_image(image, config.start, config.module_set)
        clock.lap("data")
        rendered = self._render(image)
        clock.lap("modules")
        targets = [source.targets for source in sources]
        loss = differentiated_loss(self.detector, rendered, targets, config.precision, clock).mean()
        if not loss.isfinite():
            numbers = [source.number for source in sources]
            batch = {"iteration": self.iteration, "numbers": numbers, "images": image, "rows": list(self.rows)}
            raise NonFiniteLossError(f"the loss is not finite at iteration {self.iteration}", batch)
        scale = 0.1 ** (config.rate_decay * min(1.0, self.passes / self.budget))
        norms = optimiser_step({"parameters": self.rows}, self.optimiser, loss, scale, None)
        clock.lap("backward")
        self.iteration += 1
        self.passes += config.batch
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": loss.item(),
            "gradient_norm": norms,
            "parameters": {stage.module: dict(stage.params) for stage in self.pipeline.stages},
        }
        return metrics, clock.seconds

    def _render(self, image: Image) -> Image:
        rows = iter(self.rows)
        for module in self.modules:
            logits = next(rows) if module.params else image.new_zeros(0)
            image = module(image, module.params_from_logits(logits[None]).expand(len(image), -1))
        return image

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline as it stands."""
        rows = iter(self.rows)
        every = [next(rows) if module.params else torch.zeros(0) for module in self.modules]
        return pipeline_of(self.modules, every, self.config.module_set)

    def policy(self) -> FixedPipeline:
        """The policy as it stands."""
        return FixedPipeline(self.pipeline, "fixed", self.config.start)

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.json: a pipeline file, with the start it needs and where it came from."""
        save_fixed(folder / f"{stem}.json", self.policy(), provenance=provenance)

    def warm_start(self, policy: str) -> None:
        """Begins at the parameters of a pipeline file with the same modules.

        Raises:
            PolicyError: its modules, their order or its start are others.
        """
        given = pipeline_to_start_from(policy, self.config.modules, self.config.start)
        values = [starting_row(m, s.params) for m, s in zip(self.modules, given.stages, strict=True) if m.params]
        for row, value in zip(self.rows, values, strict=True):
            row.data.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            "rows": [row.detach().clone() for row in self.rows],
            "optimiser": self.optimiser.state_dict(),
            "counters": [self.iteration, self.passes],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        for row, value in zip(self.rows, content["rows"], strict=True):
            row.data.copy_(value)
        check_optimiser(content["optimiser"], self.optimiser, "optimiser")
        self.optimiser.load_state_dict(content["optimiser"])
        self.iteration, self.passes = content["counters"]

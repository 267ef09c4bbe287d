"""A small learned ISP: a bilateral grid of affine colour transforms, trained through the frozen detector.

It is the baseline for the question whether named modules cost accuracy: the same observation, preprocessing, images and
passes as a sequence policy, and about the same time for an image, but a free transform of colours for each place and
brightness in place of modules with a meaning. An iteration takes a batch of new images and moves all weights along the
negative gradient of the detector's mean loss. The policy is the moving average of the weights.

Source: Gharbi et al. 2017 (HDRnet) for grid, guide and slicing. Differs: it learns from the detector's loss instead of
retouched pictures, and a denoiser may run before the grid, because a grid cannot remove noise.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.errors import WeightsError
from adaptiveisp.isp.bilateral_grid import apply_grid
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.bilateral_grid.checkpoint import STAGE, load_grid_file
from adaptiveisp.policies.bilateral_grid.networks import DEEPEST, MOST_KNOTS, SIDES, BilateralGridNetwork
from adaptiveisp.policies.bilateral_grid.policy import BilateralGridPolicy
from adaptiveisp.policies.checkpoint import BILATERAL_GRID, PolicyHeader, save_policy
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.policies.sequence.networks import observe
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import Precision, differentiated_loss, optimiser_step
from adaptiveisp.training.methods.learner import BaseLearner, Metrics, NonFiniteLossError
from adaptiveisp.training.run_state import check_optimiser
from adaptiveisp.types import Detector, Image
from adaptiveisp.utils.config import require

Denoiser = Literal["none", "guided_denoise", "denoise"]


@dataclass(frozen=True)
class BilateralGridConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the denoiser's and the preprocessing's parameters.
        preprocessing: heuristic whose stages run before the denoiser and the grid: "raw" for none, "auto-exposure" or
            "auto-gain".
        denoiser: module before the grid, whose parameters are predicted too: "denoise" (non-local means, the slowest
            module), "guided_denoise", or "none".
        grid_side: rows and columns of the grid: 8, 16 or 32.
        grid_depth: layers of the grid along the guide.
        knots: places where a curve of the guide can change its slope.
        batch: images in an iteration, each of which is one pass through the detector.
        size: side of the square training images in pixels.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        rate: initial learning rate of AdamW for the convolutions and the layers after them.
        grid_line_rate: the same for the linear terms from the observation's numbers to the grid, which are equal in
            all cells of a depth, in units of the grid's numbers.
        guide_rate: the same for the guide.
        denoiser_line_rate: the same for the linear terms from the numbers to the denoiser, in units of z.
        line_decay: weight decay of AdamW on the denoiser's linear terms.
        weight_decay: weight decay of AdamW on all other weights except the guide's.
        rate_decay: powers of ten by which the rates fall over the run.
        gradient_norm: largest norm of the gradient of all weights; None for no limit.
        averaging: decay of the moving average of the weights, which is the policy that is scored and saved; 0 uses the
            weights themselves.
        precision: of the detector's network while training.
    """

    module_set: str = "extended"
    preprocessing: Preprocessing = "auto-exposure"
    denoiser: Denoiser = "none"
    grid_side: int = 16
    grid_depth: int = 8
    knots: int = 8
    batch: int = 8
    size: int = 288
    smallest_crop: float = 0.9
    rate: float = 1e-3
    grid_line_rate: float = 3e-3
    guide_rate: float = 1e-3
    denoiser_line_rate: float = 0.03
    line_decay: float = 0.2
    weight_decay: float = 0.0
    rate_decay: float = 1.5
    gradient_norm: float | None = 1.0
    averaging: float = 0.995
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        require(self.batch >= 1 and self.size >= 1, "batch and size must be at least 1")
        require(self.grid_side in SIDES, f"grid_side must be one of {', '.join(map(str, SIDES))}")
        require(1 <= self.grid_depth <= DEEPEST, f"grid_depth must be from 1 to {DEEPEST}")
        require(1 <= self.knots <= MOST_KNOTS, f"knots must be from 1 to {MOST_KNOTS}")
        narrow = self.preprocessing == "auto-exposure" and self.module_set in ("paper", "released", "pos-isp")
        require(
            not narrow,
            "preprocessing auto-exposure needs wider ranges than this module_set has; set module_set=wide too",
        )
        if self.denoiser != "none":
            find_module(self.denoiser, self.module_set)
        for name in (
            *("rate", "grid_line_rate", "guide_rate", "denoiser_line_rate"),
            *("line_decay", "weight_decay", "rate_decay"),
        ):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        require(self.rate > 0, "rate must be positive")
        require(self.gradient_norm is None or self.gradient_norm > 0, "gradient_norm must be positive, or null")
        require(0 <= self.averaging < 1, "averaging must be at least 0 and below 1")


GRID = BilateralGridConfig()
"""The grid alone after auto-exposure."""

PRESETS = {
    "grid": GRID,
    "denoise": replace(GRID, denoiser="denoise"),
    "guided-denoise": replace(GRID, denoiser="guided_denoise"),
}


class BilateralGrid(BaseLearner[BilateralGridConfig]):
    """Learns a bilateral-grid policy; the arguments are those of `BaseLearner`."""

    def __init__(
        self,
        config: BilateralGridConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        denoiser = None if config.denoiser == "none" else find_module(config.denoiser, config.module_set)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = BilateralGridNetwork(config.grid_side, config.grid_depth, config.knots, denoiser)
        self.network = network.to(device)
        self.averaged = copy.deepcopy(self.network) if config.averaging else self.network
        self.optimiser = torch.optim.AdamW(self._parameter_groups(), fused=True)
        self.warm = False  # whether it started from the weights of another policy

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """The weights with their learning rates and decay."""
        config = self.config
        own = {
            "grid_line.": (config.grid_line_rate, config.weight_decay),
            "guide.": (config.guide_rate, 0.0),
            "denoiser_line.": (config.denoiser_line_rate, config.line_decay),
            "": (config.rate, config.weight_decay),
        }
        groups: dict[str, list[torch.nn.Parameter]] = {prefix: [] for prefix in own}
        for name, weight in self.network.named_parameters():
            groups[next(prefix for prefix in own if name.startswith(prefix))].append(weight)
        return [
            {"params": groups[prefix], "start": rate, "weight_decay": decay}
            for prefix, (rate, decay) in own.items()
            if groups[prefix]
        ]

    @property
    def header(self) -> PolicyHeader:
        """Header of the policy files of this run."""
        config = self.config
        names = (STAGE,) if config.denoiser == "none" else (config.denoiser, STAGE)
        return PolicyHeader(
            kind=BILATERAL_GRID,
            module_set=config.module_set,
            modules=names,
            horizon=len(names),
            view="log",
            start=config.preprocessing,
            once=True,
            origin=f"bilateral_grid, iteration {self.iteration}, {self.passes} detector passes",
        )

    def policy(self) -> BilateralGridPolicy:
        """The current policy; it copies the network when it is first used and then no longer changes."""
        return BilateralGridPolicy(self.header, self.averaged)

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.safetensors; its provenance is in the config.yaml of the folder."""
        save_policy(folder / f"{stem}.safetensors", self.header, {BILATERAL_GRID: self.averaged})

    def warm_start(self, policy: str) -> None:
        """Takes over the network of a policy file or a run folder; optimiser and budget start anew.

        Raises:
            WeightsError: there is no such policy file, or its denoiser, its preprocessing or a size of its network is
                another than this run's.
        """
        header, network = load_grid_file(policy_file(policy))
        ours = self.network
        pairs = {
            "module_set": (header.module_set, self.header.module_set),
            "modules": (header.modules, self.header.modules),
            "preprocessing": (header.start, self.header.start),
            "grid_side": (network.side, ours.side),
            "grid_depth": (network.depth, ours.depth),
            "knots": (network.knots, ours.knots),
        }
        for what, (theirs, wanted) in pairs.items():
            if theirs != wanted:
                raise WeightsError(f"{policy}: has the {what} {theirs}, this run has {wanted}; give both the same")
        for one in (self.network, self.averaged):
            one.load_state_dict(network.state_dict())
        self.warm = True

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one iteration and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite; no weight was changed by it.
        """
        clock, config = Clock.started(), self.config
        sources = [self.stream[self.iteration * config.batch + i] for i in range(config.batch)]
        image = torch.stack([source.image for source in sources]).to(self.device)
        clock.lap("data")
        rendered, strengths = self._render(image, clock)
        targets = [source.targets for source in sources]
        loss = differentiated_loss(self.detector, rendered, targets, config.precision, clock).mean()
        if not loss.isfinite():
            numbers = [source.number for source in sources]
            batch = {"iteration": self.iteration, "numbers": numbers, "images": image}
            raise NonFiniteLossError(f"the loss is not finite at iteration {self.iteration}", batch)
        scale = 0.1 ** (config.rate_decay * self.progress)
        weights = {"weights": list(self.network.parameters())}
        norms = optimiser_step(weights, self.optimiser, loss, scale, config.gradient_norm)
        self.iteration += 1
        self.passes += config.batch
        self._average()
        clock.lap("backward")
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "detector_loss": loss.item(),
            "gradient_norm": norms,
            "brightness": float(rendered.detach().mean()),
            "denoiser": strengths,
        }
        return metrics, clock.seconds

    def _render(self, image: Image, clock: Clock) -> tuple[Image, dict[str, float]]:
        """The rendered images, differentiable in the weights, and the denoiser's mean parameters by name."""
        observation = observe(image, self.config.preprocessing, self.config.module_set)
        grid, rows = self.network(observation.planes, observation.numbers)
        clock.lap("policy")
        rendered, denoiser, strengths = observation.preprocessed, self.network.denoiser, dict[str, float]()
        if denoiser is not None and rows is not None:
            rendered = denoiser(rendered, rows)
            means = rows.detach().mean(dim=0).tolist()
            strengths = dict(zip((param.name for param in denoiser.params), means, strict=True))
        rendered = apply_grid(rendered, grid, self.network.guide.curves)
        clock.lap("modules")
        return rendered, strengths

    @torch.no_grad()
    def _average(self) -> None:
        """Updates the moving average of the weights."""
        if not self.config.averaging:
            return
        # Early in the run the average is over all iterations so far, which removes the random initial weights.
        early = 1.0 if self.warm else self.iteration / (self.iteration + 9)
        for ours, new in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            ours.lerp_(new, 1 - min(self.config.averaging, early))

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.config.averaging else {},
            "optimiser": self.optimiser.state_dict(),
            "counters": [self.iteration, self.passes],
            "running": [float(self.warm)],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        self.network.load_state_dict(content["network"])
        if self.config.averaging:
            self.averaged.load_state_dict(content["averaged"])
        check_optimiser(content["optimiser"], self.optimiser, "optimiser")
        self.optimiser.load_state_dict(content["optimiser"])
        self.iteration, self.passes = content["counters"]
        self.warm = bool(content["running"][0])

"""What a learning method is to a training run, and what the methods share."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.errors import AdaptiveISPError, PolicyError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy, Preprocessing
from adaptiveisp.policies.fixed import load_fixed
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.types import Detector, Image, Targets

Metrics = dict[str, Any]
Precision = Literal["float32", "bfloat16", "auto"]


@runtime_checkable
class Learner(Protocol):
    """Learns a policy, one iteration after the other, until its budget of detector passes is spent."""

    iteration: int
    passes: int

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        ...

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One iteration: its metrics, and the seconds of its parts.

        The metrics have at least `iteration`, `passes`, `detector_loss`, and `gradient_norm` by part.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; no weight was changed by it.
        """
        ...

    def policy(self) -> Policy:
        """The policy as it stands."""
        ...

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes the policy into a run folder as STEM and the suffix of its kind, atomically.

        Args:
            folder: the run folder.
            stem: the file's name without its suffix.
            provenance: where it came from, for kinds of files that hold it.
        """
        ...

    def warm_start(self, policy: str) -> None:
        """Takes over what an earlier policy learned; budget, optimisers and random numbers start anew.

        Args:
            policy: as the command line names it.

        Raises:
            AdaptiveISPError: it is missing, or of another kind or module set.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        ...

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the next iteration is then the same, bit by bit, for the same threads."""
        ...


@dataclass(frozen=True)
class Method:
    """A method by its parts.

    Attributes:
        settings: the dataclass of its settings.
        presets: named settings; the first is the default.
        learner: makes a learner of (settings, stream, detector, budget in passes, seed, device). The device is where
            images, networks and detector are; random numbers are drawn on the CPU, so that they are the same anywhere.
        needs_gradients: whether it learns from the gradient of the detector's loss.
    """

    settings: type[Any]
    presets: dict[str, Any]
    learner: Callable[[Any, TrainingImages, Detector, int, int, str], Learner]
    needs_gradients: bool = True


class NonFiniteLossError(AdaptiveISPError):
    """A loss became NaN or infinite; `batch` holds what led to it."""

    def __init__(self, message: str, batch: dict[str, Any]):
        super().__init__(message)
        self.batch = batch


@dataclass
class Clock:
    """Seconds spent in each part of an iteration, for the profile; never part of the metrics, which repeat exactly."""

    seconds: dict[str, float]
    last: float

    @classmethod
    def started(cls) -> "Clock":
        """A clock that starts now."""
        return cls({}, time.perf_counter())

    def lap(self, part: str) -> None:
        """Books the time since the last lap on a part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now


@cache
def has_bfloat16(device_type: str) -> bool:
    """Whether this machine multiplies bfloat16 in hardware.

    Elsewhere it is emulated: a backward pass of YOLOv3-tiny took 10 s instead of 0.6 s (AMD EPYC of the Zen 3 kind).
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def detector_loss(
    detector: Detector, image: Image, targets: list[Targets], precision: Precision
) -> Float[Tensor, " batch"]:
    """The detector's loss of each image while training, in float32 whatever its network works in.

    Args:
        detector: the frozen detector.
        image, targets: as it takes them.
        precision: of its network and its gradients. "bfloat16" takes half the time of "float32" on devices that have
            it, and ten times as long on others; "auto" takes it where they do.
    """
    half = precision == "bfloat16" or (precision == "auto" and has_bfloat16(image.device.type))
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        loss = detector.loss(image, targets)
    return loss.float()


def differentiated_loss(
    detector: Detector, image: Image, targets: list[Targets], precision: Precision, clock: Clock
) -> Float[Tensor, " batch"]:
    """`detector_loss`, its gradient for the image taken at once: the detector's graph is gone when this returns.

    Args:
        detector, image, targets, precision: as for `detector_loss`.
        clock: books forward and backward apart.
    """
    leaf = image.detach().requires_grad_()
    losses = detector_loss(detector, leaf, targets, precision)
    clock.lap("detector forward")
    if losses.requires_grad:  # an image's loss depends on no other image, so that the sum's gradient is that of each
        (gradient,) = torch.autograd.grad(losses.sum(), leaf, materialize_grads=True)
    else:
        gradient = torch.zeros_like(leaf)
    clock.lap("detector backward")
    attached: Tensor = _Attached.apply(image, losses.detach(), gradient)  # type: ignore[no-untyped-call]
    return attached


def finite_images(image: Image) -> Bool[Tensor, " batch"]:
    """Which images have finite values only, and not so large ones that their sum is not: those count as broken too.

    The sum takes a thirtieth of the time of a test of each value.
    """
    return image.detach().flatten(1).sum(dim=1).isfinite()


class _Attached(torch.autograd.Function):
    """Losses whose gradient for the images is known already."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, losses: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return losses.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return weight[:, None, None, None] * gradient, None, None


def optimiser_step(
    parts: Mapping[str, Sequence[nn.Parameter]],
    optimiser: torch.optim.Optimizer,
    loss: torch.Tensor,
    scale: float,
    limit: float | None,
) -> dict[str, float]:
    """One step on the gradient of these parameters alone; returns each part's norm before it is limited.

    A gradient that is not finite changes nothing.

    Args:
        parts: what is moved, by name; the limit holds for each part on its own.
        optimiser: of these parameters; each of its groups has a rate "start".
        loss: what is differentiated; its graph is gone afterwards.
        scale: the groups' rates are `start` times this.
        limit: largest norm of a part's gradient, None for any.
    """
    parameters = [parameter for part in parts.values() for parameter in part]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norms = {}
    for name, part in parts.items():
        norm = nn.utils.get_total_norm([p.grad for p in part if p.grad is not None])
        if limit is not None:
            nn.utils.clip_grads_with_norm_(part, limit, norm)
        norms[name] = float(norm)
    if all(math.isfinite(norm) for norm in norms.values()):
        for group in optimiser.param_groups:
            group["lr"] = group["start"] * scale
        optimiser.step()
    return norms


def pipeline_to_start_from(policy: str, modules: Sequence[str], start: Preprocessing) -> Pipeline:
    """The pipeline of a policy file whose modules are those of the run, for a warm start.

    Args:
        policy: as the command line names it.
        modules, start: of the run, names in the order they run.

    Raises:
        PolicyError: its modules, their order or its start are others.
    """
    given = load_fixed(policy_file(policy))
    names = tuple(stage.module for stage in given.pipeline.stages)
    if names != tuple(modules) or given.preprocessing != start:
        raise PolicyError(
            f"{policy}: has other modules or another start than this run; set modules and start as it has them"
        )
    return given.pipeline

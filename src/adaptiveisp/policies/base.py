"""The base class of policies, and the developed and rendered images that they take and give."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.errors import PolicyError, UsageError
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.types import MONO, Detector, Image, RawImage, Remark, Targets
from adaptiveisp.utils.clock import Stopwatch, timed
from adaptiveisp.utils.color import LUMA

Preprocessing = Literal["raw", "auto-exposure", "auto-gain"]
PREPROCESSINGS: tuple[Preprocessing, ...] = ("raw", "auto-exposure", "auto-gain")
"""Stages that may run before a policy's own: none, those of auto-exposure, or its white balance and exposure as the one
stage `gain`, without its curve."""
STAGES: dict[Preprocessing, tuple[str, ...]] = {
    "raw": (),
    "auto-exposure": ("white_balance", "exposure", "srgb"),
    "auto-gain": ("gain",),
}
"""Modules of each preprocessing in their order."""

Picture = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class Developed:
    """A developed raw at the working size and at full size, before any policy.

    Attributes:
        full: (3, height, width) upright linear RGB in [0, 1]; None where only the small image was kept.
        small: (1, 3, h, w) the same image with the longer side at the working size.
        full_size: (height, width) of the full image in pixels.
        raw: the raw itself; None where it was not kept.
    """

    full: Picture | None
    small: Float[Tensor, "1 3 h w"]
    full_size: tuple[int, int]
    raw: RawImage | None = None

    @property
    def size(self) -> int:
        """Longer side of the small image in pixels."""
        return max(self.small.shape[2:])

    @property
    def is_monochrome(self) -> bool:
        """Whether the raw is of a sensor without colour filters, or RGB whose three channels are equal."""
        if self.raw is not None and self.raw.pattern is not None:
            return self.raw.pattern == MONO
        red, green, blue = self.small[0]
        return torch.equal(red, green) and torch.equal(green, blue)


@dataclass(frozen=True)
class Rendered:
    """The image that a policy made of a developed raw.

    Attributes:
        image: (1, 3, h, w) input of the detector before padding, in [0, 1].
        pipeline: the pipeline that made the image; None where no pipeline did (`camera`).
        milliseconds: time of policy and modules, without reading, developing and resizing; for `camera` the time of
            its whole development.
        modules_ms: the part of `milliseconds` in which modules ran.
        left_out: names of modules that the policy chose and that were left out because the raw is monochrome.
        dropped: names of modules that the policy chose and that were dropped to keep a latency, see `policies.latency`.
    """

    image: Image
    pipeline: Pipeline | None
    milliseconds: float
    modules_ms: float = 0.0
    left_out: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


class FrameLabels(NamedTuple):
    """The labels of one image, for a policy that needs them.

    Attributes:
        targets: labels in pixels of the frame into which `pad_to_frame` puts the image.
        detector: the frozen detector, whose loss for these labels the policy lowers.
    """

    targets: Targets
    detector: Detector


Likelihoods = Callable[[Sequence[Sequence[int]]], Sequence[float]]
"""Logarithm of a policy's probability of each of some shortened pipelines, given by the indices that they keep."""


@runtime_checkable
class Shortener(Protocol):
    """Says which modules of a pipeline may run; `policies.latency` has the one that keeps a latency."""

    def kept(self, modules: Sequence[str], n_first: int, likelihoods: Likelihoods | None = None) -> tuple[int, ...]:
        """Indices of the modules that run, in order.

        Args:
            modules: names of the pipeline's modules, those of the preprocessing first.
            n_first: number of modules of the preprocessing, which always run.
            likelihoods: the policy's preference among shortened pipelines, if it has one.
        """
        ...


@runtime_checkable
class Planner(Protocol):
    """The two members that a user's own policy must have; `as_policy` adds everything else."""

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    def plan(self, image: Image) -> list[Pipeline]:
        """One pipeline for each developed image of the batch (linear RGB in [0, 1])."""
        ...


class Policy:
    """Base class of policies: chooses a pipeline for each image. A subclass gives `name` and `plan`.

    Attributes:
        name: short name for tables.
        needs_labels: whether `render` needs the labels of the image, as an upper bound does. Such a policy serves
            evaluations only.
        is_static: whether it is a heuristic or one pipeline for all images. Auto-exposure fits gains to each image,
            but by a rule that knows no detector: an adaptive policy has to beat it.
        takes_steps: whether `with_steps` changes it.
        plans_ahead: whether it knows its pipeline before the first module runs, as `process_within` needs.
    """

    name: str
    needs_labels: ClassVar[bool] = False
    is_static: ClassVar[bool] = False
    takes_steps: ClassVar[bool] = False
    plans_ahead: ClassVar[bool] = True

    def plan(self, image: Image) -> list[Pipeline]:
        """One pipeline for each developed image of the batch.

        Args:
            image: developed images, linear RGB in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} must define plan(image)")

    def process(self, image: Image, *, stopwatch: Stopwatch | None = None) -> tuple[list[Pipeline], Image]:
        """The pipeline of each image, and the images that these pipelines make.

        Args:
            image: developed images, linear RGB in [0, 1].
            stopwatch: measures the part "modules".

        Raises:
            PolicyError: `plan` returns anything but one pipeline for each image.
        """
        return self._rendered(image, self._plans(image), stopwatch)

    def process_within(
        self, image: Image, shortener: Shortener, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """`process` with pipelines that are shortened before they run.

        Args:
            image, stopwatch: as for `process`.
            shortener: says which modules of each pipeline run.
        """
        plans = [self._shortened_plan(plan, shortener) for plan in self._plans(image)]
        return self._rendered(image, plans, stopwatch)

    def _shortened_plan(self, plan: Pipeline, shortener: Shortener) -> Pipeline:
        """The pipeline with the stages that a shortener keeps."""
        kept = shortener.kept([stage.module for stage in plan.stages], self.n_preprocessing)
        return plan.with_stages([plan.stages[index] for index in kept])

    def _plans(self, image: Image) -> list[Pipeline]:
        """The result of `plan` after a check.

        Raises:
            PolicyError: it is anything but one pipeline for each image.
        """
        plans = self.plan(image)
        if not isinstance(plans, list) or len(plans) != len(image) or not all(isinstance(p, Pipeline) for p in plans):
            raise PolicyError(f"policy {self.name}: plan must return a list with one Pipeline for each image")
        return plans

    def _rendered(
        self, image: Image, plans: list[Pipeline], stopwatch: Stopwatch | None
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images that they make."""
        with timed(stopwatch, "modules"):
            made = [plan.render(image[i : i + 1]) for i, plan in enumerate(plans)]
            return plans, made[0] if len(made) == 1 else torch.cat(made)

    @torch.inference_mode()
    def render(self, developed: Developed, labels: FrameLabels | None = None) -> Rendered:
        """The image that the policy makes of a developed raw.

        A policy sees a monochrome raw as red, green and blue of equal values, and modules whose only effect is on
        colours are left out of the pipeline that it chooses.

        Args:
            developed: the developed raw at the working size.
            labels: of the image; used only if `needs_labels`.

        Raises:
            UsageError: the policy needs labels or the raw, and has none.
        """
        stopwatch = Stopwatch(developed.small.device)
        with stopwatch.part("all"):
            if self.needs_raw:
                pipeline, image = self._from_raw(developed, stopwatch)
            else:
                (pipeline,), image = self.process(developed.small, stopwatch=stopwatch)
            chosen, left_out = pipeline, tuple[str, ...]()
            if developed.is_monochrome:
                pipeline, left_out = grey_pipeline(chosen)
            if pipeline is not chosen:
                with stopwatch.part("modules"):
                    image = pipeline.render(developed.small)
        times = stopwatch.milliseconds
        return Rendered(pipeline.clipped(image), pipeline, times["all"], times.get("modules", 0.0), left_out)

    def _from_raw(self, developed: Developed, stopwatch: Stopwatch) -> tuple[Pipeline, Image]:
        """The pipeline bound to the raw, which its external ISP develops, and the image that it makes.

        Raises:
            UsageError: the raw was not kept.
        """
        if developed.raw is None:
            raise UsageError(f"policy {self.name} needs the raw itself; develop the raw with develop_at_size")
        pipeline = bound_to(self._plans(developed.small)[0], RawFrame(developed.raw))
        with stopwatch.part("modules"):
            return pipeline, pipeline.render(developed.small)

    @torch.inference_mode()
    def render_full(self, developed: Developed, pipeline: Pipeline | None) -> Picture:
        """The rendering at full size, with the pipeline that `render` chose at the working size.

        Args:
            developed: the developed raw, with its full image.
            pipeline: pipeline of the `Rendered`.

        Raises:
            UsageError: the full image was not kept.
        """
        if developed.full is None or pipeline is None:
            raise UsageError("there is no image at full size; develop the raw with develop_at_size")
        return pipeline.clipped(pipeline.render(developed.full[None].to(developed.small.device)))[0]

    @property
    def needs_raw(self) -> bool:
        """Whether `render` needs the raw itself, as for an external ISP among the modules."""
        return False

    @property
    def thread_safe(self) -> bool:
        """Whether `render` may run in several threads at once; a policy from outside the package says so itself."""
        return type(self).__module__.startswith("adaptiveisp.") and not self.needs_raw

    @property
    def preprocessing(self) -> Preprocessing:
        """The stages that run before the policy's own, whatever its modules."""
        return "raw"

    @property
    def n_preprocessing(self) -> int:
        """Number of stages of the preprocessing at the beginning of each pipeline."""
        return len(STAGES[self.preprocessing])

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules for which the policy chooses parameters, see `plan_with`."""
        return ()

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """One pipeline for each image: the preprocessing, then these modules with the policy's parameters for them.

        Learned parameters make sense after the preprocessing that they were learned with.

        Args:
            image: developed images, linear RGB in [0, 1].
            modules: names from `settable`, in the order they run.

        Raises:
            PolicyError: the policy sets no parameters.
        """
        raise PolicyError(f"policy {self.name} sets no parameters of modules; choose another policy")

    @property
    def note(self) -> str:
        """A line that `run` prints about facts which the pipeline does not show; may be ""."""
        return ""

    def with_steps(self, steps: int) -> "Policy":
        """The policy with another number of steps, if it takes steps; 0 keeps its own number."""
        return self

    def renamed(self, name: str) -> "Policy":
        """The same policy under another name."""
        other = copy.copy(self)
        object.__setattr__(other, "name", name)  # most policies are frozen dataclasses
        return other


@dataclass(frozen=True)
class PlannedPolicy(Policy):
    """A policy made of an object with `name` and `plan` alone.

    Attributes:
        planner: the object.
        name: short name for tables.
    """

    planner: Planner
    name: str = ""

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipelines of the object's own `plan`."""
        return self.planner.plan(image)

    @property
    def thread_safe(self) -> bool:
        """What the object says of itself; False where it says nothing."""
        return bool(getattr(self.planner, "thread_safe", False))


def as_policy(policy: object) -> Policy:
    """The policy itself, or a policy made of an object with `name` and `plan` alone.

    Raises:
        UsageError: the object lacks one of them.
    """
    if isinstance(policy, Policy):
        return policy
    if not isinstance(policy, Planner) or not isinstance(policy.name, str):
        kind = type(policy).__name__
        raise UsageError(f"an object of type {kind} is not a policy: it needs the text `name` and a method plan(image)")
    return PlannedPolicy(policy, policy.name)


def grey_pipeline(pipeline: Pipeline) -> tuple[Pipeline, tuple[str, ...]]:
    """A pipeline for monochrome raws, and the names of the modules that it leaves out.

    Modules whose only effect is on colours are left out, since they would do nothing, or tint the picture. The factors
    of `gain`, which is exposure and white balance in one, become their luminance. The pipeline itself is returned if
    nothing changes.
    """
    pipeline = pipeline.for_monochrome()
    kept, left_out = list[Stage](), list[str]()
    for stage, module in zip(pipeline.stages, pipeline.modules, strict=True):
        if module.colour_only:
            left_out.append(module.name)
        elif module.name == "gain" and len(set(stage.params.values())) > 1:
            factor = sum(weight * stage.params[name] for weight, name in zip(LUMA, stage.params, strict=True))
            kept.append(Stage(stage.module, dict.fromkeys(stage.params, factor)))
        else:
            kept.append(stage)
    if tuple(kept) == pipeline.stages:
        return pipeline, ()
    return pipeline.with_stages(kept), tuple(dict.fromkeys(left_out))


def grey_remark(name: object, policy: str, left_out: Sequence[str]) -> Remark:
    """The remark that modules were left out because a raw is monochrome.

    Args:
        name: the raw's file.
        policy: name of the policy that chose the modules.
        left_out: names of the modules.
    """
    text = f"{name}: is monochrome, so that colour modules of {policy} are left out: {', '.join(left_out)}"
    return Remark("colour modules of monochrome raws", text)


def needs_labels_error(policy: Policy) -> UsageError:
    """The error of a policy that needs labels where there are none."""
    return UsageError(f"policy {policy.name} needs labels: it is an upper bound, for eval only; choose another")


def selected_stages(stages: Sequence[Stage], modules: Sequence[str]) -> tuple[Stage, ...]:
    """The stage of each of these modules, in their order; the last stage of a module that occurs twice."""
    available = {stage.module: stage for stage in stages}
    return tuple(available[name] for name in modules)

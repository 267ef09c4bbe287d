"""What a policy is, and the policies that need no learning."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.errors import PipelineError, PolicyError
from adaptiveisp.isp.pipeline import FILE_REMEDY, START_KEY, Pipeline, Stage
from adaptiveisp.isp.registry import find_module
from adaptiveisp.kernels import forward as native
from adaptiveisp.kernels import observation as native_look
from adaptiveisp.raw.develop import upright
from adaptiveisp.raw.reader import camera_render
from adaptiveisp.raw.unprocess import reprocess
from adaptiveisp.types import Detector, Image, RawImage, Targets
from adaptiveisp.utils.color import LUMA
from adaptiveisp.utils.files import read_json

OBSERVATION_SIZE = 64
"""Side of the pooled view on which statistics are taken (as the networks' observation)."""
TARGET_MEAN = 0.18
"""Mean luminance that auto-exposure aims at: photographic mid-grey, in linear light."""
CLIPPED = 0.98
"""A pixel with a channel above this tells nothing about the illuminant."""

Preprocessing = Literal["raw", "auto-exposure", "auto-gain"]
STARTS: tuple[Preprocessing, ...] = ("raw", "auto-exposure", "auto-gain")
"""What may come before a policy's own stages: nothing, the stages of auto-exposure, or its balance and exposure as one
stage, `gain`, without its curve."""


@runtime_checkable
class Policy(Protocol):
    """Chooses a pipeline for each image."""

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    def plan(self, image: Image) -> list[Pipeline]:
        """One pipeline for each developed image of the batch (linear RGB in [0, 1])."""
        ...


@dataclass(frozen=True)
class FixedPipeline:
    """The same pipeline for every image; the empty one is `none`.

    Attributes:
        pipeline: its stages.
        name: short name for tables.
        start: heuristic whose stages come first, fitted to each image, or "raw" for none.
    """

    pipeline: Pipeline
    name: str = "none"
    start: Preprocessing = "raw"

    def plan(self, image: Image) -> list[Pipeline]:
        """The start's stages for each image, then the pipeline's."""
        return [
            Pipeline(first + self.pipeline.stages, self.pipeline.module_set)
            for first in preprocessing_stages(image, self.start)
        ]

    @property
    def settable(self) -> tuple[str, ...]:
        """Its modules."""
        return tuple(stage.module for stage in self.pipeline.stages)

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The start's stages, then these modules with the pipeline's parameters for them."""
        chosen = _picked(self.pipeline.stages, modules)
        return [Pipeline(first + chosen, self.pipeline.module_set) for first in preprocessing_stages(image, self.start)]


@dataclass(frozen=True)
class AutoExposure:
    """What a camera's own heuristics do: grey-world white balance, exposure to a mean, the sRGB curve.

    Attributes:
        target_mean: mean luminance of the exposed image, linear, in (0, 1).
        name: short name for tables.

    Source: Buchsbaum 1980 (grey world); IEC 61966-2-1 (sRGB).
    """

    target_mean: float = TARGET_MEAN
    name: str = "auto-exposure"

    def plan(self, image: Image) -> list[Pipeline]:
        """White balance, exposure and sRGB for each image, from its pooled view."""
        return [self.plan_view(view) for view in F.adaptive_avg_pool2d(image, OBSERVATION_SIZE).cpu()]

    @property
    def start(self) -> Preprocessing:
        """Nothing: its modules are themselves what others start with."""
        return "raw"

    @property
    def settable(self) -> tuple[str, ...]:
        """White balance, exposure and the sRGB curve."""
        return ("white_balance", "exposure", "srgb")

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """These of its modules, in this order."""
        return [Pipeline(_picked(plan.stages, modules)) for plan in self.plan(image)]

    def plan_view(self, view: Float[Tensor, "3 height width"]) -> Pipeline:
        """The same from the pooled view of one image; the sums are float64."""
        gains = grey_world_gains(view)
        exposure = find_module("exposure", "wide").params[0]
        stops = exposure_to_mean(view, self.target_mean, exposure.low, exposure.high, gains)
        red, green, blue = gains
        return Pipeline(
            (
                Stage("white_balance", {"red": red, "green": green, "blue": blue}),
                Stage("exposure", {"ev": stops}),
                Stage("srgb", {}),
            )
        )


def _picked(stages: Sequence[Stage], modules: Sequence[str]) -> tuple[Stage, ...]:
    """The stage of each of these modules, in their order; the last one where a module occurs twice."""
    available = {stage.module: stage for stage in stages}
    return tuple(available[name] for name in modules)


def load_fixed(path: Path) -> FixedPipeline:
    """The policy in a pipeline file; its optional key "start" names the heuristic whose stages come first.

    Raises:
        PipelineError: the file is missing, no JSON, or its contents are wrong.
    """
    path = Path(path)
    content = read_json(path, PipelineError, FILE_REMEDY)
    begin = content.pop(START_KEY, "raw") if isinstance(content, dict) else "raw"
    if begin not in STARTS:
        raise PipelineError(f"{path}: {START_KEY} {begin!r} does not exist; choose one of {', '.join(STARTS)}")
    return FixedPipeline(Pipeline.from_json(content, str(path)), path.stem, begin)


def save_fixed(path: Path, policy: FixedPipeline, **extra: Any) -> None:
    """Writes what `load_fixed` reads, atomically; `extra` keys (such as provenance) go beside it."""
    policy.pipeline.save(path, **({} if policy.start == "raw" else {START_KEY: policy.start}), **extra)


def preprocessing_stages(image: Image, kind: Preprocessing) -> list[tuple[Stage, ...]]:
    """The stages that come before a policy's own, for each image: none for "raw", else those of its heuristic."""
    return preprocessing_of_observation(
        image if kind == "raw" else F.adaptive_avg_pool2d(image, OBSERVATION_SIZE), kind
    )


def preprocessing_of_observation(pooled: Image, kind: Preprocessing) -> list[tuple[Stage, ...]]:
    """`preprocessing_stages` of images that are pooled already, to `OBSERVATION_SIZE`."""
    if kind == "raw":
        return [()] * pooled.shape[0]
    # A handful of passes over little data, each waited for: on a GPU the waiting would take longer than all the rest.
    found = [AutoExposure().plan_view(view).stages for view in pooled.cpu()]
    return found if kind == "auto-exposure" else [(_as_gain(*stages[:2]),) for stages in found]


def _as_gain(balance: Stage, exposure: Stage) -> Stage:
    """White balance and the exposure after it as one stage."""
    factor = 2.0 ** exposure.params["ev"]
    return Stage("gain", {name: value * factor for name, value in balance.params.items()})


def preprocessed_image(image: Image, kind: Preprocessing, module_set: str = "wide") -> Image:
    """The images after their `preprocessing_stages`."""
    return rendered_stages(image, preprocessing_stages(image, kind), module_set)


def rendered_stages(image: Image, plans: Sequence[tuple[Stage, ...]], module_set: str = "wide") -> Image:
    """Each image after its own stages; a new tensor."""
    rendered = [Pipeline(plan, module_set).render(image[i : i + 1]) for i, plan in enumerate(plans)]
    return torch.cat(rendered)


@runtime_checkable
class SetsParameters(Policy, Protocol):
    """A policy that can be told which modules to run: it then chooses their parameters only."""

    @property
    def start(self) -> Preprocessing:
        """What comes first, whatever the modules: learned parameters make sense after what they were learned on."""
        ...

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules it has parameters for."""
        ...

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """One pipeline for each developed image: after the policy's own start these modules, in this order."""
        ...


@dataclass(frozen=True)
class ForcedModules:
    """The modules of a pipeline file with the parameters that a policy chooses for them.

    Attributes:
        policy: gives the parameters.
        pipeline: gives the modules and their order; its own parameters are not used.

    Raises:
        PolicyError: the policy sets no parameters for one of the modules.
    """

    policy: SetsParameters
    pipeline: Pipeline

    def __post_init__(self) -> None:
        known = self.policy.settable
        for stage in self.pipeline.stages:
            if stage.module not in known:
                raise PolicyError(
                    f"policy {self.policy.name} sets no parameters for the module {stage.module}; "
                    f"it sets {', '.join(known) or 'none'}; use --pipeline without --policy"
                )

    @property
    def name(self) -> str:
        """The policy's name, marked."""
        return f"{self.policy.name} (forced)"

    @property
    def note(self) -> str:
        """What the pipeline file does not show: whose parameters run, and the stages of the policy's start."""
        own = f"the modules are the pipeline file's, their parameters are those of {self.policy.name}, not the file's"
        if self.policy.start == "raw":
            return own
        return f"{self.policy.name} starts with {self.policy.start}: its stages come first, then the file's; {own}"

    def plan(self, image: Image) -> list[Pipeline]:
        """The forced modules with the policy's parameters, for each developed image."""
        return self.policy.plan_with(image, [stage.module for stage in self.pipeline.stages])


def grey_world_gains(view: Float[Tensor, "3 height width"]) -> tuple[float, float, float]:
    """Gains that make the mean of the unclipped pixels grey and keep its luminance; within the range of `wide`.

    >>> [round(gain, 2) for gain in grey_world_gains(torch.tensor([0.1, 0.1, 0.1]).reshape(3, 1, 1))]
    [1.0, 1.0, 1.0]
    """
    unclipped = partial(native_look.unclipped if native.takes(view) else _unclipped, view)
    sums, count = unclipped(CLIPPED)
    if not count:
        sums, count = unclipped(math.inf)
    means = [max(value / count if count else math.nan, 1e-6) for value in sums]  # no number where none is one
    luminance = sum(weight * mean for weight, mean in zip(LUMA, means, strict=True))
    params = find_module("white_balance", "wide").params
    red, green, blue = (min(max(luminance / mean, p.low), p.high) for mean, p in zip(means, params, strict=True))
    return red, green, blue


def _unclipped(view: Float[Tensor, "3 height width"], ceiling: float) -> tuple[list[float], int]:
    """What `native_look.unclipped` gives."""
    pixels = view.reshape(3, -1).double()
    usable = pixels[:, pixels.amax(dim=0) < ceiling]
    return usable.sum(dim=1).tolist(), usable.shape[1]


def exposure_to_mean(
    view: Float[Tensor, "3 height width"],
    target: float,
    low: float,
    high: float,
    gains: Sequence[float] = (1.0, 1.0, 1.0),
) -> float:
    """Stops in [low, high] after which the mean luminance, each channel times its gain clipped at 1, is `target`.

    The mean is a concave line of pieces in the gain, with a corner where each value reaches 1. Newton's method from
    below stays below, and is right once no further value clips: a handful of passes instead of a sort.

    >>> round(exposure_to_mean(torch.full((3, 2, 2), 0.125), 0.25, -8, 8), 3)
    1.0
    """
    below = (native_look.below_limit if native.takes(view) else _below_limit)(view, gains)

    def split(gain: float) -> tuple[float, float]:
        """Mean luminance of what this gain clips, and before the gain of what it does not."""
        n = view[0].numel()
        sums, counts = below(gain)
        clipped, linear = (sum(w * x / n for w, x in zip(LUMA, found, strict=True)) for found in (counts, sums))
        return clipped, linear

    gain, least, most = 0.0, 2.0**low, 2.0**high
    clipped, linear = split(gain)
    while linear > 0 and (better := (target - clipped) / linear) > gain:
        gain = better
        if gain >= most:
            break
        clipped, linear = split(gain)
    if linear <= 0 and clipped < target:
        return high  # too much of the image is black
    return math.log2(min(max(gain, least), most))


def _below_limit(
    view: Float[Tensor, "3 height width"], gains: Sequence[float]
) -> Callable[[float], tuple[list[float], list[float]]]:
    """What `native_look.below_limit` gives."""
    values = view.reshape(3, -1).double()
    values = values * values.new_tensor(gains)[:, None]

    def at(gain: float) -> tuple[list[float], list[float]]:
        at_limit = values * gain >= 1
        return values.masked_fill(at_limit, 0.0).sum(dim=1).tolist(), at_limit.double().sum(dim=1).tolist()

    return at


@dataclass(frozen=True)
class CameraDevelopment:
    """The camera's own development, sRGB: LibRaw's for raw files; for synthetic PNGs the exact inverse of their making.

    The latter knows the true gains, matrix and brightness of the scene, which no camera does: as strong as a
    development can be that does not know the detector.
    """

    name: str = "camera"

    def develop(self, raw: RawImage) -> Float[Tensor, "3 height width"]:
        """The upright picture as sRGB code values in [0, 1], at full size.

        Raises:
            RawFileError: LibRaw cannot develop it, or it is RGB that does not say how it was made.
        """
        if raw.pattern is None and raw.unprocessing is not None:
            linear = torch.from_numpy(raw.data.astype("float32")).permute(2, 0, 1) / raw.white_level
            return upright(reprocess(linear, raw.unprocessing), raw.orientation)
        return torch.from_numpy(camera_render(raw)).permute(2, 0, 1).float() / 255


@runtime_checkable
class PlansWithLabels(Protocol):
    """An upper bound, no policy: it is shown the labels of each image that it plans for. For evaluations only."""

    @property
    def name(self) -> str:
        """Short name for tables."""
        ...

    def plan_with_labels(self, image: Image, targets: list[Targets], detector: Detector) -> list[Pipeline]:
        """One pipeline for each developed image of the batch.

        Args:
            image: developed images, linear RGB in [0, 1], the longer side at the detector's working size.
            targets: labels in pixels of the frame into which `pad_to_frame` puts the images.
            detector: the detector that is to see better.
        """
        ...


AnyPolicy = Policy | CameraDevelopment | PlansWithLabels


def is_static(policy: AnyPolicy) -> bool:
    """Whether a policy is a heuristic or one pipeline for all images, the camera's development among them.

    Auto-exposure fits gains to each image, but by a rule that knows no detector: an adaptive policy has to beat it.
    """
    return isinstance(policy, FixedPipeline | AutoExposure | CameraDevelopment)

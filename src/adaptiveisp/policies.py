"""What a policy is, and the policies that need no learning."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.color import LUMA
from adaptiveisp.develop import upright
from adaptiveisp.errors import PolicyError
from adaptiveisp.isp import find_module
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.raw import camera_render
from adaptiveisp.types import Image, RawImage
from adaptiveisp.unprocess import reprocess

OBSERVATION_SIZE = 64
"""Side of the pooled view on which statistics are taken (as the networks' observation)."""
TARGET_MEAN = 0.18
"""Mean luminance that auto-exposure aims at: photographic mid-grey, in linear light."""
CLIPPED = 0.98
"""A pixel with a channel above this tells nothing about the illuminant."""
BISECTION_STEPS = 30


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
    """The same pipeline for every image; the empty one is `none`."""

    pipeline: Pipeline
    name: str = "none"

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline, once per image."""
        return [self.pipeline] * image.shape[0]


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
        small = F.adaptive_avg_pool2d(image, OBSERVATION_SIZE).double()
        return [self._plan_one(view) for view in small]

    def _plan_one(self, view: Float[Tensor, "3 height width"]) -> Pipeline:
        gains = grey_world_gains(view)
        balanced = view * view.new_tensor(gains)[:, None, None]
        exposure = find_module("exposure", "wide").params[0]
        stops = exposure_to_mean(balanced, self.target_mean, exposure.low, exposure.high)
        red, green, blue = gains
        return Pipeline(
            (
                Stage("white_balance", {"red": red, "green": green, "blue": blue}),
                Stage("exposure", {"ev": stops}),
                Stage("srgb", {}),
            )
        )


@dataclass(frozen=True)
class ForcedModules:
    """The modules of a pipeline file with the parameters that a policy chooses for them.

    Attributes:
        policy: gives the parameters.
        pipeline: gives the modules and their order; its own parameters are not used.
    """

    policy: Policy
    pipeline: Pipeline

    @property
    def name(self) -> str:
        """The policy's name, marked."""
        return f"{self.policy.name} (forced)"

    def plan(self, image: Image) -> list[Pipeline]:
        """The forced modules with the policy's parameters.

        Raises:
            PolicyError: the policy sets no parameters for one of the modules.
        """
        return [self._forced(chosen) for chosen in self.policy.plan(image)]

    def _forced(self, chosen: Pipeline) -> Pipeline:
        available = {stage.module: stage for stage in chosen.stages}
        for stage in self.pipeline.stages:
            if stage.module not in available:
                raise PolicyError(
                    f"policy {self.policy.name} sets no parameters for the module {stage.module}; "
                    f"it sets {', '.join(available) or 'none'}; use --pipeline without --policy"
                )
        return Pipeline(tuple(available[stage.module] for stage in self.pipeline.stages), chosen.module_set)


def grey_world_gains(view: Float[Tensor, "3 height width"]) -> tuple[float, float, float]:
    """Gains that make the mean of the unclipped pixels grey and keep its luminance; within the range of `wide`.

    >>> [round(gain, 2) for gain in grey_world_gains(torch.tensor([0.1, 0.1, 0.1]).reshape(3, 1, 1))]
    [1.0, 1.0, 1.0]
    """
    pixels = view.reshape(3, -1)
    usable = pixels[:, pixels.amax(dim=0) < CLIPPED]
    means = (usable if usable.shape[1] else pixels).mean(dim=1).clamp(min=1e-6)
    gains = (means.new_tensor(LUMA) * means).sum() / means
    params = find_module("white_balance", "wide").params
    red, green, blue = (min(max(gain, p.low), p.high) for gain, p in zip(gains.tolist(), params, strict=True))
    return red, green, blue


def exposure_to_mean(view: Float[Tensor, "3 height width"], target: float, low: float, high: float) -> float:
    """Stops in [low, high] after which the mean luminance, each channel clipped at 1, is `target`; found by bisection.

    >>> round(exposure_to_mean(torch.full((3, 2, 2), 0.125), 0.25, -8, 8), 3)
    1.0
    """
    weights = view.new_tensor(LUMA)[:, None, None]
    for _ in range(BISECTION_STEPS):
        middle = (low + high) / 2
        mean = ((view * math.pow(2, middle)).clamp(max=1) * weights).sum(dim=0).mean()
        low, high = (middle, high) if mean < target else (low, middle)
    return (low + high) / 2


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


AnyPolicy = Policy | CameraDevelopment

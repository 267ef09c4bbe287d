"""Policies that follow a fixed rule: auto-exposure, and the camera's own development."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.errors import PolicyError, UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import find_module
from adaptiveisp.kernels.registry import find
from adaptiveisp.policies.base import Developed, FrameLabels, Picture, Policy, Rendered, selected_stages
from adaptiveisp.raw.develop import upright
from adaptiveisp.raw.reader import camera_render
from adaptiveisp.raw.unprocess import reprocess
from adaptiveisp.types import Image, RawImage
from adaptiveisp.utils.clock import Stopwatch
from adaptiveisp.utils.color import LUMA

OBSERVATION_SIZE = 64
"""Side in pixels of the pooled image on which statistics are taken, as for the networks' observation."""
TARGET_MEAN = 0.18
"""Mean luminance that auto-exposure aims at: photographic mid-grey, in linear light."""
CLIPPED = 0.98
"""A pixel with a channel above this counts as clipped and says nothing about the illuminant."""


@dataclass(frozen=True)
class AutoExposure(Policy):
    """The heuristics of a camera: grey-world white balance, exposure to a mean luminance, the sRGB curve.

    Attributes:
        target_mean: mean luminance of the exposed image, linear, in (0, 1).
        name: short name for tables.

    Source: Buchsbaum 1980 (grey world); IEC 61966-2-1 (sRGB).
    """

    target_mean: float = TARGET_MEAN
    name: str = "auto-exposure"
    is_static: ClassVar[bool] = True

    def plan(self, image: Image) -> list[Pipeline]:
        """White balance, exposure and sRGB curve for each image, fitted to the pooled image."""
        pooled = F.adaptive_avg_pool2d(image, OBSERVATION_SIZE).cpu()
        return [self.plan_observation(observation) for observation in pooled]

    @property
    def settable(self) -> tuple[str, ...]:
        """White balance, exposure and the sRGB curve."""
        return ("white_balance", "exposure", "srgb")

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The heuristic's stages of these modules, in this order."""
        return [Pipeline(selected_stages(plan.stages, modules)) for plan in self.plan(image)]

    def plan_observation(self, observation: Float[Tensor, "3 height width"]) -> Pipeline:
        """The pipeline of one image from its pooled pixels; sums are taken in float64.

        Args:
            observation: the image averaged in cells, linear RGB in [0, 1].
        """
        gains = grey_world_gains(observation)
        exposure = find_module("exposure", "wide").params[0]
        stops = exposure_to_mean(observation, self.target_mean, exposure.low, exposure.high, gains)
        red, green, blue = gains
        return Pipeline(
            (
                Stage("white_balance", {"red": red, "green": green, "blue": blue}),
                Stage("exposure", {"ev": stops}),
                Stage("srgb", {}),
            )
        )


@dataclass(frozen=True)
class CameraDevelopment(Policy):
    """The camera's own development to sRGB, which starts from the raw itself and does not use modules.

    Raw files are developed by LibRaw. Synthetic PNGs are developed by the exact inverse of their synthesis, with the
    true gains, matrix and brightness of the scene, which a camera does not know. This is the best result that a
    development without knowledge of the detector can reach.
    """

    name: str = "camera"
    is_static: ClassVar[bool] = True

    @property
    def needs_raw(self) -> bool:
        """True, since the picture is made of the raw."""
        return True

    def plan(self, image: Image) -> list[Pipeline]:
        """Raises PolicyError, since the picture is made without a pipeline."""
        raise PolicyError(f"policy {self.name} develops the raw itself, without a pipeline; choose another policy")

    def render(self, developed: Developed, labels: FrameLabels | None = None) -> Rendered:
        """The camera's picture at the working size; the whole development counts as time of modules.

        Raises:
            RawFileError: see `develop`.
            UsageError: the raw was not kept.
        """
        stopwatch = Stopwatch(developed.small.device)
        with stopwatch.part("all"):
            picture = self.render_full(developed, None)
        elapsed = stopwatch.milliseconds["all"]
        return Rendered(resize_longer_side(picture, developed.size)[None].to(developed.small), None, elapsed, elapsed)

    def render_full(self, developed: Developed, pipeline: Pipeline | None) -> Picture:
        """The camera's picture at full size.

        Raises:
            RawFileError: see `develop`.
            UsageError: the raw was not kept.
        """
        if developed.raw is None:
            raise UsageError(f"policy {self.name} needs the raw itself; develop the raw with develop_at_size")
        return self.develop(developed.raw)

    def develop(self, raw: RawImage) -> Picture:
        """The upright picture as sRGB code values in [0, 1], at full size.

        Args:
            raw: a raw of a camera, or a synthetic one with the parameters of its synthesis.

        Raises:
            RawFileError: LibRaw cannot develop it, or it is RGB without the parameters of its synthesis.
        """
        if raw.pattern is None and raw.unprocessing is not None:
            linear = torch.from_numpy(raw.data.astype("float32")).permute(2, 0, 1) / raw.white_level
            return upright(reprocess(linear, raw.unprocessing), raw.orientation)
        return torch.from_numpy(camera_render(raw)).permute(2, 0, 1).float() / 255


def grey_world_gains(observation: Float[Tensor, "3 height width"]) -> tuple[float, float, float]:
    """Gains of red, green and blue that make the mean of the unclipped pixels grey and keep its luminance.

    The gains lie within the ranges of the module set `wide`. Where every pixel is clipped, all pixels count.

    Args:
        observation: pooled image, linear RGB in [0, 1].

    >>> [round(gain, 2) for gain in grey_world_gains(torch.tensor([0.1, 0.1, 0.1]).reshape(3, 1, 1))]
    [1.0, 1.0, 1.0]
    """
    unclipped = partial(find("unclipped", observation) or _unclipped, observation)
    sums, count = unclipped(CLIPPED)
    if not count:
        sums, count = unclipped(math.inf)
    means = [max(value / count if count else math.nan, 1e-6) for value in sums]
    luminance = sum(weight * mean for weight, mean in zip(LUMA, means, strict=True))
    params = find_module("white_balance", "wide").params
    red, green, blue = (min(max(luminance / mean, p.low), p.high) for mean, p in zip(means, params, strict=True))
    return red, green, blue


def _unclipped(observation: Float[Tensor, "3 height width"], ceiling: float) -> tuple[list[float], int]:
    """The kernel `unclipped` in PyTorch: each channel's sum over the pixels below the ceiling, and their number."""
    pixels = observation.reshape(3, -1).double()
    usable = pixels[:, pixels.amax(dim=0) < ceiling]
    return usable.sum(dim=1).tolist(), usable.shape[1]


def exposure_to_mean(
    observation: Float[Tensor, "3 height width"],
    target: float,
    low: float,
    high: float,
    gains: Sequence[float] = (1.0, 1.0, 1.0),
) -> float:
    """Stops in [low, high] after which the mean luminance, each channel times its gain clipped at 1, is `target`.

    As a function of the gain the mean is concave and piecewise linear, with a corner where a value reaches 1. Newton's
    method from below therefore stays below the solution, and reaches it once no further value clips. This takes a few
    passes over the pixels instead of a sort.

    Args:
        observation: pooled image, linear RGB in [0, 1].
        target: mean luminance in (0, 1).
        low, high: range of the result in stops.
        gains: factors of red, green and blue that are applied before the exposure.

    >>> round(exposure_to_mean(torch.full((3, 2, 2), 0.125), 0.25, -8, 8), 3)
    1.0
    """
    below = (find("below_limit", observation) or _below_limit)(observation, gains)

    def split(gain: float) -> tuple[float, float]:
        """Mean luminance of the values that this gain clips, and of the others before the gain."""
        n = observation[0].numel()
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
        return high  # too much of the image is black for any gain to reach the target
    return math.log2(min(max(gain, least), most))


def _below_limit(
    observation: Float[Tensor, "3 height width"], gains: Sequence[float]
) -> Callable[[float], tuple[list[float], list[float]]]:
    """The kernel `below_limit` in PyTorch: gain → each channel's sum of the values below 1, and the rest's number."""
    values = observation.reshape(3, -1).double()
    values = values * values.new_tensor(gains)[:, None]

    def at(gain: float) -> tuple[list[float], list[float]]:
        at_limit = values * gain >= 1
        return values.masked_fill(at_limit, 0.0).sum(dim=1).tolist(), at_limit.double().sum(dim=1).tolist()

    return at

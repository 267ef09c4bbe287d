"""Static tone curves as policies: auto-exposure with another curve than sRGB's, or with CLAHE after it.

The constant of each was chosen on the `dev` part of the COCO subset, see docs/methods/baselines.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Policy, selected_stages
from adaptiveisp.policies.heuristics import TARGET_MEAN, AutoExposure
from adaptiveisp.types import Image

WHITE = 1.4
"""White point of `reinhard`, in units of the image's 1."""
STRENGTH = 0.3
"""Strength a of `log-curve`."""
GAMMA = 1.4
"""The g of `gamma-curve` x^(1/g)."""
CLIP = 2.0
"""Clip limit of `clahe`."""


@dataclass(frozen=True)
class ExposedCurve(Policy):
    """Auto-exposure's white balance and exposure for each image, then the same stages for every image.

    Attributes:
        curve: the stages that come after the exposure.
        name: short name for tables.
        target_mean: mean luminance of the exposed image before the curve, linear, in (0, 1).
    """

    curve: tuple[Stage, ...]
    name: str
    target_mean: float = TARGET_MEAN
    is_static: ClassVar[bool] = True

    def plan(self, image: Image) -> list[Pipeline]:
        """White balance and exposure, fitted to each image, and the curve."""
        plans = AutoExposure(self.target_mean).plan_with(image, ("white_balance", "exposure"))
        return [Pipeline(plan.stages + self.curve) for plan in plans]

    @property
    def settable(self) -> tuple[str, ...]:
        """White balance, exposure and the modules of the curve."""
        return ("white_balance", "exposure", *(stage.module for stage in self.curve))

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The policy's stages of these modules, in this order."""
        return [Pipeline(selected_stages(plan.stages, modules)) for plan in self.plan(image)]


TONE_CURVES = (
    ExposedCurve((Stage("reinhard", {"white": WHITE}),), "reinhard"),
    ExposedCurve((Stage("log_tone", {"strength": STRENGTH}),), "log-curve"),
    ExposedCurve((Stage("gamma", {"gamma": 1 / GAMMA}),), "gamma-curve"),
    ExposedCurve((Stage("srgb", {}), Stage("clahe", {"clip": CLIP})), "clahe"),
)
"""The policies of this file; `clahe` needs OpenCV."""

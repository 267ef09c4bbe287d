"""The results of one policy with one detector, and the scores computed from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np

from adaptiveisp.evaluation.bootstrap import MatchTable
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision
from adaptiveisp.evaluation.detector_loss import share_worse, worst_mean
from adaptiveisp.evaluation.pipeline_stats import Planned
from adaptiveisp.isp.pipeline import DEFAULT_SET

LIGHT_EDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Edges of the bins of the brightness factor, [low, high); the outer bins also hold factors beyond the edges."""


@dataclass(frozen=True)
class PolicyResult:
    """The detections, times, costs and losses of one policy with one detector.

    Attributes:
        scored: labels and detections of each image and draw.
        ms: time of policy and modules for each image, in milliseconds.
        modules: number of modules that ran for each image.
        cost_ms: their cost by the cost table for each image, in milliseconds.
        losses: the detector's loss of each rendered image; empty if it gives none.
        raw_losses, auto_exposure_losses: the losses of the two references, see `detector_loss`.
        pipelines: pipeline of each image; None where no pipeline made it (`camera`).
        pixels: number of pixels of each image at the working size.
        dropped: modules that were dropped from each image's pipeline to keep a latency.
        own_ms: the part of `ms` without modules.
        table_ms: time of policy and modules for each image by a clock table; empty where none was measured.
        module_set: named set of the modules of its pipelines.
        within: whether `ms` keeps the latency, for each image; empty without a latency.
        static: whether the policy is static, see `Policy.is_static`.
    """

    scored: Sequence[ScoredImage]
    ms: Sequence[float] = ()
    modules: Sequence[int] = ()
    cost_ms: Sequence[float] = ()
    losses: Sequence[float] = ()
    raw_losses: Sequence[float] = ()
    auto_exposure_losses: Sequence[float] = ()
    pipelines: Sequence[Planned | None] = ()
    static: bool = False
    pixels: Sequence[int] = ()
    dropped: Sequence[tuple[str, ...]] = ()
    own_ms: Sequence[float] = ()
    table_ms: Sequence[float] = ()
    within: Sequence[bool] = ()
    module_set: str = DEFAULT_SET

    def __post_init__(self) -> None:
        """Checks that each list has a value for each image, or is empty."""
        for name in (one.name for one in fields(self) if one.name not in ("scored", "static", "module_set")):
            if len(getattr(self, name)) not in (0, len(self.scored)):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {len(self.scored)} images")


@dataclass(frozen=True)
class LightBin:
    """AP50 (0..1, None without labels) of the images whose brightness factor lies in [low, high)."""

    low: float
    high: float
    n_images: int
    ap50: float | None


@dataclass(frozen=True)
class PolicyScore:
    """Scores of one policy with one detector, as in report.json.

    Attributes:
        ap, ap50, ap75: COCO average precision in 0..1, None without labels.
        per_light: one entry for each bin of `LIGHT_EDGES`; empty if the light of no image is known.
        per_class: name → AP50 in 0..1, for classes with a label.
        per_size: "small", "medium", "large" → AP50 in 0..1 of labels of that size, see `coco_ap.SIZES`.
        n_images: number of scored images, each draw counted.
        n_photos: number of distinct photos among them.
        ms_per_image: mean time of policy and modules, in milliseconds, None if not measured.
        modules_per_image: mean number of modules that ran.
        cost_ms: mean cost of the modules by the cost table, in milliseconds.
        loss_mean: mean of the detector's loss over the images, None if it gives none.
        loss_worst5: mean over the 5 % of images with the highest loss.
        worse_than_raw, worse_than_auto_exposure: share of images, in 0..1, whose loss is higher than that of the
            developed raw without any module, or of auto-exposure's rendering.
        static: whether the policy is static, see `Policy.is_static`.
        clock_ms: median time of policy and modules over the images, in milliseconds, None if not measured. It holds for
            the machine and the number of threads of this evaluation, and differs from run to run.
        table_ms: mean time of policy and modules by the clock table of this machine, see `evaluation.latency`.
        within_latency: share of the images, in 0..1, whose measured time is at most the latency of the evaluation; None
            without one.
        dropped_modules: module → number of images from whose pipeline it was dropped to keep the latency.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    per_light: tuple[LightBin, ...]
    per_class: dict[str, float]
    n_images: int
    n_photos: int
    ms_per_image: float | None
    modules_per_image: float | None
    cost_ms: float | None
    loss_mean: float | None = None
    loss_worst5: float | None = None
    worse_than_raw: float | None = None
    worse_than_auto_exposure: float | None = None
    static: bool = False
    per_size: dict[str, float] = field(default_factory=dict)
    clock_ms: float | None = None
    table_ms: float | None = None
    within_latency: float | None = None
    dropped_modules: dict[str, int] = field(default_factory=dict)


def light_bin(light: float) -> int:
    """Index of the bin of a brightness factor.

    >>> [light_bin(light) for light in (0.001, 0.003, 0.0099, 0.01, 0.3, 1.0, 1.2)]
    [0, 0, 0, 1, 4, 4, 4]
    """
    return int(np.searchsorted(LIGHT_EDGES[1:-1], light, side="right"))


def score_policy(result: PolicyResult, categories: Mapping[int, str], table: MatchTable | None = None) -> PolicyScore:
    """The scores of one policy with one detector.

    Args:
        result: its detections, costs and losses.
        categories: id → name of the categories to average over.
        table: the `MatchTable` of `result.scored`, if there is one already.
    """
    overall = coco_average_precision(result.scored, categories)
    return PolicyScore(
        ap=overall.ap,
        ap50=overall.ap50,
        ap75=overall.ap75,
        per_light=_per_light(result.scored, table or MatchTable(result.scored, categories)),
        per_class={categories[category]: value for category, value in overall.per_class.items()},
        n_images=len(result.scored),
        n_photos=len({image.image_id for image in result.scored}),
        ms_per_image=_mean(result.ms),
        modules_per_image=_mean(result.modules),
        cost_ms=_mean(result.cost_ms),
        loss_mean=_mean(result.losses),
        loss_worst5=worst_mean(result.losses),
        worse_than_raw=share_worse(result.losses, result.raw_losses),
        worse_than_auto_exposure=share_worse(result.losses, result.auto_exposure_losses),
        static=result.static,
        per_size=overall.per_size,
        clock_ms=float(np.median(result.ms)) if len(result.ms) else None,
        table_ms=_mean(result.table_ms),
        within_latency=_mean(result.within),
        dropped_modules=dict(Counter(name for names in result.dropped for name in dict.fromkeys(names))),
    )


def _mean(values: Sequence[float]) -> float | None:
    """The mean; None without values."""
    return float(np.mean(values)) if len(values) else None


def _per_light(scored: Sequence[ScoredImage], table: MatchTable) -> tuple[LightBin, ...]:
    """AP50 in each bin of light; empty if no light is known."""
    bins = np.array([-1 if image.light is None else light_bin(image.light) for image in scored], np.int64)
    if (bins < 0).all():
        return ()
    return tuple(
        LightBin(low, high, int((bins == i).sum()), table.ap((bins == i).astype(np.int64)))
        for i, (low, high) in enumerate(pairwise(LIGHT_EDGES))
    )

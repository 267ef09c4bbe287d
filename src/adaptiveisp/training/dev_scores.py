"""Scores policies on the dev set while it learns, and draws its pipelines for some dev images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from adaptiveisp.data.opening import Dataset
from adaptiveisp.evaluation.coco_ap import coco_average_precision
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import Scoring, score_dataset
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.inference.stage_sheet import trajectory_sheet
from adaptiveisp.isp.costs import Costs
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.latency import Limit
from adaptiveisp.training.distributed import ALONE, Ranks
from adaptiveisp.types import Detector

SHOWN = 6
"""Number of dev images whose pipelines are drawn."""


@dataclass(frozen=True)
class DevScore:
    """Score of a policy on dev.

    Attributes:
        ap50, ap: average precision, in [0, 1]; None if no class has a labelled object.
        modules_per_image: mean number of modules.
        cost_ms: mean cost of the modules in milliseconds.
        skipped: image that could not be read → reason.
        modules: names of the modules in the pipelines.
        of_sets: name of the data set → its AP50; empty where there is only one.
        within: share of the images for which the run's latency is kept by its clock table; None without a latency.
        within_clock: the same by the clock, at this moment and with this number of threads, which differs from run to
            run.
    """

    ap50: float | None
    ap: float | None
    modules_per_image: float
    cost_ms: float
    skipped: dict[str, str]
    modules: tuple[str, ...] = ()
    of_sets: dict[str, float | None] = field(default_factory=dict)
    within: float | None = None
    within_clock: float | None = None

    @property
    def line(self) -> dict[str, Any]:
        """The numbers of a line of dev.jsonl."""
        values = {
            "ap50": self.ap50,
            "ap": self.ap,
            "modules_per_image": self.modules_per_image,
            "cost_ms": self.cost_ms,
        }
        if self.within is not None:
            values["within_latency"] = self.within
        return {**values, **({"ap50_of_sets": self.of_sets} if self.of_sets else {})}


def score_on_dev(
    dev: Mapping[str, Dataset],
    policies: Sequence[Policy],
    detector: Detector,
    size: int,
    device: str,
    costs: Costs,
    cache: str = "",
    limit: Limit | None = None,
    ranks: Ranks = ALONE,
) -> list[DevScore]:
    """The scores of some policies on the dev set, on the same images, or their means over several dev sets.

    The random numbers of the run do not change.

    Args:
        dev: name → data set, at least one.
        policies: with distinct names.
        detector: the frozen detector.
        size: longer side of the images in pixels.
        device: device of policies and detector.
        costs: module → cost in milliseconds; empty for the paper's table.
        cache: folder of developed raws, see `data.frame_cache`; "" for none.
        limit: the run's latency; None for none.
        ranks: of the run, each of which scores a part of every set; the joined scores are those of one process.
    """
    options = ScoringOptions(size, device=device, costs=costs, cache=cache)
    with torch.random.fork_rng(devices=[]):  # reading ahead draws from the generator that dropout uses
        scores = {name: _scores_on(dataset, policies, detector, options, limit, ranks) for name, dataset in dev.items()}
    return [_mean_of({name: of_one[place] for name, of_one in scores.items()}) for place in range(len(policies))]


def _mean_of(scores: Mapping[str, DevScore]) -> DevScore:
    """The mean of a policy's scores on several sets; the score itself if there is one set."""
    if len(scores) == 1:
        return next(iter(scores.values()))
    return DevScore(
        ap50=_mean_or_none([score.ap50 for score in scores.values()]),
        ap=_mean_or_none([score.ap for score in scores.values()]),
        modules_per_image=fmean(score.modules_per_image for score in scores.values()),
        cost_ms=fmean(score.cost_ms for score in scores.values()),
        skipped={f"{name}: {one}": why for name, score in scores.items() for one, why in score.skipped.items()},
        modules=tuple(sorted({module for score in scores.values() for module in score.modules})),
        of_sets={name: score.ap50 for name, score in scores.items()},
        within=_mean_or_none([score.within for score in scores.values()]),
        within_clock=_mean_or_none([score.within_clock for score in scores.values()]),
    )


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean; None if any value is None."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _scores_on(
    dataset: Dataset,
    policies: Sequence[Policy],
    detector: Detector,
    options: ScoringOptions,
    limit: Limit | None,
    ranks: Ranks,
) -> list[DevScore]:
    """The scores on one data set; the arguments are those of `score_on_dev`."""
    if ranks.alone:
        found = score_dataset(dataset, policies, [detector], options)
    else:
        scoring = Scoring(dataset, policies, [detector], options)
        numbers = range(ranks.rank, len(dataset.samples), ranks.size)
        own = ranks.together(lambda: (list(scoring.measured(numbers)), scoring.unusable))
        parts = ranks.gather_objects(own)
        for _, unusable in parts:
            scoring.told(unusable)
        records = sorted((one for part, _ in parts for one in part), key=lambda record: record.number)
        found = scoring.evaluation(records, tell=ranks.first)
    results = [found.results[policy.name, detector.name] for policy in policies]
    return [_score(result, found.categories, dict(found.skipped), limit) for result in results]


def _score(result: PolicyResult, categories: dict[int, str], skipped: dict[str, str], limit: Limit | None) -> DevScore:
    score = coco_average_precision(result.scored, categories)
    within = within_clock = None
    if limit is not None:
        sizes = zip(result.pipelines, result.pixels, strict=True)
        n_first = len(limit.first)
        within = fmean(limit.fits([name for name, _ in plan or ()], n_first, pixels) for plan, pixels in sizes)
        within_clock = fmean(ms <= limit.latency_ms for ms in result.ms)
    return DevScore(
        ap50=score.ap50,
        ap=score.ap,
        modules_per_image=sum(result.modules) / max(1, len(result.modules)),
        cost_ms=sum(result.cost_ms) / max(1, len(result.cost_ms)),
        skipped=skipped,
        modules=tuple(sorted({name for pipeline in result.pipelines for name, _ in pipeline or ()})),
        within=within,
        within_clock=within_clock,
    )


def draw_on_dev(
    dev: Mapping[str, Dataset], policy: Policy, size: int, device: str
) -> UInt8[np.ndarray, "height width 3"] | None:
    """Draws some dev images after each stage of their pipelines, spread over the brightness where it is known.

    Args:
        dev: name → data set, at least one.
        policy: the current policy.
        size: longer side of the images in pixels.
        device: device of the policy.

    Returns:
        The picture; None if no image can be read.
    """
    listed = [(dataset, sample) for dataset in dev.values() for sample in dataset.samples]
    samples = sorted(listed, key=lambda pair: pair[1].light or 0.0)
    images, names, lights, frames = [], [], [], []
    n = min(SHOWN, len(samples))
    for dataset, sample in (samples[round(i * (len(samples) - 1) / max(1, n - 1))] for i in range(n)):
        try:
            raw = dataset.read(sample)
            images.append(develop_at_size(raw, size, device=device).small)
            frames.append(RawFrame(raw) if policy.needs_raw else None)
        except Exception:  # any error that a file can cause in its reader; the evaluation has noted it
            continue
        names.append(sample.name)
        lights.append(sample.light)
    return trajectory_sheet(policy, images, names, lights, frames=frames) if images else None

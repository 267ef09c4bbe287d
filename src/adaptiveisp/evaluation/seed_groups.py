"""The units that a report compares: single policies, and groups of runs of one method with several seeds.

The score of a group is the mean over its members. Differences between groups are paired like those between policies: in
each resample the same photos count for all members, and the AP50 of the members is averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.evaluation.bootstrap import (
    Interval,
    MatchTable,
    Resampling,
    aligned,
    bootstrap_weights,
    percentile_interval,
)
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.policy_scores import LightBin, PolicyScore

_NUMBERS = (
    *("ap", "ap50", "ap75", "ms_per_image", "clock_ms", "table_ms", "modules_per_image", "cost_ms"),
    *("loss_mean", "loss_worst5", "worse_than_raw", "worse_than_auto_exposure", "within_latency"),
)
"""The scores of a `PolicyScore` that are one number, of which a mean can be taken."""

Units = Mapping[str, tuple[str, ...]]
"""Name of a group → its members; a single policy is a unit of its own, with itself as the only member."""


@dataclass(frozen=True)
class Difference:
    """A score of policy or group `a` minus that of `b`.

    Attributes:
        a, b: names of the two.
        detector: name of the detector.
        metric: the score, "ap50".
        interval: the difference in 0..1 units with its paired bootstrap interval.
    """

    a: str
    b: str
    detector: str
    metric: str
    interval: Interval

    @property
    def name(self) -> str:
        """Both names with a true minus sign between them."""
        return f"{self.a} \N{MINUS SIGN} {self.b}"

    def to_json(self) -> dict[str, Any]:
        """Its entry in report.json."""
        names = {"a": self.a, "b": self.b, "detector": self.detector, "metric": self.metric}
        return names | asdict(self.interval)


@dataclass(frozen=True)
class BestStatic:
    """The best static policy or group by AP50 (0..1) on the evaluated data, and the differences of adaptive ones to it.

    Choosing it on the data that it is compared on favours the static side.
    """

    name: str
    ap50: float
    differences: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """Its entry in report.json."""
        return {"name": self.name, "ap50": self.ap50, "differences": [d.to_json() for d in self.differences]}


@dataclass(frozen=True)
class GroupScore:
    """Scores of a group with one detector.

    Attributes:
        members: names of its policies, one for each seed.
        mean: mean of each score over the members.
        ap50_sd, ap_sd, ap75_sd: standard deviation (n - 1) over the members in 0..1; None for fewer than two.
    """

    members: tuple[str, ...]
    mean: PolicyScore
    ap50_sd: float | None
    ap_sd: float | None
    ap75_sd: float | None

    def to_json(self) -> dict[str, Any]:
        """Its entry in report.json."""
        rest = asdict(self.mean)
        result: dict[str, Any] = {"members": list(self.members)}
        for metric in ("ap50", "ap", "ap75"):
            result |= {f"{metric}_mean": rest.pop(metric), f"{metric}_sd": getattr(self, f"{metric}_sd")}
        return result | rest


class UnitAps(NamedTuple):
    """AP50 (0..1) of each unit; for a group the mean over its members.

    Attributes:
        points: unit → AP50 on all images.
        samples: unit → (resamples,) AP50 on each resample, NaN where no label is left to find.
    """

    points: dict[str, float]
    samples: dict[str, NDArray[np.float64]]


class Compared(NamedTuple):
    """The differences between every two units, "later minus earlier", and those to the best static unit, if any."""

    differences: list[Difference]
    best_static: BestStatic | None


def units_of(policies: Sequence[str], groups: Units) -> dict[str, tuple[str, ...]]:
    """The units in the order of the policies, each group in the place of its first member.

    >>> units_of(["none", "ours/1", "ours/2"], {"ours": ("ours/1", "ours/2")})
    {'none': ('none',), 'ours': ('ours/1', 'ours/2')}
    """
    owner = {member: name for name, members in groups.items() for member in members}
    names = dict.fromkeys(owner.get(policy, policy) for policy in policies)
    return {name: tuple(groups[name]) if name in groups else (name,) for name in names}


def group_score(members: Sequence[str], scores: Sequence[PolicyScore]) -> GroupScore:
    """The scores of a group from those of its members, which were scored on the same data with one detector.

    A mean is None where the score of a member is None. The group is static if all its members are.
    """
    first = scores[0]
    means: dict[str, Any] = mean_scores(scores)
    bins = zip(*(score.per_light for score in scores), strict=False)
    mean = PolicyScore(
        per_light=tuple(LightBin(b[0].low, b[0].high, b[0].n_images, _mean([x.ap50 for x in b])) for b in bins),
        per_class={name: fmean(score.per_class.get(name, 0.0) for score in scores) for name in first.per_class},
        per_size={name: fmean(score.per_size.get(name, 0.0) for score in scores) for name in first.per_size},
        n_images=min(score.n_images for score in scores),
        n_photos=min(score.n_photos for score in scores),
        static=all(score.static for score in scores),
        **means,
    )
    ap50, ap, ap75 = (_sd([getattr(score, name) for score in scores]) for name in ("ap50", "ap", "ap75"))
    return GroupScore(tuple(members), mean, ap50, ap, ap75)


def mean_scores(scores: Sequence[PolicyScore]) -> dict[str, Any]:
    """Name → mean of each score that is one number; None where it is None in one of them."""
    return {name: _mean([getattr(score, name) for score in scores]) for name in _NUMBERS}


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean; None if any value is None."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _sd(values: Sequence[float | None]) -> float | None:
    """The standard deviation (n - 1); None for fewer than two values or if any is None."""
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) == len(values) >= 2 else None


def compare(
    detector: str,
    scored: Mapping[str, Sequence[ScoredImage]],
    units: Units,
    static: Mapping[str, bool],
    categories: Mapping[int, str],
    resampling: Resampling,
) -> Compared:
    """The paired differences between every two units; all policies have the same resampled photos.

    Args:
        detector: name of the detector.
        scored: policy → images with its detections, the same images for all.
        units: policies and groups to compare, see `units_of`.
        static: unit → whether it is static.
        categories: id → name of the categories to average over.
        resampling: settings of the bootstrap.
    """
    found = unit_aps(scored, units, categories, resampling)
    return Compared([], None) if found is None else compare_aps(detector, found, static, resampling.level)


def unit_aps(
    scored: Mapping[str, Sequence[ScoredImage]],
    units: Units,
    categories: Mapping[int, str],
    resampling: Resampling,
    stream: int | None = None,
) -> UnitAps | None:
    """AP50 of each unit, where all policies have the same resampled photos; None if there is nothing to compare.

    Args:
        scored, units, categories, resampling: as for `compare`.
        stream: as for `bootstrap_weights`.
    """
    reference = next(iter(scored.values()))
    if not reference or len(units) < 2:
        return None
    tables = {p: MatchTable(aligned(reference, images), categories) for p, images in scored.items()}
    points: dict[str, float] = {}
    for policy, table in tables.items():
        if (point := table.ap()) is None:
            return None
        points[policy] = point
    weights = bootstrap_weights(next(iter(tables.values())).keys, resampling.resamples, resampling.seed, stream)
    samples = {policy: table.resampled_ap(weights) for policy, table in tables.items()}
    return UnitAps(
        {name: fmean(points[member] for member in members) for name, members in units.items()},
        {name: np.mean([samples[member] for member in members], axis=0) for name, members in units.items()},
    )


def compare_aps(detector: str, found: UnitAps, static: Mapping[str, bool], level: float) -> Compared:
    """The paired differences between every two units, from their AP50 on all images and on each resample.

    Args:
        detector: name of the detector.
        found: AP50 of each unit.
        static: unit → whether it is static.
        level: nominal coverage of the intervals, between 0 and 1.
    """
    points, samples = found

    def less(a: str, b: str) -> Difference:
        interval = percentile_interval(points[a] - points[b], samples[a] - samples[b], level)
        return Difference(a, b, detector, "ap50", interval)

    differences = [less(a, b) for b, a in combinations(points, 2)]
    best = max((name for name in points if static[name]), key=lambda name: points[name], default=None)
    if best is None:
        return Compared(differences, None)
    adaptive = tuple(less(name, best) for name in points if not static[name])
    return Compared(differences, BestStatic(best, points[best], adaptive))

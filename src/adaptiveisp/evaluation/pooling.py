"""The report on several data sets: each alone, and the mean over them, in which every set has the same weight.

A mean over all images would be that of the largest set. The bootstrap resamples the photos of each set independently
of the other sets, with the same photos for all policies, and the differences are those of the means over the sets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from adaptiveisp.evaluation.bootstrap import Resampling
from adaptiveisp.evaluation.latency import latency_notes
from adaptiveisp.evaluation.policy_scores import PolicyScore
from adaptiveisp.evaluation.report import Report, on_common_images
from adaptiveisp.evaluation.seed_groups import (
    Compared,
    GroupScore,
    UnitAps,
    compare_aps,
    group_score,
    mean_scores,
    unit_aps,
    units_of,
)


def pooled_report(sets: Mapping[str, Report], resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Report:
    """The means over several data sets, with the report on each set alone in `Report.sets`.

    Scores by class, light and size are those of the single sets, because the sets need not share classes.

    Args:
        sets: name → report on that data set, all of the same policies, groups and detectors.
        resamples, seed, level: settings of the paired bootstrap, as for `build_report`.

    Raises:
        ValueError: there are fewer than two sets, or they have not the same policies, groups and detectors.
    """
    reports = list(sets.values())
    _require_same_units(reports)
    resampling = Resampling(resamples, seed, level)
    first = reports[0]
    policies = {
        policy: {detector: _mean_over_sets([one.policies[policy][detector] for one in reports]) for detector in by}
        for policy, by in first.policies.items()
    }
    groups = {
        name: {detector: _mean_group(group, policies, detector) for detector, group in by.items()}
        for name, by in first.groups.items()
    }
    compared = {detector: _compared(detector, reports, resampling) for detector in first.detectors}
    report = Report(
        policies=policies,
        differences=tuple(difference for found in compared.values() for difference in found.differences),
        provenance=reports[-1].provenance,  # a backend may have changed while the first sets were scored
        notes=(_note(sets), *latency_notes(policies, first.settings.get("latency_ms"), warn=False)),
        settings=_settings(reports),
        clock_table=reports[-1].clock_table,
        groups=groups,
        best_static={d: found.best_static for d, found in compared.items() if found.best_static is not None},
        runs=tuple(replace(run, dataset=name) for name, one in sets.items() for run in one.runs),
        title=f"Evaluation on {len(sets)} data sets: {', '.join(sets)}",
        skipped=tuple((f"{name}: {what}", reason) for name, one in sets.items() for what, reason in one.skipped),
        upper_bounds=first.upper_bounds,
        sets=dict(sets),
    )
    return replace(report, notes=(*report.notes, report.caution)) if report.caution else report


def _require_same_units(reports: Sequence[Report]) -> None:
    """Checks that the reports can be averaged.

    Raises:
        ValueError: there are fewer than two reports, or their policies, groups or detectors differ.
    """
    if len(reports) < 2:
        raise ValueError(f"{len(reports)} data sets: a mean over data sets needs at least two")
    units = [
        (
            {policy: set(by) for policy, by in one.policies.items()},
            {name: {d: group.members for d, group in by.items()} for name, by in one.groups.items()},
        )
        for one in reports
    ]
    if any(other != units[0] for other in units):
        raise ValueError("the data sets were not scored with the same policies, groups and detectors")


def _settings(reports: Sequence[Report]) -> dict[str, Any]:
    """The settings of all data sets; where these differ, such as numbers of draws, a list with one value for each."""
    first = reports[0].settings
    values = {name: [one.settings.get(name) for one in reports] for name in first}
    return {name: own if any(value != own[0] for value in own) else own[0] for name, own in values.items()}


def _mean_over_sets(scores: Sequence[PolicyScore]) -> PolicyScore:
    """The means of a policy's scores over the data sets; images and photos are counted in all of them.

    So are the images from which modules were dropped.
    """
    dropped: Counter[str] = sum((Counter(score.dropped_modules) for score in scores), Counter())
    return PolicyScore(
        per_light=(),
        per_class={},
        n_images=sum(score.n_images for score in scores),
        n_photos=sum(score.n_photos for score in scores),
        static=scores[0].static,
        dropped_modules=dict(dropped),
        **mean_scores(scores),
    )


def _mean_group(group: GroupScore, policies: Mapping[str, Mapping[str, PolicyScore]], detector: str) -> GroupScore:
    """The scores of a group from the means over the data sets of its members."""
    return group_score(group.members, [policies[member][detector] for member in group.members])


def _compared(detector: str, reports: Sequence[Report], resampling: Resampling) -> Compared:
    """The differences of the means over the data sets between every two policies or groups."""
    first = reports[0]
    members = {name: by[detector].members for name, by in first.groups.items() if detector in by}
    units = units_of([policy for policy, by in first.policies.items() if detector in by], members)
    found: list[UnitAps] = []
    for stream, one in enumerate(reports):
        own = {policy: scored for (policy, name), scored in one.scored.items() if name == detector}
        aps = unit_aps(on_common_images(own)[0], units, one.categories, resampling, stream)
        if aps is None:
            return Compared([], None)
        found.append(aps)
    points = {name: fmean(one.points[name] for one in found) for name in units}
    samples = {name: np.mean([one.samples[name] for one in found], axis=0) for name in units}
    static = {name: score.static for name, score in first.units(detector).items()}
    return compare_aps(detector, UnitAps(points, samples), static, resampling.level)


def _note(sets: Mapping[str, Report]) -> str:
    """A note on the means for the reader; the notes on each data set are in its own report."""
    classes = ", ".join(f"{len(one.categories)} in {name}" for name, one in sets.items())
    return (
        f"Mean of sets: the mean of the scores on {' and '.join(sets)}, each with the same weight whatever its number "
        f"of photos. Scored classes: {classes}."
    )

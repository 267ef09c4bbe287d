"""Times of an evaluation by the clock table of this machine, and how often a latency was kept."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from adaptiveisp.errors import logger
from adaptiveisp.evaluation.policy_scores import PolicyResult, PolicyScore
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.clock_table import ClockTable, low_quantile, module_times
from adaptiveisp.policies.latency import KEPT_SHARE
from adaptiveisp.utils.own_code import reason_of

Results = Mapping[tuple[str, str], PolicyResult]


@dataclass(frozen=True)
class TimedResults:
    """Results with times by the clock table.

    Attributes:
        results: (policy, detector) → results with `table_ms` and, with a latency, `within`.
        clock_table: the entry of report.json: size, threads, device, and milliseconds of each module that ran. A module
            of a set in which its name stands for another function is named SET:MODULE.
    """

    results: dict[tuple[str, str], PolicyResult]
    clock_table: dict[str, Any]


def with_times(results: Results, size: int, device: str, latency_ms: float | None = None) -> TimedResults:
    """The results with times by a clock table, of the modules that ran, that is measured now.

    The own time of a policy is the low quantile of what it took for these images, as in `policies.clock_table`.

    Args:
        results: (policy, detector) → results.
        size: working size in pixels.
        device: where the modules ran.
        latency_ms: a latency; None for none.
    """
    facts: dict[str, Any] = {"size": size, "threads": torch.get_num_threads(), "device": device}
    listed: dict[str, float] = {}
    found = {}
    for key, one in results.items():
        names = dict.fromkeys(name for plan in one.pipelines for name, _ in plan or ())
        try:
            times = module_times(names, one.module_set, size, device)
        except Exception as error:  # whatever a user's own module raises: the scores must not be lost for it
            logger.debug("clock table", exc_info=error)
            logger.warning("%s: has no table ms: a module cannot be timed alone (%s)", key[0], reason_of(error))
            found[key] = replace(one, within=_within(one, latency_ms))
            continue
        listed |= {_label(name, one.module_set): ms for name, ms in times.items()}
        found[key] = _timed(one, ClockTable(times, **facts), latency_ms)
    return TimedResults(found, {**facts, "milliseconds": listed})


def _label(name: str, module_set: str) -> str:
    """The module's name, with its set in front where the default set has another function of this name.

    >>> _label("denoise", "wide"), _label("denoise", "pos-isp")
    ('denoise', 'pos-isp:denoise')
    """
    same = find_module(name, module_set).function is find_module(name, DEFAULT_SET).function
    return name if same else f"{module_set}:{name}"


def _within(result: PolicyResult, latency_ms: float | None) -> list[bool]:
    """Whether each image kept the latency by the clock; empty without one."""
    return [] if latency_ms is None else [ms <= latency_ms for ms in result.ms]


def _timed(result: PolicyResult, table: ClockTable, latency_ms: float | None) -> PolicyResult:
    within = _within(result, latency_ms)
    if not result.pipelines or any(plan is None for plan in result.pipelines) or not result.own_ms:
        return replace(result, within=within)  # no pipeline made the images
    own = replace(table, policy_ms=low_quantile(result.own_ms))
    plans = zip(result.pipelines, result.pixels, strict=True)
    times = [own.time([name for name, _ in plan or ()], pixels=pixels) for plan, pixels in plans]
    return replace(result, within=within, table_ms=times)


def latency_notes(
    scores: Mapping[str, Mapping[str, PolicyScore]], latency_ms: float | None, warn: bool = True
) -> list[str]:
    """A note on each policy of a report with a latency; policies that do not keep it are warned of if asked.

    Args:
        scores: policy → detector → scores.
        latency_ms: the latency; None for none.
        warn: whether such policies are warned of.
    """
    notes = []
    for policy, by in scores.items() if latency_ms is not None else ():
        score = next(iter(by.values()))
        if score.within_latency is None:
            continue
        share = f"{100 * score.within_latency:.1f} % of the images by the clock"
        kept = f"{policy} took at most {latency_ms:g} ms for {share}"
        if warn and score.within_latency < KEPT_SHARE:
            logger.warning("%s, less than %.0f %%", kept, 100 * KEPT_SHARE)
        listed = ", ".join(f"{name} ({count})" for name, count in score.dropped_modules.items())
        dropped = f"modules dropped, and from how many images: {listed}" if listed else "no module was dropped"
        notes.append(f"Latency: {kept}; {dropped}.")
    return notes

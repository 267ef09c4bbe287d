"""Times of an evaluation by the clock table of this machine, and how often a latency was kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from adaptiveisp.errors import PipelineError, logger
from adaptiveisp.evaluation.policy_scores import PolicyResult, PolicyScore
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.isp.registry import MODULE_SETS, find_module
from adaptiveisp.policies.clock_table import ClockTable, low_quantile, module_times
from adaptiveisp.policies.latency import KEPT_SHARE

Results = Mapping[tuple[str, str], PolicyResult]


@dataclass(frozen=True)
class TimedResults:
    """Results with times by the clock table.

    Attributes:
        results: (policy, detector) → results with `table_ms` and, with a latency, `within`.
        table: of the modules that ran; the own time of each policy is not in it.
    """

    results: dict[tuple[str, str], PolicyResult]
    table: ClockTable = field(default_factory=ClockTable)

    @property
    def recorded(self) -> dict[str, Any]:
        """The entry `clock_table` of report.json."""
        table = self.table
        facts = {"size": table.size, "threads": table.threads, "device": table.device}
        return {**facts, "milliseconds": dict(table.milliseconds)}


def with_times(results: Results, size: int, device: str, latency_ms: float | None = None) -> TimedResults:
    """The results with times by a clock table, of the modules that ran, that is measured now.

    The own time of a policy is the low quantile of what it took for these images, as in `policies.clock_table`.

    Args:
        results: (policy, detector) → results.
        size: working size in pixels.
        device: where the modules ran.
        latency_ms: a latency; None for none.
    """
    ran = dict.fromkeys(name for one in results.values() for plan in one.pipelines for name, _ in plan or ())
    times: dict[str, float] = {}
    for name in ran:
        times |= module_times([name], set_of(name), size, device)
    table = ClockTable(times, size=size, threads=torch.get_num_threads(), device=device)
    return TimedResults({key: _timed(one, table, latency_ms) for key, one in results.items()}, table)


def set_of(module: str) -> str:
    """The module set in which a module of a pipeline is found: the default one, or else the first that has it.

    >>> set_of("denoise")
    'extended'
    """
    for module_set in (DEFAULT_SET, *MODULE_SETS):
        try:
            find_module(module, module_set)
        except PipelineError:
            continue
        return module_set
    return DEFAULT_SET


def _timed(result: PolicyResult, table: ClockTable, latency_ms: float | None) -> PolicyResult:
    within = () if latency_ms is None else [ms <= latency_ms for ms in result.ms]
    if not result.pipelines or any(plan is None for plan in result.pipelines) or not result.own_ms:
        return replace(result, within=within)  # no pipeline made the images
    own = replace(table, policy_ms=low_quantile(result.own_ms))
    plans = zip(result.pipelines, result.pixels, strict=True)
    return replace(
        result, within=within, table_ms=[own.time([name for name, _ in plan or ()], 0, n) for plan, n in plans]
    )


def latency_notes(scores: Mapping[str, Mapping[str, PolicyScore]], latency_ms: float | None) -> list[str]:
    """A note on each policy of a report with a latency; policies that do not keep it are warned of.

    Args:
        scores: policy → detector → scores.
        latency_ms: the latency; None for none.
    """
    notes = []
    for policy, by in scores.items() if latency_ms is not None else ():
        score = next(iter(by.values()))
        if score.within_latency is None:
            continue
        share = f"{100 * score.within_latency:.1f} % of the images by the clock"
        kept = f"{policy} took at most {latency_ms:g} ms for {share}"
        if score.within_latency < KEPT_SHARE:
            logger.warning("%s, less than %.0f %%", kept, 100 * KEPT_SHARE)
        listed = ", ".join(f"{name} ({count})" for name, count in score.dropped_modules.items())
        dropped = f"modules dropped, and from how many images: {listed}" if listed else "no module was dropped"
        notes.append(f"Latency: {kept}; {dropped}.")
    return notes

"""What a new run measures on its machine: the clock table of its modules and its policy, and what a latency asks for.

The table is measured once, before the first iteration, with one thread and at the size of dev's images, and stored in
config.yaml, so that a resumed run and its scores on dev repeat. Runs of one process share their measurements.

With `latency_ms` = X the expert modules of an imitation warm-up, and the modules of the method `fixed`, are reduced to
those for which there is time; see `policies.latency` for the rule. A run is refused where X is less than the policy's
own time and its preprocessing take.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.errors import UsageError, logger
from adaptiveisp.isp.costs import CLOCK, PAPER, listed_costs
from adaptiveisp.kernels import loading
from adaptiveisp.policies.base import STAGES, Policy, as_policy
from adaptiveisp.policies.clock_table import ClockTable, module_times, policy_times
from adaptiveisp.policies.latency import KEPT_SHARE, Limit, training_limit
from adaptiveisp.policies.latency_reserve import DRIFT, excess_ms
from adaptiveisp.training.config import TrainConfig
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.training.trial_parts import check_modules
from adaptiveisp.types import Detector

THREADS = 1
"""CPU threads of the measurement: those with which policies are compared by the clock."""


def cost_table_name(settings: Any, given: str | None = None) -> str:
    """Name of the table of module costs in the settings of a method, for the provenance.

    Args:
        settings: of the method.
        given: name or file that the user gave.
    """
    costs = getattr(settings, "costs", None) or PAPER
    return given or (costs if isinstance(costs, str) else "settings.costs")


def with_clock(options: TrainConfig, settings: Any, detector: Detector, device: str) -> tuple[Any, dict[str, Any]]:
    """The settings of a new run with the measured table, if they ask for one, and the facts about it.

    A table is measured for `costs: clock` where the run has a penalty on run time, and for every latency. Times that
    the settings have already, of a table of their own or of the config.yaml of another run, are not measured.

    Args:
        options: completed options of the run.
        settings: completed settings of its method.
        detector: of the run, which a learner takes; it does not run.
        device: where the policy runs.

    Returns:
        The settings, and entries of the provenance.

    Raises:
        UsageError: the latency is less than the run could keep, or a module of the user's own has a fault.
    """
    costs, latency_ms = getattr(settings, "costs", None), getattr(settings, "latency_ms", None)
    if latency_ms is None and costs != CLOCK:
        return settings, {}
    if latency_ms is None and not getattr(settings, "runtime_weight", 0.0):
        return replace(settings, costs=PAPER), {"cost_table": PAPER}
    check_modules(options.method, settings, device)
    table = _measured(options, settings, detector, device)
    name = {} if listed_costs(settings.costs) else {"cost_table": CLOCK}
    facts = {"size": table.size, "threads": table.threads, "device": device}
    own = {"policy_ms": table.policy_ms, "step_ms": table.step_ms}
    excess = _excess(options, settings, detector, table)
    changed = replace(settings, costs=dict(table.milliseconds), excess_ms=excess, **own)
    return _within(changed), {**name, "clock_table": facts}


def run_table(settings: Any, provenance: Mapping[str, Any]) -> ClockTable | None:
    """The clock table that a run measured; None where it has none.

    Args:
        settings: of the run's method.
        provenance: of the run.
    """
    facts = provenance.get("clock_table")
    if not isinstance(facts, Mapping):  # a file may hold anything
        return None
    size, threads, device = (facts.get(name) for name in ("size", "threads", "device"))
    if not (isinstance(size, int) and isinstance(threads, int) and isinstance(device, str)):
        return None
    return ClockTable(listed_costs(settings.costs), settings.policy_ms, settings.step_ms, size, threads, device)


_OWN_TIMES: dict[tuple[object, ...], tuple[float, float]] = {}
"""Own times of policies that this process has measured."""
_EXCESS: dict[tuple[object, ...], float] = {}
"""What they take beyond a table's sum, which a latency asks for."""


def _measured(options: TrainConfig, settings: Any, detector: Detector, device: str) -> ClockTable:
    """The clock table, rounded to microseconds; modules that the settings have a cost for are not measured."""
    size, given = options.dev_size, listed_costs(settings.costs)
    names = dict.fromkeys([*STAGES[settings.preprocessing], *(getattr(settings, "chosen", None) or settings.modules)])
    missing = [name for name in names if name not in given]
    measured = module_times(missing, settings.module_set, size, device, THREADS)
    times = {name: round(ms, 3) for name, ms in measured.items()}
    policy_ms, step_ms = settings.policy_ms, settings.step_ms
    if not (given and policy_ms):
        key = _key(options, settings, device)
        if key not in _OWN_TIMES:
            _OWN_TIMES[key] = policy_times(_untrained(options, settings, detector, device), size, device, THREADS)
        policy_ms, step_ms = _OWN_TIMES[key]
    return ClockTable({**times, **given}, round(policy_ms, 3), round(step_ms, 3), size, THREADS, device)


def _key(options: TrainConfig, settings: Any, device: str) -> tuple[object, ...]:
    return (
        options.method,
        repr(replace(settings, costs={}, latency_ms=None)),
        options.dev_size,
        device,
        loading.available(),
    )


def _excess(options: TrainConfig, settings: Any, detector: Detector, table: ClockTable) -> float:
    """What the policy takes beyond the table's sum, which a latency keeps free; a new table alone has one.

    With costs of the user's own there is none, since their sum is no time of this machine.
    """
    if settings.latency_ms is None or settings.excess_ms:
        return float(settings.excess_ms)
    if listed_costs(settings.costs):
        if settings.policy_ms:
            logger.warning(
                "latency_ms %g: the clock table of this configuration has no excess_ms, so that fewer than %.0f %% of "
                "the images may keep it; remove costs and policy_ms to measure anew",
                *(settings.latency_ms, 100 * KEPT_SHARE),
            )
        return 0.0
    key = _key(options, settings, table.device)
    if key not in _EXCESS:
        _EXCESS[key] = round(excess_ms(_untrained(options, settings, detector, table.device), table), 3)
    return _EXCESS[key]


def _untrained(options: TrainConfig, settings: Any, detector: Detector, device: str) -> Policy:
    """The policy of a run before it learned anything, on which its own time does not depend."""
    make = find_method(options.method).learner
    with torch.random.fork_rng(devices=[]):
        return as_policy(make(settings, _NoImages(), detector, options.budget, options.seed, device).policy())


class _NoImages:
    """Stands for the training images of a learner that does not learn."""

    def __getitem__(self, number: int) -> TrainingImage:
        raise IndexError(number)


def _within(settings: Any) -> Any:
    """The settings without expert modules, or modules of a fixed pipeline, for which a latency leaves no time.

    Raises:
        UsageError: it leaves no time for the policy itself, or for any module of a fixed pipeline.
    """
    limit = training_limit(settings)
    if limit is None:
        return settings
    if not limit.fits(limit.first, len(limit.first)):
        what = "the policy's own time and its preprocessing take"
        raise UsageError(_refusal(limit, what, limit.first_ms))
    if not hasattr(settings, "expert_modules"):
        return _shorter_pipeline(settings, limit)
    if getattr(settings, "candidates", "") == "listed":
        _check_listed(settings, limit)
        return settings
    kept = _kept(limit, settings.expert_modules, "expert modules of the imitation warm-up")
    warmup = settings.imitation_warmup if kept else 0.0
    return replace(settings, expert_modules=kept, imitation_warmup=warmup)


def _check_listed(settings: Any, limit: Limit) -> None:
    """Warns of listed pipelines that take longer than the latency.

    Raises:
        UsageError: all of them do.
    """
    n_first = len(limit.first)
    times = {names: limit.table.time([*limit.first, *names], n_first) for names in settings.pipelines}
    too_long = [names for names in times if not limit.fits([*limit.first, *names], n_first)]
    if len(too_long) == len(times):
        what = "the preprocessing and the fastest of the listed pipelines take"
        raise UsageError(_refusal(limit, what, min(times.values())))
    if too_long:
        listed = "; ".join(f"{', '.join(names)} ({times[names]:.2f} ms)" for names in too_long)
        logger.warning("latency_ms %g: %d of pipelines take longer: %s", limit.latency_ms, len(too_long), listed)


def _shorter_pipeline(settings: Any, limit: Limit) -> Any:
    """The settings of a fixed pipeline with the modules for which there is time, and their initial values."""
    kept = _kept(limit, settings.modules, "modules of the pipeline")
    if settings.modules and not kept:
        least = min(limit.table.time([*limit.first, name], len(limit.first)) for name in settings.modules)
        raise UsageError(_refusal(limit, "the preprocessing and the fastest module take", least))
    initial = {name: values for name, values in settings.initial.items() if name in kept}
    return replace(settings, modules=kept, initial=initial)


def _kept(limit: Limit, modules: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The modules for which there is time; the others are logged."""
    n_first = len(limit.first)
    chosen = limit.choices([*limit.first, *modules], n_first)[0]
    kept = tuple(modules[place - n_first] for place in chosen[n_first:])
    if len(kept) < len(modules):
        left_out = [name for place, name in enumerate(modules) if place + n_first not in chosen]
        logger.warning(
            "latency_ms %g: leaves no time for %d of %d %s: %s",
            *(limit.latency_ms, len(left_out), len(modules), what, ", ".join(left_out)),
        )
    return kept


def _refusal(limit: Limit, what: str, least: float) -> str:
    if not limit.table.reserve_ms:
        need = math.ceil(100 * least) / 100
        return f"latency_ms {limit.latency_ms:g}: {what} {least:.2f} ms on this machine; give at least {need:g}"
    # The reserve grows with the latency by DRIFT, so that to give the sum of both would be refused again.
    need = math.ceil(100 * (least + limit.table.reserve_ms - DRIFT * limit.latency_ms) / (1 - DRIFT)) / 100
    beside = f"beside a reserve of {limit.table.reserve_ms:.2f} ms; give at least {need:g}"
    return f"latency_ms {limit.latency_ms:g}: {what} {least:.2f} ms on this machine, {beside}"

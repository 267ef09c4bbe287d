"""Policies that keep a latency: modules are dropped from a pipeline until the clock table's sum fits.

The stages of the preprocessing always run, since learned parameters presuppose them. Of the policy's own modules a set
may be dropped only if none of them could be put back. Among such sets

- a policy that gives probabilities to sequences chooses the likeliest shortened sequence;
- for any other policy the smallest set is dropped, and of equally small ones the one that saves the least time.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptiveisp.errors import logger
from adaptiveisp.isp.costs import Costs, listed_costs
from adaptiveisp.isp.pipeline import DEFAULT_SET, Pipeline
from adaptiveisp.policies.base import STAGES, Developed, FrameLabels, Likelihoods, Policy, Preprocessing, Rendered
from adaptiveisp.policies.clock_table import ClockTable, clock_table, module_times
from adaptiveisp.policies.latency_reserve import excess_ms, reserve_ms
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch
from adaptiveisp.utils.config import require

KEPT_SHARE = 0.95
"""Share of the images for which a latency has to be kept."""
MOST_CHOICES = 64
"""Most shortened sequences whose likelihoods are compared."""
MOST_COMBINED = 12
"""Most modules of which all subsets are looked at; of longer pipelines the slowest modules are dropped one by one."""
SLACK = 1e-9
"""Milliseconds by which a sum may be too long, for rounding."""


def check_latency(latency_ms: float | None, *own_ms: float) -> None:
    """Refuses a latency that is not positive, and own times of a policy that are negative.

    Raises:
        UsageError: says what to give.
    """
    positive = latency_ms is None or (math.isfinite(latency_ms) and latency_ms > 0)
    require(positive, f"latency_ms {latency_ms}: give milliseconds above 0")
    require(all(value >= 0 for value in own_ms), "policy_ms, step_ms and excess_ms must not be negative")


@dataclass
class Limit:
    """A latency and the clock table by which it is kept.

    Attributes:
        table: of the policy and its modules.
        latency_ms: most milliseconds of policy and modules for an image.
        first: modules of the preprocessing, where all pipelines have the same.
        known: pipeline, preprocessing and pixels → sets of kept indices, those that drop fewest modules first.
    """

    table: ClockTable
    latency_ms: float
    first: tuple[str, ...] = ()
    known: dict[tuple[tuple[str, ...], int, int | None], tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    @property
    def first_ms(self) -> float:
        """Milliseconds of the policy's own work and of the modules in `first`, at the frame of the table."""
        return self.table.time(self.first, len(self.first))

    @property
    def usable_ms(self) -> float:
        """Most milliseconds of a pipeline by the table: the latency without the reserve."""
        return self.latency_ms - self.table.reserve_ms

    def fits(self, modules: Sequence[str], n_first: int = 0, pixels: int | None = None) -> bool:
        """Whether a pipeline keeps the latency by the table; arguments as for `ClockTable.time`."""
        return self.table.time(modules, n_first, pixels) <= self.usable_ms + SLACK

    def choices(
        self, modules: Sequence[str], n_first: int = 0, pixels: int | None = None
    ) -> tuple[tuple[int, ...], ...]:
        """Indices of the modules that stay, for each smallest set of dropped ones; the first set is the default.

        Where not even the preprocessing alone keeps the latency, it alone stays.

        Args:
            modules, n_first, pixels: as for `ClockTable.time`.

        >>> limit = Limit(ClockTable({"denoise": 8.0, "gamma": 1.0, "sharpen": 2.0}), latency_ms=9.5)
        >>> limit.choices(["denoise", "gamma", "sharpen"])  # without sharpen, or without denoise
        ((0, 1), (1, 2))
        """
        key = tuple(modules), n_first, pixels
        if key not in self.known:
            self.known[key] = self._choices(modules, n_first, pixels)
        return self.known[key]

    def _choices(self, modules: Sequence[str], n_first: int, pixels: int | None) -> tuple[tuple[int, ...], ...]:
        self._measure_missing(modules)
        first = tuple(range(n_first))
        base = self.table.time(modules[:n_first], n_first, pixels)
        times = np.array([self.table.time([*modules[:n_first], name], n_first, pixels) - base for name in modules])
        own, room = times[n_first:], self.usable_ms + SLACK - base
        if len(own) > MOST_COMBINED:
            left, kept = room, list(first)
            for place in np.argsort(own, kind="stable").tolist():
                if own[place] > left:
                    break
                left -= own[place]
                kept.append(n_first + place)
            return (tuple(sorted(kept)),)
        subsets = _subsets(len(own))
        sums = subsets @ own
        back = np.where(subsets, np.inf, own).min(axis=1, initial=np.inf)  # the fastest of the dropped modules
        fitting = np.flatnonzero((sums <= room) & (sums + back > room))
        order = sorted(fitting.tolist(), key=lambda row: (-int(subsets[row].sum()), -sums[row]))
        return tuple((*first, *(np.flatnonzero(subsets[row]) + n_first).tolist()) for row in order) or (first,)

    def _measure_missing(self, modules: Sequence[str]) -> None:
        """Measures modules that the table lacks, such as those of a user's own policy."""
        table = self.table
        missing = [name for name in modules if name not in table.milliseconds]
        if missing:
            more = module_times(missing, DEFAULT_SET, table.size, table.device, table.threads)
            self.table = replace(table, milliseconds={**table.milliseconds, **more})


@lru_cache(maxsize=MOST_COMBINED + 1)
def _subsets(n: int) -> NDArray[np.bool_]:
    """All subsets of n things, a row for each."""
    found: NDArray[np.bool_] = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 == 1
    return found


@dataclass
class _Shortening:
    """The `Shortener` of one call; notes which modules are dropped from each image."""

    limit: Limit
    pixels: int
    dropped: list[tuple[str, ...]] = field(default_factory=list)

    def kept(self, modules: Sequence[str], n_first: int, likelihoods: Likelihoods | None = None) -> tuple[int, ...]:
        """See `Shortener.kept`."""
        choices = self.limit.choices(modules, n_first, self.pixels)[:MOST_CHOICES]
        chosen = choices[0]
        if likelihoods is not None and len(choices) > 1:
            values = likelihoods(choices)
            chosen = choices[max(range(len(choices)), key=lambda place: values[place])]
        self.dropped.append(tuple(name for place, name in enumerate(modules) if place not in chosen))
        return chosen


@dataclass(frozen=True)
class WithinLatency(Policy):
    """A policy whose pipelines are shortened until they keep a latency by the clock table.

    Attributes:
        policy: the policy.
        limit: the latency and the table.
        name: short name for tables; "" takes the policy's.
        shortening: of the call that is under way; None outside of `render`.
    """

    policy: Policy
    limit: Limit
    name: str = ""
    shortening: _Shortening | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.policy.name)
        object.__setattr__(self, "is_static", self.policy.is_static)

    def plan(self, image: Image) -> list[Pipeline]:
        """The shortened pipeline of each image."""
        return self.process(image)[0]

    def process(self, image: Image, *, stopwatch: Stopwatch | None = None) -> tuple[list[Pipeline], Image]:
        """The shortened pipelines and the images that they make; see `Policy.process`."""
        shortening = self.shortening or _Shortening(self.limit, image.shape[2] * image.shape[3])
        return self.policy.process_within(image, shortening, stopwatch=stopwatch)

    @torch.inference_mode()
    def render(self, developed: Developed, labels: FrameLabels | None = None) -> Rendered:
        """The image of the shortened pipeline, and the names of the modules that were dropped."""
        shortening = _Shortening(self.limit, math.prod(developed.small.shape[2:]))
        rendered = Policy.render(self._during(shortening), developed, labels)
        return replace(rendered, dropped=shortening.dropped[0])

    def _during(self, shortening: _Shortening) -> "WithinLatency":
        """A copy for one call, so that calls of several threads do not mix."""
        other = copy.copy(self)
        object.__setattr__(other, "shortening", shortening)
        return other

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the policy."""
        return self.policy.preprocessing

    @property
    def n_preprocessing(self) -> int:
        """That of the policy."""
        return self.policy.n_preprocessing

    @property
    def thread_safe(self) -> bool:
        """That of the policy."""
        return self.policy.thread_safe

    @property
    def note(self) -> str:
        """That of the policy."""
        return self.policy.note


def limit_of(policy: Policy, table: ClockTable, latency_ms: float, excess: float = 0.0) -> Limit:
    """The limit of a policy whose clock table begins with the modules of its preprocessing, see `clock_table`."""
    table = replace(table, reserve_ms=reserve_ms(excess, latency_ms))
    return Limit(table, latency_ms, tuple(table.milliseconds)[: policy.n_preprocessing])


def training_limit(settings: Any) -> Limit | None:
    """The limit in the settings of a training run; None without a latency.

    Args:
        settings: with `latency_ms`, `policy_ms`, `step_ms`, `excess_ms`, `costs` and `preprocessing`; others give None.
    """
    latency_ms = getattr(settings, "latency_ms", None)
    if latency_ms is None:
        return None
    table = ClockTable(listed_costs(settings.costs), settings.policy_ms, settings.step_ms)
    reserve = reserve_ms(settings.excess_ms, latency_ms)
    return Limit(replace(table, reserve_ms=reserve), latency_ms, STAGES[settings.preprocessing])


def _renders_itself(policy: Policy) -> bool:
    """Whether images are made by the policy's own code, which would be passed by if its pipelines were shortened."""
    kind = type(policy)
    own_process = kind.process is not Policy.process and kind.process_within is Policy.process_within
    return own_process or kind.render is not Policy.render


def _with_reserve(policy: Policy, limit: Limit) -> Limit:
    """The limit with a reserve; to choose what is dropped takes time, which it includes."""
    excess = 0.0
    for _ in range(2):  # with the reserve of the first time there may be something to drop
        excess = max(excess, excess_ms(WithinLatency(policy, limit), limit.table))
        limit = limit_of(policy, limit.table, limit.latency_ms, excess)
    return limit


def within_latency(
    policy: Policy,
    latency_ms: float,
    size: int,
    device: str = "cpu",
    costs: Costs | None = None,
) -> Policy:
    """The policy with pipelines that keep a latency on this machine, by a clock table that is measured now.

    A part of the latency is kept free (see `latency_reserve`), so that 95 % of the images keep it; with `costs` none is
    kept free, since their sum is no time of this machine.

    A policy that needs labels or the raw itself, that does not know its pipeline before it runs, or that renders images
    by code of its own without `process_within`, is returned as it is, with a warning. There is a warning, too, if the
    policy's own time and its preprocessing alone take longer.

    Args:
        policy: any policy.
        latency_ms: most milliseconds of policy and modules for an image, above 0.
        size: working size in pixels.
        device: where policy and modules run.
        costs: module → milliseconds that take the place of measured ones.

    Raises:
        UsageError: the latency is not a positive number.
    """
    check_latency(latency_ms)
    unknown = policy.needs_labels or policy.needs_raw or not policy.plans_ahead
    if unknown or _renders_itself(policy):
        reason = "its pipeline is not known before it runs" if unknown else "it renders images by itself"
        logger.warning("%s: no module is dropped for a latency of %g ms, because %s", policy.name, latency_ms, reason)
        return policy
    # With one thread, however many the process has: `run` reads and draws beside the policy, on the same cores, so that
    # times measured with all of them are not kept.
    table = clock_table(policy, size, device, threads=1, costs=costs)
    limit = limit_of(policy, table, latency_ms)
    if not costs:
        limit = _with_reserve(policy, limit)
    if not limit.fits(limit.first, len(limit.first)):
        logger.warning(
            "%s: a latency of %g ms %s be kept: its own time and its preprocessing take %.2f ms at size %d, "
            "and %.2f ms more for some images",
            *(policy.name, latency_ms, "cannot" if limit.first_ms > latency_ms else "may not"),
            *(limit.first_ms, size, limit.table.reserve_ms),
        )
    return WithinLatency(policy, limit)

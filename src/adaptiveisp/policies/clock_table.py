"""The clock table: how long modules and policies take on this machine, measured when it is needed.

Other processes only ever add time to a reading, and on a busy machine they add much. The table therefore holds a low
quantile of repeated readings: it estimates the time of the machine itself, which a median of a busy hour does not.
The very shortest reading is left out, because it is a single one. A module that takes longer than the time slices of
the operating system is interrupted in every reading of a busy machine; on a CPU its reading is therefore the smaller
one of the clock's time and the processor's time of this process, which are the same on an idle machine. Modules are
timed one by one; a chain of pointwise modules shares its passes over the image, so that the sum of a pipeline is rather
too long than too short.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from adaptiveisp.isp.bilateral_grid import identity_cell
from adaptiveisp.isp.costs import Costs
from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.grid_pipeline import module_with
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.isp.registry import STATED, IspModule, find_module
from adaptiveisp.kernels import loading
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.bilateral_grid.networks import Guide
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch

REPEATS, LEAST_REPEATS = 15, 5
"""Readings of each operation, and the least of one that takes long."""
MOST_SECONDS = 0.4
"""Time after which an operation gets no more than the least readings."""
QUANTILE = 0.2
"""Quantile of the readings that counts: the fourth shortest of fifteen, the second shortest of five."""
GRID_SIDE, GRID_DEPTH, GRID_KNOTS = 16, 8, 8
"""Size of the bilateral grid that is timed, that of the presets; its time is mostly that of the pixels."""
LOGIT = 0.3
"""Network output from which all parameters are made: they are neither neutral nor at the ends of their ranges."""


@dataclass(frozen=True)
class ClockTable:
    """Times of modules and of a policy's own work, at a frame of `size` by 3/4 `size` pixels, the usual aspect.

    Attributes:
        milliseconds: module → milliseconds of one run.
        policy_ms: the policy's own time: observation, heuristics of the preprocessing and networks, without modules.
        step_ms: what the policy's own time grows by with each module that it chooses.
        size: longer side of the frame in pixels.
        threads: CPU threads of the measurement.
        device: "cpu" or "cuda".
        reserve_ms: milliseconds that are kept free of a latency, whatever the pixels; see `latency_reserve`.
    """

    milliseconds: Costs = field(default_factory=dict)
    policy_ms: float = 0.0
    step_ms: float = 0.0
    size: int = 416
    threads: int = 1
    device: str = "cpu"
    reserve_ms: float = 0.0

    def time(self, modules: Sequence[str], n_first: int = 0, pixels: int | None = None) -> float:
        """Milliseconds of a pipeline and of the policy that chose it.

        Times are proportional to the number of pixels, but for `step_ms`, which is that of a network.

        Args:
            modules: names of the pipeline's modules; one that the table lacks counts with the cost that it declares.
            n_first: number of these that are the preprocessing's, which the policy does not choose.
            pixels: of the image; None for those of the table's frame.

        >>> table = ClockTable({"gamma": 1.0}, policy_ms=0.5, step_ms=0.25, size=400)
        >>> table.time(["gamma", "gamma"], n_first=1), table.time(["gamma"], pixels=2 * 400 * 300)
        (2.75, 3.25)
        """
        share = 1.0 if pixels is None else pixels / pixels_of(self.size)
        return share * (self.policy_ms + sum(map(self.module_ms, modules))) + self.step_ms * (len(modules) - n_first)

    def module_ms(self, name: str) -> float:
        """Milliseconds of one module."""
        known = self.milliseconds.get(name)
        return find_module(name, DEFAULT_SET).cost_ms if known is None else known

    @property
    def text(self) -> str:
        """The table as one line, the slowest modules first."""
        ordered = sorted(self.milliseconds.items(), key=lambda item: -item[1])
        own = f"policy {self.policy_ms:.2f} ms and {self.step_ms:.3f} ms for each module it chooses"
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        listed = ", ".join(f"{name} {ms:.2f}" for name, ms in ordered)
        return f"clock table at {self.size} pixels, {self.device}, {threads}: {own}; {listed}"


def pixels_of(size: int) -> int:
    """Number of pixels of the frame in which a table is measured.

    >>> pixels_of(416)
    129792
    """
    return size * round(0.75 * size)


def some_parameters(module: IspModule) -> list[float]:
    """Parameters a little off the middle of their ranges, from `LOGIT`."""
    row: list[float] = module.params_from_logits(torch.full((1, len(module.params)), LOGIT))[0].tolist()
    return row


def sample_frame(size: int, device: str = "cpu") -> Image:
    """A (1, 3, 3/4 size, size) dark image of noise over a gradient, in [0, 1]; the same in every call."""
    height = round(0.75 * size)
    noise = torch.rand(1, 3, height, size, generator=torch.Generator().manual_seed(0))
    return (0.05 * (0.5 * noise + 0.5 * torch.linspace(0, 1, size))).to(device)


def low_quantile(readings: Sequence[float]) -> float:
    """The reading at `QUANTILE`, without interpolation.

    >>> low_quantile([9.0, 1.0, 2.0, 3.0, 4.0, 50.0])
    2.0
    """
    return sorted(readings)[int(QUANTILE * (len(readings) - 1) + 0.5)]


def readings_of(work: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The low quantile of the readings of each piece of work.

    The pieces run in turns, so that a busy moment of the machine affects all of them; each runs twice before the first
    reading counts.

    Args:
        work: by name; each call returns its milliseconds.
    """
    found: dict[str, list[float]] = {name: [] for name in work}
    for one in work.values():
        one(), one()
    for _ in range(REPEATS):
        for name, one in work.items():
            own = found[name]
            if len(own) < LEAST_REPEATS or sum(own) < 1e3 * MOST_SECONDS:
                own.append(one())
    return {name: low_quantile(values) for name, values in found.items()}


@contextmanager
def threads_set(threads: int | None) -> Iterator[None]:
    """Runs what is inside with this number of CPU threads of PyTorch and of the kernels; None changes nothing."""
    former = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


_KNOWN: dict[tuple[object, ...], float] = {}
"""Times that this process has measured: runs of one process share a table, so that they repeat each other."""


@torch.inference_mode()
def module_times(
    names: Iterable[str], module_set: str, size: int, device: str = "cpu", threads: int | None = None
) -> dict[str, float]:
    """Module → milliseconds of one run on this machine; what this process measured before is not measured again.

    Args:
        names: of modules of the set, helpers or registered modules.
        module_set: named set that gives the ranges of the parameters.
        size: longer side of the frame in pixels, the shorter one is 3/4 of it.
        device: where the modules run.
        threads: CPU threads; None for those of the process.
    """
    with threads_set(threads):
        modules = {name: find_module(name, module_set) for name in dict.fromkeys(names)}
        keys = {name: _key(module, module.function, size, device) for name, module in modules.items()}
        image = sample_frame(size, device)[0]
        work = {name: _timed_run(_runnable(modules[name]), image) for name, key in keys.items() if key not in _KNOWN}
        for name, ms in readings_of(work).items():
            _KNOWN[keys[name]] = ms
        return {name: _KNOWN[key] for name, key in keys.items()}


def _key(module: IspModule, part: object, size: int, device: str) -> tuple[object, ...]:
    return module.name, module.params, part, size, device, torch.get_num_threads(), loading.available()


def _runnable(module: IspModule) -> IspModule:
    """The module, or for one that pipelines only state its usual work, whose time does not depend on its numbers."""
    if module not in STATED:
        return module
    cells = identity_cell()[:, None, None, None].expand(-1, GRID_DEPTH, GRID_SIDE, GRID_SIDE)
    return module_with(cells, Guide(GRID_KNOTS).requires_grad_(False).curves)


def _timed_run(module: IspModule, image: torch.Tensor) -> Callable[[], float]:
    params = some_parameters(module)

    return lambda: milliseconds_of(lambda: run_one(image, [(module, params)]), image.device)


def milliseconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of a piece of work; on a CPU those of the processor, where they are fewer than the clock's.

    Args:
        work: runs once.
        device: where it runs; what a GPU has begun is waited for before and after.
    """
    _wait(device)
    start, start_of_processor = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    elapsed, worked = time.perf_counter() - start, time.process_time() - start_of_processor
    return 1e3 * (min(elapsed, worked) if device.type == "cpu" else elapsed)


def _wait(device: torch.device) -> None:
    """Waits for a GPU's work; on a CPU it is done when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _ProcessorWatch(Stopwatch):
    """A stopwatch that stands still while another process has the processor."""

    def _now(self) -> float:
        return time.process_time()


@torch.inference_mode()
def policy_times(policy: Policy, size: int, device: str = "cpu", threads: int | None = None) -> tuple[float, float]:
    """A policy's own milliseconds for an image, without its modules, and what they grow by with each module.

    Args:
        policy: a policy that needs neither labels nor the raw.
        size, device, threads: as for `module_times`.
    """
    with threads_set(threads):
        frame = sample_frame(size, device)
        short, chosen = policy.with_steps(1), dict[str, int]()
        # The parts of a policy are short, but its modules in between may be interrupted.
        kind = _ProcessorWatch if device == "cpu" and torch.get_num_threads() == 1 else Stopwatch

        def own(of: Policy, name: str) -> Callable[[], float]:
            def run() -> float:
                stopwatch = kind(device)
                with stopwatch.part("all"):
                    (pipeline,), _ = of.process(frame, stopwatch=stopwatch)
                chosen[name] = len(pipeline.stages)
                return stopwatch.milliseconds["all"] - stopwatch.milliseconds.get("modules", 0.0)

            return run

        found = readings_of({"whole": own(policy, "whole"), "short": own(short, "short")})
        more = chosen["whole"] - chosen["short"]
        step = max(0.0, (found["whole"] - found["short"]) / more) if more > 0 else 0.0
        n_own = chosen["whole"] - policy.n_preprocessing
        return max(0.0, found["whole"] - step * max(0, n_own)), step


def modules_of_policy(policy: Policy, size: int, device: str = "cpu") -> tuple[list[str], str]:
    """Names of the modules that a policy may run, as far as it tells, and their module set.

    They are those that it sets parameters for, and those of its pipeline for a sample image.
    """
    pipeline = policy.plan(sample_frame(size, device))[0]
    names = [*(stage.module for stage in pipeline.stages), *policy.settable]
    return list(dict.fromkeys(names)), pipeline.module_set


def clock_table(
    policy: Policy, size: int, device: str = "cpu", threads: int | None = None, costs: Costs | None = None
) -> ClockTable:
    """The clock table of a policy and its modules on this machine.

    Args:
        policy: a policy that needs neither labels nor the raw.
        size, device, threads: as for `module_times`.
        costs: module → milliseconds that are given, and not measured.
    """
    names, module_set = modules_of_policy(policy, size, device)
    given = dict(costs or {})
    times = given | module_times([name for name in names if name not in given], module_set, size, device, threads)
    policy_ms, step_ms = policy_times(policy, size, device, threads)
    used = threads if threads is not None else torch.get_num_threads()
    return ClockTable(
        {name: times[name] for name in [*names, *(name for name in given if name not in names)]},
        policy_ms,
        step_ms,
        size,
        used,
        device,
    )

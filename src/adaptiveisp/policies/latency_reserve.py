"""What an image takes beyond the sum of a clock table, when a detector has worked before it.

A table holds the times of a machine that does one thing again and again, with its data and code in the caches. In
`run` and `eval` a detector comes between two images and leaves the caches full of its own, which costs a policy one or
two milliseconds. Its speed drifts, too. A latency that is to be kept for 95 % of the images therefore needs this
reserve.
"""

import torch
from torch import nn

from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.clock_table import LEAST_REPEATS, ClockTable, milliseconds_of, sample_frame, threads_set

RUNS = 20
"""Runs of the whole policy; the excess suffices for all but the longest of them, 95 %."""
DRIFT = 0.05
"""Share of a latency by which the machine may be slower in a long run than at the moment of the measurement: some
processors lower their frequency under wide vector operations, of which a detector consists."""
LEAST_EXCESS = 0.001
"""Milliseconds of the least excess: 0 means that none was measured."""
MOST_SECONDS = 1.0
"""Time of the policy after which it gets no more than the least runs."""


@torch.inference_mode()
def excess_ms(policy: Policy, table: ClockTable) -> float:
    """Milliseconds beyond the table's sum that suffice for 95 % of a policy's runs after a detector's work.

    Like the table, it counts the processor's time of this process where that is less than the clock's, so that other
    processes do not lengthen it.

    Args:
        policy: a policy that needs neither labels nor the raw.
        table: the clock table of the policy, whose frame, device and threads count.
    """
    frame, others = sample_frame(table.size, table.device), _detector_like(table.device)
    readings: list[float] = []
    with threads_set(table.threads):
        (pipeline,), _ = policy.process(frame)
        for _ in range(RUNS):
            if len(readings) >= LEAST_REPEATS and sum(readings) > 1e3 * MOST_SECONDS:
                break
            others(frame)
            readings.append(milliseconds_of(lambda: policy.process(frame), frame.device))
    sum_ms = table.time([stage.module for stage in pipeline.stages], policy.n_preprocessing)
    return max(LEAST_EXCESS, nearly_all(readings) - sum_ms)


def reserve_ms(excess: float, latency_ms: float) -> float:
    """Milliseconds of a latency that are kept free: the excess and `DRIFT` of the latency; 0 where none was measured.

    >>> reserve_ms(1.5, 10.0), reserve_ms(0.0, 10.0)
    (2.0, 0.0)
    """
    return excess + DRIFT * latency_ms if excess else 0.0


def nearly_all(readings: list[float]) -> float:
    """The least reading that 95 % of the readings do not exceed.

    >>> nearly_all([float(number) for number in range(1, 21)]), nearly_all([3.0, 1.0])
    (19.0, 3.0)
    """
    ordered = sorted(readings)
    return ordered[-1 - len(ordered) // RUNS]


def _detector_like(device: str) -> nn.Module:
    """A few convolutions, which use the caches as the first layers of a detector do."""
    with torch.random.fork_rng(devices=[]):  # their weights must not move PyTorch's random state
        layers = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2, ceil_mode=True)),
            *(nn.Conv2d(16, 64, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2, ceil_mode=True)),
            nn.Conv2d(64, 64, 3, padding=1),
        )
    return layers.to(device).eval()

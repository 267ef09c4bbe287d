"""Measures how long parts of a computation take, on a CPU or a GPU."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


class Stopwatch:
    """Adds up the milliseconds of named parts of a computation.

    Args:
        device: device of the computation. The work of a GPU is waited for at the beginning and at the end of a part.

    Attributes:
        milliseconds: part → its time so far; a part that ran twice counts twice.
    """

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measures what runs inside as the part `name`; parts may lie within each other."""
        start = self._now()
        try:
            yield
        finally:
            elapsed = (self._now() - start) * 1e3
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + elapsed

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def timed(stopwatch: Stopwatch | None, name: str) -> AbstractContextManager[None]:
    """`stopwatch.part(name)`, or a context manager that measures nothing without a stopwatch."""
    return nullcontext() if stopwatch is None else stopwatch.part(name)

"""Seconds spent in the parts of an iteration."""

import time
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds spent in each part of an iteration; kept apart from the metrics, which repeat exactly.

    Attributes:
        seconds: part → seconds.
        last: time of the last lap, of `time.perf_counter`.
    """

    seconds: dict[str, float]
    last: float

    @classmethod
    def started(cls) -> "Clock":
        """A clock that starts now."""
        return cls({}, time.perf_counter())

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part."""
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.last
        self.last = now

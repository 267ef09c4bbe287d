"""Which photos a page shows: those that gain most, those that lose most, and typical ones."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

GAINED, LOST, TYPICAL = "gains most", "loses most", "typical"
EACH = 3
"""Number of photos of each of the three kinds."""
LEAST_CHANGE = 1e-6
"""Gains up to this are none, since rounding can cause them."""


@dataclass(frozen=True)
class Chosen:
    """A photo that is shown: its index, and why."""

    index: int
    why: str


def choose(gains: Sequence[float], photos: Sequence[Hashable], each: int = EACH) -> list[Chosen]:
    """The photos that gain most, those that lose most, and those nearest to the median, in turn.

    Where fewer photos gain or lose, typical ones take their places. Several draws of one photo are chosen only where
    there are not enough photos.

    Args:
        gains: one number for each image, above 0 where it gains.
        photos: the photo of each image.
        each: number of photos of each kind.

    >>> choose([0.0, 5.0, -2.0, 0.1], "abcd", 1)
    [Chosen(index=1, why='gains most'), Chosen(index=2, why='loses most'), Chosen(index=0, why='typical')]
    """
    if not gains:
        return []
    values = np.asarray(gains, np.float64)
    distance = np.abs(values - np.median(values))
    used: Counter[Hashable] = Counter()
    taken: set[int] = set()

    def take(order: Sequence[int], why: str) -> list[Chosen]:
        """The first of an order that is free, of the photos that were chosen least often."""
        free = [index for index in order if index not in taken]
        if not free:
            return []
        index = min(free, key=lambda one: used[photos[one]])
        taken.add(index)
        used[photos[index]] += 1
        return [Chosen(index, why)]

    best = [int(i) for i in np.argsort(-values, kind="stable") if values[i] > LEAST_CHANGE]
    worst = [int(i) for i in np.argsort(values, kind="stable") if values[i] < -LEAST_CHANGE]
    middle = [int(i) for i in np.argsort(distance, kind="stable")]
    chosen: list[Chosen] = []
    for _ in range(each):
        chosen += take(best, GAINED) + take(worst, LOST) + take(middle, TYPICAL)
    while len(chosen) < 3 * each and (more := take(middle, TYPICAL)):
        chosen += more
    return chosen

"""Unpacking of 12 MP frames against `numpy.copyto` of the unpacked frame, one thread.

    python benchmarks/unpacking.py [--repeats 15] [--formats RAW10 RAW12 RAW14 …]

Each round runs the unpacking and the copy in a random order; the ratio is the median of the rounds' ratios. For RAW12
the bar is three copies.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from adaptiveisp.raw.pixel_formats import pixel_format
from adaptiveisp.raw.unpacking import unpack

WIDTH, HEIGHT = 4000, 3000
FORMATS = ("RAW10", "RAW12", "RAW14", "BayerRG10p", "BayerRG12p", "BayerRG14p", "Mono10Packed", "Mono12Packed")


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    for name in options.formats:
        how = pixel_format(name)
        packed = generator.integers(0, 256, how.row_bytes(WIDTH) * HEIGHT, dtype=np.uint8)
        values = unpack(packed, how, WIDTH, HEIGHT)
        copy = np.empty_like(values)
        ways: dict[str, Callable[[], object]] = {
            "unpack": lambda packed=packed, how=how: unpack(packed, how, WIDTH, HEIGHT),
            "copy": lambda copy=copy, values=values: np.copyto(copy, values),
        }
        rounds = []
        for _ in range(options.repeats + 1):
            order = generator.permutation(list(ways))
            rounds.append({str(way): milliseconds(ways[way]) for way in order})
        rounds = rounds[1:]
        unpacked, copied = (statistics.median(taken[way] for taken in rounds) for way in ways)
        ratio = statistics.median(taken["unpack"] / taken["copy"] for taken in rounds)
        print(f"{name}: {unpacked:.1f} ms, copyto {copied:.1f} ms, {ratio:.2f} copies")


if __name__ == "__main__":
    main()

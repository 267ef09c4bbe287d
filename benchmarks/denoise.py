"""Non-local means against two peers in one process: plain rolls in PyTorch, and OpenCV's colour denoiser.

    python benchmarks/denoise.py [--threads 2] [--repeats 7] [--out FILE.json]

Interleaved runs, medians, ratios. Also the extra memory of forward and backward for a batch of 8 at 320x320, taken
first, as the growth of the process's peak.
"""

import argparse
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from adaptiveisp.color import LUMA_BT601, weighted_channel
from adaptiveisp.files import write_json
from adaptiveisp.isp.denoise import denoise
from adaptiveisp.provenance import provenance

SIZE = 512
STRENGTH = 0.3
MEMORY_BATCH, MEMORY_SIZE = 8, 320


@torch.no_grad()
def rolled_nlm(image: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The same filter written plainly: 121 rolls of the image, and 25 rolls for each box sum."""
    luma = weighted_channel(image, LUMA_BT601)
    numerator, denominator = torch.zeros_like(image), torch.zeros_like(luma)
    for dy, dx in itertools.product(range(-5, 6), repeat=2):
        squared = (luma - luma.roll((dy, dx), (2, 3))).square()
        total = torch.zeros_like(luma)
        for a, b in itertools.product(range(-2, 3), repeat=2):
            total += squared.roll((a, b), (2, 3))
        weight = torch.exp(-total.sqrt() / (h[:, :, None, None] + 1e-8))
        numerator += weight * image.roll((dy, dx), (2, 3))
        denominator += weight
    return numerator / denominator


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def extra_memory() -> int:
    """Growth of the peak by forward and backward of a batch, its own input and output included."""
    denoise(torch.rand(1, 3, 32, 32, requires_grad=True), torch.full((1, 1), STRENGTH)).sum().backward()
    before = peak_bytes()
    image = torch.rand(MEMORY_BATCH, 3, MEMORY_SIZE, MEMORY_SIZE, requires_grad=True)
    denoise(image, torch.full((MEMORY_BATCH, 1), STRENGTH, requires_grad=True)).sum().backward()
    return peak_bytes() - before


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, the runs interleaved so that a slow moment hits all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()  # warm-up
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    memory = extra_memory()
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    h = torch.full((1, 1), STRENGTH)
    picture = (image[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    error = (denoise(image, h) - rolled_nlm(image, h)).abs().max().item()
    found = medians(
        {
            "adaptiveisp": lambda: denoise(image, h),
            "rolls": lambda: rolled_nlm(image, h),
            "opencv": lambda: cv2.fastNlMeansDenoisingColored(picture, None, 10, 10, 5, 11),
            "copy": image.clone,
        },
        options.repeats,
    )
    ours = found["adaptiveisp"]
    result = {
        "size": SIZE,
        "repeats": options.repeats,
        "median_ms": found,
        "speed_up": {"rolls": found["rolls"] / ours, "opencv": found["opencv"] / ours},
        "copies": ours / found["copy"],
        "largest_difference_from_rolls": error,
        "extra_bytes_forward_backward": {"batch": MEMORY_BATCH, "size": MEMORY_SIZE, "bytes": memory},
        "provenance": provenance(0),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()

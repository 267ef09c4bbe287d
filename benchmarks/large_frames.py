"""Time and peak memory of developing, policy and rendering of large frames, by number of pixels and of modules.

    python benchmarks/large_frames.py [--threads 2] [--repeats 3] [--plot growth.png] [--out FILE.json]

Each size runs in its own process. The memory peak is that of the whole process, with torch (about 250 MB) and the
16-bit frame. The step-wise policy runs five modules, without non-local means; it observes the frame reduced to 416
pixels, and its pipeline is rendered at full size.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from adaptiveisp.evaluation.benchmark import CHAIN, STEPS, medians, some_calls, untrained_policy
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.execution import run_one
from adaptiveisp.types import RawImage
from adaptiveisp.utils.files import write_json
from adaptiveisp.utils.provenance import provenance

SIDES = {"0.25 MP": (576, 432), "1 MP": (1152, 864), "3 MP": (2000, 1500), "6 MP": (2828, 2121), "12 MP": (4000, 3000)}
LARGEST = {"50 MP": (8192, 6144)}
SIZE = 416


def one_frame(width: int, height: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of the parts of one frame, and the process's peak in MB."""
    data = np.random.default_rng(0).integers(64, 4096, (height, width), dtype=np.uint16)
    raw = RawImage(data, "RGGB", (64.0,) * 4, 4095.0)
    policy = untrained_policy()
    forced = [policy.header.modules.index(name) for name in STEPS]
    times: dict[str, list[float]] = {"develop and reduce": [], "policy": [], "render at full size": []}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            developed = develop_at_size(raw, SIZE)
            middle = time.perf_counter()
            pipeline = policy.process(developed.small, forced)[0][0]
            chosen = time.perf_counter()
            pipeline.render(developed.full[None])
            end = time.perf_counter()
            for name, seconds in zip(times, (middle - start, chosen - middle, end - chosen), strict=True):
                times[name].append(1e3 * seconds)
            del developed
    found = {name: float(np.median(values[1:])) for name, values in times.items()}  # the first run warms up
    return found | {"peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def by_length(repeats: int) -> dict[int, float]:
    """Median milliseconds of 1 to 12 pointwise modules at 3 megapixels."""
    image = torch.rand(3, 1500, 2000, generator=torch.Generator().manual_seed(0))
    chains = {str(n): some_calls([CHAIN[i % len(CHAIN)] for i in range(n)]) for n in range(1, 13)}
    with torch.inference_mode():
        found = medians({n: (lambda c=calls: run_one(image, c)) for n, calls in chains.items()}, repeats)
    return {int(n): ms for n, ms in found.items()}


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and share of variance explained by the straight line through the points."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(1 - np.var(y - slope * x - intercept) / np.var(y))


def draw(frames: dict[str, dict[str, float]], lengths: dict[int, float], path: Path) -> None:
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(SIDES)
    pixels = np.array([np.prod(SIDES[name]) / 1e6 for name in names])
    for part, colour in (("develop and reduce", "#0072b2"), ("render at full size", "#d55e00")):
        ms = np.array([frames[name][part] for name in names])
        slope, intercept, explained = line(pixels, ms)
        left.plot(pixels, ms, "o", color=colour, label=f"{part}: {slope:.1f} ms a megapixel, R² {explained:.3f}")
        left.plot(pixels, slope * pixels + intercept, color=colour, linewidth=1)
    left.set_xlabel("megapixels", fontsize=9)
    left.set_title("time against pixels, ms", fontsize=10)
    x, y = np.array(list(lengths)), np.array(list(lengths.values()))
    slope, intercept, explained = line(x, y)
    right.plot(x, y, "o", color="#009e73", label=f"{slope:.2f} ms a module, R² {explained:.3f}")
    right.plot(x, slope * x + intercept, color="#009e73", linewidth=1)
    right.set_xlabel("pointwise modules in a chain, 3 megapixels", fontsize=9)
    right.set_title("time against length, ms", fontsize=10)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--frame", nargs=2, type=int, metavar=("WIDTH", "HEIGHT"), help=argparse.SUPPRESS)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.frame:
        print(json.dumps(one_frame(*options.frame, options.repeats)))
        return
    frames = {}
    for name, (width, height) in (SIDES | LARGEST).items():
        own = [sys.executable, __file__, "--frame", str(width), str(height)]
        common = ["--threads", str(options.threads), "--repeats", str(options.repeats)]
        done = subprocess.run([*own, *common], check=True, capture_output=True, text=True)
        frames[name] = json.loads(done.stdout.splitlines()[-1])
        shown = "   ".join(f"{part} {value:8.1f}" for part, value in frames[name].items())
        print(f"{name:8} {width}x{height}   {shown}", flush=True)
    lengths = by_length(max(5, options.repeats))
    print("modules → ms:", {n: round(ms, 2) for n, ms in lengths.items()})
    if options.plot:
        draw(frames, lengths, options.plot)
    if options.out:
        write_json(options.out, {"frames": frames, "chain": lengths, "provenance": provenance(0)})


if __name__ == "__main__":
    main()

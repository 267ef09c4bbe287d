"""Forward and backward pass of every module: the compiled kernels against the PyTorch code under autograd.

    python benchmarks/backward.py [--threads 1] [--repeats 7] [--size 320] [--batch 8] [--cpu] [--json FILE]

Both versions have the same images and parameters and compute the gradients of both. The last column has the gradients
of the parameters alone, which are all that the first module of a pipeline needs. Times are medians of interleaved runs;
ratios are PyTorch's time over the kernels' time. The last row is a pipeline in a camera's order, without non-local
means. `--cpu` measures the CPU time of the process instead of the elapsed time, for one thread on a busy machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from adaptiveisp.isp.registry import EXTENDED, HELPERS, IspModule, find_module
from adaptiveisp.kernels.loading import available, turned_off

PIPELINE = (
    *("guided_denoise", "white_balance", "exposure", "ccm", "gamma", "tone", "local_tone"),
    *("contrast", "saturation", "desaturation", "sharpen", "black_level"),
)

Calls = list[tuple[IspModule, Tensor]]


def calls_of(modules: tuple[IspModule, ...], batch: int) -> Calls:
    """The modules with parameters near neutral that differ between images, so that hardly any value is clipped."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for module in modules:
        middle = torch.tensor(module.logits_from_params(module.neutral_params)) if module.params else torch.zeros(0)
        logits = middle + 0.1 * torch.randn(batch, len(module.params), generator=generator)
        found.append((module, module.params_from_logits(logits).detach()))
    return found


def timed(
    image: Tensor, calls: Calls, upstream: Tensor, of_image: bool, clock: Callable[[], float]
) -> tuple[float, float]:
    """Milliseconds of the forward and of the backward pass."""
    leaf = image.detach().requires_grad_(of_image)
    params = [params.detach().requires_grad_() for _, params in calls]
    start = clock()
    out = leaf
    for (module, _), row in zip(calls, params, strict=True):
        out = module(out, row)
    middle = clock()
    out.backward(upstream)
    return 1e3 * (middle - start), 1e3 * (clock() - middle)


def measured(cases: dict[str, Callable[[], tuple[float, float]]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median times of the forward and of the backward pass over interleaved runs, after one run to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        for name, case in cases.items():
            found = case()
            if repeat:
                times[name].append(found)
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    return {name: (forward, backward) for name, (forward, backward) in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", nargs="*", help="names of modules")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not available():
        raise SystemExit("the kernels are not compiled here, or turned off: nothing to compare")
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(options.batch, 3, options.size, options.size, generator=generator)
    upstream = torch.randn(image.shape, generator=generator)

    subjects = {m.name: (m,) for m in (*EXTENDED, *HELPERS) if m.name != "gray_world"}
    subjects["pipeline of 12"] = tuple(find_module(name, "extended") for name in PIPELINE)
    rows = []
    print(f"batch of {options.batch}, {options.size}x{options.size}, {options.threads} thread(s), ms")
    print(f"{'module':16} {'kernels: forward':>17} {'backward':>9} {'PyTorch: forward':>17} {'backward':>9}   ratios")
    for name, modules in subjects.items():
        if options.only and name not in options.only:
            continue
        calls = calls_of(modules, options.batch)

        def ours(of_image: bool, calls: Calls = calls) -> tuple[float, float]:
            return timed(image, calls, upstream, of_image, clock)

        def plain(of_image: bool, calls: Calls = calls) -> tuple[float, float]:
            with turned_off():
                return timed(image, calls, upstream, of_image, clock)

        cases = {"ours": lambda: ours(True), "plain": lambda: plain(True)}
        if modules[0].params:
            cases |= {"ours, params": lambda: ours(False), "plain, params": lambda: plain(False)}
        found = measured(cases, options.repeats)
        (a, b), (c, d) = found["ours"], found["plain"]
        alone = sum(found["plain, params"]) / sum(found["ours, params"]) if "ours, params" in found else float("nan")
        ratios = {"forward": c / a, "backward": d / b, "both": (c + d) / (a + b), "both, parameters alone": alone}
        text = "  ".join(f"{kind} {value:.1f}" for kind, value in ratios.items())
        print(f"{name:16} {a:17.1f} {b:9.1f} {c:17.1f} {d:9.1f}   {text}", flush=True)
        rows.append({"module": name, "ms": found, "ratios": ratios})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

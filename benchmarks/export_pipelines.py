"""Times a short and a long pipeline in `isp.onnx`, whose modules are chosen by `If`, against the package's own path.

    python benchmarks/export_pipelines.py [--policy coco-adaptive] [--height 312] [--width 416] [--repeats 20]

Only the modules of a pipeline are computed, so a short one has to take less time. Medians in milliseconds, one thread;
OpenVINO computes in float32. It needs `adaptiveisp[onnx,openvino]`.
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_parity import RUNTIMES

from adaptiveisp import Pipeline, Stage, export
from adaptiveisp.isp.registry import find_module

PIPELINES = {
    "exposure": ("exposure",),
    "white balance, exposure, gamma": ("white_balance", "exposure", "gamma"),
    "these and local tone": ("white_balance", "exposure", "gamma", "local_tone"),
    "these and denoise": ("white_balance", "exposure", "gamma", "local_tone", "denoise"),
    "these, ccm, tone, sharpen": (
        *("white_balance", "exposure", "gamma", "local_tone", "denoise"),
        *("ccm", "tone", "sharpen"),
    ),
}


def median_ms(run: Callable[[], Any], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="coco-adaptive")
    parser.add_argument("--height", type=int, default=312)
    parser.add_argument("--width", type=int, default=416)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    image = torch.rand(1, 3, options.height, options.width, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder:
        form = export(options.policy, Path(folder) / "out").manifest["pipeline"]
        runs = {name: load(Path(folder) / "out" / "isp.onnx") for name, load in RUNTIMES.items()}
        ids = {module["name"]: module["id"] for module in form["modules"]}
        print("| pipeline | package | " + " | ".join(runs) + " |\n|---" + "|---:" * (1 + len(runs)) + "|")
        for title, names in PIPELINES.items():
            stages = tuple(Stage(name, find_module(name, form["module_set"]).neutral_params) for name in names)
            pipeline = Pipeline(stages, form["module_set"])
            modules = np.full(form["length"], form["end"], np.int64)
            params = np.zeros((form["length"], form["width"]), np.float32)
            for place, stage in enumerate(stages):
                modules[place] = ids[stage.module]
                params[place, : len(stage.params)] = list(stage.params.values())
            feeds = {"developed": image.numpy(), "modules": modules, "params": params}
            times = [median_ms(partial(pipeline.render, image), options.repeats)]
            times += [median_ms(partial(run, feeds), options.repeats) for run in runs.values()]
            print(f"| {title} | " + " | ".join(f"{one:.1f}" for one in times) + " |", flush=True)


if __name__ == "__main__":
    main()

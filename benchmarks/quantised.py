"""Graphs with networks of 8 bits beside float32: AP50, size of the files, and time of a frame.

    python benchmarks/quantised.py --data dev.json --images DIR --calibrate RAWS [--policy coco-fast] [--limit 64]

Each policy is exported for mosaics of any size in float32, in float16, and with networks of whole numbers: those of
detector and policy, or of the detector alone. AP50 is by onnxruntime on one synthetic raw of each photo (mixed light);
the same raws for every row. `--calibrate` should be raws of other photos than those of `--data`. The interval is that
of the difference from float32, from photos drawn again with replacement.

With --time the graphs are also timed on the same frames, one after the other, with one thread, and the table has the
median in ms. Run that on a machine without other work. It needs `adaptiveisp[onnx,report]`.
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_parity import CONFIDENCE, Run, onnxruntime_run, scored_image

from adaptiveisp import SynthesisConfig, open_dataset, synthesize
from adaptiveisp.deployment.api import export
from adaptiveisp.deployment.self_test import feeds_of
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.evaluation.bootstrap import paired_difference
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"precision": "float16"},
    "int8-static": {"precision": "int8-static"},
    "int8-static, detector alone": {"precision": "int8-static", "quantise": ["detector"]},
    "int8-dynamic": {"precision": "int8-dynamic"},
    "int8-dynamic, detector alone": {"precision": "int8-dynamic", "quantise": ["detector"]},
}


def timed(runs: Mapping[str, Run], frames: list[dict[str, Any]]) -> dict[str, float]:
    """The median time of a frame by each graph in ms; the graphs take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for feeds in frames:
        for name, run in runs.items():
            run(feeds)  # a graph that has just run finds its weights in the cache, as in a stream
            start = time.perf_counter()
            run(feeds)
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON of photos")
    parser.add_argument("--images", type=Path, required=True, help="their folder")
    parser.add_argument("--calibrate", nargs="+", required=True, help="raws for the ranges of int8-static")
    parser.add_argument("--policy", nargs="+", default=["coco-fast", "coco-selective-fast"])
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--limit", type=int, default=64, help="photos")
    parser.add_argument("--light", default="mixed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true", help="time each graph, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(options.detector)
    with tempfile.TemporaryDirectory() as temporary:
        config = SynthesisConfig(options.light, format="dng", seed=options.seed)
        synthesize(config, options.data, options.images, Path(temporary) / "raws", limit=options.limit)
        dataset = open_dataset(Path(temporary) / "raws" / options.light)
        heads = ("policy", "graphs", "full.onnx, MB", "policy.onnx, MB", "AP50", "minus float32, interval")
        print("|", " | ".join((*heads, "other modules", "ms")), "|", flush=True)
        print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
        for policy in options.policy:
            report(policy, detector, dataset, options, Path(temporary))


def report(policy: str, detector: Any, dataset: Any, options: argparse.Namespace, folder: Path) -> None:
    """Prints the rows of a policy."""
    to_category = map_classes(detector.class_names, dataset.categories).label_to_category
    runs: dict[str, Run] = {}
    sizes: dict[str, list[float]] = {}
    for number, name in enumerate(options.variant):
        how = dict(VARIANTS[name])
        if how.get("precision") == "int8-static":
            how["calibrate"] = options.calibrate
        out = folder / f"{Path(policy).name}-{number}"
        try:
            made = export(policy, out, detector, confidence=CONFIDENCE, **how)
        except AdaptiveISPError as error:
            print(f"| {policy} | {name} | not exported: {error} |", flush=True)
            continue
        runs[name] = onnxruntime_run(out / "full.onnx")
        sizes[name] = [made.manifest["graphs"][graph]["bytes"] / 1e6 for graph in ("full", "policy")]
        inputs = [one["name"] for one in made.manifest["graphs"]["full"]["inputs"]]
    scored: dict[str, list[ScoredImage]] = {name: [] for name in runs}
    others = dict.fromkeys(runs, 0)
    frames = []
    for sample in dataset.samples:
        feeds = feeds_of(dataset.read(sample), inputs)
        frames.append(feeds)
        found = {name: run(feeds) for name, run in runs.items()}
        wanted = next(iter(found.values()))["modules"]
        for name, one in found.items():
            scored[name].append(scored_image(sample, one, to_category))
            others[name] += not np.array_equal(one["modules"], wanted)
    times = timed(runs, frames[:10]) if options.time else {}
    first = next(iter(runs))
    for name in runs:
        ap50 = 100 * (coco_average_precision(scored[name], set(dataset.categories)).ap50 or 0.0)
        gap = ""
        if name != first:
            found = paired_difference(scored[name], scored[first], set(dataset.categories))
            gap = " ".join(f"{100 * value:+.1f}" for value in (found.mean, found.low, found.high))
        ms = f"{times[name]:.0f}" if times else "not run"
        full, own = sizes[name]
        print(
            f"| {Path(policy).stem} | {name} | {full:.1f} | {own:.2f} | {ap50:.1f} | {gap} | {others[name]} | {ms} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""One rank against two: whether training split over two processes gives the same metrics, and which share is not split.

    python benchmarks/shared_training.py --data train.json --images DIR

For each method it prints the largest relative difference of a metric in the first iteration and in all, the iteration
at which other modules were chosen for the first time, and the share of one process's time in the parts that every rank
does for the whole batch. docs/distributed.md has a run of it.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.training.config import TrainConfig, completed, make_settings
from adaptiveisp.training.distributed import join
from adaptiveisp.training.inputs import open_training_images
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.types import Detector

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.support.ranks import flat, in_ranks

METHODS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "sequence": {"imitation_warmup": 0.2, "costs": "paper"},
    "actor_critic": {"imitation_warmup": 0.2, "replay_size": 16, "costs": "paper"},
}
WHOLE = ("policy", "backward", "critic backward", "bookkeeping")
"""Parts of an iteration that are not split."""


def trained(method: str, options: argparse.Namespace, detector: Detector) -> tuple[list[Any], dict[str, float]]:
    """The metrics of the iterations, and the seconds of their parts."""
    settings = make_settings(method, "", {"size": options.size, **METHODS[method]}, "benchmark")
    config = TrainConfig(
        data=str(options.data),
        images=str(options.images),
        light="mixed",
        method=method,
        budget=options.iterations * settings.batch,
        limit=options.limit,
    )
    config, settings = completed(config, settings)
    images = open_training_images(config, settings, detector)
    learner: Any = find_method(method).learner(settings, images, detector, config.budget, config.seed, "cpu")
    learner.ranks = join()
    lines, seconds = [], dict[str, float]()
    while learner.iteration < options.iterations:
        line, parts = learner.iterate()
        lines.append(line)
        for part, value in parts.items():
            seconds[part] = seconds.get(part, 0.0) + value
    return lines, seconds


def compare(method: str, options: argparse.Namespace, detector: Detector) -> None:
    """Prints the line of a method."""
    work = partial(trained, method, options, detector)
    one, seconds = work()
    with tempfile.TemporaryDirectory() as folder:
        two = in_ranks(2, work, Path(folder), 3600)[0][0]
    largest: list[tuple[float, str]] = []
    changed = None
    for ours, theirs in zip(one, two, strict=True):
        if ours.get("modules") != theirs.get("modules") and changed is None:
            changed = ours["iteration"]
        expected, found = flat(ours), flat(theirs)
        known = {name: value for name, value in expected.items() if value == value and name in found}
        differences = {n: abs(v - found[n]) / max(abs(v), abs(found[n]), 1e-30) for n, v in known.items()}
        name = max(differences, key=lambda name: differences[name])
        largest.append((differences[name], f"iteration {ours['iteration']} {name}"))
    share = sum(seconds.get(part, 0.0) for part in WHOLE) / sum(seconds.values())
    print(f"{method}: iteration 1 {largest[0][0]:.1e}; all {max(largest)}; other modules at {changed}; p = {share:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--detector", default="yolov3-tiny")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(options.detector)
    for method in METHODS:
        compare(method, options, detector)


if __name__ == "__main__":
    main()

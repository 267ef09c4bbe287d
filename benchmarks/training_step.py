"""Run time of an iteration of the actor-critic, with our modules and with the plain version of the original.

    python benchmarks/training_step.py --data train.json --images DIR [--threads 2] [--iterations 5] [--alone]
        [--device cuda]

All cases have the same learner, images and seeds, and the paper's settings (one step between two detector passes, batch
8) at 320 pixels. The cases are the plain version, which runs all ten modules on every image; our modules, chosen at
random; and our modules without non-local means, which policies do not choose for bright images.

With --alone only the last case runs, as in a training run, for the share of each part: when cases alternate, its
weights are no longer in the caches, and the heap has changed.

On a GPU the total time of an iteration covers all its work; the times of its parts end when their kernels are started,
not when they are done.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import plain
import torch

from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.actor_critic.settings import PAPER
from adaptiveisp.utils.allocator import keep_freed_memory

DETECTOR_PARTS = ("detector forward", "detector backward")
NEVER = -20.0


def all_modules(image, modules, action, params):
    """The result of `environment.apply_chosen`, but with all modules computed on every image."""
    return plain.step(image, dict(params), action)


@contextlib.contextmanager
def plain_execution() -> Iterator[None]:
    with mock.patch("adaptiveisp.policies.environment.apply_chosen", all_modules):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `train` does, for all cases
    detector = load_detector("yolov3-tiny", options.device)

    def to_label(categories):
        return map_classes(detector.class_names, categories).category_to_label

    def learner(without_denoise: bool) -> ActorCritic:
        stream = PhotoTrainingImages(options.data, options.images, to_label, 320, SynthesisConfig("normal"))
        settings = replace(PAPER, size=320, replay_size=16, neutral_start=True)
        found = ActorCritic(settings, stream, detector, 10**6, 0, options.device)
        if without_denoise:
            with torch.no_grad():
                found.actor.selection_head.fc2.bias[[m.name for m in found.modules].index("denoise")] = NEVER
        return found

    cases = {"ours, no non-local means": (learner(True), contextlib.nullcontext)}
    if not options.alone:
        others = {
            "plain execution": (learner(False), plain_execution),
            "ours": (learner(False), contextlib.nullcontext),
        }
        cases = {**others, **cases}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for iteration in range(options.iterations + 1):  # the cases are interleaved; the first iteration warms up
        for name, (subject, execution) in cases.items():
            with execution():
                start = time.perf_counter()
                _, seconds = subject.iterate()
                if options.device == "cuda":
                    torch.cuda.synchronize()
                total = time.perf_counter() - start
            if iteration:
                found[name].append({**seconds, "total": total})
    base = statistics.median(case["total"] for case in next(iter(found.values())))
    for name, times in found.items():
        parts = {part: statistics.median(t.get(part, 0.0) for t in times) for part in times[0]}
        detector_s = sum(parts[part] for part in DETECTOR_PARTS)
        rest = statistics.median(1 - sum(t[part] for part in DETECTOR_PARTS) / t["total"] for t in times)
        total = parts.pop("total")
        faster = "" if options.alone else f", {base / total:.1f} x faster"
        print(f"{name:26} {total:7.3f} s{faster}; detector {detector_s:.3f} s, rest {rest:.1%}; ms:")
        print("   ", "  ".join(f"{part} {1e3 * seconds:.0f}" for part, seconds in parts.items()))


if __name__ == "__main__":
    main()

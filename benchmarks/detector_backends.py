"""A detector's network by backend and precision: milliseconds a frame, agreement of boxes, difference of AP50.

    python benchmarks/detector_backends.py [--detector yolov3-tiny] [--threads 1] [--size 416] [--repeats 15]
    python benchmarks/detector_backends.py --data dev.json --images DIR [--light mixed] [--policy coco-adaptive]

Without --data it times `detect`, decoding and suppression included, on one frame; runs of all backends are interleaved,
and each ratio is the median of the ratios to PyTorch in float32 in the same round. With one thread the times are
processor time, which other programs disturb little; with more they are the time that passed. With --data it runs the
policy on raws made of the photos and prints, for each backend, the share of the boxes above 0.05 of PyTorch in float32
that it finds again (IoU 0.99, same class, score within 0.001), and the paired difference of AP50 with its 95 %
interval. Backends that are not installed, or have no bfloat16, are left out.
"""

import argparse
import statistics
import time
from typing import Any

import torch

from adaptiveisp import load_detector, open_dataset
from adaptiveisp.detectors.backends.choice import with_backend
from adaptiveisp.detectors.boxes import pairwise_iou
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.evaluation.bootstrap import paired_difference
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.evaluator import _score
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.types import Detections

WAYS = (
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)
REFERENCE = "torch float32"


def detectors(spec: str, size: int) -> dict[str, Any]:
    """The detector by each way that runs here."""
    plain = load_detector(spec)
    found: dict[str, Any] = {}
    for backend, precision in WAYS:
        try:
            found[f"{backend} {precision}"] = with_backend(plain, backend, precision, size)
        except AdaptiveISPError as error:
            print(f"left out: {error}")
    return found


@torch.inference_mode()
def times(ways: dict[str, Any], size: int, repeats: int) -> None:
    """Prints the median time of each way, and the median of its ratio to the reference."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 2):
        for name, detector in ways.items():
            start = clock()
            detector.detect(image, confidence=0.05)
            taken[name].append((clock() - start) * 1e3)
    print(f"{size} pixels, {torch.get_num_threads()} threads, {repeats} rounds")
    for name, series in taken.items():
        ratio = statistics.median(a / b for a, b in zip(taken[REFERENCE][2:], series[2:], strict=True))
        print(f"{name:22} {statistics.median(series[2:]):7.1f} ms   {ratio:5.2f} times as fast as {REFERENCE}")


@torch.inference_mode()
def agreement(ways: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints how far the boxes and AP50 of each way agree with the reference."""
    dataset = open_dataset(options.data, options.images, light=options.light, draws=options.draws)
    policy = load_policy(options.policy)
    classes = map_classes(ways[REFERENCE].class_names, dataset.categories, where=dataset.name)
    scored: dict[str, list[ScoredImage]] = {name: [] for name in ways}
    matched, boxes = dict.fromkeys(ways, 0), 0
    for sample in dataset.samples[: options.limit or None]:
        developed = develop_at_size(dataset.read(sample), options.size)
        image, full = policy.render(developed).image, developed.full_size
        found = {name: detect(one, [image], full, options.size, 0.001)[0] for name, one in ways.items()}
        boxes += int((found[REFERENCE].scores > 0.05).sum())
        for name, detections in found.items():
            matched[name] += n_matched(found[REFERENCE], detections)
            scored[name].append(_score(sample, detections, classes))
    labelled = {annotation.category_id for sample in dataset.samples for annotation in sample.annotations}
    shared = labelled & set(classes.category_to_label)
    print(f"{dataset.name}, {options.policy}, {options.size} pixels, {len(scored[REFERENCE])} images, {boxes} boxes")
    for name in ways:
        interval = paired_difference(scored[name], scored[REFERENCE], shared, resamples=1000, seed=0)
        mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
        share = matched[name] / max(boxes, 1)
        print(f"{name:22} boxes {share:7.2%}   AP50 {mean:+.2f} ({low:+.2f} to {high:+.2f})")


def n_matched(expected: Detections, found: Detections) -> int:
    """Number of expected boxes above 0.05 that are found again."""
    wanted = expected.scores > 0.05
    if not len(found.scores):
        return 0
    same = pairwise_iou(expected.boxes[wanted], found.boxes) >= 0.99
    same &= expected.labels[wanted][:, None] == found.labels[None]
    same &= (expected.scores[wanted][:, None] - found.scores[None]).abs() <= 1e-3
    return int(same.any(dim=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--data")
    parser.add_argument("--images")
    parser.add_argument("--light", default="mixed")
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--policy", default="coco-adaptive")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways = detectors(options.detector, options.size)
    if options.data is None:
        times(ways, options.size, options.repeats)
    else:
        agreement(ways, options)


if __name__ == "__main__":
    main()

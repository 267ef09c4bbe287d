"""Developing a mosaic at the working size against demosaicing it whole and resizing: time, images, boxes and AP50.

    python benchmarks/develop_small.py [--data COCO.json --images DIR --size N --policy P --draws N]

Without --data it times both ways on one thread for frames of 1080p and 12 MP, interleaved, and prints the medians and
their ratio. With --data, raws are made of the photos (mixed light, seed 0), their mosaics are developed both ways, and
it prints the RMS difference of the images, the share of boxes above 0.25 that match (IoU 0.9, same class), and the
paired difference of AP50 (new minus old) with its 95 % interval. Photos with sides of less than 3 N pixels have no
small development; their number is printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from adaptiveisp import load_detector, open_dataset
from adaptiveisp.detectors.boxes import pairwise_iou
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.letterbox import resize_longer_side, resized_size
from adaptiveisp.evaluation.bootstrap import paired_difference
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.evaluator import _score
from adaptiveisp.inference.detection import detect
from adaptiveisp.policies.base import Developed
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.develop import develop, develop_small
from adaptiveisp.types import RawImage

PATTERN = "RGGB"
SITES = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))
"""Row, column and colour of each site of the pattern."""


def mosaic_of(raw: RawImage) -> RawImage:
    """The Bayer mosaic of an RGB raw: at each site the value of its colour."""
    height, width = (side - side % 2 for side in raw.data.shape[:2])
    mosaic = np.empty((height, width), raw.data.dtype)
    for row, column, colour in SITES:
        mosaic[row::2, column::2] = raw.data[row:height:2, column:width:2, colour]
    return replace(raw, data=mosaic, pattern=PATTERN, unprocessing=None)


def developed_whole(raw: RawImage, size: int) -> torch.Tensor:
    """The raw demosaiced at full size and resized."""
    return resize_longer_side(develop(raw), size)


def times(repeats: int) -> None:
    """Prints the time of both ways on frames of 1080p and 12 MP."""
    torch.set_num_threads(1)
    for height, width in ((1080, 1920), (3000, 4000)):
        values = np.random.default_rng(0).integers(256, 4096, (height, width), dtype=np.uint16)
        raw = RawImage(values, PATTERN, 256, 4095)
        size = resized_size(height, width, 416)
        ways: dict[str, Callable[[], object]] = {
            "demosaic and resize": partial(developed_whole, raw, 416),
            "at the working size": partial(develop_small, raw, *size),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                taken[name].append((time.perf_counter() - start) * 1e3)
        old, new = (statistics.median(series[1:]) for series in taken.values())
        print(f"{width}x{height}: demosaic and resize {old:.1f} ms, at the working size {new:.1f} ms, {old / new:.1f}x")


@torch.inference_mode()
def agreement(options: argparse.Namespace) -> None:
    """Prints how far images, boxes and AP50 of both ways agree."""
    dataset = open_dataset(options.data, options.images, light="mixed", draws=options.draws)
    detector, policy = load_detector("yolov3-tiny"), load_policy(options.policy)
    classes = map_classes(detector.class_names, dataset.categories, where=dataset.name)
    scored: tuple[list[ScoredImage], list[ScoredImage]] = ([], [])
    squares, without, matched, boxes = [], 0, 0, 0
    for sample in dataset.samples:
        raw = mosaic_of(dataset.read(sample))
        full = develop(raw)
        old = resize_longer_side(full, options.size)
        new = develop_small(raw, *old.shape[1:])
        if new is None:
            without += 1
            continue
        squares.append(float((old - new).square().mean()))
        found = []
        for image, results in zip((old, new), scored, strict=True):
            developed = Developed(None, image[None], (full.shape[1], full.shape[2]), raw)
            rendered = policy.render(developed)
            detections = detect(detector, [rendered.image], developed.full_size, options.size, 0.001)[0]
            results.append(_score(sample, detections, classes))
            found.append(detections)
        sure = found[0].scores > 0.25
        boxes += int(sure.sum())
        iou = pairwise_iou(found[0].boxes[sure], found[1].boxes)
        same = found[0].labels[sure][:, None] == found[1].labels[None]
        matched += int(((iou >= 0.9) & same).any(dim=1).sum()) if len(found[1].boxes) else 0
    labelled = {annotation.category_id for sample in dataset.samples for annotation in sample.annotations}
    shared = labelled & set(classes.category_to_label)
    interval = paired_difference(scored[1], scored[0], shared, resamples=1000, seed=0)
    rms = float(np.sqrt(np.mean(squares)))
    print(f"{dataset.name}, {options.policy}, {options.size} pixels: {len(squares)} raws, {without} without")
    print(f"RMS {rms:.4f}; {matched} of {boxes} boxes above 0.25 match ({matched / max(boxes, 1):.1%})")
    mean, low, high = (100 * value for value in (interval.mean, interval.low, interval.high))
    print(f"AP50 at the working size minus demosaic and resize: {mean:+.2f} (95 % {low:+.2f} to {high:+.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--images")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--policy", default="coco-adaptive")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if options.data is None:
        times(options.repeats)
    else:
        agreement(options)


if __name__ == "__main__":
    main()

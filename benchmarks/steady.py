"""Smoothing of a stream's pipelines: flicker, lag and AP50, for several time constants, on simulated streams.

    python benchmarks/steady.py --data COCO.json --images DIR [--policy coco-fast] [--photos 24] [--frames 0 2 4 8 16]

Streams of 30 frames a second are made from labelled photos: each photo becomes a linear scene of a random camera and
light (mixed light, seed 0), of which a window of 80 % of both sides is a frame, as a 12-bit mosaic with fresh noise.

- still: the window and the light stay. Flicker is the mean absolute change from frame to frame, of the parameters as a
  share of their ranges, and of the mean luminance of the output in stops; beside it the raw's own, in stops.
- step: the light changes by 0.3, 1 or 2 stops up or down; frames until the luminance of the output is within 0.1 stops
  of that of the unsmoothed policy, averaged over the photos.
- ramp: the light grows by 1 stop a second for two seconds; mean absolute error of the luminance of the output in stops,
  against the unsmoothed policy, from the 16th frame on.
- cut: another photo; frames as for a step.
- moving: the window moves across the photo in 24 frames while the light swings by a stop up and down; AP50 of each
  eighth frame, as the paired difference from the unsmoothed policy with its 95 % interval.

It prints a Markdown table. Constants are chosen by it on dev photos; val photos are read once, with the choice.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaptiveisp import RawImage, load_detector, open_dataset
from adaptiveisp.data.synthetic import SyntheticRaws, read_photo
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.evaluation.bootstrap import paired_difference
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision
from adaptiveisp.evaluation.evaluator import _score
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.unprocess import add_noise, mosaic, unprocess
from adaptiveisp.streaming.smoothing import Smoother, SmoothingConfig
from adaptiveisp.types import Annotation, Image, Sample, Unprocessing
from adaptiveisp.utils.color import LUMA, weighted_channel

RATE = 30
WINDOW = 0.8
STEPS = (-2.0, -1.0, -0.3, 0.3, 1.0, 2.0)
NEAR = 0.1
"""Stops within which a change of light counts as followed."""
MOVING, EVERY = 24, 8
THUMB = 104
"""Longer side of the images on which luminance is measured."""


@dataclass(frozen=True)
class Scene:
    """A photo as linear light on a sensor, before the light's brightness and noise."""

    sample: Sample
    linear: Tensor
    how: Unprocessing

    def frame(self, x: float, stops: float, seed: int) -> RawImage:
        """The mosaic of the window at position `x` in 0..1 along both axes, in a light changed by `stops`."""
        top, left, height, width = self.window(x)
        light = self.how.light * 2**stops
        part = (self.linear[:, top : top + height, left : left + width] * light).clamp(max=1)
        values = add_noise(mosaic(part, "RGGB"), self.how, torch.Generator().manual_seed(seed))
        return RawImage((values * 4095).round().numpy().astype(np.uint16), "RGGB", 0.0, 4095.0)

    def window(self, x: float) -> tuple[int, int, int, int]:
        """(top, left, height, width) in pixels, all even so that the pattern stays."""
        height, width = (int(WINDOW * side) // 2 * 2 for side in self.linear.shape[1:])
        top, left = (int(x * (a - b)) // 2 * 2 for a, b in zip(self.linear.shape[1:], (height, width), strict=True))
        return top, left, height, width

    def cut_sample(self, x: float, number: int) -> Sample:
        """The sample of a frame: its labels are the boxes cut by the window, of which at least 30 % must be left."""
        top, left, height, width = self.window(x)
        kept: list[Annotation] = []
        for label in self.sample.annotations:
            bx, by, bw, bh = label.bbox
            x0, y0 = max(bx - left, 0.0), max(by - top, 0.0)
            x1, y1 = min(bx + bw - left, float(width)), min(by + bh - top, float(height))
            if x1 > x0 and y1 > y0 and (x1 - x0) * (y1 - y0) >= 0.3 * bw * bh:
                share = (x1 - x0) * (y1 - y0) / (bw * bh)
                kept.append(replace(label, bbox=(x0, y0, x1 - x0, y1 - y0), area=label.area * share))
        return replace(self.sample, draw=number, annotations=tuple(kept), width=width, height=height)


class Chosen(NamedTuple):
    """A frame at the working size, reduced to what the smoothing and the measures need."""

    pipeline: Pipeline
    thumb: Image


class Stage(NamedTuple):
    """What is measured with."""

    policy: Policy
    size: int


def choose(raw: RawImage, stage: Stage) -> Chosen:
    """The policy's own pipeline of a frame."""
    small = develop_at_size(raw, stage.size).small
    scale = THUMB / max(small.shape[2:])
    thumb = F.interpolate(small, scale_factor=scale, mode="area", recompute_scale_factor=True)
    return Chosen(stage.policy.plan(small)[0], thumb)


def luminance(pipeline: Pipeline, image: Image) -> float:
    """log2 of the mean luminance of the output."""
    return math.log2(max(float(weighted_channel(pipeline.render(image), LUMA).mean()), 1e-5))


def smoothed(chosen: Sequence[Chosen], config: SmoothingConfig) -> list[Pipeline]:
    smoother = Smoother(config)
    return [smoother.update(one.pipeline, one.thumb) for one in chosen]


def changes(pipelines: Sequence[Pipeline]) -> float:
    """Mean absolute change of the parameters from frame to frame, as a share of their ranges."""
    rows = [
        [
            (stage.params[param.name] - param.low) / (param.high - param.low)
            for module, stage in zip(pipeline.modules, pipeline.stages, strict=True)
            for param in module.params
        ]
        for pipeline in pipelines
    ]
    return float(np.abs(np.diff(np.array(rows), axis=0)).mean())


def errors(chosen: Sequence[Chosen], config: SmoothingConfig) -> list[float]:
    """Difference of the output's luminance from the unsmoothed policy's in stops, frame by frame."""
    return [
        luminance(pipeline, one.thumb) - luminance(one.pipeline, one.thumb)
        for pipeline, one in zip(smoothed(chosen, config), chosen, strict=True)
    ]


def lag(per_photo: Sequence[Sequence[float]]) -> int:
    """Frames until the mean absolute error over the photos stays below `NEAR`."""
    mean = np.abs(np.array(per_photo)).mean(axis=0)
    above = np.flatnonzero(mean > NEAR)
    return 0 if len(above) == 0 else int(above[-1]) + 1


def scenes(data: SyntheticRaws, photos: int) -> list[Scene]:
    """Scenes of the first `photos` photos of a seeded order; 0 takes all."""
    order = np.random.default_rng(0).permutation(len(data.samples))
    found = []
    for place in order[: photos or None]:
        sample = data.samples[place]
        how = data.unprocessing(sample.image_id, sample.draw)
        found.append(Scene(sample, unprocess(read_photo(sample.source), replace(how, light=1.0)), how))
    return found


def streams(scene: Scene, other: Scene, stage: Stage) -> dict[str, list[Chosen]]:
    """The chosen pipelines of the frames of each stream, apart from the moving one."""
    made = {"still": [choose(scene.frame(0.5, 0.0, seed), stage) for seed in range(MOVING)]}
    before = made["still"][:8]
    for stops in STEPS:
        made[f"step {stops:+g}"] = before + [choose(scene.frame(0.5, stops, 50 + seed), stage) for seed in range(16)]
    made["cut"] = before + [choose(other.frame(0.5, 0.0, 80 + seed), stage) for seed in range(8)]
    ramp = [choose(scene.frame(0.5, k / RATE - 1, 100 + k), stage) for k in range(2 * RATE)]
    return {**made, "ramp": ramp}


@torch.inference_mode()
def steadiness(found: Sequence[Scene], stage: Stage, configs: Sequence[SmoothingConfig]) -> list[dict[str, float]]:
    """One row of measures for each setting."""
    made = [streams(scene, found[(k + 1) % len(found)], stage) for k, scene in enumerate(found)]
    raws = [[math.log2(max(float(one.thumb.mean()), 1e-6)) for one in photo["still"]] for photo in made]
    own = float(np.mean([np.abs(np.diff(values)).mean() for values in raws]))
    rows = []
    for config in configs:
        still = [smoothed(photo["still"], config) for photo in made]
        light = [
            [luminance(pipeline, one.thumb) for pipeline, one in zip(pipelines, photo["still"], strict=True)]
            for pipelines, photo in zip(still, made, strict=True)
        ]
        row = {"frames": config.frames, "cut_stops": config.cut_stops, "raw flicker": own}
        row["parameter flicker"] = float(np.mean([changes(pipelines) for pipelines in still]))
        row["luminance flicker"] = float(np.mean([np.abs(np.diff(values)).mean() for values in light]))
        for name in [*(f"step {stops:+g}" for stops in STEPS), "cut"]:
            row[f"lag {name}"] = lag([errors(photo[name], config)[8:] for photo in made])
        row["ramp error"] = float(np.mean([np.abs(errors(photo["ramp"], config)[15:]) for photo in made]))
        rows.append(row)
    return rows


@torch.inference_mode()
def moving(
    found: Sequence[Scene], stage: Stage, configs: Sequence[SmoothingConfig], data: SyntheticRaws
) -> list[dict[str, Any]]:
    """AP50 of every `EVERY`-th frame for each setting, the first of which is the reference."""
    detector = load_detector("yolov3-tiny")
    classes = map_classes(detector.class_names, data.categories, where=data.name)
    scored: list[list[ScoredImage]] = [[] for _ in configs]
    for scene in found:
        smoothers = [Smoother(config) for config in configs]
        for k in range(MOVING):
            x = k / (MOVING - 1)
            raw = scene.frame(x, math.sin(2 * math.pi * k / (2 * RATE)), 1000 + k)
            developed = develop_at_size(raw, stage.size)
            chosen = stage.policy.plan(developed.small)[0]
            pipelines = [smoother.update(chosen, developed.small) for smoother in smoothers]
            if (k + 1) % EVERY:
                continue
            sample = scene.cut_sample(x, k)
            images = [pipeline.render(developed.small) for pipeline in pipelines]
            for image, results in zip(images, scored, strict=True):
                answer = detect(detector, [image], developed.full_size, stage.size, 0.001)[0]
                results.append(_score(sample, answer, classes))
    labelled = {label.category_id for image in scored[0] for label in image.annotations}
    shared = labelled & set(classes.category_to_label)
    rows: list[dict[str, Any]] = []
    for results in scored:
        ap50 = coco_average_precision(results, shared).ap50
        row: dict[str, Any] = {"AP50": 100 * (ap50 or 0.0)}
        if rows:
            interval = paired_difference(results, scored[0], shared, resamples=1000, seed=0)
            row["difference"] = tuple(100 * value for value in (interval.mean, interval.low, interval.high))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--policy", default="coco-fast")
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--photos", type=int, default=24, help="photos for flicker and lag")
    parser.add_argument("--scored", type=int, default=0, help="photos for AP50; 0 takes all, -1 none")
    parser.add_argument("--frames", type=float, nargs="+", default=[0.0, 2.0, 4.0, 8.0, 16.0])
    parser.add_argument("--cut-stops", type=float, nargs="+", default=[0.5])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = open_dataset(Path(options.data), Path(options.images), light="mixed", draws=1)
    assert isinstance(data, SyntheticRaws)
    stage = Stage(load_policy(options.policy), options.size)
    configs = [SmoothingConfig(frames, cut) for cut in options.cut_stops for frames in options.frames]
    rows: list[dict[str, Any]] = [dict(row) for row in steadiness(scenes(data, options.photos), stage, configs)]
    if options.scored >= 0:
        for row, score in zip(rows, moving(scenes(data, options.scored), stage, configs, data), strict=True):
            row.update(score)
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"{data.name}, {options.policy}, {options.size} pixels, {options.photos} photos, seed 0")
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(name)) for name in names) + " |")


def _cell(value: Any) -> str:
    if isinstance(value, tuple):
        return "{:+.2f} ({:+.2f} to {:+.2f})".format(*value)
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    main()

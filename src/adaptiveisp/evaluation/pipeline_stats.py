"""Which pipelines a policy chose: the most frequent ones, which module at which place, parameters by brightness."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adaptiveisp.isp.pipeline import DEFAULT_SET, Pipeline
from adaptiveisp.isp.registry import find_module

Planned = tuple[tuple[str, Mapping[str, float]], ...]
"""A pipeline as plain data: (module, parameters in physical units) in the order they ran."""

MOST_PIPELINES = 20
"""Sequences of a policy that report.json lists."""
MOST_MODULES, MOST_PARAMETERS = 8, 3
"""Modules whose parameters are shown by brightness, and parameters of each."""


@dataclass(frozen=True)
class ImageRun:
    """What one policy did with one image and draw.

    Attributes:
        policy: its name.
        photo, draw: the image.
        light: brightness factor in (0, 1], None if unknown.
        pipeline: what ran; None where it was no pipeline of ours (`camera`) or is not known.
        loss: detector → its loss of the rendering, None where it gives none.
    """

    policy: str
    photo: int
    draw: int
    light: float | None
    pipeline: Planned | None
    loss: Mapping[str, float | None]

    def to_json(self) -> dict[str, object]:
        """Its line of pipelines.jsonl."""
        known = self.pipeline is not None
        return {
            "policy": self.policy,
            "photo": self.photo,
            "draw": self.draw,
            "light": self.light,
            "modules": [module for module, _ in self.pipeline or ()] if known else None,
            "params": [dict(params) for _, params in self.pipeline or ()] if known else None,
            "loss": dict(self.loss),
        }


@dataclass(frozen=True)
class FoundPipeline:
    """A sequence of modules that a policy chose.

    Attributes:
        modules: in the order they ran.
        count: images it was chosen for.
        share: of all the policy's images, in 0..1.
        light_mean: geometric mean of these images' brightness factors, since light counts in stops; None if unknown.
    """

    modules: tuple[str, ...]
    count: int
    share: float
    light_mean: float | None


class ParameterByLight(NamedTuple):
    """A parameter's values over the images that it was used for.

    Attributes:
        module: with "(2)" behind it for a module's second run in a pipeline, and so on.
        param: name of the parameter.
        unit: "" if it has none.
        reach: from the least to the greatest value that it may have, in `unit`.
        lights: brightness factors.
        values: in `unit`, one a light.
    """

    module: str
    param: str
    unit: str
    reach: float
    lights: tuple[float, ...]
    values: tuple[float, ...]


def as_planned(pipeline: Pipeline | None) -> Planned | None:
    """A pipeline as plain data."""
    return None if pipeline is None else tuple((stage.module, dict(stage.params)) for stage in pipeline.stages)


def frequent_pipelines(runs: Iterable[ImageRun]) -> list[FoundPipeline]:
    """The sequences of modules among one policy's runs, the most frequent first, then in order of first use."""
    lights: dict[tuple[str, ...], list[float | None]] = defaultdict(list)
    for run in runs:
        if run.pipeline is not None:
            lights[tuple(module for module, _ in run.pipeline)].append(run.light)
    total = sum(map(len, lights.values()))
    ranked = sorted(lights.items(), key=lambda item: -len(item[1]))
    return [FoundPipeline(modules, len(seen), len(seen) / total, _light_mean(seen)) for modules, seen in ranked]


def _light_mean(lights: Sequence[float | None]) -> float | None:
    """The geometric mean of the known ones."""
    known = [math.log(light) for light in lights if light is not None and light > 0]
    return math.exp(sum(known) / len(known)) if known else None


def place_shares(runs: Iterable[ImageRun]) -> list[dict[str, float]]:
    """For each place of a pipeline, module → share (0..1) of all images with it there; they sum to 1 or less.

    What is missing to 1 are the images whose pipelines are shorter.
    """
    pipelines = [run.pipeline for run in runs if run.pipeline is not None]
    places = [Counter[str]() for _ in range(max(map(len, pipelines), default=0))]
    for pipeline in pipelines:
        for place, (module, _) in zip(places, pipeline, strict=False):
            place[module] += 1
    return [{module: count / len(pipelines) for module, count in place.items()} for place in places]


def parameters_by_light(runs: Iterable[ImageRun]) -> list[ParameterByLight]:
    """The parameters of the most used modules over light, in the order in which the modules mostly run.

    Of a module with more than `MOST_PARAMETERS` parameters those are taken whose values spread most over their ranges.

    Args:
        runs: of one policy; those without a known light or pipeline are left out.
    """
    found: dict[str, list[tuple[float, int, Mapping[str, float]]]] = defaultdict(list)
    for run in runs:
        seen: Counter[str] = Counter()
        for place, (module, params) in enumerate(run.pipeline or ()):
            seen[module] += 1
            name = module if seen[module] == 1 else f"{module} ({seen[module]})"
            if run.light is not None and run.light > 0 and params:
                found[name].append((run.light, place, params))
    most_used = sorted(found, key=lambda name: -len(found[name]))[:MOST_MODULES]
    most_used.sort(key=lambda name: float(np.median([place for _, place, _ in found[name]])))
    series = []
    for name in most_used:
        declared = find_module(name.split(" (")[0], DEFAULT_SET).params
        lights = tuple(light for light, _, _ in found[name])
        values = {p.name: tuple(params[p.name] for _, _, params in found[name]) for p in declared}
        spread = {p.name: float(np.ptp(values[p.name])) / (p.high - p.low) for p in declared}
        kept = sorted(spread, key=lambda param: -spread[param])[:MOST_PARAMETERS]
        series += [
            ParameterByLight(name, p.name, p.unit, p.high - p.low, lights, values[p.name])
            for p in declared
            if p.name in kept
        ]
    return series

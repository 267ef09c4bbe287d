"""Statistics of the pipelines that a policy chose: frequent ones, modules by position, parameters by brightness."""

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
"""Most sequences of a policy in report.json."""
MOST_MODULES, MOST_PARAMETERS = 8, 3
"""Most modules whose parameters are shown by brightness, and most parameters of each."""


@dataclass(frozen=True)
class ImageRun:
    """The pipeline and the losses of one policy on one draw of an image.

    Attributes:
        policy: name of the policy.
        photo, draw: id of the photo and number of the draw.
        light: brightness factor in (0, 1], None if unknown.
        pipeline: the pipeline that ran; None where none did (`camera`) or it is not known.
        loss: detector → its loss of the rendering, None where it gives none.
        dataset: name of the data set; "" where there is only one.
    """

    policy: str
    photo: int
    draw: int
    light: float | None
    pipeline: Planned | None
    loss: Mapping[str, float | None]
    dataset: str = ""

    def to_json(self) -> dict[str, object]:
        """Its line of pipelines.jsonl."""
        known = self.pipeline is not None
        return {
            **({"set": self.dataset} if self.dataset else {}),
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
        count: number of images that it was chosen for.
        share: share of all images of the policy, in 0..1.
        light_mean: geometric mean of these images' brightness factors, since light counts in stops; None if unknown.
    """

    modules: tuple[str, ...]
    count: int
    share: float
    light_mean: float | None


class ParameterByLight(NamedTuple):
    """A parameter's values over the images that it was used for.

    Attributes:
        module: name of the module, followed by "(2)" for its second run in a pipeline, and so on.
        param: name of the parameter.
        unit: unit of the parameter; "" if it has none.
        reach: width of the parameter's range, in `unit`.
        lights: brightness factor of each image.
        values: value in each image, in `unit`.
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
    return [FoundPipeline(modules, len(own), len(own) / total, _light_mean(own)) for modules, own in ranked]


def _light_mean(lights: Sequence[float | None]) -> float | None:
    """The geometric mean of the known brightness factors."""
    known = [math.log(light) for light in lights if light is not None and light > 0]
    return math.exp(sum(known) / len(known)) if known else None


def place_shares(runs: Iterable[ImageRun]) -> list[dict[str, float]]:
    """For each position in a pipeline, module → share (0..1) of all images that run it there.

    The shares of a position sum to less than 1 if some pipelines are shorter.
    """
    pipelines = [run.pipeline for run in runs if run.pipeline is not None]
    places = [Counter[str]() for _ in range(max(map(len, pipelines), default=0))]
    for pipeline in pipelines:
        for place, (module, _) in zip(places, pipeline, strict=False):
            place[module] += 1
    return [{module: count / len(pipelines) for module, count in place.items()} for place in places]


def parameters_by_light(runs: Iterable[ImageRun]) -> list[ParameterByLight]:
    """The parameters of the most used modules over light, by the median position at which each module runs.

    A module with more than `MOST_PARAMETERS` parameters is shown with those that spread most over their ranges.

    Args:
        runs: runs of one policy; those without a known light or pipeline are left out.
    """
    found: dict[str, list[tuple[float, int, Mapping[str, float]]]] = defaultdict(list)
    for run in runs:
        uses: Counter[str] = Counter()
        for place, (module, params) in enumerate(run.pipeline or ()):
            uses[module] += 1
            name = module if uses[module] == 1 else f"{module} ({uses[module]})"
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

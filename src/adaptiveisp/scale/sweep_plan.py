"""The plan of a sweep: a YAML file that names settings with their values becomes a list of training runs.

    base:
      config: sequence-adaptive        # a recipe or a YAML file, as for `train --config`; may be left out
      train: {data: train.json, images: photos, dev: dev.json, light: mixed, budget: 4000}
      settings: {size: 288}
    grid:                              # every combination of these values …
      runtime_weight: [0.0, 0.02]
    random:                            # … with each of `samples` random draws of these
      rate: {low: 1.0e-4, high: 1.0e-3, scale: log}
    samples: 4
    seeds: [0, 1, 2]                   # each of them with every seed

A name is an option of a run (`TrainConfig`) or else a setting of its method.
"""

import itertools
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from adaptiveisp.errors import DataError, UsageError, shown
from adaptiveisp.training.config import TrainConfig, completed, find_config, read_config, resolve
from adaptiveisp.utils.config import as_yaml, record, require
from adaptiveisp.utils.yaml_files import read_yaml

REMEDY = "docs/sweep.md shows a sweep file"
MOST_RUNS = 10_000
"""Most runs of a sweep, far above useful numbers; a grid of many settings grows quickly."""
OPTIONS = frozenset(one.name for one in fields(TrainConfig))
RESERVED = {"seed": "give seeds: [0, 1, …] instead", "cache": "give --cache DIR"}
"""Options that a sweep does not vary, and what to do instead."""


@dataclass(frozen=True)
class Base:
    """What all runs of a sweep have in common.

    Attributes:
        config: recipe or YAML file whose options and settings come first; "" for none.
        train: options that replace those of it.
        settings: the same of the method's settings.
    """

    config: str = ""
    train: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draw:
    """How a random value is drawn.

    Attributes:
        low, high: ends of its range.
        scale: "linear", or "log" for equal chances of each factor.
        integer: whether it is rounded to a whole number.
        values: list from which it is drawn instead, with equal chances.
    """

    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log"] = "linear"
    integer: bool = False
    values: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.values:
            require(self.low is None and self.high is None, "give either values or low and high")
            return
        require(self.low is not None and self.high is not None, "give low and high, or values")
        require((self.low or 0) < (self.high or 0), "low must be below high")
        require(self.scale != "log" or (self.low or 0) > 0, "low must be above 0 for scale: log")

    def value(self, generator: random.Random) -> Any:
        """A random value; numbers have four significant digits, so that a table shows them whole."""
        if self.values:
            return generator.choice(self.values)
        low, high = self.low or 0.0, self.high or 0.0
        if self.scale == "log":
            drawn = math.exp(generator.uniform(math.log(low), math.log(high)))
        else:
            drawn = generator.uniform(low, high)
        return round(drawn) if self.integer else float(f"{drawn:.4g}")


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep file, see the module.

    Attributes:
        base: what all runs have in common.
        grid: name → values, of which every combination is run.
        random: name → how its value is drawn, see `Draw`.
        samples: number of random draws; each is combined with every point of the grid.
        seeds: each setting is run with each of them.
        seed: of the random draws.
        policies: policies with which the runs are compared at the end, as for `eval --policy`.
        data, images: labelled data of that comparison, as for `eval`; "" takes the dev set of the runs.
        draws: draws of light and noise for each photo there; 0 takes `dev_draws`.
        resamples: resamples of its bootstrap.
    """

    base: Base = field(default_factory=Base)
    grid: Mapping[str, Any] = field(default_factory=dict)
    random: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 1
    seeds: tuple[int, ...] = (0,)
    seed: int = 0
    policies: tuple[str, ...] = ("auto-exposure",)
    data: str = ""
    images: str = ""
    draws: int = 0
    resamples: int = 1000

    def __post_init__(self) -> None:
        require(self.samples >= 1, "samples must be at least 1")
        require(bool(self.random) or self.samples == 1, "samples needs random: names with ranges")
        require(len(self.seeds) > 0 and min(self.seeds) >= 0, "seeds must be whole numbers from 0, at least one")
        require(len(set(self.seeds)) == len(self.seeds), "seeds names a seed twice")
        require(self.draws >= 0, "draws must not be negative")
        for name, values in self.grid.items():
            require(isinstance(values, list) and len(values) > 0, f"grid: {name} needs a list of values: [a, b]")
        for name in (*self.grid, *self.random):
            require(name not in RESERVED, f"{name} cannot be varied; {RESERVED.get(name)}")
        both = set(self.grid) & set(self.random)
        require(not both, f"{', '.join(sorted(both))}: in grid and in random; leave it in one of them")


@dataclass(frozen=True)
class Run:
    """One training run of a sweep.

    Attributes:
        trial: name of its trial.
        seed: its seed.
        config: the content of its configuration file, complete.
    """

    trial: str
    seed: int
    config: str

    @property
    def name(self) -> str:
        """Its folder below that of the sweep's runs."""
        return f"{self.trial}/seed-{self.seed}"


@dataclass(frozen=True)
class Trial:
    """One choice of values, run with every seed.

    Attributes:
        name: a plain name with its number and its values.
        values: name of an option or setting → its value.
        runs: one for each seed.
        options: options of these runs, with the first seed.
    """

    name: str
    values: Mapping[str, Any]
    runs: tuple[Run, ...]
    options: TrainConfig


def read_sweep(path: Path) -> SweepFile:
    """The content of a sweep file.

    Raises:
        DataError: it is missing, is not YAML, or a key or value does not fit.
    """
    content = read_yaml(path, DataError, REMEDY)
    content = {} if content is None else content
    if isinstance(content, dict) and "base" in content:
        base = record(Base, content["base"] or {}, f"{path}: base", DataError, REMEDY)
        content = {name: value for name, value in content.items() if name != "base"}
        found = record(SweepFile, content, str(path), DataError, REMEDY)
        return SweepFile(**{**{one.name: getattr(found, one.name) for one in fields(SweepFile)}, "base": base})
    raise DataError(f"{path}: lacks base:, the options and settings that all runs have in common; {REMEDY}")


def trials_of(sweep: SweepFile, origin: str) -> list[Trial]:
    """The trials of a sweep, with the complete configuration of every run.

    Args:
        sweep: the content of the file.
        origin: the file, for errors.

    Raises:
        UsageError: a name or a value does not fit, or there are too many runs.
        DataError: the base configuration cannot be read.
    """
    draws = {name: _draw(name, how, origin) for name, how in sweep.random.items()}
    generator = random.Random(sweep.seed)
    drawn = [{name: draw.value(generator) for name, draw in draws.items()} for _ in range(sweep.samples)]
    n_points = math.prod(len(values) for values in sweep.grid.values())
    n_runs = n_points * len(drawn) * len(sweep.seeds)
    require(n_runs <= MOST_RUNS, f"{origin}: {n_runs} runs, more than {MOST_RUNS}; leave out values or seeds")
    grid = [dict(zip(sweep.grid, point, strict=True)) for point in itertools.product(*sweep.grid.values())]
    choices = [{**point, **sample} for point in grid for sample in drawn]
    digits = len(str(len(choices)))
    return [
        _trial(f"{number:0{digits}d}{_label(values)}", values, sweep, origin)
        for number, values in enumerate(choices, start=1)
    ]


def _draw(name: str, how: Any, origin: str) -> Draw:
    return record(Draw, how, f"{origin}: random: {name}", UsageError, REMEDY)


def _label(values: Mapping[str, Any]) -> str:
    """The values as a part of a folder's name, without characters that have a meaning in paths and groups."""
    text = "".join(f"_{name}-{value}" for name, value in values.items())
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:80].rstrip("-._")


def _trial(name: str, values: Mapping[str, Any], sweep: SweepFile, origin: str) -> Trial:
    runs, first = [], None
    for seed in sweep.seeds:
        options, config = _configured(sweep.base, values, seed, f"{origin}: {name}")
        first = first or options
        runs.append(Run(name, seed, config))
    assert first is not None, "a sweep has at least one seed"
    return Trial(name, values, tuple(runs), first)


def _configured(base: Base, values: Mapping[str, Any], seed: int, origin: str) -> tuple[TrainConfig, str]:
    """The options and the configuration file of a run.

    Raises:
        UsageError: a name or a value does not fit.
    """
    train, settings = read_config(find_config(base.config)) if base.config else ({}, {})
    own = {name: value for name, value in values.items() if name in OPTIONS}
    train = {**train, **base.train, **own, "seed": seed}
    train.pop("cache", None)
    # The settings of a configuration file belong to its method and preset.
    other = {"method", "preset"} & {*base.train, *own}
    if other:
        settings = {}
    settings = {**settings, **base.settings, **{k: v for k, v in values.items() if k not in OPTIONS}}
    if train.get("dev") and not train.get("dev_images"):
        train["dev_images"] = train.get("images", "")
    options, resolved = resolve(train, settings, origin, from_file=bool(base.config) and not other)
    if not options.data:
        raise UsageError(f"{origin}: names no data; add base: train: data: {shown('train.json')}")
    options, resolved = completed(options, resolved)
    return options, yaml.safe_dump({"train": as_yaml(options), "settings": as_yaml(resolved)}, sort_keys=False)

"""The report's figures of the chosen pipelines: modules by position, and parameters by brightness."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from adaptiveisp.evaluation.figures.common import LINE_COLOUR, POLICY_COLOURS, TEXT_COLOUR, empty_figure, strip
from adaptiveisp.evaluation.figures.cost import short
from adaptiveisp.evaluation.pipeline_stats import ParameterByLight
from adaptiveisp.utils.optional_imports import import_extra

PLACE_COLUMNS, PARAMETER_COLUMNS = 3, 4
"""Most panels side by side."""
STRONGEST = 0.9
"""Opacity of a cell for all images. It follows the square root of the share, so that rare modules are visible."""
SHARES_OF_LEGEND = (0.1, 0.25, 0.5, 1.0)
MOST_DOTS = 150
"""Most images drawn as dots in a panel, which keeps the page small; the line is computed from all images."""
LEAST_SPAN = 0.05
"""Least share of a parameter's range that its panel spans, so that small changes look small."""
LEAST_IN_BIN = 3
"""Fewest images in a bin of light whose median is drawn."""


def place_figure(policies: Mapping[str, Sequence[Mapping[str, float]]]) -> Any:
    """A panel for each policy whose cells show the share of images that run a module at a position in the pipeline.

    Args:
        policies: name → for each position, module → share in 0..1, see `place_shares`; at least one of each.
    """
    modules = _by_mean_place(policies.values())
    longest = max(map(len, policies.values()))
    columns = min(PLACE_COLUMNS, max(2, len(policies)))  # a single panel would be blown up, and its legend cut off
    rows = math.ceil(len(policies) / columns)
    figure = empty_figure(9, 0.7 + rows * (0.7 + 0.24 * len(modules)))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes in panels[len(policies) :]:
        axes.set_visible(False)
    for axes, (name, shares) in zip(panels, policies.items(), strict=False):
        strip(axes)
        axes.set_title(short(name), fontsize=10, color=TEXT_COLOUR, loc="left")
        for place, by_module in enumerate(shares, 1):
            for module, share in by_module.items():
                axes.add_patch(_cell(place, modules.index(module), share))
        axes.set_xlim(0.5, longest + 0.5)
        axes.set_ylim(len(modules) - 0.5, -0.5)
        axes.set_yticks(range(len(modules)), modules)
        axes.set_xticks(range(1, longest + 1))
        axes.set_xticks(np.arange(0.5, longest + 1), minor=True)
        axes.set_yticks(np.arange(0.5, len(modules)), minor=True)
        axes.tick_params(which="both", length=0, labelsize=9, labelbottom=True)
        axes.grid(which="minor", color=LINE_COLOUR, linewidth=0.6)
        axes.set_xlabel("position in the pipeline")
    handles = [_cell(0, 0, share) for share in SHARES_OF_LEGEND]
    names = [f"{100 * share:.0f} % of images" for share in SHARES_OF_LEGEND]
    figure.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=10, labelcolor=TEXT_COLOUR)
    return figure


def _by_mean_place(policies: Any) -> list[str]:
    """All modules, in the order of the mean position at which they run."""
    total: dict[str, float] = {}
    weighted: dict[str, float] = {}
    for shares in policies:
        for place, by_module in enumerate(shares):
            for module, share in by_module.items():
                total[module] = total.get(module, 0.0) + share
                weighted[module] = weighted.get(module, 0.0) + share * place
    return sorted(total, key=lambda module: weighted[module] / total[module])


def _cell(place: int, row: int, share: float) -> Any:
    """The cell of a module at a position."""
    patches = import_extra("matplotlib.patches", "report")
    opacity = STRONGEST * math.sqrt(share)
    return patches.Rectangle((place - 0.5, row - 0.5), 1, 1, facecolor=POLICY_COLOURS[0], alpha=opacity, linewidth=0)


def parameter_figure(series: Sequence[ParameterByLight], edges: Sequence[float]) -> Any:
    """A panel for each parameter: its value in each image over light, and the median in each bin of light.

    Args:
        series: at least one parameter.
        edges: edges of the bins of light.
    """
    columns = min(PARAMETER_COLUMNS, len(series))
    rows = math.ceil(len(series) / columns)
    figure = empty_figure(9, 0.3 + 1.75 * rows)
    panels = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for axes in panels[len(series) :]:
        axes.set_visible(False)
    logs = [math.log10(light) for one in series for light in one.lights]
    low, high = math.floor(2 * min(logs)) / 2, math.ceil(2 * max(logs)) / 2
    for number, (axes, one) in enumerate(zip(panels, series, strict=False)):
        strip(axes)
        axes.set_title(f"{one.module}: {one.param}", fontsize=9, color=TEXT_COLOUR, loc="left")
        order = np.argsort(one.lights, kind="stable")
        shown = order[np.unique(np.linspace(0, len(order) - 1, min(len(order), MOST_DOTS)).astype(int))]
        x, y = np.log10(one.lights), np.asarray(one.values)
        axes.plot(x[shown], y[shown], "o", color=POLICY_COLOURS[0], markersize=3, alpha=0.45, markeredgewidth=0)
        if medians := binned_medians(one, edges):
            axes.plot(*zip(*medians, strict=True), color=POLICY_COLOURS[1], linewidth=2)
        ticks = range(math.ceil(low), math.floor(high) + 1)
        axes.set_xticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
        axes.set_xlim(low - 0.05, max(high, low + 0.5) + 0.05)
        middle, span = (y.max() + y.min()) / 2, max(1.15 * np.ptp(y), LEAST_SPAN * one.reach)
        axes.set_ylim(middle - span / 2, middle + span / 2)
        axes.locator_params(axis="y", nbins=4)
        axes.grid(color=LINE_COLOUR, linewidth=0.6)
        axes.tick_params(labelsize=8, labelbottom=number + columns >= len(series))
        if one.unit:
            axes.set_ylabel(one.unit, fontsize=8)
        if number + columns >= len(series):
            axes.set_xlabel("brightness factor", fontsize=9)
    return figure


def binned_medians(series: ParameterByLight, edges: Sequence[float]) -> list[tuple[float, float]]:
    """(log10 of the median light, median value) of each bin of light that holds `LEAST_IN_BIN` images or more.

    The outer bins also hold factors beyond the edges.
    """
    lights, values = np.asarray(series.lights), np.asarray(series.values)
    bins = np.searchsorted(edges[1:-1], lights, side="right")
    points = []
    for number, _ in enumerate(pairwise(edges)):
        inside = bins == number
        if inside.sum() >= LEAST_IN_BIN:
            points.append((float(np.log10(np.median(lights[inside]))), float(np.median(values[inside]))))
    return points

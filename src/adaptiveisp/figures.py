"""The report's figures: plain numbers and names in, a matplotlib figure out, and that as SVG for the page.

Average precision comes in 0..1 and is drawn in points. A policy's place in the order of the report gives its colour and
marker, so that it looks alike in every figure and in the page's tables.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from adaptiveisp.extras import import_extra

POLICY_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
"""Lines and bars, on white and on black. Source: Tol 2021, "Colour schemes", bright."""

POLICY_MARKERS = "osD^vPX"
# Stand-ins that the page replaces by colours of its own light or dark scheme.
TEXT_COLOUR, LINE_COLOUR = "#010203", "#040506"

LABEL_SPOTS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand beside its point, the best first: -1, 0 or 1 to the right and up."""
LABEL_DISTANCES = (7.0, 22.0)
"""Points (1/72 inch) from a point to its name; the far ones get a leader."""
LABEL_SWEEPS = 4
"""How often every name may move once the others stand."""
FAR_COST = 0.1
"""A far spot is as bad as covering this share of the name."""
MARKER_RADIUS, LINE_REACH = 5.0, 1.5
"""Points (1/72 inch) around a point and a line that a name should keep free."""

NAME_LENGTH = 26
"""Letters of a name beside a point; the tables hold the whole name."""

SQUEEZED = 1 / 3
"""Share of the height below which scores are too close together to be told apart beside an outlier."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class CostPoint:
    """What one policy costs and scores.

    Attributes:
        policy: its name.
        place: its place in the order of the report.
        ap50: in 0..1.
        cost_ms: mean cost of an image by the cost table, in milliseconds.
        modules: mean number of modules of an image, None if not known.
    """

    policy: str
    place: int
    ap50: float
    cost_ms: float
    modules: float | None = None


@dataclass(frozen=True)
class DifferenceBar:
    """A difference of AP50 in 0..1 units with the ends of its interval, and the name of its row."""

    name: str
    mean: float
    low: float
    high: float


def policy_colour(place: int) -> str:
    """The colour of the policy at a place of the report; colours repeat after seven.

    >>> policy_colour(0), policy_colour(7)
    ('#4477aa', '#4477aa')
    """
    return POLICY_COLOURS[place % len(POLICY_COLOURS)]


def _look(place: int) -> dict[str, str]:
    """Colour and marker of a policy, as matplotlib's keywords."""
    return {"color": policy_colour(place), "marker": POLICY_MARKERS[place % len(POLICY_MARKERS)]}


def _new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A matplotlib figure (inches) with one bare pair of axes, without pyplot's global state."""
    figure = _empty_figure(width, height)
    axes = figure.add_subplot()
    _strip(axes)
    return figure, axes


def _empty_figure(width: float, height: float) -> Any:
    """A matplotlib figure (inches) without axes."""
    return import_extra("matplotlib.figure", "report").Figure(figsize=(width, height), layout="constrained")


def _strip(axes: Any) -> None:
    """Takes frame and ticks away and gives the rest the page's colours."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE_COLOUR)
    axes.tick_params(length=0, colors=TEXT_COLOUR, labelsize=10)
    axes.xaxis.label.set_color(TEXT_COLOUR)
    axes.yaxis.label.set_color(TEXT_COLOUR)
    axes.set_axisbelow(True)


def _add_legend(figure: Any, axes: Any, n: int) -> None:
    """One row of names above the plot, wrapped after four."""
    if n > 1:
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=min(n, 4),
            frameon=False,
            fontsize=10,
            labelcolor=TEXT_COLOUR,
            handlelength=1.6,
        )


def light_figure(bins: Sequence[str], curves: Mapping[str, Sequence[float | None]]) -> Any:
    """AP50 of each policy over the bins of light.

    Args:
        bins: their names.
        curves: policy → AP50 in each bin, None where it is not defined; nothing for a policy without known light.
    """
    figure, axes = _new_figure(9, 3.6)
    for place, (policy, values) in enumerate(curves.items()):
        known = [(x, 100 * value) for x, value in enumerate(values) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=policy, linewidth=2, markersize=6, **_look(place))
    axes.set_xticks(range(len(bins)), bins)
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.8)
    axes.set_ylabel("AP50, points")
    axes.set_xlabel("brightness factor")
    _add_legend(figure, axes, len(curves))
    return figure


def forest_figure(differences: Sequence[DifferenceBar]) -> Any:
    """Each difference with its interval; those whose interval spans zero are hollow."""
    figure, axes = _new_figure(9, 0.9 + 0.42 * len(differences))
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1)
    for row, d in enumerate(differences):
        clear = d.low > 0 or d.high < 0
        colour = POLICY_COLOURS[0] if clear else POLICY_COLOURS[-1]
        axes.plot([100 * d.low, 100 * d.high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(
            100 * d.mean, row, "o", markersize=8, markeredgewidth=2, color=colour, fillstyle="full" if clear else "none"
        )
    axes.set_yticks(range(len(differences)), [d.name for d in differences])
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("difference of AP50, points")
    return figure


def class_figure(classes: Sequence[str], bars: Mapping[str, Sequence[float]]) -> Any:
    """AP50 of each policy as bars, one group a class.

    Args:
        classes: their names.
        bars: policy → AP50 of each class.
    """
    bar = 0.8 / len(bars)
    figure, axes = _new_figure(9, 1.0 + len(classes) * (0.13 + 0.075 * len(bars)))
    rows = np.arange(len(classes))
    for place, (policy, values) in enumerate(bars.items()):
        offset = (place - (len(bars) - 1) / 2) * bar
        lengths = [100 * value for value in values]
        axes.barh(rows + offset, lengths, bar * 0.86, label=policy, color=policy_colour(place))
    axes.set_yticks(rows, classes)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("AP50, points")
    _add_legend(figure, axes, len(bars))
    return figure


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Positions of the points that no other dominates, cheapest first; of equal points all.

    A point is dominated by one that costs no more and scores no less, and differs in one of the two.

    >>> pareto_front([0, 5, 5, 9], [1, 3, 2, 3])
    [0, 1]
    """
    front: list[int] = []
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i])):
        last = front[-1] if front else None
        if last is None or scores[i] > scores[last] or (costs[i], scores[i]) == (costs[last], scores[last]):
            front.append(i)
    return front


def scale_floor(scores: Sequence[float]) -> float:
    """The lowest score that an axis should show: the lowest of all, unless that would squeeze most of the others.

    Where the widest gap leaves the scores above it less than a third of the height, and they are the majority, the
    scale starts above the gap.

    >>> scale_floor([4.8, 17.8, 19.5]), scale_floor([4.8, 12.0, 19.5]), scale_floor([4.8, 19.5])
    (17.8, 4.8, 4.8)
    """
    ordered = sorted(scores)
    gaps = [high - low for low, high in pairwise(ordered)]
    n_below = 1 + int(np.argmax(gaps)) if gaps else 0
    if n_below >= len(ordered) - n_below:
        return ordered[0]
    squeezed = ordered[-1] - ordered[n_below] < SQUEEZED * (ordered[-1] - ordered[0])
    return ordered[n_below] if squeezed else ordered[0]


def cost_figure(points: Sequence[CostPoint]) -> Any:
    """AP50 of each policy over its cost and, where it is known for all, over its modules, with the Pareto fronts.

    A score below `scale_floor` stands hollow at the foot of the plot, with its value beside the name.

    Args:
        points: at least one.
    """
    panels = {"cost per image, ms (by the cost table)": [point.cost_ms for point in points]}
    modules = [point.modules for point in points if point.modules is not None]
    if len(modules) == len(points):
        panels["modules per image"] = modules
    figure = _empty_figure(9, 4.2)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=(3, 2)[: len(panels)])[0]
    for axes, (name, costs) in zip(every, panels.items(), strict=True):
        _strip(axes)
        axes.locator_params(nbins=7, steps=(1, 2, 5, 10))
        axes.grid(color=LINE_COLOUR, linewidth=0.8)
        axes.set_xlabel(name)
        _draw_tradeoff(axes, points, costs)
    every[0].set_ylabel("AP50, points")
    # The layout has to stand before names can be put where they cover nothing.
    figure.draw_without_rendering()
    for axes in every:
        _spread_labels(axes)
    return figure


def _draw_tradeoff(axes: Any, points: Sequence[CostPoint], costs: Sequence[float]) -> None:
    """The Pareto front as steps, and each point with its name, which `_spread_labels` moves later."""
    scores = [100 * point.ap50 for point in points]
    front = pareto_front(costs, scores)
    steps = [costs[i] for i in front], [scores[i] for i in front]
    axes.plot(*steps, drawstyle="steps-post", color=TEXT_COLOUR, linewidth=1, alpha=0.55, label="front")
    floor = 100 * scale_floor([point.ap50 for point in points])
    # Differences below what a figure should blow up leave some room too.
    room = max(0.1 * (max(scores) - floor), 0.005 * max(scores)) or 0.5
    foot = floor - 1.6 * room
    bottom = foot - room / 2 if floor > min(scores) else floor - room
    axes.set_ylim(max(0.0, bottom), max(scores) + room)
    reach = max(costs) or 1.0
    axes.set_xlim(-0.05 * reach, 1.12 * reach)
    for point, cost, score in zip(points, costs, scores, strict=True):
        shown = score >= floor
        xy = (cost, score if shown else foot)
        filling = "full" if shown else "none"
        axes.plot(*xy, markersize=8, linestyle="", fillstyle=filling, clip_on=False, zorder=3, **_look(point.place))
        axes.annotate(
            short(point.policy) + ("" if shown else f"\n{score:.1f} \N{DOWNWARDS ARROW}"),
            xy,
            (0, 0),
            textcoords="offset points",
            color=TEXT_COLOUR,
            fontsize=10,
            parse_math=False,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": TEXT_COLOUR, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4},
        ).set_in_layout(False)


def short(name: str) -> str:
    """The name, without its middle where it is longer than `NAME_LENGTH`.

    >>> short("auto-exposure"), short("runs/a-sweep-of-lambda/lambda-0.05")
    ('auto-exposure', 'runs/a-sweep…a/lambda-0.05')
    """
    half = NAME_LENGTH // 2
    return name if len(name) <= NAME_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _spread_labels(axes: Any) -> None:
    """Moves the names of a panel to where they cover neither each other nor points nor the front."""
    to_pixels, per_point = axes.transData.transform, axes.figure.dpi / 72
    names = list(axes.texts)
    at = [(float(x), float(y)) for x, y in (to_pixels(name.xy) for name in names)]
    extents = [name.get_window_extent() for name in names]
    left, bottom, right, top = map(float, axes.bbox.extents)
    (front,) = [line for line in axes.lines if line.get_label() == "front"]
    lines = _step_boxes(to_pixels(front.get_xydata()).tolist(), LINE_REACH * per_point)
    spots = place_labels(
        at,
        [(float(extent.width), float(extent.height)) for extent in extents],
        (left, bottom, right, top),
        [_around(x, y, MARKER_RADIUS * per_point) for x, y in at] + lines,
        [distance * per_point for distance in LABEL_DISTANCES],
    )
    for name, (dx, dy) in zip(names, spots, strict=True):
        name.xyann = (dx / per_point, dy / per_point)
        name.set_ha(("center", "left", "right")[int(np.sign(dx))])
        name.set_va(("center", "bottom", "top")[int(np.sign(dy))])
        if max(abs(dx), abs(dy)) < LABEL_DISTANCES[1] * per_point:
            name.arrow_patch.set_visible(False)


def _around(x: float, y: float, radius: float) -> Box:
    """The box around a point."""
    return x - radius, y - radius, x + radius, y + radius


def _step_boxes(corners: Sequence[Sequence[float]], reach: float) -> list[Box]:
    """Boxes around the pieces of a line that goes right first and then up from each corner to the next."""
    boxes: list[Box] = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        boxes += [(x0, y0 - reach, x1, y0 + reach), (x1 - reach, y0, x1 + reach, y1)]
    return boxes


def place_labels(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    frame: Box,
    taken: Sequence[Box],
    distances: Sequence[float],
) -> list[tuple[float, float]]:
    """The offset (right, up) of each label from its anchor; all lengths in one unit.

    A label lies wholly on the side of its anchor that the offset points to, centred where the offset is 0. Each takes
    the spot where it covers least, rather near than far; then each may move again, now that all others stand.

    Args:
        anchors: the labelled points.
        sizes: width and height of each label.
        frame: labels should not leave it.
        taken: what labels should not cover.
        distances: from an anchor to its label, near ones first.
    """
    spots = [(right * away, up * away) for away in distances for right, up in LABEL_SPOTS]
    farness = [FAR_COST * rank for rank in range(len(distances)) for _ in LABEL_SPOTS]
    chosen: dict[int, tuple[float, float]] = {}
    for _ in range(LABEL_SWEEPS):
        for i, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
            others = [label_box(anchors[j], sizes[j], spot) for j, spot in chosen.items() if j != i]
            boxes = [label_box(anchor, size, spot) for spot in spots]
            harm = [
                _covered(box, frame, [*taken, *others]) + far * size[0] * size[1]
                for box, far in zip(boxes, farness, strict=True)
            ]
            chosen[i] = spots[harm.index(min(harm))]
    return [chosen[i] for i in range(len(anchors))]


def label_box(anchor: tuple[float, float], size: tuple[float, float], offset: tuple[float, float]) -> Box:
    """The box of a label beside its anchor, see `place_labels`.

    >>> label_box((10, 10), (6, 2), (3, 0)), label_box((10, 10), (6, 2), (-3, 3))
    ((13.0, 9.0, 19.0, 11.0), (1.0, 13.0, 7.0, 15.0))
    """
    left, bottom = (
        start + off - (1 - float(np.sign(off))) / 2 * length
        for start, length, off in zip(anchor, size, offset, strict=True)
    )
    return left, bottom, left + size[0], bottom + size[1]


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _covered(box: Box, frame: Box, others: Sequence[Box]) -> float:
    """The area of other boxes that a box covers, and its own area outside the frame."""
    return overlap(box, box) - overlap(box, frame) + sum(overlap(box, other) for other in others)


def svg(figure: Any, salt: str) -> Any:
    """The figure as inline SVG whose text and lines take the page's font and colours.

    Args:
        figure: of matplotlib.
        salt: makes its ids differ from those of the page's other figures.
    """
    matplotlib = import_extra("matplotlib", "report")
    buffer = io.StringIO()
    for text in figure.findobj(import_extra("matplotlib.text", "report").Text):
        # Names may hold a dollar sign, which is not mathematics here.
        text.set_parse_math(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
    # Versions of matplotlib differ in how they write a font.
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font)", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)
    # Ids must be unique on the page; only those that the figure itself refers to are needed.
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if f"#{found[1]}" in text else "", text)
    text = text.replace(TEXT_COLOUR, "currentColor").replace(LINE_COLOUR, "var(--line)")
    return import_extra("markupsafe", "report").Markup(text)

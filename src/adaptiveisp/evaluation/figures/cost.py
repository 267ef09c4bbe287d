"""The figure of AP50 against cost: a labelled point for each policy, and the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from adaptiveisp.evaluation.figures.common import (
    LINE_COLOUR,
    TEXT_COLOUR,
    empty_figure,
    line_style,
    policy_colour,
    strip,
)

LABEL_SPOTS = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Directions from a point to its label, the best first: -1, 0 or 1 to the right and up."""
LABEL_DISTANCES = (7.0, 22.0)
"""Distances from a point to its label in points (1/72 inch); at the second one a line joins them."""
LABEL_SWEEPS = 4
"""Number of passes over the labels; in each, every label moves to its best position beside the others."""
FAR_COST = 0.1
"""Penalty of the second distance, as a share of the label's area that is covered."""
MARKER_RADIUS, LINE_REACH = 5.0, 1.5
"""Margins around a marker and around a line that labels keep free, in points (1/72 inch)."""

NAME_LENGTH = 26
"""Most characters of a label; the tables have the whole name."""

SQUEEZED = 1 / 3
"""Scores that an outlier squeezes into less than this share of the height are hard to tell apart."""

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True)
class CostPoint:
    """Cost and score of one policy.

    Attributes:
        policy: name of the policy.
        place: its position in the report, which determines its colour and marker.
        ap50: in 0..1.
        cost_ms: mean cost of an image by the cost table, in milliseconds.
        modules: mean number of modules of an image, None if not known.
        sd: standard deviation of AP50 over seeds in 0..1, None for a single run.
    """

    policy: str
    place: int
    ap50: float
    cost_ms: float
    modules: float | None = None
    sd: float | None = None


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Indices of the points that no other point dominates, cheapest first, with all of several equal points.

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
    """The lowest score that an axis should show: the lowest of all, unless outliers would squeeze the others.

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

    A score below `scale_floor` is drawn hollow at the foot of the plot, with its value beside the name. A group of
    seeds is drawn at its mean, with a vertical line of one standard deviation up and down.

    Args:
        points: at least one point.
    """
    panels = {"cost per image, ms (by the cost table)": [point.cost_ms for point in points]}
    modules = [point.modules for point in points if point.modules is not None]
    if len(modules) == len(points):
        panels["modules per image"] = modules
    figure = empty_figure(9, 4.2)
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=(3, 2)[: len(panels)])[0]
    for axes, (name, costs) in zip(every, panels.items(), strict=True):
        strip(axes)
        axes.locator_params(nbins=7, steps=(1, 2, 5, 10))
        axes.grid(color=LINE_COLOUR, linewidth=0.8)
        axes.set_xlabel(name)
        _draw_tradeoff(axes, points, costs)
    every[0].set_ylabel("AP50, points")
    # Labels can be placed only when the layout is final.
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
    # The second term keeps tiny differences from filling the whole height.
    room = max(0.1 * (max(scores) - floor), 0.005 * max(scores)) or 0.5
    foot = floor - 1.6 * room
    bottom = foot - room / 2 if floor > min(scores) else floor - room
    spreads = [100 * (point.sd or 0.0) for point in points]
    ends = [score - sd - room / 2 for score, sd in zip(scores, spreads, strict=True) if score >= floor]
    highest = max(score + sd for score, sd in zip(scores, spreads, strict=True))
    axes.set_ylim(max(0.0, min(bottom, *ends)), highest + room)
    reach = max(costs) or 1.0
    axes.set_xlim(-0.05 * reach, 1.12 * reach)
    for point, cost, score, sd in zip(points, costs, scores, spreads, strict=True):
        shown = score >= floor
        xy = (cost, score if shown else foot)
        filling = "full" if shown else "none"
        if sd and shown:
            axes.vlines(cost, score - sd, score + sd, color=policy_colour(point.place), linewidth=1.5, zorder=2)
        axes.plot(
            *xy, markersize=8, linestyle="", fillstyle=filling, clip_on=False, zorder=3, **line_style(point.place)
        )
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
    """Moves the labels of a panel so that they cover neither each other nor markers nor the front."""
    to_pixels, per_point = axes.transData.transform, axes.figure.dpi / 72
    names = list(axes.texts)
    at = [(float(x), float(y)) for x, y in (to_pixels(name.xy) for name in names)]
    extents = [name.get_window_extent() for name in names]
    left, bottom, right, top = map(float, axes.bbox.extents)
    (front,) = [line for line in axes.lines if line.get_label() == "front"]
    reach = LINE_REACH * per_point
    lines = _step_boxes(to_pixels(front.get_xydata()).tolist(), reach)
    for spread in axes.collections:
        for (x, low), (_, high) in (to_pixels(segment).tolist() for segment in spread.get_segments()):
            lines.append((x - reach, low, x + reach, high))
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
    """Boxes around the segments of a line that goes first right and then up from each corner to the next."""
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

    A label lies wholly on the side of its anchor that the offset points to, centred where the offset is 0. Each label
    takes the position where it covers least, with a penalty for the larger distance; this is repeated until each has
    been placed beside all others.

    Args:
        anchors: the labelled points.
        sizes: width and height of each label.
        frame: box that labels should not leave.
        taken: boxes that labels should not cover.
        distances: distances from an anchor to its label, the smallest first.
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

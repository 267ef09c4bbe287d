"""AP50 against cost: what the figure holds, read from its axes, and the names that must not cover each other."""

import random
from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import pytest
from matplotlib.text import Text

from adaptiveisp.evaluation.figures.common import POLICY_COLOURS
from adaptiveisp.evaluation.figures.cost import (
    NAME_LENGTH,
    Box,
    CostPoint,
    cost_figure,
    label_box,
    overlap,
    pareto_front,
    place_labels,
    scale_floor,
    short,
)

SWEEP = [
    CostPoint("auto-exposure", 0, 0.178, 5.4, 1.0),
    CostPoint("learned", 1, 0.195, 27.7, 5.0),
    CostPoint("lambda-0.01", 2, 0.196, 22.0, 4.2),
    CostPoint("lambda-0.03", 3, 0.192, 15.0, 3.1),
    CostPoint("lambda-0.1", 4, 0.186, 9.8, 2.2),
    CostPoint("lambda-0.3", 5, 0.181, 7.1, 1.6),
    CostPoint("none", 7, 0.048, 0.0, 0.0),
]
"""A sweep with all its scores but one in a small range; place 6 is of a policy without a cost."""


def front_of(axes: Any) -> Any:
    (line,) = [line for line in axes.lines if line.get_label() == "front"]
    return line


def markers_of(axes: Any) -> list[Any]:
    return [line for line in axes.lines if line is not front_of(axes)]


def test_the_front_is_what_no_other_point_dominates() -> None:
    assert pareto_front([], []) == []
    assert pareto_front([3.0], [0.1]) == [0]
    assert pareto_front([2, 1, 3], [5, 1, 9]) == [1, 0, 2], "cheapest first"
    assert pareto_front([1, 2, 3], [5, 4, 3]) == [0], "the others are dearer and worse"
    assert pareto_front([1, 2], [5, 5]) == [0], "as good for less"
    assert pareto_front([2, 2], [4, 5]) == [1], "better for the same"
    assert pareto_front([2, 1, 2], [5, 1, 5]) == [1, 0, 2], "equal points are both on it"


def test_the_front_agrees_with_its_definition_on_points_with_many_ties() -> None:
    draw = random.Random(0)
    for _ in range(200):
        points = [(draw.randrange(5), draw.randrange(5)) for _ in range(draw.randrange(1, 9))]
        expected = {
            i
            for i, (cost, score) in enumerate(points)
            if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
        }
        front = pareto_front([cost for cost, _ in points], [score for _, score in points])
        assert set(front) == expected and len(front) == len(expected)
        assert [points[i] for i in front] == sorted(points[i] for i in front)


@pytest.mark.parametrize(
    ("scores", "floor"),
    [
        ([0.3], 0.3),
        ([0.3, 0.3, 0.3], 0.3),
        ([0.0, 10.0, 13.0], 10.0),
        ([13.0, 0.0, 10.0], 10.0),
        ([0.0, 9.0, 15.0], 0.0),  # 6 of 15 is height enough
        ([0.0, 0.1, 10.0], 0.0),  # one score alone is not most of them
        ([0.0, 0.1, 10.0, 10.1], 0.0),  # nor are two of four
        ([0.0, 0.1, 10.0, 10.1, 10.2], 10.0),
    ],
)
def test_the_scale_starts_above_outliers_that_squeeze_the_others(scores: list[float], floor: float) -> None:
    assert scale_floor(scores) == floor


def test_the_cost_figure_shows_each_policy_at_its_cost_and_score() -> None:
    left, right = cost_figure(SWEEP).axes
    assert left.get_ylabel() == "AP50, points"
    assert "ms" in left.get_xlabel() and "cost" in left.get_xlabel() and right.get_xlabel() == "modules per image"
    for axes, costs in ((left, [p.cost_ms for p in SWEEP]), (right, [p.modules for p in SWEEP])):
        for point, cost, marker, name in zip(SWEEP[:-1], costs, markers_of(axes), axes.texts, strict=False):
            assert marker.get_xydata().tolist() == [[cost, pytest.approx(100 * point.ap50)]]
            assert marker.get_color() == POLICY_COLOURS[point.place % 7] and marker.get_fillstyle() == "full"
            assert name.get_text() == point.policy and name.xy == tuple(marker.get_xydata()[0])
        assert len(markers_of(axes)) == len(axes.texts) == len(SWEEP)
        low, high = axes.get_xlim()
        assert low < 0 and all(cost is not None and cost < high for cost in costs)
    assert markers_of(left)[-1].get_color() == POLICY_COLOURS[0], "place 7 repeats the first colour"


def test_the_front_is_drawn_as_steps_from_the_cheapest() -> None:
    left, right = cost_figure(SWEEP).axes
    order = ["none", "auto-exposure", "lambda-0.3", "lambda-0.1", "lambda-0.03", "lambda-0.01"]
    on_it = [next(p for p in SWEEP if p.policy == name) for name in order]
    for axes, costs in ((left, [p.cost_ms for p in on_it]), (right, [p.modules for p in on_it])):
        # Right at the score that a budget buys, then up: a step before the next point would promise too much.
        assert front_of(axes).get_drawstyle() == "steps-post"
        assert front_of(axes).get_xdata().tolist() == costs
        assert front_of(axes).get_ydata().tolist() == pytest.approx([100 * p.ap50 for p in on_it])


def test_a_score_far_below_stands_hollow_at_the_foot_with_its_value() -> None:
    axes = cost_figure(SWEEP).axes[0]
    bottom, top = axes.get_ylim()
    *shown, below = markers_of(axes)
    assert below.get_fillstyle() == "none" and below.get_xdata().tolist() == [0.0]
    assert bottom < below.get_ydata()[0] < min(marker.get_ydata()[0] for marker in shown) < top < 25
    assert axes.texts[-1].get_text() == "none\n4.8 \N{DOWNWARDS ARROW}"
    tiny = cost_figure([replace(SWEEP[0], ap50=value, policy="p") for value in (0.0, 1e-6, 1e-6)]).axes[0]
    assert 0 < tiny.get_ylim()[0] < markers_of(tiny)[0].get_ydata()[0] < 1e-4
    usual = cost_figure([SWEEP[0], SWEEP[-1]]).axes[0]
    assert [marker.get_fillstyle() for marker in markers_of(usual)] == ["full", "full"]
    assert markers_of(usual)[-1].get_ydata().tolist() == [pytest.approx(4.8)] and usual.get_ylim()[0] < 4.8


def test_the_modules_are_left_out_unless_known_for_all() -> None:
    without = CostPoint("other", 1, 0.2, 3.0)
    (axes,) = cost_figure([SWEEP[0], without]).axes
    assert "ms" in axes.get_xlabel() and len(axes.texts) == 2


def test_seeds_stand_at_their_mean_with_a_line_of_one_deviation() -> None:
    group = CostPoint("seeds", 1, 0.2, 10.0, 3.0, sd=0.03)
    for axes in cost_figure([SWEEP[0], group]).axes:
        (line,) = axes.collections
        (segment,) = line.get_segments()
        x = group.cost_ms if axes.get_xlabel().startswith("cost") else group.modules
        assert segment.tolist() == [[x, pytest.approx(17.0)], [x, pytest.approx(23.0)]]
        low, high = axes.get_ylim()
        assert low < 17 and high > 23
        (name,) = [text for text in axes.texts if text.get_text() == "seeds"]
        axes.figure.draw_without_rendering()
        box: Box = tuple(map(float, Text.get_window_extent(name).extents))
        (x0, y0), (x1, y1) = axes.transData.transform(segment).tolist()
        assert overlap(box, (x0 - 0.5, y0, x1 + 0.5, y1)) == 0, "the name does not stand on it"
    assert not cost_figure(SWEEP).axes[0].collections


def test_equal_policies_and_odd_names_are_drawn() -> None:
    names = ["$x_1^$", "b", "a run with a name far too long to stand beside its point"]
    axes = cost_figure([CostPoint(name, i, 0.0, 0.0, 0.0) for i, name in enumerate(names)]).axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:2] == names[:2] and len(texts[2]) == NAME_LENGTH
    low, high = axes.get_ylim()
    assert low == 0.0 < high
    assert_names_are_apart(axes)


def assert_names_are_apart(axes: Any) -> None:
    """No name covers another one, a point or the edge of the picture."""
    axes.figure.draw_without_rendering()
    names: list[Box] = [tuple(map(float, Text.get_window_extent(text).extents)) for text in axes.texts]
    whole: Box = tuple(map(float, axes.figure.bbox.extents))
    for a, b in combinations(names, 2):
        assert overlap(a, b) == 0
    for text, box in zip(axes.texts, names, strict=True):
        assert overlap(box, whole) == pytest.approx(overlap(box, box))
        for x, y in (axes.transData.transform(marker.get_xydata()[0]).tolist() for marker in markers_of(axes)):
            assert overlap(box, (x - 3, y - 3, x + 3, y + 3)) == 0, text.get_text()


def test_names_cover_neither_each_other_nor_points() -> None:
    close = [CostPoint(f"close-{i}", i, 0.2 + 0.001 * (i % 2), 10 + 0.1 * i, 2 + 0.1 * i) for i in range(4)]
    for points in (SWEEP, SWEEP[:-1], [*SWEEP, *close]):
        for axes in cost_figure(points).axes:
            assert_names_are_apart(axes)


def test_names_do_not_stand_on_the_front() -> None:
    for axes in cost_figure(SWEEP).axes:
        axes.figure.draw_without_rendering()
        corners = axes.transData.transform(front_of(axes).get_xydata()).tolist()
        for text, ((x0, y0), (x1, y1)) in product(axes.texts, pairwise(corners)):
            box: Box = tuple(map(float, Text.get_window_extent(text).extents))
            assert overlap(box, (x0, y0 - 0.5, x1, y0 + 0.5)) == overlap(box, (x1 - 0.5, y0, x1 + 0.5, y1)) == 0


def test_a_name_stays_near_its_point_or_gets_a_leader() -> None:
    crowd = [CostPoint(f"equal-{i}", i, 0.2, 10.0) for i in range(10)]
    for points, far in ((SWEEP, 0), (crowd, 1)):
        led = 0
        for axes in cost_figure(points).axes:
            for text in axes.texts:
                away = max(map(abs, text.xyann))
                assert text.arrow_patch.get_visible() == (away > 10) and away < 30
                led += text.arrow_patch.get_visible()
        assert (led > 0) == bool(far)


def test_labels_take_the_free_side() -> None:
    frame = (0.0, 0.0, 100.0, 100.0)
    anchor, size = (50.0, 50.0), (20.0, 10.0)
    walls = {
        "above": (0.0, 55.0, 100.0, 100.0),
        "below": (0.0, 0.0, 100.0, 45.0),
        "left": (0.0, 0.0, 45.0, 100.0),
        "right": (55.0, 0.0, 100.0, 100.0),
    }
    free = {"above": (0.0, 4.0), "below": (0.0, -4.0), "left": (-4.0, 0.0), "right": (4.0, 0.0)}
    for side, offset in free.items():
        taken = [wall for name, wall in walls.items() if name != side]
        assert place_labels([anchor], [size], frame, taken, [4.0, 9.0]) == [offset]
    # In the upper right corner of the frame only the lower left is free.
    assert place_labels([(98.0, 98.0)], [size], frame, [], [4.0]) == [(-4.0, -4.0)]
    assert place_labels([], [], frame, [], [4.0]) == []


def test_a_label_moves_for_one_that_has_no_choice() -> None:
    # The first takes the room above its point before the second, penned in, can only stand there.
    frame = (0.0, 0.0, 100.0, 100.0)
    anchors, size = [(50.0, 40.0), (50.0, 60.0)], (20.0, 10.0)
    pen = [(0.0, 56.5, 100.0, 100.0), (0.0, 46.0, 40.0, 56.5), (60.0, 46.0, 100.0, 56.5)]
    assert place_labels(anchors[:1], [size], frame, pen, [4.0]) == [(0.0, 4.0)]
    assert place_labels(anchors, [size, size], frame, pen, [4.0]) == [(4.0, 0.0), (0.0, -4.0)]


def test_a_label_rather_touches_something_than_to_go_far() -> None:
    frame, anchor, size = (0.0, 0.0, 100.0, 100.0), (50.0, 50.0), (20.0, 10.0)
    # Of the label's area of 200 the band takes 18 or 40 at the nearest spot.
    for reach, expected in ((4.9, (0.0, 4.0)), (6.0, (0.0, 14.0))):
        band = (0.0, 50 - reach, 100.0, 50 + reach)
        assert place_labels([anchor], [size], frame, [band], [4.0, 14.0]) == [expected]


def test_boxes_lie_on_the_side_of_the_offset() -> None:
    for right, up in product((-3.0, 0.0, 3.0), repeat=2):
        left, bottom, end, top = label_box((10.0, 20.0), (6.0, 2.0), (right, up))
        assert (end - left, top - bottom) == (6.0, 2.0)
        assert {3.0: left, 0.0: (left + end) / 2, -3.0: end}[right] == 10.0 + right
        assert {3.0: bottom, 0.0: (bottom + top) / 2, -3.0: top}[up] == 20.0 + up
    assert overlap((0, 0, 4, 4), (3, 1, 9, 3)) == 2 and overlap((0, 0, 4, 4), (5, 5, 9, 9)) == 0


def test_a_long_name_keeps_both_ends() -> None:
    assert short("x" * NAME_LENGTH) == "x" * NAME_LENGTH
    cut = short("begin" + "x" * 40 + "end")
    assert len(cut) == NAME_LENGTH and cut.startswith("begin") and cut.endswith("end") and "…" in cut

"""The report's figures: what they hold, read from matplotlib's axes."""

import numpy as np
import pytest

from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.evaluation.figures.common import (
    MOST_SHIFT,
    POLICY_COLOURS,
    class_figure,
    forest_figure,
    light_figure,
)


def test_the_light_figure_skips_bins_without_a_score() -> None:
    figure = light_figure(["dark", "dim", "bright"], {"a": [0.1, None, 0.3], "b": [], "c": [0.2, 0.2, 0.2]})
    (axes,) = figure.axes
    first, last = axes.lines
    left, right = -MOST_SHIFT, MOST_SHIFT  # the first and the last of three, so that equal scores stay visible
    assert first.get_xydata().tolist() == pytest.approx(np.array([[left, 10], [2 + left, 30]]))
    assert last.get_xydata().tolist() == pytest.approx(np.array([[right, 20], [1 + right, 20], [2 + right, 20]]))
    assert (first.get_color(), last.get_color()) == (POLICY_COLOURS[0], POLICY_COLOURS[2])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["dark", "dim", "bright"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "c"]
    assert axes.get_ylim()[0] == 0


def test_the_forest_figure_fills_what_leaves_out_zero() -> None:
    bars = [Interval(*ends, 0.95, 200) for ends in ((0.02, 0.01, 0.03), (0.01, -0.01, 0.03), (-2, -3, -1))]
    (axes,) = forest_figure("abc", bars).axes
    _, *drawn = axes.lines
    assert [interval.get_xdata() for interval in drawn[::2]] == [
        pytest.approx([100 * b.low, 100 * b.high]) for b in bars
    ]
    assert [point.get_xydata().tolist() for point in drawn[1::2]] == [[[100 * b.mean, i]] for i, b in enumerate(bars)]
    assert [point.get_fillstyle() for point in drawn[1::2]] == ["full", "none", "full"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first difference is on top"


def test_the_class_figure_has_a_bar_a_policy_and_class() -> None:
    figure = class_figure(["car", "sofa"], {"a": [0.1, 0.2], "b": [0.3, 0.0]})
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([10, 20, 30, 0])
    middles = [bar.get_y() + bar.get_height() / 2 for bar in axes.patches]
    assert middles == pytest.approx([-0.2, 0.8, 0.2, 1.2]), "in one group, one below the other"
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]

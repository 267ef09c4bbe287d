"""The figures of what policies chose, read from matplotlib's axes."""

import math

import numpy as np
import pytest

from adaptiveisp.evaluation.figures.common import POLICY_COLOURS
from adaptiveisp.evaluation.figures.pipelines import (
    MOST_DOTS,
    STRONGEST,
    binned_medians,
    parameter_figure,
    place_figure,
)
from adaptiveisp.evaluation.pipeline_stats import ParameterByLight
from adaptiveisp.evaluation.policy_scores import LIGHT_EDGES

SHARES = {
    "first": [{"exposure": 1.0}, {"gamma": 0.75, "denoise": 0.25}],
    "second": [{"denoise": 0.5, "exposure": 0.5}, {"gamma": 1.0}, {"gamma": 0.04}],
}


def ev(lights: list[float], values: list[float], reach: float = 20.0) -> ParameterByLight:
    return ParameterByLight("exposure", "ev", "stops", reach, tuple(lights), tuple(values))


def test_a_cell_stands_for_a_module_at_a_place() -> None:
    first, second = place_figure(SHARES).axes
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("first", "second")
    modules = [text.get_text() for text in first.get_yticklabels()]
    # Mean places: exposure 1 and 1, denoise (0.25 · 2 + 0.5 · 1) / 0.75, gamma above 2.
    assert modules == ["exposure", "denoise", "gamma"]
    for axes, policy in ((first, "first"), (second, "second")):
        cells = {}
        for patch in axes.patches:
            place, row = patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2
            cells[modules[round(row)], round(place)] = (patch.get_alpha() / STRONGEST) ** 2
        shares = {(m, place): share for place, by in enumerate(SHARES[policy], 1) for m, share in by.items()}
        assert cells == {key: pytest.approx(share) for key, share in shares.items()}
        assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first module is on top"
        assert axes.get_xlim() == (0.5, 3.5)


def test_panels_without_a_policy_stay_empty() -> None:
    figure = place_figure({str(i): [{"gamma": 1.0}] for i in range(4)})
    assert [axes.get_visible() for axes in figure.axes] == [True] * 4 + [False] * 2
    one = place_figure({"one": [{"gamma": 1.0}]})
    assert [axes.get_visible() for axes in one.axes] == [True, False], "a single panel is not blown up"
    one.draw_without_rendering()
    box = one.legends[0].get_window_extent()
    assert one.bbox.x0 <= box.x0 and box.x1 <= one.bbox.x1, "its legend is not cut off"


def test_medians_in_each_range_of_light() -> None:
    series = ev([0.001, 0.004, 0.009, 0.02, 0.02, 0.5, 0.5, 0.9, 1.0], [7, 9, 8, 1, 2, 0, 3, 4, 5])
    assert binned_medians(series, LIGHT_EDGES) == [
        (pytest.approx(math.log10(0.004)), 8.0),  # what lies below the first edge belongs to it
        (pytest.approx(math.log10(0.7)), 3.5),  # two images at 0.02 are too few
    ]


def test_a_panel_shows_the_images_and_the_medians() -> None:
    lights, values = [0.004, 0.005, 0.006, 0.5], [8.0, 7.0, 7.5, 1.0]
    (axes,) = parameter_figure([ev(lights, values)], LIGHT_EDGES).axes
    dots, line = axes.lines
    assert dots.get_xydata().tolist() == [
        [pytest.approx(math.log10(x)), y] for x, y in zip(lights, values, strict=True)
    ]
    assert (
        line.get_xydata().tolist() == [[pytest.approx(math.log10(0.005)), 7.5]]
        and line.get_color() == POLICY_COLOURS[1]
    )
    assert axes.get_title(loc="left") == "exposure: ev" and axes.get_ylabel() == "stops"
    assert axes.get_xlabel() == "brightness factor"
    labels = dict(zip(axes.get_xticks().tolist(), [t.get_text() for t in axes.get_xticklabels()], strict=True))
    assert labels == {-2.0: "0.01", -1.0: "0.1", 0.0: "1"}


def test_many_images_are_thinned_evenly_but_the_median_takes_all() -> None:
    lights = np.geomspace(0.003, 1, 1001)
    (axes,) = parameter_figure([ev(lights.tolist()[::-1], (1000 * lights[::-1]).tolist())], LIGHT_EDGES).axes
    dots, line = axes.lines
    shown = dots.get_xdata()
    assert len(shown) == MOST_DOTS and shown[0] == pytest.approx(math.log10(0.003)) and shown[-1] == pytest.approx(0)
    assert np.diff(shown).max() < 2 * np.diff(shown).min()
    inside = lights[lights >= 0.3]
    assert line.get_ydata()[-1] == pytest.approx(1000 * np.median(inside))


def test_what_hardly_moves_looks_so() -> None:
    still, moving = parameter_figure([ev([0.1, 0.2], [1.0, 1.001]), ev([0.1, 0.2], [-5.0, 5.0])], LIGHT_EDGES).axes
    low, high = still.get_ylim()
    assert high - low == pytest.approx(1.0), "a twentieth of 20 stops"
    low, high = moving.get_ylim()
    assert low < -5 and high > 5 and high - low < 14

"""The report's figures, drawn with matplotlib from numbers and names, and their conversion to SVG for the page.

Average precision is given in 0..1 and drawn in points. The position of a policy in the report determines its colour and
marker, so that they are the same in all figures and tables.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.utils.optional_imports import import_extra

POLICY_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
"""Colours of lines and bars, for white and for black pages. Source: Tol 2021, "Colour schemes", bright."""

POLICY_MARKERS = "osD^vPX"
# Placeholders that `svg` replaces by the colours of the page's light or dark scheme.
TEXT_COLOUR, LINE_COLOUR = "#010203", "#040506"


def policy_colour(position: int) -> str:
    """The colour of the policy at this position in the report; colours repeat after seven.

    >>> policy_colour(0), policy_colour(7)
    ('#4477aa', '#4477aa')
    """
    return POLICY_COLOURS[position % len(POLICY_COLOURS)]


def line_style(position: int) -> dict[str, str]:
    """Colour and marker of a policy as matplotlib's keywords; when the colours repeat, the markers shift by one.

    >>> line_style(0), line_style(7)
    ({'color': '#4477aa', 'marker': 'o'}, {'color': '#4477aa', 'marker': 's'})
    """
    marker = POLICY_MARKERS[(position + position // len(POLICY_COLOURS)) % len(POLICY_MARKERS)]
    return {"color": policy_colour(position), "marker": marker}


def new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A matplotlib figure, in inches, with one pair of axes without a frame; pyplot's global state is not used."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    strip(axes)
    return figure, axes


def empty_figure(width: float, height: float) -> Any:
    """A matplotlib figure, in inches, without axes."""
    return import_extra("matplotlib.figure", "report").Figure(figsize=(width, height), layout="constrained")


def strip(axes: Any) -> None:
    """Removes the frame and the ticks of axes, and sets the page's colours."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE_COLOUR)
    axes.tick_params(length=0, colors=TEXT_COLOUR, labelsize=10)
    axes.xaxis.label.set_color(TEXT_COLOUR)
    axes.yaxis.label.set_color(TEXT_COLOUR)
    axes.set_axisbelow(True)


def _add_legend(figure: Any, axes: Any, n: int) -> None:
    """Adds a legend above the plot, with four names in a row."""
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


MOST_SHIFT = 0.07
"""Distance of the points of two policies in a bin of light, in bins."""


def light_figure(bins: Sequence[str], curves: Mapping[str, Sequence[float | None]]) -> Any:
    """AP50 of each policy over the bins of light; its points are moved sideways, so that equal ones stay visible.

    Args:
        bins: names of the bins.
        curves: policy → AP50 in each bin, None where it is not defined; an empty list without known light.
    """
    figure, axes = new_figure(9, 3.6)
    for position, (policy, values) in enumerate(curves.items()):
        shift = (position - (len(curves) - 1) / 2) * min(MOST_SHIFT, 0.5 / len(curves))
        known = [(x + shift, 100 * value) for x, value in enumerate(values) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=policy, linewidth=2, markersize=6, **line_style(position))
    axes.set_xticks(range(len(bins)), bins)
    axes.set_xlim(-0.4, len(bins) - 0.6)
    highest = max((100 * value for values in curves.values() for value in values if value is not None), default=0)
    axes.set_ylim(0, 1.06 * highest or 1)  # room for the highest marker
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.8)
    axes.set_ylabel("AP50, points")
    axes.set_xlabel("brightness factor")
    _add_legend(figure, axes, len(curves))
    return figure


def forest_figure(names: Sequence[str], intervals: Sequence[Interval]) -> Any:
    """Draws differences of AP50 with their intervals; those whose interval spans zero are hollow.

    Args:
        names: names of the rows, the first on top.
        intervals: one for each name.
    """
    figure, axes = new_figure(9, 0.9 + 0.42 * len(intervals))
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1)
    for row, d in enumerate(intervals):
        clear = d.excludes_zero
        colour = POLICY_COLOURS[0] if clear else POLICY_COLOURS[-1]
        axes.plot([100 * d.low, 100 * d.high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(
            100 * d.mean, row, "o", markersize=8, markeredgewidth=2, color=colour, fillstyle="full" if clear else "none"
        )
    axes.set_yticks(range(len(intervals)), names)
    axes.set_ylim(len(intervals) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("difference of AP50, points")
    return figure


def class_figure(classes: Sequence[str], bars: Mapping[str, Sequence[float]]) -> Any:
    """AP50 of each policy as bars, with a group of bars for each class.

    Args:
        classes: names of the classes.
        bars: policy → AP50 of each class.
    """
    bar = 0.8 / len(bars)
    figure, axes = new_figure(9, 1.0 + len(classes) * (0.13 + 0.075 * len(bars)))
    rows = np.arange(len(classes))
    for position, (policy, values) in enumerate(bars.items()):
        offset = (position - (len(bars) - 1) / 2) * bar
        lengths = [100 * value for value in values]
        axes.barh(rows + offset, lengths, bar * 0.86, label=policy, color=policy_colour(position))
    axes.set_yticks(rows, classes)
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("AP50, points")
    _add_legend(figure, axes, len(bars))
    return figure


def svg(figure: Any, salt: str) -> Any:
    """The figure as inline SVG with the font and colours of the page.

    Args:
        figure: matplotlib figure.
        salt: text that makes the ids differ from those of other figures on the page.
    """
    matplotlib = import_extra("matplotlib", "report")
    buffer = io.StringIO()
    for text in figure.findobj(import_extra("matplotlib.text", "report").Text):
        # A dollar sign in a name does not start a formula.
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

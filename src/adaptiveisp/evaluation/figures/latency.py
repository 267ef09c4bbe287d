"""AP50 against the clock at several latencies: a policy and its baseline, each evaluated under the same latency.

Each point is a report of `adaptiveisp eval --latency-ms X` with both policies or groups of seeds. The time is the
measured median of policy and modules, with the policy's own work and the preprocessing, not a sum of a table.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.evaluation.figures.common import LINE_COLOUR, TEXT_COLOUR, empty_figure, line_style, strip
from adaptiveisp.policies.latency import KEPT_SHARE


@dataclass(frozen=True)
class LatencyPoint:
    """The scores of one policy or group of seeds under one latency.

    Attributes:
        policy: its name.
        latency_ms: the latency that it was evaluated under.
        clock_ms: median measured time of policy and modules, in milliseconds.
        ap50: in 0..1.
        within: share of the images that kept the latency by the clock, in 0..1.
        sd: standard deviation of AP50 over seeds in 0..1; None for a single run.
    """

    policy: str
    latency_ms: float
    clock_ms: float
    ap50: float
    within: float
    sd: float | None = None


@dataclass(frozen=True)
class LatencyRow:
    """One latency: the policy, its baseline, and AP50 of the policy minus that of the baseline."""

    ours: LatencyPoint
    baseline: LatencyPoint
    difference: Interval


def latency_row(report: Mapping[str, Any], ours: str, baseline: str, origin: str = "report") -> LatencyRow:
    """The row of a report of `eval --latency-ms`.

    Args:
        report: the content of report.json, with one detector.
        ours, baseline: names of two policies or groups in it.
        origin: its file, for errors.

    Raises:
        DataError: it was made without a latency, or lacks one of the policies, their times or their difference.
    """
    latency = (report.get("settings") or {}).get("latency_ms")
    if not isinstance(latency, int | float):
        raise DataError(f"{origin}: was made without a latency; give the report of eval --latency-ms X")
    points = [_point(report, name, float(latency), origin) for name in (ours, baseline)]
    for found in report.get("differences", ()):
        interval = Interval(*(found[key] for key in ("mean", "low", "high", "level", "resamples")))
        if (found["a"], found["b"]) == (ours, baseline):
            return LatencyRow(points[0], points[1], interval)
        if (found["a"], found["b"]) == (baseline, ours):
            return LatencyRow(points[0], points[1], interval.reversed())
    raise DataError(f"{origin}: has no difference of {ours} and {baseline}; evaluate them together")


def _point(report: Mapping[str, Any], name: str, latency_ms: float, origin: str) -> LatencyPoint:
    group = name in report.get("groups", {})
    by = report["groups" if group else "policies"].get(name)
    if not by:
        raise DataError(f"{origin}: has no policy or group {name}; it has {', '.join(report['policies'])}")
    score = next(iter(by.values()))
    ap50, within = score["ap50_mean" if group else "ap50"], score.get("within_latency")
    if ap50 is None or within is None or score.get("clock_ms") is None:
        raise DataError(f"{origin}: {name} has no AP50 or no measured time; evaluate it again with --latency-ms")
    return LatencyPoint(name, latency_ms, score["clock_ms"], ap50, within, score.get("ap50_sd") if group else None)


def latency_figure(rows: Iterable[LatencyRow]) -> Any:
    """AP50 over the clock for both sides, and the difference at each latency with its paired interval.

    A latency is a dotted vertical line; a point to its right did not keep it in the median. Vertical bars of the left
    panel are one standard deviation over seeds, those of the right one are the intervals. A hollow point kept its
    latency for less than 95 % of the images.

    Args:
        rows: at least one, in any order.
    """
    ordered = sorted(rows, key=lambda row: row.ours.latency_ms)
    figure = empty_figure(9, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for axes in (left, right):
        strip(axes)
        axes.grid(color=LINE_COLOUR, linewidth=0.4, alpha=0.4)
    for row in ordered:
        left.axvline(row.ours.latency_ms, color=LINE_COLOUR, linewidth=0.8, linestyle=":", zorder=1)
    for place, side in enumerate(("ours", "baseline")):
        _draw_side(left, place, [getattr(row, side) for row in ordered])
    left.set_xlim(left=0)
    left.set_xlabel("median of policy and modules by the clock, ms")
    left.set_ylabel("AP50, points")
    left.legend(frameon=False, fontsize=10, labelcolor=TEXT_COLOUR)
    _draw_differences(right, ordered)
    return figure


def _draw_side(axes: Any, place: int, points: Sequence[LatencyPoint]) -> None:
    style = line_style(place)
    times, scores = [point.clock_ms for point in points], [100 * point.ap50 for point in points]
    axes.plot(times, scores, color=style["color"], linewidth=1, alpha=0.6)
    axes.errorbar(times, scores, [100 * (point.sd or 0.0) for point in points], fmt="none", ecolor=style["color"])
    for number, (point, ms, score) in enumerate(zip(points, times, scores, strict=True)):
        filling = "full" if point.within >= KEPT_SHARE else "none"
        label = point.policy if number == 0 else None
        axes.plot(ms, score, linestyle="", markersize=8, fillstyle=filling, label=label, **style)


def _draw_differences(axes: Any, rows: Sequence[LatencyRow]) -> None:
    places = range(len(rows))
    intervals = [row.difference for row in rows]
    means = [100 * one.mean for one in intervals]
    errors = [
        [100 * (one.mean - one.low) for one in intervals],
        [100 * (one.high - one.mean) for one in intervals],
    ]
    axes.axhline(0.0, color=TEXT_COLOUR, linewidth=0.8)
    axes.errorbar(places, means, errors, color=line_style(0)["color"], fmt="o", capsize=3)
    axes.set_xticks(list(places), [f"{row.ours.latency_ms:g} ms" for row in rows])
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.set_xlabel("latency")
    axes.set_ylabel(f"AP50, {rows[0].ours.policy} \N{MINUS SIGN} {rows[0].baseline.policy}, points")


def latency_png(rows: Iterable[LatencyRow]) -> bytes:
    """The figure as a PNG on white."""
    content = io.BytesIO()
    latency_figure(rows).savefig(content, format="png", dpi=110, facecolor="white")
    return content.getvalue()


def latency_markdown(rows: Iterable[LatencyRow]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| latency, ms | policy | AP50 | clock, ms | within the latency | difference, 95 % interval |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: row.ours.latency_ms):
        one = row.difference
        text = f"{100 * one.mean:+.1f}, {100 * one.low:+.1f} to {100 * one.high:+.1f}"
        for point, change in ((row.ours, text), (row.baseline, "")):
            sd = "" if point.sd is None else f" ({100 * point.sd:.1f})"
            lines.append(
                f"| {point.latency_ms:g} | {point.policy} | {100 * point.ap50:.1f}{sd} | {point.clock_ms:.1f} | "
                f"{100 * point.within:.0f} % | {change} |"
            )
    return "\n".join(lines) + "\n"

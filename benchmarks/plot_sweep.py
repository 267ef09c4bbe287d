"""Plots AP50, number of modules and cost per image of policies trained with several runtime penalties λ.

    python benchmarks/plot_sweep.py REPORT/report.json --policies λ=NAME [λ=NAME …] --out sweep.png

It reads a report of `adaptiveisp eval` that has these policies, and also prints the values as a table. The others are
compared with the first policy by the paired differences of AP50 in the report.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

BLUE, GREY = "#0072b2", "#999999"


def difference(report: dict[str, Any], name: str, base: str) -> tuple[float, float, float]:
    """AP50 of one policy minus that of another, and the interval of the difference, in points."""
    for found in report["differences"]:
        values = [100 * found[key] for key in ("mean", "low", "high")]
        if (found["a"], found["b"]) == (name, base):
            return values[0], values[1], values[2]
        if (found["a"], found["b"]) == (base, name):
            return -values[0], -values[2], -values[1]
    raise SystemExit(f"the report has no difference of {name} and {base}; evaluate them together")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--policies", nargs="+", required=True, metavar="λ=NAME")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report = json.loads(options.report.read_text(encoding="utf-8"))
    rows = []
    pairs = [pair.split("=", 1) for pair in options.policies]
    base = pairs[0][1]
    for weight, name in pairs:
        (score,) = report["policies"][name].values()
        compared = (0.0, 0.0, 0.0) if name == base else difference(report, name, base)
        rows.append((weight, 100 * score["ap50"], score["modules_per_image"], score["cost_ms"], *compared))
    print("| λ | AP50 | difference, 95 % interval | modules | cost ms | cost saved |\n|---:|---:|---:|---:|---:|---:|")
    for weight, ap50, modules, cost, mean, low, high in rows:
        change = f"{mean:+.1f}, {low:+.1f} to {high:+.1f}" if (mean, low, high) != (0, 0, 0) else ""
        print(
            f"| {weight} | {ap50:.1f} | {change} | {modules:.1f} | {cost:.1f} | {100 * (1 - cost / rows[0][3]):.0f} % |"
        )

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    score_axes, modules_axes, cost_axes, trade = figure.subplots(1, 4)
    places = range(len(rows))
    errors = [[row[4] - row[5] for row in rows], [row[6] - row[4] for row in rows]]
    score_axes.errorbar(places, [row[1] for row in rows], errors, fmt="o-", color=BLUE, ecolor=GREY, capsize=3)
    score_axes.set_title("AP50, points (bars: difference to the first)", fontsize=9)
    for axes, column, title in ((modules_axes, 2, "modules an image"), (cost_axes, 3, "cost an image, ms")):
        axes.plot(places, [row[column] for row in rows], "o-", color=BLUE)
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9)
    for axes in (score_axes, modules_axes, cost_axes):
        axes.set_xticks(list(places), [row[0] for row in rows])
        axes.set_xlabel("λ, reward a millisecond", fontsize=8)
    trade.plot([row[3] for row in rows], [row[1] for row in rows], "o", color=BLUE)
    for row in rows:
        trade.annotate(f"λ {row[0]}", (row[3], row[1]), (4, 4), textcoords="offset points", fontsize=7)
    trade.set_xlim(left=0)
    trade.set_xlabel("cost an image, ms", fontsize=8)
    trade.set_title("AP50 against cost", fontsize=9)
    for axes in figure.axes:
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=95)


if __name__ == "__main__":
    main()

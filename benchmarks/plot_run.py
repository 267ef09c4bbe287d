"""Plots training runs side by side: reward, entropy, AP50 on dev, and shares of the chosen modules.

    python benchmarks/plot_run.py RUN [RUN …] --out curves.png

It reads metrics.jsonl and dev.jsonl from run folders of the actor-critic.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WINDOW = 100
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#f0e442", "#999999", "#332288", "#44aa99")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def moving_mean(values: list[float]) -> list[float]:
    """The mean over the last `WINDOW` values, over fewer at the beginning."""
    windows = (values[max(0, i + 1 - WINDOW) : i + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def draw_shares(axes: Axes, lines: list[dict[str, Any]], title: str) -> None:
    """Draws the shares of the chosen modules as stacked bars, one for every `WINDOW` iterations."""
    starts = range(0, len(lines), WINDOW)
    counts = [Counter[str]() for _ in starts]
    for number, line in enumerate(lines):
        counts[number // WINDOW].update(line["modules"])
    below = [0.0] * len(counts)
    names = [*COLOURS, "#bbbbbb"]
    for name, colour in zip(lines[0]["modules"], names, strict=False):
        shares = [count[name] / count.total() for count in counts]
        axes.bar([*starts], shares, WINDOW * 0.95, bottom=below, align="edge", color=colour, label=name)
        below = [a + b for a, b in zip(below, shares, strict=True)]
    axes.set_title(f"modules chosen: {title}", fontsize=10)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    n_rows = 1 + -(-len(options.runs) // 2)
    figure = Figure(figsize=(12, 3.1 * n_rows), layout="constrained")
    grid = figure.add_gridspec(n_rows, 6)
    reward, entropy, dev = (figure.add_subplot(grid[0, 2 * i : 2 * i + 2]) for i in range(3))
    reward.axhline(0, color="#999999", linewidth=0.8)
    for number, run in enumerate(options.runs):
        lines, scores, colour = read(run / "metrics.jsonl"), read(run / "dev.jsonl"), COLOURS[number]
        x = [line["iteration"] for line in lines]
        gains = [(line["iteration"], gain) for line in lines if (gain := line["reward"]["detection"]) is not None]
        reward.plot([i for i, _ in gains], moving_mean([g for _, g in gains]), color=colour, label=run.name)
        entropy.plot(x, moving_mean([line["entropy"] for line in lines]), color=colour)
        dev.plot([s["iteration"] for s in scores], [100 * s["ap50"] for s in scores], "o-", color=colour, markersize=4)
        row, column = 1 + number // 2, 3 * (number % 2)
        draw_shares(figure.add_subplot(grid[row, column : column + 3]), lines, run.name)
    reward.set_title(f"detection reward of a rollout, mean of {WINDOW}", fontsize=10)
    reward.legend(fontsize=8, frameon=False)
    entropy.set_title("entropy of the selection, nats", fontsize=10)
    dev.set_title("AP50 on dev, points", fontsize=10)
    for axes in figure.axes:
        axes.set_xlabel("iteration", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(options.out, dpi=95)


if __name__ == "__main__":
    main()

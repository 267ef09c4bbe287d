"""The picture dev.png of a run: AP50 on dev over the iterations, and the detector's loss below."""

import io
import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.errors import logger
from adaptiveisp.training.dev_selection import AUTO_EXPOSURE, START
from adaptiveisp.training.run_logger import DEV, METRICS
from adaptiveisp.utils.optional_imports import import_extra

BINS = 200
"""Most points of the loss curve; each is a mean, because the losses of single batches vary widely."""
SCORE_COLOUR, START_COLOUR, AUTO_COLOUR, LOSS_COLOUR = "#4477aa", "#ee6677", "#228833", "#666666"

Points = list[tuple[int, float]]
"""Iteration and value."""


class DevCurve:
    """Draws the curve of a run from its logs; the picture is a view of them, so that its errors do not end the run.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.works = find_spec("matplotlib") is not None
        self._losses: Points = []
        self._read = 0  # bytes of the metrics that were read

    def png(self, best_iteration: int | None, start_name: str) -> bytes | None:
        """The picture as a PNG; None without matplotlib, after an error, or before the first score.

        Args:
            best_iteration: iteration of the best policy, which is marked; None where it is not known.
            start_name: name of the start in the legend.
        """
        if not self.works:
            return None
        try:
            self._read_losses()
            scores = list(_lines((self.folder / DEV).read_bytes()))
            return _draw(scores, self._losses, best_iteration, start_name) if scores else None
        except Exception as error:  # any error of matplotlib or of an edited log
            logger.warning("no curve of the scores on dev: %s: %s", type(error).__name__, str(error).partition("\n")[0])
            self.works = False
            return None

    def _read_losses(self) -> None:
        """Reads the losses of the iterations since the last picture."""
        path = self.folder / METRICS
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(self._read)
            content = file.read()
        self._read += len(content)
        for line in _lines(content):
            value = _number(line.get("detector_loss"))
            if value is not None:
                self._losses.append((line["iteration"], value))


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a log that hold an iteration; damaged ones are left out."""
    for text in content.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and isinstance(line.get("iteration"), int):
            yield line


def _number(value: Any) -> float | None:
    """The value as a number, None if it is not a finite one."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _ap50(line: Any) -> float | None:
    """AP50 of a line or of a policy in it, in points."""
    value = _number(line.get("ap50")) if isinstance(line, dict) else None
    return None if value is None else 100 * value


def binned(points: Points, most: int = BINS) -> Points:
    """Means of neighbouring points, so that at most `most` are left; the iteration is the last one of each mean.

    >>> binned([(1, 4.0), (2, 2.0), (3, 1.0)], most=2)
    [(2, 3.0), (3, 1.0)]
    """
    step = max(1, math.ceil(len(points) / most))
    groups = (points[i : i + step] for i in range(0, len(points), step))
    return [(group[-1][0], float(np.mean([value for _, value in group]))) for group in groups]


def _draw(scores: list[dict[str, Any]], losses: Points, best_iteration: int | None, start_name: str) -> bytes:
    """Draws both curves.

    Args:
        scores: lines of dev.jsonl.
        losses: of the detector, by iteration.
        best_iteration, start_name: as for `DevCurve.png`.
    """
    figure = import_extra("matplotlib.figure", "report").Figure(figsize=(7.2, 5.0))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    # matplotlib's own layout takes as long as the drawing.
    figure.subplots_adjust(left=0.1, right=0.98, bottom=0.1, top=0.93, hspace=0.08)
    points = [(line["iteration"], value) for line in scores if (value := _ap50(line)) is not None]
    above.plot([x for x, _ in points], [y for _, y in points], "o-", color=SCORE_COLOUR, markersize=4, label="policy")
    chosen = [(x, y) for x, y in points if x == best_iteration]
    if chosen:
        above.plot(*chosen[-1], "o", color=SCORE_COLOUR, markersize=11, fillstyle="none", label="best")
    first = scores[0] if scores[0]["iteration"] == 0 else {}
    references = (
        (start_name or START, _ap50(first), START_COLOUR),
        (AUTO_EXPOSURE, _ap50(first.get(AUTO_EXPOSURE)), AUTO_COLOUR),
    )
    for name, value, colour in references:
        if value is not None:
            above.axhline(value, color=colour, linewidth=1.5, linestyle="--", label=f"{name} {value:.1f}", zorder=1)
    above.set_ylabel("AP50 on dev (points)")
    above.legend(fontsize="small", frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    means = binned(losses)
    below.plot([x for x, _ in means], [y for _, y in means], color=LOSS_COLOUR, linewidth=1)
    below.set(xlabel="iteration", ylabel="detector loss")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()

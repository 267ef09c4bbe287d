"""The curves and pictures of a training run that TensorBoard shows."""

import json
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from adaptiveisp.inference.drawing import FRAME, INK, MUTED, PALETTE, PAPER, Rgb8, load_font
from adaptiveisp.utils.optional_imports import import_extra

TENSORBOARD = "tensorboard"
"""Name of the folder of event files in the run folder."""
WINDOW = 100
"""Iterations over which the shares of the modules are averaged, because those of a single batch vary widely."""
FLUSH_SECONDS = 20
"""Longest time until a point reaches the event file."""
THREAD_SECONDS = 2
"""Longest wait for a thread of the writer that has failed; it needs milliseconds."""

Line = Mapping[str, Any]
"""One line of a log: numbers and mappings by name."""


class Board:
    """Writes the curves and pictures of a run for TensorBoard.

    Its methods raise any error of TensorBoard's writer, including earlier ones of the writer's thread.

    Args:
        folder: the run folder.
        iteration: iterations done so far; TensorBoard hides points of later iterations in older event files.
        log: metrics.jsonl of the run, whose last lines give the shares of the modules so far.
    """

    def __init__(self, folder: Path, iteration: int, log: Path):
        import_extra("tensorboard", "train")
        library = import_extra("torch.utils.tensorboard", "train")
        # A resumed run shows the same shares as an uninterrupted one, so that they start from the earlier lines.
        self._window = _last_module_counts(log)
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error
        others = _writer_threads()
        try:
            # Points from the next iteration on are hidden.
            self._writer = library.SummaryWriter(
                str(folder / TENSORBOARD), purge_step=iteration + 1, flush_secs=FLUSH_SECONDS
            )
        except BaseException:
            self._end(_writer_threads() - others)
            raise
        self._threads = _writer_threads() - others

    def metrics(self, line: Line) -> None:
        """Adds the numbers of an iteration, with the modules as shares of the last `WINDOW` iterations."""
        self._window.append(line.get("modules", {}))
        values = {name: value for name, value in without_iteration(line).items() if name != "modules"}
        self.numbers({**values, "modules": self._shares()}, line["iteration"])

    def dev(self, line: Line) -> None:
        """Adds scores, and the chart of the modules."""
        self.numbers({"dev": without_iteration(line)}, line["iteration"])
        if shares := self._shares():
            self.picture("modules", modules_chart(shares), line["iteration"])

    def numbers(self, values: Line, iteration: int) -> None:
        """Adds a point to the curve of each number in nested dicts, named by its path; other values are ignored."""
        for name, value in flat_numbers(values):
            self._writer.add_scalar(name, value, iteration)

    def picture(self, name: str, rgb: Rgb8, iteration: int) -> None:
        """Adds a picture to a series."""
        self._writer.add_image(name, rgb, iteration, dataformats="HWC")

    def close(self) -> None:
        """Writes the rest and ends the writer's thread; raises an error that the thread has not reported yet."""
        try:
            self._writer.close()
        finally:
            self._end(self._threads)

    def _shares(self) -> dict[str, float]:
        """Module → its share of the choices in the window."""
        counts: Counter[str] = Counter()
        for modules in self._window:
            counts.update(modules)
        total = counts.total()
        return {name: count / total for name, count in counts.items()} if total else {}

    def _on_thread_error(self, failure: threading.ExceptHookArgs) -> None:
        """Suppresses the traceback of the writer's thread, whose error is raised at the next call as well."""
        if not _is_writer(failure.thread):
            self._hook(failure)

    def _end(self, threads: set[threading.Thread]) -> None:
        """Waits for the threads, which may still report an error to the hook, and then restores the hook."""
        for thread in threads:
            thread.join(THREAD_SECONDS)
        if threading.excepthook == self._on_thread_error:  # otherwise another one has been installed since
            threading.excepthook = self._hook


def _writer_threads() -> set[threading.Thread]:
    """The running threads of TensorBoard's writers."""
    return {thread for thread in threading.enumerate() if _is_writer(thread)}


def _is_writer(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


def modules_chart(shares: Mapping[str, float], width: int = 440, font_size: int = 14) -> Rgb8:
    """Draws a bar for each module in the given order, so that bars keep their places from one picture to the next.

    Args:
        shares: module → share of the choices in [0, 1]; a full bar is 1.
        width, font_size: in pixels.
    """
    font, bold, step, gap = load_font(font_size), load_font(font_size, bold=True), round(font_size * 1.7), font_size
    names_end = gap + max(round(font.getlength(name)) for name in shares)
    left, right = names_end + gap // 2, width - gap - round(font.getlength("100 %"))
    picture = Image.new("RGB", (width, 2 * gap + step * (len(shares) + 1)), PAPER)
    canvas = ImageDraw.Draw(picture)
    canvas.text((gap, gap + font_size), f"modules chosen, last {WINDOW} iterations", font=bold, fill=INK, anchor="ls")
    for row, (name, share) in enumerate(shares.items(), 1):
        top, end = gap + step * row, left + round(share * (right - left))
        base = top + step // 2
        canvas.text((names_end, base), name, font=font, fill=INK, anchor="rm")
        canvas.rectangle((left, top + 2, right, top + step - 3), fill=FRAME)
        if end > left:
            canvas.rectangle((left, top + 2, end, top + step - 3), fill=PALETTE[-1])
        canvas.text((width - gap, base), f"{100 * share:.0f} %", font=font, fill=MUTED, anchor="rm")
    return np.asarray(picture)


def without_iteration(line: Line) -> dict[str, Any]:
    """A line without its iteration, which is the x axis of the curves."""
    return {name: value for name, value in line.items() if name != "iteration"}


def flat_numbers(values: Line, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested dicts with their paths.

    >>> list(flat_numbers({"loss": {"value": 0.5}, "ap": None}))
    [('loss/value', 0.5)]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _last_module_counts(path: Path) -> deque[Mapping[str, int]]:
    """The counts of modules in the last lines of the metrics; empty if there is no file yet."""
    if not path.exists():
        return deque(maxlen=WINDOW)
    with open(path, "rb") as file:
        last = deque(file, maxlen=WINDOW)
    return deque((json.loads(line).get("modules", {}) for line in last), maxlen=WINDOW)

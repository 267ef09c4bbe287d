"""The logs of a training run: three files of JSON lines, and curves for TensorBoard where that is installed.

RUN/
  metrics.jsonl   one line an iteration; repeats exactly for the same seed and threads
  timing.jsonl    seconds of the parts of each iteration; repeats never
  dev.jsonl       scores on the dev set
  tensorboard/    event files, to be seen with `tensorboard --logdir RUN`

The JSON lines are the record: they are written first, must succeed, and are cut to the checkpoint when a run goes on.
TensorBoard is a view of them: whatever goes wrong there ends the view and not the run.
"""

import errno
import json
import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from adaptiveisp.errors import AdaptiveISPError, OutputError, logger
from adaptiveisp.inference.drawing import FRAME, INK, MUTED, PALETTE, PAPER, Rgb8, load_font
from adaptiveisp.utils.optional_imports import import_extra

METRICS, TIMING, DEV = "metrics.jsonl", "timing.jsonl", "dev.jsonl"
LOGS = (METRICS, TIMING, DEV)
TENSORBOARD = "tensorboard"
EVENT_FILES = "events.out.tfevents.*"
"""Names that TensorBoard looks for and its writers give."""
WINDOW = 100
"""Iterations over which the shares of the modules are taken: one batch is too few to see a preference."""
FLUSH_SECONDS = 20
THREAD_SECONDS = 2
"""Longest wait for a thread of the writer that has failed; it needs milliseconds."""

Line = Mapping[str, Any]


def cut(folder: Path, lines: Mapping[str, int]) -> None:
    """Shortens the logs to their first lines; what a kill left unfinished goes too.

    Cutting in place needs no space, so that it works on a disk that is still full.

    Args:
        folder: the run folder.
        lines: how many to keep of each log, as `RunLogger.line_counts` gave; a log that is shorter or missing stays so.

    Raises:
        OutputError: a log cannot be read or written.
    """
    for name in LOGS:
        if name in lines:
            _truncate(Path(folder) / name, lines[name])


def remove(folder: Path) -> None:
    """Removes the logs of a run that starts again, with TensorBoard's event files; other files stay.

    Raises:
        OutputError: one cannot be removed.
    """
    folder = Path(folder)
    for path in [*(folder / name for name in LOGS), *sorted((folder / TENSORBOARD).glob(EVENT_FILES))]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _output_error(path, error) from error


def seconds_of_parts(folder: Path) -> dict[str, float]:
    """Part of an iteration → seconds over the whole run; a line that cannot be read counts nothing, and is told of."""
    seconds: dict[str, float] = {}
    damaged = 0
    with open(Path(folder) / TIMING, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                content = json.loads(line)
                values = {part: float(value) for part, value in content.items() if part != "iteration"}
            except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
                damaged += 1
                continue
            for part, value in values.items():
                seconds[part] = seconds.get(part, 0.0) + (value if math.isfinite(value) else 0.0)
    if damaged:
        logger.warning("%s: %d damaged lines, which the summary's seconds leave out", Path(folder) / TIMING, damaged)
    return seconds


class RunLogger:
    """The logs of one run, open for writing; a context manager.

    Args:
        folder: the run folder, which exists.
        iteration: iterations that are done: 0 for a new run, the checkpoint's for one that goes on, after `cut`.
            TensorBoard then hides points of later iterations, which an earlier process logged.

    Attributes:
        why_no_tensorboard: why nothing is written to TensorBoard (any more), with the remedy: it is not installed, or
            the error that ended it; "" while it works.

    Raises:
        OutputError: a log cannot be read or written.
    """

    def __init__(self, folder: Path, iteration: int = 0):
        self.folder = Path(folder)
        self.why_no_tensorboard = ""
        self._lines = {name: _truncate(self.folder / name) for name in LOGS}
        self._board = self._open_board(iteration)

    @property
    def tensorboard(self) -> Path | None:
        """The folder of the event files, None where nothing is written there (any more)."""
        return self.folder / TENSORBOARD if self._board is not None else None

    def metrics(self, line: Line) -> None:
        """Logs one iteration.

        Args:
            line: "iteration", "modules" (name → times chosen in the batch), and numbers, nested at will. TensorBoard
                names them by their path (`reward/detection`), and shows as `modules/exposure` the module's share of
                the last 100 iterations' choices, in [0, 1].

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        self._append(METRICS, line)
        self._show(lambda board: board.metrics(line))

    def timing(self, line: Line) -> None:
        """Logs how long the parts of an iteration took.

        Args:
            line: "iteration", and seconds by part; TensorBoard's `seconds/…`.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        self._append(TIMING, line)
        self._show(lambda board: board.numbers({"seconds": _values(line)}, line["iteration"]))

    def dev(self, line: Line) -> None:
        """Logs scores on the dev set; TensorBoard also gets a picture of which modules were chosen lately.

        Args:
            line: "iteration", and scores by name (None where there is none); TensorBoard's `dev/…`.

        Raises:
            OutputError: the disk is full, or the folder is gone.
        """
        self._append(DEV, line)
        self._show(lambda board: board.dev(line))

    def picture(self, name: str, rgb: UInt8[np.ndarray, "height width 3"], iteration: int) -> None:
        """Shows a picture in TensorBoard; without TensorBoard it goes nowhere.

        Args:
            name: what it shows; pictures of one name are a series that the reader can step through.
            rgb: 8-bit RGB.
            iteration: when it was made.
        """
        self._show(lambda board: board.picture(name, rgb, iteration))

    def line_counts(self) -> dict[str, int]:
        """Lines of each log, for the checkpoint; `cut` goes back to them."""
        return dict(self._lines)

    def close(self) -> None:
        """Writes what TensorBoard's writer still holds; closing twice does no harm."""
        board, self._board = self._board, None
        if board is not None:
            try:
                board.close()
            except Exception as error:  # see _show
                self.why_no_tensorboard = _reason(error)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, name: str, line: Line) -> None:
        """Adds a line of strict JSON. The file is opened each time: an open one would not notice that it is gone."""
        path = self.folder / name
        text = json.dumps(_finite(line), allow_nan=False) + "\n"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            with suppress(OutputError):
                _truncate(path)  # on a full disk the line's first half may be there
            raise _output_error(path, error) from error
        self._lines[name] += 1

    def _open_board(self, iteration: int) -> "_Board | None":
        try:
            return _Board(self.folder, iteration)
        except Exception as error:  # not installed, or see _show
            self.why_no_tensorboard = _reason(error)
            return None

    def _show(self, what: Callable[["_Board"], None]) -> None:
        """Gives something to TensorBoard; an error ends TensorBoard, and why is kept.

        Any kind of error does: the writer raises many, some late, from its thread, and the run needs none of them.
        """
        if self._board is None:
            return
        try:
            what(self._board)
        except Exception as error:
            logger.debug("TensorBoard ends", exc_info=error)
            self.close()
            self.why_no_tensorboard = _reason(error)


class _Board:
    """What TensorBoard shows of a run. Its methods raise whatever the writer raises, also what its thread met before.

    Args:
        folder: the run folder.
        iteration: iterations that are done; points of later ones in older event files are hidden.
    """

    def __init__(self, folder: Path, iteration: int):
        import_extra("tensorboard", "train")
        library = import_extra("torch.utils.tensorboard", "train")
        # As in an uninterrupted run: the shares are those of the lines before, too.
        self._window = _last_module_counts(folder / METRICS)
        self._hook = threading.excepthook
        threading.excepthook = self._on_thread_error
        others = _writer_threads()
        try:
            # The first iteration to come is the first to hide.
            self._writer = library.SummaryWriter(
                str(folder / TENSORBOARD), purge_step=iteration + 1, flush_secs=FLUSH_SECONDS
            )
        except BaseException:
            self._end(_writer_threads() - others)
            raise
        self._threads = _writer_threads() - others

    def metrics(self, line: Line) -> None:
        """Adds an iteration's numbers, the modules as shares of the window."""
        self._window.append(line.get("modules", {}))
        values = {name: value for name, value in _values(line).items() if name != "modules"}
        self.numbers({**values, "modules": self._shares()}, line["iteration"])

    def dev(self, line: Line) -> None:
        """Adds scores, and the chart of the modules."""
        self.numbers({"dev": _values(line)}, line["iteration"])
        if shares := self._shares():
            self.picture("modules", modules_chart(shares), line["iteration"])

    def numbers(self, values: Line, iteration: int) -> None:
        """Adds a point to the curve of each number in nested dicts, named by its path; all else is left out."""
        for name, value in _flat(values):
            self._writer.add_scalar(name, value, iteration)

    def picture(self, name: str, rgb: Rgb8, iteration: int) -> None:
        """Adds a picture to a series."""
        self._writer.add_image(name, rgb, iteration, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left and ends the writer's thread; an error that it has not told of yet is raised now."""
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
        """Keeps the writer's thread from printing a traceback: its error is raised at the next call as well."""
        if not _is_writer(failure.thread):
            self._hook(failure)

    def _end(self, threads: set[threading.Thread]) -> None:
        """Gives the hook back once the threads are past it: an error is known here before its thread has ended."""
        for thread in threads:
            thread.join(THREAD_SECONDS)
        if threading.excepthook == self._on_thread_error:  # else someone has put another in front of it
            threading.excepthook = self._hook


def _writer_threads() -> set[threading.Thread]:
    """Threads of TensorBoard's writers that are running."""
    return {thread for thread in threading.enumerate() if _is_writer(thread)}


def _is_writer(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


def modules_chart(shares: Mapping[str, float], width: int = 440, font_size: int = 14) -> Rgb8:
    """A bar for each module, in the given order, so that bars keep their places from one picture to the next.

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


def _values(line: Line) -> dict[str, Any]:
    """A line without its iteration, which is the x axis."""
    return {name: value for name, value in line.items() if name != "iteration"}


def _flat(values: Line, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested dicts with their paths.

    >>> list(_flat({"loss": {"value": 0.5}, "ap": None}))
    [('loss/value', 0.5)]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _finite(value: Any) -> Any:
    """`value` with null for NaN and infinity, which JSON does not have.

    An infinite gradient is worth a gap in a curve, not the run; and null equals null, which NaN does not, so that
    logs can be compared.
    """
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _last_module_counts(path: Path) -> deque[Mapping[str, int]]:
    """The counts of modules in the last lines of the metrics; none where there is no file yet."""
    if not path.exists():
        return deque(maxlen=WINDOW)
    with open(path, "rb") as file:
        last = deque(file, maxlen=WINDOW)
    return deque((json.loads(line).get("modules", {}) for line in last), maxlen=WINDOW)


def _truncate(path: Path, lines: int | None = None) -> int:
    """Cuts a file after so many whole lines, or after the last whole one, and returns how many are left."""
    kept = end = 0
    try:
        with open(path, "r+b") as file:
            for line in file:
                if kept == lines or not line.endswith(b"\n"):
                    file.truncate(end)
                    break
                kept, end = kept + 1, end + len(line)
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise _output_error(path, error) from error
    return kept


def _output_error(path: Path, error: OSError) -> OutputError:
    """What a user reads when a log cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free space" if full else "make its folder writable again"
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); "
        f"{remedy}, then go on with `adaptiveisp train --resume {path.parent}`"
    )


def _reason(error: Exception) -> str:
    """Why there is no TensorBoard, in one line."""
    if isinstance(error, AdaptiveISPError):
        return str(error)
    first = next(iter(str(error).splitlines()), "")
    return f"TensorBoard ended: {type(error).__name__}: {first}"

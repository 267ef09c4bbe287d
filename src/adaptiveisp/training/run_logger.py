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
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from adaptiveisp.errors import AdaptiveISPError, OutputError, logger
from adaptiveisp.training.curves import TENSORBOARD, Board, Line, without_iteration

METRICS, TIMING, DEV = "metrics.jsonl", "timing.jsonl", "dev.jsonl"
LOGS = (METRICS, TIMING, DEV)
EVENT_FILES = "events.out.tfevents.*"
"""Names that TensorBoard looks for and its writers give."""


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
        self._show(lambda board: board.numbers({"seconds": without_iteration(line)}, line["iteration"]))

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

    def _open_board(self, iteration: int) -> Board | None:
        try:
            return Board(self.folder, iteration, self.folder / METRICS)
        except Exception as error:  # not installed, or see _show
            self.why_no_tensorboard = _reason(error)
            return None

    def _show(self, what: Callable[[Board], None]) -> None:
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

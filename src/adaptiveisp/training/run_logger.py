"""The logs of a training run: three files of JSON lines, and curves for TensorBoard where that is installed.

RUN/
  metrics.jsonl   one line for each iteration, the same for the same seed and number of threads
  timing.jsonl    seconds of the parts of each iteration
  dev.jsonl       scores on the dev set
  tensorboard/    event files for `tensorboard --logdir RUN`

The JSON lines are written first, and an error there ends the run. When a run is resumed, they are cut to its
checkpoint. TensorBoard shows a copy of them, and an error there ends the copy but not the run.
"""

import errno
import json
import logging
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
"""Names of the event files that TensorBoard writes and reads."""


def cut(folder: Path, lines: Mapping[str, int]) -> None:
    """Shortens the logs to their first lines, which also removes a line that is not complete.

    The files are cut in place, which works on a full disk.

    Args:
        folder: the run folder.
        lines: number of lines to keep of each log, from `RunLogger.line_counts`; shorter logs do not change.

    Raises:
        OutputError: a log cannot be read or written.
    """
    for name in LOGS:
        if name in lines:
            _truncate(Path(folder) / name, lines[name])


def remove(folder: Path) -> None:
    """Removes the logs of an earlier run and TensorBoard's event files, but no other files.

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
    """Part of an iteration → its seconds over the whole run; damaged lines are left out with a warning."""
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
        logger.warning(
            "%s: %d damaged lines, which the seconds in the summary leave out", Path(folder) / TIMING, damaged
        )
    return seconds


class RunLogger:
    """The logs of one run, open for writing; a context manager.

    Args:
        folder: the run folder, which exists.
        iteration: number of iterations done: 0 for a new run, that of the checkpoint for a resumed run, after `cut`.
            TensorBoard then hides points of later iterations, which an earlier process logged.

    Attributes:
        why_no_tensorboard: why TensorBoard gets nothing, with the remedy: it is not installed, or it had an error;
            "" while it works.

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
        """The folder of the event files; None if none are written, or no longer."""
        return self.folder / TENSORBOARD if self._board is not None else None

    def metrics(self, line: Line) -> None:
        """Logs one iteration.

        Args:
            line: "iteration", "modules" (name → number of times chosen in the batch), and numbers in nested mappings.
                TensorBoard names them by their path (`reward/detection`), and shows as `modules/exposure` the share of
                the module in the choices of the last 100 iterations, in [0, 1].

        Raises:
            OutputError: the disk is full, or the folder was removed.
        """
        self._append(METRICS, line)
        self._show(lambda board: board.metrics(line))

    def timing(self, line: Line) -> None:
        """Logs the seconds of the parts of an iteration.

        Args:
            line: "iteration", and seconds by part, which TensorBoard shows as `seconds/…`.

        Raises:
            OutputError: the disk is full, or the folder was removed.
        """
        self._append(TIMING, line)
        self._show(lambda board: board.numbers({"seconds": without_iteration(line)}, line["iteration"]))

    def dev(self, line: Line) -> None:
        """Logs scores on the dev set; TensorBoard also gets a chart of the modules of the last iterations.

        Args:
            line: "iteration", and scores by name (None for a missing one), which TensorBoard shows as `dev/…`.

        Raises:
            OutputError: the disk is full, or the folder was removed.
        """
        self._append(DEV, line)
        self._show(lambda board: board.dev(line))

    def picture(self, name: str, rgb: UInt8[np.ndarray, "height width 3"], iteration: int) -> None:
        """Shows a picture in TensorBoard; without TensorBoard it does nothing.

        Args:
            name: name of the series of pictures to which it belongs.
            rgb: 8-bit RGB.
            iteration: its iteration.
        """
        self._show(lambda board: board.picture(name, rgb, iteration))

    def line_counts(self) -> dict[str, int]:
        """Number of lines of each log, which a checkpoint stores for `cut`."""
        return dict(self._lines)

    def close(self) -> None:
        """Writes the rest to TensorBoard; it may be called twice."""
        board, self._board = self._board, None
        if board is not None:
            try:
                board.close()
            except Exception as error:  # see _show
                self._tell(error)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, name: str, line: Line) -> None:
        """Adds a line of strict JSON. It opens the file each time, since an open file may have been removed."""
        path = self.folder / name
        text = json.dumps(_finite(line), allow_nan=False) + "\n"
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            with suppress(OutputError):
                _truncate(path)  # on a full disk the first half of the line may have been written
            raise _output_error(path, error) from error
        self._lines[name] += 1

    def _open_board(self, iteration: int) -> Board | None:
        try:
            return Board(self.folder, iteration, self.folder / METRICS)
        except Exception as error:  # not installed, or see _show
            self._tell(error)
            return None

    def _tell(self, error: Exception) -> None:
        """Stores and logs why TensorBoard gets nothing; that it is not installed is no reason for a warning."""
        self.why_no_tensorboard = _reason(error)
        level = logging.INFO if isinstance(error, AdaptiveISPError) else logging.WARNING
        logger.log(level, "no TensorBoard: %s", self.why_no_tensorboard)

    def _show(self, what: Callable[[Board], None]) -> None:
        """Writes to TensorBoard; any error ends TensorBoard and is stored, because the run does not need it.

        The writer raises many kinds of errors, some of them later, from its thread.
        """
        if self._board is None:
            return
        try:
            what(self._board)
        except Exception as error:
            logger.debug("TensorBoard ends", exc_info=error)
            with suppress(Exception):  # most likely the same error again
                board, self._board = self._board, None
                board.close()
            self._tell(error)


class SilentLogger(RunLogger):
    """The logs of a rank that writes none."""

    def __init__(self) -> None:
        self.why_no_tensorboard = "another rank writes it"
        self._lines = dict.fromkeys(LOGS, 0)
        self._board = None

    def _append(self, name: str, line: Line) -> None:
        """Writes nothing."""


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinity, which JSON does not have.

    A gradient that is not finite is then a gap in a curve. And unlike NaN, null equals null, so that logs can be
    compared.
    """
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _truncate(path: Path, lines: int | None = None) -> int:
    """Cuts a file after a number of lines, or after the last complete one, and returns the number of lines left."""
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
    """The error of a log that cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free space" if full else "make its folder writable again"
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); "
        f"{remedy}, then continue with `adaptiveisp train --resume {path.parent}`"
    )


def _reason(error: Exception) -> str:
    """The reason why TensorBoard ended, in one line."""
    if isinstance(error, AdaptiveISPError):
        return str(error)
    first = next(iter(str(error).splitlines()), "")
    return f"TensorBoard ended: {type(error).__name__}: {first}"

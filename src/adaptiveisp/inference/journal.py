"""The rows of a run while it goes on: `results.jsonl`, to which each frame appends a line, and the settings beside it.

A frame counts as done when its line, which is appended after its files, is complete. A kill at any moment therefore
leaves each frame done or not done, and `--resume` does those that are not. Lines are handed to the system one by one,
which keeps them after a kill of the process; they are forced to the disk about once a second, and pictures by the
system itself, so that a failure of power can cost the frames of the last seconds before it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from adaptiveisp.errors import OutputError, UsageError, first_few, shown
from adaptiveisp.inference.records import Row, is_row
from adaptiveisp.inference.result_files import PARQUET_FILE, ROWS_FILE, SETTINGS_FILE
from adaptiveisp.utils.files import atomic_path, read_json, write_json
from adaptiveisp.utils.output_folder import check_inside

SYNC_SECONDS = 1.0
"""Time after which rows are forced to the disk."""
AGAIN = "add --overwrite instead of --resume to begin again"


class Journal:
    """The rows of a run; a context manager that closes the file.

    Rows of frames that are skipped before the first result are kept back, since a run without any result changes
    nothing in its folder.

    Args:
        folder: the output folder, claimed.
        settings: what decides the results; stored beside the rows.
        resume: whether the rows of an earlier run are kept and appended to.

    Attributes:
        done: numbers of the frames that have their row.
        n_results: number of rows with a result.

    Raises:
        UsageError: the earlier run had other settings, or left nothing to go on from.
        OutputError: its rows cannot be read, or are damaged.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], resume: bool = False):
        self.folder, self.settings = folder, dict(settings)
        self.path = folder / ROWS_FILE
        self.done: set[int] = set()
        self.n_results = 0
        self._waiting: list[Row] = []
        self._file: IO[bytes] | None = None
        self._synced = time.monotonic()
        if resume and self._was_begun():
            self._open_again()

    @property
    def has_begun(self) -> bool:
        """Whether rows are in the file."""
        return self._file is not None

    def begin(self) -> None:
        """Stores the settings and opens a new file of rows, where an earlier one is replaced.

        Raises:
            OutputError: it cannot be written.
        """
        check_inside(self.folder, self.path)
        self.begin_settings()
        with atomic_path(self.path):  # replaces a link, through which no row must be written
            pass
        self._file = self._opened("ab")
        waiting, self._waiting = self._waiting, []
        for row in waiting:
            self._write(row)

    def begin_settings(self) -> None:
        """Stores the settings.

        Raises:
            OutputError: they cannot be written.
        """
        write_json(self.folder / SETTINGS_FILE, {"version": 1, "settings": self.settings})

    def add(self, row: Row) -> None:
        """Appends a row.

        Raises:
            OutputError: the disk is full.
        """
        self.done.add(row["number"])
        self.n_results += row["skipped"] is None
        if self._file is None:
            self._waiting.append(row)
        else:
            self._write(row)

    def rows(self) -> Iterator[Row]:
        """Yields all rows in order, from the file, so that no memory is needed for them."""
        if self._file is None and not self.path.exists() and (self.folder / PARQUET_FILE).exists():
            from adaptiveisp.inference.parquet import read_rows

            yield from read_rows(self.folder / PARQUET_FILE)
            return
        if self.has_begun or not self._waiting:
            yield from read_lines(self.path)
        yield from self._waiting

    def results(self) -> Iterator[Row]:
        """Yields the rows with a result."""
        return (row for row in self.rows() if row["skipped"] is None)

    def close(self) -> None:
        """Forces the rows to the disk and closes the file.

        Raises:
            OutputError: the disk is full.
        """
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
                self._file.close()
            except OSError as error:
                raise self._unwritable(error) from error
            self._file = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OutputError:
            if error is None:
                raise

    def _was_begun(self) -> bool:
        """Whether the folder holds a run that can be resumed; its settings must be these.

        Raises:
            UsageError: it holds a run of an earlier version, or with other settings.
        """
        place = self.folder / SETTINGS_FILE
        if not place.exists():
            if (self.folder / "summary.json").exists():
                raise UsageError(f"{self.folder}: an earlier version made it, which cannot be resumed; {AGAIN}")
            return False
        content = read_json(place, OutputError, AGAIN)
        former = content.get("settings") if isinstance(content, dict) else None
        if not isinstance(former, dict):
            raise OutputError(f"{place}: holds no settings of a run; {AGAIN}")
        own = json.loads(json.dumps(self.settings))
        if differing := [name for name in {**former, **own} if former.get(name) != own.get(name)]:
            listed = first_few((_change(name, former.get(name), own.get(name)) for name in differing), longest=200)
            raise UsageError(f"{self.folder}: was begun with other settings: {listed}; give the same, or {AGAIN}")
        return True

    def _open_again(self) -> None:
        """Reads which frames are done, cuts off a line that a kill left unfinished, and opens the file to go on."""
        if not self.path.exists():
            if (self.folder / PARQUET_FILE).exists():  # the run was finished
                for row in self.rows():
                    self._count(row)
            return
        check_inside(self.folder, self.path)
        try:
            with open(self.path, "r+b") as stream:
                end = 0
                for number, line in enumerate(stream, 1):
                    if not line.endswith(b"\n"):
                        break
                    self._count(_parsed(line, self.path, number))
                    end += len(line)
                stream.truncate(end)
        except OSError as error:
            raise self._unwritable(error) from error
        self._file = self._opened("ab")

    def _count(self, row: Row) -> None:
        if row["number"] in self.done:
            raise OutputError(f"{self.path}: has frame {row['number']} twice; {AGAIN}")
        self.done.add(row["number"])
        self.n_results += row["skipped"] is None

    def _opened(self, mode: str) -> IO[bytes]:
        try:
            return open(self.path, mode)
        except OSError as error:
            raise self._unwritable(error) from error

    def _write(self, row: Row) -> None:
        assert self._file is not None
        try:
            self._file.write(line_of(row))
            self._file.flush()
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error.strerror}); free space or choose another --out")


def line_of(row: Row) -> bytes:
    """A row as a line of JSON."""
    text = json.dumps(row, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace") + b"\n"


def read_lines(path: Path) -> Iterator[Row]:
    """Yields the rows of a file of JSON lines; an unfinished last line is left out.

    Raises:
        OutputError: it cannot be read, or a line is damaged.
    """
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.endswith(b"\n"):
                    yield _parsed(line, path, number)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _parsed(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not is_row(row):
        raise OutputError(f"{path}: line {number} is no row of a run; {AGAIN}")
    return row


def _change(name: str, former: Any, own: Any) -> str:
    return f"{name} {shown(former, 60)}, now {shown(own, 60)}"

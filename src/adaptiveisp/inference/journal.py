"""The rows of a run while it goes on: `results.jsonl`, to which each frame appends a line, and the settings beside it.

A frame counts as done when its line, which is appended after its files, is complete. A kill at any moment therefore
leaves each frame done or not done, and `--resume` does those that are not. Lines are handed to the system one by one,
which keeps them after a kill of the process; they are forced to the disk about once a second, and pictures by the
system itself, so that a failure of power can cost the frames of the last seconds before it.

A run that replaces an earlier one notes in the folder's marker that the earlier rows do not count any more, before it
computes its first frame; it is taken back when they are gone. `--resume` after a kill in between begins again.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from adaptiveisp.errors import OutputError, UsageError, first_few, logger, shown
from adaptiveisp.inference.records import COLUMNS, Row, is_row
from adaptiveisp.inference.result_files import PARQUET_FILE, ROWS_FILE, SETTINGS_FILE
from adaptiveisp.utils.files import atomic_path, read_json, write_json
from adaptiveisp.utils.output_folder import check_inside, is_outdated, set_outdated

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
        is_stale: tells the rows of it that are not kept, see `frames.Changes`.

    Attributes:
        is_new: whether no row of an earlier run is kept.
        done: numbers of the frames that have their row.
        renewed: numbers of the frames whose earlier row was not kept.
        n_results: number of rows with a result.

    Raises:
        UsageError: the earlier run had other settings, or left nothing to go on from.
        OutputError: its rows cannot be read, or are damaged.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        resume: bool = False,
        is_stale: Callable[[Row], bool] = lambda row: False,
    ):
        self.folder, self.settings = folder, dict(settings)
        self.path = folder / ROWS_FILE
        self.done: set[int] = set()
        self.renewed: set[int] = set()
        self.n_results = 0
        self._is_stale = is_stale
        self._last, self._in_order = -1, True
        self._waiting: list[Row] = []
        self._file: IO[bytes] | None = None
        self._synced = time.monotonic()
        self.is_new = not (resume and self._was_begun())
        self._owns_rows = not self.is_new  # otherwise those in the folder are an earlier run's, until `begin`
        if not self.is_new:
            self._open_again()
        elif (folder / SETTINGS_FILE).exists():
            set_outdated(folder, True)

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
        set_outdated(self.folder, False)
        self._owns_rows = True
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
        self._note(row)
        if self._file is None:
            self._waiting.append(row)
        else:
            self._write(row)

    def rows(self) -> Iterator[Row]:
        """Yields all rows in order, from the file, so that no memory is needed for them."""
        if self._owns_rows and (self.has_begun or self.path.exists()):
            yield from read_lines(self.path)
        elif self._owns_rows:
            yield from self._parquet_rows()
        yield from self._waiting

    def _parquet_rows(self) -> Iterator[Row]:
        """Yields the rows of a run that was finished as Parquet, if it was."""
        if (self.folder / PARQUET_FILE).exists():
            from adaptiveisp.inference.parquet import read_rows

            yield from read_rows(self.folder / PARQUET_FILE)

    def put_in_order(self) -> None:
        """Puts the rows into the order of their numbers, which frames that were computed again have changed.

        Raises:
            OutputError: it cannot be written.
        """
        if self._in_order or self._file is None:
            return
        self.close()
        places, place = list[tuple[int, int, int]](), 0
        try:
            with open(self.path, "rb") as stream:
                for number, line in enumerate(stream, 1):
                    places.append((_parsed(line, self.path, number)["number"], place, len(line)))
                    place += len(line)
                with atomic_path(self.path) as temporary, open(temporary, "wb") as target:
                    for _, place, size in sorted(places):
                        stream.seek(place)
                        target.write(stream.read(size))
        except OSError as error:
            raise self._unwritable(error) from error
        self._in_order = True
        self._file = self._opened("ab")

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
        if is_outdated(self.folder):
            logger.warning("%s: holds rows of a run that was being replaced; all frames are computed", self.folder)
            return False
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
        """Reads which frames are done, and opens the file to go on, without stale rows and an unfinished line."""
        check_inside(self.folder, self.path)
        if not self.path.exists():  # the run was finished as Parquet, or has no rows yet
            for row in self._parquet_rows():
                self._count(row)
            if self.renewed:
                self._open_without_stale(self._parquet_rows())
            return
        end = 0
        try:
            with open(self.path, "rb") as stream:
                for number, line in enumerate(stream, 1):
                    if line.endswith(b"\n"):
                        self._count(_parsed(line, self.path, number))
                        end += len(line)
            if not self.renewed:
                os.truncate(self.path, end)
        except OSError as error:
            raise self._unwritable(error) from error
        if self.renewed:
            self._open_without_stale(read_lines(self.path))
        else:
            self._file = self._opened("ab")

    def _open_without_stale(self, rows: Iterator[Row]) -> None:
        """Writes the rows that are kept into a new file, and opens it to go on."""
        with atomic_path(self.path) as temporary, open(temporary, "wb") as target:
            target.writelines(line_of(row) for row in rows if row["number"] not in self.renewed)
        self._file = self._opened("ab")

    def _count(self, row: Row) -> None:
        """Counts a row of an earlier run, if it is kept."""
        if row["number"] in self.done or row["number"] in self.renewed:
            raise OutputError(f"{self.path}: has frame {row['number']} twice; {AGAIN}")
        if self._is_stale(row):
            self.renewed.add(row["number"])
        else:
            self._note(row)

    def _note(self, row: Row) -> None:
        self.done.add(row["number"])
        self.n_results += row["skipped"] is None
        self._in_order &= row["number"] > self._last
        self._last = row["number"]

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
    return {name: row.get(name) for name in COLUMNS}


def _change(name: str, former: Any, own: Any) -> str:
    return f"{name} {shown(former, 60)}, now {shown(own, 60)}"

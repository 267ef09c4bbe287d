"""Output folders: claimed by one process at a time, and marked, so that only files of this package are replaced.

Such a folder holds the marker file `.adaptiveisp`, which names the command that filled it. The process that fills it
holds a lock on that file, which the system releases when the process ends in whatever way. `--overwrite` is refused
where the marker is missing, since the files there may be the user's own.
"""

import json
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, OutputNameError, UsageError
from adaptiveisp.utils.files import remove_abandoned, try_lock

MARKER = ".adaptiveisp"
"""Name of the marker file: JSON with the kind of the folder, and the process that is filling it or filled it last."""
LARGEST_MARKER = 4096
"""Bytes of a marker that are read; a marker has about a hundred."""


class FolderClaim:
    """The right to write into a folder, held until `release` or the end of the process; a context manager.

    Attributes:
        folder: the folder, which exists and has its marker.
    """

    def __init__(self, folder: Path, key: tuple[int, int], is_new: bool = False):
        self.folder = folder
        self._is_new = is_new
        self._key: tuple[int, int] | None = key

    def release(self) -> None:
        """Lets other processes write into the folder; a second call has no effect."""
        key, self._key = self._key, None
        if key is not None:
            handle, claims = _held.pop(key)
            if claims > 1:
                _held[key] = handle, claims - 1
            else:
                os.close(handle)

    def discard(self) -> None:
        """Releases the folder; where nothing was written into it, its marker is removed, and the folder too if new."""
        with suppress(OSError):
            if not _holds_something(self.folder):
                (self.folder / MARKER).unlink()
                if self._is_new:
                    self.folder.rmdir()
        self.release()

    def __enter__(self) -> "FolderClaim":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.release()
        else:
            self.discard()


_held: dict[tuple[int, int], tuple[int, int]] = {}
"""Device and number of each marker that this process has locked → its open file, and how many claims share it."""


def claim_folder(folder: Path, kind: str, overwrite: bool) -> FolderClaim:
    """Makes a folder if it is missing, and claims it for this process.

    Temporary files that killed writers left in it are removed.

    Args:
        folder: the folder.
        kind: the command that fills it, for instance "run".
        overwrite: whether a marked folder that is not empty may be filled again.

    Raises:
        UsageError: the path is a file; the folder is not empty and `overwrite` is off; it is not empty and has no
            marker, or that of another command; or another process fills it now.
        OutputError: it cannot be made or written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; choose another --out")
    try:
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if not is_marked(folder) and _holds_something(folder):
            raise UsageError(_unmarked(folder, overwrite))
        claim = _claim(folder, is_new)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        remove_abandoned(folder, recursive=True)
        found = marker_kind(folder)
        if _holds_something(folder):
            if not overwrite:
                raise UsageError(f"{folder}: exists already; choose another --out or add --overwrite")
            if found not in (None, kind):
                raise UsageError(f"{folder}: holds what `{found}` made; choose another --out, or remove it first")
        _write_marker(folder, kind, is_outdated(folder) and _holds_something(folder))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        claim.release()
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
    except BaseException:
        claim.release()
        raise
    return claim


def reclaim_folder(folder: Path, kind: str) -> FolderClaim:
    """Claims an existing folder to resume in it; a folder of an earlier version, which has no marker, gets one.

    Raises:
        UsageError: another process fills it now, or another command filled it.
        OutputError: it cannot be written.
    """
    try:
        claim = _claim(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); make it writable again") from error
    found = marker_kind(folder)
    if found not in (None, kind):
        claim.release()
        raise UsageError(f"{folder}: holds what `{found}` made, not `{kind}`; give another folder")
    with suppress(OSError):  # on a full disk the former marker stays
        _write_marker(folder, kind, is_outdated(folder))
    remove_abandoned(folder, recursive=True)
    return claim


def mark_shared_folder(folder: Path, kind: str, option: str) -> None:
    """Makes and marks a folder that several processes may fill at once, such as a cache.

    Args:
        folder: the folder.
        kind: kind of the folder, for instance "cache".
        option: the command line's option that names it, for messages.

    Raises:
        UsageError: the path is a file, or the folder is not empty and has no marker or that of another kind.
        OutputError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; choose another {option}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The marker is checked again, since another process may write it between the first two checks.
        if not is_marked(folder) and _holds_something(folder) and not is_marked(folder):
            raise UsageError(
                f"{folder}: holds files, and no {MARKER} says that adaptiveisp made them, so none may be removed to "
                f"make room; choose an empty folder for {option}, or, if an earlier version made them, put an empty "
                f"file {MARKER} there"
            )
        if not is_marked(folder):
            _write_marker(folder, kind)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another {option}") from error
    found = marker_kind(folder)
    if found not in (None, kind):
        raise UsageError(f"{folder}: holds what `{found}` made; choose another {option}")


def is_marked(folder: Path) -> bool:
    """Whether a folder holds the marker as a regular file, not a link."""
    try:
        return stat.S_ISREG(os.lstat(folder / MARKER).st_mode)
    except OSError:
        return False


def marker_kind(folder: Path) -> str | None:
    """The command that filled a folder, None where its marker does not name one, such as an empty one made by hand."""
    content = _read_marker(folder)
    kind = content.get("kind")
    return kind if isinstance(kind, str) and kind.isidentifier() else None


def set_outdated(folder: Path, outdated: bool) -> None:
    """Notes in the marker of a folder whether its results are being replaced, so that none of them counts any more.

    A folder without the marker is left as it is.

    Raises:
        OutputError: the marker cannot be written.
    """
    kind = marker_kind(folder)
    if kind is None or is_outdated(folder) == outdated:
        return
    try:
        _write_marker(folder, kind, outdated)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error


def is_outdated(folder: Path) -> bool:
    """Whether a process began to replace the results of a folder, and ended before they were gone."""
    return _read_marker(folder).get("outdated") is True


def check_inside(folder: Path, path: Path) -> None:
    """Refuses a path that leads out of a folder through a link, before it is written or removed.

    Raises:
        OutputNameError: it leads out.
    """
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise OutputNameError(f"{path}: a link leads out of {folder}; remove the link, or choose another --out")


def remove_inside(folder: Path, path: Path) -> None:
    """Removes a file below a folder. A link is removed itself; a path through a link that leads out is refused.

    Raises:
        OutputNameError: a folder on the path is a link that leads out.
        OutputError: the file cannot be removed.
    """
    if not os.path.lexists(path):
        return
    check_inside(folder, path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror}); choose another --out") from error


def _holds_something(folder: Path) -> bool:
    """Whether a folder holds anything beside the marker."""
    return any(entry.name != MARKER for entry in os.scandir(folder))


def _unmarked(folder: Path, overwrite: bool) -> str:
    if not overwrite:
        return f"{folder}: exists already; choose another --out or add --overwrite"
    return (
        f"{folder}: holds files, and no {MARKER} says that adaptiveisp made them, so they are not replaced; choose "
        f"another --out, or, if an earlier version made them, put an empty file {MARKER} there"
    )


def _claim(folder: Path, is_new: bool = False) -> FolderClaim:
    """Opens and locks the marker; a process may claim a folder several times.

    Raises:
        UsageError: another process holds the lock.
        OSError: the marker cannot be opened, for instance because it is a link.
    """
    flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(folder / MARKER, flags, 0o666)
    facts = os.fstat(handle)
    key = facts.st_dev, facts.st_ino
    if key in _held:
        os.close(handle)
        former, claims = _held[key]
        _held[key] = former, claims + 1
    elif try_lock(handle):
        _held[key] = handle, 1
    else:
        os.close(handle)
        holder = _read_marker(folder).get("process")
        process = f"process {holder}" if isinstance(holder, int) else "another process"
        raise UsageError(f"{folder}: {process} is writing there; wait until it ends, or choose another folder")
    return FolderClaim(folder, key, is_new)


def _read_marker(folder: Path) -> dict[str, Any]:
    """The content of the marker; empty where it is empty, damaged or too large."""
    try:
        with open(folder / MARKER, "rb") as stream:
            content = json.loads(stream.read(LARGEST_MARKER))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_marker(folder: Path, kind: str, outdated: bool = False) -> None:
    """Writes the marker in place, since the lock is on this file and would not be on one that replaces it."""
    content = {"adaptiveisp": "a folder that this package fills", "kind": kind, "process": os.getpid()}
    text = json.dumps({**content, "outdated": True} if outdated else content)
    with open(folder / MARKER, "r+b" if is_marked(folder) else "wb") as stream:
        size = min(os.fstat(stream.fileno()).st_size, LARGEST_MARKER)
        stream.write(f"{text.ljust(size - 1)}\n".encode())  # not shorter: a kill before the next line leaves it valid
        stream.truncate()

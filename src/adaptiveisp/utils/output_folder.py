"""Folders that a command fills: claimed by one process at a time, and marked, so that only what is ours is replaced.

A folder of ours holds the marker file `.adaptiveisp`, which says what command filled it. The process that fills it
holds a lock on that file; the system ends the lock with the process, however it ends. `--overwrite` is refused where
the marker is missing: what lies there may be anybody's.
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
"""Name of the marker file: JSON with the kind of the folder, and the process that fills it or filled it last."""
LARGEST_MARKER = 4096


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
        """Lets others write into the folder; releasing twice does no harm."""
        key, self._key = self._key, None
        if key is not None:
            handle, claims = _held.pop(key)
            if claims > 1:
                _held[key] = handle, claims - 1
            else:
                os.close(handle)

    def discard(self) -> None:
        """Releases the folder; where nothing was written into it, it is left as it was found, or removed if new."""
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
    """Makes `folder` if need be, and claims it for this process.

    Temporary files that killed writers left in a folder of ours are removed.

    Args:
        folder: made if it is missing.
        kind: the command that fills it, for instance "run".
        overwrite: whether a folder of ours that holds something may be filled again.

    Raises:
        UsageError: it is a file; it holds something and `overwrite` is off; it holds something without a marker, or
            what another command made; or another process fills it now.
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
        _write_marker(folder, kind)
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
    """Claims a folder that exists, to go on in it; one of an earlier version gets a marker.

    Raises:
        UsageError: another process fills it now, or another command made it.
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
    with suppress(OSError):  # a full disk; the marker of before will do
        _write_marker(folder, kind)
    remove_abandoned(folder, recursive=True)
    return claim


def mark_shared_folder(folder: Path, kind: str, option: str) -> None:
    """Makes and marks a folder that several processes may fill at once, such as a cache.

    Raises:
        UsageError: it is a file, or holds something without our marker.
        OutputError: it cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; choose another {option}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may mark it between the two questions.
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
    """Whether a folder holds our marker, a file and no link."""
    try:
        return stat.S_ISREG(os.lstat(folder / MARKER).st_mode)
    except OSError:
        return False


def marker_kind(folder: Path) -> str | None:
    """The command that filled a folder, None where its marker does not say (an empty one, put there by hand)."""
    content = _read_marker(folder)
    kind = content.get("kind")
    return kind if isinstance(kind, str) and kind.isidentifier() else None


def check_inside(folder: Path, path: Path) -> None:
    """Refuses a path that a link leads out of the folder, before it is written or removed.

    Raises:
        OutputNameError: names it.
    """
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
        raise OutputNameError(f"{path}: a link leads out of {folder}; remove the link, or choose another --out")


def remove_inside(folder: Path, path: Path) -> None:
    """Removes a file of a folder of ours; a link is removed itself, and nothing through a link that leads elsewhere.

    Raises:
        OutputNameError: a folder on the way is a link that leads out.
        OutputError: it cannot be removed.
    """
    if not os.path.lexists(path):
        return
    check_inside(folder, path)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror}); choose another --out") from error


def _holds_something(folder: Path) -> bool:
    """Whether there is more than the marker in a folder."""
    return any(entry.name != MARKER for entry in os.scandir(folder))


def _unmarked(folder: Path, overwrite: bool) -> str:
    if not overwrite:
        return f"{folder}: exists already; choose another --out or add --overwrite"
    return (
        f"{folder}: holds files, and no {MARKER} says that adaptiveisp made them, so they are not replaced; choose "
        f"another --out, or, if an earlier version made them, put an empty file {MARKER} there"
    )


def _claim(folder: Path, is_new: bool = False) -> FolderClaim:
    """Opens and locks the marker; this process may claim its own folder again.

    Raises:
        UsageError: another process holds the lock.
        OSError: the marker cannot be opened, for instance since it is a link.
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
    """What the marker says; nothing where it is empty, damaged or larger than any that we write."""
    try:
        with open(folder / MARKER, "rb") as stream:
            content = json.loads(stream.read(LARGEST_MARKER))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_marker(folder: Path, kind: str) -> None:
    """Writes the marker in place: the lock is on this very file, which a renamed one would replace."""
    text = json.dumps({"adaptiveisp": "a folder that this package fills", "kind": kind, "process": os.getpid()})
    with open(folder / MARKER, "r+b" if is_marked(folder) else "wb") as stream:
        stream.write(f"{text}\n".encode())
        stream.truncate()

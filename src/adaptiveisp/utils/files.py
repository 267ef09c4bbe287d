"""Files that appear whole or not at all; what a killed writer left behind is found and removed."""

import errno
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, OutputNameError

fcntl: Any = None
with suppress(ImportError):  # Windows has none: files have no advisory locks there, and what a killed writer left stays
    import fcntl

PART_SUFFIX = ".adaptiveisp-part"
"""How the temporary name of a file ends while it is written. The name begins with a dot, so that no reader takes it."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is renamed to `path`, on any failure it is removed.

    The writer holds a lock on the temporary file, which ends with its process: see `remove_abandoned`.

    Args:
        path: final place; missing parent folders are made.

    Raises:
        OutputError: the folder cannot be made or written, or the disk is full.
        OutputNameError: the name is too long.
    """
    path = Path(path)
    check_length(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _locked_part(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another --out"
        ) from error
    finally:
        with suppress(OSError):  # on a folder that is gone or read-only by now; what the writer met matters more
            temporary.unlink(missing_ok=True)
        os.close(handle)


def _locked_part(path: Path) -> tuple[int, Path]:
    """A new empty file beside `path`, open and locked."""
    while True:
        # The temporary name must not be too long where the final one is not.
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{PART_SUFFIX}")
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileExistsError:
            continue
        # Between these two lines another process could take the file for an abandoned one; then it is gone now.
        if try_lock(handle) and os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Takes the exclusive lock of an open file, False where another process holds it; True where there are no locks.

    The system ends the lock with the process. A process that was forked keeps it too, one that was spawned does not.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_abandoned(folder: Path, recursive: bool = False) -> None:
    """Removes the temporary files of writers that are gone, such as a killed process; those in use stay.

    Args:
        folder: where to look; links are not followed.
        recursive: also in its subfolders.
    """
    if fcntl is None:
        return
    for place, subfolders, names in os.walk(folder):
        if not recursive:
            subfolders.clear()
        for name in names:
            if not (name.startswith(".") and name.endswith(PART_SUFFIX)):
                continue
            path = os.path.join(place, name)
            with suppress(OSError):  # gone already, or not ours to open
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
                finally:
                    os.close(handle)


def check_length(path: Path) -> None:
    """Refuses a name that is too long for the file system; its folder need not exist yet.

    Raises:
        OutputNameError: names it.
    """
    folder = next(filter(os.path.isdir, path.parents), path.parent)
    try:
        os.lstat(folder / path.name)
    except OSError as error:  # most often there is no such file yet
        if error.errno == errno.ENAMETOOLONG:
            raise OutputNameError(f"{path}: cannot be written ({error.strerror}); shorten the name") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 `text` to `path` atomically; bytes of a file name that are not UTF-8 become their escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically; NaN and infinity are refused (JSON has neither)."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text of a JSON file as `write_json` writes it."""
    return json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_json(path: Path, error: type[Exception], remedy: str) -> Any:
    """The parsed JSON file; NaN and Infinity are refused.

    Args:
        path: the file.
        error: error class to raise.
        remedy: what the user can do, appended to the message.
    """
    require_regular(path, error, remedy)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(f"{path}: no such file; {remedy}") from None
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror}); {remedy}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: is not UTF-8 text (byte {cause.start}); {remedy}") from cause
    except ValueError as cause:  # a path that cannot be
        raise error(f"{path}: cannot be read ({cause}); {remedy}") from cause
    return parse_json(text, str(path), error, remedy)


def require_regular(path: Path, error: type[Exception], remedy: str) -> None:
    """Refuses a pipe or a device, which could be read without end; a path that is not there is left to its reader."""
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise error(f"{path}: is a pipe or a device and no file; {remedy}")


def parse_json(text: str, origin: str, error: type[Exception], remedy: str) -> Any:
    """The value of a JSON text; NaN, Infinity and a key that stands twice in one object are refused.

    Args:
        text: the JSON.
        origin: where it comes from, for errors.
        error: error class to raise.
        remedy: what the user can do, appended to the message.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise error(f"{origin}: is nested too deeply; {remedy}") from None
    except ValueError as cause:
        detail = str(cause).splitlines()[0]
        raise error(f"{origin}: is not valid JSON ({detail}); {remedy}") from cause


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its pairs. Python's reader takes the last of two values with one key, and drops the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    """Python's reader takes NaN and infinity, which JSON does not have and no reader of ours expects."""
    raise ValueError(f"holds {name}, which is no JSON number")


def walk_files(folder: Path, extensions: Collection[str]) -> Iterator[Path]:
    """The files of a folder and its subfolders with one of the extensions (lower case), sorted, without hidden ones."""
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            # A folder may hold millions of other files; a Path of each would take most of the time.
            if os.path.splitext(name)[1].lower() in extensions and not name.startswith("."):
                yield Path(place) / name

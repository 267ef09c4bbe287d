"""Writes files atomically, removes temporary files of killed writers, and reads JSON strictly."""

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, OutputNameError

fcntl: Any = None
with suppress(ImportError):  # Windows has no advisory locks, so that temporary files of killed writers stay there
    import fcntl

PART_SUFFIX = ".adaptiveisp-part"
"""Ending of a file's temporary name. Such a name begins with a dot, so that readers of the folder ignore it."""

BLOCK = 1 << 20
"""Bytes that `read_blocks` reads at once."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is renamed to `path`, on any failure it is removed.

    The writer holds a lock on the temporary file, which the system releases when the process ends; see
    `remove_abandoned`.

    Args:
        path: the file to write; missing parent folders are made.

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
        with suppress(OSError):  # the folder may be removed or read-only by now; the writer's own error is raised
            temporary.unlink(missing_ok=True)
        os.close(handle)


def _locked_part(path: Path) -> tuple[int, Path]:
    """Opens and locks a new empty file beside `path`."""
    while True:
        # The temporary name is short, so that it is not too long for the file system where the final one is not.
        temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{PART_SUFFIX}")
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o666)
        except FileExistsError:
            continue
        # Before the lock is taken, another process could remove the file as abandoned; then it has no link any more.
        if try_lock(handle) and os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Takes the exclusive lock of an open file.

    The system releases the lock when the process ends. A forked child shares the lock, a spawned one does not.

    Returns:
        False where another process holds the lock; True otherwise, also on a system without locks.
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
    """Removes the temporary files of writers that ended, such as a killed process; files in use stay.

    Args:
        folder: the folder; links are not followed.
        recursive: whether its subfolders are searched too.
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
            with suppress(OSError):  # the file is in use, removed already, or may not be opened
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)
                finally:
                    os.close(handle)


def check_length(path: Path) -> None:
    """Refuses a name that is too long for the file system; its folder need not exist yet.

    Raises:
        OutputNameError: the name is too long.
    """
    folder = next(filter(os.path.isdir, path.parents), path.parent)
    try:
        os.lstat(folder / path.name)
    except OSError as error:  # usually FileNotFoundError, which is fine
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


def write_json_lists(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as `write_json` does; a value that is an iterator becomes a list, item by item.

    No more than one item of such a list is held in memory.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="backslashreplace") as stream:
        for place, (name, value) in enumerate(content.items()):
            stream.write("{\n" if place == 0 else ",\n")
            stream.write(f" {json.dumps(name, ensure_ascii=False)}: ")
            if not isinstance(value, Iterator):
                stream.write(_indented(value, 1))
                continue
            count = 0
            for count, item in enumerate(value, 1):
                stream.write(("[" if count == 1 else ",") + "\n  " + _indented(item, 2))
            stream.write("\n ]" if count else "[]")
        stream.write("\n}\n")


def _indented(value: Any, depth: int) -> str:
    """The JSON of a value that lies `depth` levels deep."""
    return json_text(value).rstrip("\n").replace("\n", "\n" + depth * " ")


def read_json(path: Path, error: type[Exception], remedy: str) -> Any:
    """Reads and parses a JSON file; NaN, Infinity and repeated keys are refused.

    Args:
        path: the file.
        error: class of the errors.
        remedy: what the user can do, appended to messages.
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
    except ValueError as cause:  # an impossible path, such as one with a NUL character
        raise error(f"{path}: cannot be read ({cause}); {remedy}") from cause
    return parse_json(text, str(path), error, remedy)


def require_regular(path: Path, error: type[Exception], remedy: str) -> None:
    """Refuses a pipe or a device, reading which may never end; a missing file is reported by its reader instead."""
    try:
        kind = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise error(f"{path}: is a pipe or a device, not a file; {remedy}")


def parse_json(text: str, origin: str, error: type[Exception], remedy: str) -> Any:
    """Parses a JSON text; NaN, Infinity and a key that an object has twice are refused.

    Args:
        text: the JSON.
        origin: its source, for errors.
        error: class of the errors.
        remedy: what the user can do, appended to messages.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise error(f"{origin}: is nested too deeply; {remedy}") from None
    except ValueError as cause:
        detail = str(cause).splitlines()[0]
        raise error(f"{origin}: is not valid JSON ({detail}); {remedy}") from cause


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object from its pairs; a repeated key, of which Python's reader would keep the last value, is refused."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} occurs twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    """Refuses NaN and Infinity, which Python's reader accepts though JSON does not have them."""
    raise ValueError(f"holds {name}, which is not a JSON number")


def read_blocks(path: Path) -> Iterator[bytes]:
    """Yields a file's content in blocks of at most `BLOCK` bytes, for hashes (Python 3.10 has no `file_digest`).

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def sha256_of(*paths: Path) -> str:
    """The SHA-256 of a file's content, or of the contents of several files one after the other, hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for block in read_blocks(path):
            digest.update(block)
    return digest.hexdigest()


def walk_files(folder: Path, extensions: Collection[str]) -> Iterator[Path]:
    """Yields the files of a folder and its subfolders with one of the extensions, sorted, without hidden ones.

    Args:
        folder: the folder.
        extensions: extensions in lower case, with the dot.
    """
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            # A folder may hold millions of other files, and making a Path of each would take most of the time.
            if os.path.splitext(name)[1].lower() in extensions and not name.startswith("."):
                yield Path(place) / name

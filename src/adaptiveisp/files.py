"""Files that appear whole or not at all, and the provenance that every JSON carries."""

import errno
import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, OutputNameError, UsageError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is renamed to `path`, on any failure it is removed.

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
        # The temporary name must not be too long where the final one is not.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
        os.close(handle)
        # mkstemp makes files private; outputs follow the user's umask as any other file would.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another --out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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
    """Writes UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically; NaN and infinity are refused (JSON has neither)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path, error: type[Exception], remedy: str) -> Any:
    """The parsed JSON file; NaN and Infinity are refused.

    Args:
        path: the file.
        error: error class to raise.
        remedy: what the user can do, appended to the message.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise error(f"{path}: no such file; {remedy}") from None
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror}); {remedy}") from cause
    except RecursionError:
        raise error(f"{path}: is nested too deeply; {remedy}") from None
    except UnicodeDecodeError as cause:
        raise error(f"{path}: is not UTF-8 text (byte {cause.start}); {remedy}") from cause
    except ValueError as cause:
        detail = str(cause).splitlines()[0]
        raise error(f"{path}: is not valid JSON ({detail}); {remedy}") from cause


def _refuse_constant(name: str) -> Any:
    """Python's reader takes NaN and infinity, which JSON does not have and no reader of ours expects."""
    raise ValueError(f"holds {name}, which is no JSON number")


def prepare_output_folder(folder: Path, overwrite: bool) -> Path:
    """Makes `folder`; one that holds something is refused unless `overwrite` (files are then replaced one by one).

    Raises:
        UsageError: it exists and holds something, or is a file.
        OutputError: it cannot be made or written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; choose another --out")
    try:
        if folder.is_dir() and any(folder.iterdir()) and not overwrite:
            raise UsageError(f"{folder}: exists already; choose another --out or add --overwrite")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from error
    return folder


def walk_files(folder: Path, extensions: Collection[str]) -> Iterator[Path]:
    """The files of a folder and its subfolders with one of the extensions (lower case), sorted, without hidden ones."""
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if path.suffix.lower() in extensions and not name.startswith("."):
                yield path

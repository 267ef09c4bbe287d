"""Raws behind URLs, such as s3://, gs://, https:// and memory://, listed and read by fsspec."""

import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from adaptiveisp.errors import AdaptiveISPError, RawFileError, logger
from adaptiveisp.raw.extensions import KNOWN_EXTENSIONS
from adaptiveisp.utils.optional_imports import import_extra

TAR = ".tar"
"""Extension of a shard, a tar file of raws."""
SIDECAR_EXTENSIONS = frozenset({".yaml", ".yml"})
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WILD = re.compile(r"\*|\[(?![0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\])")
"""Signs of a pattern in a path; a question mark begins the query of a URL, and a host may be an address in brackets."""


def is_url(source: object) -> bool:
    """Whether an input is a URL.

    >>> is_url("s3://bucket/a.dng"), is_url("C:/a.dng"), is_url(Path("a"))
    (True, False, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


def name_of(url: str) -> str:
    """The last part of a URL's path, without its query.

    >>> name_of("https://host/night/a.dng?token=1")
    'a.dng'
    """
    return PurePosixPath(urlsplit(url).path).name


def find_remote(url: str) -> list[tuple[str, Path]]:
    """The raws and shards that a URL names, each with its path relative to what the outputs mirror.

    A URL with a known extension names one file and is not looked for; one with `*` or `[` is a pattern; any other is
    a folder, which is searched with its subfolders. Files are sorted.

    Raises:
        RawFileError: it cannot be listed, or holds no raws.
        AdaptiveISPError: fsspec or the library of the protocol is not installed.
    """
    name = name_of(url)
    is_pattern = _WILD.search(url.split("?")[0]) is not None
    if not is_pattern and PurePosixPath(name).suffix.lower() in KNOWN_EXTENSIONS | {TAR}:
        return [(url, Path(name))]
    system, root = _opened(url)
    try:
        found = [str(one) for one in (system.glob(root) if is_pattern else system.find(root))]
    except Exception as error:  # each protocol has errors of its own
        raise unreadable_remote(url, error, "be listed") from error
    base = _WILD.split(root)[0].rpartition("/")[0] if is_pattern else root.rstrip("/")
    if any(PurePosixPath(one).suffix.lower() in SIDECAR_EXTENSIONS for one in found):
        logger.warning("%s: its .yaml files are not read; give facts of raws without a header as options", url)
    wanted = KNOWN_EXTENSIONS | {TAR}
    raws = [one for one in sorted(found) if PurePosixPath(one).suffix.lower() in wanted and not _is_hidden(one, base)]
    if not raws:
        raise RawFileError(f"{url}: holds no raw files; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")
    return [(str(system.unstrip_protocol(one)), Path(one.removeprefix(base).lstrip("/"))) for one in raws]


def read_remote(url: str, offset: int = 0, size: int | None = None) -> bytes:
    """The content of a URL or of a part of it.

    Args:
        url: the URL.
        offset: first byte.
        size: number of bytes; None reads to the end.

    Raises:
        RawFileError: it cannot be read.
        AdaptiveISPError: fsspec or the library of the protocol is not installed.
    """
    try:
        with open_remote(url) as stream:
            if offset:
                stream.seek(offset)
            content: bytes = stream.read() if size is None else stream.read(size)
    except AdaptiveISPError:
        raise
    except Exception as error:
        raise unreadable_remote(url, error, "be read") from error
    return content


def open_remote(url: str) -> Any:
    """An open binary file of a URL, which can be moved in.

    Raises:
        RawFileError: it cannot be opened.
        AdaptiveISPError: fsspec or the library of the protocol is not installed.
    """
    system, path = _opened(url)
    try:
        return system.open(path, "rb")
    except Exception as error:
        raise unreadable_remote(url, error, "be read") from error


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the URL's path in it."""
    core = import_extra("fsspec.core", "remote")
    try:
        system, path = core.url_to_fs(url)
    except ImportError as error:
        raise AdaptiveISPError(f"{url}: {error}; 'adaptiveisp[remote]' brings http, s3fs and gcsfs do so") from error
    except ValueError as error:
        raise RawFileError(f"{url}: {error}; check the address") from error
    return system, str(path)


def unreadable_remote(url: str, error: Exception, what: str) -> RawFileError:
    """The error about a URL that cannot "be read" or "be listed"."""
    reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = "no such file"
    return RawFileError(f"{url}: cannot {what} ({reason}); check the address, the network and your credentials")


def _is_hidden(path: str, base: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(path.removeprefix(base)).parts)

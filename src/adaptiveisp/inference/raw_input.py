"""The inputs of `AdaptiveISP`: files, URLs, folders, contents, frames in memory, and lists of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import UsageError, logger, without_secrets
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.in_memory import BinaryFile
from adaptiveisp.raw.reader import BayerHeader, raw_in_memory, read_raw
from adaptiveisp.raw.remote import is_url, read_remote
from adaptiveisp.raw.tar_shards import TarMember
from adaptiveisp.types import RawImage

RawLike: TypeAlias = "str | os.PathLike[str] | bytes | BinaryFile | RawImage | NDArray[Any]"
"""One raw: a file, a URL that fsspec opens, its content, a raw that was read already, or the pixels of a frame,
(height, width) or (height, width, 3)."""

OnError: TypeAlias = Literal["raise", "skip"]
"""What happens to a raw that fails among several: its error is raised, or the raw is left out."""


def require_known(on_error: str) -> None:
    """Checks the value of `on_error`.

    Raises:
        UsageError: it is none of `OnError`.
    """
    if on_error not in get_args(OnError):
        raise UsageError(f"on_error {on_error!r} does not exist; choose one of {', '.join(get_args(OnError))}")


def as_raw(raw: Any, header: Any) -> RawImage:
    """The raw from a file, a URL, a member of a tar file, its content, a `RawImage` or an array of pixels.

    Raises:
        RawFileError, UsageError: see `AdaptiveISP.__call__`.
    """
    if header is not None and not isinstance(header, BayerHeader):
        raise UsageError(f"header is of type {type(header).__name__}; give BayerHeader(…)")
    if isinstance(raw, RawImage | np.ndarray):
        return raw_in_memory(raw, header)
    if is_url(raw):
        return read_raw(read_remote(raw), header, without_secrets(raw.split("?")[0]))
    if isinstance(raw, TarMember):
        return read_raw(raw.read(), header, without_secrets(str(raw)))
    if isinstance(raw, str | os.PathLike):
        return read_raw(Path(raw), header)
    if isinstance(raw, bytes) or hasattr(raw, "read"):
        return read_raw(raw, header)
    what = "its content, a RawImage, or a numpy array of its pixels with header=BayerHeader(…)"
    raise UsageError(f"an object of type {type(raw).__name__} is not a raw: give the name of a file, {what}")


def is_folder(raw: object) -> bool:
    """Whether an input is the path of a folder."""
    return isinstance(raw, str | os.PathLike) and os.path.isdir(raw)


def expanded(raws: Any, skipped: list[tuple[str, str]]) -> Iterator[Any]:
    """Yields the raws one by one; a folder is replaced by its raw files, and `skipped` gets those that are missing.

    Raises:
        RawFileError: a folder has no raw files.
    """
    for raw in [raws] if isinstance(raws, str | os.PathLike | RawImage | np.ndarray) else raws:
        if is_folder(raw):
            files, missing = find_raw_files([str(raw)])
            for _, reason in missing:
                logger.warning("skipped: %s", reason)
            skipped += missing
            yield from (path for path, _ in files)
        else:
            yield raw

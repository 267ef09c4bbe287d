"""The frames that a run or `AdaptiveISP.map` goes through: files, URLs, members of tar shards, and frames in memory."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.errors import RawFileError, UsageError, first_few, logger, without_secrets
from adaptiveisp.raw.find_files import find_raw_files, with_unique_stems
from adaptiveisp.raw.remote import TAR, find_remote, is_url, name_of
from adaptiveisp.raw.sidecars import own_sidecars
from adaptiveisp.raw.tar_shards import TarMember, local_path, members
from adaptiveisp.types import RawImage


@dataclass(frozen=True)
class Frame:
    """One frame of many.

    Attributes:
        id: what names it in results: its path, URL without secrets, or SHARD.tar::MEMBER, or what the caller gave.
        source: what `AdaptiveISP` takes as a raw.
        stem: relative path without extension that its output files have; "" where none is written.
        number: its number among all frames, before they were split into shards.
        stamp: what tells whether its file has changed, see `stamped`; None where that is not known.
    """

    id: str
    source: Any
    stem: str = ""
    number: int = 0
    stamp: str | None = None

    @property
    def name(self) -> str:
        """The last part of the id."""
        return Path(self.id).name or self.id


@dataclass(frozen=True)
class Unreadable:
    """The source of a frame that stands for an input of which no frame is known, such as a damaged shard.

    Attributes:
        reason: why, in one line.
    """

    reason: str


def find_frames(inputs: Sequence[str], exclude: Path | None = None) -> tuple[list[Frame], list[tuple[str, str]]]:
    """The frames that inputs name, numbered, and the inputs that are missing, each with a message.

    Local files are found and named as `find_raw_files` says. URLs come after them, then the members of `.tar` shards.

    Args:
        inputs: files, folders, patterns, URLs of them, and `.tar` files, local or remote.
        exclude: the output folder.

    Raises:
        RawFileError: there is no raw.
        UsageError: an input is an empty text.
    """
    found, missing = _find(inputs, exclude)
    if not found:
        raise RawFileError(missing[0][1])
    return [
        Frame(without_secrets(str(source)), source, stem.as_posix(), n) for n, (source, stem) in enumerate(found)
    ], missing


def _find(inputs: Sequence[str], exclude: Path | None) -> tuple[list[tuple[Any, Path]], list[tuple[str, str]]]:
    """The sources that inputs name, each with its stem, and the missing inputs, of which there are some without any."""
    local = [text for text in inputs if not is_url(text) and not _is_tar(text)]
    found: list[tuple[Any, Path]] = []
    missing: list[tuple[str, str]] = []
    if local or not inputs:
        try:
            files, missing = find_raw_files(local, exclude)
            found += files
        except RawFileError as error:
            missing = [(local[0] if local else "", str(error))]
    others: list[tuple[Any, Path]] = []
    for text in (one for one in inputs if one not in local):
        try:
            others += _remote_and_tars(text, missing)
        except RawFileError as error:
            missing.append((without_secrets(text), str(error)))
    distinct = {str(source): (source, relative) for source, relative in others}
    found += with_unique_stems(list(distinct.values()), [stem for _, stem in found])
    return found, missing


def iterate_frames(frames: Any) -> Iterator[Frame]:
    """Yields the frames of `AdaptiveISP.map` one by one; see there for what they may be.

    A folder, pattern or shard that cannot be used takes the place of a frame, whose source is `Unreadable`.

    Raises:
        UsageError: a frame is of another type.
    """
    if isinstance(frames, str | os.PathLike | RawImage | np.ndarray | bytes) or hasattr(frames, "read"):
        frames = [frames]
    if not isinstance(frames, Iterable):
        raise UsageError(f"frames are of type {type(frames).__name__}; give paths, URLs, contents, arrays or RawImages")
    number = 0
    for item in frames:
        for identity, source in _expanded(item, number):
            yield Frame(identity, source, number=number)
            number += 1


def _expanded(item: Any, number: int) -> Iterator[tuple[str, Any]]:
    """Yields id and source of one item, or of each raw that it names."""
    if isinstance(item, Frame):
        yield item.id, item.source
    elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
        yield item[0], item[1]
    elif isinstance(item, str | os.PathLike):
        text = os.fspath(item)
        if not is_url(text) and os.path.isfile(text) and not _is_tar(text):
            yield text, Path(text)
        elif not is_url(text) and not _is_tar(text) and not os.path.isdir(text) and not glob.has_magic(text):
            yield text, Path(text)  # a missing file fails when it is read, as any other bad frame
        else:
            found, missing = _find([text], None)
            yield from ((without_secrets(str(source)), source) for source, _ in found)
            yield from ((name, Unreadable(reason)) for name, reason in missing)
    elif isinstance(item, RawImage) and item.path is not None:
        yield str(item.path), item
    else:
        yield f"frame {number}", item


def shard_of(text: str) -> tuple[int, int]:
    """Number and count of `--shard I/N`, counted from 1.

    >>> shard_of("2/4")
    (2, 4)

    Raises:
        UsageError: it is none.
    """
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text}: give its number and the number of all shards, for instance 1/4 … 4/4")
    return int(number), int(count)


def in_shard(frames: Sequence[Frame], shard: tuple[int, int]) -> list[Frame]:
    """The frames of a shard: every n-th by its number, so that no shard has only the long ones of a sorted list."""
    number, count = shard
    return [frame for frame in frames if frame.number % count == number - 1]


def stamped(frames: Sequence[Frame]) -> list[Frame]:
    """The frames with stamps: a hash of the sizes and times of change of what a frame is read from.

    That is its file with the sidecars that go with it, or its tar shard. Frames behind URLs and in memory have none.
    """
    known: dict[Path | str, tuple[int, int] | None] = {}  # of files that many frames share
    return [replace(frame, stamp=_stamp(frame.source, known)) for frame in frames]


def _stamp(source: Any, known: dict[Path | str, tuple[int, int] | None]) -> str | None:
    own: list[tuple[int, int] | None]
    shared: Path | str
    if isinstance(source, TarMember) and not is_url(source.shard):
        shared, own = source.shard, [(source.offset, source.size)]
    elif isinstance(source, Path):
        # Most folders have neither sidecars nor a raw.yaml.
        shared, own = source.with_name("raw.yaml"), [_version(path) for path in (source, *own_sidecars(source))]
    else:
        return None
    if shared not in known:
        known[shared] = _version(shared)
    return hashlib.blake2b(repr([*own, known[shared]]).encode(), digest_size=8).hexdigest()


def _version(path: Path | str) -> tuple[int, int] | None:
    """Size and time of change of a file; None where it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


class Changes:
    """Tells the rows whose frames have changed files, and remembers these frames.

    Args:
        frames: the frames, `stamped`.

    Attributes:
        changed: ids of the frames whose rows were told so far.
    """

    def __init__(self, frames: Iterable[Frame]):
        self._stamps = {frame.number: frame.stamp for frame in frames}
        self.changed: list[str] = []

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether the file of a row's frame has changed since the row was made; False where that is not known."""
        stamp, former = self._stamps.get(row["number"]), row.get("stamp")
        if stamp is None or former is None or stamp == former:
            return False
        self.changed.append(row["frame"])
        return True


def tell_changes(changed: Sequence[str]) -> None:
    """Logs a warning about frames whose files have changed, if there are any.

    Args:
        changed: their ids.
    """
    if changed:
        logger.warning("computed again, since the file has changed: %s", first_few(changed, longest=200))


def digest_of(frames: Iterable[Frame]) -> str:
    """SHA-256 of the ids, hexadecimal, by which a resumed run tells that it goes through the same frames."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.id.encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()


def _is_tar(text: str) -> bool:
    return (name_of(text) if is_url(text) else text).lower().endswith(TAR)


def _remote_and_tars(text: str, missing: list[tuple[str, str]]) -> Iterator[tuple[str | TarMember, Path]]:
    """Yields the raws of a URL or of a local pattern of tar files, each with its relative path.

    A shard that cannot be used is added to `missing`, with the reason, and costs no other one.
    """
    if is_url(text):
        found: list[tuple[str, Path]] = find_remote(text)
    else:
        found = [(path, Path(path)) for path in (sorted(glob.glob(text)) if glob.has_magic(text) else [text])]
        if not found:
            raise RawFileError(f"{text}: nothing matches; check the pattern")
    for source, relative in found:
        if _is_tar(source):
            try:
                yield from ((member, local_path(member)) for member in members(source))
            except RawFileError as error:
                missing.append((without_secrets(source), str(error)))
        else:
            yield source, relative

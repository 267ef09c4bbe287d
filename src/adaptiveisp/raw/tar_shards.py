"""Raws in tar files, the shards of data sets such as WebDataset's; a raw is read from its place, without unpacking."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from adaptiveisp.errors import AdaptiveISPError, RawFileError, logger, unreadable
from adaptiveisp.raw.extensions import KNOWN_EXTENSIONS
from adaptiveisp.raw.remote import SIDECAR_EXTENSIONS, is_url, open_remote, read_remote, unreadable_remote

LARGEST_PADDING = 1 << 20
"""Bytes after the end of a tar file in which a following one is looked for."""


@dataclass(frozen=True)
class TarMember:
    """A raw in a tar file.

    Attributes:
        shard: path or URL of the tar file.
        name: its name there.
        offset: place of its first byte.
        size: number of its bytes.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}::{self.name}"

    def read(self) -> bytes:
        """Its content.

        Raises:
            RawFileError: the shard cannot be read, or is shorter than it was.
        """
        if is_url(self.shard):
            content = read_remote(self.shard, self.offset, self.size)
        else:
            try:
                with open(self.shard, "rb") as stream:
                    stream.seek(self.offset)
                    content = stream.read(self.size)
            except OSError as error:
                raise RawFileError(unreadable(self, error)) from None
        if len(content) != self.size:
            raise RawFileError(f"{self}: is cut off after {len(content)} of {self.size} bytes; copy the shard again")
        return content


def members(shard: str) -> list[TarMember]:
    """The raws of a shard in their order, by its headers alone; without hidden files and links, which it warns of.

    A shard is used as a whole or not at all: one that is cut off, damaged or joined to another one is refused, where
    Python's reader would end without a word.

    Args:
        shard: path or URL of an uncompressed tar file.

    Raises:
        RawFileError: it cannot be read, is damaged or compressed, holds a name twice, or holds no raws.
    """
    found: dict[str, TarMember] = {}
    sidecars, links = 0, 0
    try:
        with open_remote(shard) if is_url(shard) else open(shard, "rb") as stream:
            for entry in _entries(stream, shard):
                name = PurePosixPath(entry.name)
                sidecars += name.suffix.lower() in SIDECAR_EXTENSIONS
                if name.suffix.lower() not in KNOWN_EXTENSIONS or _is_hidden(name):
                    continue
                links += entry.issym() or entry.islnk()
                if not entry.isreg() or entry.issparse():
                    continue
                if entry.name in found:
                    raise RawFileError(f"{shard}: holds {entry.name} twice; write the shard again")
                if entry.name.encode("utf-8", "replace").decode() != entry.name:
                    raise RawFileError(f"{shard}: the name {entry.name} in it is not UTF-8; write the shard again")
                found[entry.name] = TarMember(shard, entry.name, entry.offset_data, entry.size)
    except tarfile.TarError as error:
        raise RawFileError(f"{shard}: is no tar file, or damaged ({error}); give an uncompressed .tar") from error
    except AdaptiveISPError:
        raise
    except Exception as error:  # each protocol has errors of its own
        if is_url(shard):
            raise unreadable_remote(shard, error, "be read") from error
        if isinstance(error, OSError):
            raise RawFileError(unreadable(shard, error)) from None
        raise
    if sidecars:
        logger.warning("%s: its .yaml files are not read; give facts of raws without a header as options", shard)
    if links:
        logger.warning("%s: %d links to raws are not read; write the files themselves into the shard", shard, links)
    if not found:
        raise RawFileError(f"{shard}: holds no raw files; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")
    return list(found.values())


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.parts)


def _entries(stream: Any, shard: str) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar file; those that were read are forgotten, since a shard may hold any number."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            yield entry
        _check_end(stream, archive.offset, shard)


def _check_end(stream: Any, end: int, shard: str) -> None:
    """Refuses a tar file whose headers end at anything but a block of zeros, or that goes on after its end.

    Args:
        stream: the open file.
        end: place of the block at which its reader stopped.
        shard: for errors.

    Raises:
        RawFileError: it is cut off, damaged, or followed by another one.
    """
    stream.seek(end)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise RawFileError(
            f"{shard}: is cut off after {end} bytes, without the mark of its end; copy or write it again"
        )
    if any(block):
        raise RawFileError(f"{shard}: is damaged at byte {end}, where a header should be; copy or write it again")
    size = stream.seek(0, 2)
    if (size if size is not None else stream.tell()) - end > tarfile.RECORDSIZE:  # more than the usual padding
        stream.seek(end)
        if any(stream.read(LARGEST_PADDING)):
            raise RawFileError(f"{shard}: goes on after its end, as joined tar files do; give each one by itself")


def local_path(member: TarMember) -> Path:
    """The path by which the outputs of a raw are named: the shard's name, then the raw's own."""
    parts = [part for part in PurePosixPath(member.name).parts if part not in ("/", "..", ".")]
    return Path(PurePosixPath(member.shard.split("?")[0]).stem, *parts)

"""Raws in tar files, the shards of data sets such as WebDataset's; a raw is read from its place, without unpacking."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from adaptiveisp.errors import RawFileError, logger, unreadable
from adaptiveisp.raw.extensions import KNOWN_EXTENSIONS
from adaptiveisp.raw.remote import SIDECAR_EXTENSIONS, is_url, open_remote, read_remote


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


def members(shard: str) -> Iterator[TarMember]:
    """Yields the raws of a shard in their order, by its headers alone; without links and hidden files.

    Args:
        shard: path or URL of an uncompressed tar file.

    Raises:
        RawFileError: it cannot be read, is damaged or compressed, holds a name twice, or holds no raws.
    """
    seen: set[str] = set()
    sidecars = 0
    try:
        with open_remote(shard) if is_url(shard) else open(shard, "rb") as stream:
            for entry in _entries(stream):
                name = PurePosixPath(entry.name)
                sidecars += name.suffix.lower() in SIDECAR_EXTENSIONS
                if not entry.isreg() or entry.issparse() or name.suffix.lower() not in KNOWN_EXTENSIONS:
                    continue
                if any(part.startswith(".") and part != "." for part in name.parts):
                    continue
                if entry.name in seen:
                    raise RawFileError(f"{shard}: holds {entry.name} twice; write the shard again")
                seen.add(entry.name)
                yield TarMember(shard, entry.name, entry.offset_data, entry.size)
    except tarfile.TarError as error:
        raise RawFileError(f"{shard}: is no tar file, or damaged ({error}); give an uncompressed .tar") from error
    except OSError as error:
        raise RawFileError(unreadable(shard, error)) from None
    if sidecars:
        logger.warning("%s: its .yaml files are not read; give facts of raws without a header as options", shard)
    if not seen:
        raise RawFileError(f"{shard}: holds no raw files; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")


def _entries(stream: Any) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar file; those that were read are forgotten, since a shard may hold any number."""
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            yield entry


def local_path(member: TarMember) -> Path:
    """The path by which the outputs of a raw are named: the shard's name, then the raw's own."""
    parts = [part for part in PurePosixPath(member.name).parts if part not in ("/", "..", ".")]
    return Path(PurePosixPath(member.shard.split("?")[0]).stem, *parts)

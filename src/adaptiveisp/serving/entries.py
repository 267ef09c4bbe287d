"""What the viewer was given: images, reports, runs and streams, each by an id that says nothing about its path."""

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from adaptiveisp.errors import AdaptiveISPError, RawFileError
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.types import Annotation, RawImage


class NotGivenError(AdaptiveISPError):
    """A request names something that the viewer was not given."""


class BusyError(AdaptiveISPError):
    """Too many computations wait already."""


class TooLargeError(AdaptiveISPError):
    """A request holds more than the viewer takes."""


@dataclass(frozen=True)
class Place:
    """A file that was given, and the folder that it must not leave by a link.

    Attributes:
        path: the file.
        root: the given folder, resolved; None for a file that was named by itself.
        target: the resolved file when it was found.
    """

    path: Path
    root: Path | None
    target: Path

    @classmethod
    def of(cls, path: Path, root: Path | None = None) -> "Place":
        """The place of a file.

        Raises:
            NotGivenError: it leads out of the folder by a link.
        """
        place = cls(path, None if root is None else Path(os.path.realpath(root)), Path(os.path.realpath(path)))
        return place.checked()

    def checked(self) -> "Place":
        """The place itself, if the file still leads to where it may.

        Raises:
            NotGivenError: it leads elsewhere by now.
        """
        now = Path(os.path.realpath(self.path))
        allowed = now == self.target if self.root is None else now.is_relative_to(self.root)
        if not allowed:
            raise NotGivenError(f"{self.path.name}: is a link out of the folder that was given; give its target itself")
        return self


@dataclass(frozen=True)
class ImageEntry:
    """An image that the page can open.

    Attributes:
        name: shown; text from a file.
        group: the input that it belongs to.
        read: reads the raw.
        annotations: its labels, in pixels of the upright full frame; None where it has none.
        categories: category id → name of the labels.
        light: brightness factor in (0, 1], None if unknown.
        key: (photo, draw) in its data set.
        file: the raw file, for the command line; None where it is made on the fly.
        uploaded: whether it lies in the temporary folder.
        header: facts that the command line gave about the file.
    """

    name: str
    group: str
    read: Callable[[], RawImage] = field(repr=False)
    annotations: tuple[Annotation, ...] | None = None
    categories: Mapping[int, str] = field(default_factory=dict)
    light: float | None = None
    key: tuple[int, int] | None = None
    file: Path | None = None
    uploaded: bool = False
    header: BayerHeader | None = None


def file_entry(place: Place, name: str, group: str, header: BayerHeader | None, **more: Any) -> ImageEntry:
    """The entry of a raw file."""

    def read() -> RawImage:
        path = place.checked().path
        try:
            return read_raw(path, header)
        except AdaptiveISPError as error:  # name the file as the page does
            raise type(error)(str(error).replace(str(path), name)) from None

    return ImageEntry(name, group, read, file=place.path, header=header, **more)


Entry = TypeVar("Entry")


class Shelf(Generic[Entry]):
    """Entries by opaque ids, in the order they were added; threads may share it.

    Args:
        kind: of the entries, for errors.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> str:
        """Adds an entry and returns its id."""
        name = secrets.token_hex(6)
        with self._lock:
            self._entries[name] = entry
        return name

    def find(self, name: object) -> Entry:
        """The entry of an id.

        Raises:
            NotGivenError: there is none.
        """
        with self._lock:
            if not isinstance(name, str) or name not in self._entries:
                raise NotGivenError(f"there is no such {self.kind}; reload the page")
            return self._entries[name]

    def remove(self, name: str) -> None:
        """Removes an entry, if it is there."""
        with self._lock:
            self._entries.pop(name, None)

    def items(self) -> list[tuple[str, Entry]]:
        """Ids and entries."""
        with self._lock:
            return list(self._entries.items())

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class FolderEntry:
    """A report, a run or the output of a stream.

    Attributes:
        name: shown.
        path: the folder, or the file of a stream.
    """

    name: str
    path: Path

    def file(self, *parts: str) -> Path:
        """A file of a fixed name in the folder.

        Raises:
            NotGivenError: it leads out of the folder by a link.
            RawFileError: the name is no plain one.
        """
        if any(part in ("", ".", "..") or "/" in part or "\\" in part or "\0" in part for part in parts):
            raise RawFileError(f"{'/'.join(parts)[:80]!r}: is no plain name")
        return Place.of(self.path.joinpath(*parts), self.path).path


@dataclass
class Catalogue:
    """Everything that the viewer was given.

    Attributes:
        images, reports, runs, streams: the entries.
        first: the page that opens: "image", "report", "training" or "stream".
        notes: sentences for the reader, such as links that were left out.
    """

    images: Shelf[ImageEntry] = field(default_factory=lambda: Shelf("image"))
    reports: Shelf[FolderEntry] = field(default_factory=lambda: Shelf("report"))
    runs: Shelf[FolderEntry] = field(default_factory=lambda: Shelf("run"))
    streams: Shelf[FolderEntry] = field(default_factory=lambda: Shelf("stream"))
    first: str = ""
    notes: list[str] = field(default_factory=list)

    def opens_with(self, page: str) -> None:
        """Lets a page open first, unless an earlier input decided already."""
        self.first = self.first or page

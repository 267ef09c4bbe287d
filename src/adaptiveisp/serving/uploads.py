"""Raws that were dropped on the page: bounded in size, number and pixels, in a folder that is removed at the end."""

import os
import tempfile
import threading
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import TracebackType

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError, one_line
from adaptiveisp.raw.extensions import KNOWN_EXTENSIONS, PHOTO_EXTENSIONS, PHOTO_REMEDY
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.serving.catalogue_view import image_view
from adaptiveisp.serving.entries import Catalogue, Place, TooLargeError, file_entry
from adaptiveisp.serving.limits import MOST_NAME, MOST_PIXELS, MOST_UPLOAD, MOST_UPLOADED, MOST_UPLOADS
from adaptiveisp.serving.requests import answer, body_into

GROUP = "dropped here"


class Uploads:
    """The temporary folder of dropped raws; a context manager, whose end removes it.

    Args:
        catalogue: to which the raws are added.
        header: facts of the command line about raws without a header.
    """

    def __init__(self, catalogue: Catalogue, header: BayerHeader | None = None):
        self.catalogue, self.header = catalogue, header
        self._folder = tempfile.TemporaryDirectory(prefix="adaptiveisp-view-", ignore_cleanup_errors=True)
        self._lock = threading.Lock()
        self._files: dict[str, tuple[Path, int]] = {}
        self._reserved: dict[Path, int] = {}
        self._number = 0

    @property
    def folder(self) -> Path:
        """The temporary folder."""
        return Path(self._folder.name)

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    async def take(self, request: Request) -> Response:
        """Takes the body of a request as a raw, whose name is in the address."""
        name = plain_name(request.query_params.get("name", ""))
        suffix = os.path.splitext(name)[1].lower()
        if suffix in PHOTO_EXTENSIONS:
            raise RawFileError(f"{name}: {PHOTO_REMEDY}")
        if suffix not in KNOWN_EXTENSIONS:
            raise RawFileError(f"{name}: is no raw file; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")
        path, room = self._reserve(suffix)
        kept = False
        try:
            length = await body_into(request, path, room)
            await run_in_threadpool(check_pixels, path, name, self.header)
            place = Place.of(path, self.folder)
            entry = file_entry(place, name, GROUP, self.header, uploaded=True)
            key = self.catalogue.images.add(entry)
            with self._lock:
                self._files[key] = path, length
            kept = True
        except AdaptiveISPError as error:  # name the file as its owner knows it
            raise type(error)(str(error).replace(str(path), name)) from None
        finally:
            with self._lock:
                self._reserved.pop(path, None)
            if not kept:
                path.unlink(missing_ok=True)
        return answer(image_view(key, entry))

    def drop(self, key: str) -> None:
        """Removes a dropped raw; other images stay."""
        with self._lock:
            path, _ = self._files.pop(key, (None, 0))
        if path is not None:
            self.catalogue.images.remove(key)
            path.unlink(missing_ok=True)

    def _reserve(self, suffix: str) -> tuple[Path, int]:
        """The place of the next raw, and the bytes that are left for it.

        Raises:
            TooLargeError: there are too many.
        """
        with self._lock:
            if len(self._files) + len(self._reserved) >= MOST_UPLOADS:
                raise TooLargeError(f"{MOST_UPLOADS} dropped raws are kept already; remove some from the list first")
            used = sum(length for _, length in self._files.values()) + sum(self._reserved.values())
            room = min(MOST_UPLOAD, MOST_UPLOADED - used)
            if room <= 0:
                raise TooLargeError("the dropped raws fill their room; remove some from the list first")
            self._number += 1
            path = self.folder / f"upload-{self._number}{suffix}"
            self._reserved[path] = room  # until it is there, so that raws that come together keep the bound
            return path, room


def plain_name(name: str) -> str:
    """The name of a dropped file for the page, without folders.

    Raises:
        UsageError: there is none, or it is too long.

    >>> plain_name("../../etc/a.dng"), plain_name(r"C:\\\\x\\\\b.dng")
    ('a.dng', 'b.dng')
    """
    short = PureWindowsPath(PurePosixPath(name).name).name
    if not short.strip(". "):
        raise UsageError("the address must hold the name of the file")
    if len(short) > MOST_NAME:
        raise UsageError(f"the name of the file has more than {MOST_NAME} characters; shorten it")
    return one_line(short)


def check_pixels(path: Path, name: str, header: BayerHeader | None) -> None:
    """Refuses a file whose header states too many pixels, before any of them is read.

    Raises:
        TooLargeError: it does.
        RawFileError: its header cannot be read.
    """
    width, height = raw_size(path, header)
    if width * height > MOST_PIXELS:
        limit = f"{MOST_PIXELS // 1_000_000} MP"
        raise TooLargeError(f"{name}: states {width}x{height} pixels, more than {limit}; give it on the command line")

"""Developed frames on disk, for runs that see the same raws again: decoding and demosaicing cost more than all else.

A frame is a .npy file, mapped into memory, so that several runs share it and none holds it. Its name is a hash of the
raw's content and of all settings that made it; behind the array stand the size of the full frame and a checksum of
pixels and name, so that a frame which was copied over another is found out. Files appear whole (`files.atomic_path`);
one that is missing or damaged is made again. Where the folder is full, the frames that were not used for longest give
way.
"""

import hashlib
import os
import re
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import OutputError, RawFileError, UsageError, logger
from adaptiveisp.kernels import forward as native
from adaptiveisp.raw.camera import camera_facts
from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader, find_header
from adaptiveisp.utils.files import atomic_path, remove_abandoned
from adaptiveisp.utils.output_folder import mark_shared_folder

LIMIT_VARIABLE = "ADAPTIVEISP_FRAMES_GB"
"""Environment variable with the most gigabytes a cache folder may hold."""
DEFAULT_LIMIT_GB = 20.0
KEPT_SHARE = 0.9
"""How full a folder is after frames gave way: if it were 1, each new frame would look through all again."""
FRAME_NAME = re.compile(r"[0-9a-f]{40}\.npy")
"""What a frame is called; nothing else in the folder is ever removed."""
FORMAT = "adaptiveisp-frame-4"
"""Part of each key: a change of what `develop` or the resizing makes needs another number here."""
_TRAILER = np.dtype([("magic", "S8"), ("width", "<u4"), ("height", "<u4"), ("checksum", "<u4")])
_MAGIC = b"AISPFRM2"


class Frame(NamedTuple):
    """A developed frame.

    Attributes:
        pixels: (3, height, width), of the type it was stored with.
        full_size: (width, height) of the upright full frame.
        mapped: the pixels lie in the file, so that there is no need to keep them in memory.
    """

    pixels: Tensor
    full_size: tuple[int, int]
    mapped: bool


class FrameCache:
    """A folder of developed frames; any number of processes may use it at once.

    Args:
        folder: made if missing.
        limit_gb: the most it may hold, in 10^9 bytes; None takes `LIMIT_VARIABLE`, or `DEFAULT_LIMIT_GB`.

    Raises:
        OutputError: the folder cannot be made or written.
        UsageError: the limit is no positive number, or the folder holds files and was not made as a cache.
    """

    def __init__(self, folder: Path, limit_gb: float | None = None):
        self.folder = Path(folder)
        self.limit = round(1e9 * (_limit_from_environment() if limit_gb is None else limit_gb))
        mark_shared_folder(self.folder, "cache", "--cache")
        if not os.access(self.folder, os.W_OK):
            raise OutputError(f"{self.folder}: cannot be written to; choose another --cache")
        remove_abandoned(self.folder)
        self._checked: set[str] = set()
        self._warned = False

    def key(self, path: Path, header: BayerHeader | None, settings: str) -> str:
        """The name of a frame: a hash of the raw's bytes, of what is known of it, and of the settings.

        Args:
            path: the raw file.
            header: as for `read_raw`.
            settings: all that decides what is made of the raw, as text.

        Raises:
            RawFileError: the file cannot be read.
        """
        try:
            with open(path, "rb") as stream:
                content = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=20))
        except OSError as error:
            raise RawFileError(f"{path}: cannot be read ({error.strerror or error}); check its name") from None
        # The compiled kernels and PyTorch agree to rounding only, and a run must not depend on who came first.
        is_camera = path.suffix.lower() in CAMERA_EXTENSIONS
        declared = camera_facts(path, header)[0] if is_camera else find_header(path, header)
        facts = (FORMAT, path.suffix.lower(), declared, settings, native.available())
        content.update(repr(facts).encode())
        return content.hexdigest()

    def get(self, key: str, make: Callable[[], tuple[Tensor, tuple[int, int]]]) -> Frame:
        """The frame of a key, made and stored if there is none that can be used.

        Args:
            key: from `key`.
            make: gives the pixels and the (width, height) of the full frame.
        """
        found = self.find(key)
        if found is not None:
            return found
        pixels, full_size = make()
        self._store(key, pixels, full_size)
        return self.find(key) or Frame(pixels, full_size, False)

    def find(self, key: str) -> Frame | None:
        """The frame of a key, None where there is none or it is damaged."""
        path = self._path(key)
        try:
            pixels: Any = np.load(path, mmap_mode="c", allow_pickle=False)
            with path.open("rb") as stream:
                stream.seek(pixels.offset + pixels.nbytes)
                trailer = np.frombuffer(stream.read(), _TRAILER)
            if len(trailer) != 1 or trailer["magic"][0] != _MAGIC or pixels.ndim != 3:
                raise ValueError("damaged")
            if key not in self._checked:  # the first time only: it reads the whole file
                if _checksum(key, pixels) != trailer["checksum"][0]:
                    raise ValueError("damaged")
                self._checked.add(key)
            os.utime(path)  # how lately it was used
        except FileNotFoundError:
            return None
        # A damaged header is a damaged Python literal, which raises whatever Python's parser does.
        except Exception as error:
            logger.debug("%s: made again (%s)", path, error)
            return None
        full_size = (int(trailer["width"][0]), int(trailer["height"][0]))
        return Frame(torch.from_numpy(np.asarray(pixels)), full_size, True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _store(self, key: str, pixels: Tensor, full_size: tuple[int, int]) -> None:
        """Writes a frame; a cache that cannot be written is no reason to stop, so it says so once."""
        array = np.ascontiguousarray(pixels.numpy())
        if array.nbytes > self.limit:
            return
        trailer = np.array([(_MAGIC, *full_size, _checksum(key, array))], _TRAILER)
        self._checked.discard(key)
        try:
            with atomic_path(self._path(key)) as temporary, temporary.open("wb") as stream:
                np.save(stream, array, allow_pickle=False)
                stream.write(trailer.tobytes())
            self._make_room()
        except OutputError as error:
            if not self._warned:
                logger.warning("the cache keeps no more frames: %s", error)
            self._warned = True

    def _make_room(self) -> None:
        """Removes the frames that were not used for longest until the folder is within its limit."""
        entries = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:  # another process was faster
                continue
            if FRAME_NAME.fullmatch(entry.name) and stat.S_ISREG(facts.st_mode):
                entries.append((facts.st_mtime, facts.st_size, entry.path))
        total = sum(size for _, size, _ in entries)
        if total <= self.limit:
            return
        for _, size, path in sorted(entries):
            if total <= KEPT_SHARE * self.limit:
                return
            try:
                os.unlink(path)
            except OSError:  # gone already, or open elsewhere on a system that minds
                continue
            total -= size


def _checksum(key: str, pixels: NDArray[Any]) -> int:
    return zlib.crc32(pixels.data, zlib.crc32(key.encode()))


def _limit_from_environment() -> float:
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise UsageError(f"{LIMIT_VARIABLE}={text}: must be a number of gigabytes above 0, for instance 20")
    return limit


def open_cache(folder: str | Path | None) -> FrameCache | None:
    """The cache of a folder, None where none is wanted.

    Raises:
        OutputError, UsageError: see `FrameCache`.
    """
    return FrameCache(Path(folder)) if folder else None

"""Caches developed frames on disk, since most of a run's time is spent on decoding and demosaicing.

A frame is a .npy file that is mapped into memory, so that several runs share its pages. Its name is a hash of the raw's
content and of all settings that affect the frame. The array is followed by the size of the full frame and a checksum of
pixels and name, which detects a frame that was copied over another. Files are written atomically (`files.atomic_path`),
and a missing or damaged frame is made again. If the folder is full, the least recently used frames are removed.
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

from adaptiveisp.errors import OutputError, RawFileError, UsageError, logger, unreadable
from adaptiveisp.kernels.registry import available
from adaptiveisp.raw.camera import camera_facts
from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.shading import NO_SHADING
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.utils import defaults
from adaptiveisp.utils.files import atomic_path, read_blocks, remove_abandoned
from adaptiveisp.utils.output_folder import mark_shared_folder

LIMIT_VARIABLE = "ADAPTIVEISP_FRAMES_GB"
"""Environment variable with the limit of a cache folder in gigabytes (10^9 bytes)."""
KEPT_SHARE = 0.9
"""Share of the limit down to which frames are removed; with 1, every new frame would need a listing of the folder."""
FRAME_NAME = re.compile(r"[0-9a-f]{40}\.npy")
"""Name of a frame's file; files with other names are never removed."""
FORMAT = "adaptiveisp-frame-4"
"""Part of each key; the number must change when the results of `develop` or of the resizing change."""
_TRAILER = np.dtype([("magic", "S8"), ("width", "<u4"), ("height", "<u4"), ("checksum", "<u4")])
_MAGIC = b"AISPFRM2"


class Frame(NamedTuple):
    """A developed frame.

    Attributes:
        pixels: (3, height, width), in the type in which they were stored.
        full_size: (width, height) of the upright full frame.
        mapped: whether the pixels are mapped from the file and need not be kept in memory.
    """

    pixels: Tensor
    full_size: tuple[int, int]
    mapped: bool


class FrameCache:
    """A folder of developed frames, which any number of processes may use at once.

    Args:
        folder: the folder, which is made if it is missing.
        limit_gb: limit of its size in 10^9 bytes; None takes `LIMIT_VARIABLE`, or `defaults.FRAME_CACHE_GB` without it.

    Raises:
        OutputError: the folder cannot be made or written.
        UsageError: the limit is no positive number, or the folder holds files and is not marked as a cache.
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
        """The key of a frame: a hash of the raw's bytes, of the facts known about it, and of the settings.

        Args:
            path: the raw file.
            header: facts about it, as for `read_raw`.
            settings: all settings on which the frame depends, as text.

        Raises:
            RawFileError: the file cannot be read.
        """
        try:
            content = hashlib.blake2b(digest_size=20)
            for block in read_blocks(path):
                content.update(block)
        except OSError as error:
            raise RawFileError(unreadable(path, error)) from None
        # Kernels and PyTorch differ by rounding, and results must not depend on which of them filled the cache.
        is_camera = path.suffix.lower() in CAMERA_EXTENSIONS
        declared = camera_facts(path, header)[0] if is_camera else find_header(path, header)
        facts = (FORMAT, path.suffix.lower(), declared, settings, available())
        content.update(repr(facts).encode())
        if declared.shading not in (None, NO_SHADING):
            content.update(hashlib.blake2b(_bytes_of(str(declared.shading))).digest())
        return content.hexdigest()

    def get(self, key: str, make: Callable[[], tuple[Tensor, tuple[int, int]]]) -> Frame:
        """The frame of a key, which is made and stored if the cache has no usable one.

        Args:
            key: from `key`.
            make: function that returns the pixels and the (width, height) of the full frame.
        """
        found = self.find(key)
        if found is not None:
            return found
        pixels, full_size = make()
        self._store(key, pixels, full_size)
        return self.find(key) or Frame(pixels, full_size, False)

    def find(self, key: str) -> Frame | None:
        """The frame of a key; None if it is missing or damaged."""
        path = self._path(key)
        try:
            pixels: Any = np.load(path, mmap_mode="c", allow_pickle=False)
            with path.open("rb") as stream:
                stream.seek(pixels.offset + pixels.nbytes)
                trailer = np.frombuffer(stream.read(), _TRAILER)
            if len(trailer) != 1 or trailer["magic"][0] != _MAGIC or pixels.ndim != 3:
                raise ValueError("damaged")
            if key not in self._checked:  # checked only once, since the check reads the whole file
                if _checksum(key, pixels) != trailer["checksum"][0]:
                    raise ValueError("damaged")
                self._checked.add(key)
            os.utime(path)  # the time of the last use
        except FileNotFoundError:
            return None
        # A damaged header is an invalid Python literal, which can cause any error of Python's parser.
        except Exception as error:
            logger.debug("%s: made again (%s)", path, error)
            return None
        full_size = (int(trailer["width"][0]), int(trailer["height"][0]))
        return Frame(torch.from_numpy(np.asarray(pixels)), full_size, True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def _store(self, key: str, pixels: Tensor, full_size: tuple[int, int]) -> None:
        """Writes a frame. If the cache cannot be written, the run goes on after one warning."""
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
        """Removes the least recently used frames if the folder exceeds its limit."""
        entries = []
        for entry in os.scandir(self.folder):
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:  # another process removed it
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
            except OSError:  # removed already, or open in another process on a system that forbids it
                continue
            total -= size


def _checksum(key: str, pixels: NDArray[Any]) -> int:
    return zlib.crc32(pixels.data, zlib.crc32(key.encode()))


def _limit_from_environment() -> float:
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else defaults.FRAME_CACHE_GB
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise UsageError(f"{LIMIT_VARIABLE}={text}: must be a number of gigabytes above 0, for instance 20")
    return limit


def open_cache(folder: str | Path | None) -> FrameCache | None:
    """The cache in a folder; None for an empty name.

    Raises:
        OutputError, UsageError: see `FrameCache`.
    """
    return FrameCache(Path(folder)) if folder else None


def _bytes_of(path: str) -> bytes:
    """The content of a file; empty if it cannot be read, which reading the raw reports."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""

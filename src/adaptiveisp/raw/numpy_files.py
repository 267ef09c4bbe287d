"""Reads the arrays in .npy and .npz files, frame by frame; pickled objects are never loaded."""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, UsageError, shown
from adaptiveisp.raw.array_files import NPY_MAGIC, first_line, require_sane_size
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.stacks import frames_in
from adaptiveisp.types import Remark

FRAME_KEYS = ("raw", "mosaic", "frames")
"""Names under which an .npz file holds its frames; the only array of a file may have any name."""
FACT_KEYS = ("pattern", "black", "white")
"""Names under which an .npz file states facts."""
_LONGEST_FACT = 16 * 1024
"""Most bytes of a fact with the header of its array."""
_LARGEST_RATIO = 1100
"""Most bytes of values for each compressed byte. Source: zlib's technical details, 1032 for deflate."""
_PIECE = 1 << 20


class StoredArray(NamedTuple):
    """An array in a file.

    Attributes:
        shape: its shape.
        n_frames: number of its frames; None if it is a single one.
        read: returns frame k of a stack, and the whole array if it is none.
        facts: pattern and levels that the file states.
        remarks: remarks on what is not used.
    """

    shape: tuple[int, ...]
    n_frames: int | None
    read: Callable[[int], NDArray[Any]]
    facts: BayerHeader = BayerHeader()
    remarks: tuple[Remark, ...] = ()


@contextmanager
def opened_array(path: Path, header: BayerHeader) -> Iterator[StoredArray]:
    """Opens the array of a .npy or .npz file.

    Args:
        path: the file.
        header: declared facts, which tell a stack from RGB where a shape may be either.

    Raises:
        RawFileError: the file is damaged or of another kind, holds objects, or several arrays without known names.
    """
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                yield _array_of_archive(archive, path, header)
        else:
            yield _mapped(path, header)
    except (OSError, RawFileError, UsageError):
        raise
    # The header is a Python literal, so a damaged one can cause any error of Python's parser; zlib has its own.
    except Exception as error:
        raise RawFileError(f"{path}: is damaged or holds no numbers ({first_line(error)}); save it again") from None


def _require_sane_frame(path: Path, shape: tuple[int, ...], header: BayerHeader) -> int | None:
    """The number of frames of a stack, or None; frames must not be larger than any camera's."""
    count = frames_in(shape, header)
    frame = shape if count is None else shape[1:]
    # (height, width, colours) or (colours, height, width): the two largest sides are those of the picture.
    sides = sorted(frame)[-2:]
    require_sane_size(path, math.prod(sides))
    if len(frame) > 2 and math.prod(frame) > 4 * math.prod(sides):
        shown_shape = "x".join(map(str, shape))
        raise RawFileError(f"{path}: has shape {shown_shape}; save it with one channel (mosaic) or three (RGB)")
    return count


def _mapped(path: Path, header: BayerHeader) -> StoredArray:
    """The array of a .npy file, of which only the frames that are read take memory."""
    with path.open("rb") as stream:
        if stream.read(len(NPY_MAGIC)) != NPY_MAGIC:
            raise RawFileError(f"{path}: is not a .npy file; give it the extension of its real format")
    # A header can state any shape. Mapping a file that is too short fails before memory is allocated.
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    count = _require_sane_frame(path, mapped.shape, header)
    return StoredArray(mapped.shape, count, lambda k: np.array(mapped if count is None else mapped[k]))


def _array_of_archive(archive: zipfile.ZipFile, path: Path, header: BayerHeader) -> StoredArray:
    """The frames in an .npz file, with its facts.

    Raises:
        RawFileError: no array has a known name and there are several, or a fact is impossible.
    """
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    own = [key for key in FRAME_KEYS if key in members]
    others = sorted(set(members) - {*FRAME_KEYS, *FACT_KEYS})
    named = own or others
    if len(named) != 1:
        found = f"holds the arrays {', '.join(map(shown, named[:8]))}" if named else "holds no array of frames"
        raise RawFileError(f"{path}: {found}; save the frames under the key raw, numpy.savez('{path.name}', raw=…)")
    remarks = []
    if own and others:
        text = f"{path}: its keys {', '.join(others[:8])} are not used; known are {', '.join((*own, *FACT_KEYS))}"
        remarks.append(Remark("keys that are not used", text))
    facts = _facts(archive, members, path)
    reader = _Member(archive, members[named[0]], path)
    count = _require_sane_frame(path, reader.shape, header)
    read = reader.whole if count is None else reader.part
    return StoredArray(reader.shape, count, read, facts, tuple(remarks))


def _facts(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], path: Path) -> BayerHeader:
    """Pattern and levels of an .npz file."""
    values: dict[str, Any] = {}
    for key in FACT_KEYS:
        if key in members:
            if members[key].file_size > _LONGEST_FACT:
                raise RawFileError(f"{path}: its key {key} holds too much for a fact; save a number or a name")
            found = _Member(archive, members[key], path, kinds="uifUS").whole().ravel().tolist()
            values[key] = found[0] if len(found) == 1 else tuple(found)
    if isinstance(values.get("pattern"), bytes):
        values["pattern"] = values["pattern"].decode("latin-1")
    for key, value in values.items():
        four = key == "black" and isinstance(value, tuple) and len(value) == 4
        if not isinstance(value, str if key == "pattern" else int | float) and not four:
            wanted = {"pattern": "a name such as 'RGGB'", "black": "one number or four"}.get(key, "a number")
            raise RawFileError(f"{path}: its key {key} is {shown(value)}; save {wanted}")
    try:
        return BayerHeader(**values)
    except UsageError as error:
        raise RawFileError(f"{path}: its keys make no sense ({error}); save it again") from None


class _Member:
    """An array in an archive, read from the front to the back.

    Args:
        archive: the open archive.
        info: its member.
        path: the file, for messages.
        kinds: allowed kinds of values, as NumPy abbreviates them.

    Attributes:
        shape: shape of the array.

    Raises:
        RawFileError: the array states more than its member holds.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, kinds: str = "uif"):
        self._archive, self._info, self._path, self._kinds = archive, info, path, kinds
        self._stream, self._next = self._begin(), 0
        size = math.prod(self.shape) * self._dtype.itemsize
        held = info.file_size - self._stream.tell()
        if size != held or info.file_size > _LARGEST_RATIO * max(info.compress_size, 1):
            sides = "x".join(map(str, self.shape))
            raise RawFileError(f"{path}: is damaged or truncated: too short for {sides} values; copy it again")

    def _begin(self) -> zipfile.ZipExtFile:
        """The member, opened behind the header of its array."""
        stream: Any = self._archive.open(self._info)
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise RawFileError(f"{self._path}: has fields with names; save a plain array")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._by_columns, self._dtype = read(stream)
        if self._dtype.kind not in self._kinds:
            raise RawFileError(f"{self._path}: holds {self._dtype} values; save integers or floats")
        opened: zipfile.ZipExtFile = stream
        return opened

    def whole(self, _number: int = 0) -> NDArray[Any]:
        """The whole array."""
        with self._begin() as stream:
            values = np.frombuffer(self._exactly(stream, math.prod(self.shape) * self._dtype.itemsize), self._dtype)
            stream.read(1)  # at its end, the checksum is compared
        return values.reshape(self.shape, order="F" if self._by_columns else "C")

    def part(self, number: int) -> NDArray[Any]:
        """Entry `number` of the first axis; reading them in order is fast."""
        if self._by_columns:
            require_sane_size(self._path, math.prod(self.shape))
            return np.ascontiguousarray(self.whole()[number])
        if number < self._next:
            self._stream, self._next = self._begin(), 0
        size = math.prod(self.shape[1:]) * self._dtype.itemsize
        while self._next < number:
            self._next += 1
            self._exactly(self._stream, size, keep=False)
        self._next += 1
        values = np.frombuffer(self._exactly(self._stream, size), self._dtype).reshape(self.shape[1:])
        if self._next == self.shape[0]:
            self._stream.read(1)  # at its end, the checksum is compared
        return values

    def _exactly(self, stream: zipfile.ZipExtFile, size: int, keep: bool = True) -> bytes:
        """The next `size` bytes, or nothing if they are only to be passed over."""
        parts: list[bytes] = []
        while size > 0:
            part = stream.read(min(size, _PIECE))
            if not part:
                raise RawFileError(f"{self._path}: is damaged or truncated; copy it again from its source")
            parts += [part] if keep else []
            size -= len(part)
        return b"".join(parts)

"""Raws from memory: the content of a file, open files, arrays of pixels, and `RawImage` objects."""

import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.array_files import NPY_MAGIC, PNG_SIGNATURE
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array
from adaptiveisp.raw.exr import MAGIC as EXR_MAGIC
from adaptiveisp.raw.extensions import (
    CONVERTIBLE_EXTENSIONS,
    KNOWN_EXTENSIONS,
    PHOTO_EXTENSIONS,
)
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.level_checks import check_usable, level_remarks
from adaptiveisp.raw.stacks import frame_of_array
from adaptiveisp.raw.tags import parse_tags
from adaptiveisp.types import RawImage

NAMELESS = "bytes"
"""Name of a content without a name, for messages."""
LONGEST_STEM = 80
"""Most characters of a name that are kept for the temporary file; file systems allow about 255 bytes."""

_MAGICS = (
    (0, PNG_SIGNATURE, ".png"),
    (0, NPY_MAGIC, ".npy"),
    (0, b"PK\x03\x04", ".npz"),
    (0, EXR_MAGIC, ".exr"),
    (0, b"FUJIFILMCCD-RAW", ".raf"),
    (4, b"ftypcrx ", ".cr3"),
    (0, b"II\x1a\0\0\0HEAPCCDR", ".crw"),
    (8, b"CR\x02", ".cr2"),
    (0, b"IIRO", ".orf"),
    (0, b"IIRS", ".orf"),
    (0, b"MMOR", ".orf"),
    (0, b"IIU\0", ".rw2"),
    (0, b"\0MRM", ".mrw"),
    (0, b"FOVb", ".x3f"),
)
"""Offset of the bytes that mark a kind of file, these bytes, and the extension of the kind."""
_PHOTO_MAGICS = ((0, b"\xff\xd8\xff", ".jpg"), (8, b"WEBP", ".webp"))
"""The same for photos. A headerless mosaic can begin with such bytes, so a complete header has precedence."""
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@runtime_checkable
class BinaryFile(Protocol):
    """An open binary file, or an object with the same `read`."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; by default, all remaining ones."""
        ...


@dataclass(frozen=True)
class FileContent:
    """The content of a file, in a temporary file while it is read.

    Attributes:
        path: the temporary file.
        name: name of the content in messages.
    """

    path: Path
    name: str

    def without_path(self, raw: RawImage) -> RawImage:
        """The raw that was read from the temporary file, without its path and with remarks that name the content."""
        remarks = tuple(remark._replace(text=self.renamed(remark.text)) for remark in raw.remarks)
        return replace(raw, path=None, remarks=remarks)

    def renamed(self, text: str) -> str:
        """A message about the temporary file, with the name of the content instead."""
        return text.replace(str(self.path), self.name)


@contextmanager
def content_as_file(source: Any, name: str | None, header: BayerHeader | None) -> Iterator[FileContent]:
    """Yields a temporary file with a content; errors raised in the block name the content.

    Some libraries that decode raws only read files, so all contents are read from files.

    Args:
        source: bytes, or an open binary file.
        name: name of the content in messages; its extension states the kind of file.
        header: facts about the raw; with its size and bits, a content of unknown kind is a headerless mosaic.

    Raises:
        RawFileError: the content is empty or of unknown kind, or cannot be read or stored.
        UsageError: `source` is neither bytes nor an open binary file.
    """
    content, label = _content_of(source, name)
    if not content:
        raise RawFileError(f"{label}: is empty; give the content of a raw file")
    stem = re.sub(r"[^\w.-]", "_", Path(label).stem)[:LONGEST_STEM] or NAMELESS
    extension = Path(label).suffix.lower()
    if extension not in KNOWN_EXTENSIONS | PHOTO_EXTENSIONS | CONVERTIBLE_EXTENSIONS:
        extension = _extension_of(content, label, header)
    try:
        with tempfile.TemporaryDirectory() as folder:
            held = FileContent(Path(folder) / f"{stem}{extension}", label)
            held.path.write_bytes(content)
            try:
                yield held
            except AdaptiveISPError as error:
                raise type(error)(held.renamed(str(error))) from error
    except OSError as error:
        reason = error.strerror or error
        raise RawFileError(
            f"{label}: no temporary file could be written ({reason}); free space or set TMPDIR"
        ) from None


def _content_of(source: Any, name: str | None) -> tuple[bytes, str]:
    """The bytes of a content or an open file, and its name in messages."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), name or NAMELESS
    own_name = getattr(source, "name", None)
    label = name or (own_name if isinstance(own_name, str) else "") or NAMELESS
    if not hasattr(source, "read"):
        kinds = "a path, bytes or an open binary file"
        raise UsageError(f"an object of type {type(source).__name__} is no raw file: give {kinds}")
    try:
        content = source.read()
    except (OSError, ValueError) as error:  # the file is closed, or was opened as text and is not text
        reason = getattr(error, "strerror", None) or error
        raise RawFileError(f"{label}: cannot be read ({reason}); open the file in binary mode, 'rb'") from None
    if not isinstance(content, bytes):
        raise UsageError(f"{label}: is open in text mode; open it in binary mode, 'rb'")
    return content, label


def _extension_of(content: bytes, label: str, header: BayerHeader | None) -> str:
    """The extension of a file with this content, judged by its first bytes.

    Raises:
        RawFileError: the bytes mark no kind of raw file, and the header has no size and bits for a headerless one.
    """
    for place, magic, extension in _MAGICS:
        if content.startswith(magic, place):
            return extension
    if content.startswith(_TIFF_MAGICS):
        return _extension_of_tiff(content)
    if header is not None and None not in (header.width, header.height, header.bits):
        return ".raw"
    for place, magic, extension in _PHOTO_MAGICS:
        if content.startswith(magic, place):
            return extension
    facts = "header=BayerHeader(width, height, bits, pattern)"
    raise RawFileError(
        f'{label}: its first bytes mark no known kind of raw file; give its name with the extension, name="x.dng", '
        f"or for a mosaic without header {facts}"
    )


def _extension_of_tiff(content: bytes) -> str:
    """The extension of a DNG, of a camera file that is built as a TIFF (NEF, ARW, PEF, …), or of a plain TIFF.

    Camera files have the raw in a directory after that of a preview; a TIFF with colour filters has it in the first.
    """
    tags = parse_tags(io.BytesIO(content))
    if tags.is_dng:
        return ".dng"
    return ".nef" if tags.raw and tags.raw is not tags.directories[0] else ".tiff"


def raw_in_memory(frame: RawImage | NDArray[Any], header: BayerHeader | None) -> RawImage:
    """The raw of a frame in memory, with the same checks as in `read_raw`.

    Args:
        frame: a raw, or an array of its pixels as in a .npy file.
        header: facts about an array; a `RawImage` has its own.

    Returns:
        The raw, with doubts about its levels added to its `remarks`.

    Raises:
        RawFileError: the frame is too small or black, or its values contradict the header.
        UsageError: `header` is missing for an array, or given for a `RawImage`.
    """
    if isinstance(frame, RawImage):
        if header is not None:
            raise UsageError(
                "header is for files and arrays: a RawImage has pattern and levels of its own; leave it out"
            )
        check_usable(frame)
        if frame.path is not None or frame.unprocessing is not None:
            return frame
        whole = frame.data.dtype.kind in "ui"
        levels = (frame.pattern, frame.black_level, frame.white_level)
        known = {remark.kind for remark in frame.remarks}  # found by a reader for a content without a path
        found = level_remarks(frame.data, *levels, "RawImage", white_is_declared=whole, in_memory=True)
        added = tuple(remark for remark in found if remark.kind not in known)
        return replace(frame, remarks=frame.remarks + added) if added else frame
    if header is None:
        raise UsageError(
            "an array has no pattern and no levels: give RawImage(array, pattern, black_level, white_level), or "
            'header=BayerHeader(pattern="RGGB", bits=10, black=64)'
        )
    pixels, remarks = frame_of_array(frame, header, "array")
    raw = raw_from_array(pixels, header, ArrayFacts("array", remarks=remarks))
    check_usable(raw)
    return raw

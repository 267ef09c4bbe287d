"""Raws that are no files: the content of a file, open files, arrays of pixels, and `RawImage` objects."""

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
from adaptiveisp.raw.extensions import (
    CONVERTIBLE_EXTENSIONS,
    KNOWN_EXTENSIONS,
    PHOTO_EXTENSIONS,
)
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.level_checks import check_usable, level_remarks
from adaptiveisp.raw.tags import parse_tags
from adaptiveisp.types import RawImage

NAMELESS = "bytes"
"""What messages call a content without a name."""
LONGEST_STEM = 80
"""Characters of a name that are kept for the temporary file; file systems take about 255 bytes."""

_MAGICS = (
    (0, PNG_SIGNATURE, ".png"),
    (0, NPY_MAGIC, ".npy"),
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
"""Place of the first bytes that mark a kind of file, those bytes, and the extension of the kind."""
_PHOTO_MAGICS = ((0, b"\xff\xd8\xff", ".jpg"), (8, b"WEBP", ".webp"))
"""The same for photos. A headerless mosaic may begin with such bytes, so that a complete header wins over them."""
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@runtime_checkable
class BinaryFile(Protocol):
    """An open binary file, or an object that is read like one."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, all that are left by default."""
        ...


@dataclass(frozen=True)
class FileContent:
    """The content of a file, in a temporary file while it is read.

    Attributes:
        path: the temporary file.
        name: what messages call it.
    """

    path: Path
    name: str

    def without_path(self, raw: RawImage) -> RawImage:
        """The raw that was read from the temporary file, with no path and with remarks that name the content."""
        remarks = tuple(remark._replace(text=self.renamed(remark.text)) for remark in raw.remarks)
        return replace(raw, path=None, remarks=remarks)

    def renamed(self, text: str) -> str:
        """A message about the temporary file, with the name of the content in its place."""
        return text.replace(str(self.path), self.name)


@contextmanager
def content_as_file(source: Any, name: str | None, header: BayerHeader | None) -> Iterator[FileContent]:
    """Yields a temporary file with a content; errors raised meanwhile name the content.

    Some of the libraries that decode raws read files only, so that all contents are read as files are.

    Args:
        source: bytes, or an open binary file.
        name: what messages call it; its extension says what kind of file it is.
        header: facts about the raw; with its size and bits, a content of unknown kind is a headerless mosaic.

    Raises:
        RawFileError: the content is empty, of unknown kind, cannot be read, or finds no room.
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
    """The bytes of a content or an open file, and what messages call it."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), name or NAMELESS
    own_name = getattr(source, "name", None)
    label = name or (own_name if isinstance(own_name, str) else "") or NAMELESS
    if not hasattr(source, "read"):
        kinds = "a path, bytes or an open binary file"
        raise UsageError(f"an object of type {type(source).__name__} is no raw file: give {kinds}")
    try:
        content = source.read()
    except (OSError, ValueError) as error:  # a closed file, or one that was opened as text and is none
        reason = getattr(error, "strerror", None) or error
        raise RawFileError(f"{label}: cannot be read ({reason}); open the file in binary mode, 'rb'") from None
    if not isinstance(content, bytes):
        raise UsageError(f"{label}: is open in text mode; open it in binary mode, 'rb'")
    return content, label


def _extension_of(content: bytes, label: str, header: BayerHeader | None) -> str:
    """The extension of a file with that content, by its first bytes.

    Raises:
        RawFileError: they mark no kind of raw file, and the header does not give the size and bits of a headerless one.
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

    Camera files keep the raw in a directory behind that of a preview, a TIFF with colour filters in the first one.
    """
    tags = parse_tags(io.BytesIO(content))
    if tags.is_dng:
        return ".dng"
    return ".nef" if tags.raw and tags.raw is not tags.directories[0] else ".tiff"


def raw_in_memory(frame: RawImage | NDArray[Any], header: BayerHeader | None) -> RawImage:
    """Checks a frame in memory as `read_raw` checks a file.

    Args:
        frame: a raw, or an array of its pixels, as a .npy file would hold it.
        header: facts about an array; a `RawImage` carries its own.

    Returns:
        The raw, with doubts about its levels added to its `remarks`.

    Raises:
        RawFileError: the frame is too small or black, or its values contradict the header.
        UsageError: an array comes without header, or a `RawImage` with one.
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
        known = {remark.kind for remark in frame.remarks}  # of a reader that had no path to give
        found = level_remarks(frame.data, *levels, "RawImage", white_is_declared=whole, in_memory=True)
        added = tuple(remark for remark in found if remark.kind not in known)
        return replace(frame, remarks=frame.remarks + added) if added else frame
    if header is None:
        raise UsageError(
            "an array has no pattern and no levels: give RawImage(array, pattern, black_level, white_level), or "
            'header=BayerHeader(pattern="RGGB", bits=10, black=64)'
        )
    raw = raw_from_array(frame, header, ArrayFacts("array"))
    check_usable(raw)
    return raw

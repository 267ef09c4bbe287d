"""Reads TIFF files: the pixels, and depth, orientation, colour filters and levels from the tags.

Source: Adobe, TIFF 6.0; ISO 12234-2 (TIFF/EP) and Adobe, DNG 1.6, whose tags some camera software writes into TIFFs.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, UsageError, shown
from adaptiveisp.raw.array_files import require_sane_size
from adaptiveisp.raw.headerless import LARGEST_BITS, SMALLEST_BITS, BayerHeader
from adaptiveisp.types import Remark
from adaptiveisp.utils.optional_imports import import_extra

PHOTOMETRIC_REMEDIES = {
    0: "WhiteIsZero (inverted): save it with BlackIsZero",
    3: "a palette: save the values themselves, one channel or RGB",
    4: "a mask: save the image itself",
    5: "CMYK: save linear RGB",
    6: "YCbCr: save linear RGB",
    8: "CIELab: save linear RGB",
}
"""Values of PhotometricInterpretation that are unsuitable for raws → meaning and remedy."""
_PHOTOMETRIC, _ORIENTATION, _DNG_VERSION = 262, 274, 50706
_CFA_DIM, _CFA_PATTERN, _BLACK_DIM, _BLACK, _WHITE = 33421, 33422, 50713, 50714, 50717

_UNCOMPRESSED = 1
_LARGEST_RATIO = 20_000
"""Most bytes of pixels for each compressed byte; frames with any content stay far below."""


class TiffFacts(NamedTuple):
    """Facts in the tags of a TIFF.

    Attributes:
        header: pattern and levels, and the depth if it is not that of the array's type; no size.
        orientation: EXIF orientation, 1 to 8.
    """

    header: BayerHeader
    orientation: int


def read_tiff(path: Path) -> tuple[NDArray[Any], TiffFacts]:
    """Reads the pixels of the only full image, and the facts in its tags.

    Raises:
        RawFileError: the file is damaged or not a TIFF, holds several images, or its tags show that it is not a raw.
        AdaptiveISPError: tifffile is not installed.
    """
    with _opened(path) as page:
        facts = _facts(page, path)
        _check_amount(page, path)
        pixels: NDArray[Any] = page.asarray()
    return pixels, facts


def _check_amount(page: Any, path: Path) -> None:
    """Refuses an image with more pixels than the file can hold, before memory is allocated.

    Raises:
        RawFileError: the file is too short, or the image has more than `MOST_PIXELS`.
    """
    ratio = 1 if int(page.compression) == _UNCOMPRESSED else _LARGEST_RATIO
    if page.size * int(page.bitspersample) // 8 > ratio * path.stat().st_size:
        sides = "x".join(str(side) for side in page.shape)
        raise RawFileError(f"{path}: is damaged or truncated: too short for {sides} values; copy it again")
    require_sane_size(path, page.imagewidth * page.imagelength)


def tiff_size(path: Path) -> tuple[tuple[int, ...], int]:
    """The shape of the stored pixels and their EXIF orientation, without reading the pixels.

    Raises:
        RawFileError: as for `read_tiff`.
    """
    with _opened(path) as page:
        return tuple(int(side) for side in page.shape), _orientation(page, path)


def tag_remarks(stated: BayerHeader, tags: BayerHeader, path: Path) -> list[Remark]:
    """Remarks on facts of flags or sidecars that contradict the tags of a TIFF; the stated facts are used.

    Args:
        stated: facts of flags and sidecars.
        tags: facts of the tags.
        path: the file, for the text.

    Raises:
        RawFileError: more bits are declared than stored.
    """
    if stated.bits is not None and tags.bits is not None and stated.bits > tags.bits:
        found = f"BitsPerSample is {tags.bits}, but {stated.bits} bits are declared"
        raise RawFileError(f"{path}: {found}; leave out --raw-bits, or correct it")
    remarks = []
    for key, tag, given, own in (
        ("raw-pattern", "CFAPattern", stated.pattern, tags.pattern),
        ("raw-black", "BlackLevel", stated.black, tags.black),
        ("raw-white", "WhiteLevel", stated.white, tags.white),
    ):
        same = stated.black_levels == tags.black_levels if key == "raw-black" else given == own
        if given is not None and own is not None and not same:
            text = f"{path}: {key} {given} is used, though the file's tag {tag} says {own}; check which is right"
            remarks.append(Remark(f"{key} against the file's tag", text))
    return remarks


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a TIFF and yields the page of its only full image; errors of tifffile become RawFileError."""
    tifffile = import_extra("tifffile", "raw")
    try:
        with _silenced("tifffile"), tifffile.TiffFile(path) as file:
            yield _only_page(file, path)
    except RawFileError:
        raise
    # Damaged files make tifffile and its decoders raise many kinds of errors, without a common base.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise RawFileError(f"{path}: is damaged or no TIFF ({reason}); copy it again") from None


def _only_page(file: Any, path: Path) -> Any:
    """The only page that is neither preview nor mask.

    Raises:
        RawFileError: there is no such page or more than one, or the file is a DNG.
    """
    pages = list(file.pages)
    if _DNG_VERSION in pages[0].tags:
        raise RawFileError(f"{path}: is a DNG; give it the extension .dng")
    full = [page for page in pages if not page.is_reduced and not page.is_mask]
    if not full:
        raise RawFileError(
            f"{path}: its pages are previews; give a camera file its own extension, or save the full image"
        )
    # ImageJ writes a single directory for a stack of more than 4 GB.
    stacked = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej and len(full) == 1 else 1
    count = max(len(full), stacked)
    if count > 1:
        remedy = f"in Python numpy.save('{path.stem}-0.npy', tifffile.imread('{path.name}')[0]) and so on"
        raise RawFileError(f"{path}: holds {count} images; save each as a file of its own, {remedy}")
    return full[0]


def _values(page: Any, tag: int) -> tuple[Any, ...]:
    """The values of a tag as plain numbers, with fractions divided; () if the tag is missing."""
    found = page.tags.get(tag)
    if found is None:
        return ()
    value = found.value
    values = tuple(value) if isinstance(value, tuple | list | bytes | np.ndarray) else (value,)
    if int(found.dtype) in (5, 10):  # fractions are stored as numerator, denominator, numerator, …
        return tuple(top / bottom for top, bottom in zip(values[::2], values[1::2], strict=True))
    return values


def _facts(page: Any, path: Path) -> TiffFacts:
    photometric = _values(page, _PHOTOMETRIC)
    if photometric and int(photometric[0]) in PHOTOMETRIC_REMEDIES:
        raise RawFileError(f"{path}: PhotometricInterpretation is {PHOTOMETRIC_REMEDIES[int(photometric[0])]}")
    bits = int(page.bitspersample)
    if bits < SMALLEST_BITS:
        raise RawFileError(f"{path}: {bits} bits a sample hold no raw data; save it with 8 to 16")
    packed = bits not in (8, 16, 32, 64) and bits <= LARGEST_BITS and page.dtype.kind == "u"
    white = {float(level) for level in _values(page, _WHITE)}
    if len(white) > 1:
        raise RawFileError(f"{path}: its tag WhiteLevel holds several levels; save it with one")
    try:
        header = BayerHeader(
            bits=bits if packed else None,
            pattern=_pattern(page, path),
            black=_black(page, path),
            white=white.pop() if white else None,
        )
    except UsageError as error:
        raise RawFileError(f"{path}: its tags make no sense ({error}); save it again") from None
    return TiffFacts(header, _orientation(page, path))


def _orientation(page: Any, path: Path) -> int:
    values = _values(page, _ORIENTATION)
    # 0 is not an EXIF orientation; some programs write it for an unknown one.
    orientation = (int(values[0]) if values else 1) or 1
    if orientation not in range(1, 9):
        raise RawFileError(f"{path}: its tag Orientation is {shown(values[0])}, not 1 to 8; correct or remove the tag")
    return orientation


def _pattern(page: Any, path: Path) -> str | None:
    """The 2x2 Bayer pattern in the tag CFAPattern; None without the tag, or for RGB."""
    cells = _values(page, _CFA_PATTERN)
    if not cells or int(page.samplesperpixel) != 1:
        return None
    size = tuple(int(side) for side in _values(page, _CFA_DIM)) or (2, 2)
    names = "".join("RGB"[int(cell)] if int(cell) in (0, 1, 2) else "?" for cell in cells[:4])
    if size != (2, 2) or "?" in names or len(names) != 4:
        raise RawFileError(f"{path}: its colour filters are no Bayer pattern; convert it to linear RGB first")
    return names


def _black(page: Any, path: Path) -> float | tuple[float, float, float, float] | None:
    """The black level in the tag BlackLevel, one or four values; None without the tag."""
    levels = [float(level) for level in _values(page, _BLACK)]
    if not levels:
        return None
    if len(set(levels)) == 1:
        return levels[0]
    size = tuple(int(side) for side in _values(page, _BLACK_DIM)) or (1, 1)
    if size == (2, 2) and len(levels) == 4 and int(page.samplesperpixel) == 1:
        return (levels[0], levels[1], levels[2], levels[3])
    raise RawFileError(
        f"{path}: its tag BlackLevel holds {len(levels)} levels; save it with one, or four of a 2x2 block"
    )


@contextmanager
def _silenced(logger: str) -> Iterator[None]:
    """Drops the messages that this thread logs under `logger` in the block, since our own error reports the damage."""
    thread = threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logging.getLogger(logger).addFilter(of_another_thread)
    try:
        yield
    finally:
        logging.getLogger(logger).removeFilter(of_another_thread)

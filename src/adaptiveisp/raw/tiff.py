"""Reads TIFF files: the pixels, and depth, orientation, colour filters and levels from the tags.

Source: Adobe, TIFF 6.0; ISO 12234-2 (TIFF/EP) and Adobe, DNG 1.6, whose tags some camera software writes into TIFFs.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError, shown
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


class TiffImages(NamedTuple):
    """The full images of an open TIFF.

    Attributes:
        n_frames: their number.
        read: returns the pixels of image k, and the facts in its tags.
        page: returns its directory and its place in a stack of a single directory, whose pixels are contiguous.
    """

    n_frames: int
    read: Callable[[int], tuple[NDArray[Any], TiffFacts]]
    page: Callable[[int], tuple[Any, int]]


@contextmanager
def opened_tiff(path: Path) -> Iterator[TiffImages]:
    """Opens a TIFF and yields its full images.

    Raises:
        RawFileError: the file is damaged or not a TIFF, or its tags show that it is not a raw.
        AdaptiveISPError: tifffile is not installed.
    """
    with _opened(path) as (pages, count):

        def page(number: int) -> tuple[Any, int]:
            return (pages[number], 0) if len(pages) > 1 else (pages[0], number)

        def read(number: int) -> tuple[NDArray[Any], TiffFacts]:
            with _errors_named(path):
                directory, place = page(number)
                facts = _facts(directory, path)
                _check_amount(directory, path)
                return (_stacked(directory, place, path) if count > len(pages) else directory.asarray()), facts

        yield TiffImages(count, read, page)


def _stacked(page: Any, place: int, path: Path) -> NDArray[Any]:
    """Image `place` of those that lie one behind the other at the place of a directory's only image.

    Raises:
        RawFileError: the images are compressed, or the file is too short.
    """
    if int(page.compression) != _UNCOMPRESSED or not page.is_contiguous or int(page.bitspersample) % 8:
        raise RawFileError(f"{path}: holds compressed images in a single directory; save each as a page")
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    values = np.fromfile(path, dtype, page.size, offset=page.dataoffsets[0] + place * page.size * dtype.itemsize)
    if values.size != page.size:
        raise RawFileError(f"{path}: is damaged or truncated: too short for image {place}; copy it again")
    pixels: NDArray[Any] = values.astype(page.dtype).reshape(page.shape)
    return pixels


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


def tiff_size(path: Path, number: Callable[[int], int]) -> tuple[tuple[int, ...], int]:
    """The shape of the stored pixels and their EXIF orientation, without reading the pixels.

    Args:
        path: the file.
        number: returns the image to look at of a number of images.

    Raises:
        RawFileError: as for `opened_tiff`.
    """
    with opened_tiff(path) as images, _errors_named(path):
        page, _ = images.page(number(images.n_frames))
        return tuple(int(side) for side in page.shape), _orientation(page, path)


TAG_NAMES = ("tag CFAPattern", "tag BlackLevel", "tag WhiteLevel")
"""What states pattern, black and white level of a TIFF, for messages."""


def tag_remarks(
    stated: BayerHeader, tags: BayerHeader, path: Path, names: tuple[str, str, str] = TAG_NAMES
) -> list[Remark]:
    """Remarks on facts of flags or sidecars that contradict those of the file itself; the stated facts are used.

    Args:
        stated: facts of flags and sidecars.
        tags: facts of the file.
        path: the file, for the text.
        names: what states pattern, black and white level in the file, for the text.

    Raises:
        RawFileError: more bits are declared than stored.
    """
    if stated.bits is not None and tags.bits is not None and stated.bits > tags.bits:
        found = f"BitsPerSample is {tags.bits}, but {stated.bits} bits are declared"
        raise RawFileError(f"{path}: {found}; leave out --raw-bits, or correct it")
    remarks = []
    for key, name, given, own in (
        ("raw-pattern", names[0], stated.pattern, tags.pattern),
        ("raw-black", names[1], stated.black, tags.black),
        ("raw-white", names[2], stated.white, tags.white),
    ):
        same = stated.black_levels == tags.black_levels if key == "raw-black" else given == own
        if given is not None and own is not None and not same:
            text = f"{path}: {key} {given} is used, though the file's {name} says {own}; check which is right"
            remarks.append(Remark(f"{key} against the file's {name}", text))
    return remarks


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[Any], int]]:
    """Opens a TIFF and yields the pages of its full images, and their number, which can be larger."""
    tifffile = import_extra("tifffile", "raw")
    with ExitStack() as stack:
        with _errors_named(path):
            file = stack.enter_context(tifffile.TiffFile(path))
            pages = _full_pages(file, path)
            count = len(pages) if len(pages) > 1 else _stack_size(file, pages[0])
        yield pages, count


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turns errors of tifffile in the block into RawFileError, and drops what it logs."""
    try:
        with _silenced("tifffile"):
            yield
    except AdaptiveISPError:
        raise
    # Damaged files make tifffile and its decoders raise many kinds of errors, without a common base.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise RawFileError(f"{path}: is damaged or no TIFF ({reason}); copy it again") from None


def _full_pages(file: Any, path: Path) -> list[Any]:
    """The pages that are neither previews nor masks.

    Raises:
        RawFileError: there is no such page, or the file is a DNG.
    """
    pages = list(file.pages)
    if _DNG_VERSION in pages[0].tags:
        raise RawFileError(f"{path}: is a DNG; give it the extension .dng")
    full = [page for page in pages if not page.is_reduced and not page.is_mask]
    if not full:
        raise RawFileError(
            f"{path}: its pages are previews; give a camera file its own extension, or save the full image"
        )
    return full


def _stack_size(file: Any, page: Any) -> int:
    """The number of images of a file with a single directory: ImageJ and tifffile can write a stack in that way."""
    if file.is_imagej:
        return int((file.imagej_metadata or {}).get("images", 1))
    return int(file.series[0].size // page.size) if file.is_shaped and page.size else 1


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

"""Opens the files that hold arrays (PNG, TIFF, PGM, PPM, EXR, npy, npz) and reads their frames and what they state."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from adaptiveisp.raw.array_files import read_png
from adaptiveisp.raw.exr import read_exr
from adaptiveisp.raw.extensions import NUMPY_EXTENSIONS, PNM_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.numpy_files import FACT_KEYS, StoredArray, opened_array
from adaptiveisp.raw.pnm import pnm_facts, pnm_images, read_pnm
from adaptiveisp.raw.stacks import mosaic_of_planes
from adaptiveisp.raw.tiff import opened_tiff, tag_remarks
from adaptiveisp.types import Remark


class Content(NamedTuple):
    """One frame of a file.

    Attributes:
        pixels: (height, width), (height, width, 3) or (3, height, width), as they are stored.
        facts: what the file itself states about pattern, depth and levels.
        orientation: EXIF orientation, 1 to 8.
        note: text on the synthesis of a raw.
        remarks: remarks on declared facts that the file contradicts.
    """

    pixels: NDArray[Any]
    facts: BayerHeader = BayerHeader()
    orientation: int = 1
    note: str | None = None
    remarks: tuple[Remark, ...] = ()


class Frames(NamedTuple):
    """The frames of an open file.

    Attributes:
        n_frames: their number.
        unit: noun for them in messages, in the plural.
        read: returns frame k, counted from 0.
    """

    n_frames: int
    unit: str
    read: Callable[[int], Content]


@contextmanager
def opened_frames(path: Path, header: BayerHeader) -> Iterator[Frames]:
    """Opens a file of a kind in `ARRAY_EXTENSIONS`.

    Args:
        path: the file.
        header: the declared facts with those of sidecars, which are compared with the file's own.

    Raises:
        RawFileError: the file is damaged or of another kind; also when a frame is read.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    extension = path.suffix.lower()
    if extension == ".png":
        yield Frames(1, "images", lambda _: _of_png(path))
    elif extension == ".exr":
        yield Frames(1, "images", lambda _: _of_exr(path))
    elif extension in NUMPY_EXTENSIONS:
        with opened_array(path, header) as stored:
            count = 1 if stored.n_frames is None else stored.n_frames
            yield Frames(count, "frames", lambda number: _of_array(stored, number, header, path))
    elif extension in PNM_EXTENSIONS:
        images = pnm_images(path)

        def read(number: int) -> Content:
            facts, remarks = pnm_facts(images[number], header, path)
            return Content(read_pnm(path, images[number]), facts, remarks=remarks)

        yield Frames(len(images), "images", read)
    else:
        with opened_tiff(path) as tiff:

            def read_page(number: int) -> Content:
                pixels, (tags, orientation) = tiff.read(number)
                return Content(pixels, tags, orientation, remarks=tuple(tag_remarks(header, tags, path)))

            yield Frames(tiff.n_frames, "images", read_page)


def _of_png(path: Path) -> Content:
    pixels, note = read_png(path)
    return Content(pixels, note=note)


def _of_exr(path: Path) -> Content:
    pixels, remarks = read_exr(path)
    return Content(pixels, remarks=remarks)


def _of_array(stored: StoredArray, number: int, header: BayerHeader, path: Path) -> Content:
    pattern, black, white = (f"key {key}" for key in FACT_KEYS)
    remarks = (*stored.remarks, *tag_remarks(header, stored.facts, path, (pattern, black, white)))
    pixels, found = mosaic_of_planes(stored.read(number), header.filled_from(stored.facts), path)
    return Content(pixels, stored.facts, remarks=remarks + found)

"""Width and height of a raw file from its header, needed to convert labels in fractions of the image to pixels."""

from pathlib import Path

from adaptiveisp.errors import RawFileError, unreadable
from adaptiveisp.raw.array_files import PNG_SIGNATURE
from adaptiveisp.raw.colour_filters import binned_size
from adaptiveisp.raw.develop import upright_size
from adaptiveisp.raw.exr import exr_size
from adaptiveisp.raw.extensions import ARRAY_EXTENSIONS, CAMERA_EXTENSIONS, NUMPY_EXTENSIONS, PNM_EXTENSIONS
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.libraw import libraw_size
from adaptiveisp.raw.numpy_files import opened_array
from adaptiveisp.raw.pnm import pnm_images
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.raw.stacks import frame_number, size_of_shape
from adaptiveisp.raw.tiff import tiff_size


def raw_size(path: Path, header: BayerHeader | None = None) -> tuple[int, int]:
    """(width, height) of the upright image that `read_raw` and `develop` would give, without reading pixels.

    Args:
        path: a raw file of any kind that `read_raw` supports.
        header: facts with the size of files that do not state it.

    Raises:
        RawFileError: the file is missing or damaged, or neither it nor `header` nor a sidecar states its size.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    extension = path.suffix.lower()
    try:
        if extension in CAMERA_EXTENSIONS:
            return libraw_size(path)
        if extension == ".png":
            return binned_size(*_png_size(path), find_header(path, header).pattern)
        if extension == ".exr":
            return exr_size(path)
        if extension in ARRAY_EXTENSIONS:
            facts = find_header(path, header)
            return binned_size(*_array_size(path, extension, facts), facts.pattern)
    except OSError as error:
        raise RawFileError(unreadable(path, error)) from None
    except ValueError as error:
        reason = next(iter(str(error).splitlines()), "no size")
        raise RawFileError(f"{path}: is damaged ({reason}); copy it again from its source") from None
    facts = find_header(path, header)
    if facts.width is None or facts.height is None:
        remedy = (
            f"give --raw-size or a sidecar {path.name}.yaml with raw-size; in Python header=BayerHeader(width, height)"
        )
        raise RawFileError(f"{path}: has no header; {remedy}")
    return binned_size(facts.width, facts.height, facts.pattern)


def _array_size(path: Path, extension: str, facts: BayerHeader) -> tuple[int, int]:
    """(width, height) of the declared frame of a TIFF, PGM, PPM, .npy or .npz file."""
    if extension in NUMPY_EXTENSIONS:
        with opened_array(path, facts) as stored:
            if stored.n_frames is not None:
                frame_number(stored.n_frames, facts, path)
            return size_of_shape(stored.shape, facts)
    if extension in PNM_EXTENSIONS:
        images = pnm_images(path)
        return size_of_shape(images[frame_number(len(images), facts, path, "images")].shape, BayerHeader())
    shape, orientation = tiff_size(path, lambda count: frame_number(count, facts, path, "images"))
    return upright_size(*size_of_shape(shape, BayerHeader()), orientation)


def _png_size(path: Path) -> tuple[int, int]:
    """(width, height) of a PNG. Source: W3C, PNG specification 3rd edition, 11.2.2 (IHDR)."""
    with path.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or not head.startswith(PNG_SIGNATURE):
        raise ValueError("no PNG header")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")

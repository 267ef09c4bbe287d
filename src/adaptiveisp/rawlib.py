"""Camera files through LibRaw: mosaic and metadata as they are, and LibRaw's own development as a baseline."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from adaptiveisp.dng import DngTags, read_dng_tags
from adaptiveisp.errors import RawFileError
from adaptiveisp.extras import import_extra
from adaptiveisp.rawnote import unprocessing_from_note
from adaptiveisp.types import BAYER_PATTERNS, RawImage

ORIENTATION_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
"""EXIF orientation of LibRaw's `flip`, whose bits say: 1 mirror columns, 2 mirror rows, 4 swap the axes first."""

_DAMAGE_MESSAGES = (b"unexpected end of file", b"data corrupted")
_stderr_lock = threading.Lock()


def read_libraw(path: Path) -> RawImage:
    """A camera file: the mosaic with its metadata, or LibRaw's linear RGB in camera colours when it is no Bayer mosaic.

    Raises:
        RawFileError: LibRaw cannot read the file, or it is damaged.
        AdaptiveISPError: rawpy is not installed.
    """
    tags = read_dng_tags(path)
    if tags.missing_bytes:
        raise RawFileError(f"{path}: is truncated ({tags.missing_bytes} bytes are missing); copy it again")
    with _opened(path) as file:
        # postprocess changes what LibRaw answers, so all metadata is read before.
        common = _metadata(file, tags, path)
        pattern = _bayer_pattern(file)
        if pattern is not None:
            return RawImage(
                data=file.raw_image_visible.copy(),
                pattern=pattern,
                black_level=_black_levels(file, tags),
                white_level=float(file.white_level),
                **common,
            )
        data = _linear_rgb(file, path)
    return RawImage(data=data, pattern=None, black_level=(0.0, 0.0, 0.0, 0.0), white_level=65535.0, **common)


def libraw_render(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """LibRaw's default development: camera white balance, sRGB colours and curve, automatic brightness, upright, 8 bit.

    Raises:
        RawFileError: LibRaw cannot read the file.
        AdaptiveISPError: rawpy is not installed.
    """
    rawpy = import_extra("rawpy", "raw")
    with _opened(path) as file:
        known = all(gain > 0 for gain in file.camera_whitebalance[:3])
        rendered: UInt8[np.ndarray, "height width 3"] = file.postprocess(
            use_camera_wb=known, use_auto_wb=not known, output_color=rawpy.ColorSpace.sRGB, output_bps=8
        )
    return rendered


def libraw_size(path: Path) -> tuple[int, int]:
    """(width, height) of a camera file, upright; its pixels are not decoded.

    Raises:
        RawFileError: LibRaw cannot read the file.
        AdaptiveISPError: rawpy is not installed.
    """
    with _opened(path, unpack=False) as file:
        width, height = int(file.sizes.width), int(file.sizes.height)
        return (height, width) if ORIENTATION_OF_FLIP.get(int(file.sizes.flip), 1) >= 5 else (width, height)


@contextmanager
def _opened(path: Path, unpack: bool = True) -> Iterator[Any]:
    """The file opened by LibRaw; its errors, and the damage it only reports on stderr, become RawFileError."""
    rawpy = import_extra("rawpy", "raw")
    file = None
    try:
        with _captured_stderr() as said:
            file = rawpy.imread(str(path))
            if unpack:
                file.unpack()  # otherwise put off until the pixels are asked for, where nobody listens
        if said:
            raise RawFileError(f"{path}: is damaged or truncated; copy it again from its source")
        yield file
    except rawpy.LibRawFileUnsupportedError:
        raise RawFileError(f"{path}: is not a raw file that LibRaw knows; is the extension right?") from None
    except (rawpy.LibRawIOError, rawpy.LibRawDataError):
        raise RawFileError(f"{path}: is damaged or truncated; copy it again from its source") from None
    except NotImplementedError:  # rawpy, asked for the pattern of such a file
        raise RawFileError(
            f"{path}: its colour filters are neither Bayer nor X-Trans; convert it to linear RGB first"
        ) from None
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise RawFileError(f"{path}: LibRaw cannot develop it ({_reason(error)}); convert it to DNG") from None
    finally:
        if file is not None:
            file.close()


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else type(error).__name__
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


@contextmanager
def _captured_stderr() -> Iterator[list[bytes]]:
    """The lines about damage that C code wrote to stderr, complete when the block ends; other lines are passed on.

    LibRaw reports some damage (cut compressed data) nowhere else.
    """
    said: list[bytes] = []
    with _stderr_lock, tempfile.TemporaryFile() as catcher:
        try:
            kept = os.dup(2)
        except OSError:  # no stderr at all, as in some services
            yield said
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(catcher.fileno(), 2)
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            catcher.seek(0)
            for line in catcher:
                if any(message in line.lower() for message in _DAMAGE_MESSAGES):
                    said.append(line)
                else:
                    os.write(2, line)


def _metadata(file: Any, tags: DngTags, path: Path) -> dict[str, Any]:
    """The fields of `RawImage` that do not depend on the kind of its data."""
    red, green, blue = (float(gain) for gain in file.camera_whitebalance[:3])
    known_gains = red > 0 and green > 0 and blue > 0
    matrix = tags.xyz_to_camera
    if matrix is None and np.any(file.rgb_xyz_matrix[:3]):
        matrix = tuple(float(entry) for entry in np.asarray(file.rgb_xyz_matrix[:3]).ravel())
    try:
        unprocessing = unprocessing_from_note(tags.description)
    except RawFileError as error:
        raise RawFileError(f"{path}: {error}") from None
    return {
        "camera_gains": (red / green, 1.0, blue / green) if known_gains else None,
        "xyz_to_camera": matrix,
        "orientation": ORIENTATION_OF_FLIP.get(int(file.sizes.flip), 1),
        "iso": tags.iso or _positive(file.other.iso_speed),
        "exposure_s": tags.exposure_s or _positive(file.other.shutter_speed),
        "noise_profile": tags.noise_profile,
        "unprocessing": unprocessing,
        "path": path,
        "camera": tags.camera,
    }


def _positive(value: float) -> float | None:
    return float(value) if np.isfinite(value) and value > 0 else None


def _bayer_pattern(file: Any) -> str | None:
    """The pattern of the visible area, or None for anything but a three-colour Bayer mosaic."""
    if file.raw_type.name != "Flat" or file.raw_pattern is None or file.raw_pattern.shape != (2, 2):
        return None
    pattern = "".join(chr(file.color_desc[index]) for index in np.asarray(file.raw_colors_visible[:2, :2]).ravel())
    return pattern if pattern in BAYER_PATTERNS else None


def _black_levels(file: Any, tags: DngTags) -> tuple[float, float, float, float]:
    """Black level per position. LibRaw's are whole numbers by colour index; a DNG's fractions are put back."""
    by_colour = file.black_level_per_channel
    levels = [float(by_colour[index]) for index in np.asarray(file.raw_colors_visible[:2, :2]).ravel()]
    exact = tags.black_level
    # Only fractions may differ: a larger difference means that LibRaw knows better (other frame, other offsets).
    if exact is not None and all(abs(fine - whole) < 1 for fine, whole in zip(exact, levels, strict=True)):
        return exact
    return levels[0], levels[1], levels[2], levels[3]


def _linear_rgb(file: Any, path: Path) -> Any:
    """LibRaw's linear 16-bit RGB in camera colours, sensor orientation, black subtracted, white at 65535."""
    rawpy = import_extra("rawpy", "raw")
    data = file.postprocess(
        gamma=(1, 1),
        no_auto_bright=True,
        output_bps=16,
        use_camera_wb=False,
        user_wb=[1.0, 1.0, 1.0, 1.0],
        output_color=rawpy.ColorSpace.raw,
        adjust_maximum_thr=0.0,  # otherwise the white level moves with the image's own maximum
        user_flip=0,
    )
    if data.ndim != 3 or data.shape[2] != 3:
        raise RawFileError(f"{path}: has {data.shape[-1]} colours instead of three; convert it to linear RGB first")
    return data

"""Reads camera files with LibRaw: unprocessed mosaic and metadata, and LibRaw's own development as a baseline."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.colour_filters import binned_size, interpreted, without_quad
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.shading import gains_of_maps, parse_gain_maps, shaded
from adaptiveisp.raw.synthesis_metadata import unprocessing_from_note
from adaptiveisp.raw.tag_checks import is_mono, quad_pattern, refuse_misread, refuse_too_small, tag_doubts, why_unknown
from adaptiveisp.raw.tags import DngTags, TagFile, dng_tags, opcode_list, read_tag_file
from adaptiveisp.types import BAYER_PATTERNS, MONO, RawImage, Remark
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.stderr import captured_stderr

ORIENTATION_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}
"""LibRaw's `flip` → EXIF orientation. Bits of `flip`: 1 mirrors columns, 2 mirrors rows, 4 swaps the axes first."""

ROUNDING = 1e-6
"""Margin for the place of a column in a stretched image, since LibRaw accumulates fractions."""
SQUARE_MARGIN = 0.05
"""Relative difference of a pixel's sides that does not harm a detector; some cameras have such pixels."""

_DAMAGE_MESSAGES = (b"unexpected end of file", b"data corrupted")


def read_libraw(path: Path, facts: BayerHeader | None = None) -> RawImage:
    """Reads a camera file: the mosaic with its metadata, or LibRaw's linear RGB in camera colours if it has no mosaic.

    The values of a sensor without colour filters have the pattern "MONO".

    Args:
        path: the file.
        facts: pattern, black level and white level (a number) that replace the file's own; the raw's `remarks` name the
            replaced values. Size and bits are not used.

    Raises:
        RawFileError: LibRaw cannot read the file or would misread it, it is damaged, or facts are given for a file
            that is not a Bayer mosaic.
        AdaptiveISPError: rawpy is not installed.
    """
    facts = facts if facts is not None else BayerHeader()
    tag_file = read_tag_file(path)
    tags = dng_tags(tag_file)
    with _opened(path, tag_file, black_is_given=facts.black is not None) as file:
        # `postprocess` changes LibRaw's metadata, so it is read first.
        common = _metadata(file, tags, path)
        remarks = [*tag_doubts(tag_file, path, facts.white is not None), *_aspect_remark(file, path)]
        own = _own_levels(file, tags, tag_file)
        if own is not None:
            declared, black, white = _declared_levels(own, facts, path, remarks)
            pixels = file.raw_image_visible.copy()
            if facts.shading is None:
                pixels = _shaded(pixels, tag_file, black, white, path, remarks)
            data, pattern = without_quad(pixels, declared)
            made = interpreted(data, pattern, black, white, None, path)
            return RawImage(*made[:4], remarks=(*remarks, *made.remarks), **common)
        named = [name for name in ("pattern", "black", "white") if getattr(facts, name) is not None]
        if named:
            found = "is no Bayer mosaic, and LibRaw applies its levels itself"
            raise RawFileError(f"{path}: {found}: raw-{named[0]} cannot be used; leave it out for this file")
        if facts.shading is None:
            _note_shading_of_rgb(tag_file, path, remarks)
        data = _linear_rgb(file, path)
    return RawImage(data, None, (0.0, 0.0, 0.0, 0.0), 65535.0, remarks=tuple(remarks), **common)


def libraw_render(path: Path, raw: RawImage | None = None) -> UInt8[np.ndarray, "height width 3"] | None:
    """LibRaw's default development: camera white balance, sRGB colours and curve, automatic brightness, upright, 8 bit.

    Args:
        path: the file.
        raw: the raw that was read from it; None means the file's own pattern and levels.

    Returns:
        The image, which has the size of the frame even if pixels are not square; None if `raw` has another pattern or
        other levels than the file, which LibRaw would not use.

    Raises:
        RawFileError: LibRaw cannot read the file or would misread it.
        AdaptiveISPError: rawpy is not installed.
    """
    rawpy = import_extra("rawpy", "raw")
    tag_file = read_tag_file(path)
    with _opened(path, tag_file, black_is_given=raw is not None) as file:
        used = None if raw is None else (raw.pattern, raw.black_level, raw.white_level)
        if used is not None and used[0] is not None and used != _own_levels(file, dng_tags(tag_file), tag_file):
            return None
        known = all(gain > 0 for gain in file.camera_whitebalance[:3])
        orientation, aspect = ORIENTATION_OF_FLIP.get(int(file.sizes.flip), 1), float(file.sizes.pixel_aspect)
        rendered: UInt8[np.ndarray, "height width channels"] = file.postprocess(
            use_camera_wb=known, use_auto_wb=not known, output_color=rawpy.ColorSpace.sRGB, output_bps=8
        )
    colours = np.repeat(rendered, 3, axis=2) if rendered.shape[2] == 1 else rendered
    picture: UInt8[np.ndarray, "height width 3"] = _unstretched(colours, aspect, orientation)
    return picture


def libraw_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright image of a camera file, whose pixels are not decoded.

    Raises:
        RawFileError: LibRaw cannot read the file or would misread it.
        AdaptiveISPError: rawpy is not installed.
    """
    tag_file = read_tag_file(path)
    with _opened(path, tag_file, black_is_given=True, unpack=False) as file:
        width, height = binned_size(int(file.sizes.width), int(file.sizes.height), quad_pattern(tag_file))
        return (height, width) if ORIENTATION_OF_FLIP.get(int(file.sizes.flip), 1) >= 5 else (width, height)


@contextmanager
def _opened(path: Path, tags: TagFile, black_is_given: bool, unpack: bool = True) -> Iterator[Any]:
    """Opens a file with LibRaw; its errors, and damage that it reports only on stderr, become RawFileError."""
    rawpy = import_extra("rawpy", "raw")
    refuse_misread(tags, path, black_is_given)
    file = None
    try:
        with captured_stderr(_DAMAGE_MESSAGES) as said:
            file = rawpy.imread(str(path))
            refuse_too_small(tags, path, int(file.sizes.raw_width), int(file.sizes.raw_height))
            if unpack:
                file.unpack()  # otherwise rawpy unpacks at the first use of the pixels, when stderr is not captured
        if said:
            raise RawFileError(f"{path}: is damaged or truncated; copy it again from its source")
        yield file
    except (rawpy.LibRawError, rawpy.NotSupportedError, NotImplementedError) as error:
        raise RawFileError(f"{path}: {why_unknown(tags, path) or _said(error)}") from None
    finally:
        if file is not None:
            file.close()


def _said(error: Exception) -> str:
    """The message about an error of LibRaw or rawpy, with the remedy."""
    rawpy = import_extra("rawpy", "raw")
    if isinstance(error, rawpy.LibRawFileUnsupportedError):
        return "is not a raw file that LibRaw knows; is the extension right?"
    if isinstance(error, rawpy.LibRawIOError | rawpy.LibRawDataError):
        return "is damaged or truncated; copy it again from its source"
    if isinstance(error, NotImplementedError):  # raised by rawpy when the pattern of such a file is read
        return "its colour filters are neither Bayer nor X-Trans; convert it to linear RGB first"
    return f"LibRaw cannot develop it ({_reason(error)}); convert it to DNG"


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else type(error).__name__
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


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
    """The pattern of the visible area; None unless the file is a three-colour Bayer mosaic."""
    if file.raw_type.name != "Flat" or file.raw_pattern is None or file.raw_pattern.shape != (2, 2):
        return None
    if file.raw_image_visible.shape != (int(file.sizes.height), int(file.sizes.width)):
        return None  # a sensor with diagonal rows (SuperCCD), which LibRaw rotates
    pattern = "".join(chr(file.color_desc[index]) for index in np.asarray(file.raw_colors_visible[:2, :2]).ravel())
    return pattern if pattern in BAYER_PATTERNS else None


_Levels = tuple[str, tuple[float, float, float, float], float]
"""Pattern, black level at each position of the 2x2 block, white level."""


def _own_levels(file: Any, tags: DngTags, tag_file: TagFile) -> _Levels | None:
    """Pattern and levels as the file states them; None if it is neither a (Quad) Bayer mosaic nor monochrome."""
    quad = quad_pattern(tag_file)
    if quad is not None or file.num_colors == 1 or is_mono(tag_file):
        level = float(file.black_level_per_channel[0])
        black = tags.black_level or (level, level, level, level)
        if quad is not None:  # the mean of each cell is used, and these are the levels inside one
            black = (sum(black) / 4,) * 4
        return quad or MONO, black, float(file.white_level)
    pattern = _bayer_pattern(file)
    return None if pattern is None else (pattern, _black_levels(file, tags), float(file.white_level))


def _black_levels(file: Any, tags: DngTags) -> tuple[float, float, float, float]:
    """Black level at each position of the 2x2 block.

    LibRaw has whole numbers for each colour index; fractions of a DNG's levels are read from its tags.
    """
    by_colour = file.black_level_per_channel
    levels = [float(by_colour[index]) for index in np.asarray(file.raw_colors_visible[:2, :2]).ravel()]
    exact = tags.black_level
    # If they differ by 1 or more, LibRaw is right, since it knows the maker's offsets and the visible area.
    if exact is not None and all(abs(fine - whole) < 1 for fine, whole in zip(exact, levels, strict=True)):
        return exact
    return levels[0], levels[1], levels[2], levels[3]


def _declared_levels(own: _Levels, facts: BayerHeader, path: Path, remarks: list[Remark]) -> _Levels:
    """Declared pattern, black level and white level, and the file's own for those that are not declared.

    Adds a remark for each declared value that differs from the file's own.
    """
    pattern, own_black, own_white = own
    black = facts.black_levels if facts.black is not None else own_black
    white = float(facts.white) if isinstance(facts.white, int | float) else own_white
    declared = facts.pattern if facts.pattern is not None else pattern
    for name, value, stated in (
        ("pattern", declared, pattern),
        ("black", _as_text(*black), _as_text(*own_black)),
        ("white", _as_text(white), _as_text(own_white)),
    ):
        if value != stated:
            change = f"raw-{name} {value} is used in place of the file's own {stated}"
            text = f"{path}: {change}; leave it out if that is not meant"
            remarks.append(Remark(f"raw-{name} in place of a camera file's own", text))
    return declared, black, white


def _as_text(*levels: float) -> str:
    """Levels for a message; four equal levels are shown as one.

    >>> _as_text(12.5, 12.5, 12.5, 12.5), _as_text(1.0, 2.0, 2.0, 3.0)
    ('12.5', '1, 2, 2, 3')
    """
    return ", ".join(f"{level:g}" for level in (levels[:1] if len(set(levels)) == 1 else levels))


def _shaded(
    pixels: NDArray[Any],
    tag_file: TagFile,
    black: tuple[float, float, float, float],
    white: float,
    path: Path,
    remarks: list[Remark],
) -> NDArray[Any]:
    """The mosaic with the lens shading of the file's GainMap; a damaged one is not used, which a remark says."""
    try:
        maps = parse_gain_maps(opcode_list(tag_file))
    except ValueError as error:
        text = f"{path}: its lens shading is not corrected: {error} (OpcodeList2)"
        remarks.append(Remark("lens shading that cannot be read", text))
        return pixels
    return shaded(pixels, gains_of_maps(maps, *pixels.shape), black, white) if maps else pixels


def _note_shading_of_rgb(tag_file: TagFile, path: Path, remarks: list[Remark]) -> None:
    """Adds a remark if a raw that is no mosaic has a GainMap, which is not applied."""
    with suppress(ValueError):
        if parse_gain_maps(opcode_list(tag_file)):
            text = f"{path}: is no mosaic, so that its lens shading (GainMap) is not corrected"
            remarks.append(Remark("lens shading of RGB", text))


def _aspect_remark(file: Any, path: Path) -> list[Remark]:
    aspect = float(file.sizes.pixel_aspect)
    if abs(aspect - 1) <= SQUARE_MARGIN:
        return []
    found = f"its pixels are not square (width to height {aspect:g}); pictures and boxes keep the shape of the pixels"
    return [Remark("pixels that are not square", f"{path}: {found}, so that objects look squeezed")]


def _unstretched(picture: Any, aspect: float, orientation: int) -> Any:
    """Undoes LibRaw's stretching to square pixels, so that the image has the size of the frame.

    LibRaw repeats columns: column j of its image is column floor(j / aspect) of the frame (rows if aspect is below 1),
    so each j between k · aspect and (k + 1) · aspect shows column k. The middle one is used, which rounding cannot move
    to another column. If LibRaw left out the last column, its neighbour is used.

    Args:
        picture: (height, width, 3), upright.
        aspect: width of a pixel divided by its height.
        orientation: EXIF orientation that was applied after the stretching.
    """
    if aspect == 1:
        return picture
    factor = max(aspect, 1 / aspect)
    axis = int((aspect > 1) != (orientation >= 5))
    is_mirrored = orientation in ((3, 4, 7, 8), (2, 3, 6, 7))[axis]
    stretched = picture.shape[axis]
    edges = np.arange(round(stretched / factor) + 1) * factor
    first, last = np.floor(edges[:-1] + ROUNDING) + 1, np.ceil(edges[1:] - ROUNDING) - 1
    places = np.clip((first + last) // 2, 0, stretched - 1).astype(int)
    return np.take(picture, stretched - 1 - places[::-1] if is_mirrored else places, axis)


def _linear_rgb(file: Any, path: Path) -> Any:
    """LibRaw's linear 16-bit RGB in camera colours, sensor orientation, black subtracted, white at 65535."""
    rawpy = import_extra("rawpy", "raw")
    aspect = float(file.sizes.pixel_aspect)
    data = file.postprocess(
        gamma=(1, 1),
        no_auto_bright=True,
        output_bps=16,
        use_camera_wb=False,
        user_wb=[1.0, 1.0, 1.0, 1.0],
        output_color=rawpy.ColorSpace.raw,
        adjust_maximum_thr=0.0,  # otherwise the white level depends on the image's maximum
        user_flip=0,
    )
    if data.ndim != 3 or data.shape[2] != 3:
        raise RawFileError(f"{path}: has {data.shape[-1]} colours instead of three; convert it to linear RGB first")
    return _unstretched(data, aspect, 1)

"""Any raw file → `RawImage`: camera files, DNG, headerless Bayer dumps, 16-bit PNG and TIFF, npy arrays."""

import glob
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from adaptiveisp.dng import write_dng
from adaptiveisp.errors import OutputError, RawFileError, UsageError, logger
from adaptiveisp.files import walk_files
from adaptiveisp.rawheader import BayerHeader, find_header, parse_size
from adaptiveisp.rawlib import libraw_render, read_libraw
from adaptiveisp.rawnote import unprocessing_from_note
from adaptiveisp.rawpng import read_npy, read_png, read_tiff, write_png16
from adaptiveisp.types import RawImage

__all__ = [
    "KNOWN_EXTENSIONS",
    "BayerHeader",
    "camera_render",
    "find_raw_files",
    "is_libraw_file",
    "parse_size",
    "read_raw",
    "write_png16",
]

CAMERA_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef"}
    | {".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
HEADERLESS_EXTENSIONS = frozenset({".raw", ".bin", ".bayer"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
KNOWN_EXTENSIONS = CAMERA_EXTENSIONS | HEADERLESS_EXTENSIONS | TIFF_EXTENSIONS | {".png", ".npy"}
PHOTO_EXTENSIONS = frozenset({".jpg", ".jpeg", ".webp", ".bmp"})
"""Files that can only be photos."""
PHOTO_REMEDY = "photos are no raws: give them to eval or train with --light, or make raws of them with synth"
SMALLEST_SIDE = 16
"""Pixels; below this no module or detector can do anything sensible."""

FAR_ABOVE = 256
"""A white level so many times beyond what the values' type can hold belongs to other values."""
HDR_PERCENTILE = 99.0
"""Values above this percentile saturate in HDR arrays. Source: ROD data set, as AdaptiveISP's evaluation reads it."""

RESERVED_STEMS = frozenset({"overview", "summary", "skipped", "params"})
"""Files that a run writes beside the outputs of its inputs, without their extensions."""

_DERIVED_ENDING = re.compile(r"\.(?=(?:boxes|full|pipeline|step\d+-[^.]*)$)", re.IGNORECASE)
"""The dot of a stem that ends as the outputs of another stem do: x.boxes.png belongs to x as well as to x.boxes."""


def read_raw(path: Path, header: BayerHeader | None = None) -> RawImage:
    """What `path` recorded, unprocessed, with the metadata the file or its sidecar carries.

    Args:
        path: camera raw or DNG; headerless Bayer (.raw, .bin, .bayer: size, bits and pattern from `header` or a
            sidecar); 8- or 16-bit PNG or TIFF, linear RGB or a mosaic; .npy, (H, W, 3), (3, H, W) or (H, W). Float
            arrays with values up to 1 are taken as they are; other floats and long integers are HDR, white at their
            99th percentile.
        header: facts about files that do not carry them; it wins over a sidecar and is not used for camera files.

    Raises:
        RawFileError: the file is missing, damaged, of unknown type, too small, black, or lacks facts.
        AdaptiveISPError: the library that reads this kind of file is not installed.
    """
    path = Path(path)
    try:
        extension = _checked_extension(path)
        if extension in CAMERA_EXTENSIONS:
            raw = read_libraw(path)
        elif extension in HEADERLESS_EXTENSIONS:
            raw = _read_headerless(path, find_header(path, header))
        else:
            raw = _read_array(path, extension, find_header(path, header))
    except OSError as error:
        raise RawFileError(_unreadable(path, error)) from None
    _check_usable(raw, path)
    return raw


def is_libraw_file(path: Path) -> bool:
    """Whether `path` has the extension of a camera file or DNG, which LibRaw reads.

    >>> is_libraw_file(Path("x.NEF")), is_libraw_file(Path("x.png"))
    (True, False)
    """
    return Path(path).suffix.lower() in CAMERA_EXTENSIONS


def camera_render(raw: RawImage) -> UInt8[np.ndarray, "height width 3"]:
    """The photo as LibRaw develops it by default: camera white balance, sRGB, automatic brightness, upright.

    Args:
        raw: read from a camera file or DNG, or any Bayer mosaic (which goes through a temporary DNG).

    Raises:
        RawFileError: LibRaw cannot develop the raw: RGB already, no 8- or 16-bit integers, too small, damaged; or
            there is no room for the temporary DNG.
    """
    if raw.path is not None and is_libraw_file(raw.path):
        return libraw_render(raw.path)
    name = raw.path or "raw image"
    if raw.pattern is None:
        raise RawFileError(f"{name}: LibRaw develops mosaics only, and this is RGB; use another policy than camera")
    try:
        with tempfile.TemporaryDirectory() as folder:
            mosaic = Path(folder) / "mosaic.dng"
            try:
                write_dng(raw, mosaic)
                return libraw_render(mosaic)
            except (OutputError, RawFileError) as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                # The caller knows nothing of the temporary file that these messages name.
                reason = str(error).removeprefix(f"{mosaic}: ")
                raise RawFileError(f"{name}: {reason}") from None
    except OSError as error:
        raise RawFileError(
            f"{name}: no temporary DNG could be written ({error.strerror or error}); free space or set TMPDIR"
        ) from None


def _unreadable(name: Path | str, error: OSError) -> str:
    return f"{name}: cannot be read ({error.strerror or error}); check its name and permissions"


def _checked_extension(path: Path) -> str:
    """The extension in lower case, after checking that there is a file of a known kind."""
    if not path.exists():
        raise RawFileError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise RawFileError(f"{path}: is a folder; give a raw file")
    extension = path.suffix.lower()
    if extension in PHOTO_EXTENSIONS:
        raise RawFileError(f"{path}: is a photo; {PHOTO_REMEDY}")
    if extension not in KNOWN_EXTENSIONS:
        raise RawFileError(f"{path}: unknown extension {extension!r}; known are {' '.join(sorted(KNOWN_EXTENSIONS))}")
    if path.stat().st_size == 0:
        raise RawFileError(f"{path}: is empty; copy it again from its source")
    return extension


def _read_headerless(path: Path, header: BayerHeader) -> RawImage:
    width, height, bits, pattern = header.width, header.height, header.bits, header.pattern
    if width is None or height is None or bits is None or pattern is None:
        known = {"--raw-size": width, "--raw-bits": bits, "--raw-pattern": pattern}
        missing = ", ".join(flag for flag, value in known.items() if value is None)
        raise RawFileError(
            f"{path}: has no header; give {missing} or a sidecar {path.name}.yaml with the same keys; in Python "
            "header=BayerHeader(width, height, bits, pattern)"
        )
    n_bytes = 1 if bits == 8 else 2 if bits <= 16 else 3
    expected, found = width * height * n_bytes, path.stat().st_size
    if expected != found:
        raise RawFileError(
            f"{path}: {width}x{height} with {bits} bits needs {expected} bytes, found {found}; "
            "correct --raw-size or --raw-bits (in Python header=BayerHeader(…)), or the sidecar"
        )
    if n_bytes == 3:
        low, middle, high = np.moveaxis(np.fromfile(path, "u1").reshape(height, width, 3).astype(np.uint32), 2, 0)
        data = (low | middle << 8 | high << 16).astype(np.float32)  # exact: float32 holds whole numbers to 2^24
    else:
        data = np.fromfile(path, "u1" if n_bytes == 1 else "<u2").reshape(height, width)
        data = data.astype(data.dtype.newbyteorder("="), copy=False)
    white = header.white if header.white is not None else float(2**bits - 1)
    level = _percentile_white(data, header) if isinstance(white, str) else white
    return RawImage(data, pattern, header.black_levels, level, path=path)


def _read_array(path: Path, extension: str, header: BayerHeader) -> RawImage:
    """PNG, TIFF or npy → RawImage; `header` gives the pattern of a mosaic and may correct the levels."""
    note = None
    if extension == ".png":
        pixels, note = read_png(path)
    else:
        pixels = read_tiff(path) if extension in TIFF_EXTENSIONS else read_npy(path)
    pixels = _arranged(pixels, path)
    if pixels.ndim == 2 and header.pattern is None:
        how = f"--raw-pattern or a sidecar {path.name}.yaml; in Python header=BayerHeader(pattern=…)"
        hint = f"; {PHOTO_REMEDY}" if pixels.dtype == np.uint8 else ""
        raise RawFileError(f"{path}: has one channel, so it needs {how}{hint}")
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and note is None and header == BayerHeader():
        _warn_of_photos(path.parent)
    pixels, white = _levelled(pixels, header, path)
    try:
        unprocessing = unprocessing_from_note(note)
    except RawFileError as error:
        raise RawFileError(f"{path}: {error}") from None
    pattern = header.pattern if pixels.ndim == 2 else None
    return RawImage(pixels, pattern, header.black_levels, white, unprocessing=unprocessing, path=path)


@cache
def _warn_of_photos(folder: Path) -> None:
    """Says once that pictures which may be photos are taken for linear light; nothing in the files tells."""
    logger.warning("%s: its pictures of 8 bits a channel are taken for linear light; %s", folder, PHOTO_REMEDY)


def _arranged(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """(height, width) or (height, width, 3), whatever the order was."""
    if pixels.size == 0:
        raise RawFileError(f"{path}: holds no pixels; save it again")
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3):
        return pixels
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))
    shape = "x".join(map(str, pixels.shape)) or "a single number"
    hint = f"; {PHOTO_REMEDY}" if pixels.dtype == np.uint8 else ""
    raise RawFileError(
        f"{path}: has shape {shape}; save it with one channel (mosaic) or three (RGB), without alpha{hint}"
    )


def _levelled(pixels: NDArray[Any], header: BayerHeader, path: Path) -> tuple[NDArray[Any], float]:
    """The values as they are kept, and the white level that belongs to them."""
    if pixels.dtype.kind not in "uif":
        raise RawFileError(f"{path}: holds {pixels.dtype} values; save integers or floats")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.dtype in (np.uint8, np.uint16):
        full = 2**header.bits - 1 if header.bits is not None else np.iinfo(pixels.dtype).max
        white = header.white if header.white is not None else float(full)
        most = np.iinfo(pixels.dtype).max
        if not isinstance(white, str) and white > FAR_ABOVE * most:  # such as byte planes taken for colours
            remedy = "correct it, or put the bytes of each value together first"
            raise RawFileError(
                f"{path}: holds {pixels.dtype}, up to {most}, but its white level is {white:g}; {remedy}"
            )
        return pixels, _percentile_white(pixels, header) if isinstance(white, str) else white
    # What float32 cannot hold becomes infinite, which the next line reports better than a warning.
    with np.errstate(over="ignore", invalid="ignore"):
        values = pixels.astype(np.float32)
    if not np.isfinite(values).all():
        raise RawFileError(f"{path}: holds NaN, infinite or too large values; save finite numbers below 1e38")
    values = np.maximum(values, 0.0)
    if header.white is not None and not isinstance(header.white, str):
        return values, header.white
    if header.white is None and values.max(initial=0.0) <= 1 and pixels.dtype.kind == "f":
        return values, 1.0
    return values, _percentile_white(values, header)


def _percentile_white(values: NDArray[Any], header: BayerHeader) -> float:
    """The value above which the brightest hundredth of an HDR picture lies; its peak where that is black."""
    percentile, peak = float(np.percentile(values, HDR_PERCENTILE)), float(values.max(initial=0.0))
    black = max(header.black_levels)
    # A picture with less than 1 % of lit pixels has no useful percentile, and one without any has no peak either.
    return percentile if percentile > black else peak if peak > black else black + 1


def _check_usable(raw: RawImage, path: Path) -> None:
    height, width = raw.data.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise RawFileError(f"{path}: {width}x{height} is too small; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} is needed")
    if raw.white_level <= max(raw.black_level):
        levels = f"white level {raw.white_level:g} is not above black level {max(raw.black_level):g}"
        raise RawFileError(f"{path}: {levels}; correct the levels")
    tiles = [raw.data[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    if raw.data.max() <= max(raw.black_level) and all(
        tile.max() <= black for tile, black in zip(tiles, raw.black_level, strict=True)
    ):
        raise RawFileError(f"{path}: all pixels are at or below the black level; check the lens cap or the black level")


def find_raw_files(
    inputs: list[str], exclude: Path | None = None
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """Every raw file that `inputs` name, each with the relative path, without extension, that its outputs get.

    A folder is searched with its subfolders for known extensions, sorted, hidden files left out; its outputs mirror
    it. A glob pattern (`**` included) mirrors from the part before the first wildcard. A single file keeps its name.
    A file named twice is taken once. Where two would share an output, or one is called like a file that a run writes
    (`RESERVED_STEMS`), the extension joins the name (`x_dng`), and if that does not tell them apart, a number
    (`x_dng_2`). A name that ends like the outputs of another input (`x.boxes`, `x.full`, `x.pipeline`,
    `x.step1-exposure`) gets an underscore for that dot (`x_boxes`).

    Args:
        inputs: files, folders, glob patterns.
        exclude: the output folder; what lies in it is no input unless a file is named by itself.

    Returns:
        The files, and the inputs that do not exist, each with its message, so that a batch can go on without them.

    Raises:
        RawFileError: nothing was found.
        UsageError: an input is an empty text.
    """
    if not all(inputs):
        raise UsageError("an input is empty; check the shell variable")
    excluded = os.path.realpath(exclude) if exclude is not None else None
    found: dict[str, tuple[Path, Path]] = {}
    missing: list[tuple[str, str]] = []
    n_excluded = 0
    for text in inputs:
        try:
            for path, relative in _expand(text):
                if excluded is not None and path != Path(text) and _lies_in(path, excluded):
                    n_excluded += 1
                else:
                    found.setdefault(os.path.realpath(path), (path, relative))
        except RawFileError as error:
            missing.append((text, str(error)))
        except OSError as error:
            missing.append((text, _unreadable(text, error)))
    if not found and missing:
        raise RawFileError(missing[0][1])
    if not found and n_excluded:
        raise RawFileError(f"all {n_excluded} raw files lie in the output folder {exclude}; choose another --out")
    if not found:
        remedy = PHOTO_REMEDY if any(map(_has_photos, inputs)) else f"known are {' '.join(sorted(KNOWN_EXTENSIONS))}"
        raise RawFileError(f"no raw files in {', '.join(inputs) or 'nothing'}; {remedy}")
    return _with_unique_stems(list(found.values())), missing


def _has_photos(text: str) -> bool:
    """Whether an input is a folder with photos, or a pattern for them."""
    path = Path(text)
    return path.suffix.lower() in PHOTO_EXTENSIONS or any(True for _ in walk_files(path, PHOTO_EXTENSIONS))


def _lies_in(path: Path, folder: str) -> bool:
    """Whether the directory entry `path` is somewhere below `folder`, a real path; a link counts where it lies."""
    return Path(os.path.realpath(path.parent)).is_relative_to(folder)


def _expand(text: str) -> Iterator[tuple[Path, Path]]:
    """The files of one input, each with its path relative to where mirroring starts."""
    path = Path(text)
    if path.is_dir():
        yield from ((file, file.relative_to(path)) for file in walk_files(path, KNOWN_EXTENSIONS))
    elif path.exists():
        yield path, Path(path.name)
    elif glob.has_magic(text):
        parts = Path(text).parts
        first_wild = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:first_wild])
        matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]
        if not matches:
            raise RawFileError(f"{text}: nothing matches; check the pattern")
        for match in matches:
            if match.is_file() and match.suffix.lower() in KNOWN_EXTENSIONS:
                yield match, match.relative_to(root)
    else:
        raise RawFileError(f"{text}: no such file or folder; check the path")


def _with_unique_stems(files: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    stems = [_own_stem(relative) for _, relative in files]
    # Compared in lower case: two outputs must not be one file where the file system ignores case.
    counts = Counter(str(stem).lower() for stem in stems)
    taken = {key for key, count in counts.items() if count == 1} | RESERVED_STEMS
    result: list[tuple[Path, Path]] = []
    for (path, relative), stem in zip(files, stems, strict=True):
        key = str(stem).lower()
        if counts[key] > 1 or key in RESERVED_STEMS:
            base = stem.with_name(f"{stem.name}_{relative.suffix[1:].lower()}")
            stem, number = base, 2
            while str(stem).lower() in taken:
                stem, number = base.with_name(f"{base.name}_{number}"), number + 1
            taken.add(str(stem).lower())
        result.append((path, stem))
    return result


def _own_stem(relative: Path) -> Path:
    """The path without extension, and without an ending that marks the outputs of another stem."""
    name = relative.stem
    while _DERIVED_ENDING.search(name):
        name = _DERIVED_ENDING.sub("_", name)
    return relative.with_name(name)

"""Refuses files that LibRaw would misread silently, judged by their tags, and explains why LibRaw refuses others.

Each kind of file that is refused here gave a wrong image with LibRaw 0.22. Kinds that LibRaw refuses itself are not
checked, so that a build of LibRaw that reads more kinds can be used.
Source: Adobe, TIFF 6.0; Adobe, DNG 1.7.1, chapters 3 and 4.
"""

from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import NoReturn

from adaptiveisp.errors import RawFileError, shown
from adaptiveisp.raw.colour_filters import quad_of
from adaptiveisp.raw.tags import (
    BIG_MAGIC,
    CFA,
    DEFLATE,
    LOSSLESS_JPEG,
    LOSSY_JPEG,
    PANASONIC_MAGIC,
    Directory,
    TagFile,
    number,
    numbers,
    offsets,
)
from adaptiveisp.types import Remark

JPEG_XL = 52546
"""Value of Compression."""
LEAST_BYTES = 0.05
"""Least number of bytes for each pixel of a complete file. Lossless JPEG needs at least a bit, 0.125 bytes; cameras'
lossy raws need more."""
SMALLEST_XTRANS = 512
"""Side in pixels of the tiles in which LibRaw develops X-Trans; it refuses smaller images as damaged."""

LINEAR_REMEDY = "convert it with Adobe DNG Converter, option Linear (demosaiced)"
AGAIN_REMEDY = "save it again with Adobe DNG Converter, without lossy compression and compatible with DNG 1.6"
_COLOURS = {0: "red", 1: "green", 2: "blue", 3: "cyan", 4: "magenta", 5: "yellow", 6: "white"}
_COMPRESSIONS = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    5: "LZW",
    6: "old JPEG",
    8: "Deflate of whole numbers",
    9: "VC-5, as GoPro's GPR files",
    32773: "PackBits",
    32946: "old Deflate",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    JPEG_XL: "JPEG XL",
}
"""Values of Compression that LibRaw does not read, or reads only if it was built with Adobe's or GoPro's code."""
_READ_BY_TIFFFILE = frozenset({5, 8, 32773, 32946, 34925, 50000})
_FLOAT_PREDICTORS = (3, 34894, 34895)


def refuse_misread(file: TagFile, path: Path, black_is_given: bool = False) -> None:
    """Refuses a DNG that LibRaw would develop to a wrong image.

    Args:
        file: tags of the file.
        path: name of the file, for messages.
        black_is_given: whether a declared black level replaces the file's own, which may then be impossible.

    Raises:
        RawFileError: the file is such a DNG, is truncated, or lists fewer strips or tiles than it needs.
    """
    if file.magic == PANASONIC_MAGIC:
        _check_panasonic(file, path)
    raw = file.raw
    if not file.is_dng or not raw:
        return
    is_mosaic = number(raw, 262) == CFA
    channels = _whole(raw, 277, 1)
    if is_mosaic:
        _check_filters(raw, path)
    elif channels not in (1, 3):
        _refuse(path, f"has {channels} channels instead of three; {LINEAR_REMEDY}")
    if channels > 1 and number(raw, 284) == 2:
        _refuse(
            path,
            f"holds its colours one after the other (PlanarConfiguration 2), which LibRaw mixes up; {AGAIN_REMEDY}",
        )
    for tag, name in (
        (50975, "rows are interleaved (RowInterleaveFactor"),
        (52547, "columns are interleaved (ColumnInterleaveFactor"),
    ):
        if (number(raw, tag) or 1) != 1:
            _refuse(path, f"its {name} {number(raw, tag):g}), which LibRaw does not undo; {AGAIN_REMEDY}")
    negative = [level for level in numbers(raw, 50714) if level < 0]
    if negative and not (black_is_given and is_mosaic):
        remedy = "give the true one by --raw-black" if is_mosaic else AGAIN_REMEDY
        _refuse(path, f"its tag BlackLevel is {negative[0]:g}, which LibRaw reads as billions; {remedy}")
    _check_predictor(file, raw, path)
    _check_segments(file, raw, path)


def tag_doubts(file: TagFile, path: Path, white_is_given: bool = False) -> tuple[Remark, ...]:
    """Remarks on tags of a file that LibRaw reads, but possibly to a wrong image.

    Args:
        file: tags of the file.
        path: name of the file, for the texts.
        white_is_given: whether a declared white level replaces the file's own.
    """
    raw, remarks = file.raw, list[Remark]()
    missing = missing_bytes(raw, file.n_bytes)
    if missing and not file.is_dng:  # in files of other formats these tags may have another meaning
        text = f"{path}: its tags place {missing} bytes of pixels beyond its end; is it cut off?"
        remarks.append(Remark("pixels beyond the end of the file", text))
    if not file.is_dng or not raw:
        return tuple(remarks)
    if set(_cells(raw)) == {0, 2, 6} and number(raw, 262) == CFA:
        found = "its colour filters are red, white and blue; white is taken for green unless raw-pattern RCCB is given"
        text = f"{path}: {found}"
        remarks.append(Remark("white colour filters", text))
    bits, white = _bits(raw), number(raw, 50717)
    whole = (number(raw, 339) or 1) == 1 and 50712 not in raw
    if whole and white is not None and white > 2**bits - 1 and not white_is_given:
        found = f"its tag WhiteLevel is {white:g}, but its {bits} bits end at {2**bits - 1}, so that it looks too dark"
        remarks.append(
            Remark("white level above what the bits hold", f"{path}: {found}; is it --raw-white {2**bits - 1}?")
        )
    spread = sum(max(values) - min(values) for tag in (50715, 50716) if (values := numbers(raw, tag)))
    if spread > 0.001 * (white or 2**bits - 1):
        found = f"its black level differs by {spread:g} between columns or rows (BlackLevelDeltaH, BlackLevelDeltaV)"
        remarks.append(Remark("black level of rows and columns", f"{path}: {found}; LibRaw takes the mean for all"))
    return tuple(remarks)


def refuse_too_small(file: TagFile, path: Path, width: int, height: int) -> None:
    """Refuses a file that has far fewer bytes than its pixels need with any compression.

    Args:
        file: tags and size of the file.
        path: name of the file, for messages.
        width, height: size of the whole sensor in pixels, from LibRaw.

    Raises:
        RawFileError: the file is cut off.
    """
    # These compressions reduce a dark frame to almost nothing. Strips and tiles of a DNG were checked before.
    is_small_by_right = file.is_dng and _whole(file.raw, 259, 1) in (DEFLATE, LOSSY_JPEG, JPEG_XL)
    if file.n_bytes < LEAST_BYTES * width * height and not is_small_by_right:
        cut = f"is cut off ({file.n_bytes} bytes for {width}x{height} pixels); copy it again from its source"
        _refuse(path, why_unknown(file, path) or cut)


def missing_bytes(raw: Directory, n_bytes: int) -> int:
    """The number of bytes by which strips or tiles reach beyond the end of a file of `n_bytes` bytes."""
    ends = [0]
    for offset_tag, count_tag in ((273, 279), (324, 325)):
        starts, counts = offsets(raw, offset_tag), offsets(raw, count_tag)
        ends += [start + count for start, count in zip(starts, counts, strict=False)]
    return max(0, max(ends) - n_bytes)


def why_unknown(file: TagFile, path: Path) -> str | None:
    """The reason why LibRaw does not read a file, with the remedy; None if the tags do not show it.

    Args:
        file: tags of a file that LibRaw refused.
        path: name of the file, for the remedy.
    """
    raw = file.raw
    if file.magic == BIG_MAGIC:
        return f"is a BigTIFF, which LibRaw does not read; {_array_remedy(file, raw, path) or AGAIN_REMEDY}"
    if not file.is_dng:
        return None
    if not raw:
        kinds = {0: "grey", 1: "grey", 2: "RGB"}
        kind = next((kinds[value] for part in file.directories if (value := _whole(part, 262, -1)) in kinds), None)
        found = f"holds {kind} pictures and no raw one (PhotometricInterpretation CFA or LinearRaw)"
        return f"{found}; if they are linear light, save one as .tiff or .npy" if kind else None
    compression = _whole(raw, 259, 1)
    name = _COMPRESSIONS.get(compression)
    if compression in (1, LOSSLESS_JPEG, LOSSY_JPEG) or (compression == DEFLATE and number(raw, 339) == 3):
        if offsets(raw, 33421) == [6, 6] and min(number(raw, 256) or 0, number(raw, 257) or 0) < SMALLEST_XTRANS:
            return f"is a small X-Trans mosaic; LibRaw develops them from {SMALLEST_XTRANS}x{SMALLEST_XTRANS} on only"
        return None
    if compression == 9:
        remedy = f"convert it with GoPro's gpr_tools -i {path.name} -o {path.stem}-plain.dng"
    else:
        remedy = (_array_remedy(file, raw, path) if compression in _READ_BY_TIFFFILE else "") or AGAIN_REMEDY
    named = f"{name} (Compression {compression})" if name else f"a way unknown here (Compression {compression})"
    return f"its pixels are compressed by {named}, which LibRaw does not read; {remedy}"


def _refuse(path: Path, text: str) -> NoReturn:
    raise RawFileError(f"{path}: {text}")


def _array_remedy(file: TagFile, raw: Directory, path: Path) -> str:
    """Instructions for reading the raw with tifffile, with the flags that the array needs.

    The text is "" if the raw is not in the first page of the file, which is the one that tifffile reads.
    """
    if not raw or raw is not file.directories[0] or number(raw, 254):
        return ""
    code = f"numpy.save('{path.stem}.npy', tifffile.imread('{path.name}'))"
    flags = _level_flags(raw)
    names = "".join("RGB"[cell] for cell in _cells(raw) if cell in (0, 1, 2))
    if number(raw, 262) == CFA and len(names) == 4:
        flags = f"--raw-pattern {names} {flags}"
    return f"pip install tifffile imagecodecs, then in Python {code}, and give {flags}"


def _level_flags(raw: Directory) -> str:
    black, white = numbers(raw, 50714), number(raw, 50717)
    highest = white if white is not None else float(2 ** _bits(raw) - 1)
    return f"--raw-black {sum(black) / len(black) if black else 0:g} --raw-white {highest:g}"


def quad_pattern(file: TagFile) -> str | None:
    """The Quad Bayer pattern of a DNG, one of `colour_filters.QUAD_PATTERNS`; None if it has another one."""
    raw = file.raw
    if not file.is_dng or not raw or number(raw, 262) != CFA:
        return None
    rows, columns = [*offsets(raw, 33421), 2, 2][:2]
    return quad_of(_cells(raw), rows, columns)


def is_mono(file: TagFile) -> bool:
    """Whether a DNG is of a camera without colour filters: a linear raw of one channel, or all filters are equal."""
    raw = file.raw
    if not file.is_dng or not raw:
        return False
    if number(raw, 262) == CFA:
        return len(set(_cells(raw))) == 1
    return _whole(raw, 277, 1) == 1


def _cells(raw: Directory) -> list[int]:
    return offsets(raw, 33422)


def _whole(raw: Directory, tag: int, default: int) -> int:
    """The first value of a tag that holds a count; the default if it is missing or impossible."""
    value = next(iter(offsets(raw, tag)), default)
    return value if value < 2**32 else default


def _bits(raw: Directory) -> int:
    """Bits of a sample; 16 if the tag is impossible."""
    bits = _whole(raw, 258, 16)
    return bits if 1 <= bits <= 64 else 16


def _check_filters(raw: Directory, path: Path) -> None:
    """Refuses every mosaic but Bayer's and Fujifilm's X-Trans."""
    cells = _cells(raw)
    rows, columns = [*offsets(raw, 33421), 2, 2][:2]
    if not cells:
        _refuse(
            path, "its tag CFAPattern is missing, so that its colours are unknown; give it as an array, or repair it"
        )
    if rows < 1 or columns < 1 or rows * columns != len(cells):
        _refuse(path, f"its tags CFARepeatPatternDim and CFAPattern contradict each other; {AGAIN_REMEDY}")
    if len(set(cells)) == 1:
        return  # no filters: every value is used as it is
    layout = number(raw, 50711) or 1
    if layout != 1:
        _refuse(
            path,
            f"its colour filters are staggered (CFALayout {layout:g}), and LibRaw turns them wrongly; {LINEAR_REMEDY}",
        )
    if (rows, columns) == (6, 6) and [cells.count(colour) for colour in (0, 1, 2)] == [8, 20, 8]:
        return
    if quad_of(cells, rows, columns):
        return
    is_repeated = all(cells[place] == cells[place // columns % 2 * columns + place % 2] for place in range(len(cells)))
    # LibRaw supports filters that repeat within two columns, and confuses the colours of wider ones.
    if not (columns == 2 and rows in (2, 4, 8) and is_repeated):
        found = f"its colour filters repeat every {columns}x{rows} pixels"
        _refuse(path, f"{found}, which LibRaw mistakes for other filters; {LINEAR_REMEDY}")
    if set(cells) not in ({0, 1, 2}, {0, 2, 6}):
        names = ", ".join(_COLOURS.get(cell, f"of colour {shown(cell)}") for cell in sorted(set(cells)))
        _refuse(path, f"its colour filters are {names}, not red, green and blue; {LINEAR_REMEDY}")


def _check_predictor(file: TagFile, raw: Directory, path: Path) -> None:
    """Refuses floats that are compressed by Deflate with a predictor that LibRaw does not undo."""
    predictor = number(raw, 317) or 1
    if number(raw, 259) == DEFLATE and number(raw, 339) == 3 and predictor not in _FLOAT_PREDICTORS:
        found = f"its floats are compressed by Deflate with Predictor {predictor:g}, and LibRaw reads Predictor 3 only"
        _refuse(path, f"{found}; {_array_remedy(file, raw, path) or AGAIN_REMEDY}")


def _check_segments(file: TagFile, raw: Directory, path: Path) -> None:
    """Refuses a file with missing pixels, or with strips that LibRaw would not join."""
    missing = missing_bytes(raw, file.n_bytes)
    if missing:
        _refuse(path, f"is truncated ({missing} bytes are missing); copy it again")
    width, height = _whole(raw, 256, 0), _whole(raw, 257, 0)
    compression = _whole(raw, 259, 1)
    is_tiled = bool(offsets(raw, 324))
    starts, counts = (offsets(raw, tag) for tag in ((324, 325) if is_tiled else (273, 279)))
    across, down = (_whole(raw, 322, 0), _whole(raw, 323, 0)) if is_tiled else (width, _whole(raw, 278, height))
    if not starts or min(width, height, across, down) < 1:
        return
    needed = ceil(width / across) * ceil(height / down)
    name = "tiles" if is_tiled else "strips"
    bits_of_pixel = _whole(raw, 277, 1) * _bits(raw)
    if compression == 1 and not is_tiled:
        _check_plain_strips(file, starts, (width * bits_of_pixel, height, min(down, height)), path)
        return
    if len(starts) < needed:
        _refuse(
            path,
            f"lists {len(starts)} of its {needed} {name}, so that pixels are missing; copy it again from its source",
        )
    if compression == 1:
        short = max(starts[:needed]) + across * down * bits_of_pixel // 8 - file.n_bytes
        if short > 0:
            _refuse(path, f"is truncated ({short} bytes are missing); copy it again")
        return
    if 0 in counts[:needed]:
        found = f"{counts[:needed].count(0)} of its {needed} {name} are empty"
        _refuse(path, f"{found}, so that pixels are missing; copy it again from its source")
    if needed > 1 and not is_tiled and compression in (LOSSLESS_JPEG, LOSSY_JPEG):
        _refuse(path, f"holds JPEG data in {needed} strips, of which LibRaw reads the first only; {AGAIN_REMEDY}")
    if compression == LOSSLESS_JPEG and counts and sum(counts) < LEAST_BYTES * width * height:
        _refuse(path, f"is cut off ({sum(counts)} bytes for {width}x{height} pixels); copy it again from its source")


def _check_plain_strips(file: TagFile, starts: list[int], layout: tuple[int, int, int], path: Path) -> None:
    """Refuses uncompressed strips that are not contiguous, since LibRaw reads one run from the first strip on.

    Args:
        file: tags of the file.
        starts: offsets of the strips.
        layout: bits of a row, number of rows, rows of a strip.
        path: the file, for messages.
    """
    bits_of_row, height, rows = layout
    if bits_of_row % 8 == 0 and len(starts) > 1:
        step = rows * bits_of_row // 8
        if any(after - before != step for before, after in pairwise(starts)):
            _refuse(path, f"its strips are not contiguous, and LibRaw reads them as one; {AGAIN_REMEDY}")
    missing = starts[0] + bits_of_row * height // 8 - file.n_bytes
    if missing > 0:
        _refuse(path, f"is truncated ({missing} bytes are missing); copy it again")


def _check_panasonic(file: TagFile, path: Path) -> None:
    """Refuses a truncated RW2, which LibRaw does not notice; formats 4 to 7 always take 1.14 to 2 bytes a pixel."""
    for directory in file.directories:
        width, height, kind = (_whole(directory, tag, 0) for tag in (2, 3, 45))
        starts = offsets(directory, 280) or offsets(directory, 273)
        if kind in (4, 5, 6, 7) and starts and starts[0] < 2**32 - 1:
            missing = starts[0] + width * height - file.n_bytes
            if missing > 0:
                _refuse(path, f"is truncated (at least {missing} bytes are missing); copy it again")

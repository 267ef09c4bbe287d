"""Compares the declared facts of a raw with its values: contradictions are refused, and doubts become remarks.

A low maximum is no reason for doubt, since this package is made for dark frames. The thresholds are chosen so that a
raw with correct facts has no remark, even if it is dark and noisy; small errors of the black level are not noticed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS
from adaptiveisp.types import RawImage, Remark

ABOVE_WHITE, BELOW_BLACK, PEDESTAL = "values above the white level", "values below the black level", "black level"

SMALLEST_SIDE = 16
"""Least side of a raw in pixels, needed by modules and detectors."""
SAMPLE = 1_000_000
"""Approximate number of values from which shares and quantiles are computed."""
WHITE_MARGIN = 0.01
"""Share of the range by which values may exceed the white level, since saturated sites differ slightly."""
BELOW_SHARE = 0.01
"""The black level is doubtful if a larger share of the sites lies below it by more than the noise."""
NOISE_SIGMAS = 4.0
"""Number of standard deviations by which a site must lie below black to exceed the noise."""
UNCUT_SHARE = 0.3
"""Share of values above 0 at which noise is measured if the black level is so low that noise is clipped at 0."""
BLACK_MARGIN = 0.001
"""Share of the range by which the black level may be wrong without a remark, since it drifts with temperature."""
LOWEST_SHARE = 0.001
"""Quantile that counts as the smallest value; dead sites have a smaller share."""
FAR_ABOVE_BLACK = 0.02
"""Share of the range that counts as far above black; black levels of cameras are 3 to 12 % of the range."""
EQUAL_COLOURS = 0.4
"""Greatest relative difference of the colours' smallest values that indicates a pedestal, which is the same for all
colours. Light is not: on a neutral surface green is about twice as high as red and blue. In a foggy scene, whose
smallest values are far above black too, the colours therefore differ by more."""


def check_usable(raw: RawImage) -> None:
    """Refuses a raw that modules and detectors cannot process.

    Raises:
        RawFileError: a side is shorter than `SMALLEST_SIDE`, or no value is above the black level.
    """
    name = raw.path or "RawImage"
    height, width = raw.data.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise RawFileError(f"{name}: {width}x{height} is too small; at least {SMALLEST_SIDE}x{SMALLEST_SIDE} is needed")
    tiles = [raw.data[row::2, column::2] for row in (0, 1) for column in (0, 1)]
    if raw.data.max() <= max(raw.black_level) and all(
        tile.max() <= black for tile, black in zip(tiles, raw.black_level, strict=True)
    ):
        raise RawFileError(f"{name}: all pixels are at or below the black level; check the lens cap or the black level")


def require_bits(values: NDArray[Any], bits: int, name: Path | str) -> None:
    """Refuses whole numbers that exceed the declared number of bits; the message names the likely cause.

    Args:
        values: the stored pixels.
        bits: the declared depth of a value.
        name: the file, for errors.

    Raises:
        RawFileError: more than 8 bits are declared for bytes, or a value is above 2^bits - 1.
    """
    if values.dtype == np.uint8 and bits > 8:
        raise RawFileError(f"{name}: holds 8-bit values, but {bits} bits are declared; {_bytes_remedy(values, bits)}")
    largest, most = int(values.max()), 2**bits - 1
    if largest > most:
        found = f"the largest value is {largest}, but {bits} bits are declared, which end at {most}"
        raise RawFileError(f"{name}: {found}; {_bits_remedy(values, bits, largest)}")


def _bytes_remedy(values: NDArray[np.uint8], bits: int) -> str:
    """The remedy for bytes instead of deeper values, such as the raw buffer of a camera's library.

    Args:
        values: the bytes, (height, width) or (height, width, 3).
        bits: the declared depth.
    """
    width = values.shape[1]
    if values.ndim == 2 and width % 2 == 0 and bits <= 16 and int(values[:, 1::2].max()) < 2 ** (bits - 8):
        size = f"{width // 2}x{values.shape[0]}"
        return f"these look like the two bytes of each value: save array.view(numpy.uint16), which is {size}"
    group = {10: 5, 12: 3, 14: 7}.get(bits, 0)
    if values.ndim == 2 and group and width % group == 0:
        size = f"{width // group * {10: 4, 12: 2, 14: 4}[bits]}x{values.shape[0]}"
        return (
            f"these look like packed {bits}-bit values (CSI2P, MIPI RAW{bits}), an image of {size}: ask the camera for "
            "its unpacked format, or unpack it as docs/raws.md shows"
        )
    return "give --raw-bits 8, or put the bytes of each value together (array.view(numpy.uint16))"


def _bits_remedy(values: NDArray[Any], bits: int, largest: int) -> str:
    """The remedy for values above 2^bits - 1: left-aligned values, big-endian values, or too few bits."""
    if values.dtype == np.uint16:
        shift = 16 - bits
        if not int(np.bitwise_or.reduce(values, axis=None)) & (2**shift - 1):
            factor = 2**shift
            return (
                f"the values look left-aligned, {bits} bits at the top of 16: give --raw-format u{bits}msble16 "
                f"for a headerless file, else --raw-bits 16 --raw-white {(2**bits - 1) * factor} and "
                f"--raw-black times {factor}"
            )
        if int(values.byteswap().max()) < 2**bits:
            return (
                f"the values look big-endian: give --raw-format u{bits}be16 for a headerless file, else save "
                "array.byteswap() as .npy (docs/raws.md)"
            )
    return f"is it --raw-bits {largest.bit_length()}?"


def level_remarks(
    data: NDArray[Any],
    pattern: str | None,
    black_level: Sequence[float],
    white_level: float,
    name: Path | str,
    white_is_declared: bool = True,
    in_memory: bool = False,
) -> tuple[Remark, ...]:
    """Remarks on doubtful levels of a raw: many sites below black, or values above white.

    Args:
        data: mosaic, or RGB.
        pattern: colours of the 2x2 block, None for RGB.
        black_level: level at each position of the 2x2 block.
        white_level: value of saturation.
        name: the file, for the text.
        white_is_declared: whether the white level was declared; one that was computed from the values is not checked.
        in_memory: whether the text names the levels as fields of a `RawImage`; otherwise it names flags.
    """
    remarks = []
    white, black_key = ("white_level", "black_level") if in_memory else ("--raw-white or --raw-bits", "--raw-black")
    extent = white_level - max(black_level)
    if white_is_declared and float(data.max()) > white_level + WHITE_MARGIN * extent:
        share = float(np.count_nonzero(data > white_level) / data.size)
        found = f"{share:.2%} of its values are above the white level {white_level:g}, up to {float(data.max()):g}"
        remarks.append(Remark(ABOVE_WHITE, f"{name}: {found}; is {white} larger?"))
    for tile, black in zip(_tiles(data, pattern), black_level, strict=False):
        share = _share_below(tile, black, extent)
        if share > BELOW_SHARE:
            found = f"{share:.0%} of its values are below the black level {black:g} by more than the noise"
            remedy = f"is {black_key} about {_lowest(tile):g}?"
            remarks.append(Remark(BELOW_BLACK, f"{name}: {found}, down to {float(tile.min()):g}; {remedy}"))
            break
    return tuple(remarks)


def _tiles(data: NDArray[Any], pattern: str | None) -> list[NDArray[Any]]:
    """The values at each position of the 2x2 block, or of each colour; large images are subsampled by rows."""
    step = max(1, data.size // SAMPLE)
    if pattern is None:
        return [data[::step, :, colour] for colour in range(3)]
    return [data[row :: 2 * step, column::2] for row in (0, 1) for column in (0, 1)]


def _share_below(tile: NDArray[Any], black: float, extent: float) -> float:
    """The share of values that lie below black by more than the noise.

    The noise is measured near black, on pairs of neighbours of one colour whose mean lies below black. Their difference
    is independent of their mean, so this choice does not bias the measurement. If noise is clipped at 0, differences
    near 0 are too small, and brighter pairs are used too.

    Args:
        tile: values at one position of the 2x2 block.
        black: their black level.
        extent: white minus black level.
    """
    margin = BLACK_MARGIN * extent + (1.0 if tile.dtype.kind in "ui" else 0.0)
    if np.count_nonzero(tile < black - margin) <= BELOW_SHARE * tile.size:
        return 0.0
    dark, cut_off = black, float(np.count_nonzero(tile <= 0) / tile.size)
    if cut_off > BELOW_SHARE:
        dark = max(black, float(np.quantile(tile, min(1.0, cut_off + UNCUT_SHARE))))
    left, right = tile[:, :-1].astype(np.float32), tile[:, 1:].astype(np.float32)
    differences = np.abs(left - right)[left + right < 2 * dark]
    # The median of |difference| of two samples is 0.6745·√2·sigma.
    sigma = float(np.median(differences)) / (0.6745 * 2**0.5) if differences.size else 0.0
    return float(np.count_nonzero(tile < black - margin - NOISE_SIGMAS * sigma) / tile.size)


def _lowest(tile: NDArray[Any]) -> float:
    """The quantile `LOWEST_SHARE` of the values."""
    values = tile.ravel()
    place = int(LOWEST_SHARE * values.size)
    return float(np.partition(values, place)[place])


@dataclass
class _Lows:
    """The smallest values of frames of one folder, shape and black level, at each position of the 2x2 block."""

    lows: list[float]
    black: tuple[float, ...]
    white: float
    first: Path
    count: int = 1


@dataclass(frozen=True)
class RawFacts:
    """What a `RemarkWatch` keeps of a raw, small enough to be stored with its result.

    Attributes:
        remarks: doubts about the raw.
        path: its file; None for a frame in memory.
        shape: of its data.
        black, white: its levels.
        lowest: smallest value at each position of the 2x2 block; empty where the file itself states its black level.
    """

    remarks: tuple[Remark, ...] = ()
    path: Path | None = None
    shape: tuple[int, ...] = ()
    black: tuple[float, ...] = ()
    white: float = 0.0
    lowest: tuple[float, ...] = ()


def facts_of(raw: RawImage) -> RawFacts:
    """The facts of a raw, with its smallest values unless the file itself states its black level."""
    path, lowest = raw.path, tuple[float, ...]()
    # A camera file states its level, while a level of 0 can mean a missing tag.
    states = path is not None and path.suffix.lower() in CAMERA_EXTENSIONS and max(raw.black_level) > 0
    if path is not None and raw.pattern is not None and raw.unprocessing is None and not states:
        lowest = tuple(_lowest(tile) for tile in _tiles(raw.data, raw.pattern))
    shape = tuple(int(side) for side in raw.data.shape)
    return RawFacts(raw.remarks, path, shape, tuple(raw.black_level), float(raw.white_level), lowest)


class RemarkWatch:
    """Collects the remarks on the raws of a batch, so that each kind is reported once with the first file.

    One remark concerns the batch as a whole: no value of any frame is near the black level.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}
        self._lows: dict[tuple[Any, ...], _Lows] = {}

    def add(self, raw: RawImage) -> None:
        """Adds a raw's remarks, and its smallest values unless the file itself states its black level."""
        self.add_facts(facts_of(raw))

    def add_facts(self, facts: RawFacts) -> None:
        """Adds what was kept of a raw."""
        self.add_remarks(facts.remarks)
        if facts.path is None or not facts.lowest:
            return
        lows = list(facts.lowest)
        key = (facts.path.parent, facts.shape, facts.black)
        known = self._lows.setdefault(key, _Lows(lows, facts.black, facts.white, facts.path, 0))
        known.lows = [min(pair) for pair in zip(known.lows, lows, strict=True)]
        known.white, known.count = max(known.white, facts.white), known.count + 1

    def add_remarks(self, remarks: Iterable[Remark]) -> None:
        """Adds the remarks on a raw without reading its pixels."""
        for remark in remarks:
            first, count = self._found.get(remark.kind, (remark.text, 0))
            self._found[remark.kind] = (first, count + 1)

    def remarks(self) -> list[tuple[Remark, int]]:
        """Each kind of remark with the number of its raws; the text names the first of them."""
        found = [(Remark(kind, _counted(kind, *entry)), entry[1]) for kind, entry in self._found.items()]
        for known in self._lows.values():
            above = [low - black for low, black in zip(known.lows, known.black, strict=True)]
            far = FAR_ABOVE_BLACK * (known.white - max(known.black))
            if min(above) > far and max(above) - min(above) <= EQUAL_COLOURS * min(above):
                low, black = min(known.lows), max(known.black)
                text = f"smallest value {low:g}, far above the black level {black:g}: is --raw-black {low:g}?"
                among = f" among {known.count} files" if known.count > 1 else ""
                found.append((Remark(PEDESTAL, f"{known.first}{among}: {text}"), known.count))
        return found

    def news(self) -> list[tuple[Remark, int]]:
        """The remarks on several files, and on the batch as a whole; those on one file were reported with that file."""
        return [(remark, count) for remark, count in self.remarks() if count > 1 or remark.kind == PEDESTAL]


def _counted(kind: str, first: str, count: int) -> str:
    return first if count == 1 else f"{kind}: {count} files, the first is {first}"

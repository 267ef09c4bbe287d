"""Calibrates a camera from dark and flat frames: black and white level, gain, read and row noise, defects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.calibration.photon_transfer import (
    POSITIONS,
    Moments,
    dark_defects,
    flat_defects,
    mean_frame,
    robust_slope,
    tail_of,
    temporal_moments,
    without_rounding,
)
from adaptiveisp.calibration.stacks import LEAST_LEVELS, FrameFacts, Stack, check_darks, flat_levels
from adaptiveisp.errors import DataError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import MONO, RawImage

CLIPPED_AT_ALL, CLIPPED = 0.01, 0.001
"""A level is saturated if more than 1 % of a colour's values are equal to the largest value of all flats, and is left
out of the line if more than 0.1 % are at the white level."""
OFF_LINE = 0.1
"""Relative distance of a level's gain from the line's that is remarked."""
BLACK_DOUBT = 1.0
"""Codes by which the measured black level may differ from a declared one without a remark."""


@dataclass(frozen=True)
class ChannelNoise:
    """Levels and noise of one colour of the mosaic, or of the whole frame of a sensor without colour filters.

    Attributes:
        name: R, G1, G2, B or MONO.
        black: black level in codes.
        gain: codes an electron.
        read: standard deviation of the read noise of a pixel in codes, without rounding and rows.
        points: (mean above black in codes, temporal variance in squared codes without rounding) of each level.
        used: whether each point counts for the line; saturated ones do not.
    """

    name: str
    black: float
    gain: float
    read: float
    points: tuple[tuple[float, float], ...]
    used: tuple[bool, ...]

    @property
    def read_electrons(self) -> float:
        """The read noise in electrons."""
        return self.read / self.gain


@dataclass(frozen=True)
class Calibration:
    """The levels and the noise of a camera at one setting.

    Attributes:
        channels: of each colour.
        pattern: colours of the 2x2 block, or "MONO".
        black: black level at each position of the 2x2 block in codes.
        white: white level in codes.
        white_is_measured: whether flats saturate; otherwise the white level is the declared one.
        gain: codes an electron, the mean over the colours.
        read: standard deviation of the read noise in codes, the root mean square over the colours.
        row: standard deviation of the offset of a row in codes.
        tail: shape of the Tukey lambda distribution of the read noise, None if it is close to a Gaussian.
        defects: share of defective pixels.
        size: (width, height) in pixels.
        camera: make and model, or None if unknown.
        n_darks, n_flats, n_levels: numbers of frames, and of levels of the flats.
        remarks: doubts, one line each.
    """

    channels: tuple[ChannelNoise, ...]
    pattern: str
    black: tuple[float, float, float, float]
    white: float
    white_is_measured: bool
    gain: float
    read: float
    row: float
    tail: float | None
    defects: float
    size: tuple[int, int]
    camera: str | None
    n_darks: int
    n_flats: int
    n_levels: int
    remarks: tuple[str, ...]

    @property
    def read_electrons(self) -> float:
        """The read noise in electrons."""
        return self.read / self.gain


def calibrate(
    darks: Sequence[Path | RawImage | NDArray[Any]],
    flats: Sequence[Path | RawImage | NDArray[Any]],
    header: BayerHeader | None = None,
) -> Calibration:
    """Levels and noise of a camera from frames without light and frames of an even surface.

    Args:
        darks: at least two frames with the lens covered, with one setting of gain and exposure time.
        flats: at least two frames at each of two or more exposures, with the same gain. Frames whose means differ by at
            most 5 % are of one exposure. A pair that saturates gives the white level.
        header: facts about headerless files and arrays.

    Raises:
        UsageError: there are too few frames.
        DataError: frames do not fit together, a flat is no brighter than the darks, or too few are not clipped.
    """
    dark_stack, flat_stack = Stack(darks, header), Stack(flats, header)
    facts = check_darks(dark_stack)
    mean = mean_frame(dark_stack)
    good = ~dark_defects(mean)
    black = _black_levels(mean, good, facts.pattern)
    levels = flat_levels(flat_stack, facts, black)
    white, is_measured = _white_level(levels, facts)
    usable = _unclipped(levels, white)
    # Defects of the flats are found at the brightest level that is not clipped, and are left out of all levels.
    good &= ~_defects_of_level(levels[usable[-1]], black, good)
    dark = temporal_moments(dark_stack, black, good)
    moments = [temporal_moments(level, black, good, equalise=True) for level in levels]
    used = [number in usable for number in range(len(levels))]
    remarks = _level_doubts(facts, black, white, is_measured, dark_stack)
    parts = _channel_names(facts.pattern)
    channels = tuple(_channel(name, places, dark, moments, used, black, remarks) for name, places in parts)
    _note_unequal(channels, remarks)
    read = math.sqrt(float(np.mean([channel.read**2 for channel in channels])))
    return Calibration(
        channels,
        facts.pattern,
        (black[0], black[1], black[2], black[3]),
        white,
        is_measured,
        gain=float(np.mean([channel.gain for channel in channels])),
        read=read,
        row=math.sqrt(max(dark.row_variance, 0.0)),
        tail=tail_of(dark.kurtosis) if read > 1 else None,
        defects=1 - float(good.mean()),
        size=(facts.shape[1], facts.shape[0]),
        camera=facts.camera,
        n_darks=len(dark_stack),
        n_flats=len(flat_stack),
        n_levels=len(levels),
        remarks=tuple(remarks),
    )


def _black_levels(mean: NDArray[np.float64], good: NDArray[np.bool_], pattern: str) -> list[float]:
    """The black level at each position of the 2x2 block, one for all without colour filters."""
    levels = [float(mean[row::2, column::2][good[row::2, column::2]].mean()) for row, column in POSITIONS]
    return [float(np.mean(levels))] * 4 if pattern == MONO else levels


def _defects_of_level(level: Stack, black: Sequence[float], good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels that respond otherwise than their neighbours at a level of flats."""
    above = mean_frame(level)
    for (row, column), value in zip(POSITIONS, black, strict=True):
        above[row::2, column::2] -= value
    variance = float(np.mean(temporal_moments(level, black, good, equalise=True).variance))
    return flat_defects(above, math.sqrt(variance / len(level)))


def _unclipped(levels: Sequence[Stack], white: float) -> list[int]:
    """The numbers of the levels that are not clipped.

    Raises:
        DataError: there are fewer than two.
    """
    usable = [number for number, level in enumerate(levels) if max(_clipped_shares(level, white)) <= CLIPPED]
    if len(usable) < LEAST_LEVELS:
        first = next(level for number, level in enumerate(levels) if number not in usable)
        found = f"{len(levels) - len(usable)} of {len(levels)} levels of flats are clipped at {white:g}"
        remedy = f"give flats of at least {LEAST_LEVELS} exposures that are short enough"
        raise DataError(f"{first.name(0)}: {found}; {remedy}")
    return usable


def _channel_names(pattern: str) -> list[tuple[str, tuple[int, ...]]]:
    """Name → positions in the 2x2 block of each channel.

    >>> _channel_names("RGGB")
    [('R', (0,)), ('G1', (1,)), ('G2', (2,)), ('B', (3,))]
    """
    if pattern == MONO:
        return [(MONO, (0, 1, 2, 3))]
    numbered = [f"G{pattern[:place].count('G') + 1}" if c == "G" else c for place, c in enumerate(pattern)]
    return [(name, (place,)) for place, name in enumerate(numbered)]


def _white_level(levels: Sequence[Stack], facts: FrameFacts) -> tuple[float, bool]:
    """The white level, and whether it was measured: the largest value, if many values of a level are equal to it."""
    largest = max(int(frame.max()) for level in levels for frame in level)
    if any(share > CLIPPED_AT_ALL for level in levels for share in _clipped_shares(level, largest)):
        return float(largest), True
    return facts.white, False


def _clipped_shares(level: Stack, white: float) -> list[float]:
    """The share of values at or above the white level at each position of the 2x2 block."""
    return [float(np.mean([(f[row::2, column::2] >= white).mean() for f in level])) for row, column in POSITIONS]


def _channel(
    name: str,
    places: tuple[int, ...],
    dark: Moments,
    levels: Sequence[Moments],
    used: Sequence[bool],
    black: Sequence[float],
    remarks: list[str],
) -> ChannelNoise:
    """The line of variance against mean of one channel; adds remarks on points that lie off it.

    Raises:
        DataError: the variance does not grow with the light.
    """

    def mean_of(values: Sequence[float]) -> float:
        return float(np.mean([values[place] for place in places]))

    level = mean_of(black)
    read_variance = without_rounding(mean_of(dark.variance), level)
    points = [(mean_of(one.mean), without_rounding(mean_of(one.variance), mean_of(one.mean) + level)) for one in levels]
    counts = [sum(one.counts[place] for place in places) for one in levels]
    fitted = [number for number, is_used in enumerate(used) if is_used]
    means, variances = ([points[number][axis] for number in fitted] for axis in (0, 1))
    if min(means) <= 0:
        raise DataError(f"the flats are not brighter than the darks in channel {name}; take them with a white light")
    gain, residuals = robust_slope(means, variances, [counts[number] for number in fitted], read_variance)
    if gain <= 0:
        raise DataError(f"the noise of channel {name} does not grow with the light; are the flats single exposures?")
    for number, residual in zip(fitted, residuals, strict=True):
        mean, variance = points[number]
        own = (variance - read_variance) / mean
        if abs(own / gain - 1) > OFF_LINE and abs(residual) > 5:
            found = f"channel {name}: the flats of mean {mean:.0f} have the gain {own:.3g}, the line {gain:.3g}"
            remarks.append(f"{found}; saturated, flickering or processed frames? leave them out")
    return ChannelNoise(name, level, gain, math.sqrt(read_variance), tuple(points), tuple(used))


def _level_doubts(
    facts: FrameFacts, black: Sequence[float], white: float, is_measured: bool, darks: Stack
) -> list[str]:
    """Remarks where measured levels contradict declared ones, and where darks are cut off at 0."""
    remarks = []
    away = max(abs(ours - theirs) for ours, theirs in zip(black, facts.black, strict=True))
    if any(facts.black) and away > BLACK_DOUBT:
        declared, measured = (
            ", ".join(f"{level:g}" for level in np.round(levels, 2)) for levels in (facts.black, black)
        )
        remarks.append(f"the black level {declared} is declared, but {measured} is measured, which is used")
    if is_measured and white != facts.white:
        remarks.append(f"the white level {facts.white:g} is declared, but flats saturate at {white:g}, which is used")
    zeros = float((darks[0] == 0).mean())
    if zeros > 0.01:
        found = f"{zeros:.0%} of the darks' values are 0, so that noise is cut off"
        remarks.append(f"{found} and black level and read noise are wrong; raise the camera's black level")
    return remarks


def _note_unequal(channels: Sequence[ChannelNoise], remarks: list[str]) -> None:
    """Adds remarks if the channels differ in gain, or if the read noise is too small to be measured."""
    gains = [channel.gain for channel in channels]
    if max(gains) > (1 + OFF_LINE) * min(gains):
        listed = ", ".join(f"{channel.name} {channel.gain:.3g}" for channel in channels)
        remarks.append(f"the gains of the colours differ ({listed}); are these raws with the white balance applied?")
    if min(channel.read for channel in channels) < 0.3:
        remarks.append("the read noise is below 0.3 codes, where rounding hides it; its value is a rough one")

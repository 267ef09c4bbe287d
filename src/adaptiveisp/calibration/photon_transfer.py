"""The photon transfer method: gain and noise of a sensor from the differences of frames of one scene.

A difference of two frames of a scene that does not move holds the noise alone, without the differences between pixels.
The variance of shot noise is the gain times the mean, so that the slope of variance against mean is the gain.

Source: Janesick 2007, Photon Transfer, chapters 5 and 7; EMVA standard 1288 release 4.0, chapter 6.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[Any]
"""(height, width) whole codes."""
POSITIONS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(row, column) in the 2x2 block."""
ROUNDING = 1 / 12
"""Variance of rounding to whole codes."""
COARSE = 0.3
"""Variance in squared codes below which rounding depends on the place of the mean between two codes."""
DEFECT_SIGMAS, LEAST_SPREAD = 8.0, 0.25
"""A pixel is defective if its mean over the darks is farther from the median of its position than so many robust
standard deviations, of which each counts as at least 0.25 codes."""
FLAT_DEFECT = 0.3
"""A pixel is defective if its response differs from the median of its neighbours by more than this share."""
HUBER = 1.5
"""Residual in standard deviations from which a point of the line counts less. Source: Huber 1981 (1.345 to 2)."""


class Moments(NamedTuple):
    """Mean and temporal noise of a stack of frames; tuples have one entry for each position of the 2x2 block.

    Attributes:
        mean: mean above the black level in codes.
        variance: temporal variance inside rows in squared codes, with that of rounding.
        counts: number of differences of pixels from which the variance was computed.
        row_variance: variance of the offsets of rows in squared codes; noise can make it slightly negative.
        kurtosis: excess kurtosis of the noise, 0 for a Gaussian.
    """

    mean: tuple[float, ...]
    variance: tuple[float, ...]
    counts: tuple[int, ...]
    row_variance: float
    kurtosis: float


def mean_frame(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """The mean of each pixel over the frames."""
    total = np.zeros(frames[0].shape, np.float64)
    for frame in frames:
        total += frame
    return total / len(frames)


def dark_defects(mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The pixels whose mean over the darks is an outlier among those of their position, such as hot ones."""
    found = np.zeros(mean.shape, bool)
    for row, column in POSITIONS:
        plane = mean[row::2, column::2]
        away = np.abs(plane - np.median(plane))
        spread = max(1.4826 * float(np.median(away)), LEAST_SPREAD)
        found[row::2, column::2] = away > DEFECT_SIGMAS * spread
    return found


def flat_defects(mean: NDArray[np.float64], deviation: float) -> NDArray[np.bool_]:
    """The pixels that respond otherwise than the median of the 3x3 pixels of their position.

    Args:
        mean: mean of the flats, above the black level.
        deviation: standard deviation of the noise of this mean.
    """
    found = np.zeros(mean.shape, bool)
    for row, column in POSITIONS:
        plane = np.pad(mean[row::2, column::2].astype(np.float32), 1, mode="edge")
        height, width = plane.shape[0] - 2, plane.shape[1] - 2
        around = np.stack([plane[y : y + height, x : x + width] for y in range(3) for x in range(3)])
        middle = np.median(around, axis=0)
        allowed = np.maximum(FLAT_DEFECT * np.abs(middle), DEFECT_SIGMAS * deviation)
        found[row::2, column::2] = np.abs(around[4] - middle) > allowed
    return found


def temporal_moments(
    frames: Sequence[Frame], black: Sequence[float], good: NDArray[np.bool_], equalise: bool = False
) -> Moments:
    """Mean and temporal noise from the differences of consecutive frames.

    The mean of each row of a difference is subtracted before the variance is computed, so that the noise of rows and
    flicker of the light, which varies from row to row with a rolling shutter, are not counted as noise of pixels.

    Args:
        frames: at least two of the same scene.
        black: black level of each position in codes.
        good: the pixels that count.
        equalise: whether to scale the frames to the same mean first, for light that drifts.
    """
    means = np.zeros((len(frames), 4))
    squares, fourths, counts = np.zeros(4), np.zeros(4), np.zeros(4, np.int64)
    rows: list[float] = []
    targets = np.array([_means(frame, black, good) for frame in frames]) if equalise else None
    previous: Frame | None = None
    for number, frame in enumerate(frames):
        planes = list(_planes(frame, black))
        means[number] = _means(frame, black, good)
        if targets is not None:
            factors = targets.mean(axis=0) / targets[number]
            planes = [plane * factor for plane, factor in zip(planes, factors, strict=True)]
        if previous is not None:
            found = [_inside_rows(a - b, g) for a, b, g in zip(previous, planes, _masks(good), strict=True)]
            for place, (deviations, _, n) in enumerate(found):
                squares[place] += deviations[0]
                fourths[place] += deviations[1]
                counts[place] += n
            rows.append(_row_variance([row_means for _, row_means, _ in found]))
        previous = planes  # type: ignore[assignment]
    variance = squares / counts / 2
    within = float(variance.mean()) / frames[0].shape[1]
    # The difference of two independent variables has half of the excess kurtosis of one.
    kurtosis = (
        2 * (float(fourths.sum() / counts.sum()) / (2 * float(variance.mean())) ** 2 - 3) if squares.all() else 0.0
    )
    return Moments(
        tuple(means.mean(axis=0).tolist()),
        tuple(variance.tolist()),
        tuple(counts.tolist()),
        float(np.mean(rows)) - within,
        kurtosis,
    )


def _planes(frame: Frame, black: Sequence[float]) -> Iterator[NDArray[np.float64]]:
    """The values of each position above its black level."""
    for (row, column), level in zip(POSITIONS, black, strict=True):
        yield frame[row::2, column::2].astype(np.float64) - level


def _masks(good: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    return [good[row::2, column::2] for row, column in POSITIONS]


def _means(frame: Frame, black: Sequence[float], good: NDArray[np.bool_]) -> list[float]:
    return [float(plane[mask].mean()) for plane, mask in zip(_planes(frame, black), _masks(good), strict=True)]


def _inside_rows(
    difference: NDArray[np.float64], good: NDArray[np.bool_]
) -> tuple[tuple[float, float], NDArray[np.float64], int]:
    """((sum of squares, sum of fourth powers), means of the rows, number of values) of a difference, around row means.

    The sum of squares is scaled for the mean that was subtracted from each row.
    """
    width = good.sum(axis=1)
    row_means = np.where(good, difference, 0.0).sum(axis=1) / np.maximum(width, 1)
    square = np.where(good, difference - row_means[:, None], 0.0) ** 2
    scale = np.where(width > 1, width / np.maximum(width - 1, 1), 0.0)
    total = float((square.sum(axis=1) * scale).sum())
    return (total, float((square**2).sum())), row_means, int(width[width > 1].sum())


def _row_variance(row_means: list[NDArray[np.float64]]) -> float:
    """Half of the variance of the means of whole rows of a difference, whose two columns of the block are joined."""
    pairs = [(row_means[0], row_means[1]), (row_means[2], row_means[3])]
    rows = np.concatenate([(left + right) / 2 - (left + right).mean() / 2 for left, right in pairs])
    return float(rows.var(ddof=2)) / 2


def without_rounding(variance: float, mean: float) -> float:
    """The variance of the values before they were rounded to whole codes, at least 0.

    Rounding adds 1/12 if the noise spreads over several codes. Where it hardly does, the variance is that of a Gaussian
    whose rounded values have this variance and mean.

    >>> round(without_rounding(4.0 + 1 / 12, 64.3), 6)
    4.0

    Args:
        variance: of the rounded values.
        mean: of the rounded values, in codes.

    Source: Sheppard 1898; for coarse rounding by solving for the Gaussian.
    """
    if variance - ROUNDING >= COARSE:
        return variance - ROUNDING
    low, high = 0.0, 2.0
    for _ in range(60):
        sigma = (low + high) / 2
        low, high = (sigma, high) if _rounded_variance(sigma, mean) < variance else (low, sigma)
    return low**2


def _rounded_variance(sigma: float, mean: float) -> float:
    """The variance of a rounded Gaussian whose rounded values have this mean."""
    base = math.floor(mean)
    low, high = base - 0.5, base + 1.5
    for _ in range(50):
        centre = (low + high) / 2
        if _rounded_moments(centre, sigma, base)[0] < mean:
            low = centre
        else:
            high = centre
    return _rounded_moments((low + high) / 2, sigma, base)[1]


def _rounded_moments(centre: float, sigma: float, base: int) -> tuple[float, float]:
    """Mean and variance of round(centre + sigma·z), from the probabilities of the codes around `base`."""
    codes = np.arange(base - 14, base + 16)
    edges = [(code - 0.5 - centre) / (max(sigma, 1e-9) * math.sqrt(2)) for code in (*codes, codes[-1] + 1)]
    share = np.diff([0.5 * (1 + math.erf(edge)) for edge in edges])
    mean = float((share * codes).sum())
    return mean, float((share * (codes - mean) ** 2).sum())


def robust_slope(
    means: Sequence[float], variances: Sequence[float], counts: Sequence[int], intercept: float
) -> tuple[float, list[float]]:
    """The slope of the line through (0, intercept) and the points, and the residual of each in standard deviations.

    Points far from the line count less, by Huber's weights.

    Args:
        means: means above black, above 0.
        variances: variances of pixels.
        counts: number of differences from which each variance was computed.
        intercept: variance without light.
    """
    x, v, n = (np.asarray(values, np.float64) for values in (means, variances, counts))
    slopes, errors = (v - intercept) / x, v * np.sqrt(2 / n) / x
    # Where chance is tiny, other causes remain, such as the flicker of a lamp.
    errors = np.maximum(errors, 0.002 * np.abs(slopes))
    slope = float(np.median(slopes))
    for _ in range(50):
        residuals = (slopes - slope) / errors
        weights = np.minimum(1.0, HUBER / np.maximum(np.abs(residuals), 1e-12)) / errors**2
        slope = float((weights * slopes).sum() / weights.sum())
    return slope, ((slopes - slope) / errors).tolist()


def tail_of(kurtosis: float) -> float | None:
    """The shape of the Tukey lambda distribution with this excess kurtosis; None where it is close to a Gaussian's.

    >>> tail_of(0.05) is None, round(tail_of(0.596), 2)
    (True, 0.05)
    """
    if kurtosis < 0.1:
        return None
    low, high = 0.001, 0.14
    for _ in range(60):
        shape = (low + high) / 2
        low, high = (shape, high) if _tukey_kurtosis(shape) > kurtosis else (low, shape)
    return (low + high) / 2


def _tukey_kurtosis(shape: float) -> float:
    """The excess kurtosis of a Tukey lambda variable. Source: Joiner and Rosenblatt 1971."""
    g1, g2, g3, g4 = (math.exp(math.lgamma(k * shape + 1)) for k in (1, 2, 3, 4))
    factor = (2 * shape + 1) ** 2 / (2 * (4 * shape + 1))
    return factor * g2**2 * (3 * g2**2 - 4 * g1 * g3 + g4) / (g4 * (g1**2 - g2) ** 2) - 3

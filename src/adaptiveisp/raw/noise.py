"""The noise of a camera in codes: Poisson shot noise, heavy-tailed read noise, one offset a row, whole codes.

The noise models of `raw.unprocess` are plain Gaussians, of which neighbours are independent. Real sensors have bands,
since all values of a row are read against one reference, and outliers.

Source: Wei et al. 2020 (A Physics-based Noise Formation Model for Extreme Low-light Raw Denoising), whose method gave
the values of the Canon EOS 5D Mark IV that Chen et al. 2023 published (Instance Segmentation in the Dark).
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.types import CodeNoise, Unprocessing
from adaptiveisp.utils.yaml_files import read_yaml

FILE_KEY, FILE_VERSION = "adaptiveisp-noise", 1
"""Key of the version number in a noise file, and its value."""
FILE_EXTENSIONS = (".yaml", ".yml")
_REMEDY = "make it again with adaptiveisp calibrate"
LEAST_TAIL, MOST_TAIL = 0.001, 1.0
"""Range of the shape of a Tukey lambda distribution: 0.14 is nearly Gaussian, a smaller one has heavier tails, and at 1
it is uniform."""


@dataclass(frozen=True)
class LogLine:
    """A standard deviation s that depends on the gain K as ln s = slope·ln K + offset + N(0, sd).

    >>> LogLine(0.5, 0.0, 0.0).at(4.0, 0.0)
    2.0
    """

    slope: float
    offset: float
    sd: float

    def at(self, gain: float, normal: float) -> float:
        """The deviation at a gain, for a draw of the standard normal distribution."""
        return math.exp(self.slope * math.log(gain) + self.offset + self.sd * normal)


@dataclass(frozen=True)
class CameraNoise:
    """The noise of a camera, from which each raw draws a gain and deviations.

    Attributes:
        low, high: range of the gain in codes an electron, which is drawn log-uniformly.
        read: scale of the read noise in codes: the factor of the Tukey lambda variable, or the deviation of a Gaussian.
        row: deviation of the offset of a row in codes; None without one.
        tails: shapes of the Tukey lambda distribution, of which one is drawn; empty for Gaussian read noise.
        black, white: levels of the camera in codes.
        iso: ISO value at the gain `low`; None if unknown.
    """

    low: float
    high: float
    read: LogLine
    row: LogLine | None
    tails: tuple[float, ...]
    black: int
    white: float
    iso: float | None = None


CANON_5D4 = CameraNoise(
    low=0.218,
    high=13.96,
    read=LogLine(0.656, 1.093, 0.286),
    row=LogLine(0.471, -0.808, 0.244),
    tails=(
        *(0.16, 0.14, 0.09, 0.09, 0.2, 0.2, 0.1, 0.09, 0.06),
        *(0.07, 0.03, 0.03, 0.01, 0.03, 0.09, 0.07, 0.11, 0.11),
    ),
    black=512,
    white=16383.0,
    iso=100.0,
)
"""The Canon EOS 5D Mark IV, the camera of LOD; 14 bits. Source: Chen et al. 2023. ISO 100 at the least gain is an
assumption that only the metadata of synthetic raws show."""


def tukey_variance(shape: float) -> float:
    """The variance of a Tukey lambda variable, whose quantiles are (p^λ - (1-p)^λ) / λ.

    >>> round(tukey_variance(1.0), 6)  # uniform between -1 and 1
    0.333333

    Args:
        shape: λ above 0.

    Source: Joiner and Rosenblatt 1971: 2/λ²·(1/(1+2λ) - Γ(λ+1)²/Γ(2λ+2)).
    """
    gammas = math.exp(2 * math.lgamma(shape + 1) - math.lgamma(2 * shape + 2))
    return 2 / shape**2 * (1 / (1 + 2 * shape) - gammas)


def draw_code_noise(
    model: CameraNoise, uniform: float, normal: float, generator: torch.Generator
) -> tuple[float, float, CodeNoise]:
    """(shot, read, further parameters) of the noise of a raw, as `Unprocessing` has them.

    Args:
        model: the camera.
        uniform: draw in [0, 1) that decides the gain.
        normal: draw of the standard normal distribution that decides the read noise.
        generator: source of the draws for the tail and the row noise.
    """
    tail_at, row_at = (
        torch.rand(1, generator=generator, dtype=torch.float64).item(),
        torch.randn(1, generator=generator, dtype=torch.float64).item(),
    )
    gain = math.exp(math.log(model.low) + uniform * math.log(model.high / model.low))
    tail = model.tails[int(tail_at * len(model.tails))] if model.tails else None
    span = model.white - model.black
    scale = model.read.at(gain, normal) / span
    read = scale**2 * (tukey_variance(tail) if tail is not None else 1.0)
    row = model.row.at(gain, row_at) / span if model.row is not None else 0.0
    iso = None if model.iso is None else round(model.iso * gain / model.low)
    return gain / span, read, CodeNoise(black=model.black, white=model.white, row=row, tail=tail, iso=iso)


def noisy_codes(
    clean: Float[Tensor, "*shape"], how: Unprocessing, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """Whole codes above black of a sensor that recorded the values, from minus the black level to the white level.

    With the gain K and the values in codes y: K·Poisson(y/K) + read noise + the offset of the row, rounded. The colours
    of RGB share the offset of a row. With `how.bits` above 0 the values are rounded to 2^bits - 1 steps between black
    and white instead of to whole codes.

    Args:
        clean: values in [0, 1]; the last two axes are rows and columns.
        how: the noise, with `codes`.
        generator: source of the noise.
    """
    codes = how.codes
    assert codes is not None
    span = codes.white - codes.black
    gain = how.shot * span
    noisy = torch.poisson(clean.float() * (span / gain), generator=generator).mul_(gain)
    deviation = math.sqrt(how.read) * span
    if codes.tail is None:
        noisy += deviation * torch.randn(noisy.shape, generator=generator)
    else:
        p = torch.rand(noisy.shape, generator=generator)
        scale = deviation / math.sqrt(tukey_variance(codes.tail)) / codes.tail
        noisy += scale * (p.pow(codes.tail) - (1 - p).pow(codes.tail))
    if codes.row and noisy.ndim >= 2:
        noisy += codes.row * span * torch.randn(noisy.shape[-2], 1, generator=generator)
    if how.bits:
        step = span / (2**how.bits - 1)
        return noisy.div_(step).round_().clamp_(-math.floor(codes.black / step), 2**how.bits - 1).mul_(step)
    return noisy.round_().clamp_(-codes.black, span)


def read_noise(path: Path) -> CameraNoise:
    """Reads the noise model in a YAML file that `adaptiveisp calibrate` wrote: one camera at one setting.

    Args:
        path: the file, with the keys gain (codes an electron), read-noise and row-noise (deviations in codes), tail
            (shape of the Tukey lambda distribution, or null for Gaussian), raw-black and raw-white.

    Raises:
        UsageError: the file is missing, is no noise file, or a value is impossible.
    """
    content = read_yaml(Path(path), UsageError, f"give a noise file, or {_REMEDY}")
    if not isinstance(content, dict) or FILE_KEY not in content:
        raise UsageError(f"{path}: is no noise file (the key {FILE_KEY} is missing); {_REMEDY}")
    if content[FILE_KEY] != FILE_VERSION:
        raise UsageError(f"{path}: has version {shown(content[FILE_KEY])}, expected {FILE_VERSION}; {_REMEDY}")
    levels = content.get("raw-black")
    blacks = [_number(path, "raw-black", level) for level in (levels if isinstance(levels, list) else [levels])]
    black, white = round(sum(blacks) / max(len(blacks), 1)), _number(path, "raw-white", content.get("raw-white"))
    if not 0 <= black < white <= 65535:
        raise UsageError(f"{path}: raw-white {white:g} must be above raw-black {black:g} and at most 65535; {_REMEDY}")
    gain = _number(path, "gain", content.get("gain"), above=0.0)
    read = _number(path, "read-noise", content.get("read-noise"), above=0.0)
    row = _number(path, "row-noise", content.get("row-noise", 0.0))
    for key, value in (("read-noise", read), ("row-noise", row)):
        if value >= white - black:
            raise UsageError(
                f"{path}: {key} {value:g} is not below raw-white - raw-black, {white - black:g}; {_REMEDY}"
            )
    tail = None if content.get("tail") is None else _number(path, "tail", content["tail"], LEAST_TAIL, MOST_TAIL)
    scale = read / math.sqrt(tukey_variance(tail)) if tail is not None else read
    return CameraNoise(
        low=gain,
        high=gain,
        read=LogLine(0.0, math.log(scale), 0.0),
        row=LogLine(0.0, math.log(row), 0.0) if row else None,
        tails=(tail,) if tail is not None else (),
        black=black,
        white=white,
    )


def _number(path: Path, name: str, value: Any, above: float = -1e-12, most: float = 65535.0) -> float:
    """A number of a noise file, above `above` and at most `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not above < value <= most:  # also NaN
        low = "at least 0" if above < 0 else f"above {above:g}"
        raise UsageError(f"{path}: {name} is {shown(value)}; give a number {low} and at most {most:g}, or {_REMEDY}")
    return float(value)

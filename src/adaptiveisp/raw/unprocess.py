"""Makes plausible raws from sRGB photos: inverts a camera's development, then darkens, adds noise and quantises.

Random values depend only on (seed, image id, draw), so that each subset of a data set is reproducible.

Source: Brooks et al. 2019 (Unprocessing Images for Learned Raw Denoising), with the constants of Wang et al. 2024.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.raw.camera_matrices import Matrices
from adaptiveisp.raw.illuminants import Illuminants, daylight_gains, draw_planckian_gains
from adaptiveisp.raw.noise import (
    CANON_5D4,
    FILE_EXTENSIONS,
    CameraNoise,
    draw_code_noise,
    noisy_codes,
    read_noise,
)
from adaptiveisp.types import BAYER_PATTERNS, RawImage, Unprocessing
from adaptiveisp.utils.color import RGB_TO_XYZ, XYZ_TO_CAMERA, rgb_to_camera_matrix

Picture = Float[Tensor, "3 height width"]
NoiseName = str
"""One of `NOISES`, or the path of a noise file."""

LIGHTS: dict[str, tuple[float, float]] = {
    "dark": (0.003, 0.05),
    "mixed": (0.003, 1.0),
    "normal": (0.3, 1.0),
    "dim": (0.01, 0.1),
}
"""Named ranges of the brightness factor, which is drawn log-uniformly. Source of "dim": Chen et al. 2023, who darken
scenes 10 to 100 times."""

NOISES = ("sensor", "brooks", "canon-5d4", "none")

HEADROOM = 0.9
"""Factor by which photos are scaled first, so that their white is below the sensor's saturation."""
GAMMA = 2.2
HIGHLIGHT = 0.9
"""Mean of the channels above which the inverse gains are faded out, so that white stays white."""
SENSOR_BITS = 12
LEAST_BITS, MOST_BITS = 4, 14
"""Range of the depth that can be chosen instead of that of the noise model."""
DNG_BLACK = 256
"""Black level of synthetic DNGs, which is added to the codes 0 to 4095."""


@dataclass(frozen=True)
class NoiseModel:
    """Parameters of a noise model, whose variance at a value x in [0, 1] is shot·x + read.

    A draw s, log-uniform in [low, high], gives shot = shot_scale·s and
    read = read_scale·exp(2.18·ln s + 1.2 + N(0, read_sd)).

    Attributes:
        low, high: range of s.
        shot_scale, read_scale: factors of shot and read.
        read_sd: standard deviation of the logarithm of read.
        bits: depth of the quantisation after the noise; 0 means no quantisation.
    """

    low: float
    high: float
    shot_scale: float
    read_scale: float
    read_sd: float
    bits: int


NOISE_MODELS = {
    "sensor": NoiseModel(1e-4, 4e-3, 0.25, 0.05, 0.0, SENSOR_BITS),
    "brooks": NoiseModel(1e-4, 0.012, 1.0, 1.0, 0.26, 0),
}
READ_SLOPE, READ_OFFSET = 2.18, 1.2


def find_noise(noise: NoiseName) -> NoiseModel | CameraNoise | None:
    """The noise model of a name or of a noise file; None for "none".

    Args:
        noise: one of `NOISES`, or the path of a file written by `adaptiveisp calibrate`.

    Raises:
        UsageError: there is no such model, or the file is no noise file.
    """
    check_noise_name(noise)
    if noise not in NOISES:
        return read_noise(Path(noise))
    return CANON_5D4 if noise == "canon-5d4" else NOISE_MODELS.get(noise)


def check_noise_name(noise: NoiseName) -> None:
    """Refuses a text that is neither a name of a noise model nor that of a YAML file; no file is read.

    Raises:
        UsageError: the text is neither.
    """
    if noise not in NOISES and Path(noise).suffix.lower() not in FILE_EXTENSIONS:
        choices = f"choose from {', '.join(NOISES)}, or give a YAML file made by adaptiveisp calibrate"
        raise UsageError(f"noise {shown(noise)} does not exist; {choices}")


def check_bits(bits: int) -> None:
    """Refuses a depth of the codes that raws cannot have; 0 stands for that of the noise model.

    Raises:
        UsageError: it is out of range.
    """
    if bits not in (0, *range(LEAST_BITS, MOST_BITS + 1)):
        remedy = f"give a whole number from {LEAST_BITS} to {MOST_BITS}, or 0 for the depth of the noise model"
        raise UsageError(f"bits {shown(bits)} is no depth of a raw; {remedy}")


def seeded_generator(seed: int, image_id: int, draw: int, stream: str) -> torch.Generator:
    """A random generator whose seed is a hash of the arguments.

    Args:
        seed, image_id, draw: numbers that identify the synthetic image.
        stream: name of an independent use, for instance "parameters" or "noise".
    """
    digest = hashlib.sha256(f"{seed}/{image_id}/{draw}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def light_range(light: str) -> tuple[float, float]:
    """The range of brightness factors of a named light.

    Raises:
        UsageError: the light does not exist.
    """
    if light not in LIGHTS:
        raise UsageError(f"light {light!r} does not exist; choose from {', '.join(LIGHTS)}")
    return LIGHTS[light]


def draw_unprocessing(
    generator: torch.Generator,
    light: str,
    noise: NoiseName,
    model: NoiseModel | CameraNoise | None = None,
    bits: int = 0,
    cameras: Matrices = XYZ_TO_CAMERA,
    illuminants: Illuminants = "daylight",
) -> Unprocessing:
    """Draws a random camera, illuminant, brightness and noise level.

    The same random numbers are drawn for every light, noise and depth, so that a generator gives the same camera for
    all. Gains, brightness and noise level are also those of other sets of up to four cameras.

    Args:
        generator: source of randomness.
        light: a key of `LIGHTS`.
        noise: one of `NOISES`, or the path of a noise file.
        model: the model of `noise`; None looks it up, which reads a file.
        bits: depth of the codes, 4 to 14; 0 for that of the noise model.
        cameras: XYZ → camera matrices, of which a convex combination is drawn; a single one is taken as it is.
        illuminants: the light sources, a name of `ILLUMINANTS`; light, camera and noise level do not depend on it.
    """
    uniform = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    normal = torch.randn(2, generator=generator, dtype=torch.float64).tolist()
    low, high = light_range(light)
    mix = torch.tensor(uniform[: min(4, len(cameras))])
    if len(cameras) > 4:
        mix = torch.cat([mix, torch.rand(len(cameras) - 4, generator=generator)])
    mix = mix / mix.sum()
    red_gain, blue_gain = daylight_gains(uniform[4], uniform[5])
    if illuminants == "planckian":
        camera = torch.einsum("k,kij->ij", mix.double(), torch.tensor(cameras, dtype=torch.float64))
        red_gain, blue_gain = draw_planckian_gains(camera, generator)
    shot = read = 0.0
    own_bits, codes = 0, None
    model = find_noise(noise) if model is None else model
    if isinstance(model, CameraNoise):
        shot, read, codes = draw_code_noise(model, uniform[7], normal[1], generator)
    elif model is not None:
        log_s = math.log(model.low) + uniform[7] * math.log(model.high / model.low)
        shot = model.shot_scale * math.exp(log_s)
        read = model.read_scale * math.exp(READ_SLOPE * log_s + READ_OFFSET + model.read_sd * normal[1])
        own_bits = model.bits
    return Unprocessing(
        light=low * (high / low) ** uniform[6],
        rgb_gain=1 / (0.8 + 0.1 * normal[0]),
        red_gain=red_gain,
        blue_gain=blue_gain,
        ccm=tuple(rgb_to_camera_matrix(mix, cameras).flatten().tolist()),
        shot=shot,
        read=read,
        noise=noise,
        bits=bits or own_bits,
        codes=codes,
    )


def inverse_tone(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """t = 0.5 - sin(asin(1-2x)/3), the inverse of the smoothstep 3t² - 2t³."""
    return 0.5 - torch.sin(torch.asin(1 - 2 * image.clamp(0, 1)) / 3)


def to_linear(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear values of gamma-encoded ones: max(t, 1e-8)^2.2."""
    return image.clamp(min=1e-8).pow(GAMMA)


def apply_matrix(image: Picture, matrix: Float[Tensor, "3 3"]) -> Picture:
    """The image in other colours: y_i = Σ_j M_ij x_j at every pixel."""
    return torch.einsum("ij,jhw->ihw", matrix.to(image.dtype), image)


def channel_gains(like: Tensor, rgb_gain: float, red_gain: float, blue_gain: float) -> Float[Tensor, "3"]:
    """Factors that invert the white-balance gains of red, green and blue: (1/red_gain, 1, 1/blue_gain)/rgb_gain."""
    return like.new_tensor([1 / red_gain, 1.0, 1 / blue_gain]) / rgb_gain


def inverse_gains(image: Picture, rgb_gain: float, red_gain: float, blue_gain: float) -> Picture:
    """The image multiplied by the inverse white-balance gains g = (1/red, 1, 1/blue)/rgb, with protected highlights.

    With the mean of the channels and m = (max(mean-0.9, 0)/0.1)², each value is multiplied by max(m + (1-m)g, g).
    """
    gains = channel_gains(image, rgb_gain, red_gain, blue_gain)[:, None, None]
    mean = image.mean(dim=0, keepdim=True)
    mask = ((mean - HIGHLIGHT).clamp(min=0) / (1 - HIGHLIGHT)).square()
    return image * torch.maximum(mask + (1 - mask) * gains, gains)


def unprocess(photo: Picture, how: Unprocessing) -> Picture:
    """The linear camera image of a photo under a light, in [0, 1], without noise.

    Args:
        photo: sRGB code values in [0, 1].
        how: camera, gains and brightness.
    """
    return to_camera(_linear(photo), how)


def _linear(photo: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear values of sRGB code values in [0, 1]."""
    return to_linear(inverse_tone((photo * HEADROOM).clamp(0, 1)))


def to_camera(linear: Picture, how: Unprocessing) -> Picture:
    """The linear image in the colours and brightness of the sensor (colour matrix, gains, light), without noise."""
    camera = apply_matrix(linear, linear.new_tensor(how.ccm).reshape(3, 3))
    gained = inverse_gains(camera, how.rgb_gain, how.red_gain, how.blue_gain)
    return gained.clamp(0, 1) * how.light


@cache
def linear_of_codes() -> Float[Tensor, "256"]:
    """Linear values of the code values 0 to 255."""
    return _linear(torch.arange(256).float() / 255)


def reprocess(raw: Picture, how: Unprocessing) -> Picture:
    """The sRGB photo, with code values in [0, 1], by inverting `unprocess` with its true parameters.

    Clipped values, highlights whose gains were faded out, and noise cannot be inverted.

    Args:
        raw: linear camera RGB in [0, 1].
        how: the true parameters.
    """
    gains = raw.new_tensor([how.red_gain, 1.0, how.blue_gain])[:, None, None] * how.rgb_gain
    inverse = torch.linalg.inv(torch.tensor(how.ccm, dtype=torch.float64).reshape(3, 3))
    linear = apply_matrix(raw * (gains / how.light), inverse).clamp(0, 1)
    toned = linear.pow(1 / GAMMA)
    return ((3 * toned.square() - 2 * toned.pow(3)) / HEADROOM).clamp(0, 1)


def add_noise(clean: Tensor, how: Unprocessing, generator: torch.Generator) -> Tensor:
    """The values plus noise of variance shot·x + read, clipped to [0, 1] and quantised to `how.bits`.

    The noise is Gaussian; with `how.codes` it is that of `raw.noise.noisy_codes`, which quantises itself.
    """
    if how.codes is not None:
        span = how.codes.white - how.codes.black
        return (noisy_codes(clean, how, generator) / span).clamp_(0, 1).to(clean.dtype)
    noisy = clean
    if how.shot or how.read:
        deviation = (how.shot * clean + how.read).sqrt()
        noisy = (clean + deviation * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)).clamp(0, 1)
    return quantise(noisy, how.bits) if how.bits else noisy


def quantise(values: Tensor, bits: int) -> Tensor:
    """Values in [0, 1] rounded to `bits` bits.

    >>> quantise(torch.tensor([0.4, 0.6]), 1).tolist()
    [0.0, 1.0]
    """
    steps = float(2**bits - 1)
    return (values * steps).round() / steps


def mosaic(image: Picture, pattern: str) -> Float[Tensor, "height width"]:
    """The mosaic of an image: each site has the value of the colour that a Bayer sensor records there.

    Args:
        image: linear RGB.
        pattern: colours of the top-left 2x2 block row by row, one of `BAYER_PATTERNS`.
    """
    if pattern not in BAYER_PATTERNS:
        raise ValueError(f"pattern must be one of {BAYER_PATTERNS}, not {pattern!r}")
    out = torch.empty_like(image[0])
    for position, colour in enumerate(pattern):
        rows, columns = slice(position // 2, None, 2), slice(position % 2, None, 2)
        out[rows, columns] = image["RGB".index(colour)][rows, columns]
    return out


def synthesise_rgb(photo: Picture, how: Unprocessing, generator: torch.Generator) -> RawImage:
    """A synthetic raw in the format `png16`: demosaiced 16-bit linear RGB, with noise on each colour.

    Args:
        photo: sRGB code values in [0, 1].
        how: camera, gains, brightness, noise level.
        generator: source of the noise.
    """
    values = add_noise(unprocess(photo, how), how, generator)
    codes = (values * 65535).round().to(torch.int32).numpy().astype(np.uint16).transpose(1, 2, 0)
    return _raw_image(np.ascontiguousarray(codes), None, 0.0, 65535.0, how)


def synthesise_mosaic(photo: Picture, how: Unprocessing, generator: torch.Generator, pattern: str = "RGGB") -> RawImage:
    """A synthetic raw in the format `dng`: a Bayer mosaic with noise on the mosaic.

    It has `how.bits` bits above the black level, 12 where that is 0. With `how.codes` and 0 it has the levels of the
    camera, whose noise goes below the black level; with another depth black and white are scaled to it.

    Args:
        photo: sRGB code values in [0, 1].
        how: camera, gains, brightness, noise level.
        generator: source of the noise.
        pattern: Bayer pattern.
    """
    clean = mosaic(unprocess(photo, how), pattern)
    most = float(2 ** (how.bits or SENSOR_BITS) - 1)
    if how.codes is not None:
        black, span = float(how.codes.black), how.codes.white - how.codes.black
        noisy = noisy_codes(clean, how, generator)
        if how.bits:
            noisy, black, span = (noisy * (most / span)).round(), float(math.ceil(black * most / span)), most
        return _raw_image(noisy.add_(black).numpy().astype(np.uint16), pattern, black, black + span, how)
    codes = (add_noise(clean, how, generator) * most).round().numpy().astype(np.uint16)
    return _raw_image(codes + np.uint16(DNG_BLACK), pattern, float(DNG_BLACK), DNG_BLACK + most, how)


def iso_of(how: Unprocessing) -> float | None:
    """An ISO value that grows with the noise; None for the noise of a camera whose ISO is unknown.

    ISO 100 corresponds to s = 1e-4, the least value of both Gaussian models, and to a raw without noise.
    """
    if how.codes is not None:
        return how.codes.iso
    if how.noise not in NOISE_MODELS:
        return 100.0
    return float(round(how.shot / NOISE_MODELS[how.noise].shot_scale * 1e6))


def _raw_image(
    data: NDArray[np.uint16], pattern: str | None, black: float, white: float, how: Unprocessing
) -> RawImage:
    """The raw with the metadata that a real camera would record."""
    xyz_to_camera = np.array(how.ccm).reshape(3, 3) @ np.linalg.inv(np.array(RGB_TO_XYZ))
    return RawImage(
        data=data,
        pattern=pattern,
        black_level=(black, black, black, black),
        white_level=white,
        camera_gains=(how.red_gain, 1.0, how.blue_gain),
        xyz_to_camera=tuple(xyz_to_camera.flatten().tolist()),
        iso=iso_of(how),
        exposure_s=1 / 60,
        noise_profile=(how.shot, how.read + (how.codes.row**2 if how.codes is not None else 0.0)),
        unprocessing=how,
    )

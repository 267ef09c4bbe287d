"""Makes raws of cropped photos for training: crops, unprocesses and adds noise in one pass."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.data.random_crop import Crop, cut
from adaptiveisp.kernels.registry import find
from adaptiveisp.raw.unprocess import add_noise, channel_gains, linear_of_codes, quantise, to_camera
from adaptiveisp.types import Unprocessing


def raw_of_photo(
    pixels: UInt8[Tensor, "3 height width"], crop: Crop, how: Unprocessing, generator: torch.Generator
) -> Float[Tensor, "3 side side"]:
    """A crop of a photo as noisy linear RGB: `add_noise(unprocess(cut(pixels, crop) / 255, how), how, generator)`.

    Linear RGB comes from a table of the 256 codes; compiled kernels, if available, do the rest. They compute in the
    same order and give the same values on x86-64; on other processors some values may differ by a quantisation step.

    Args:
        pixels: sRGB code values, 0 to 255.
        crop: the part of the photo.
        how: camera, gains, brightness, noise level.
        generator: source of the noise.
    """
    unprocess, add_noise_kernel = find("unprocess"), find("add_noise")
    if unprocess is None or add_noise_kernel is None or pixels.device.type != "cpu":
        linear = linear_of_codes().to(pixels.device)[cut(pixels, crop).int()]
        return add_noise(to_camera(linear, how), how, generator)
    part = pixels[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    table = linear_of_codes()
    factors = channel_gains(table, how.rgb_gain, how.red_gain, how.blue_gain).tolist()
    numbers = [*how.ccm, *factors, how.light, how.shot, how.read]
    is_gaussian = how.codes is None
    clean: Tensor
    clean, variance = unprocess(part, crop.flipped, table, numbers, is_gaussian and bool(how.shot or how.read))
    if not is_gaussian:
        return add_noise(clean, how, generator)
    if variance is None:
        return quantise(clean, how.bits) if how.bits else clean
    # PyTorch computes the square root, whose last bit may differ from the processor's instruction.
    normal = torch.randn(clean.shape, generator=generator)
    add_noise_kernel(clean, variance.sqrt_(), normal, 2**how.bits - 1 if how.bits else 0)
    return clean

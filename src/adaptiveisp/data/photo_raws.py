"""Raws of parts of photos, as training draws them: crop, unprocess and add noise in one pass."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from adaptiveisp.data.random_crop import Crop, cut
from adaptiveisp.kernels import forward as native
from adaptiveisp.kernels import synthesis as native_photos
from adaptiveisp.raw.unprocess import add_noise, channel_gains, linear_of_codes, quantise, to_camera
from adaptiveisp.types import Unprocessing


def raw_of_photo(
    pixels: UInt8[Tensor, "3 height width"], view: Crop, how: Unprocessing, generator: torch.Generator
) -> Float[Tensor, "3 side side"]:
    """Part of a photo as noisy linear RGB: `add_noise(unprocess(cut(pixels, view) / 255, how), how, generator)`.

    Each code is looked up in a table, and kernels do the rest where there are some: in the same order, so that the
    same values come out (on x86-64; elsewhere some may be a step of the quantisation off).

    Args:
        pixels: sRGB code values, 0 to 255.
        view: the part that is shown.
        how: camera, gains, brightness, noise level.
        generator: source of the noise.
    """
    if not native.available() or pixels.device.type != "cpu":
        linear = linear_of_codes().to(pixels.device)[cut(pixels, view).int()]
        return add_noise(to_camera(linear, how), how, generator)
    part = pixels[:, view.top : view.top + view.side, view.left : view.left + view.side]
    table = linear_of_codes()
    factors = channel_gains(table, how.rgb_gain, how.red_gain, how.blue_gain).tolist()
    numbers = [*how.ccm, *factors, how.light, how.shot, how.read]
    clean, variance = native_photos.unprocess(part, view.flipped, table, numbers, bool(how.shot or how.read))
    if variance is None:
        return quantise(clean, how.bits) if how.bits else clean
    # The square root is PyTorch's, whose last bit is not always the processor's.
    normal = torch.randn(clean.shape, generator=generator)
    native_photos.add_noise(clean, variance.sqrt_(), normal, 2**how.bits - 1 if how.bits else 0)
    return clean

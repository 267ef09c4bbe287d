"""Colour constants with their sources, and conversions between encodings."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

LUMA = (0.27, 0.67, 0.06)
"""Luminance weights of (R, G, B) in all modules but denoise. Source: Hu et al. 2018 (Exposure)."""

LUMA_BT601 = (0.299, 0.587, 0.114)
"""Luma weights of (R, G, B) in denoise. Source: ITU-R BT.601."""

RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
"""Linear sRGB → XYZ (D65). Source: Lindbloom, as used by Brooks et al. 2019."""

XYZ_TO_CAMERA = (
    ((1.0234, -0.2969, -0.2266), (-0.5625, 1.6328, -0.0469), (-0.0703, 0.2188, 0.6406)),
    ((0.4913, -0.0541, -0.0202), (-0.613, 1.3513, 0.2906), (-0.1564, 0.2151, 0.7183)),
    ((0.838, -0.263, -0.0639), (-0.2887, 1.0725, 0.2496), (-0.0627, 0.1427, 0.5438)),
    ((0.6596, -0.2079, -0.0562), (-0.4782, 1.3016, 0.1933), (-0.097, 0.1581, 0.5181)),
)
"""XYZ → camera matrices of four cameras. Source: Brooks et al. 2019, section 3.2."""


def weighted_channel(
    image: Float[Tensor, "batch 3 height width"], weights: tuple[float, float, float]
) -> Float[Tensor, "batch 1 height width"]:
    """Weighted sum of the three channels, for instance luminance with `LUMA`.

    >>> float(weighted_channel(torch.ones(1, 3, 1, 1), LUMA))
    1.0
    """
    return weights[0] * image[:, :1] + weights[1] * image[:, 1:2] + weights[2] * image[:, 2:]


def srgb_encode(linear: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """sRGB code values in [0, 1] of linear light in [0, 1].

    Source: IEC 61966-2-1.

    >>> round(float(srgb_encode(torch.tensor(0.18))), 3)
    0.461
    """
    # The power has an infinite slope at 0; the clamp keeps its gradient finite where the linear part is used.
    curve = 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curve)


def rgb_to_camera_matrix(
    mix: Float[Tensor, " cameras"], cameras: Sequence[Sequence[Sequence[float]]] = XYZ_TO_CAMERA
) -> Float[Tensor, "3 3"]:
    """RGB → camera matrix with rows summing to 1, for convex weights over XYZ → camera matrices.

    Args:
        mix: non-negative weights that sum to 1, one for each matrix.
        cameras: the matrices.

    Source: Brooks et al. 2019, section 3.2.
    """
    known = torch.tensor(cameras, dtype=torch.float64)
    matrix = torch.einsum("k,kij->ij", mix.double(), known) @ torch.tensor(RGB_TO_XYZ, dtype=torch.float64)
    return matrix / matrix.sum(dim=1, keepdim=True)


def to_uint8(image: Float[Tensor, "3 height width"]) -> NDArray[np.uint8]:
    """8-bit (height, width, 3) picture of an image in [0, 1]: values are scaled and rounded, without a tone curve.

    >>> to_uint8(torch.full((3, 1, 1), 0.5)).tolist()
    [[[128, 128, 128]]]
    """
    picture = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())


def srgb_decode(codes: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Linear light in [0, 1] of sRGB code values in [0, 1]; the inverse of `srgb_encode`.

    Source: IEC 61966-2-1.

    >>> round(float(srgb_decode(torch.tensor(0.5))), 3)
    0.214
    """
    curve = ((codes.clamp(min=0.04045) + 0.055) / 1.055).pow(2.4)
    return torch.where(codes <= 0.04045, codes / 12.92, curve)


def srgb_to_lab(codes: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """CIE L*a*b* of sRGB code values in [0, 1], with the white point of sRGB (D65) at L* = 100, a* = b* = 0.

    L* is in 0 to 100. The white is the sum of each row of `RGB_TO_XYZ`, so that equal code values have a* = b* = 0.

    Source: CIE 15:2004; RGB → XYZ as in `RGB_TO_XYZ`.

    >>> srgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round(decimals=2).abs().tolist()
    [100.0, 0.0, 0.0]
    """
    matrix = codes.new_tensor(RGB_TO_XYZ)
    relative = torch.einsum("ij,bjhw->bihw", matrix / matrix.sum(dim=1, keepdim=True), srgb_decode(codes))
    edge = (6 / 29) ** 3  # below, the cube root is replaced by its tangent, whose slope is finite at 0
    root = torch.where(relative > edge, relative.clamp(min=edge).pow(1 / 3), relative * (841 / 108) + 4 / 29)
    x, y, z = root.unbind(dim=1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def neutral_difference(codes: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
    """CIE ΔE2000 between each pixel and the neutral grey of the same L*; about 1 is just visible.

    Against a neutral colour the formula has no terms of lightness and hue and becomes C'/(1 + 0.0225·C'), where C' is
    the chroma after a* was stretched. The derivative is finite everywhere.

    Args:
        codes: sRGB code values in [0, 1].

    Source: Sharma, Wu and Dalal 2005 (The CIEDE2000 color-difference formula).

    >>> neutral_difference(torch.full((1, 3, 1, 1), 0.5)).flatten().round(decimals=1).tolist()
    [0.0]
    """
    return neutral_difference_of_lab(srgb_to_lab(codes))


def neutral_difference_of_lab(
    lab: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch height width"]:
    """`neutral_difference` of colours that are given in CIE L*a*b*."""
    _, a, b = lab.unbind(dim=1)
    least = 1e-4  # the root has no slope at 0
    seventh = ((a.square() + b.square() + least).sqrt() / 2).pow(7)
    stretch = 1 + 0.5 * (1 - (seventh / (seventh + 25.0**7)).sqrt())
    chroma = ((a * stretch).square() + b.square() + least).sqrt()
    return chroma / (1 + 0.0225 * chroma)

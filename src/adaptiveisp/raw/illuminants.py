"""The light sources of synthetic raws, as gains of white balance that a raw under such a light needs.

`daylight` has the gains of Brooks et al. 2019, those of mobile cameras in daylight. `planckian` has black bodies from
tungsten lamps to shade, seen through the same camera as the image, so that red and blue gains depend on each other and
on the camera.

Sources: chromaticity of black bodies: Kim et al. 2002 (US patent 7024034), cubics of the inverse temperature, within
0.001 of Planck's law.
"""

import math

import torch

from adaptiveisp.errors import UsageError, shown

Illuminants = str
"""One of `ILLUMINANTS`."""
ILLUMINANTS = ("daylight", "planckian")

WARMEST, COLDEST = 2500.0, 8000.0
"""Temperatures in kelvin of the warmest and the coldest black body; its inverse is uniform between theirs."""
TINT = 0.05
"""Standard deviation of the logarithm of each gain, for lamps that are no black bodies."""

_X_BELOW_4000 = (-0.2661239, -0.2343589, 0.8776956, 0.179910)
_X_ABOVE_4000 = (-3.0258469, 2.1070379, 0.2226347, 0.240390)
_Y_BELOW_2222 = (-1.1063814, -1.34811020, 2.18555832, -0.20219683)
_Y_BELOW_4000 = (-0.9549476, -1.37418593, 2.09137015, -0.16748867)
_Y_ABOVE_4000 = (3.0817580, -5.87338670, 3.75112997, -0.37001483)


def check_illuminants(illuminants: str) -> None:
    """Refuses a name that is not one of `ILLUMINANTS`.

    Raises:
        UsageError: it is none.
    """
    if illuminants not in ILLUMINANTS:
        raise UsageError(f"illuminants {shown(illuminants)} do not exist; choose from {', '.join(ILLUMINANTS)}")


def daylight_gains(first: float, second: float) -> tuple[float, float]:
    """Gains of red, 1.9 to 2.4, and blue, 1.5 to 1.9, of two uniform numbers in [0, 1).

    Source: Brooks et al. 2019, section 3.3.
    """
    return 1.9 + 0.5 * first, 1.5 + 0.4 * second


def planckian_chromaticity(kelvin: float) -> tuple[float, float]:
    """CIE 1931 chromaticity x, y of a black body.

    Args:
        kelvin: temperature, 1667 to 25000.

    Source: Kim et al. 2002.

    >>> x, y = planckian_chromaticity(2856)  # CIE illuminant A
    >>> round(x, 3), round(y, 3)
    (0.447, 0.408)
    """
    inverse = 1e3 / kelvin
    x = _cubic(_X_BELOW_4000 if kelvin < 4000 else _X_ABOVE_4000, inverse)
    below = _Y_BELOW_2222 if kelvin < 2222 else _Y_BELOW_4000
    return x, _cubic(below if kelvin < 4000 else _Y_ABOVE_4000, x)


def planckian_gains(kelvin: float, xyz_to_camera: torch.Tensor) -> tuple[float, float]:
    """Gains of red and blue that make a grey surface under a black body grey, with a gain of 1 for green.

    Args:
        kelvin: temperature, 1667 to 25000.
        xyz_to_camera: (3, 3) matrix of the camera.
    """
    x, y = planckian_chromaticity(kelvin)
    white = xyz_to_camera.double() @ torch.tensor([x / y, 1.0, (1 - x - y) / y], dtype=torch.float64)
    red, green, blue = white.tolist()
    return green / red, green / blue


def draw_planckian_gains(xyz_to_camera: torch.Tensor, generator: torch.Generator) -> tuple[float, float]:
    """Gains of red and blue of a random black body from `WARMEST` to `COLDEST`, with a random tint.

    Args:
        xyz_to_camera: (3, 3) matrix of the camera.
        generator: source of randomness.

    Raises:
        UsageError: the camera's red, green or blue does not respond to such a light.
    """
    uniform = float(torch.rand(1, generator=generator, dtype=torch.float64))
    red_tint, blue_tint = torch.randn(2, generator=generator, dtype=torch.float64).tolist()
    inverse = 1 / COLDEST + uniform * (1 / WARMEST - 1 / COLDEST)
    red, blue = planckian_gains(1 / inverse, xyz_to_camera)
    if not (0 < red < math.inf and 0 < blue < math.inf):
        what = f"answers to a black body of {1 / inverse:.0f} K with a channel of 0 or less"
        raise UsageError(f"illuminants planckian: a camera matrix {what}; correct the matrix, or use daylight")
    return red * math.exp(TINT * red_tint), blue * math.exp(TINT * blue_tint)


def _cubic(coefficients: tuple[float, float, float, float], at: float) -> float:
    """The polynomial whose coefficients are given from the third power down."""
    third, second, first, constant = coefficients
    return ((third * at + second) * at + first) * at + constant

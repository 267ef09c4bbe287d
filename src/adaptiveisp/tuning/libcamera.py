"""Tuning files of libcamera's Raspberry Pi algorithms, version 2.0, for the cameras of Pi 4 (vc4) and Pi 5 (pisp).

The file has the blocks that a pipeline determines, and none that belong to a sensor: add its lens shading, its
exposure table and its lux reference from the file that came with it.

Source: Raspberry Pi Ltd, Raspberry Pi Camera Algorithm and Tuning Guide, chapter 5; the keys and units are those that
libcamera's src/ipa/rpi/controller reads.
"""

from typing import Any, Literal

import numpy as np

from adaptiveisp.errors import PipelineError
from adaptiveisp.tuning.decomposition import Decomposition

Target = Literal["bcm2835", "pisp"]
TARGETS: tuple[Target, ...] = ("bcm2835", "pisp")
"""The ISP of Raspberry Pi 1 to 4, and that of 5."""

TEMPERATURE = 5000
"""Colour temperature in kelvins that the file states; there is only one, so that any scene gets the same numbers."""
SPREAD = 5e-4
"""Relative distance of the two points of the white-balance curve from its middle: libcamera needs two, and that the
curve can be inverted."""
FULL = 65535
CURVE_POINTS = 64
LARGEST_ENTRY = 8.0
"""The hardware's matrix holds entries below this."""


def tuning_file(blocks: Decomposition, target: Target = "bcm2835", black_level: float = 0.0) -> dict[str, Any]:
    """The content of a tuning file.

    Args:
        blocks: of the pipeline.
        target: the ISP.
        black_level: of the sensor, as a share of 2 to the power of its bits, in [0, 1).

    Raises:
        PipelineError: an entry of the matrix is too large for the hardware.
    """
    if float(np.abs(blocks.matrix).max()) >= LARGEST_ENTRY:
        raise PipelineError(f"ccm: an entry of {np.abs(blocks.matrix).max():.3g} is too large; the hardware has 8")
    algorithms: list[dict[str, Any]] = [
        {"rpi.black_level": {"black_level": round(black_level * (FULL + 1))}},
        {"rpi.awb": _white_balance(blocks)},
        {"rpi.ccm": {"ccms": [{"ct": TEMPERATURE, "ccm": [round(float(v), 6) for v in blocks.matrix.ravel()]}]}},
        {"rpi.contrast": {"ce_enable": 0, "gamma_curve": _gamma_curve(blocks)}},
    ]
    if blocks.noise is not None:
        algorithms += _denoise(blocks.noise, target)
    return {"version": 2.0, "target": target, "algorithms": algorithms}


def _white_balance(blocks: Decomposition) -> dict[str, Any]:
    """A white-balance curve of one point, at which red and blue of grey are 1 / gain."""
    red, blue = 1 / blocks.gains[0], 1 / blocks.gains[2]
    low, high = 1 + SPREAD, 1 - SPREAD
    curve = [TEMPERATURE - 1, red * low, blue * high, TEMPERATURE + 1, red * high, blue * low]
    everywhere = {"lo": TEMPERATURE - 1, "hi": TEMPERATURE + 1}
    return {
        "bayes": 1,
        "priors": [{"lux": 0, "prior": [TEMPERATURE - 1, 1.0, TEMPERATURE + 1, 1.0]}],
        "modes": {"auto": everywhere},
        "ct_curve": [round(value, 6) for value in curve],
    }


def _gamma_curve(blocks: Decomposition) -> list[int]:
    """x, y, x, y, … of 16 bits; the points lie denser where it is dark, as in libcamera's own curves."""
    places = np.unique(np.rint(FULL * np.linspace(0, 1, CURVE_POINTS) ** 3).astype(int))
    values = np.rint(FULL * np.clip(blocks.curve(places / FULL), 0, 1)).astype(int)
    return [int(value) for pair in zip(places, values, strict=True) for value in pair]


def _denoise(noise: float, target: Target) -> list[dict[str, Any]]:
    """A noise profile that is the same at all brightnesses, and spatial denoising of one standard deviation."""
    spatial = {"deviation": 1.0, "strength": 1.0}
    profile = {"rpi.noise": {"reference_constant": round(noise * (FULL + 1), 3), "reference_slope": 0.0}}
    return [profile, {"rpi.denoise": {"sdn": spatial}} if target == "pisp" else {"rpi.sdn": spatial}]

"""An exposure to ask of the sensor for the next frame, in EV relative to the present one.

A policy brightens a dark frame after the fact, which amplifies its noise; a longer exposure would not. The hint asks
for what the policy added, as far as the highlights allow, and for less light where they are clipped. It is a
suggestion: the caller decides whether to spend it on exposure time, aperture or gain.

Source: exposing to the right (as bright as the highlights allow) is common practice; the constants are ours, and the
tests show that a sensor which follows the hints settles.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from adaptiveisp.streaming.smoothing import luminance_stops
from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA, weighted_channel

CLIPPED = 0.98
"""Value from which a channel counts as clipped."""
MOST_CLIPPED = 0.01
"""Share of clipped pixels that is accepted, such as lamps and reflections."""
TARGET = 0.9
"""Value to which the brightest accepted pixels are brought."""
BURIED = 2.0**-9
"""Luminance below which a 12-bit sensor has fewer than eight codes for a pixel."""
LARGEST_STEP = 2.0
"""Largest change in EV that is asked for at once."""
DEAD_BAND = 0.15
"""Changes below this many EV are not asked for."""
DARKEST = 1e-5
"""Brightest value below which the headroom is not counted further."""


@dataclass(frozen=True)
class ExposureHint:
    """What the sensor should change for the next frame.

    Attributes:
        ev: change of the exposure in EV; +1 asks for twice the light, 0 for no change.
        clipped: share of pixels with a channel at or above `CLIPPED`.
        buried: share of pixels with a luminance below `BURIED`.
        policy_ev: by how many EV the pipeline brightened the frame.
    """

    ev: float
    clipped: float
    buried: float
    policy_ev: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, rounded."""
        values = {"ev": self.ev, "clipped": self.clipped, "buried": self.buried, "policy_ev": self.policy_ev}
        return {name: round(value, 4) for name, value in values.items()}


def exposure_hint(developed: Image, rendered: Image) -> ExposureHint:
    """The hint of a frame.

    Where more than `MOST_CLIPPED` is clipped, the hint is negative: half an EV, and half an EV more for each doubling
    of the clipped share. Otherwise it is what the policy added or, if more than half of the frame is buried, at least 1
    EV; but at most the headroom by which the brightest accepted pixels can grow to `TARGET`.

    Args:
        developed: the developed frame, (1, 3, h, w), linear RGB in [0, 1], without white balance.
        rendered: the pipeline's image of it, in code values for a detector.
    """
    peaks = developed.amax(dim=1).flatten()
    luminance = weighted_channel(developed, LUMA).flatten()
    clipped = float((peaks >= CLIPPED).float().mean())
    buried = float((luminance < BURIED).float().mean())
    brightened = float((luminance_stops(_decoded(rendered)) - luminance_stops(developed)).mean())
    if clipped > MOST_CLIPPED:
        ev = -0.5 * (1 + math.log2(clipped / MOST_CLIPPED))
    else:
        brightest = float(torch.quantile(peaks, 1 - MOST_CLIPPED))
        headroom = math.log2(TARGET / max(brightest, DARKEST))
        wanted = max(brightened, 1.0 if buried > 0.5 else 0.0)
        ev = min(wanted, headroom)
    ev = min(max(ev, -LARGEST_STEP), LARGEST_STEP)
    return ExposureHint(0.0 if abs(ev) < DEAD_BAND else ev, clipped, buried, brightened)


def _decoded(codes: Image) -> Image:
    """Linear values of sRGB code values (IEC 61966-2-1)."""
    codes = codes.clamp(0, 1)
    return torch.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)

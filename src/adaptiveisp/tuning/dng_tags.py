"""Tags by which raw developers render a DNG about as a pipeline does: white balance, matrices, exposure, tone, noise.

A DNG's tone curve is followed by the encoding of the display, so that it holds the pipeline's curve without sRGB's.

Source: Adobe, Digital Negative specification 1.7.1, chapter 6 and the tags' descriptions.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import PipelineError
from adaptiveisp.raw.dng import Tag
from adaptiveisp.tuning.decomposition import Decomposition
from adaptiveisp.types import RawImage

SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
"""Linear sRGB → XYZ under D65. Source: IEC 61966-2-1."""
D65_TO_D50 = np.array(
    [[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491], [-0.0092345, 0.0150436, 0.7521316]]
)
"""Bradford adaptation of white. Source: ICC.1:2010, annex E."""
CURVE_POINTS = 257
FORWARD_MATRIX, BASELINE_EXPOSURE, TONE_CURVE = 50964, 50730, 50940


@dataclass(frozen=True)
class DngTuning:
    """A raw with the tags of a pipeline.

    Attributes:
        raw: the raw with the pipeline's white balance, colour matrix and noise.
        tags: further tags.
    """

    raw: RawImage
    tags: tuple[Tag, ...]


def dng_tuning(raw: RawImage, blocks: Decomposition) -> DngTuning:
    """The raw and the tags to write with `dng_bytes`.

    Args:
        raw: a Bayer mosaic, whose pixels stay as they are.
        blocks: of the pipeline.

    Raises:
        PipelineError: the matrix cannot be inverted, or a gain is not above 0.
    """
    if min(blocks.gains) <= 0 or abs(np.linalg.det(blocks.matrix)) < 1e-6:
        raise PipelineError("its gains and colour matrix cannot be inverted, as a DNG's tags need; change ccm")
    to_srgb = blocks.matrix * np.array(blocks.gains)
    xyz_to_camera = np.linalg.inv(SRGB_TO_XYZ @ to_srgb)
    noise = raw.noise_profile if blocks.noise is None else (*(raw.noise_profile or (0.0, 0.0))[:1], blocks.noise**2)
    tuned = replace(
        raw, camera_gains=blocks.gains, xyz_to_camera=tuple(xyz_to_camera.ravel().tolist()), noise_profile=noise
    )
    forward = D65_TO_D50 @ SRGB_TO_XYZ @ blocks.matrix
    tags = [
        (FORWARD_MATRIX, 10, 9, _rationals(forward.ravel())),
        (BASELINE_EXPOSURE, 10, 1, _rationals([math.log2(blocks.exposure)])),
        _tone_curve(blocks),
    ]
    return DngTuning(tuned, tuple(tags))


def _tone_curve(blocks: Decomposition) -> Tag:
    """ProfileToneCurve: pairs of input and output, without the exposure and before the display's encoding."""
    places = np.linspace(0, 1, CURVE_POINTS) ** 3
    encoded = np.clip(blocks.curve(np.clip(places / blocks.exposure, 0, 1)), 0, 1)
    values = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    values[0], values[-1] = 0.0, 1.0  # the specification wants both ends there
    pairs = np.stack([places, values], axis=1).astype("<f4")
    return TONE_CURVE, 11, pairs.size, pairs.tobytes()


def _rationals(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    """Signed rationals with a denominator of a million."""
    return b"".join(struct.pack("<ii", round(float(value) * 10**6), 10**6) for value in values)

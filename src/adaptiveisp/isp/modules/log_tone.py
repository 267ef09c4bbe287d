"""Logarithmic tone curve: y = log(1 + a x) / log(1 + a)."""

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.types import Image, ParamTensor

LEAST, MOST = 1e-4, 1e4
"""Range of a. At 1e-4 the curve differs from y = x by at most a/8, about 1e-5."""


def log_tone(image: Image, params: ParamTensor) -> Image:
    """The curve y = log(1 + a x) / log(1 + a) for each channel; black and white stay where they are.

    Args:
        image: linear RGB in [0, 1].
        params: column 0: strength a, dimensionless.

    Source: Drago et al. 2003, its mapping with one base for all pixels (after Stockham 1972); a is the scale before it.
    """
    strength = params[:, 0][:, None, None, None]
    return (strength * image).log1p() / strength.log1p()


# A curve of a baseline, which no policy chooses. It is one pass over the image as gamma is, and so has its cost.
PAPER = IspModule(
    "log_tone",
    "Log",
    (Param("strength", LEAST, MOST, "", LEAST, "log"),),
    log_tone,
    2.0,
    source="Drago et al. 2003",
    effect="Lifts shadows by a logarithm, the more the darker they are; black and white stay where they are.",
    pointwise=True,
)

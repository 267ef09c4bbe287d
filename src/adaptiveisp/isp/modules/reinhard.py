"""Global Reinhard tone curve: y = x (1 + x/w²) / (1 + x) with x = w · image."""

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.types import Image, ParamTensor

MOST_WHITE = 1024.0
"""Ten stops, the largest exposure of `wide`."""


def reinhard(image: Image, params: ParamTensor) -> Image:
    """The curve y = x (1 + x/w²) / (1 + x) with x = w · image, for each channel.

    The curve maps the white point x = w to 1. As the image is in [0, 1], its 1 is taken as the white point, so that
    black and white stay where they are and w alone sets how far mid-tones are raised: the slope at black is w.

    Args:
        image: linear RGB in [0, 1].
        params: column 0: white point w, dimensionless.

    Source: Reinhard et al. 2002, equation 4.
    Differs: each channel instead of the luminance, and the scale before the curve is w instead of key / log-average.
    """
    white = params[:, 0][:, None, None, None]
    scaled = white * image
    return scaled * (1 + scaled / white.square()) / (1 + scaled)


# A curve of a baseline, which no policy chooses. It is one pass over the image as gamma is, and so has its cost.
PAPER = IspModule(
    "reinhard",
    "Rh",
    (Param("white", 1.0, MOST_WHITE, "", 1.0, "log"),),
    reinhard,
    2.0,
    source="Reinhard et al. 2002",
    effect="Lifts shadows and mid-tones and compresses highlights; black and white stay where they are.",
    pointwise=True,
)

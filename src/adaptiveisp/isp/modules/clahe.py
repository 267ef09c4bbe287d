"""CLAHE: adaptive equalisation of the luminance's histogram with limited contrast, computed by OpenCV."""

import torch

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA, weighted_channel
from adaptiveisp.utils.optional_imports import import_extra

TILES = (8, 8)
"""Columns and rows of the tiles whose histograms are equalised, OpenCV's default."""
MOST_CLIP = 40.0
"""Largest clip limit, OpenCV's default, which hardly limits anything."""


def clahe(image: Image, params: ParamTensor) -> Image:
    """The image plus, in each channel, the change of its luminance by CLAHE; differences of the channels stay.

    The luminance is rounded to 8 bits for the histograms, and only its change is added, so that finer differences stay.
    The change has no gradient: the gradient of the result is that of the image.

    Args:
        image: encoded RGB in [0, 1].
        params: column 0: clip limit, the most a bin may hold as a multiple of the mean over the 256 bins of a tile; 0
            leaves the image unchanged.

    Raises:
        AdaptiveISPError: OpenCV is not installed.

    Source: Zuiderveld 1994.
    Differs: a limit of 0 means no change, where OpenCV takes it as no limit.
    """
    cv2 = import_extra("cv2", "opencv")
    levels = (weighted_channel(image.detach(), LUMA)[:, 0] * 255).round().clamp(0, 255).to(torch.uint8).cpu()
    changes = []
    for one, limit in zip(levels, params[:, 0].tolist(), strict=True):
        equalised = torch.from_numpy(cv2.createCLAHE(limit, TILES).apply(one.numpy())) if limit > 0 else one
        changes.append(equalised.to(image.dtype) - one.to(image.dtype))
    return image + (torch.stack(changes)[:, None] / 255).to(image.device)


# A baseline, which no policy chooses. Its cost is that of `local_tone`, the other module that works on parts of images.
PAPER = IspModule(
    "clahe",
    "CLAHE",
    (Param("clip", 0.0, MOST_CLIP, "", 0.0),),
    clahe,
    2.6,
    source="Zuiderveld 1994",
    effect="Raises the contrast of each part of the picture by itself, noise too (needs the extra `opencv`).",
)

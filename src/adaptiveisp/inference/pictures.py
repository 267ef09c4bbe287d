"""Small pictures for pages: JPEGs of bounded size as data URLs, and dark images made visible."""

import base64
import io
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image as PilImage
from torch import Tensor

from adaptiveisp.inference.drawing import PAPER, Rgb8, resize_to_width
from adaptiveisp.utils.color import srgb_encode, to_uint8

PICTURE_WIDTH = 480
"""Most pixels across a picture of a page."""
PICTURE_BYTES = 40_000
"""Most bytes of a picture of a page, as JPEG; as a data URL it takes a third more."""
LADDER = ((1.0, 84), (1.0, 70), (0.8, 65), (0.6, 60), (0.4, 50), (0.25, 40))
"""(share of the width, quality) that are tried in turn until the JPEG is small enough."""

BRIGHT_SHARE, BRIGHT_VALUE = 0.99, 0.8
"""Share of the values that are at most `BRIGHT_VALUE` in an image that was brightened for the eye."""
LEAST_GAIN, MOST_GAIN = 2.0, 1000.0
"""An image that needs less gain is shown as it is; more would show nothing but noise."""


class PageImage(NamedTuple):
    """A picture as the page holds it: a data URL, and its sides in pixels."""

    src: str
    width: int
    height: int


def page_image(image: Rgb8, width: int = PICTURE_WIDTH, most_bytes: int = PICTURE_BYTES) -> PageImage:
    """A picture as a JPEG of bounded size.

    Args:
        image: (height, width, 3) 8-bit RGB.
        width: most pixels across; smaller pictures keep their width.
        most_bytes: most bytes of the JPEG. A picture that does not fit is made coarser and then smaller; the last step
            of `LADDER`, a quarter of the width at quality 40, is taken whatever it needs.
    """
    content, picture = b"", PilImage.fromarray(image)
    for share, quality in LADDER:
        buffer = io.BytesIO()
        picture = resize_to_width(image, max(1, round(min(width, image.shape[1]) * share)))
        picture.save(buffer, format="JPEG", quality=quality, optimize=True)
        content = buffer.getvalue()
        if len(content) <= most_bytes:
            break
    return PageImage(
        f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}", picture.width, picture.height
    )


def eye_gain(linear: Float[Tensor, "3 height width"]) -> float:
    """The factor by which a linear image has to be multiplied before a person sees something in it; at least 1.

    After it, 99 % of the values are at most 0.8. It is 1 for images that need less than twice.
    """
    bright = float(np.quantile(linear.cpu().numpy(), BRIGHT_SHARE))
    gain = min(BRIGHT_VALUE / max(bright, BRIGHT_VALUE / MOST_GAIN), MOST_GAIN)
    return gain if gain >= LEAST_GAIN else 1.0


def half_brightened(linear: Float[Tensor, "3 height width"]) -> tuple[Rgb8, float]:
    """A linear image as it is, and right of a slanting line brightened for the eye; and the factor of that.

    The brightened part is encoded for a screen by the sRGB curve. An image that is bright enough stays as it is, and
    the factor is 1.

    Args:
        linear: developed image in [0, 1].
    """
    plain, gain = to_uint8(linear), eye_gain(linear)
    if gain == 1:
        return plain, gain
    height, width = plain.shape[:2]
    brightened = to_uint8(srgb_encode((linear * gain).clamp(0, 1)))
    rows, columns = np.mgrid[:height, :width]
    place = columns - width * (0.6 - 0.2 * rows / max(1, height - 1))  # from 60 % of the width on top to 40 % below
    shown = np.where(place[..., None] > 0, brightened, plain)
    shown[np.abs(place) < max(1.0, width / 400)] = PAPER
    return shown, gain

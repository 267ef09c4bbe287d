"""A raw on its way through the stages of a call: read and developed, then rendered."""

from dataclasses import dataclass

import torch

from adaptiveisp.detectors.letterbox import resize_longer_side, resized_size
from adaptiveisp.policies.base import Developed, Rendered
from adaptiveisp.raw.develop import develop, develop_small, upright_size
from adaptiveisp.types import RawImage


def develop_at_size(
    raw: RawImage,
    size: int,
    camera_white_balance: bool = False,
    device: str | torch.device = "cpu",
    full: bool = False,
) -> Developed:
    """The raw developed and resized so that its longer side is `size` pixels.

    A large mosaic is developed at that size in one pass, see `raw.develop.develop_small`; the result then has no image
    at full size.

    Args:
        raw: any raw.
        size: longer side in pixels.
        camera_white_balance: whether the camera's own gains are applied before the policy observes the image.
        device: device of the small image.
        full: whether the image at full size is wanted too.
    """
    width, height = upright_size(raw.data.shape[1], raw.data.shape[0], raw.orientation)
    small = None if full else develop_small(raw, *resized_size(height, width, size), camera_white_balance)
    if small is not None:
        return Developed(None, small[None].to(device), (height, width), raw)
    whole = develop(raw, camera_white_balance=camera_white_balance)
    return Developed(whole, resize_longer_side(whole, size)[None].to(device), (height, width), raw)


@dataclass(frozen=True)
class Prepared:
    """A raw on its way through the stages of a call.

    Attributes:
        raw: the raw itself.
        developed: the developed raw.
        read_ms, develop_ms: times in milliseconds.
        rendered: the image that the policy made; None before `AdaptiveISP.render`.
    """

    raw: RawImage
    developed: Developed
    read_ms: float
    develop_ms: float
    rendered: Rendered | None = None

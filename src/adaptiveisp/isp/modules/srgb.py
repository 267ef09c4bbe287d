"""The sRGB curve: linear light → display code values, without parameters."""

from adaptiveisp.isp.module import IspModule
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import srgb_encode


def srgb(image: Image, params: ParamTensor) -> Image:
    """sRGB code values of linear light.

    Args:
        image: linear RGB in [0, 1].
        params: no columns.

    Source: IEC 61966-2-1.
    """
    return srgb_encode(image)


# Not one of the paper's ten: the heuristic baseline ends with it. Its cost is set to gamma's, the same kind of power.
PAPER = IspModule(
    "srgb",
    "sRGB",
    (),
    srgb,
    2.0,
    source="IEC 61966-2-1",
    effect="Encodes linear light as an sRGB display expects it; it has no parameters.",
    pointwise=True,
    kernel=KernelCall("srgb"),
)

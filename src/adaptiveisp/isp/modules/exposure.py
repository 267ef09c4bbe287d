"""Exposure: y = x · 2^EV."""

from collections.abc import Sequence

from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor


def exposure(image: Image, params: ParamTensor) -> Image:
    """The image brightened by EV stops: y = x · 2^EV.

    Args:
        image: linear RGB in [0, 1].
        params: column 0: EV in stops.

    Source: Hu et al. 2018 (Exposure), section 4.
    """
    return image * params[:, 0].exp2()[:, None, None, None]


def numbers(params: Sequence[float]) -> list[float]:
    """The factor of each channel for the kernel."""
    return [2.0 ** params[0]] * 3


def batch_numbers(params: ParamTensor) -> Tensor:
    """The factors of each image for the kernel."""
    return params.exp2().expand(-1, 3)


def make_exposure(limit: float) -> IspModule:
    """Exposure reaching ±`limit` stops."""
    return IspModule(
        "exposure",
        "E",
        (Param("ev", -limit, limit, "stops", 0.0),),
        exposure,
        1.7,
        source="Hu et al. 2018",
        effect=(
            "Brightens or darkens the whole picture, as the exposure slider of a raw converter does; highlights "
            "may clip."
        ),
        pointwise=True,
        kernel=KernelCall("scale", numbers, batch_numbers),
    )


PAPER = make_exposure(3.5)
# A brightness of 0.003 needs about 8 stops to reach mid-grey; two more for frames darker than that.
WIDE = make_exposure(10.0)

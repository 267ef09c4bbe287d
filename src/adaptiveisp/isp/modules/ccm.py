"""Colour correction: a 3x3 matrix whose rows are divided by their sums."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor

ENTRIES = ("rr", "rg", "rb", "gr", "gg", "gb", "br", "bg", "bb")
"""Entry "rg" says how much of the input's green goes into the output's red."""
LEAST_ROW_SUM = 1e-6
"""A pipeline file may not name a matrix whose row sums to less: the division has no meaning there."""


def ccm(image: Image, params: ParamTensor) -> Image:
    """y_i = Σ_j M_ij x_j, where M is the entries divided by their row sum, so that white stays white.

    Args:
        image: linear RGB in [0, 1].
        params: the nine entries before the division, row-major. A row that sums to 0 has no meaning; as in the
            original no epsilon guards it.

    Source: Wang et al. 2024 (AdaptiveISP).
    """
    return torch.einsum("bij,bjhw->bihw", batch_numbers(params).reshape(-1, 3, 3), image)


def batch_numbers(params: ParamTensor) -> Tensor:
    """The nine entries of each image's M, row-major."""
    entries = params.reshape(-1, 3, 3)
    return (entries / entries.sum(dim=2, keepdim=True)).flatten(1)


def numbers(params: Sequence[float]) -> list[float]:
    """The nine entries of M, row-major; a row that sums to 0 gives NaN or infinity, as in PyTorch."""
    # By NumPy, which takes a quarter of the time of PyTorch for nine numbers, with the same sums.
    entries = np.array(params, dtype=np.float32).reshape(3, 3)
    with np.errstate(all="ignore"):
        divided: list[float] = (entries / ((entries[:, 0] + entries[:, 1]) + entries[:, 2])[:, None]).ravel().tolist()
    return divided


def zero_row(params: Mapping[str, float]) -> str | None:
    """Says which row of the matrix sums to (nearly) 0; None if no row does."""
    for row in ("r", "g", "b"):
        total = sum(params[row + column] for column in "rgb")
        if abs(total) < LEAST_ROW_SUM:
            return f"the row {row}r, {row}g, {row}b sums to {total:g} and cannot be divided by it; change an entry"
    return None


PAPER = IspModule(
    "ccm",
    "CCM",
    tuple(Param(name, -2.0, 2.0, "", 1.0 if name[0] == name[1] else 0.0) for name in ENTRIES),
    ccm,
    1.9,
    forbidden=zero_row,
    source="Wang et al. 2024 (AdaptiveISP)",
    effect="Mixes the colour channels, which corrects hues and how strong colours are; white stays white.",
    colour_only=True,
    pointwise=True,
    kernel=KernelCall("matrix", numbers, batch_numbers),
)

"""Colour correction: a 3x3 matrix whose rows are divided by their sums."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from adaptiveisp.isp.differentiable import pointwise
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.forward import Operation
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
    return torch.einsum("bij,bjhw->bihw", constants(params).reshape(-1, 3, 3), image)


def constants(params: ParamTensor) -> Tensor:
    """The nine entries of M, row-major."""
    entries = params.reshape(-1, 3, 3)
    return (entries / entries.sum(dim=2, keepdim=True)).flatten(1)


def operation(params: Sequence[float]) -> Operation:
    """The same for `native.chain`; a row that sums to 0 gives NaN or infinity, as PyTorch does."""
    return "matrix", constants(torch.tensor([list(params)]))[0].tolist()


def zero_row(params: Mapping[str, float]) -> str | None:
    """What is wrong with a matrix that has a row whose sum is (nearly) 0; None where all rows are fine."""
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
    pointwise=True,
    operation=operation,
    differentiable=partial(pointwise, name="matrix", constants=constants),
)

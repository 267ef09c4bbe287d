"""A pipeline as the blocks that camera hardware has: gains, a colour matrix, one tone curve, and a denoiser's strength.

What a module computes is found out by trying it on colours, so that modules from outside the package take part. In
hardware the order is fixed: white balance, colour matrix, curve. A stage that does not fit there is left out and named.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.modules.denoise import PATCH_RADIUS
from adaptiveisp.isp.pipeline import Pipeline

Matrix = NDArray[np.float64]
"""3x3."""
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""One curve for all channels, from [0, 1] to [0, 1]."""

TOLERANCE = 1e-4
"""Largest error with which a module counts as a matrix or as a curve: a quarter of a step of 12 bits."""
LEAST_NOTED = 0.005
"""Least difference from the pipeline that a note states."""
DARK = 2.0**-14
"""Scale of the colours on which linearity is tried, small enough that no gain leaves [0, 1]."""
OTHER_PIXELS = "it looks at other pixels, near ones or those of the whole image, which no table of colours holds"
PATCH = (2 * PATCH_RADIUS + 1) ** 2
"""Pixels of a patch that non-local means compares."""


@dataclass(frozen=True)
class Decomposition:
    """The blocks of a pipeline.

    Attributes:
        gains: of red and blue relative to green, and 1 for green.
        matrix: 3x3, applied after the gains.
        curve: applied to each channel after the matrix; the exposure is part of it.
        exposure: factor that all channels are multiplied by before the curve, for information.
        noise: standard deviation in [0, 1] below which differences count as noise; None without a denoiser.
        approximated: stages that the blocks hold for greys only, with the reason.
        left_out: stages that no block can hold, with the reason.
        error: greatest difference of `render` from the pipeline's pointwise stages on colours in [0, 1].
    """

    gains: tuple[float, float, float]
    matrix: Matrix
    curve: Curve
    exposure: float
    noise: float | None
    approximated: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    error: float = 0.0

    @property
    def notes(self) -> list[str]:
        """What a user has to know, a line for each stage that the blocks do not hold exactly."""
        lines = [f"{name}: approximated, {reason}" for name, reason in self.approximated]
        lines += [f"{name}: left out, {reason}" for name, reason in self.left_out]
        if self.error >= LEAST_NOTED:
            # Blocks that hold every stage differ only where a stage clips and the blocks do not.
            where = "" if lines else " in the highlights, which the pipeline clips before later stages"
            lines.append(f"colours are up to {self.error:.2f} off, of 1{where}")
        return lines

    def render(self, colours: NDArray[np.float64]) -> NDArray[np.float64]:
        """Colours (n, 3), linear in [0, 1], after all blocks but the denoiser."""
        return self.curve(np.clip(colours * self.gains @ self.matrix.T, 0, None))


def decompose(pipeline: Pipeline) -> Decomposition:
    """The blocks of a pipeline of one frame.

    Args:
        pipeline: its stages; those of an external ISP cannot be exported.

    Raises:
        PipelineError: a stage develops the raw itself.
    """
    gains, matrix, curves = np.ones(3), np.eye(3), list[Curve]()
    noise: float | None = None
    approximated, left_out = list[tuple[str, str]](), list[tuple[str, str]]()
    for module, params in pipeline.calls:
        if module.external is not None:
            raise PipelineError(f"{module.name}: is an ISP of its own; take its parameters from the pipeline JSON")
        if (strength := _noise_of(module, params)) is not None:
            noise = max(noise or 0.0, strength)
            continue
        if not module.pointwise:
            left_out.append((module.name, OTHER_PIXELS))
            continue
        linear = _matrix_of(module, params)
        if linear is not None and not curves:
            is_diagonal = np.count_nonzero(linear - np.diag(np.diag(linear))) == 0
            # A factor of all channels may be moved before the matrix, where it counts as exposure.
            is_gain = is_diagonal and (np.array_equal(matrix, np.eye(3)) or np.allclose(np.diag(linear), linear[0, 0]))
            gains, matrix = (gains * np.diag(linear), matrix) if is_gain else (gains, linear @ matrix)
        elif linear is not None and not np.allclose(linear, linear[0, 0] * np.eye(3), atol=TOLERANCE):
            left_out.append((module.name, "it mixes or balances colours after a curve; hardware does that before"))
        else:
            curves.append(partial(_grey_curve, module, tuple(params)))
            if not _is_one_curve(module, params):
                approximated.append((module.name, "by what it does to grey"))
    greys = matrix.sum(axis=1)
    if greys[1] > 0 and np.allclose(greys, greys[1], rtol=1e-6, atol=0):  # a matrix that keeps greys, and a factor
        gains, matrix = gains * greys[1], matrix / greys[1]
    scale = float(gains[1])
    balance = (float(gains[0] / scale), 1.0, float(gains[2] / scale))
    whole = partial(_through, scale, tuple(curves))
    made = Decomposition(balance, matrix, whole, scale, noise, tuple(approximated), tuple(left_out))
    return replace(made, error=_difference(made, pipeline))


def _difference(blocks: Decomposition, pipeline: Pipeline, n: int = 4096) -> float:
    """Greatest difference between the blocks and the pipeline's pointwise stages on random colours and the corners."""
    pairs = zip(pipeline.stages, pipeline.modules, strict=True)
    pointwise = pipeline.with_stages([stage for stage, module in pairs if module.pointwise])
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    colours = torch.cat([corners, torch.rand(n, 3, generator=torch.Generator().manual_seed(0))])
    exact = pointwise.clipped(pointwise.render(colours.T.reshape(1, 3, 1, -1))).reshape(3, -1).T.numpy()
    return float(np.abs(blocks.render(colours.double().numpy()) - exact).max())


def _through(scale: float, curves: Sequence[Curve], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values times a factor, then after each curve, clipped in between as modules do."""
    values = np.clip(values * scale, 0, 1)
    for curve in curves:
        values = np.clip(curve(values), 0, 1)
    return values


def _noise_of(module: IspModule, params: Sequence[float]) -> float | None:
    """The standard deviation of the noise that a denoiser removes; None for other modules.

    Non-local means compares patches by the root of the sum of their squared differences. Two patches of noise σ alone
    differ by σ·sqrt(2·25), and the weight falls to 1/e where that is h.
    """
    if module.name == "denoise":
        return float(params[0]) / math.sqrt(2 * PATCH)
    named = dict(zip((param.name for param in module.params), params, strict=True))
    return float(named["noise"]) if module.name == "guided_denoise" and named["amount"] > 0 else None


def _called(module: IspModule, params: Sequence[float], colours: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Colours after a pointwise module's function, without its clip, in float64."""
    image = colours.T[None, :, :, None]
    row = torch.tensor([list(params)], dtype=torch.float64).reshape(1, len(module.params))
    result: Tensor = module.function(image, row)[0, :, :, 0].T
    return result


def _matrix_of(module: IspModule, params: Sequence[float]) -> Matrix | None:
    """The matrix that the module multiplies colours by; None if it computes anything else."""
    basis = DARK * torch.eye(3, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    others = DARK * torch.rand(16, 3, dtype=torch.float64, generator=generator)
    matrix = (_called(module, params, basis) / DARK).T
    found = [_called(module, params, colours) for colours in (others, 1e3 * others)]
    size = float(matrix.abs().max()) or 1.0
    for colours, result in zip((others, 1e3 * others), found, strict=True):
        if float((result - colours @ matrix.T).abs().max()) > TOLERANCE * size * float(colours.max()):
            return None
    cleaned = torch.where(matrix.abs() < 1e-12 * size, 0.0, matrix)
    return np.asarray(cleaned.numpy(), dtype=np.float64)


def _grey_curve(module: IspModule, params: Sequence[float], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Green of greys of these values after the module."""
    greys = torch.from_numpy(np.asarray(values, dtype=np.float64).reshape(-1, 1)).expand(-1, 3)
    return np.asarray(_called(module, params, greys)[:, 1].numpy(), dtype=np.float64).reshape(np.shape(values))


def _is_one_curve(module: IspModule, params: Sequence[float]) -> bool:
    """Whether the module changes each channel by the same curve, whatever the others are."""
    colours = torch.rand(256, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = _grey_curve(module, params, colours.numpy())
    return (
        float(np.abs(np.clip(_called(module, params, colours).numpy(), 0, 1) - expected.clip(0, 1)).max()) < TOLERANCE
    )

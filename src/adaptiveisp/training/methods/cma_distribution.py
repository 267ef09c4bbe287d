"""The mathematics of CMA-ES: a normal distribution that moves to where a function of n numbers is small.

Each generation draws λ points x = m + σ·y with y ~ N(0, C) and updates m, σ and C from the order of their values.

Source: Hansen 2016, The CMA Evolution Strategy: A Tutorial (arXiv 1604.00772), the algorithm of its appendix A with
the constants of its table 1. Differs: all recombination weights are positive, so that the worst points do not reduce C
as they would in "active" CMA-ES.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

LEAST_EIGENVALUE = 1e-30
"""Lower limit of the eigenvalues of C, which rounding can make zero or negative."""

Vector = Float[Tensor, " n"]
Matrix = Float[Tensor, "n n"]


def default_population(n: int) -> int:
    """λ = 4 + ⌊3 ln n⌋.

    >>> default_population(10), default_population(27)
    (10, 13)
    """
    return 4 + math.floor(3 * math.log(max(1, n)))


@dataclass(frozen=True)
class Constants:
    """The constants of a search, named as in the source.

    Attributes:
        weights: (μ,) recombination weights of the best points, best first; positive, falling, sum 1.
        mu_eff: variance-effective selection mass, 1 to μ.
        c_sigma, d_sigma: learning rate and damping of the step size.
        c_c, c_1, c_mu: learning rates of the evolution path, the rank-one and the rank-μ update.
        chi: expected length of a standard normal vector of n numbers.
    """

    weights: Float[Tensor, " mu"]
    mu_eff: float
    c_sigma: float
    d_sigma: float
    c_c: float
    c_1: float
    c_mu: float
    chi: float

    @classmethod
    def of(cls, n: int, population: int) -> "Constants":
        """The constants of table 1 for n numbers and λ = `population` points a generation.

        >>> constants = Constants.of(5, 8)
        >>> len(constants.weights), round(constants.weights.sum().item(), 12)
        (4, 1.0)
        """
        ranks = torch.arange(1, population // 2 + 1, dtype=torch.float64)
        raw = math.log((population + 1) / 2) - ranks.log()
        weights = raw / raw.sum()
        mu_eff = 1 / float(weights.square().sum())
        c_sigma = (mu_eff + 2) / (n + mu_eff + 5)
        c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)
        return cls(
            weights=weights,
            mu_eff=mu_eff,
            c_sigma=c_sigma,
            d_sigma=1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma,
            c_c=(4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n),
            c_1=c_1,
            c_mu=min(1 - c_1, 2 * (mu_eff + 1 / mu_eff - 2 + 0.25) / ((n + 2) ** 2 + mu_eff)),
            chi=math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2)),
        )


@dataclass(frozen=True)
class Distribution:
    """The state of a search, all in float64.

    Attributes:
        mean: m.
        sigma: step size σ > 0, in units of x.
        covariance: C, symmetric and positive definite; x has the covariance σ²C.
        step_path: p_σ, the evolution path that sets the step size.
        path: p_c, the evolution path of the rank-one update.
        generation: number of updates so far.
    """

    mean: Vector
    sigma: float
    covariance: Matrix
    step_path: Vector
    path: Vector
    generation: int = 0

    @classmethod
    def around(cls, mean: Vector, sigma: float) -> "Distribution":
        """The initial distribution of a search, with standard deviation `sigma` in each dimension."""
        zeros = torch.zeros_like(mean, dtype=torch.float64)
        return cls(mean.double(), sigma, torch.eye(len(mean), dtype=torch.float64), zeros, zeros)

    def ask(self, population: int, generator: torch.Generator) -> Float[Tensor, "population n"]:
        """Draws points x = m + σ·B·D·z with z ~ N(0, I) and C = B·D²·Bᵀ.

        Args:
            population: λ, the number of points.
            generator: draws z.
        """
        axes, lengths = self._axes()
        z = torch.randn(population, len(self.mean), dtype=torch.float64, generator=generator)
        return self.mean + self.sigma * (z * lengths) @ axes.T

    def updated(
        self, points: Float[Tensor, "population n"], values: Float[Tensor, " population"], constants: Constants
    ) -> "Distribution":
        """The distribution of the next generation.

        Args:
            points: from `ask`.
            values: of the function at these points. Only their order is used; infinity is the worst.
            constants: for these n and λ.
        """
        c, n = constants, len(self.mean)
        best = values.argsort(stable=True)[: len(c.weights)]
        steps = (points[best] - self.mean) / self.sigma
        mean_step = c.weights @ steps
        axes, lengths = self._axes()
        whitened = axes @ ((axes.T @ mean_step) / lengths)  # C^(-1/2) of the mean step
        step_path = (1 - c.c_sigma) * self.step_path
        step_path = step_path + math.sqrt(c.c_sigma * (2 - c.c_sigma) * c.mu_eff) * whitened
        length = float(step_path.norm())
        # While the step size grows fast, the other path is not updated, because C would grow as well.
        normal = length / math.sqrt(1 - (1 - c.c_sigma) ** (2 * (self.generation + 1)))
        moves = float(normal < (1.4 + 2 / (n + 1)) * c.chi)
        path = (1 - c.c_c) * self.path + moves * math.sqrt(c.c_c * (2 - c.c_c) * c.mu_eff) * mean_step
        kept = 1 - c.c_1 - c.c_mu + (1 - moves) * c.c_1 * c.c_c * (2 - c.c_c)
        rank_mu = steps.T @ (c.weights[:, None] * steps)
        covariance = kept * self.covariance + c.c_1 * torch.outer(path, path) + c.c_mu * rank_mu
        return replace(
            self,
            mean=self.mean + self.sigma * mean_step,
            sigma=self.sigma * math.exp(c.c_sigma / c.d_sigma * (length / c.chi - 1)),
            covariance=(covariance + covariance.T) / 2,
            step_path=step_path,
            path=path,
            generation=self.generation + 1,
        )

    @property
    def axis_ratio(self) -> float:
        """Ratio of the longest to the shortest axis of the distribution, at least 1."""
        _, lengths = self._axes()
        return float(lengths.max() / lengths.min())

    def _axes(self) -> tuple[Matrix, Vector]:
        """B, whose columns are the unit axes, and the diagonal of D, the standard deviations along them."""
        eigenvalues, axes = torch.linalg.eigh(self.covariance)
        return axes, eigenvalues.clamp(min=LEAST_EIGENVALUE).sqrt()

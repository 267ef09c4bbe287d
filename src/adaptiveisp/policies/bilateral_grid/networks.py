"""The network that predicts a bilateral grid of colour transforms, and a denoiser's strength, from an observation.

Convolutions reduce the six 64x64 planes to the grid's rows and columns. A local path keeps the place; a global path
pools the whole image and adds the numbers of the observation, and its features are added to those of every cell. A 1x1
convolution then gives each cell its 12 numbers at every depth, as a difference from the identity.

Source: Gharbi et al. 2017 (HDRnet), section 3.1, for the two paths, their sum and the guide. Differs: the input is the
observation of the sequence policies instead of a 256x256 image; a linear part from the observation's numbers is added
to all cells of a depth, as in the sequence policies; and the last layer begins at 0, so that an untrained network
changes nothing.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.isp.bilateral_grid import N_COEFFICIENTS, Grid, GuideCurves, identity_cell
from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.sequence.networks import N_NUMBERS, N_PLANES, N_SCALARS
from adaptiveisp.policies.stepwise.networks import SLOPE, VIEW
from adaptiveisp.types import ParamTensor

CHANNELS = (16, 32, 64)
"""Filters of the strided convolutions; a grid of 16x16 cells has two of them, and the global path one more."""
GLOBAL = 64
"""Filters of the last convolution of the global path."""
HIDDEN = 128
SIDES = (8, 16, 32)
"""Rows and columns that a grid can have."""
DEEPEST = 32
"""Largest depth of a grid."""
MOST_KNOTS = 64
"""Most changes of slope of a guide's curve."""


class Prediction(NamedTuple):
    """The output of the network.

    Attributes:
        grid: of each image.
        denoiser: physical parameters of the denoiser; None without one.
    """

    grid: Grid
    denoiser: ParamTensor | None


class Guide(nn.Module):
    """Weights of `GuideCurves`, which begin as the mean of the three channels.

    Args:
        knots: places where a curve can change its slope.
    """

    def __init__(self, knots: int):
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3))
        self.offset = nn.Parameter(torch.zeros(3))
        self.thresholds = nn.Parameter(torch.arange(knots).repeat(3, 1) / knots)
        self.slopes = nn.Parameter(torch.eye(1, knots).repeat(3, 1))  # slope 1 from the first threshold on
        self.mix = nn.Parameter(torch.full((3,), 1 / 3))
        self.bias = nn.Parameter(torch.zeros(()))

    @property
    def curves(self) -> GuideCurves:
        """The weights as the slicing takes them."""
        return GuideCurves(self.matrix, self.offset, self.thresholds, self.slopes, self.mix, self.bias)


class BilateralGridNetwork(nn.Module):
    """Predicts the grid of each image; the guide is the same for all images.

    Args:
        side: rows and columns of the grid, one of `SIDES`.
        depth: of the grid.
        knots: of each curve of the guide.
        denoiser: module that runs before the grid, whose parameters are predicted too; None for no module.

    Raises:
        ValueError: a size is out of range.
    """

    identity: Tensor
    neutral: Tensor

    def __init__(self, side: int, depth: int, knots: int, denoiser: IspModule | None = None):
        super().__init__()
        if side not in SIDES or not 1 <= depth <= DEEPEST or not 1 <= knots <= MOST_KNOTS:
            raise ValueError(f"no grid has the side {side}, the depth {depth} and {knots} knots")
        self.side, self.depth, self.knots, self.denoiser = side, depth, knots, denoiser
        n_strided = (VIEW // side).bit_length() - 1
        channels = (N_PLANES, *CHANNELS[:n_strided])
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*layers)
        width = channels[-1]
        self.local = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(SLOPE)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.whole = nn.Sequential(nn.Conv2d(width, GLOBAL, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE))
        self.trunk = nn.Sequential(nn.Linear(2 * GLOBAL + N_NUMBERS, HIDDEN), nn.LeakyReLU(SLOPE))
        self.spread = nn.Linear(HIDDEN, width)
        self.head = nn.Conv2d(width, N_COEFFICIENTS * depth, 1, bias=False)
        self.grid_line = nn.Linear(N_SCALARS, N_COEFFICIENTS * depth)
        self.guide = Guide(knots)
        self.register_buffer("identity", identity_cell(), persistent=False)
        for zero in (self.head.weight, self.grid_line.weight, self.grid_line.bias):
            nn.init.zeros_(zero)
        if denoiser is not None:
            neutral = denoiser.logits_from_params(denoiser.neutral_params)
            self.register_buffer("neutral", torch.tensor(neutral), persistent=False)
            self.denoiser_head = nn.Linear(HIDDEN, len(neutral), bias=False)
            self.denoiser_line = nn.Linear(N_SCALARS, len(neutral))
            for zero in (self.denoiser_head.weight, self.denoiser_line.weight, self.denoiser_line.bias):
                nn.init.zeros_(zero)

    def forward(self, planes: Float[Tensor, "batch 6 64 64"], numbers: Float[Tensor, "batch n_numbers"]) -> Prediction:
        """The grid and the denoiser's parameters of each image, from planes and numbers of its observation."""
        features = self.encoder(planes)
        pooled = self.whole(features)
        pooled = torch.cat([pooled.mean(dim=(2, 3)), pooled.amax(dim=(2, 3)), numbers], dim=1)
        hidden, scalars = self.trunk(pooled), numbers[:, -N_SCALARS:]
        cells = F.leaky_relu(self.local(features) + self.spread(hidden)[:, :, None, None], SLOPE)
        change = self.head(cells) + self.grid_line(scalars)[:, :, None, None]
        # The head's channels are 12 numbers of the first depth, then 12 of the next.
        change = change.view(len(change), self.depth, N_COEFFICIENTS, self.side, self.side).transpose(1, 2)
        grid = self.identity[None, :, None, None, None] + change
        if self.denoiser is None:
            return Prediction(grid, None)
        logits = self.neutral + self.denoiser_head(hidden) + self.denoiser_line(scalars)
        return Prediction(grid, self.denoiser.params_from_logits(logits))

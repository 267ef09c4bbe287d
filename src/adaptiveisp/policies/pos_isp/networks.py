"""The networks of a released POS-ISP policy: parameters of all modules from one image, and one order of the modules.

Source: Won et al. 2026 (POS-ISP), its released code. `sequence.networks` is this package's own variant of the method.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.isp.registry import POS_ISP
from adaptiveisp.types import Image

VIEW = 64
"""Side in pixels to which the image is averaged."""
CHANNELS = (3, 32, 64, 128, 128, 128)
WIDTHS = (2 * CHANNELS[-1], 256, 128, 256, sum(len(module.params) for module in POS_ISP))
"""Lengths of the vectors from the pooled features to the 27 parameters."""
SLOPE = 0.2
"""Of the leaky ReLUs."""

N_MODULES = len(POS_ISP)
END, START = N_MODULES, N_MODULES + 1
"""Tokens beside the modules' ids: the choice that ends the sequence, and the token before the first choice."""
TOKEN = 64
"""Length of the vector of a token, and of the hidden state of each direction."""
STEP = 16
"""Length of the vector of a step's number."""
LEAST_TEMPERATURE = 0.2
"""The temperature that training ends with."""

Units = Float[Tensor, "batch n_params"]


class Order(NamedTuple):
    """The likeliest sequence of modules.

    Attributes:
        modules: action ids in the order they run, without the end.
        log_probs: logarithm of each choice's probability among the modules left and the end.
    """

    modules: list[int]
    log_probs: list[float]


class PosIspNetwork(nn.Module):
    """The parameter network and the sequence network. They share nothing."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(CHANNELS)]
        self.convolutions = nn.ModuleList(convolutions)
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(WIDTHS)])
        self.tokens = nn.Embedding(N_MODULES + 2, TOKEN)
        self.gru = nn.GRU(TOKEN, TOKEN, batch_first=True, bidirectional=True)
        self.steps = nn.Embedding(N_MODULES + 1, STEP)
        self.film = nn.Linear(STEP, 4 * TOKEN)
        self.choice = nn.Linear(2 * TOKEN, N_MODULES + 1)

    def forward(self, image: Image) -> Units:
        """u = (tanh + 1)/2 of all parameters, in the order of `POS_ISP` and of each module's parameters.

        Args:
            image: RGB of any size; it is averaged to 64x64 first.
        """
        hidden = F.adaptive_avg_pool2d(image, VIEW)
        for convolution in self.convolutions:
            hidden = F.leaky_relu(convolution(hidden), SLOPE)
        first, second, third, last = self.layers
        pooled = torch.cat([hidden.mean(dim=(2, 3)), hidden.amax(dim=(2, 3))], dim=1)
        features = second(F.relu(first(pooled)))
        units: Tensor = (torch.tanh(last(F.leaky_relu(third(features), SLOPE))) + 1) / 2
        return units

    def params(self, image: Image) -> list[list[list[float]]]:
        """Physical parameters, linear in u: for each image those of each module of `POS_ISP`, in order.

        Args:
            image: RGB of any size.
        """
        bounds = [(param.low, param.high) for module in POS_ISP for param in module.params]
        low, high = image.new_tensor(bounds).unbind(dim=1)
        rows = (low + (high - low) * self(image)).split([len(module.params) for module in POS_ISP], dim=1)
        return [list(of_image) for of_image in zip(*(row.tolist() for row in rows), strict=True)]

    @torch.no_grad()
    def order(
        self,
        temperature: float = LEAST_TEMPERATURE,
        begin: Sequence[int] = (),
        trace: list[Float[Tensor, " n_actions"]] | None = None,
    ) -> Order:
        """The likeliest module at each step among those that did not run yet, until the end is likeliest.

        Args:
            temperature: divides the logits before the probabilities; it does not change the order.
            begin: action ids of the first steps, after which the likeliest ones are taken.
            trace: a list to which the probabilities of each step are appended: those of the modules, then of the end.
        """
        device = self.tokens.weight.device
        closed = torch.zeros(N_MODULES + 1, device=device)
        state = torch.zeros(2, 1, TOKEN, device=device)
        modules, log_probs, token = [], [], START
        for step in range(N_MODULES + 1):
            output, state = self.gru(self.tokens(torch.tensor([[token]], device=device)), state)
            scale, shift = torch.tanh(self.film(self.steps(torch.tensor(step, device=device)))).chunk(2)
            logits = self.choice(output[0, 0] * (1 + scale) + shift) + closed
            token = begin[step] if step < len(begin) else int(logits.argmax())
            if trace is not None:
                trace.append((logits / temperature).softmax(dim=0))
            if token == END:
                break
            log_probs.append(float(F.log_softmax(logits / temperature, dim=0)[token]))
            modules.append(token)
            closed[token] = -torch.inf
        return Order(modules, log_probs)

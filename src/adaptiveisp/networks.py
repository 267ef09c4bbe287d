"""The networks of the step-wise policy: a pooled view and the episode's numbers in, module and parameters out.

Source: Wang et al. 2024 (AdaptiveISP), section 3 and its released code; Hu et al. 2018 (Exposure) for the encoder.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.color import LUMA, weighted_channel
from adaptiveisp.environment import State
from adaptiveisp.isp.module import IspModule
from adaptiveisp.types import ParamTensor

VIEW = 64
"""Side of the pooled view in pixels."""
CHANNELS = (32, 64, 128, 256)
FEATURES = 4096
HIDDEN = 128
SLOPE = 0.2
DROPOUT = 0.5
EXPLORATION = 0.05
"""Share of the selection that is uniform over the modules."""
N_COUNTERS = 3
"""Numbers of a status before the used flags: reward, stopped, step."""
N_STATISTICS = 3

View = Float[Tensor, "batch channels 64 64"]


def observe(state: State) -> View:
    """What the actor sees: the image pooled to 64x64, then the status numbers as constant planes."""
    pooled = F.adaptive_avg_pool2d(state.image, VIEW)
    return torch.cat([pooled, _planes(state.status)], dim=1)


def observe_for_critic(view: View) -> Float[Tensor, "batch more 64 64"]:
    """The actor's view with three more constant planes, statistics of the pooled image.

    They are the mean of L + 1e-5, the (unbiased) variance of L, and the mean saturation
    (max - min) / (min(max + min, 2 - max - min) + 0.01) of the image clipped to [0, 1].
    """
    image = view[:, :3]
    luminance = weighted_channel(image, LUMA)[:, 0]
    clipped = image.clamp(0, 1)
    high, low = clipped.amax(dim=1), clipped.amin(dim=1)
    saturation = (high - low) / (torch.minimum(high + low, 2 - high - low) + 0.01)
    statistics = torch.stack(
        [(luminance + 1e-5).mean(dim=(1, 2)), luminance.var(dim=(1, 2)), saturation.mean(dim=(1, 2))], dim=1
    )
    return torch.cat([view, _planes(statistics)], dim=1)


def _planes(numbers: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n 64 64"]:
    return numbers[:, :, None, None].expand(-1, -1, VIEW, VIEW)


class Encoder(nn.Module):
    """64x64 view → 4096 features: four convolutions 4x4 stride 2 with batch norm and leaky ReLU."""

    def __init__(self, in_channels: int, dropout: float = 0.0):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, view: Float[Tensor, "batch channels 64 64"]) -> Float[Tensor, "batch 4096"]:
        """Features, flattened channel by channel, row by row."""
        features: Tensor = self.dropout(self.layers(view).flatten(1))
        return features


class Head(nn.Module):
    """4096 features → n numbers through one hidden layer."""

    def __init__(self, n_outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, n_outputs)

    def forward(self, features: Float[Tensor, "batch 4096"]) -> Float[Tensor, "batch n_outputs"]:
        """Unbounded outputs."""
        outputs: Tensor = self.fc2(F.leaky_relu(self.fc1(features), SLOPE))
        return outputs


class Choice(NamedTuple):
    """What the actor says of a batch.

    Attributes:
        probs: probability of each module, in the order of action ids.
        params: physical parameters of each module, by name.
    """

    probs: Float[Tensor, "batch n_modules"]
    params: Mapping[str, ParamTensor]


class Actor(nn.Module):
    """Module probabilities and the parameters of every module, from two encoders.

    Args:
        modules: the module set, in the order of action ids.
        dropout: of both encoders, while training.
    """

    def __init__(self, modules: Sequence[IspModule], dropout: float = DROPOUT):
        super().__init__()
        self.modules_in_order = tuple(modules)
        channels = 3 + N_COUNTERS + len(modules)
        self.parameter_encoder = Encoder(channels, dropout)
        self.selection_encoder = Encoder(channels, dropout)
        self.parameter_heads = nn.ModuleDict({m.name: Head(len(m.params)) for m in modules if m.params})
        self.selection_head = Head(len(modules))

    def forward(self, view: Float[Tensor, "batch channels 64 64"]) -> Choice:
        """Probabilities, mixed with 5 % of the uniform distribution, and physical parameters."""
        chosen = self.selection_head(self.selection_encoder(view)).softmax(dim=1)
        probs = (1 - EXPLORATION) * chosen + EXPLORATION / len(self.modules_in_order)
        features = self.parameter_encoder(view)
        params = {
            m.name: m.params_from_logits(self.parameter_heads[m.name](features))
            if m.params
            else features.new_zeros(len(features), 0)
            for m in self.modules_in_order
        }
        return Choice(probs, params)


class Critic(nn.Module):
    """Value of a state: the sum of rewards still expected.

    Args:
        n_modules: size of the module set.
    """

    def __init__(self, n_modules: int):
        super().__init__()
        self.encoder = Encoder(3 + N_COUNTERS + n_modules + N_STATISTICS)
        self.head = Head(1)

    def forward(self, view: Float[Tensor, "batch channels 64 64"]) -> Float[Tensor, " batch"]:
        """Value from the actor's view; the statistics are added here."""
        value: Tensor = self.head(self.encoder(observe_for_critic(view)))[:, 0]
        return value

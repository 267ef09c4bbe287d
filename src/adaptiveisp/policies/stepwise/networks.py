"""The networks of the step-wise policy: from a pooled image and the episode's status to a module and its parameters.

Source: Wang et al. 2024 (AdaptiveISP), section 3 and its released code; Hu et al. 2018 (Exposure) for the encoder.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adaptiveisp.isp.module import IspModule
from adaptiveisp.kernels.cuda_graphs import SHARED
from adaptiveisp.kernels.registry import find, takes
from adaptiveisp.policies.environment import STOP, State
from adaptiveisp.types import Image
from adaptiveisp.utils.color import LUMA, weighted_channel

VIEW = 64
"""Side of the pooled image in pixels."""
CHANNELS = (32, 64, 128, 256)
FEATURES = 4096
HIDDEN = 128
SLOPE = 0.2
DROPOUT = 0.5
EXPLORATION = 0.05
"""Share of the selection that is uniform over the modules."""
N_COUNTERS = 3
"""Numbers of a status before the flags of used modules: reward, stopped, step."""
N_STATISTICS = 3

NOISE_SCALE = math.sqrt(math.pi / 2) / 6
"""Factor from the mean absolute Laplacian difference to the deviation of Gaussian noise. Source: Immerkær 1996."""

LEAST_LIGHT = 2.0**-12
N_LOG_PLANES = 6
"""Number of planes that the observation "log" has in addition to those of "linear"."""

ObservationPlanes = Float[Tensor, "batch channels 64 64"]
ObservationKind = Literal["linear", "log"]


def observe(state: State, kind: ObservationKind = "linear") -> ObservationPlanes:
    """The actor's observation: the image pooled to 64x64, then the status numbers as constant planes.

    Args:
        state: images and their status.
        kind: "linear" as in the paper. "log" adds, between image and status, the logarithm of the pooled image and
            three constant planes: mean and standard deviation of its log-luminance, and the logarithm of the noise.
            Pooling averages noise away; without the last plane a network could not tell a noisy image from a clean one.
    """
    work = _log_view if kind == "log" else _linear_view
    return SHARED.run(f"observe {kind}", work, state.image, state.status)[0]


def _linear_view(image: Image, status: Tensor) -> tuple[ObservationPlanes]:
    return (torch.cat([pool(image), _planes(status)], dim=1),)


def _log_view(image: Image, status: Tensor) -> tuple[ObservationPlanes]:
    pooled = pool(image)
    logarithm = log_light(pooled)
    luminance = weighted_channel(logarithm, LUMA)
    numbers = [luminance.mean(dim=(1, 2, 3)), luminance.std(dim=(1, 2, 3)), log_light(noise_level(image))]
    return (torch.cat([pooled, logarithm, _planes(torch.stack(numbers, dim=1)), _planes(status)], dim=1),)


def pool(image: Image) -> Float[Tensor, "batch 3 64 64"]:
    """The means of the image in a grid of 64x64 cells."""
    if kernel := find("pool", image):
        return kernel(image, VIEW)  # type: ignore[no-any-return]
    if not takes(image) or image.shape[2] % VIEW or image.shape[3] % VIEW:
        return F.adaptive_avg_pool2d(image, VIEW)
    pooled: Tensor = _EvenPool.apply(image)  # type: ignore[no-untyped-call]
    return pooled


class _EvenPool(torch.autograd.Function):
    """`pool` of images whose sides are multiples of `VIEW`: a pixel has the gradient of its cell over the cell's size.

    The backward pass of PyTorch's pooling takes three times as long, because it converts to channels last.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        ctx.cell = image.shape[2] // VIEW, image.shape[3] // VIEW
        return pool(image.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.cell
        share: Tensor = gradient.contiguous()[:, :, :, None, :, None] / (height * width)
        return share.expand(-1, -1, -1, height, -1, width).reshape(*gradient.shape[:2], height * VIEW, width * VIEW)


def noise_level(image: Image) -> Float[Tensor, " batch"]:
    """Estimated deviation of Gaussian noise, from the mean absolute Laplacian difference of the luminance.

    Source: Immerkær 1996, "Fast Noise Variance Estimation".
    """
    if min(image.shape[2:]) < 3:
        return image.new_zeros(image.shape[0])
    if kernel := find("laplacian", image):
        return kernel(image) * NOISE_SCALE  # type: ignore[no-any-return]
    luminance = weighted_channel(image, LUMA)
    # Differences instead of a convolution: a GPU may round the inputs of a convolution to 10 bits, which adds noise.
    down = luminance[:, :, :-2] - 2 * luminance[:, :, 1:-1] + luminance[:, :, 2:]
    response = (down[..., :-2] - 2 * down[..., 1:-1] + down[..., 2:]).abs().mean(dim=(1, 2, 3))
    return response * NOISE_SCALE


def pool_and_noise(image: Image) -> tuple[Float[Tensor, "batch 3 64 64"], Float[Tensor, " batch"]]:
    """`pool` and `noise_level`; the kernels read the image once for both."""
    if kernel := find("pool_and_laplacian", image):
        pooled, response = kernel(image, VIEW)
        return pooled, response * NOISE_SCALE
    pooled, noise = SHARED.run("pool and noise", lambda image: (pool(image), noise_level(image)), image)
    return pooled, noise


def log_light(values: Tensor) -> Tensor:
    """Logarithm to base 2, mapped so that 2^-12, the smallest step of a 12-bit sensor, becomes -1 and 1 becomes 1."""
    return (values.clamp(min=0) + LEAST_LIGHT).log2() / 6 + 1


def observe_for_critic(view: ObservationPlanes) -> Float[Tensor, "batch more 64 64"]:
    """The actor's observation with three more constant planes, which hold statistics of the pooled image.

    The statistics are the mean of L + 1e-5, the (unbiased) variance of L, and the mean saturation
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


def n_channels(n_modules: int, view: ObservationKind) -> int:
    """Number of channels of the actor's observation.

    >>> n_channels(10, "linear"), n_channels(10, "log")
    (16, 22)
    """
    return 3 + N_COUNTERS + n_modules + (N_LOG_PLANES if view == "log" else 0)


class Encoder(nn.Module):
    """64x64 observation → 4096 features: four convolutions 4x4 stride 2 with batch norm and leaky ReLU."""

    def __init__(self, in_channels: int, dropout: float = 0.0):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
        # With channels last, PyTorch's convolutions take half the time forward and the same time backward.
        self.layers = nn.Sequential(*layers)
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dropout = nn.Dropout(dropout)

    def forward(self, view: Float[Tensor, "batch channels 64 64"]) -> Float[Tensor, "batch 4096"]:
        """Features, flattened channel by channel, row by row."""
        features: Tensor = self.dropout(self.layers(view.contiguous(memory_format=torch.channels_last)).flatten(1))
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


class ActorOutput(NamedTuple):
    """The output of the actor for a batch.

    Attributes:
        probs: probability of each module, in the order of action ids.
        params: physical parameters of each module, by name.
        logits: logits of the softmax in `probs`; -inf for modules that must not be chosen.
    """

    probs: Float[Tensor, "batch n_modules"]
    params: Mapping[str, Float[Tensor, "batch _"]]
    logits: Float[Tensor, "batch n_modules"]


def ruled_out(used: Float[Tensor, "batch n_modules"], modules: Sequence[IspModule]) -> Bool[Tensor, "batch n_modules"]:
    """The modules that must not be chosen again if each may run at most once: those that ran, except `STOP`.

    Where every action would be ruled out, none is.

    Args:
        used: 1 where a module ran before, in the order of action ids.
        modules: the modules in the same order.
    """
    again = torch.tensor([module is STOP for module in modules], device=used.device)
    closed = (used > 0) & ~again
    return closed & ~closed.all(dim=1, keepdim=True)


def probabilities(logits: Float[Tensor, "batch n_modules"]) -> Float[Tensor, "batch n_modules"]:
    """Softmax over the legal modules, mixed with 5 % of the uniform distribution over them.

    Modules are ruled out by a logit of -inf before the softmax, so that the others keep the proportions that their own
    logits give.

    >>> probabilities(torch.tensor([[-math.inf, 0.0]])).tolist()
    [[0.0, 1.0]]
    """
    open_modules = logits > -math.inf
    uniform = open_modules / open_modules.sum(dim=1, keepdim=True)
    return (1 - EXPLORATION) * logits.softmax(dim=1) + EXPLORATION * uniform


class Actor(nn.Module):
    """Module probabilities and the parameters of every module, from two encoders.

    Args:
        modules: the module set, in the order of action ids.
        dropout: dropout of both encoders in training.
        view: kind of observation, see `observe`.
    """

    def __init__(self, modules: Sequence[IspModule], dropout: float = DROPOUT, view: ObservationKind = "linear"):
        super().__init__()
        self.modules_in_order = tuple(modules)
        channels = n_channels(len(modules), view)
        self.parameter_encoder = Encoder(channels, dropout)
        self.selection_encoder = Encoder(channels, dropout)
        self.parameter_heads = nn.ModuleDict({m.name: Head(len(m.params)) for m in modules if m.params})
        self.selection_head = Head(len(modules))

    @property
    def selects(self) -> list[nn.Parameter]:
        """The weights that choose the module."""
        return [p for name, p in self.named_parameters() if name.startswith("selection")]

    @property
    def sets_parameters(self) -> list[nn.Parameter]:
        """The weights that set the modules' parameters."""
        return [p for name, p in self.named_parameters() if not name.startswith("selection")]

    @property
    def constants(self) -> list[nn.Parameter]:
        """The last biases of the parameter heads, which are the same for every image."""
        return [p for name, p in self.named_parameters() if name.startswith("parameter_heads") and "fc2.bias" in name]

    def forward(
        self,
        view: Float[Tensor, "batch channels 64 64"],
        closed: Bool[Tensor, "batch n_modules"] | None = None,
        temperature: float = 1.0,
    ) -> ActorOutput:
        """Probabilities of the modules that are not in `closed`, and physical parameters of all modules."""
        view = view.contiguous(memory_format=torch.channels_last)  # converted once for both encoders
        logits = self.selection_head(self.selection_encoder(view)) / temperature
        if closed is not None:
            logits = logits.masked_fill(closed, -math.inf)
        params = _WhenAsked(self.modules_in_order, self.parameter_heads, self.parameter_encoder(view))
        return ActorOutput(probabilities(logits), params, logits)


class _WhenAsked(Mapping[str, Tensor]):
    """Parameters of each module by name, computed at the first access.

    A step runs one module of each image. Each of the other heads would read 2 MB of weights for unused results.
    """

    def __init__(self, modules: Sequence[IspModule], heads: nn.ModuleDict, features: Float[Tensor, "batch 4096"]):
        self.modules = {module.name: module for module in modules}
        self.heads, self.features = heads, features
        self.known: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.known:
            module = self.modules[name]
            empty = self.features.new_zeros(len(self.features), 0)
            self.known[name] = module.params_from_logits(self.heads[name](self.features)) if module.params else empty
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)


class Critic(nn.Module):
    """Value of a state: the expected sum of the rewards that follow.

    Args:
        n_modules: size of the module set.
        view: kind of observation of the actor, see `observe`.
    """

    def __init__(self, n_modules: int, view: ObservationKind = "linear"):
        super().__init__()
        self.encoder = Encoder(n_channels(n_modules, view) + N_STATISTICS)
        self.head = Head(1)

    def forward(self, view: Float[Tensor, "batch channels 64 64"]) -> Float[Tensor, " batch"]:
        """Value of the actor's observation; the statistics are added to it here."""
        value: Tensor = self.head(self.encoder(observe_for_critic(view)))[:, 0]
        return value


@torch.no_grad()
def calibrate(network: nn.Module, views: ObservationPlanes) -> None:
    """Sets the statistics of batch norm to those of these observations.

    With fixed statistics the output for an image does not depend on the rest of its batch, and training and inference
    give the same output. The mean brightness and noise of a batch of eight are mostly chance.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    network.train()
    network(views)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def to_training(network: nn.Module, fixed_statistics: bool) -> None:
    """Puts a network into training mode; with `fixed_statistics` its batch norm keeps the calibrated statistics."""
    network.train()
    if fixed_statistics:
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()


@torch.no_grad()
def start_neutral(actor: Actor, shrink: float = 0.1) -> None:
    """Sets the parameter heads so that every module starts near its neutral parameters for any image.

    The last weights of a head are scaled by `shrink`, and its biases give the neutral value of each parameter. Values
    are kept 2 % of the range away from its ends, where the mapping to parameters has no slope.
    """
    for module in actor.modules_in_order:
        if module.params:
            last = actor.parameter_heads[module.name].fc2
            assert isinstance(last, nn.Linear)
            last.weight.mul_(shrink)
            last.bias.copy_(torch.tensor(module.logits_from_params(module.neutral_params)))

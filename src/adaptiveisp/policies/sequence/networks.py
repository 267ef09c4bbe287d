"""The sequence policy's network: one observation of the image gives the whole pipeline and all parameters.

Two heads read one small embedding of the image. The parameter head gives the parameters of all modules at once. The
sequence head chooses the modules one after the other, each depending on those before it, until it chooses `STOP`; a
module runs at most once. A setting decides whether the sequence depends on the image.

Source: Won et al. 2026 (POS-ISP) for the two heads and their outputs. Differs: there one sequence serves all images.
Here the observation has numbers beside the pooled planes (see `Observation`), and the recurrent state starts from them.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Stage
from adaptiveisp.kernels.cuda_graphs import SHARED
from adaptiveisp.kernels.registry import find
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import STOP, apply_chosen
from adaptiveisp.policies.preprocessing import preprocessing_of_observation, rendered_stages
from adaptiveisp.policies.sampling import sample_actions
from adaptiveisp.policies.stepwise.networks import LEAST_LIGHT, SLOPE, log_light, pool_and_noise
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch, timed
from adaptiveisp.utils.color import LUMA, weighted_channel

Condition = Literal["image", "none"]
CONDITIONS: tuple[Condition, ...] = ("image", "none")
CHANNELS = (16, 32, 64)
FEATURES = 2 * CHANNELS[-1]
HIDDEN = 128
TOKEN = 32
"""Length of the vector that represents a module in the sequence head."""
BINS = 16
"""Bins of the histogram of log-luminance."""
N_PLANES = 6
N_SCALARS = 7
"""Numbers of an observation after the histogram; linear functions of these are added to parameters and choices."""
N_NUMBERS = BINS + N_SCALARS
CLIPPED = 0.98
"""A channel above this counts as clipped."""
DOUBT = 0.1
"""Label smoothing of the imitation over the legal actions, so that the other actions are still explored."""

Embedding = Float[Tensor, "batch features"]
Actions = Int[Tensor, "batch length"]
"""Action ids in the order they run; from the first `STOP` on all are `STOP`."""


class Observation(NamedTuple):
    """The input of the network for each image, and the preprocessed images.

    Attributes:
        planes: three planes of the preprocessed image pooled to 64x64, scaled to [-1, 1], then three of the logarithm
            of the image before the preprocessing, pooled to 64x64, in [-1, 1].
        numbers: histogram of the pooled image's log-luminance (shares), its mean and deviation, the share of clipped
            pixels, the logarithm of the noise before and after the preprocessing, the gain of the preprocessing, and
            its gain of red minus that of blue.
        prefix: stages of the preprocessing of each image.
        preprocessed: the images after these stages; the policy's own modules continue from them.
    """

    planes: Float[Tensor, "batch 6 64 64"]
    numbers: Float[Tensor, "batch n_numbers"]
    prefix: list[tuple[Stage, ...]]
    preprocessed: Image


@torch.no_grad()
def observe(
    image: Image,
    start: Preprocessing,
    module_set: str = "extended",
    preprocessed: Image | None = None,
    *,
    stopwatch: Stopwatch | None = None,
) -> Observation:
    """The observation of developed images.

    Args:
        image: developed images, linear RGB in [0, 1].
        start: heuristic of the preprocessing.
        module_set: named set whose parameter ranges the stages of the preprocessing keep.
        preprocessed: the images after the preprocessing, if the caller has them already.
        stopwatch: measures the preprocessing as the part "modules".
    """
    pooled, before = pool_and_noise(image)
    prefix = preprocessing_of_observation(pooled, start)
    if preprocessed is None:
        with timed(stopwatch, "modules"):
            preprocessed = rendered_stages(image, prefix, module_set) if start != "raw" else image
    exposed, after = pool_and_noise(preprocessed) if start != "raw" else (pooled, before)
    if kernel := find("light", pooled, exposed):
        planes, light = kernel(pooled, exposed, CLIPPED)
    else:
        planes, light = SHARED.run("light", _light, pooled, exposed)
    rest = [
        (*(math.log2(max(noise, 0.0) + LEAST_LIGHT) / 6 + 1 for noise in noises), green / 4 - 1, red - blue)
        for *noises, (red, green, blue) in zip(before.tolist(), after.tolist(), map(_log_gains, prefix), strict=True)
    ]
    return Observation(planes, torch.cat([light, light.new_tensor(rest)], dim=1), prefix, preprocessed)


def _light(
    pooled: Float[Tensor, "batch 3 64 64"], exposed: Float[Tensor, "batch 3 64 64"]
) -> tuple[Float[Tensor, "batch 6 64 64"], Float[Tensor, "batch n_light"]]:
    """The kernel `light` in PyTorch: the planes, and histogram, mean, deviation and clipped share of log-luminance."""
    logarithm = log_light(pooled)
    luminance = weighted_channel(logarithm, LUMA).flatten(1)
    place = ((luminance + 1) / 2 * BINS).long().clamp(0, BINS - 1)
    histogram = luminance.new_zeros(len(pooled), BINS).scatter_add_(1, place, torch.ones_like(luminance))
    clipped = (pooled.amax(dim=1) > CLIPPED).to(luminance.dtype).mean(dim=(1, 2))
    rest = torch.stack([luminance.mean(dim=1), luminance.std(dim=1), clipped], dim=1)
    planes = torch.cat([2 * exposed - 1, logarithm], dim=1)
    return planes, torch.cat([histogram / luminance.shape[1], rest], dim=1)


def _log_gains(stages: Sequence[Stage]) -> list[float]:
    """Stops by which the stages of the preprocessing raise red, green and blue."""
    stops = [0.0, 0.0, 0.0]
    for stage in stages:
        if stage.module in ("white_balance", "gain"):
            stops = [s + math.log2(stage.params[name]) for s, name in zip(stops, ("red", "green", "blue"), strict=True)]
        if stage.module == "exposure":
            stops = [s + stage.params["ev"] for s in stops]
    return stops


class SequenceNetwork(nn.Module):
    """Encoder, parameter head and sequence head.

    Args:
        modules: the modules to choose from, in the order of action ids; `STOP` is the last.
        condition: "image" starts the sequence from the image, "none" gives every image the same sequence.
        horizon: most modules of a sequence.
    """

    neutral: Tensor
    """Outputs z of the neutral parameters of all modules, to which the learned outputs are added."""

    def __init__(self, modules: Sequence[IspModule], condition: Condition, horizon: int):
        super().__init__()
        if not modules or modules[-1] is not STOP:
            raise ValueError("the last action must be stop")
        self.modules_in_order = tuple(modules)
        self.condition, self.horizon = condition, horizon
        layers: list[nn.Module] = []
        for before, after in zip((N_PLANES, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        self.encoder = nn.Sequential(*layers)
        self.widths = [len(module.params) for module in modules]
        self.parameter_trunk = nn.Sequential(
            *(nn.Linear(FEATURES + N_NUMBERS, HIDDEN), nn.LeakyReLU(SLOPE)),
            *(nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU(SLOPE)),
        )
        self.parameter_head = nn.Linear(HIDDEN, sum(self.widths), bias=False)
        # A linear part learns in few steps how a strength depends on noise or light.
        self.parameter_line = nn.Linear(N_SCALARS, sum(self.widths))
        neutral = [z for module in modules for z in module.logits_from_params(module.neutral_params)]
        self.register_buffer("neutral", torch.tensor(neutral), persistent=False)
        self.sequence_trunk = nn.Linear(FEATURES + N_NUMBERS, HIDDEN)
        self.sequence_start = nn.Parameter(torch.zeros(HIDDEN))
        self.sequence_tokens = nn.Embedding(len(modules) + 1, TOKEN)  # one more for the start of a sequence
        self.sequence_cell = nn.GRUCell(TOKEN, HIDDEN)
        self.sequence_head = nn.Linear(HIDDEN, len(modules))
        # A linear part suffices to choose a denoiser below some light, where it is worth its time.
        self.sequence_line = nn.Linear(N_SCALARS, len(modules), bias=False)
        with torch.no_grad():
            self.sequence_head.weight.zero_()  # all legal choices are equally likely at first
            self.sequence_head.bias.zero_()
            self.sequence_line.weight.zero_()
            self.parameter_head.weight.mul_(0.1)
            self.parameter_line.weight.zero_()
            self.parameter_line.bias.zero_()

    @property
    def chooses(self) -> list[nn.Parameter]:
        """The weights of the sequence head."""
        return [p for name, p in self.named_parameters() if name.startswith("sequence")]

    @property
    def sets_parameters(self) -> list[nn.Parameter]:
        """The weights that set parameters: encoder, parameter head and line."""
        return [p for name, p in self.named_parameters() if not name.startswith("sequence")]

    def embed(self, observation: Observation) -> Embedding:
        """The embedding of each image, which both heads read."""
        return self.encode(observation.planes, observation.numbers)[0]

    def encode(
        self, planes: Float[Tensor, "batch 6 64 64"], numbers: Float[Tensor, "batch n_numbers"]
    ) -> tuple[Embedding]:
        """`embed` from planes and numbers of the observation, as a tuple, which CUDA graphs need."""
        features = self.encoder(planes)
        return (torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3)), numbers], dim=1),)

    def logits(
        self, embedding: Embedding, dropout: float = 0.0, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch n_logits"]:
        """The unbounded outputs z that every module squashes into its parameters, module after module.

        Args:
            embedding: of the images.
            dropout: share of the last hidden layer that is dropped in training.
            generator: random generator of the dropout.
        """
        hidden = self.parameter_trunk(embedding)
        if dropout:
            kept = torch.rand(hidden.shape, generator=generator).to(hidden) >= dropout
            hidden = hidden * kept / (1 - dropout)
        line = self.neutral + self.parameter_line(embedding[:, -N_SCALARS:])
        logits: Tensor = self.parameter_head(hidden) + line
        return logits

    def params(self, logits: Float[Tensor, "batch n_logits"]) -> dict[str, Float[Tensor, "batch _"]]:
        """Physical parameters of every module by name, from the outputs of `logits`."""
        parts = torch.split(logits, self.widths, dim=1)
        return {m.name: m.params_from_logits(z) for m, z in zip(self.modules_in_order, parts, strict=True)}

    def begin(self, embedding: Embedding) -> Float[Tensor, "batch hidden"]:
        """The recurrent state before the first module; gradients of the sequence head do not reach the encoder."""
        state = self.sequence_start.expand(len(embedding), -1)
        return torch.tanh(self.sequence_trunk(embedding.detach()) + state if self.condition == "image" else state)

    def wanted(self, embedding: Embedding) -> Float[Tensor, "batch n_modules"]:
        """The linear part of each module's logit, which is the same at every place of the sequence."""
        if self.condition == "none":
            return embedding.new_zeros(len(embedding), len(self.modules_in_order))
        wanted: Tensor = self.sequence_line(embedding.detach()[:, -N_SCALARS:])
        return wanted

    def step(
        self,
        state: Float[Tensor, "batch hidden"],
        last: Int[Tensor, " batch"],
        used: Float[Tensor, "batch n_modules"],
        wanted: Float[Tensor, "batch n_modules"],
    ) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch n_modules"]]:
        """The next state, and the logits of the next action; -inf for modules that ran."""
        state = self.sequence_cell(self.sequence_tokens(last), state)
        return state, (self.sequence_head(state) + wanted).masked_fill(used > 0, -math.inf)

    def sample(self, embedding: Embedding, generator: torch.Generator | None, temperature: float = 1.0) -> Actions:
        """A random sequence for each image, or the likeliest action at each place if there is no generator."""
        stop, n = len(self.modules_in_order) - 1, len(embedding)
        state, used, wanted = self.begin(embedding), embedding.new_zeros(n, stop + 1), self.wanted(embedding)
        last = torch.full((n,), stop + 1, device=embedding.device)
        taken = []
        going = torch.ones(n, dtype=torch.bool, device=embedding.device)
        for _ in range(self.horizon):
            state, logits = self.step(state, last, used, wanted)
            if generator is None:
                chosen = logits.argmax(dim=1)
            else:
                chosen = sample_actions((logits / temperature).softmax(dim=1), generator)
            last = torch.where(going, chosen, stop)
            going = last != stop
            taken.append(last)
            if not going.any():
                break
            used = used.scatter(1, last[:, None], 1.0)
            used[:, stop] = 0.0
        rest = [torch.full_like(last, stop)] * (self.horizon - len(taken))
        return torch.stack(taken + rest, dim=1)

    def log_probs(
        self, embedding: Embedding, actions: Actions, temperature: float = 1.0
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """ln π of given sequences, the mean entropy of their choices, and their imitation loss (mean over choices).

        Args:
            embedding: of the images.
            actions: one sequence for each image.
            temperature: temperature of the softmax.
        """
        stop = len(self.modules_in_order) - 1
        state, used = self.begin(embedding), embedding.new_zeros(len(embedding), stop + 1)
        wanted = self.wanted(embedding)
        last = torch.full_like(actions[:, 0], stop + 1)
        going = torch.ones_like(embedding[:, 0])
        total, entropy, imitation, count = (torch.zeros_like(going) for _ in range(4))
        for chosen in actions.unbind(dim=1):
            state, logits = self.step(state, last, used, wanted)
            # The logarithm of an illegal action is set to 0, so that gradients do not contain 0 times infinity.
            logs = (logits / temperature).log_softmax(dim=1).masked_fill(used > 0, 0.0)
            probs = logs.exp() * (used == 0)
            taken = logs.gather(1, chosen[:, None])[:, 0]
            total = total + going * taken
            entropy = entropy - going * (probs * logs).sum(dim=1)
            others = logs.sum(dim=1) / (used == 0).sum(dim=1)
            imitation = imitation - going * ((1 - DOUBT) * taken + DOUBT * others)
            count = count + going
            going = going * (chosen != stop)
            used = used.scatter(1, chosen[:, None], 1.0)
            used[:, stop] = 0.0
            last = chosen
        return total, entropy / count, imitation / count


def run_sequences(
    image: Image,
    modules: Sequence[IspModule],
    actions: Actions,
    params: dict[str, Float[Tensor, "batch _"]],
    frames: Sequence[RawFrame] | None = None,
) -> Image:
    """Each image after its own modules; differentiable with respect to the parameters of those that run.

    Args:
        image: preprocessed images.
        modules: the modules in the order of action ids, `STOP` last.
        actions: a sequence for each image.
        params: parameters of every module for every image, by name.
        frames: the raw of each image, for external ISPs among the modules.
    """
    stop = len(modules) - 1
    for chosen in actions.unbind(dim=1):
        if bool((chosen == stop).all()):
            break
        image = apply_chosen(image, modules, chosen, params, frames)
    return image

"""The sequence policy at work: one look, the likeliest sequence, every module's parameters at once."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.kernels import forward as native
from adaptiveisp.kernels import observation as native_look
from adaptiveisp.kernels.cuda_graphs import Recordings
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.checkpoint import PolicyHeader, load_sequence_file
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.sequence.networks import CHANNELS, N_SCALARS, Observation, SequenceNetwork, observe
from adaptiveisp.policies.stepwise.networks import SLOPE
from adaptiveisp.types import Image


@dataclass(frozen=True)
class SequencePolicy:
    """A network that looks at the image once.

    Attributes:
        header: module set, order of action ids, start and condition.
        network: the network.
        name: short name for tables.
        steps: at most so many modules after the start's; 0 keeps the header's horizon.
    """

    header: PolicyHeader
    network: SequenceNetwork = field(repr=False)
    name: str = "sequence"
    steps: int = 0

    @cached_property
    def frozen(self) -> "SequenceInference":
        """The network for use, as it was when it was first asked: later training does not reach it."""
        return SequenceInference(self.network)

    @property
    def start(self) -> Preprocessing:
        """What comes before its modules."""
        return self.header.start

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules it may choose."""
        return tuple(name for name in self.header.modules if name != STOP.name)

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the start's stages, then the likeliest modules with the network's parameters."""
        return self.planned(image, None)[0]

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The start's stages, then these modules with the network's parameters."""
        return self.planned(image, [self.header.modules.index(name) for name in modules])[0]

    @torch.inference_mode()
    def process(self, image: Image, forced: Sequence[int] | None = None) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; the start's stages, which the policy looks at, run once.

        Args:
            image: developed images, linear RGB in [0, 1].
            forced: action ids to take instead of the likeliest ones.
        """
        plans, seen = self.planned(image, forced)
        done = len(seen.first[0])
        made = [
            run_one(picture, plan.calls[done:], owned=self.header.start != "raw")
            for picture, plan in zip(seen.begun, plans, strict=True)
        ]
        return plans, made[0][None] if len(made) == 1 else torch.stack(made)

    @torch.inference_mode()
    def planned(
        self, image: Image, forced: Sequence[int] | None = None, begun: Image | None = None
    ) -> tuple[list[Pipeline], Observation]:
        """The pipelines, and what was seen.

        Args:
            image, forced: as for `process`.
            begun: the images after the start's stages, where they are at hand.
        """
        seen = observe(image, self.header.start, self.header.module_set, begun)
        found = []
        for first, embedding in zip(seen.first, self.frozen.embed(seen), strict=True):
            order = self.frozen.sequence(embedding) if forced is None else list(forced)
            if forced is None and self.steps:
                order = order[: self.steps]
            found.append(Pipeline((*first, *self.frozen.stages(embedding, order)), self.header.module_set))
        return found, seen


Vector = NDArray[np.float32]


class SequenceInference:
    """What a `SequenceNetwork` says of one image after the other, sooner.

    For one image the heads are a few products of small matrices: in NumPy a call of those takes a tenth of PyTorch's
    time. Only the parameters of the modules that are chosen are worked out.

    Args:
        network: its weights are taken over as they are now.
    """

    def __init__(self, network: SequenceNetwork):
        self.network = copy.deepcopy(network).eval()
        self.recordings = Recordings()
        self.modules, self.horizon = network.modules_in_order, network.horizon
        ours = {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        layers = [f"encoder.{2 * i}" for i in range(len(CHANNELS))]
        self.encoder = native_look.Encoder([(ours[f"{name}.weight"], ours[f"{name}.bias"]) for name in layers], SLOPE)
        self.trunk = [(ours[f"parameter_trunk.{i}.weight"], ours[f"parameter_trunk.{i}.bias"]) for i in (0, 2)]
        self.head = ours["parameter_head.weight"]
        neutral = self.network.neutral.cpu().numpy()
        self.line = ours["parameter_line.weight"], ours["parameter_line.bias"] + neutral
        self.begin = ours["sequence_trunk.weight"], ours["sequence_trunk.bias"], ours["sequence_start"]
        # What a module adds to the gates depends on nothing else: one row for each.
        self.tokens = ours["sequence_tokens.weight"] @ ours["sequence_cell.weight_ih"].T + ours["sequence_cell.bias_ih"]
        self.recurrent = ours["sequence_cell.weight_hh"], ours["sequence_cell.bias_hh"]
        self.choice = ours["sequence_head.weight"], ours["sequence_head.bias"]
        self.choice_line = ours["sequence_line.weight"] * (network.condition == "image")
        ends = list(itertools.accumulate(network.widths))
        self.columns = dict(zip((m.name for m in self.modules), zip([0, *ends], ends, strict=False), strict=True))

    @torch.no_grad()
    def embed(self, seen: Observation) -> Vector:
        """The encoding of each image, one a row."""
        if native.takes(seen.view, seen.numbers):
            features = np.stack([self.encoder(view) for view in seen.view])
            return np.concatenate([features, seen.numbers.numpy()], axis=1)
        (embedding,) = self.recordings.run("encode", self.network.encode, seen.view, seen.numbers)
        rows: Vector = embedding.cpu().numpy()
        return rows

    def sequence(self, embedding: Vector) -> list[int]:
        """Action ids of the likeliest modules, without the stop."""
        stop = len(self.modules) - 1
        weight, offset, constant = self.begin
        start = weight @ embedding + offset + constant if self.network.condition == "image" else constant
        state, order, last = np.tanh(start), [], stop + 1
        bias = self.choice[1] + self.choice_line @ embedding[-N_SCALARS:]  # a module that ran: -inf
        for _ in range(self.horizon):
            state = self._cell(self.tokens[last], state)
            last = int(np.argmax(self.choice[0] @ state + bias))
            if last == stop:
                break
            order.append(last)
            bias[last] = -np.inf
        return order

    def _cell(self, given: Vector, state: Vector) -> Vector:
        """One step of a gated recurrent unit (Cho et al. 2014, as PyTorch lays it out: reset, update, new)."""
        own = self.recurrent[0] @ state + self.recurrent[1]
        n = len(state)
        gates = 1 / (1 + np.exp(-(given[: 2 * n] + own[: 2 * n])))
        new = np.tanh(given[2 * n :] + gates[:n] * own[2 * n :])
        result: Vector = new + gates[n:] * (state - new)
        return result

    def stages(self, embedding: Vector, order: Sequence[int]) -> list[Stage]:
        """These modules with the network's parameters."""
        hidden = embedding
        for weight, bias in self.trunk:
            linear = weight @ hidden + bias
            hidden = np.maximum(linear, SLOPE * linear)
        found = []
        for module in (self.modules[index] for index in order):
            first, end = self.columns[module.name]
            line = self.line[0][first:end] @ embedding[-N_SCALARS:] + self.line[1][first:end]
            logits = self.head[first:end] @ hidden + line
            row = _values(module, logits)
            found.append(Stage(module.name, dict(zip((p.name for p in module.params), row, strict=True))))
        return found


def _values(module: IspModule, logits: Vector) -> list[float]:
    """Physical parameters of one module; where each is squashed by itself, without the small tensors."""
    if module.head is not None:
        return list(module.params_from_logits(torch.from_numpy(logits)[None])[0].tolist())
    return [param.value(z) for param, z in zip(module.params, logits.tolist(), strict=True)]


def load_sequence(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> SequencePolicy:
    """The policy in a file made by training.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the network runs.
        steps: at most so many modules; 0 keeps the file's horizon.

    Raises:
        WeightsError: the file is missing, damaged or no sequence policy.
    """
    header, network = load_sequence_file(path)
    return SequencePolicy(header, network.to(device), name or Path(path).stem, steps)

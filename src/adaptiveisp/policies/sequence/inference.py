"""Inference of the sequence network for one image after the other, in NumPy and by the kernels.

The networks here hold weights without gradients. Their outputs equal those of `SequenceNetwork` up to rounding.
"""

import copy
import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Stage
from adaptiveisp.kernels.cuda_graphs import Recordings
from adaptiveisp.kernels.observation import Encoder
from adaptiveisp.kernels.registry import find
from adaptiveisp.policies.sequence.networks import CHANNELS, N_SCALARS, Observation, SequenceNetwork
from adaptiveisp.policies.stepwise.networks import SLOPE

Vector = NDArray[np.float32]


class SequenceInference:
    """A `SequenceNetwork` for inference: only the parameters of the chosen modules are computed.

    For one image the heads are a few products of small matrices, and a product in NumPy takes a tenth of the time that
    a call of PyTorch takes.

    Args:
        network: its weights are copied; later training does not change them here.
    """

    def __init__(self, network: SequenceNetwork):
        self.network = copy.deepcopy(network).eval()
        self.recordings = Recordings()
        self.modules, self.horizon = network.modules_in_order, network.horizon
        ours = {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        layers = [f"encoder.{2 * i}" for i in range(len(CHANNELS))]
        self.encoder = Encoder([(ours[f"{name}.weight"], ours[f"{name}.bias"]) for name in layers], SLOPE)
        self.trunk = [(ours[f"parameter_trunk.{i}.weight"], ours[f"parameter_trunk.{i}.bias"]) for i in (0, 2)]
        self.head = ours["parameter_head.weight"]
        neutral = self.network.neutral.cpu().numpy()
        self.line = ours["parameter_line.weight"], ours["parameter_line.bias"] + neutral
        self.begin = ours["sequence_trunk.weight"], ours["sequence_trunk.bias"], ours["sequence_start"]
        # A module adds the same numbers to the gates wherever it stands in a sequence: one row for each module.
        self.tokens = ours["sequence_tokens.weight"] @ ours["sequence_cell.weight_ih"].T + ours["sequence_cell.bias_ih"]
        self.recurrent = ours["sequence_cell.weight_hh"], ours["sequence_cell.bias_hh"]
        self.choice = ours["sequence_head.weight"], ours["sequence_head.bias"]
        self.choice_line = ours["sequence_line.weight"] * (network.condition == "image")
        ends = list(itertools.accumulate(network.widths))
        self.columns = dict(zip((m.name for m in self.modules), zip([0, *ends], ends, strict=False), strict=True))

    @torch.no_grad()
    def embed(self, observation: Observation) -> Vector:
        """The embedding of each image, one row for each."""
        planes, numbers = observation.planes, observation.numbers
        if encode := find("encode", planes, numbers):
            features = np.stack([encode(self.encoder, one) for one in planes])
            return np.concatenate([features, numbers.numpy()], axis=1)
        (embedding,) = self.recordings.run("encode", self.network.encode, planes, numbers)
        rows: Vector = embedding.cpu().numpy()
        return rows

    def sequence(self, embedding: Vector) -> list[int]:
        """Action ids of the likeliest modules in their order, without `STOP`.

        Args:
            embedding: of one image, a row of `embed`.
        """
        stop = len(self.modules) - 1
        weight, offset, constant = self.begin
        start = weight @ embedding + offset + constant if self.network.condition == "image" else constant
        state, order, last = np.tanh(start), [], stop + 1
        bias = self.choice[1] + self.choice_line @ embedding[-N_SCALARS:]  # -inf for modules that ran
        for _ in range(self.horizon):
            state = self._cell(self.tokens[last], state)
            last = int(np.argmax(self.choice[0] @ state + bias))
            if last == stop:
                break
            order.append(last)
            bias[last] = -np.inf
        return order

    def log_likelihoods(self, embedding: Vector, orders: Sequence[Sequence[int]]) -> list[float]:
        """ln π of each of some sequences, the choice to stop included, at temperature 1.

        The sequences run through the recurrent unit together, which takes about as long as one of them alone.

        Args:
            embedding: of one image, a row of `embed`.
            orders: action ids without `STOP`, each at most once and at most `horizon` of them.
        """
        stop, n = len(self.modules) - 1, len(orders)
        weight, offset, constant = self.begin
        start = weight @ embedding + offset + constant if self.network.condition == "image" else constant
        state = np.repeat(np.tanh(start)[None], n, axis=0)
        bias = np.repeat((self.choice[1] + self.choice_line @ embedding[-N_SCALARS:])[None], n, axis=0)
        last, rows, found = np.full(n, stop + 1), np.arange(n), np.zeros(n)
        for step in range(min(self.horizon, 1 + max(map(len, orders), default=0))):
            state = self._cells(self.tokens[last], state)
            logits = state @ self.choice[0].T + bias
            top = logits.max(axis=1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            last = np.array([order[step] if step < len(order) else stop for order in orders])
            going = np.array([step <= len(order) for order in orders])  # after the stop nothing is chosen
            found += np.where(going, logits[rows, last] - total, 0.0)
            chose = last != stop
            bias[rows[chose], last[chose]] = -np.inf
        likelihoods: list[float] = found.tolist()
        return likelihoods

    def _cells(self, tokens: Vector, states: Vector) -> Vector:
        """`_cell` for a row of each sequence."""
        recurrent = states @ self.recurrent[0].T + self.recurrent[1]
        n = states.shape[1]
        gates = 1 / (1 + np.exp(-(tokens[:, : 2 * n] + recurrent[:, : 2 * n])))
        new = np.tanh(tokens[:, 2 * n :] + gates[:, :n] * recurrent[:, 2 * n :])
        result: Vector = new + gates[:, n:] * (states - new)
        return result

    def _cell(self, token: Vector, state: Vector) -> Vector:
        """One step of a gated recurrent unit (Cho et al. 2014, as PyTorch lays it out: reset, update, new)."""
        recurrent = self.recurrent[0] @ state + self.recurrent[1]
        n = len(state)
        gates = 1 / (1 + np.exp(-(token[: 2 * n] + recurrent[: 2 * n])))
        new = np.tanh(token[2 * n :] + gates[:n] * recurrent[2 * n :])
        result: Vector = new + gates[n:] * (state - new)
        return result

    def stages(self, embedding: Vector, order: Sequence[int]) -> list[Stage]:
        """These modules with the network's parameters.

        Args:
            embedding: of one image, a row of `embed`.
            order: action ids.
        """
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
    """Physical parameters of one module. A module without a `head` of its own needs no tensors for them."""
    if module.head is not None:
        return list(module.params_from_logits(torch.from_numpy(logits)[None])[0].tolist())
    return [param.value(z) for param, z in zip(module.params, logits.tolist(), strict=True)]

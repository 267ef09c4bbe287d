"""The sequence policy at work: one look, the likeliest sequence, every module's parameters at once."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch

from adaptiveisp.checkpoint import PolicyHeader, load_sequence_file
from adaptiveisp.environment import STOP
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.sequence_networks import SequenceNetwork, look
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
    def frozen(self) -> SequenceNetwork:
        """The network as it was when it was first asked: later training does not reach it."""
        return copy.deepcopy(self.network).eval()

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules it may choose."""
        return tuple(name for name in self.header.modules if name != STOP.name)

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the start's stages, then the likeliest modules with the network's parameters."""
        return self._plan(image, None)

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The start's stages, then these modules with the network's parameters."""
        return self._plan(image, [self.header.modules.index(name) for name in modules])

    @torch.inference_mode()
    def _plan(self, image: Image, forced: Sequence[int] | None) -> list[Pipeline]:
        network = self.frozen
        modules, stop = network.modules_in_order, len(network.modules_in_order) - 1
        seen = look(image, self.header.start)
        embedding = network.embed(seen)
        params = {name: values.tolist() for name, values in network.params(embedding).items()}
        actions = [list(forced)] * len(image) if forced is not None else network.sample(embedding, None).tolist()
        found = []
        for i, (first, row) in enumerate(zip(seen.first, actions, strict=True)):
            chosen = [modules[index] for index in row if index != stop]
            if forced is None and self.steps:
                chosen = chosen[: self.steps]
            own = [Stage(m.name, dict(zip((p.name for p in m.params), params[m.name][i], strict=True))) for m in chosen]
            found.append(Pipeline((*first, *own), self.header.module_set))
        return found


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

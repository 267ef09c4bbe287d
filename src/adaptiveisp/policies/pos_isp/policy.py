"""The policy in an imported POS-ISP file: all parameters from one look at the image, modules in one order."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import POS_ISP
from adaptiveisp.policies.base import Policy, Preprocessing, Shortener
from adaptiveisp.policies.checkpoint import PolicyHeader
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE
from adaptiveisp.policies.pos_isp.checkpoint import load_pos_isp_file
from adaptiveisp.policies.pos_isp.networks import PosIspNetwork
from adaptiveisp.policies.preprocessing import preprocessing_of_observation
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch, timed


@dataclass(frozen=True)
class PosIspPolicy(Policy):
    """A released POS-ISP policy.

    Attributes:
        header: preprocessing and provenance.
        network: the networks.
        name: short name for tables.
        steps: most modules after the preprocessing; 0 takes the whole sequence.
    """

    header: PolicyHeader
    network: PosIspNetwork = field(repr=False)
    name: str = "pos-isp"
    steps: int = 0
    takes_steps: ClassVar[bool] = True

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Action ids of the likeliest sequence, which is the same for every image."""
        return tuple(self.network.order().modules)

    def with_steps(self, steps: int) -> "PosIspPolicy":
        """The policy with at most this number of modules after the preprocessing; 0 keeps its own number."""
        return replace(self, steps=steps) if steps else self

    @property
    def preprocessing(self) -> Preprocessing:
        """The stages that run before its modules."""
        return self.header.start

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of its modules."""
        return self.header.modules

    def plan(self, image: Image) -> list[Pipeline]:
        """The preprocessing, then the modules of the sequence with the image's parameters."""
        return self.process(image)[0]

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The preprocessing, then these modules with the parameters that the network gives them."""
        return self.process(image, [self.header.modules.index(name) for name in modules])[0]

    @torch.inference_mode()
    def process(
        self, image: Image, forced: Sequence[int] | None = None, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; the preprocessing, which the network sees, runs once.

        Args:
            image: developed images, linear RGB in [0, 1].
            forced: action ids to take instead of the sequence.
            stopwatch: measures the part "modules".
        """
        order = self._own_order if forced is None else forced
        prefixes = self._prefixes(image)
        with timed(stopwatch, "modules"):
            prepared = [
                run_one(one, Pipeline(prefix, self.header.module_set).calls)
                for one, prefix in zip(image, prefixes, strict=True)
            ]
        rows = self.network.params(torch.stack(prepared))
        plans = [
            Pipeline((*prefix, *(_stage(i, row[i]) for i in order)), self.header.module_set)
            for prefix, row in zip(prefixes, rows, strict=True)
        ]
        with timed(stopwatch, "modules"):
            made = [
                run_one(one, plan.calls[len(prefix) :])
                for one, plan, prefix in zip(prepared, plans, prefixes, strict=True)
            ]
            return plans, torch.stack(made)

    def process_within(
        self, image: Image, shortener: Shortener, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """`process` with the sequence that the shortener leaves, the same for all images of the batch."""
        first = [stage.module for stage in self._prefixes(image[:1])[0]]
        order = self._own_order
        kept = shortener.kept([*first, *(POS_ISP[index].name for index in order)], len(first))
        return self.process(image, [order[place - len(first)] for place in kept[len(first) :]], stopwatch=stopwatch)

    @property
    def n_preprocessing(self) -> int:
        """White balance and exposure of its preprocessing are one stage."""
        return {"raw": 0, "auto-gain": 1, "auto-exposure": 2}[self.preprocessing]

    @property
    def _own_order(self) -> tuple[int, ...]:
        return self.order[: self.steps] if self.steps else self.order

    def _prefixes(self, image: Image) -> list[tuple[Stage, ...]]:
        """The stages of the preprocessing for each image, by helper modules, which any module set may use.

        White balance and exposure of auto-exposure are one `gain`, because the ranges of the set `pos-isp` are too
        narrow for them.
        """
        if self.header.start == "raw":
            return [()] * len(image)
        gains = preprocessing_of_observation(F.adaptive_avg_pool2d(image, OBSERVATION_SIZE), "auto-gain")
        curve = (Stage("srgb", {}),) if self.header.start == "auto-exposure" else ()
        return [(*gain, *curve) for gain in gains]


def _stage(action: int, values: Sequence[float]) -> Stage:
    module = POS_ISP[action]
    return Stage(module.name, dict(zip((param.name for param in module.params), values, strict=True)))


def load_pos_isp(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> PosIspPolicy:
    """The policy in a file made by `import`.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the networks run.
        steps: most modules after the preprocessing; 0 takes the whole sequence.

    Raises:
        WeightsError: the file is missing, damaged or no such policy.
    """
    header, network = load_pos_isp_file(path)
    return PosIspPolicy(header, network.to(device), name or Path(path).stem, steps)

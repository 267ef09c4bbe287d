"""The plan of an imported POS-ISP policy: one order of modules, parameters from the image; see `policies.pos_isp`."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.heads import linear
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import Plan, Planned, planned, run_chain, table_with
from adaptiveisp.deployment.preprocessing import stages_of
from adaptiveisp.deployment.resampling import pool
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import POS_ISP, find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE
from adaptiveisp.policies.pos_isp.networks import SLOPE, VIEW, PosIspNetwork
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy


@dataclass(frozen=True)
class PosIspPlan(Plan):
    """A POS-ISP policy.

    Attributes:
        network: its networks.
        start: its preprocessing.
        first: modules of the preprocessing: gain, and perhaps the sRGB curve.
        order: ids of its own modules in the order they run.
    """

    network: PosIspNetwork
    start: Preprocessing
    first: tuple[IspModule, ...]
    order: tuple[int, ...]

    @property
    def fixed(self) -> tuple[int, ...]:
        """See `Plan.fixed`."""
        return (*(self.number(module) for module in self.first), *self.order)

    def run(self, ops: Ops, image: Value) -> Planned:
        """See `Plan.run`."""
        assert ops.root.sides is not None
        prefix = []
        if self.first:
            pooled = pool(ops, ops.cast(image, np.float32), *ops.root.sides, OBSERVATION_SIZE)
            gains = stages_of(ops, pooled, "auto-gain")
            values = [*gains, ops.constant(np.zeros(0, np.float32))]
            prefix = [(self.number(one), value) for one, value in zip(self.first, values, strict=False)]
        done, numbers, rows = run_chain(ops, self, ops.cast(image, ops.root.precision), prefix)
        with ops.scope("policy"):
            seen = pool(ops, ops.cast(done, np.float32), *ops.root.sides, VIEW)
            params = self._params(ops, seen)
        made, more, others = run_chain(ops, self, done, [(number, params[number]) for number in self.order])
        return planned(ops, self, numbers + more, rows + others, made)

    def _params(self, ops: Ops, seen: Value) -> list[Value]:
        """Physical parameters of each module of `POS_ISP`, linear in u."""
        ours = {name: value.detach().cpu().numpy() for name, value in self.network.state_dict().items()}
        hidden = ops.cast(seen, ops.root.precision)
        for place in range(len(self.network.convolutions)):
            kernel, bias = (
                np.asarray(ours[f"convolutions.{place}.{kind}"], hidden.dtype) for kind in ("weight", "bias")
            )
            made = ops("Conv", hidden, kernel, bias, strides=[2, 2], pads=[1, 1, 1, 1])
            hidden = ops("LeakyRelu", made, alpha=SLOPE)
        hidden = ops.cast(hidden, np.float32)
        hidden = ops.concat([ops.reduce("Mean", hidden, [2, 3]), ops.reduce("Max", hidden, [2, 3])], 1)
        for place, activation in enumerate(("Relu", None, "LeakyRelu", "Tanh")):
            hidden = linear(ops, hidden, ours[f"layers.{place}.weight"], ours[f"layers.{place}.bias"])
            if activation is not None:
                hidden = ops(activation, hidden, alpha=SLOPE if activation == "LeakyRelu" else None)
        bounds = np.asarray([(param.low, param.high) for module in POS_ISP for param in module.params], np.float32)
        values = bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * ((ops.reshape(hidden, -1) + 1.0) * 0.5)
        found, start = [], 0
        for module in POS_ISP:
            found.append(ops.slice(values, 0, start, start + len(module.params)))
            start += len(module.params)
        return found


def pos_isp_plan(policy: PosIspPolicy) -> PosIspPlan:
    """The plan of an imported policy."""
    start = policy.preprocessing
    names = {"raw": (), "auto-gain": ("gain",), "auto-exposure": ("gain", "srgb")}[start]
    first = tuple(find_module(name, policy.header.module_set) for name in names)
    order = policy.order[: policy.steps] if policy.steps else policy.order
    facts = (table_with(POS_ISP, first), max(1, len(first) + len(order)), len(first), policy.header.module_set)
    return PosIspPlan(*facts, policy.network, start, first, order)

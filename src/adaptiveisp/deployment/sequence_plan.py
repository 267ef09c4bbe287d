"""The plan of a sequence policy; see `deployment.plans`."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment import sequence_network as seq
from adaptiveisp.deployment.observation import look
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import Plan, Planned, planned, run_chain, run_chosen, table_with
from adaptiveisp.deployment.preprocessing import stages_of
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import STAGES, Preprocessing
from adaptiveisp.policies.sequence.networks import SequenceNetwork
from adaptiveisp.policies.sequence.policy import SequencePolicy


@dataclass(frozen=True)
class SequencePlan(Plan):
    """A sequence policy.

    Attributes:
        network: its network.
        start: its preprocessing.
        first: modules of the preprocessing.
        steps: most modules after the preprocessing.
        order: action ids in their order where they are the same for all images, else None.
    """

    network: SequenceNetwork
    start: Preprocessing
    first: tuple[IspModule, ...]
    steps: int
    order: tuple[int, ...] | None

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """See `Plan.fixed`."""
        if self.order is None:
            return None
        return (*(self.number(module) for module in self.first), *self.order)

    def run(self, ops: Ops, image: Value) -> Planned:
        """See `Plan.run`."""
        before = look(ops, image)
        stages = stages_of(ops, before.pooled, self.start)
        given = ops.cast(image, ops.root.precision)
        numbered = [(self.number(module), params) for module, params in zip(self.first, stages, strict=True)]
        done, numbers, rows = run_chain(ops, self, given, numbered)
        with ops.scope("policy"):
            after = look(ops, done) if stages else before
            gains = seq.log_gains(ops, dict(zip((m.name for m in self.first), stages, strict=True)))
            planes, scalars = seq.observation(ops, before, after, gains)
            embedding = seq.embed(ops, self.network, planes, scalars, ops.root.precision)
            params = seq.parameters(ops, self.network, embedding)
        if self.order is not None:
            made, more, others = run_chain(ops, self, done, [(number, params[number]) for number in self.order])
            return planned(ops, self, numbers + more, rows + others, made)
        with ops.scope("policy"):
            chosen = seq.sequence(ops, self.network, embedding, self.steps)
            all_rows = [self.row(ops, one, width) for one, width in zip(params, self.network.widths, strict=True)]
            known = ops("Gather", ops.concat(all_rows, 0), ops("Max", chosen, 0), axis=0)
            some = ops.cast(ops("GreaterOrEqual", chosen, 0), np.float32)
            known = known * ops.reshape(some, -1, 1)
        made = run_chosen(ops, self, done, chosen, known)
        return planned(ops, self, [*numbers, chosen], [*rows, known], made)


def sequence_plan(policy: SequencePolicy) -> SequencePlan:
    """The plan of a `SequencePolicy`."""
    network, header = policy.network, policy.header
    own = network.modules_in_order[:-1]  # without STOP
    first = tuple(find_module(name, header.module_set) for name in STAGES[header.start])
    steps = min(policy.steps or network.horizon, network.horizon)
    order = None
    if network.condition == "none":
        ops = Ops()
        chosen = seq.sequence(ops, network, None, steps).data
        assert chosen is not None
        order = tuple(int(one) for one in chosen if one >= 0)
    length = max(1, len(first) + (steps if order is None else len(order)))
    facts = (table_with(own, first), length, len(first), header.module_set)
    return SequencePlan(*facts, network, header.start, first, steps, order)

"""The plan of a step-wise policy: a loop whose rounds observe the image, choose a module and run it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.control_flow import choose, repeat
from adaptiveisp.deployment.heads import linear, physical
from adaptiveisp.deployment.observation import Look, log_light, look
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import END, Plan, Planned, image_shape, planned, run_chain, table_with
from adaptiveisp.deployment.pointwise import luminance
from adaptiveisp.deployment.preprocessing import stages_of
from adaptiveisp.deployment.writers import apply_module
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import STAGES, Preprocessing
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.stepwise.inference import ActorInference, EncoderInference
from adaptiveisp.policies.stepwise.networks import SLOPE, VIEW, Head, ObservationKind
from adaptiveisp.policies.stepwise.policy import StepwisePolicy


@dataclass(frozen=True)
class StepwisePlan(Plan):
    """A step-wise policy.

    Attributes:
        networks: its networks, batch norm folded.
        actions: the modules in the order of action ids, `STOP` among them if the policy has it.
        start: its preprocessing.
        first: modules of the preprocessing.
        steps: most modules after the preprocessing.
        horizon: steps after which the networks are told that the episode is over.
        view: kind of observation.
        once: whether a module runs at most once.
    """

    networks: ActorInference
    actions: tuple[IspModule, ...]
    start: Preprocessing
    first: tuple[IspModule, ...]
    steps: int
    horizon: int
    view: ObservationKind
    once: bool

    @property
    def looks_again(self) -> bool:
        """See `Plan.looks_again`."""
        return True

    def run(self, ops: Ops, image: Value) -> Planned:
        """See `Plan.run`."""
        stages: list[Value] = []
        if self.first:
            stages = stages_of(ops, look(ops, image).pooled, self.start)
        numbered = [(self.number(module), params) for module, params in zip(self.first, stages, strict=True)]
        done, numbers, rows = run_chain(ops, self, ops.cast(image, ops.root.precision), numbered)
        count = len(self.actions)
        none = ops.constant(np.zeros((1, count), np.float32))
        with ops.scope("policy"):
            shapes: list[list[int | None]] = [image_shape(ops), [1, count]]
            (made, _), (taken, params) = repeat(ops, self.steps, [done, none], None, shapes, self._round)
            taken = ops.slice(ops.concat([taken, ops.constant(np.full(self.steps, END))], 0), 0, 0, self.steps)
            empty = ops.constant(np.zeros((self.steps, self.width), np.float32))
            params = ops.slice(ops.concat([params, empty], 0), 0, 0, self.steps)
        return planned(ops, self, [*numbers, taken], [*rows, params], made)

    def _round(self, ops: Ops, number: Value, carried: Sequence[Value]) -> tuple[list[Value], Value, list[Value]]:
        """One step: (image, flags of used modules) → the same after it, whether to go on, and module and parameters."""
        image, used = carried
        seen = self._observed(ops, look(ops, image), number, used)
        logits = _head(ops, self._encoded(ops, seen, self.networks.select), self.networks.selection_head)
        if self.once:
            logits = ops.where(self._closed(ops, used), -np.inf, logits)
        action = ops.reshape(ops("ArgMax", logits, axis=1, keepdims=0), 1)
        features = self._encoded(ops, seen, self.networks.set_parameters)
        branches = [self._branch(image, features, module) for module in self.actions]
        chosen = ops("Squeeze", action, np.asarray([0]))
        made, row = choose(ops, chosen, branches, [module.name for module in self.actions])
        flags = ops.cast(ops("Equal", ops.constant(np.arange(len(self.actions))[None]), action), np.float32)
        going = ops("Not", ops("Equal", chosen, len(self.table) if STOP not in self.actions else self._stop))
        taken = ops.where(going, chosen, END)
        return [made, ops("Max", used, flags)], going, [taken, row]

    @property
    def _stop(self) -> int:
        return self.actions.index(STOP)

    def _branch(self, image: Value, features: Value, module: IspModule) -> Callable[[Ops], list[Value]]:
        """The nodes of a module: its parameters from the features, and the image after it."""

        def branch(ops: Ops) -> list[Value]:
            if module is STOP:
                return [ops("Identity", image), ops.constant(np.zeros(self.width, np.float32))]
            params = ops.constant(np.zeros(0, np.float32))
            if module.params:
                params = physical(ops, module, _head(ops, features, self.networks.heads[module.name]))
            row = ops.reshape(self.row(ops, params, len(module.params)), self.width)
            return [apply_module(ops, module, image, params), row]

        return branch

    def _observed(self, ops: Ops, seen: Look, number: Value, used: Value) -> Value:
        """The observation (1, channels, 64, 64): pooled image, perhaps its logarithm and numbers, and the status."""
        planes, numbers = [seen.pooled], []
        if self.view == "log":
            logarithm = log_light(ops, seen.pooled)
            light = luminance(ops, logarithm)
            mean = ops.reduce("Mean", light, [0, 1, 2, 3])
            off = light - mean
            deviation = ops("Sqrt", ops.reduce("Sum", off * off, [0, 1, 2, 3]) / float(VIEW**2 - 1))
            planes.append(logarithm)
            numbers = [mean, deviation, log_light(ops, seen.noise)]
        step = ops.cast(number, np.float32)
        stopped = ops.cast(ops("GreaterOrEqual", step, float(self.horizon)), np.float32)
        row = ops.concat(
            [*(ops.reshape(one, 1) for one in (*numbers, stopped, stopped, step)), ops.reshape(used, -1)], 0
        )
        constant = ops("Expand", ops.reshape(row, 1, -1, 1, 1), np.asarray([1, 1, VIEW, VIEW]))
        return ops.cast(ops.concat([*planes, constant], 1), ops.root.precision)

    @staticmethod
    def _encoded(ops: Ops, seen: Value, encoder: EncoderInference) -> Value:
        """The features (1, 4096), float32."""
        features = seen
        for weight, bias in encoder.convolutions:
            kernel, offset = (np.asarray(one.cpu().numpy(), seen.dtype) for one in (weight, bias))
            made = ops("Conv", features, kernel, offset, strides=[2, 2], pads=[1, 1, 1, 1])
            features = ops("LeakyRelu", made, alpha=SLOPE)
        return ops.reshape(features, 1, -1)

    def _closed(self, ops: Ops, used: Value) -> Value:
        """Modules that must not run again; where that were all, none is."""
        again = np.asarray([[0.0 if module is STOP else 1.0 for module in self.actions]], np.float32)
        closed = used * again
        all_closed = ops.reduce("Min", closed, [1], keep=True)
        return ops("Greater", closed - all_closed, 0.5)


def _head(ops: Ops, features: Value, head: Head) -> Value:
    """The outputs of a head, float32."""
    weights = [one.detach().cpu().numpy() for one in (head.fc1.weight, head.fc1.bias, head.fc2.weight, head.fc2.bias)]
    hidden = ops("LeakyRelu", linear(ops, features, *weights[:2]), alpha=SLOPE)
    return ops.cast(linear(ops, hidden, *weights[2:]), np.float32)


def stepwise_plan(policy: StepwisePolicy) -> StepwisePlan:
    """The plan of a step-wise policy."""
    header = policy.header
    first = tuple(find_module(name, header.module_set) for name in STAGES[header.start])
    own = tuple(module for module in policy.modules if module is not STOP)
    steps = policy.steps or header.horizon
    facts = (table_with(own, first), len(first) + steps, len(first), header.module_set)
    return StepwisePlan(
        *facts, policy.inference, policy.modules, header.start, first, steps, header.horizon, header.view, header.once
    )

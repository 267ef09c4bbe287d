"""The plan of a policy that needs no network: stages that are fitted by auto-exposure, then constant ones."""

from dataclasses import dataclass

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import Plan, Planned, planned, run_chain, table_with
from adaptiveisp.deployment.preprocessing import stages_of
from adaptiveisp.deployment.resampling import pool
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import STAGES, Preprocessing
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE, TARGET_MEAN, AutoExposure
from adaptiveisp.policies.tone_curves import ExposedCurve


@dataclass(frozen=True)
class ChainPlan(Plan):
    """A policy whose modules are the same for every image, and whose own parameters are constant.

    Attributes:
        start: its preprocessing.
        first: modules of the preprocessing that it uses, the first ones.
        target: mean luminance that the preprocessing aims at.
        stages: the constant stages after it.
    """

    start: Preprocessing
    first: tuple[IspModule, ...]
    target: float
    stages: tuple[Stage, ...]

    @property
    def fixed(self) -> tuple[int, ...]:
        """See `Plan.fixed`."""
        own = [find_module(stage.module, self.module_set) for stage in self.stages]
        return tuple(self.number(module) for module in (*self.first, *own))

    def run(self, ops: Ops, image: Value) -> Planned:
        """See `Plan.run`."""
        assert ops.root.sides is not None
        fitted: list[Value] = []
        if self.first:
            pooled = pool(ops, ops.cast(image, np.float32), *ops.root.sides, OBSERVATION_SIZE)
            fitted = stages_of(ops, pooled, self.start, self.target)[: len(self.first)]
        constant = [ops.constant(np.asarray([*stage.params.values()], np.float32)) for stage in self.stages]
        stages = list(zip(self.fixed, [*fitted, *constant], strict=True))
        made, numbers, rows = run_chain(ops, self, ops.cast(image, ops.root.precision), stages)
        return planned(ops, self, numbers, rows, made)


def chain_plan(policy: FixedPipeline | AutoExposure | ExposedCurve) -> ChainPlan:
    """The plan of a pipeline of a file, of auto-exposure, or of auto-exposure with another curve."""
    if isinstance(policy, FixedPipeline):
        return _plan(policy.preprocessing, STAGES[policy.preprocessing], TARGET_MEAN, policy.pipeline)
    if isinstance(policy, AutoExposure):
        return _plan("auto-exposure", STAGES["auto-exposure"], policy.target_mean, Pipeline(()))
    return _plan("auto-exposure", STAGES["auto-exposure"][:2], policy.target_mean, Pipeline(policy.curve))


def _plan(start: Preprocessing, first: tuple[str, ...], target: float, rest: Pipeline) -> ChainPlan:
    modules = tuple(find_module(name, rest.module_set) for name in first)
    own = tuple({module.name: module for module in rest.modules}.values())
    length = max(1, len(first) + len(rest.stages))
    return ChainPlan(table_with(own, modules), length, len(first), rest.module_set, start, modules, target, rest.stages)

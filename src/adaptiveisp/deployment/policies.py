"""The plan of a policy by its kind."""

from collections.abc import Callable
from typing import Any

from adaptiveisp.deployment.chain_plan import chain_plan
from adaptiveisp.deployment.plans import Plan
from adaptiveisp.deployment.pos_isp_plan import pos_isp_plan
from adaptiveisp.deployment.sequence_plan import sequence_plan
from adaptiveisp.deployment.stepwise_plan import stepwise_plan
from adaptiveisp.errors import UsageError
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.policies.stepwise.policy import StepwisePolicy
from adaptiveisp.policies.tone_curves import ExposedCurve

PLANS: dict[type[Policy], Callable[[Any], Plan]] = {
    SequencePolicy: sequence_plan,
    StepwisePolicy: stepwise_plan,
    PosIspPolicy: pos_isp_plan,
    FixedPipeline: chain_plan,
    AutoExposure: chain_plan,
    ExposedCurve: chain_plan,
}


NOT_EXPORTED = {"clahe": "OpenCV"}
"""Modules that are computed outside PyTorch, and where."""


def plan_of(policy: Policy) -> Plan:
    """The plan of a policy.

    Raises:
        UsageError: policies of this kind, or one of its modules, cannot be exported.
    """
    if type(policy) in PLANS:
        plan = PLANS[type(policy)](policy)
        for module in plan.table:
            if module.name in NOT_EXPORTED:
                raise UsageError(
                    f"policy {policy.name}: its module {module.name} runs in {NOT_EXPORTED[module.name]} and cannot be "
                    "exported; give a policy without it"
                )
        return plan
    raise UsageError(
        f"policy {policy.name}: its kind, {type(policy).__name__}, cannot be exported; give a pipeline .json, a policy "
        "of the methods sequence, actor_critic or fixed, an imported POS-ISP policy, auto-exposure or none"
    )

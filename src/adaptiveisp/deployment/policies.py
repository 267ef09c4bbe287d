"""The plan of a policy by its kind."""

from adaptiveisp.deployment.learned import sequence_plan
from adaptiveisp.deployment.plans import Plan
from adaptiveisp.errors import UsageError
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.sequence.policy import SequencePolicy


def plan_of(policy: Policy) -> Plan:
    """The plan of a policy.

    Raises:
        UsageError: policies of this kind cannot be exported.
    """
    if isinstance(policy, SequencePolicy):
        return sequence_plan(policy)
    raise UsageError(f"policy {policy.name}: policies of the kind {type(policy).__name__} cannot be exported")

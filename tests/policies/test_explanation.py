"""Why a policy chose its modules: the choices are those of its own `plan`, for each kind of learned policy."""

import pytest
import torch

from adaptiveisp.errors import PolicyError
from adaptiveisp.isp.registry import POS_ISP
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.checkpoint import PolicyHeader, save_policy
from adaptiveisp.policies.environment import actions_of
from adaptiveisp.policies.explanation import can_explain, critic_of, explain, pipeline_after
from adaptiveisp.policies.pos_isp.networks import PosIspNetwork
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.policies.stepwise.networks import Actor, Critic
from adaptiveisp.policies.stepwise.policy import StepwisePolicy

IMAGE = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(4)) * 0.3


def stepwise(stop: bool = True) -> StepwisePolicy:
    torch.manual_seed(1)
    modules = actions_of("paper", stop=stop)
    header = PolicyHeader("actor_critic", "paper", tuple(module.name for module in modules), horizon=4, once=True)
    return StepwisePolicy(header, Actor(modules).eval())


def pos_isp() -> PosIspPolicy:
    torch.manual_seed(2)
    header = PolicyHeader("pos-isp", "pos-isp", tuple(module.name for module in POS_ISP))
    return PosIspPolicy(header, PosIspNetwork().eval())


@pytest.fixture(params=["stepwise", "sequence", "pos-isp"])
def policy(request: pytest.FixtureRequest) -> Policy:
    return {"stepwise": stepwise, "sequence": lambda: load_policy("coco-adaptive"), "pos-isp": pos_isp}[request.param]()


def modules_of(policy: Policy, pipeline: object) -> list[str]:
    return [stage.module for stage in pipeline.stages[policy.n_preprocessing :]]  # type: ignore[attr-defined]


def test_the_choices_are_those_of_the_plan(policy: Policy) -> None:
    assert can_explain(policy)
    found = explain(policy, IMAGE)
    chosen = [choice.chosen for choice in found.choices if choice.chosen != "stop"]
    assert chosen == modules_of(policy, policy.plan(IMAGE)[0]) and found.n_preprocessing == policy.n_preprocessing
    for choice in found.choices:
        assert sum(choice.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert choice.probabilities[choice.chosen] == max(choice.probabilities.values())


def test_given_choices_come_first(policy: Policy) -> None:
    own = [choice.chosen for choice in explain(policy, IMAGE).choices]
    other = next(name for name in explain(policy, IMAGE).choices[0].probabilities if name not in ("stop", own[0]))
    found = pipeline_after(policy, IMAGE, [other])
    assert modules_of(policy, found)[0] == other
    choices = explain(policy, IMAGE, [other]).choices
    assert choices[0].chosen == other
    assert [one.chosen for one in choices if one.chosen != "stop"] == modules_of(policy, found)
    # Its own first choices change nothing.
    same, plan = pipeline_after(policy, IMAGE, [name for name in own[:2] if name != "stop"]), policy.plan(IMAGE)[0]
    assert modules_of(policy, same) == modules_of(policy, plan)
    for ours, theirs in zip(same.stages, plan.stages, strict=True):
        assert ours.params == pytest.approx(dict(theirs.params), rel=1e-4, abs=1e-5)
    assert modules_of(policy, pipeline_after(policy, IMAGE, ["stop"])) == []


def test_a_step_wise_policy_sees_the_image_after_each_module() -> None:
    policy = stepwise(stop=False)
    found = explain(policy, IMAGE)
    pipeline = policy.plan(IMAGE)[0]
    images = [IMAGE, *pipeline.steps(IMAGE)]
    assert len(found.choices) == 4
    for choice, image in zip(found.choices, images, strict=False):
        assert choice.observation is not None
        expected = torch.nn.functional.adaptive_avg_pool2d(image, 64)[0]
        torch.testing.assert_close(choice.observation, expected.clamp(0, 1), rtol=0, atol=1e-4)


def test_the_value_is_the_critics(tmp_path: object) -> None:
    from pathlib import Path

    path, policy = Path(str(tmp_path)) / "p.safetensors", stepwise()
    torch.manual_seed(3)
    critic = Critic(len(policy.header.modules)).eval()
    save_policy(path, policy.header, {"actor": policy.actor, "critic": critic})
    loaded = critic_of(str(path))
    assert loaded is not None
    values = [choice.value for choice in explain(load_policy(str(path)), IMAGE, critic=loaded).choices]
    assert values[0] is not None and len({round(value, 6) for value in values if value is not None}) == len(values)
    assert critic_of("coco-adaptive") is None and critic_of("no such policy") is None
    assert explain(policy, IMAGE).choices[0].value is None


def test_rules_have_no_probabilities() -> None:
    rule = load_policy("auto-exposure")
    assert not can_explain(rule)
    with pytest.raises(PolicyError, match="no probabilities"):
        explain(rule, IMAGE)
    with pytest.raises(PolicyError, match="no module 'x'"):
        explain(stepwise(), IMAGE, ["x"])

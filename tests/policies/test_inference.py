"""The networks for use say what the networks they were made of say."""

import pytest
import torch

from adaptiveisp.policies.environment import actions_of, start
from adaptiveisp.policies.stepwise.inference import ActorInference
from adaptiveisp.policies.stepwise.networks import Actor, ObservationKind, calibrate, observe


@pytest.mark.parametrize("view", ["linear", "log"])
def test_frozen_networks_give_the_same_numbers(view: ObservationKind) -> None:
    torch.manual_seed(0)
    modules = actions_of("extended", stop=True)
    actor = Actor(modules, view=view)
    for norm in (m for m in actor.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    seen = observe(start(torch.rand(6, 3, 70, 80), len(modules)), view)
    calibrate(actor, seen)  # so that means and variances are none that do nothing
    actor.eval()
    frozen = ActorInference(actor)
    closed = torch.zeros(6, len(modules), dtype=torch.bool)
    closed[2, 4] = closed[3, 0] = True
    with torch.no_grad():
        expected = actor(seen, closed)
        torch.testing.assert_close(frozen.probs(seen, closed), expected.probs, rtol=0, atol=1e-6)
        for module in modules:
            ours = frozen.params(frozen.features(seen), module)
            torch.testing.assert_close(ours, expected.params[module.name], rtol=1e-5, atol=1e-5)


def test_later_training_does_not_reach_them() -> None:
    modules = actions_of("wide")
    actor = Actor(modules).eval()
    seen = torch.rand(1, 16, 64, 64)
    frozen = ActorInference(actor)
    with torch.no_grad():
        before = frozen.probs(seen), frozen.params(frozen.features(seen), modules[0])
        for parameter in actor.parameters():
            parameter.mul_(1.5)
        after = frozen.probs(seen), frozen.params(frozen.features(seen), modules[0])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

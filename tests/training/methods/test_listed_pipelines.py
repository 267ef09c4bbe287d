"""Candidates that are listed: every image goes through all of them, so that the expected reward is known."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from adaptiveisp.errors import UsageError
from adaptiveisp.policies.sequence.networks import observe
from adaptiveisp.training.config import resolve
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.methods.sequence.sampling import listed_actions, sample_candidates
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.rl import listed_pipelines
from adaptiveisp.training.rl.listed_pipelines import SPREAD, ListedPipelines
from adaptiveisp.training.rl.rewards import register_reward
from tests.training.methods.test_actor_critic import WantsLight
from tests.training.methods.test_sequence import FAST, HalfLit, learner

PIPELINES = (("exposure", "sharpen"), ("sharpen",), ())
LISTED: SequenceConfig = replace(FAST, candidates="listed", pipelines=PIPELINES, group_size=3, batch=6)


def test_each_image_goes_through_every_listed_pipeline() -> None:
    assert listed_actions(LISTED).tolist() == [[2, 0, 5], [0, 5, 5], [5, 5, 5]]
    subject = learner(LISTED)
    embedding = subject.network.embed(observe(torch.rand(2, 3, 64, 64), "raw"))
    actions = sample_candidates(subject.network, embedding, LISTED, 1.0, subject.generator)
    assert actions.tolist() == 2 * listed_actions(LISTED).tolist()
    subject.iterate()
    assert subject.passes == 6


def test_the_sequence_follows_the_image() -> None:
    """Dark images want exposure, the others nothing, and each module costs something."""
    config = replace(LISTED, pipelines=PIPELINES, runtime_weight=0.3, sequence_line_rate=0.05, line_rate=0.05)
    subject = SequenceLearner(config, HalfLit(), WantsLight(), 6 * 80, 0)
    while not subject.done:
        subject.iterate()
    images = torch.stack([HalfLit()[number].image for number in range(1000, 1040)])
    found = [tuple(stage.module for stage in plan.stages) for plan in subject.policy().plan(images)]
    assert sum(names == () for names in found[::2]) >= 17
    assert sum(names == ("exposure", "sharpen") for names in found[1::2]) >= 17


def test_the_warm_up_takes_the_listed_pipelines_at_random() -> None:
    subject = learner(replace(LISTED, imitation_warmup=1.0))
    seen = set()
    for _ in range(6):
        metrics, _ = subject.iterate()
        assert sum(metrics["modules"].values()) < 2 * 6  # not every image got the longest
        seen |= {name for name, n in metrics["modules"].items() if n}
    assert seen == {"exposure", "sharpen"} and subject.passes == 36


def test_the_losses_are_those_by_hand() -> None:
    reward = torch.tensor([[0.0, 2.0], [0.0, -1.0]], requires_grad=True)
    log_prob = torch.tensor([[0.5, 0.25], [0.5, 0.25]]).log().requires_grad_()
    listed = ListedPipelines()
    parameters, sequence = listed.losses(reward, log_prob)
    share = torch.tensor([0.8 * 2 / 3 + 0.1, 0.8 / 3 + 0.1])
    torch.testing.assert_close(parameters, -(share[1] * 2 - share[1]) / 2)
    size, half = (5 / 8) ** 0.5, math.log(2) / 2  # of the advantages ±1 and ±0.5; the fitted values are ±half
    fit = ((half + SPREAD * 1 / size) ** 2 + (half - SPREAD * 0.5 / size) ** 2) / 2
    torch.testing.assert_close(sequence, torch.tensor(fit - math.log(0.75)), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(parameters, reward)
    torch.testing.assert_close(gradient, -share.expand(2, 2) / 2)
    again = ListedPipelines()
    again.load_state_dict(listed.state_dict())
    assert (again.square, again.count, again.seen) == (listed.square, 1, None)
    again.load_state_dict([0.5, 3.0])  # of an earlier version
    assert (again.square, again.count, again.seen) == (0.5, 3, None)


def test_probabilities_fit_the_mean_advantage() -> None:
    """Rewards as noisy as those of single images: mostly a little better, now and then much worse."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.02)
    listed = ListedPipelines()
    for _ in range(400):
        rare = (torch.rand(64, generator=generator) < 0.1).float()
        reward = torch.stack([torch.zeros(64), 0.3 - 4 * rare, torch.full((64,), 0.05)], dim=1)  # means 0, -0.1, 0.05
        _, loss = listed.losses(reward, logits.log_softmax(dim=0).expand(64, -1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert logits.argsort().tolist() == [1, 0, 2]


FROZEN: SequenceConfig = replace(LISTED, rate=0.0, line_rate=0.0, replays=2, runtime_weight=0.5)


def test_remembered_images_teach_the_choice_again() -> None:
    once, often = learner(replace(FROZEN, replays=0)), learner(FROZEN)
    moved = []
    for subject in (once, often):
        before = [p.detach().clone() for p in subject.network.sets_parameters]
        for _ in range(3):
            subject.iterate()
        assert all(torch.equal(p, b) for p, b in zip(subject.network.sets_parameters, before, strict=True))
        moved.append(float(subject.network.sequence_head.bias.detach().abs().sum()))
    assert moved[1] > moved[0] > 0
    assert once.listed.seen is None and often.listed.seen is not None
    embedding, worth = often.listed.seen
    assert len(embedding) == 6 and worth.shape == (6, 3)
    # The cost of a pipeline is not in what is remembered: at neutral parameters no module changes the loss.
    torch.testing.assert_close(worth, worth[:, :1].expand(-1, 3), rtol=0, atol=0.3)


def test_a_reward_of_ones_own_is_remembered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    register_reward("counts-runtime-itself", lambda inputs: {"runtime": inputs.n_modules})
    subject, seen = learner(replace(FROZEN, reward="counts-runtime-itself")), []
    fit = subject.listed.fit

    def noted(reward: torch.Tensor, log_prob: torch.Tensor) -> torch.Tensor:
        seen.append(reward)
        return fit(reward, log_prob)

    monkeypatch.setattr(subject.listed, "fit", noted)
    subject.iterate()
    assert len(seen) == 3 and all((reward == torch.tensor([2.0, 1.0, 0.0])).all() for reward in seen)


def test_the_latest_images_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_pipelines, "REMEMBERED", 5)
    listed = ListedPipelines()
    for number in range(4):
        listed.remember(torch.full((2, 3), float(number)), torch.full((2, 2), float(number)))
    assert listed.seen is not None
    assert [part[:, 0].tolist() for part in listed.seen] == 2 * [[1.0, 2.0, 2.0, 3.0, 3.0]]


def test_a_run_with_remembered_images_resumes_bit_by_bit() -> None:
    straight = learner(FROZEN)
    for _ in range(2):
        straight.iterate()
    resumed = learner(FROZEN)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for subject in (straight, resumed):
        subject.iterate()
    assert straight.listed.seen is not None and resumed.listed.seen is not None
    for one, other in zip(straight.listed.seen, resumed.listed.seen, strict=True):
        assert torch.equal(one, other)
    for weight, other in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipelines": ()}, "two pipelines or more"),
        ({"pipelines": (("exposure",),)}, "two pipelines or more"),
        ({"pipelines": (("exposure",), ("exposure",), ())}, "names a pipeline twice"),
        ({"group_size": 2}, "group_size must be the number of pipelines, 3"),
        ({"pipelines": (("tone",), ("exposure",), ())}, "pipelines names tone, which modules lacks"),
        ({"horizon": 1}, "longer than the horizon of 1"),
        ({"candidates": "edits"}, "pipelines and replays need candidates=listed"),
        ({"replays": 2}, "replays needs rate=0 and line_rate=0"),
        ({"replays": -1}, "replays must not be negative"),
    ],
    ids=str,
)
def test_lists_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(LISTED, **changes)


def test_a_list_is_read_from_yaml() -> None:
    changes = {"candidates": "listed", "group_size": 2, "pipelines": [["denoise", "tone"], ["tone"]]}
    _, settings = resolve({"method": "sequence", "data": ["d"]}, changes, "test")
    assert settings.pipelines == (("denoise", "tone"), ("tone",))
    with pytest.raises(UsageError, match=r"give a list of lists, in YAML pipelines: \[\[a, b\], \[a, c\]\]"):
        resolve({"method": "sequence", "data": ["d"]}, {**changes, "pipelines": ["denoise", "tone"]}, "test")

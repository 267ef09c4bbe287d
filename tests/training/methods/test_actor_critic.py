"""The actor-critic on a bandit whose best module is known, its losses one by one, and its exact resumption."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.errors import PolicyError, UsageError, WeightsError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import MODULE_SETS, PAPER, find_module, modules_of
from adaptiveisp.policies.checkpoint import load_policy_file
from adaptiveisp.policies.environment import STOP, start
from adaptiveisp.policies.fixed import ForcedModules
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.policies.stepwise.networks import (
    Actor,
    ActorOutput,
    Critic,
    calibrate,
    noise_level,
    observe,
    probabilities,
    ruled_out,
    start_neutral,
    to_training,
)
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import differentiated_loss, optimiser_step
from adaptiveisp.training.methods.actor_critic.learner import LABEL_SMOOTHING, ActorCritic
from adaptiveisp.training.methods.actor_critic.settings import CPU, PRESETS, ActorCriticConfig
from adaptiveisp.training.methods.learner import NonFiniteLossError
from adaptiveisp.training.rl.advantages import step_rewards
from adaptiveisp.training.rl.losses import discounts, returns, selection_loss, td_target, value_loss
from adaptiveisp.training.rl.replay_buffer import ReplayItem, replayed, stack
from adaptiveisp.training.rl.rollout import RolloutConfig, roll_out
from adaptiveisp.types import Detections, Image, Targets

ONE_STEP: dict[str, Any] = {
    "rollout": 1,
    "horizon": 1,
    "no_repeat": False,
    "stop": False,
    "averaging": 0.0,
    "group_size": 1,
    "frozen_batchnorm": False,
    "clip_apart": False,
    "expert_modules": (),
    "imitation_warmup": 0.0,
    "actor_rate": 5e-4,
    "selection_rate": 1e-4,
    "critic_rate": 1e-3,
    "bias_rate": None,
    "entropy_weight": 0.05,
    "entropy_bonus": 0.02,
}
SMALL = replace(CPU, size=64, replay_size=16, preprocessing="raw", observation="linear", **ONE_STEP)


class GreyStream:
    """Dark coloured squares, different for each number."""

    def __getitem__(self, number: int) -> TrainingImage:
        generator = torch.Generator().manual_seed(number)
        image = 0.05 + 0.1 * torch.rand(3, 8, 8, generator=generator)
        image = torch.nn.functional.interpolate(image[None], size=64, mode="bilinear")[0]
        return TrainingImage(number, image, Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)), 0.1)


class WantsLight:
    """A detector whose loss is the distance of the mean from 0.4: among the bandit's modules only exposure helps."""

    name = "wants-light"
    class_names = ("thing",)
    stride = 32
    weights_sha256 = ""
    passes = 0

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        self.passes += len(targets)
        return (image.mean(dim=(1, 2, 3)) - 0.4).abs()

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        raise AssertionError("training does not detect")


def learner(config: ActorCriticConfig = SMALL, seed: int = 0, budget: int = 10**6) -> ActorCritic:
    return ActorCritic(config, GreyStream(), WantsLight(), budget, seed)


@pytest.mark.long
@pytest.mark.parametrize("bootstrap", ["greedy", "td"])
def test_the_bandits_best_module_is_found(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bandit = tuple(
        find_module(name, "wide") for name in ("sharpen", "saturation", "exposure", "desaturation", "denoise")
    )
    monkeypatch.setitem(MODULE_SETS, "bandit", bandit)
    subject = learner(replace(SMALL, bootstrap=bootstrap, module_set="bandit"))
    for _ in range(80):
        subject.iterate()
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1040)])
    plans = subject.policy().plan(images)
    stops = [plan.stages[0].params["ev"] for plan in plans if plan.stages[0].module == "exposure"]
    assert len(stops) > 0.9 * len(plans)
    assert 1.0 < sum(stops) / len(stops) < 3.0  # from 0.1 to 0.4 are two stops, from a neutral start of none


@pytest.mark.long
def test_edits_find_the_one_module_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole episodes in pairs that differ in one module: what does not help goes, what helps stays."""
    bandit = tuple(find_module(name, "wide") for name in ("sharpen", "saturation", "exposure", "desaturation"))
    monkeypatch.setitem(MODULE_SETS, "bandit", bandit)
    whole = {"horizon": 3, "rollout": 3, "group_size": 2, "candidates": "edits", "no_repeat": True, "stop": True}
    config = replace(SMALL, **whole, module_set="bandit", runtime_weight=0.5)
    config = replace(config, entropy_weight=0.0, frozen_batchnorm=True, actor_rate=3e-5)
    subject = learner(config)
    for _ in range(60):
        subject.iterate()
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1040)])
    plans = subject.policy().plan(images)
    assert sum([stage.module for stage in plan.stages] == ["exposure"] for plan in plans) > 0.9 * len(plans)
    with pytest.raises(UsageError, match="candidates=edits needs"):
        replace(config, stop=False)


def test_each_loss_moves_its_own_network_only() -> None:
    subject = learner(replace(SMALL, horizon=5))
    networks = {"actor": subject.actor, "critic": subject.critic}
    for moved, still in (("actor", "critic"), ("critic", "actor")):
        for group in (*subject.networks.actor_optimiser.param_groups, *subject.networks.critic_optimiser.param_groups):
            group["start"] = 0.0
        optimiser = subject.networks.actor_optimiser if moved == "actor" else subject.networks.critic_optimiser
        for group in optimiser.param_groups:
            group["start"] = 1e-3
        before = {name: copy.deepcopy(dict(network.named_parameters())) for name, network in networks.items()}
        subject.iterate()
        after = {name: dict(network.named_parameters()) for name, network in networks.items()}
        assert any(not torch.equal(after[moved][key], value) for key, value in before[moved].items())
        assert all(torch.equal(after[still][key], value) for key, value in before[still].items())


def test_the_discount_changes_targets_in_td_and_not_in_greedy() -> None:
    stopped, value, reward = torch.tensor([0.0, 1.0]), torch.tensor([3.0, 3.0]), torch.tensor([1.0, 1.0])
    targets = {
        (bootstrap, gamma): td_target(reward, discounts(stopped, gamma, bootstrap), value).tolist()
        for bootstrap in ("greedy", "td")
        for gamma in (0.5, 1.0)
    }
    assert targets["greedy", 0.5] == targets["greedy", 1.0] == [1.0, 1.0]
    assert targets["td", 0.5] == [2.5, 1.0] and targets["td", 1.0] == [4.0, 1.0]


def test_losses_by_hand_and_what_they_hold_constant() -> None:
    target = torch.tensor([2.0], requires_grad=True)
    value = torch.tensor([0.5], requires_grad=True)
    value_loss(target, value).backward()
    assert target.grad is None and value.grad is not None and value.grad.item() == -3.0
    probs = torch.tensor([[0.25, 0.75]], requires_grad=True)
    advantage = torch.tensor([2.0], requires_grad=True)
    selection_loss(probs, torch.tensor([1]), advantage).backward()
    assert advantage.grad is None and probs.grad is not None
    torch.testing.assert_close(probs.grad, torch.tensor([[0.0, -2 / 0.75]]))


def test_a_pass_is_counted_for_every_image_the_detector_sees() -> None:
    subject = learner(replace(SMALL, horizon=3))
    for _ in range(6):
        subject.iterate()
    assert isinstance(subject.detector, WantsLight) and subject.passes == subject.detector.passes > 6 * 8


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"averaging": 0.9, "overtime": 2, "keep_stopped": 0.5}, marks=pytest.mark.long),
        pytest.param({"rollout": 2, "stop": True, "horizon": 5}, marks=pytest.mark.long),
        pytest.param(
            {"rollout": 2, "group_size": 4, "frozen_batchnorm": True, "clip_apart": True}, marks=pytest.mark.long
        ),
        pytest.param(
            {"rollout": 3, "group_size": 2, "no_repeat": True, "stop": True, "candidates": "edits"},
            marks=pytest.mark.long,
        ),
    ],
    ids=str,
)
def test_a_run_resumes_bit_by_bit(changes: dict[str, Any]) -> None:
    config = replace(SMALL, **{"horizon": 3, "observation": "log", "preprocessing": "auto-exposure", **changes})
    through = learner(config)
    for _ in range(3):
        through.iterate()
    saved = copy.deepcopy(through.state_dict())
    expected = [through.iterate()[0] for _ in range(2)]
    resumed = learner(config, seed=99)
    resumed.load_state_dict(saved)
    assert [resumed.iterate()[0] for _ in range(2)] == expected
    ours, theirs = resumed.policy().actor.state_dict(), through.policy().actor.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_pool_holds_what_its_histories_say() -> None:
    config = replace(SMALL, horizon=4)
    subject = learner(config)
    for _ in range(5):
        subject.iterate()
    assert any(len(entry.history) >= 2 for entry in subject.replay_buffer.entries)
    for entry in subject.replay_buffer.entries:
        assert len(entry.history) == entry.step
        image = replayed(subject.fresh(entry.number).image, entry.history, subject.modules)
        assert torch.equal(image, entry.image)


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            return super().loss(image, targets) * float("nan")

    subject = ActorCritic(SMALL, GreyStream(), Broken(), 1000, 0)
    with pytest.raises(NonFiniteLossError, match="iteration 0") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (8, 3, 64, 64)


@pytest.mark.parametrize("rollout", [1, 3])
def test_an_image_that_a_module_makes_invalid_is_dropped(rollout: int) -> None:
    subject = learner(replace(SMALL, horizon=3, rollout=rollout))
    head = subject.actor.parameter_heads["ccm"].fc2
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()  # every row of the matrix sums to 0
        subject.actor.selection_head.fc2.bias[2] += 3 if rollout == 1 else 0.5  # and it is chosen often
    for _ in range(4):
        subject.iterate()
    assert subject.dropped > 0
    assert all(value.isfinite().all() for value in subject.actor.state_dict().values())
    assert all(entry.image.isfinite().all() for entry in subject.replay_buffer.entries)


def test_neutral_start_changes_hardly_anything() -> None:
    torch.manual_seed(0)
    actor = Actor(PAPER).eval()
    start_neutral(actor, shrink=0.0)
    image = torch.rand(1, 3, 64, 64) * 0.5 + 0.2
    params = actor(observe(start(image, 10))).params
    changes = {m.name: (m(image, params[m.name]) - image).abs().mean().item() for m in PAPER}
    assert changes.pop("sharpen") < 0.1  # 2 % of its range of 10 off its neutral 1 is out of reach, 0.02·10 is not
    assert max(changes.values()) < 0.05, changes


def test_views_have_the_channels_the_networks_expect() -> None:
    for preset in PRESETS.values():
        state = start(torch.rand(2, 3, 96, 96), len(modules_of(preset.module_set)))
        view = observe(state, preset.observation)
        Actor(modules_of(preset.module_set), view=preset.observation).eval()(view)
        Critic(len(modules_of(preset.module_set)), preset.observation).eval()(view)


def test_the_noise_level_is_the_deviation_of_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 256, 256, generator=generator) * 0.03
    grey = 0.5 + noise.expand(1, 3, 256, 256)
    assert noise_level(grey).item() == pytest.approx(0.03, rel=0.03)
    assert noise_level(torch.full((1, 3, 64, 64), 0.5)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("begin", ["raw", "auto-exposure"])
def test_a_plan_makes_the_image_that_the_policy_saw(begin: str) -> None:
    """The pipeline alone, as a file would hold it, renders what the step-wise policy left."""
    subject = learner(replace(SMALL, horizon=4, preprocessing=begin, observation="log"))
    subject.iterate()
    images = torch.stack([GreyStream()[number].image for number in range(50, 53)])
    plans, made = subject.policy().process(images)
    for i, plan in enumerate(plans):
        assert len(plan.stages) == 4 + 3 * (begin == "auto-exposure")
        torch.testing.assert_close(plan.render(images[i : i + 1])[0], made[i], rtol=0, atol=1e-6)


@pytest.mark.long
def test_a_policy_learns_to_stop_where_nothing_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module changes the image for the worse; what stops costs no pass and stays as it is.

    That this is so takes care: parameters that learn become harmless; what one module spoiled another may mend, so that
    an episode is one step; and what a module spoils (0.05) must not drown in the entropy's weight or in the error of a
    critic that starts from nothing, so that the image's other rollouts are the baseline.
    """

    class LikesItAsItIs(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            self.passes += len(targets)
            return (image[:, 0] - 0.5 * image[:, 1]).square().mean(dim=(1, 2))

    spoilers = tuple(find_module(name, "wide") for name in ("desaturation", "gamma"))
    monkeypatch.setitem(MODULE_SETS, "spoilers", spoilers)
    config = replace(
        SMALL,
        module_set="spoilers",
        stop=True,
        horizon=1,
        bootstrap="greedy",
        group_size=4,
        entropy_weight=0.0,
        actor_rate=0.0,
        selection_rate=2e-4,
        neutral_start=False,
    )

    class RightAlready:
        def __getitem__(self, number: int) -> TrainingImage:
            source = GreyStream()[number]
            image = torch.stack([0.5 * source.image[1], source.image[1], source.image[2]])
            return TrainingImage(number, image, source.targets, 0.1)

    subject = ActorCritic(config, RightAlready(), LikesItAsItIs(), 10**6, 0)
    for _ in range(35):
        subject.iterate()
    assert isinstance(subject.detector, LikesItAsItIs) and subject.passes == subject.detector.passes
    images = torch.stack([RightAlready()[number].image for number in range(500, 520)])
    plans, made = subject.policy().process(images)
    assert sum(plan.stages == () for plan in plans) >= 18
    unchanged = [i for i, plan in enumerate(plans) if not plan.stages]
    assert torch.equal(made[unchanged], images[unchanged])


def test_a_stopped_image_of_a_batch_stays_while_others_go_on() -> None:
    subject = learner(replace(SMALL, horizon=3, stop=True))
    policy = subject.policy()
    assert policy.modules[-1] is STOP and "stop" not in policy.settable
    with torch.no_grad():  # the darkest image stops at once, the others never
        policy.actor.selection_head.fc2.weight.zero_()
    images = torch.stack([GreyStream()[0].image, GreyStream()[1].image])
    calls: list[int] = []

    def probs(view: Tensor, closed: Tensor | None = None) -> Tensor:
        found = torch.zeros(2, len(policy.modules))
        found[0, 10 if not calls else 2] = 1.0  # stops first, would go on later
        found[1, 0] = 1.0
        calls.append(1)
        return found

    policy.inference.probs = probs  # type: ignore[method-assign]
    plans, made = policy.process(images)
    assert [len(plan.stages) for plan in plans] == [0, 3]
    assert torch.equal(made[0], images[0]) and not torch.equal(made[1], images[1])


def test_averaged_weights_are_what_is_saved(tmp_path: Path) -> None:
    subject = learner(replace(SMALL, horizon=3, averaging=0.5))
    mean = {name: value.clone() for name, value in subject.actor.state_dict().items()}
    for iteration in range(1, 4):
        subject.iterate()
        weight = max(0.5, 1 / (1 + iteration))
        for name, value in subject.actor.state_dict().items():
            mean[name] = mean[name] + weight * (value - mean[name]) if value.is_floating_point() else value
    subject.save_policy(tmp_path, "latest", {})
    saved = load_policy_file(tmp_path / "latest.safetensors")[1].state_dict()
    assert not torch.equal(saved["selection_head.fc1.weight"], subject.actor.selection_head.fc1.weight)
    for name, value in saved.items():
        torch.testing.assert_close(value, mean[name])


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"rollout": 4, "group_size": 2, "no_repeat": True}, marks=pytest.mark.long)],
    ids=str,
)
def test_what_has_stopped_leaves_the_pool(changes: dict[str, Any]) -> None:
    """An episode that the policy ended before its horizon is over: the image must not get a second one."""
    subject = learner(replace(SMALL, horizon=4, stop=True, **changes))
    with torch.no_grad():
        subject.actor.selection_head.fc2.bias[-1] += 2.0  # stops often
    for _ in range(8):
        subject.iterate()
        assert all(not entry.stopped for entry in subject.replay_buffer.entries)
    assert subject.next_number > subject.config.replay_size  # images did leave


@pytest.mark.long
def test_overtime_keeps_images_in_the_replay_buffer() -> None:
    for overtime, longest in ((0, 1), (2, 3)):
        subject = learner(replace(SMALL, horizon=2, overtime=overtime))
        steps = set()
        for _ in range(30):
            subject.iterate()
            steps |= {entry.step for entry in subject.replay_buffer.entries}
        assert max(steps) == longest


def test_a_step_into_the_dark_resets_the_released_batch() -> None:
    for reset, left in ((True, {0.0}), (False, {0.0, 1.0})):
        subject = learner(replace(SMALL, horizon=3, replay_size=8, reset_batch=reset))
        with torch.no_grad():
            subject.actor.selection_head.fc2.bias[0] += 20  # exposure, always
            subject.actor.parameter_heads["exposure"].fc2.bias.fill_(-5.0)  # ten stops down
        subject.iterate()
        subject._fill(Clock.started())
        assert {entry.step for entry in subject.replay_buffer.entries} <= left
        assert reset or any(entry.step for entry in subject.replay_buffer.entries)


def test_the_clip_hides_what_lies_above_it() -> None:
    """Losses of 3 and more: with D clipped at 1 every reward is hidden, and the log says so either way."""

    class High(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            return 3 + super().loss(image, targets)

    for limit in (None, 1.0):
        subject = ActorCritic(replace(SMALL, loss_limit=limit, horizon=3), GreyStream(), High(), 1000, 0)
        metrics = subject.iterate()[0]
        assert metrics["clip_hides"] > 0.5
        assert (metrics["reward"]["detection"] == 0) == (limit is not None)
    assert learner().iterate()[0]["clip_hides"] == 0


def test_a_warm_start_takes_the_networks_and_refuses_others(tmp_path: Path) -> None:
    first = learner(seed=1)
    first.iterate()
    first.save_policy(tmp_path, "best", {})
    second = learner(replace(SMALL, runtime_weight=0.1), seed=2)
    second.warm_start(str(tmp_path))
    for ours, theirs in ((second.actor, first.actor), (second.critic, first.critic)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert second.passes == 0
    with pytest.raises(WeightsError, match="has the modules"):
        learner(replace(SMALL, stop=True)).warm_start(str(tmp_path))


def test_forced_modules_take_the_networks_parameters() -> None:
    policy = learner(replace(SMALL, preprocessing="auto-exposure", observation="log")).policy()
    image = GreyStream()[0].image[None]
    pipeline = Pipeline((Stage("gamma", {"gamma": 3.0}), Stage("exposure", {"ev": -8.0})))
    (plan,) = ForcedModules(policy, pipeline).plan(image)
    names = [stage.module for stage in plan.stages]
    assert names == ["white_balance", "exposure", "srgb", "gamma", "exposure"]
    state = start(preprocessed_image(image, "auto-exposure"), 10)
    expected = policy.actor(observe(state, "log")).params["gamma"][0].item()
    assert plan.stages[3].params["gamma"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(PolicyError, match="sets no parameters for the module srgb"):
        ForcedModules(policy, Pipeline((Stage("srgb", {}),)))


def test_returns_of_a_rollout_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0], [3.0, 0.0]])  # the second image stopped after its first step
    found = returns(rewards, torch.tensor([0.5 * 8.0, 0.0]), 0.5)
    assert found.tolist() == [[1 + 0.5 * (3 + 4), 2.0], [3 + 4, 0.0]]


def test_one_pass_moves_the_parameters_of_every_module_on_the_way() -> None:
    """Three steps, one look of the detector: each head that was used has a gradient, the others none."""
    subject = learner(replace(SMALL, rollout=3, horizon=3, replay_size=8))
    subject.iterate()
    assert isinstance(subject.detector, WantsLight) and subject.passes == subject.detector.passes == 16
    state = stack([entry_of(number) for number in range(4)])
    rollout = roll_out(
        state, subject.actor, subject.modules, RolloutConfig(3, 3, "linear", False), subject.generator, Clock.started()
    )
    used = {subject.modules[index].name for step in rollout.steps for index in step.action.tolist()}
    gains = subject.detector.loss(rollout.end.image, [])
    heads = {name: head.fc2.bias for name, head in subject.actor.parameter_heads.items()}
    gradients = torch.autograd.grad(gains.sum(), list(heads.values()), allow_unused=True)
    touched = {name for name, g in zip(heads, gradients, strict=True) if g is not None and g.any()}
    assert touched <= used and len(touched) >= min(3, len(used)) and len(used) > 2
    assert rollout.last.tolist() == [2, 2, 2, 2] and rollout.moved.all()
    for row, history in enumerate(rollout.histories()):
        image = replayed(state.image[row], history, subject.modules)
        torch.testing.assert_close(image, rollout.end.image[row], rtol=0, atol=1e-6)


def entry_of(number: int) -> ReplayItem:
    source = GreyStream()[number]
    return ReplayItem(number, source.image, source.targets, torch.zeros(10), 0.0, 0.0, 0.3)


def test_images_that_stop_on_the_way_stay_as_they_are() -> None:
    subject = learner(replace(SMALL, rollout=4, horizon=4, stop=True))
    with torch.no_grad():
        subject.actor.selection_head.fc2.bias[-1] += 2.5  # stop, about every second time
    state = stack([replace(entry_of(number), used=torch.zeros(11)) for number in range(12)])
    rollout = roll_out(
        state, subject.actor, subject.modules, RolloutConfig(4, 4, "linear", False), subject.generator, Clock.started()
    )
    lengths = [len(history) for history in rollout.histories()]
    assert rollout.end.stopped.tolist() == [1.0] * 12 and len(set(lengths)) > 1
    for row, history in enumerate(rollout.histories()):
        names = [subject.modules[index].name for index, _ in history]
        assert "stop" not in names[:-1] and (names[-1] == "stop" or len(names) == 4)
        assert rollout.moved[row] == (names != ["stop"])
        image = replayed(state.image[row], history, subject.modules)
        torch.testing.assert_close(image, rollout.end.image[row], rtol=0, atol=1e-6)
    assert rollout.last.tolist() == [length - 1 for length in lengths]
    parts = step_rewards(rollout, {"detection": torch.full((12,), 10.0)}, subject.costs, 0.0, 0.1, 0.05)
    assert torch.allclose(parts["detection"].sum(dim=0), torch.full((12,), 10.0))
    assert all(parts["entropy"][number, rollout.last < number].eq(0).all() for number in range(len(rollout.steps)))
    spent = torch.tensor([0.1 * sum(subject.costs[index] for index, _ in history) for history in rollout.histories()])
    assert torch.allclose(-parts["runtime"].sum(dim=0), spent)


def test_a_module_runs_once_where_it_is_said_so() -> None:
    """Ten modules in ten steps, each once, in training and at work; `stop` is never ruled out."""
    subject = learner(replace(SMALL, no_repeat=True, rollout=10, horizon=10))
    state = stack([entry_of(number) for number in range(3)])
    rollout = roll_out(
        state, subject.actor, subject.modules, RolloutConfig(10, 10, "linear", True), subject.generator, Clock.started()
    )
    for history in rollout.histories():
        assert sorted(index for index, _ in history) == list(range(10))
    subject.iterate()  # entropies of probabilities that are 0 stay finite
    images = torch.stack([GreyStream()[number].image for number in range(4)])
    for plan in subject.policy().plan(images):
        assert len({stage.module for stage in plan.stages}) == 10


def test_what_is_ruled_out_and_what_is_left_to_choose() -> None:
    modules = (find_module("exposure", "paper"), find_module("gamma", "paper"), STOP)
    used = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    assert ruled_out(used, modules).tolist() == [[False, True, False], [True, True, False]]
    assert not ruled_out(torch.ones(1, 2), modules[:2]).any()  # nothing would be left
    # However sure the network was of what ran, the others keep their order among each other.
    logits = torch.tensor([[0.0, 90.0, math.log(3.0)]], requires_grad=True)
    probs = probabilities(logits.masked_fill(torch.tensor([[False, True, False]]), -math.inf))
    torch.testing.assert_close(probs, torch.tensor([[0.95 * 0.25 + 0.025, 0.0, 0.95 * 0.75 + 0.025]]))
    (gradient,) = torch.autograd.grad(probs[0, 2], logits)
    assert gradient.isfinite().all() and gradient[0, 1] == 0 and gradient[0, 2] > 0.1


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    class Steep(WantsLight):
        """Finite losses whose gradient is infinite, as of a root at 0."""

        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            return super().loss(image, targets) + (image - image.detach()).sum(dim=(1, 2, 3)).abs().sqrt()

    subject = ActorCritic(SMALL, GreyStream(), Steep(), 1000, 0)
    before = copy.deepcopy(dict(subject.actor.named_parameters()))
    metrics, _ = subject.iterate()
    assert metrics["gradient_norm"]["actor"] != metrics["gradient_norm"]["actor"]  # NaN
    assert all(torch.equal(before[name], value) for name, value in subject.actor.named_parameters())


def test_a_policy_that_makes_every_image_invalid_ends_the_run() -> None:
    subject = learner(replace(SMALL, horizon=1))
    head = subject.actor.parameter_heads["ccm"].fc2
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        subject.actor.selection_head.fc2.bias[2] += 60
    with pytest.raises(NonFiniteLossError, match="images became invalid"):
        for _ in range(3):
            subject.iterate()


def test_a_detector_may_answer_in_half_precision() -> None:
    """As any torch network does under autocast, which is on where the settings say so and only there."""
    seen = []

    class Half(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            seen.append(torch.is_autocast_enabled("cpu"))
            loss = super().loss(image, targets)
            return loss.bfloat16() if seen[-1] else loss

    for precision in ("bfloat16", "float32"):
        subject = ActorCritic(replace(SMALL, precision=precision), GreyStream(), Half(), 1000, 0)
        subject.iterate()
        assert seen == [precision == "bfloat16"] * len(seen)
        seen.clear()


@pytest.mark.parametrize(("bootstrap", "expected"), [("td", 2.0 + 0.5 * 5.0), ("greedy", 2.0)])
def test_the_critics_value_is_in_the_target_of_td_only(
    bootstrap: str, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = learner(replace(SMALL, horizon=3, bootstrap=bootstrap, discount=0.5))
    monkeypatch.setattr(subject.critic, "forward", lambda view: torch.full((len(view),), 5.0))
    state = stack([entry_of(number) for number in range(4)])
    clock = Clock.started()
    one = roll_out(
        state, subject.actor, subject.modules, RolloutConfig(1, 3, "linear", False), subject.generator, clock
    )
    rewards = torch.full((1, 4), 2.0)
    assert subject._returns(one, rewards)[0].tolist() == [expected] * 4
    whole = roll_out(
        state, subject.actor, subject.modules, RolloutConfig(3, 3, "linear", False), subject.generator, clock
    )
    at_the_end = subject._returns(whole, torch.tensor([[0.0], [0.0], [2.0]]).expand(3, 4))
    assert at_the_end[2].tolist() == [2.0] * 4  # the episode is over, nothing follows
    assert at_the_end[0].tolist() == [2.0 * (0.25 if bootstrap == "td" else 1.0)] * 4


def test_each_optimiser_gets_its_own_loss_and_a_falling_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = learner(replace(SMALL, horizon=2, rate_decay=2.0), budget=120)
    seen: list[tuple[bool, float, float]] = []

    def spy(parameters: Any, optimiser: Any, loss: Tensor, scale: float, *rest: Any) -> dict[str, float]:
        seen.append((optimiser is subject.networks.critic_optimiser, loss.item(), scale))
        return optimiser_step(parameters, optimiser, loss, scale, *rest)

    monkeypatch.setattr("adaptiveisp.training.methods.actor_critic.networks.optimiser_step", spy)
    while not subject.done:
        metrics, _ = subject.iterate()
        (_, actor_loss, scale), (is_critic, critic_loss, _) = seen[-2:]
        assert is_critic and critic_loss == pytest.approx(metrics["loss"]["value"])
        assert actor_loss == pytest.approx(metrics["loss"]["selection"] + metrics["loss"]["parameters"], abs=1e-5)
        assert scale == pytest.approx(0.1 ** (2 * min(1, metrics["passes"] / 120)))
        assert subject.networks.actor_optimiser.param_groups[0]["lr"] == pytest.approx(SMALL.actor_rate * scale)
    assert seen[-1][2] < 0.05 * seen[0][2]


def test_the_entropy_penalty_fades_and_the_bonus_counts() -> None:
    without, within = (learner(replace(SMALL, entropy_bonus=weight)).iterate()[0] for weight in (0.0, 1.0))
    assert without["loss"]["selection"] - within["loss"]["selection"] == pytest.approx(within["entropy"], abs=1e-4)
    late = learner(budget=1)
    assert late.iterate()[0]["reward"]["entropy"] == 0 > without["reward"]["entropy"]


def test_the_rollouts_of_a_group_are_each_others_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def spy(probs: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        seen.append(advantage.clone())
        return selection_loss(probs, action, advantage)

    monkeypatch.setattr("adaptiveisp.training.methods.actor_critic.learner.selection_loss", spy)
    subject = learner(replace(SMALL, group_size=4, normalise_advantage=False))
    subject._fill(Clock.started())
    taken = [entry.number for entry in subject._next_batch()]
    assert len(set(taken)) == 2 and taken == sorted(taken, key=taken.index)
    subject.iterate()
    assert len(seen[0]) == 8 and seen[0].std() > 0
    # The part that all rollouts of an image have in common cancels: their advantages sum to zero.
    torch.testing.assert_close(seen[0].view(2, 4).sum(dim=1), torch.zeros(2), atol=1e-4, rtol=0)


def test_one_rollout_of_each_image_goes_back_into_the_replay_buffer() -> None:
    subject = learner(replace(SMALL, group_size=4, horizon=3))
    subject.iterate()
    numbers = [entry.number for entry in subject.replay_buffer.entries]
    assert len(numbers) == len(set(numbers)) == SMALL.replay_size
    assert sum(len(entry.history) == 1 for entry in subject.replay_buffer.entries) == 2


def test_calibrated_statistics_are_those_of_the_views_and_stay() -> None:
    actor = Actor(modules_of("wide"))
    views = observe(start(0.2 * torch.rand(16, 3, 64, 64), len(modules_of("wide"))))
    calibrate(actor, views)
    norm = actor.selection_encoder.layers[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    before = {name: value.clone() for name, value in actor.named_buffers()}
    to_training(actor, fixed_statistics=True)
    first = actor.selection_encoder.layers[:2](views)
    torch.testing.assert_close(first.mean(dim=(0, 2, 3)), torch.zeros(32), atol=1e-3, rtol=0)
    torch.testing.assert_close(first.std(dim=(0, 2, 3)), torch.ones(32), atol=5e-2, rtol=0)  # eps lies under the root
    # An image is seen the same alone and among others, and training leaves the statistics.
    torch.testing.assert_close(actor.selection_encoder.layers[:2](views[:1]), first[:1], atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in actor.named_buffers())
    to_training(actor, fixed_statistics=False)
    actor(views)
    assert not torch.equal(before["selection_encoder.layers.1.running_mean"], norm.running_mean)


def test_the_two_networks_of_the_actor_may_be_limited_apart() -> None:
    subject = learner(replace(SMALL, clip_apart=True, gradient_norm=1e-3))
    metrics, _ = subject.iterate()
    assert set(metrics["gradient_norm"]) == {"parameters", "selection", "critic"}
    for name, part in subject.networks.actor_parts.items():
        squares = [p.grad.square().sum() for p in part if p.grad is not None]
        assert metrics["gradient_norm"][name] > 1e-3
        assert torch.stack(squares).sum().sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_constant_part_of_parameters_has_its_own_rate() -> None:
    subject = learner(replace(SMALL, actor_rate=0.0, selection_rate=0.0, bias_rate=0.01, rate_decay=0.0))
    before = copy.deepcopy(dict(subject.actor.named_parameters()))
    subject.iterate()
    moved = {name for name, value in subject.actor.named_parameters() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("parameter_heads.") and name.endswith(".fc2.bias") for name in moved)
    steps = [(dict(subject.actor.named_parameters())[name] - before[name]).abs().max().item() for name in moved]
    assert max(steps) == pytest.approx(0.01, rel=0.01)  # the first step of Adam is its rate


def test_the_temperature_falls_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[0.0, 1.0]])
    warm, cold = (probabilities(logits / value)[0, 1].item() for value in (1.0, 0.25))
    assert [warm, cold] == pytest.approx([0.95 / (1 + math.exp(-t)) + 0.025 for t in (1, 4)])
    seen: list[float] = []
    real = roll_out

    def spy(state: Any, actor: Any, modules: Any, rules: RolloutConfig, *others: Any) -> Any:
        seen.append(rules.temperature)
        return real(state, actor, modules, rules, *others)

    monkeypatch.setattr("adaptiveisp.training.rl.shared_rollout.roll_out", spy)
    subject = learner(replace(SMALL, last_temperature=0.1), budget=100)
    spent = []
    while not subject.done:
        subject._fill(Clock.started())
        spent.append(subject.progress)
        subject.iterate()
    assert seen == pytest.approx([0.1**progress for progress in spent]) and seen[-1] < 0.5 < seen[0]


SHOWN = replace(
    SMALL,
    expert_modules=("gamma", "exposure"),
    imitation_warmup=0.5,
    horizon=3,
    rollout=3,
    stop=True,
    no_repeat=True,
    group_size=4,
    selection_rate=2e-4,
    actor_rate=1e-4,
    bias_rate=0.05,
    frozen_batchnorm=True,
)
"""Gamma, exposure and stop are shown for half of the budget."""


@pytest.mark.long
def test_the_imitation_warm_up_costs_one_pass_an_image() -> None:
    subject = learner(SHOWN, budget=800)
    critic = copy.deepcopy(dict(subject.critic.named_parameters()))
    while subject.progress < SHOWN.imitation_warmup:
        metrics, _ = subject.iterate()
        assert metrics["modules"] == {**dict.fromkeys(metrics["modules"], 0), "gamma": 8, "exposure": 8, "stop": 8}
        assert metrics["reward"]["detection"] != metrics["reward"]["detection"]  # NaN: nothing is compared
    assert isinstance(subject.detector, WantsLight)
    assert subject.passes == subject.detector.passes == 8 * subject.iteration == 400
    assert all(torch.equal(critic[name], value) for name, value in subject.critic.named_parameters())
    assert not subject.networks.critic_optimiser.state  # Adam would count steps of zero
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1008)])
    for plan in subject.policy().plan(images):
        assert [stage.module for stage in plan.stages] == ["gamma", "exposure"]
    assert metrics["detector_loss"] < 0.1  # 0.3 at first: the parameters learn meanwhile
    after, _ = subject.iterate()
    assert subject.passes == subject.detector.passes == 400 + 2 + 8  # now two images, before and behind their rollouts
    assert math.isfinite(after["reward"]["detection"]) and subject.group_size == 4


@pytest.mark.long
def test_the_imitation_warm_up_goes_on_after_a_resumption() -> None:
    through = learner(SHOWN, budget=100)
    for _ in range(3):
        through.iterate()
    saved = copy.deepcopy(through.state_dict())
    expected = [through.iterate()[0] for _ in range(6)]
    shown = [math.isnan(entry["reward"]["detection"]) for entry in expected]
    assert shown == [True] * 4 + [False] * 2  # it ends on the way
    resumed = learner(SHOWN, seed=99, budget=100)
    resumed.load_state_dict(saved)
    assert repr([resumed.iterate()[0] for _ in range(6)]) == repr(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_modules": ("sepia",)}, "sepia"),
        ({"horizon": 1, "rollout": 1}, "more than the horizon"),
        ({"stop": False}, "set stop too"),
        ({"expert_modules": ()}, "needs expert_modules"),
        ({"batch": 6}, "multiple of group_size"),
        ({"last_temperature": 0.0}, "last_temperature"),
        ({"bias_rate": -1.0}, "bias_rate"),
        ({"loss_limit": 0.0}, "loss_limit"),
        ({"expert_modules": ("gamma", "gamma")}, "twice"),
        ({"expert_modules": ("gamma", "exposure", "ccm"), "stop": False, "overtime": 1}, "overtime"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        replace(SHOWN, **changes)


def test_a_loss_with_its_gradient_attached_is_the_same_loss() -> None:
    image = torch.stack([GreyStream()[number].image for number in range(3)])
    targets = [GreyStream()[number].targets for number in range(3)]
    weights = torch.tensor([1.0, -2.0, 0.5])
    found = []
    for attached in (False, True):
        brightness = torch.ones(3, 1, 1, 1, requires_grad=True)
        clock = Clock.started()
        if attached:
            losses = differentiated_loss(WantsLight(), image * brightness, targets, "float32", clock)
            assert set(clock.seconds) == {"detector forward", "detector backward"}
        else:
            losses = WantsLight().loss(image * brightness, targets)
        (weights * losses).sum().backward()
        found.append((losses.detach(), brightness.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])

    class Indifferent(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            return torch.ones(len(targets))

    brightness = torch.ones(3, 1, 1, 1, requires_grad=True)
    differentiated_loss(Indifferent(), image * brightness, targets, "float32", Clock.started()).sum().backward()
    assert brightness.grad is not None and not brightness.grad.any()


def test_the_checks_of_the_imitation_warm_up_need_one() -> None:
    replace(CPU, imitation_warmup=0.0, stop=False)
    replace(CPU, imitation_warmup=0.0, horizon=5, rollout=5)


@pytest.mark.long
def test_imitation_leaves_probability_for_other_actions() -> None:
    subject = learner(SHOWN, budget=1200)
    while subject.progress < SHOWN.imitation_warmup:
        subject.iterate()
    state = stack([replace(entry_of(number), used=torch.zeros(11)) for number in range(8)])
    subject.actor.eval()
    first = subject.actor(observe(state)).probs
    shown = [module.name for module in subject.modules].index("gamma")
    # A tenth is spread over all eleven actions; without smoothing it would be 0.95 + 0.05 / 11.
    expected = 0.95 * (1 - LABEL_SMOOTHING * 10 / 11) + 0.05 / 11
    assert first[:, shown].mean().item() == pytest.approx(expected, abs=0.05)


def test_calibration_sees_whole_episodes_and_reaches_all_networks() -> None:
    subject = learner(replace(SMALL, frozen_batchnorm=True, horizon=4, averaging=0.9, stop=True))
    seen: list[Tensor] = []
    real = subject.actor.selection_encoder.forward

    def spy(view: Tensor) -> Tensor:
        seen.append(view)
        return real(view)

    subject.actor.selection_encoder.forward = spy  # type: ignore[method-assign]
    subject._fill(Clock.started())
    subject._calibrate(Clock.started())
    views = seen[-1]  # the last forward pass is calibration's
    assert views[:, 5].flatten(1).mean(dim=1).unique().tolist() == [0.0, 1.0, 2.0, 3.0]  # the step number
    expected = subject.actor.selection_encoder.layers[0](views).mean(dim=(0, 2, 3))
    for network in (subject.actor, subject.networks.averaged):
        found = network.get_buffer("selection_encoder.layers.1.running_mean")
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert subject.critic.get_buffer("encoder.layers.1.running_mean").abs().max() > 0
    kept = found.clone()
    subject.iterate()
    assert torch.equal(subject.actor.get_buffer("selection_encoder.layers.1.running_mean"), kept)


@pytest.mark.parametrize("group_size", [1, 2])
def test_the_baseline_of_the_selection_by_hand(group_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images whose rollouts end after different numbers of steps."""
    seen: list[Tensor] = []

    def spy(probs: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
        seen.append(advantage)
        return probs.sum() * 0

    monkeypatch.setattr("adaptiveisp.training.methods.actor_critic.learner.selection_loss", spy)
    subject = learner(replace(SMALL, horizon=2, rollout=2, stop=True, group_size=group_size, normalise_advantage=False))
    state = stack([replace(entry_of(number // 2), used=torch.zeros(11)) for number in range(4)])
    rules = RolloutConfig(2, 2, "linear", False)
    real = roll_out(state, subject.actor, subject.modules, rules, subject.generator, Clock.started())
    first = real.steps[0]
    second = replace(
        first,
        rows=torch.tensor([0, 2, 3]),
        choice=ActorOutput(first.choice.probs[:3], {}, first.choice.logits[:3]),
        action=first.action[:3],
    )
    rollout = replace(real, steps=(first, second))  # the second of the four stopped at once
    target = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 0.0, 30.0, 40.0]])
    subject._selection_loss(rollout, target, torch.tensor([0.5, 0.25, 0.0, -1.0]))
    if group_size == 1:
        expected = [1 - 0.5, 2 - 0.25, 3.0, 4 + 1.0, 10 - 0.5, 30.0, 40 + 1.0]
    else:  # from the same step on; of the one that stopped at once, from its last
        expected = [1 - 2.0, 2 - 1.0, 3 - 4.0, 4 - 3.0, 10 - 2.0, 30 - 40.0, 40 - 30.0]
    assert seen[0].tolist() == pytest.approx(expected)


def test_whole_episodes_bootstrap_nothing() -> None:
    """With a discount of 1, td and greedy are then the same run, whatever the critic says."""
    found = []
    for bootstrap, scale in (("td", 1.0), ("greedy", 100.0)):
        config = replace(SMALL, bootstrap=bootstrap, discount=1.0, horizon=3, rollout=3, group_size=2)
        subject = learner(config)
        with torch.no_grad():
            subject.critic.head.fc2.weight.mul_(scale)
        for _ in range(2):
            subject.iterate()
        found.append(subject.actor.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_an_invalid_rollout_takes_its_image_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = learner(replace(SMALL, group_size=4))
    calls = []

    def spoiled(*arguments: Any) -> Any:
        rollout = roll_out(*arguments)
        calls.append(len(rollout.start.step))
        if len(calls) == 1:
            rollout.end.image.data[2] = math.nan
        return rollout

    monkeypatch.setattr("adaptiveisp.training.rl.shared_rollout.roll_out", spoiled)
    metrics, _ = subject.iterate()
    assert calls == [8, 4] and metrics["dropped"] == 1

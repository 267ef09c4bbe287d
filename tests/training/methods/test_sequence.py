"""Sequence policies on bandits whose best pipelines are known, their probabilities summed by hand, their files."""

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.errors import UsageError, WeightsError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import EXTENDED, find_module
from adaptiveisp.kernels import loading
from adaptiveisp.policies.checkpoint import load_policy_file, load_sequence_file, save_policy
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.fixed import ForcedModules
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.policies.sequence.networks import BINS, N_SCALARS, SequenceNetwork, observe, run_sequences
from adaptiveisp.policies.sequence.policy import load_sequence
from adaptiveisp.training.config import read_config, recipe_files, resolve
from adaptiveisp.training.methods.learner import NonFiniteLossError
from adaptiveisp.training.methods.module_choice import with_module_names
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.training.methods.sequence.sampling import sample_logits
from adaptiveisp.training.methods.sequence.settings import ADAPTIVE, PRESETS, SequenceConfig
from adaptiveisp.training.rl.losses import neighbour_loss
from adaptiveisp.training.rl.pipeline_edits import Comparisons, edited
from adaptiveisp.types import Image, Targets
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

BANDIT = ("sharpen", "saturation", "exposure", "desaturation", "denoise")
SMALL = SequenceConfig(modules=BANDIT, preprocessing="raw", size=64, horizon=3, precision="float32", averaging=0.9)
FAST = replace(SMALL, sequence_rate=1e-2, line_rate=0.01)


def learner(config: SequenceConfig = SMALL, seed: int = 0, budget: int = 10**6) -> SequenceLearner:
    return SequenceLearner(config, GreyStream(), WantsLight(), budget, seed)


class HalfLit:
    """Every other image is dark; the others are as bright as `WantsLight` wants them."""

    def __getitem__(self, number: int) -> TrainingImage:
        source = GreyStream()[number]
        image = source.image if number % 2 else source.image * (0.4 / source.image.mean())
        return TrainingImage(number, image, source.targets, 0.1)


@pytest.mark.parametrize("candidates", ["samples", pytest.param("edits", marks=pytest.mark.long)])
def test_the_bandits_best_module_is_found(candidates: Any) -> None:
    cooling = {"first_temperature": 2.5, "last_temperature": 0.5} if candidates == "samples" else {}
    subject = learner(replace(FAST, candidates=candidates, group_size=4, runtime_weight=0.5, **cooling), budget=8 * 80)
    while not subject.done:
        subject.iterate()
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1040)])
    plans = subject.policy().plan(images)
    found = [[stage for stage in plan.stages if stage.module == "exposure"] for plan in plans]
    chosen = [stages[0].params["ev"] for stages in found if stages]
    assert len(chosen) > 0.9 * len(plans)
    # Samples keep modules that cost little; edits compare pipelines with and without them.
    assert candidates == "samples" or all(len(plan.stages) == 1 for plan in plans)
    assert 1.0 < sum(chosen) / len(chosen) < 3.0  # from 0.1 to 0.4 are two stops


class Blind(WantsLight):
    """The same without a gradient."""

    differentiable = False

    def loss(self, image: Image, targets: list[Targets]) -> Tensor:
        assert not image.requires_grad and not torch.is_grad_enabled()
        return super().loss(image, targets)


@pytest.mark.long
def test_parameters_learn_without_a_gradient() -> None:
    """By rewards alone: two stops brighter, and no other module's parameters matter."""
    config = replace(SMALL, candidates="samples", group_size=4, exploration=0.1, line_rate=0.03, sequence_rate=5e-3)
    config = replace(config, expert_modules=("exposure",), imitation_warmup=0.5)
    subject = SequenceLearner(config, GreyStream(), Blind(), 8 * 80, 0)
    while not subject.done:
        subject.iterate()
    plans = subject.policy().plan(torch.stack([GreyStream()[number].image for number in range(1000, 1040)]))
    stops = [stage.params["ev"] for plan in plans for stage in plan.stages if stage.module == "exposure"]
    assert len(stops) > 0.9 * len(plans) and 1.0 < sum(stops) / len(stops) < 2.5


def test_sampled_parameters_are_around_the_networks_output() -> None:
    subject = learner(replace(SMALL, candidates="samples", group_size=4, exploration=0.5))
    logits = torch.zeros(8, sum(subject.network.widths), requires_grad=True)
    actions = torch.tensor([[2, 5, 5], [5, 5, 5]] * 4)
    tried, density = sample_logits(logits, actions, subject.network.widths, 0.5, subject.generator)
    torch.testing.assert_close(tried[::2], -tried[1::2])
    assert 0.2 < float(tried.std()) < 0.8 and not tried.requires_grad
    ends = [sum(subject.network.widths[:i]) for i in range(len(BANDIT) + 1)]
    expected = -tried[::2, ends[2] : ends[3]].square().sum(dim=1) / 0.5**2 / 2
    torch.testing.assert_close(density[::2].detach(), expected)
    assert density[1::2].tolist() == [0.0] * 4, "no module ran"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_a_module_that_was_given_up_comes_back(seed: int) -> None:
    """The policy is sure of a useless module and sure that the best one does not run; edits find it all the same."""
    subject = learner(replace(FAST, runtime_weight=0.5), seed, budget=8 * 90)
    with torch.no_grad():
        subject.network.sequence_head.bias.copy_(torch.tensor([6.0, 0.0, -6.0, 0.0, 0.0, 3.0]))
    while not subject.done:
        subject.iterate()
    plans = subject.policy().plan(torch.stack([GreyStream()[number].image for number in range(1000, 1040)]))
    assert sum([s.module for s in plan.stages] == ["exposure"] for plan in plans) > 0.9 * len(plans)


@pytest.mark.long
def test_the_sequence_depends_on_the_image_where_it_may() -> None:
    """Dark images need exposure, the others nothing, and a module costs: only a conditioned sequence can tell."""
    images = torch.stack([HalfLit()[number].image for number in range(1000, 1040)])
    lengths = {}
    for condition in ("image", "none"):
        config = replace(FAST, modules=("exposure", "denoise"), condition=condition, runtime_weight=3.0, group_size=4)
        subject = SequenceLearner(config, HalfLit(), WantsLight(), 10**6, 0)
        for _ in range(150):
            subject.iterate()
        lengths[condition] = [len(plan.stages) for plan in subject.policy().plan(images)]
    lit, dark = lengths["image"][::2], lengths["image"][1::2]
    assert sum(n == 0 for n in lit) >= 18 and sum(n == 1 for n in dark) >= 18
    assert len(set(lengths["none"])) == 1


@pytest.mark.parametrize("condition", ["image", "none"])
def test_a_line_makes_the_choice_go_with_the_light(condition: Any) -> None:
    """Exposure where the mean of log-light is low, stop where it is high, in training and in use."""
    subject = learner(replace(SMALL, condition=condition, averaging=0.0))
    with torch.no_grad():
        subject.network.sequence_line.weight[2, 0] = -40.0
        subject.network.sequence_head.bias.copy_(torch.tensor([-5.0, -5.0, 0.0, -5.0, -5.0, 1.0]))
    images = torch.stack([scale * GreyStream()[0].image for scale in (0.02, 1.0)])
    lengths = [len(plan.stages) for plan in subject.policy().plan(images)]
    assert lengths == ([1, 0] if condition == "image" else [0, 0])
    embedding = subject.network.embed(observe(images, "raw"))
    actions = torch.tensor([[2, 5, 5]] * 2)
    logs, _, _ = subject.network.log_probs(embedding, actions)
    assert (float((logs[0] - logs[1]).detach()) > 5) == (condition == "image")


@pytest.mark.long
def test_with_frozen_parameters_only_the_choice_of_modules_learns() -> None:
    """Nothing is differentiated through the detector, and the lines find which module the dark images want."""
    config = replace(FAST, rate=0.0, line_rate=0.0, sequence_line_rate=0.05, group_size=4, runtime_weight=0.5)
    subject = SequenceLearner(config, HalfLit(), Blind(), 8 * 120, 0)
    with torch.no_grad():  # as an earlier run would have left it: exposure by two stops
        first = sum(len(find_module(name, config.module_set).params) for name in BANDIT[: BANDIT.index("exposure")])
        exposure = find_module("exposure", config.module_set)
        wanted = exposure.logits_from_params({"ev": 2.0})[0] - exposure.logits_from_params(exposure.neutral_params)[0]
        subject.network.parameter_line.bias[first] = wanted
        subject.averaged.load_state_dict(subject.network.state_dict())
    before = [p.detach().clone() for p in subject.network.sets_parameters]
    chosen = [p.detach().clone() for p in subject.network.chooses]
    while not subject.done:
        metrics, _ = subject.iterate()
    assert metrics["gradient_norm"]["parameters"] == 0
    assert all(torch.equal(p, b) for p, b in zip(subject.network.sets_parameters, before, strict=True))
    assert not any(torch.equal(p, b) for p, b in zip(subject.network.chooses, chosen, strict=True))
    images = torch.stack([HalfLit()[number].image for number in range(1000, 1040)])
    lengths = [len(plan.stages) for plan in subject.policy().plan(images)]
    assert sum(lengths[1::2]) > 0.9 * 20 and sum(lengths[::2]) < 0.1 * 20


def test_the_sequence_head_is_uniform_at_first_and_sums_to_one() -> None:
    network = learner(replace(SMALL, horizon=3)).network
    with torch.no_grad():
        embedding = network.embed(observe(GreyStream()[0].image[None], "raw"))
    stop = len(BANDIT)
    every = [(*order, *([stop] * (3 - n))) for n in range(4) for order in itertools.permutations(range(stop), n)]
    probability = {}
    for spread in (0.0, 1.0):
        with torch.no_grad():
            network.sequence_head.weight.normal_(0, spread + 1e-9, generator=torch.Generator().manual_seed(0))
            total, _, _ = network.log_probs(embedding.expand(len(every), -1), torch.tensor(every))
        probability[spread] = dict(zip(every, total.exp().tolist(), strict=True))
        assert sum(probability[spread].values()) == pytest.approx(1.0, abs=1e-5)
    assert probability[0.0][(stop, stop, stop)] == pytest.approx(1 / 6, abs=1e-5)
    assert probability[0.0][(2, 0, 1)] == pytest.approx(1 / 6 / 5 / 4, abs=1e-5)
    # What is drawn is drawn by these probabilities.
    drawn = network.sample(embedding.expand(4000, -1), torch.Generator().manual_seed(1)).tolist()
    likeliest = max(probability[1.0], key=lambda key: probability[1.0][key])
    share, p = sum(tuple(row) == likeliest for row in drawn) / 4000, probability[1.0][likeliest]
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 4000)
    assert all(len({a for a in row if a != stop}) == sum(a != stop for a in row) for row in drawn)


def test_a_sequence_without_a_generator_takes_the_likeliest_actions() -> None:
    network = learner(replace(SMALL, horizon=5)).network
    with torch.no_grad():
        network.sequence_head.bias.copy_(torch.tensor([1.0, 5.0, 3.0, 0.0, 0.0, 2.0]))
        embedding = network.embed(observe(GreyStream()[0].image[None], "raw"))
    assert network.sample(embedding, None).tolist() == [[1, 2, 5, 5, 5]]


def test_candidates_are_edits_of_one_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    stop, base = 6, torch.tensor([4, 1, 3, 6, 6])
    kinds = {"drop": 0, "insert": 0, "move": 0}
    for _ in range(200):
        (row,) = edited(base, stop, 1, generator)
        modules, before = [a for a in row.tolist() if a != stop], [4, 1, 3]
        assert row.shape == base.shape and row.tolist()[: len(modules)] == modules and len(set(modules)) == len(modules)
        if len(modules) == 2:
            assert [a for a in before if a in modules] == modules
            kinds["drop"] += 1
        elif len(modules) == 4:
            assert [a for a in modules if a in before] == before
            kinds["insert"] += 1
        else:
            assert set(modules) == set(before) and modules != before
            kinds["move"] += 1
    assert min(kinds.values()) > 20
    assert len({tuple(row.tolist()) for row in edited(base, stop, 3, generator)}) == 3
    assert edited(torch.tensor([0]), 1, 1, generator)[0].tolist() == [1]  # all that can be done is to drop it
    full = torch.tensor([0, 1])
    assert all(sorted(row.tolist()) != [0, 1] or row.tolist() == [1, 0] for row in edited(full, 2, 3, generator))


def test_pairs_that_are_ordered_by_the_margin_add_no_gradient() -> None:
    ratio = torch.tensor([0.5, 5.0, 5.0, -5.0], requires_grad=True)
    neighbour_loss(torch.tensor([2.0, 2.0, -1.0, 3.0], requires_grad=True), ratio, 4.0).backward()
    assert ratio.grad is not None and ratio.grad.tolist() == [-0.5, 0.0, 0.25, -0.75]


def test_differences_are_divided_by_their_usual_size() -> None:
    """Pairs by hand: an image is worse by 4 without module 1 and better by 1 with module 0; a move makes 2."""
    comparisons, stop = Comparisons(3), 3
    actions = torch.tensor([[1, 2, 3], [2, 3, 3], [1, 2, 3], [1, 2, 0], [1, 2, 3], [2, 1, 3]])
    reward = torch.tensor([10.0, 6.0, 5.0, 6.0, 0.0, 2.0])
    assert comparisons.scaled(reward, actions, 2).tolist() == pytest.approx([-1.0, 1.0, 1.0], abs=1e-5)
    assert comparisons.module_advantage == pytest.approx([1.0, 4.0, 0.0]) and set(comparisons.known) == {0, 1}
    assert comparisons.squares == pytest.approx([1.0, 16.0, 0.0, 4.0]) and stop == len(comparisons.module_advantage)
    half = comparisons.scaled(torch.tensor([0.0, -2.0]), actions[:2], 2)  # the same kind again, half as large
    assert half.item() == pytest.approx(-2 / math.sqrt((16 + 4) / 2), abs=1e-5)
    assert comparisons.module_advantage[1] == pytest.approx((4 + 2) / 2)


@pytest.mark.long
def test_the_advantage_of_a_module_is_the_difference_it_makes() -> None:
    """Two stops of exposure take `WantsLight` from 0.3 off to nearly right: worth some tens of points."""
    subject = learner(replace(FAST, modules=("exposure", "desaturation"), group_size=2))
    for _ in range(80):
        metrics, _ = subject.iterate()
    assert 15 < metrics["worth"]["exposure"] < 35
    assert abs(metrics["worth"]["desaturation"]) < 5


def test_each_loss_moves_its_own_part_only() -> None:
    for moved in ("parameters", "sequence"):
        subject = learner(replace(SMALL, averaging=0.0))
        for number, group in enumerate(subject.optimiser.param_groups):
            group["start"] = 1e-3 if number % 2 == (moved == "sequence") else 0.0
        before = copy.deepcopy(dict(subject.network.named_parameters()))
        subject.iterate()
        changed = {n for n, p in subject.network.named_parameters() if not torch.equal(p, before[n])}
        assert changed and all(name.startswith("sequence") == (moved == "sequence") for name in changed)
    # Without a rate the line is no part: its gradient is in no norm that limits the others.
    assert set(learner().parts) == {"parameters", "sequence"}
    assert set(learner(replace(SMALL, sequence_line_rate=0.1)).parts) == {"parameters", "sequence", "lines"}
    # The sequence's loss has no gradient for the encoder at all.
    network = learner().network
    embedding = network.embed(observe(GreyStream()[0].image[None], "raw"))
    total, _, _ = network.log_probs(embedding, torch.tensor([[0, 1, 5]]))
    assert torch.autograd.grad(total.sum(), list(network.encoder.parameters()), allow_unused=True)[0] is None


def test_only_the_chosen_modules_run_each_image_through_its_own() -> None:
    subject = learner()
    image = torch.stack([GreyStream()[number].image for number in range(3)])
    with torch.no_grad():
        params = subject.network.params(subject.network.logits(subject.network.embed(observe(image, "raw"))))
        actions = torch.tensor([[2, 0, 5], [5, 5, 5], [1, 5, 5]])
        found = run_sequences(image, subject.modules, actions, params)
    for row, names in enumerate((("exposure", "sharpen"), (), ("saturation",))):
        expected = image[row : row + 1]
        for name in names:
            expected = find_module(name, "extended")(expected, params[name][row : row + 1])
        torch.testing.assert_close(found[row], expected[0], rtol=0, atol=1e-6)


@pytest.mark.long
def test_the_imitation_warm_up_costs_one_pass_an_image() -> None:
    config = replace(FAST, expert_modules=("denoise", "exposure"), imitation_warmup=1.0)
    subject = learner(config, budget=8 * 60)
    while not subject.done:
        metrics, _ = subject.iterate()
        assert metrics["modules"]["exposure"] == metrics["modules"]["denoise"] == 8
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1010)])
    assert {tuple(s.module for s in plan.stages) for plan in subject.policy().plan(images)} == {("denoise", "exposure")}
    assert subject.passes == subject.detector.passes == 480


@pytest.mark.parametrize(
    "changes",
    [{}, {"candidates": "samples", "group_size": 4}, {"condition": "none", "averaging": 0.0, "dropout": 0.5}],
    ids=str,
)
def test_a_run_resumes_bit_by_bit(changes: dict[str, Any]) -> None:
    config = replace(
        SMALL, preprocessing="auto-exposure", **{"expert_modules": ("exposure",), "imitation_warmup": 0.5, **changes}
    )
    through = learner(config, budget=64)
    for _ in range(3):
        through.iterate()
    saved = copy.deepcopy(through.state_dict())
    expected = [through.iterate()[0] for _ in range(4)]
    resumed = learner(config, seed=99, budget=64)
    resumed.load_state_dict(saved)
    assert [resumed.iterate()[0] for _ in range(4)] == expected
    ours, theirs = resumed.averaged.state_dict(), through.averaged.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_same_seed_repeats_whatever_was_drawn_before() -> None:
    first = learner(seed=3)
    torch.rand(7)
    second = learner(seed=3)
    assert first.iterate()[0] == second.iterate()[0]
    assert learner(seed=4).iterate()[0] != first.iterate()[0]


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
            return super().loss(image, targets) * float("nan")

    subject = SequenceLearner(SMALL, GreyStream(), Broken(), 1000, 0)
    before = copy.deepcopy(subject.network.state_dict())
    with pytest.raises(NonFiniteLossError, match="iteration 0") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (4, 3, 64, 64)
    assert all(torch.equal(value, before[name]) for name, value in subject.network.state_dict().items())


def test_an_image_that_a_module_makes_invalid_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two renderings of the second image is spoiled; the detector sees neither."""

    def spoiling(*inputs: Any) -> Tensor:
        spoiled = torch.ones(8, 1, 1, 1)
        spoiled[3] = float("nan")
        return run_sequences(*inputs) * spoiled

    monkeypatch.setattr("adaptiveisp.training.methods.sequence.shared.run_sequences", spoiling)
    subject = learner()
    metrics, _ = subject.iterate()
    assert metrics["dropped"] == 1 and subject.passes == subject.detector.passes == 6
    assert math.isfinite(metrics["detector_loss"]) and sum(metrics["modules"].values()) <= 18
    monkeypatch.setattr(
        "adaptiveisp.training.methods.sequence.shared.run_sequences", lambda image, *_: image * float("nan")
    )
    with pytest.raises(NonFiniteLossError, match="no rendering of iteration 1"):
        subject.iterate()


def test_its_file_is_a_policy_of_its_own_kind(tmp_path: Path) -> None:
    subject = learner(replace(SMALL, preprocessing="auto-exposure", averaging=0.0))
    subject.iterate()
    subject.save_policy(tmp_path, "best", {})
    policy = load_policy(str(tmp_path))
    images = torch.stack([GreyStream()[number].image for number in range(5)])
    assert policy.plan(images) == subject.policy().plan(images)  # type: ignore[union-attr]
    assert [stage.module for stage in policy.plan(images)[0].stages[:3]] == ["white_balance", "exposure", "srgb"]  # type: ignore[union-attr]
    path = tmp_path / "best.safetensors"
    with pytest.raises(WeightsError, match="of the kind sequence, not actor_critic"):
        load_policy_file(path)
    header, network = load_sequence_file(path)
    save_policy(path, replace(header, modules=header.modules[:-1]), {"sequence": network})
    with pytest.raises(WeightsError, match="last action must be stop"):
        load_sequence_file(path)
    save_policy(path, replace(header, horizon=2), {"sequence": network})
    assert all(len(plan.stages) <= 5 for plan in load_sequence(path).plan(images))


def test_gains_are_seen_whether_they_are_two_modules_or_one() -> None:
    image = 0.05 * torch.stack([GreyStream()[number].image for number in range(3)])
    seen = [observe(image, start).numbers[:, -2:] for start in ("auto-exposure", "auto-gain", "raw")]
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-5)
    assert (seen[0] - seen[2]).abs().min() > 0.01


@pytest.mark.parametrize("start", ["auto-exposure", "auto-gain"])
def test_a_plan_renders_what_training_saw(start: Any) -> None:
    """The pooled view stands for the image: training and use see the same numbers and run the same modules."""
    subject = learner(replace(SMALL, preprocessing=start, averaging=0.0))
    image = torch.stack([GreyStream()[number].image for number in range(3)])
    seen = observe(image, start)
    with torch.no_grad():
        embedding = subject.network.embed(seen)
        actions = subject.network.sample(embedding, None)
        begun = preprocessed_image(image, start, "extended")
        expected = run_sequences(
            begun, subject.modules, actions, subject.network.params(subject.network.logits(embedding))
        )
    for row, plan in enumerate(subject.policy().plan(image)):
        torch.testing.assert_close(plan.render(image[row : row + 1])[0], expected[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", ["image", "none"])
def test_what_is_used_says_what_the_network_says(condition: Any) -> None:
    subject = learner(replace(ADAPTIVE, condition=condition, size=64, averaging=0.0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in subject.network.named_parameters():
            if any(part in name for part in ("head", "line", "sequence_trunk")):
                weight.add_(0.5 * torch.randn(weight.shape, generator=generator))
        subject.network.sequence_head.bias[-1] -= 5  # does not stop at once
    brightness = torch.tensor([0.02, 0.1, 0.3, 1.0, 3.0, 6.0])[:, None, None, None]
    images = (brightness * torch.stack([GreyStream()[number].image for number in range(6)])).clamp(0, 1)
    frozen = subject.policy().inference
    with torch.no_grad():
        seen = observe(images, "auto-exposure")
        embedding = subject.network.embed(seen)
        params = subject.network.params(subject.network.logits(embedding))
        actions = subject.network.sample(embedding, None).tolist()
        torch.testing.assert_close(torch.from_numpy(frozen.embed(seen)), embedding, rtol=1e-5, atol=1e-5)
        with loading.turned_off():
            plain = observe(images, "auto-exposure")
            torch.testing.assert_close(torch.from_numpy(frozen.embed(plain)), subject.network.embed(plain))
    torch.testing.assert_close(seen.planes, plain.planes, rtol=0, atol=1e-4)
    shares, numbers = (seen.numbers - plain.numbers).abs().split([BINS, N_SCALARS], dim=1)
    assert shares.sum(dim=1).max() < 1e-3 and numbers.max() < 1e-4  # a value on a border may fall in either bin
    stop = len(subject.modules) - 1
    for row, ours in enumerate(frozen.embed(seen)):
        order = frozen.sequence(ours)
        assert order == [action for action in actions[row] if action != stop] and len(order) > 2
        for stage in frozen.stages(ours, order):
            expected = params[stage.module][row].tolist()
            assert list(stage.params.values()) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(set(map(tuple, actions))) > 1 or condition == "none"


def test_steps_and_forced_modules() -> None:
    policy = learner(replace(SMALL, expert_modules=("denoise", "exposure"))).policy()
    with torch.no_grad():
        policy.network.sequence_head.bias[:3] += 3
    image = GreyStream()[0].image[None]
    assert len(policy.plan(image)[0].stages) == 3
    assert policy.plan(image)[0].stages[:2] == replace(policy, steps=2).plan(image)[0].stages
    (forced,) = ForcedModules(policy, Pipeline((Stage("exposure", {"ev": 8.0}),))).plan(image)
    assert [stage.module for stage in forced.stages] == ["exposure"] and abs(forced.stages[0].params["ev"]) < 1


def test_a_warm_start_takes_the_network_and_refuses_others(tmp_path: Path) -> None:
    first = learner(seed=1)
    first.iterate()
    first.save_policy(tmp_path, "best", {})
    second = learner(replace(SMALL, runtime_weight=0.1), seed=2)
    second.warm_start(str(tmp_path))
    pairs = zip(second.network.parameters(), first.averaged.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and second.passes == 0
    with pytest.raises(WeightsError, match="has the horizon 3"):
        learner(replace(SMALL, horizon=4)).warm_start(str(tmp_path))


def test_a_warm_start_may_lack_modules_of_the_run(tmp_path: Path) -> None:
    names = ("denoise", "exposure", "gamma")
    small = learner(replace(SMALL, modules=names, module_set="extended"), seed=1)
    with torch.no_grad():
        for weight in small.averaged.parameters():
            weight.normal_(std=0.05)
    small.save_policy(tmp_path, "best", {})
    larger = replace(SMALL, modules=("fast_denoise", "gamma", "denoise", "tone", "exposure"), module_set="extended")
    grown = learner(replace(larger, warm_start_like={"fast_denoise": "denoise"}), seed=2)
    grown.warm_start(str(tmp_path))
    image = torch.stack([GreyStream()[number].image for number in range(4)])

    def params_of(subject: SequenceLearner, name: str) -> list[dict[str, float]]:
        return [dict(plan.stages[-1].params) for plan in subject.policy().plan_with(image, [name])]

    for name in ("gamma", "denoise"):
        expected = [pytest.approx(params, rel=1e-5) for params in params_of(small, name)]
        assert params_of(grown, name) == expected
    assert params_of(grown, "fast_denoise") == expected
    new = params_of(grown, "tone")[0]
    assert new == pytest.approx(dict(zip(new, find_module("tone", "extended").neutral, strict=True)), abs=0.05)
    # A sequence of modules that both have is as likely as before, up to what the others take.
    network, observation = grown.network, observe(image, "raw", "extended")
    old = small.averaged.log_probs(small.averaged.embed(observation), torch.tensor([[1, 0, 3]] * 4))[0]
    found = network.log_probs(network.embed(observation), torch.tensor([[4, 2, 5]] * 4))[0]
    assert (found < old).all()
    with pytest.raises(WeightsError, match="tone cannot take over the weights of denoise; name a module of this run"):
        learner(replace(larger, warm_start_like={"tone": "denoise"})).warm_start(str(tmp_path))
    with pytest.raises(WeightsError, match="has the modules"):
        learner(replace(larger, modules=("gamma", "tone"))).warm_start(str(tmp_path))


def test_every_preset_is_small_enough() -> None:
    for name, preset in PRESETS.items():
        subject = SequenceLearner(preset, GreyStream(), WantsLight(), 10, 0)
        assert sum(p.numel() for p in subject.network.parameters()) <= 530_000, name
        assert subject.modules[-1] is STOP
    everything = SequenceNetwork((*EXTENDED, STOP), "image", 14)
    assert sum(p.numel() for p in everything.parameters()) <= 530_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 3}, "group_size must be 2 or more"),
        ({"expert_modules": ("tone",)}, "expert_modules names tone, which modules lacks; add it to modules"),
        ({"imitation_warmup": 0.5}, "imitation_warmup needs expert_modules"),
        ({"modules": ("exposure", "exposure")}, "names a module twice"),
        ({"modules": ("srgb",)}, "helper"),
        ({"modules": ("bilateral_grid",)}, "bilateral_grid is no module to choose"),
        ({"module_set": "paper", "preprocessing": "auto-exposure"}, "needs wider ranges"),
        ({"last_temperature": 0.0}, "temperatures must be positive"),
        ({"costs": {"exposure": 1.0}}, "costs lacks the module"),
        ({"costs": dict.fromkeys(BANDIT, -1.0)}, "must not be negative"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(SMALL, **changes)


def test_the_default_starts_from_a_cameras_order() -> None:
    assert ADAPTIVE.expert_modules[0] == "denoise" and len(ADAPTIVE.expert_modules) <= ADAPTIVE.horizon


@pytest.mark.parametrize("name", ["adaptive", "fast"])
def test_the_recipe_of_a_shipped_policy_says_what_its_preset_says(name: str) -> None:
    recipe = {"adaptive": "sequence-tone", "fast": "sequence-three-local"}[name]
    assert resolve(*read_config(recipe_files()[recipe]), recipe)[1] == replace(
        with_module_names(PRESETS[name]), costs={}
    )

"""Episode, networks, reward terms and imported checkpoints against values by hand and the original's rollouts."""

import math
from pathlib import Path

import pytest
import torch

from adaptiveisp.errors import WeightsError
from adaptiveisp.isp.registry import PAPER, RELEASED
from adaptiveisp.policies.checkpoint import PolicyHeader, import_released, load_policy_file, save_policy
from adaptiveisp.policies.environment import advance, apply_chosen, start
from adaptiveisp.policies.stepwise.networks import VIEW, Actor, Critic, observe, observe_for_critic, pool
from adaptiveisp.training.gradients import finite_images
from adaptiveisp.training.rl import rewards as reward
from tests.golden import ROLLOUTS, GoldenValues, inside


def neutral(batch: int) -> dict[str, torch.Tensor]:
    return {m.name: torch.tensor([m.neutral] * batch) for m in PAPER}


def test_an_episode_by_hand() -> None:
    state = start(torch.full((2, 3, 8, 8), 0.1), 10)
    assert state.status.tolist() == [[0.0] * 13] * 2
    params = neutral(2) | {"exposure": torch.tensor([[1.0], [2.0]])}
    state = advance(state, PAPER, torch.tensor([0, 3]), params, horizon=2)
    torch.testing.assert_close(state.image[:, 0, 4, 4], torch.tensor([0.2, 0.1]))
    assert state.status[0].tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert state.status[1].tolist() == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    state = advance(state, PAPER, torch.tensor([0, 0]), params, horizon=2)
    torch.testing.assert_close(state.image[:, 0, 4, 4], torch.tensor([0.4, 0.4]))
    assert state.status[:, :3].tolist() == [[1, 1, 2], [1, 1, 2]]


def test_only_the_chosen_module_runs_and_gets_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("denoise ran")

    monkeypatch.setattr("adaptiveisp.isp.modules.denoise.nlm_forward", fail)
    image = torch.rand(5, 3, 8, 8)
    ev = torch.arange(5.0)[:, None] / 10
    action = torch.tensor([0, 8, 0, 8, 0])
    out = apply_chosen(image, PAPER, action, neutral(5) | {"exposure": ev, "desaturation": torch.ones(5, 1)})
    for i in (0, 2, 4):
        torch.testing.assert_close(out[i], (image[i] * 2 ** ev[i]).clamp(0, 1))
    for i in (1, 3):
        assert (out[i].amax(0) - out[i].amin(0)).max() < 1e-6


def test_gradients_reach_the_chosen_parameters_only() -> None:
    params = {name: value.requires_grad_() for name, value in neutral(2).items()}
    apply_chosen(torch.rand(2, 3, 8, 8) * 0.4 + 0.1, PAPER, torch.tensor([0, 1]), params).sum().backward()
    assert params["exposure"].grad is not None and params["exposure"].grad[1].item() == 0 != params["exposure"].grad[0]
    assert params["gamma"].grad is not None and params["gamma"].grad[0].item() == 0 != params["gamma"].grad[1]
    assert params["tone"].grad is None


def test_the_critics_statistics_by_hand() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[:, 0, :32] = 0.5  # the upper half is red 0.5, the lower black
    view = observe(start(image, 10))
    assert view.shape == (1, 16, 64, 64)
    planes = observe_for_critic(view)[0, 16:, 0, 0].tolist()
    luminance = 0.27 * 0.5
    n = 64 * 64
    assert planes[0] == pytest.approx(luminance / 2 + 1e-5)
    assert planes[1] == pytest.approx((luminance / 2) ** 2 * n / (n - 1), rel=1e-5)
    assert planes[2] == pytest.approx(0.5 * 0.5 / 0.51, rel=1e-5)


@pytest.mark.parametrize("size", [(128, 192), (64, 64), (100, 130)], ids=str)
def test_pooling_and_its_gradient(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, *size, generator=generator).requires_grad_()
    gradient = torch.rand(2, 3, VIEW, VIEW, generator=generator)
    expected = torch.nn.functional.adaptive_avg_pool2d(image, VIEW)
    for given in (gradient, gradient.contiguous(memory_format=torch.channels_last)):
        found = pool(image)
        torch.testing.assert_close(found, expected)
        (ours,) = torch.autograd.grad(found, image, given)
        (theirs,) = torch.autograd.grad(expected, image, given, retain_graph=True)
        torch.testing.assert_close(ours, theirs)


def test_an_image_with_one_broken_value_is_not_finite() -> None:
    images = torch.rand(5, 3, 8, 8)
    images[1, 2, 3, 4] = math.nan
    images[2, 0, 0, 0], images[2, 0, 0, 1] = math.inf, -math.inf
    images[3, 1, 7, 7] = -math.inf
    assert finite_images(images).tolist() == [True, False, False, False, True]


def test_sizes_of_the_networks() -> None:
    assert sum(p.numel() for p in Actor(PAPER).parameters()) == 7_168_869
    assert sum(p.numel() for p in Critic(10).parameters()) == 1_223_841


def test_probabilities_keep_a_uniform_share() -> None:
    probs = Actor(PAPER).eval()(torch.rand(3, 16, 64, 64)).probs
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(3))
    assert probs.min() >= 0.005 - 1e-7


def test_reward_terms_by_hand() -> None:
    assert reward.detection_reward(torch.tensor([1.5]), torch.tensor([0.4])).item() == pytest.approx(60)
    assert reward.detection_reward(torch.tensor([1.5]), torch.tensor([0.4]), None).item() == pytest.approx(110)
    even = torch.full((1, 10), 0.1)
    assert reward.entropy_penalty(even, 0.0).item() == pytest.approx(0, abs=1e-6)
    sure = torch.tensor([[1 - 9e-9, *[1e-9] * 9]])
    assert reward.entropy_penalty(sure, 0.5).item() == pytest.approx(0.025 * math.log(10), rel=1e-4)


@pytest.mark.parametrize("name", ROLLOUTS)
def test_golden_rollouts(name: str, golden: GoldenValues, released_checkpoint: Path) -> None:
    _, actor, critic = import_released(released_checkpoint)
    image = golden["rollout/input"]
    carried, single = start(image, 10), start(image, 10)
    with torch.no_grad():
        for k in range(5):
            expected = {
                key: golden[f"rollout/{name}/{key}"][k]
                for key in ("probs", "params", "value", "image", "state", "penalty")
            }
            selected = golden[f"rollout/{name}/selected"][k]
            view = observe(carried)
            choice = actor(view)
            torch.testing.assert_close(choice.probs, expected["probs"], rtol=0, atol=1e-5)
            torch.testing.assert_close(critic(view), expected["value"][:, 0], rtol=0, atol=1e-3)
            if name == "policy":
                assert torch.equal(choice.probs.argmax(dim=1), selected)
            for i, action in enumerate(selected.tolist()):
                row = choice.params[RELEASED[action].name][i]
                torch.testing.assert_close(row, expected["params"][i, : len(row)], rtol=0, atol=1e-4)
            penalty = reward.reuse_penalty(carried.used, selected) + reward.entropy_penalty(choice.probs, 1.0)
            torch.testing.assert_close(penalty, expected["penalty"][:, 0], rtol=0, atol=1e-4)
            one_step = advance(single, RELEASED, selected, actor(observe(single)).params)
            torch.testing.assert_close(one_step.image, expected["image"], rtol=0, atol=1e-5)
            carried = advance(carried, RELEASED, selected, choice.params)
            torch.testing.assert_close(carried.image, expected["image"], rtol=0, atol=1e-4)
            assert torch.equal(carried.status, expected["state"])
            single = type(one_step)(expected["image"], one_step.used, one_step.step, one_step.stopped)


@pytest.mark.parametrize("name", ROLLOUTS)
def test_golden_rollouts_from_their_actions(name: str, small_golden: GoldenValues) -> None:
    """Checks images, states and penalties for the original's actions and parameters, without networks, on a crop."""
    state = start(small_golden["crop/rollout/input"], 10)
    values = {key: small_golden[f"rollout/{name}/{key}"] for key in ("selected", "probs", "params", "state", "penalty")}
    for step, selected in enumerate(values["selected"]):
        rows = values["params"][step]
        params = {module.name: rows[:, : len(module.params)] for module in RELEASED}
        penalty = reward.reuse_penalty(state.used, selected) + reward.entropy_penalty(values["probs"][step], 1.0)
        torch.testing.assert_close(penalty, values["penalty"][step][:, 0], rtol=0, atol=1e-4)
        state = advance(state, RELEASED, selected, params)
        small_golden.check(f"crop/rollout/{name}/image/{step}", inside(state.image), atol=1e-4)
        assert torch.equal(state.status, values["state"][step])


def test_golden_penalty_with_runtime(golden: GoldenValues) -> None:
    probs, status = golden["edge/penalty_probs"], golden["edge/penalty_state"]
    action = torch.zeros(2, dtype=torch.long)
    costs = torch.tensor([m.cost_ms for m in RELEASED])
    total = reward.reuse_penalty(status[:, 3:], action) + reward.entropy_penalty(probs, 0.25)
    total = total + reward.runtime_penalty(costs, action, 0.005)
    torch.testing.assert_close(
        total, golden["edge/penalty_progress025_lambda0005_exposure_used"][:, 0], rtol=0, atol=1e-4
    )


def test_a_policy_file_round_trip(tmp_path: Path) -> None:
    torch.manual_seed(0)
    actor, critic = Actor(PAPER).eval(), Critic(10).eval()
    header = PolicyHeader("actor_critic", "paper", tuple(m.name for m in PAPER), origin="test")
    save_policy(tmp_path / "p.safetensors", header, {"actor": actor, "critic": critic})
    again, loaded, values = load_policy_file(tmp_path / "p.safetensors")
    assert again == header and values is not None
    view = torch.rand(2, 16, 64, 64)
    assert torch.equal(loaded(view).probs, actor(view).probs) and torch.equal(values(view), critic(view))


def test_bad_policy_files(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    (tmp_path / "text.pth").write_text("no pickle")
    torch.save({"agent_model": {}, "value_model": {}}, tmp_path / "empty.pth")
    for path, load, message in (
        ("gone.safetensors", load_policy_file, "no such policy file"),
        ("text.safetensors", load_policy_file, "cannot be read"),
        ("gone.pth", import_released, "no such checkpoint"),
        ("text.pth", import_released, "no released AdaptiveISP checkpoint"),
        ("empty.pth", import_released, "lacks"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            load(tmp_path / path)
        assert path in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    import os
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"agent_model": Evil(), "value_model": {}}, protocol=2))
    with pytest.raises(WeightsError, match="more than tensors and plain containers") as caught:
        import_released(tmp_path / "evil.pth")
    assert "weights_only" not in str(caught.value), "torch's advice would run it"
    assert not (tmp_path / "executed").exists()

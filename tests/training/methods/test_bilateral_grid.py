"""The bilateral-grid method: starts at the identity, learns and resumes exactly; its file is a policy as any other."""

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adaptiveisp.errors import UsageError, WeightsError
from adaptiveisp.policies.bilateral_grid.policy import BilateralGridPolicy
from adaptiveisp.policies.checkpoint import read_header
from adaptiveisp.policies.registry import NAMED_POLICIES, load_policy, shipped_file
from adaptiveisp.raw.array_files import write_png16
from adaptiveisp.streaming.stream import StreamConfig
from adaptiveisp.training.methods.bilateral_grid import GRID, PRESETS, BilateralGrid, BilateralGridConfig
from adaptiveisp.training.methods.learner import NonFiniteLossError
from tests.inference.test_predictor import red_box_raw
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, metrics, train_arguments
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

SMALL = replace(GRID, preprocessing="raw", grid_side=8, grid_depth=3, knots=4, size=64, precision="float32")
WITH_DENOISER = replace(SMALL, denoiser="guided_denoise")


def learner(config: BilateralGridConfig = SMALL, budget: int = 10**6) -> BilateralGrid:
    return BilateralGrid(config, GreyStream(), WantsLight(), budget, 0)


@pytest.mark.parametrize("preset", PRESETS)
def test_before_training_it_is_its_preprocessing(preset: str) -> None:
    image = torch.stack([GreyStream()[number].image for number in range(2)])
    policy = learner(replace(PRESETS[preset], size=64)).policy()
    assert sum(weight.numel() for weight in policy.network.parameters()) < 500_000
    plans, made = policy.process(image)
    expected = NAMED_POLICIES["auto-exposure"].process(image)[1]
    torch.testing.assert_close(made, expected, atol=0.08 if preset == "denoise" else 1e-2, rtol=0)
    names = [stage.module for stage in plans[0].stages]
    assert names == ["white_balance", "exposure", "srgb", *policy.header.modules]
    assert plans[0].stages[-1].params["gain"] == pytest.approx(1)


def test_it_learns_and_every_weight_moves() -> None:
    # After auto-exposure the guide lies between the centres of the depths, and has a gradient.
    subject = learner(replace(WITH_DENOISER, preprocessing="auto-exposure"), budget=8 * 30)
    before = copy.deepcopy(subject.network)
    losses = []
    while not subject.done:
        line, _ = subject.iterate()
        losses.append(line["detector_loss"])
    assert subject.passes == 240 == line["passes"]
    assert losses[-1] < 0.3 * losses[0]
    assert set(line["denoiser"]) == {"noise", "amount"}
    pairs = zip(before.named_parameters(), subject.network.parameters(), strict=True)
    assert not [name for (name, old), new in pairs if torch.equal(old, new)]


@pytest.mark.parametrize("config", [SMALL, WITH_DENOISER, replace(SMALL, averaging=0.0)])
def test_a_run_resumes_bit_by_bit(config: BilateralGridConfig) -> None:
    through = learner(config)
    for _ in range(2):
        through.iterate()
    saved = copy.deepcopy(through.state_dict())
    expected = [through.iterate()[0] for _ in range(2)]
    resumed = learner(config)
    resumed.load_state_dict(saved)
    assert [resumed.iterate()[0] for _ in range(2)] == expected
    for ours, theirs in zip(resumed.averaged.parameters(), through.averaged.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_its_file_is_a_policy_and_a_warm_start(tmp_path: Path) -> None:
    subject = learner(WITH_DENOISER)
    for _ in range(2):
        subject.iterate()
    subject.save_policy(tmp_path, "best", {})
    loaded = load_policy(str(tmp_path))
    assert isinstance(loaded, BilateralGridPolicy) and loaded.header.modules == ("guided_denoise", "bilateral_grid")
    image = torch.stack([GreyStream()[number].image for number in range(2)])
    plans, made = loaded.process(image)
    ours = subject.policy().process(image)
    assert plans == ours[0] and torch.equal(made, ours[1])
    again = pickle.loads(pickle.dumps(loaded))
    assert torch.equal(again.process(image)[1], made)
    torch.testing.assert_close(plans[0].render(image[:1]), made[:1])
    second = learner(WITH_DENOISER)
    second.warm_start(str(tmp_path))
    assert torch.equal(second.policy().process(image)[1], made)
    for change in ({"grid_depth": 4}, {"denoiser": "none"}, {"preprocessing": "auto-gain"}, {"knots": 5}):
        with pytest.raises(WeightsError, match="this run has"):
            learner(replace(WITH_DENOISER, **change)).warm_start(str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="is a policy of the kind sequence, not bilateral_grid"):
        learner().warm_start("coco-fast")


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    subject = learner()
    subject.save_policy(tmp_path, "best", {})
    path, header = tmp_path / "best.safetensors", read_header(tmp_path / "best.safetensors")
    assert header.kind == "bilateral_grid" and header.modules == ("bilateral_grid",)
    tensors = load_file(path)
    meta = json.dumps({"format": "adaptiveisp-policy", "format_version": 1, **vars(header)})
    del tensors["bilateral_grid.head.weight"]
    save_file(tensors, path, {"adaptiveisp-policy": meta})
    with pytest.raises(WeightsError, match=r"best\.safetensors: does not fit its network"):
        load_policy(str(path))
    wrong = json.dumps({**json.loads(meta), "modules": ["gamma", "exposure"]})
    save_file(load_file(shipped_file("coco-fast")), path, {"adaptiveisp-policy": wrong})
    with pytest.raises(WeightsError, match="does not fit its network"):
        load_policy(str(path))


@pytest.mark.parametrize(
    "change",
    [{"grid_side": 12}, {"grid_depth": 0}, {"knots": 0}, {"rate": 0.0}, {"averaging": 1.0}, {"module_set": "paper"}],
)
def test_settings_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(GRID, **change)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: torch.Tensor, targets: list[object]) -> torch.Tensor:
            return image.mean(dim=(1, 2, 3)) * float("nan")

    subject = BilateralGrid(SMALL, GreyStream(), Broken(), 1000, 0)  # type: ignore[arg-type]
    with pytest.raises(NonFiniteLossError, match="iteration 0") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (8, 3, 64, 64)


@pytest.mark.long
def test_train_eval_run_and_stream(tmp_path: Path, quiet_place: None, without_figures: None) -> None:
    labelled_photos(tmp_path)
    small = ("grid_side=8", "grid_depth=3", "knots=4", "batch=2")
    arguments = (*train_arguments("run", 6, small), "--method", "bilateral_grid", "--dev", "labels.json")
    assert adaptiveisp(*arguments) == 0
    assert [line["passes"] for line in metrics(tmp_path / "run")] == [2, 4, 6]
    assert (tmp_path / "run" / "best.safetensors").is_file()
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", "64", "--detector", RED)
    assert adaptiveisp("eval", *data, "--policy", "auto-exposure", "run", "--out", "report", "-q") == 0
    scored = json.loads((tmp_path / "report" / "report.json").read_text())["policies"]["run"]
    assert scored["red"]["modules_per_image"] == 4
    write_png16(red_box_raw().data, tmp_path / "a.png")
    how = ("--policy", "run", "--detector", RED, "--size", "64", "--full", "--save-steps", "--save-params", "-q")
    assert adaptiveisp("run", "a.png", *how, "--out", "seen") == 0
    content = json.loads((tmp_path / "seen" / "a.pipeline.json").read_text())
    assert [stage["module"] for stage in content["stages"]][-1] == "bilateral_grid" and content["incomplete"]
    assert (tmp_path / "seen" / "a.step04-bilateral_grid.png").is_file()
    assert adaptiveisp("run", "a.png", "--pipeline", "seen/a.pipeline.json", "--detector", RED, "--out", "again") != 0

    from adaptiveisp import AdaptiveISP

    isp = AdaptiveISP("run", "tests.support.fake_detector:load", size=64)
    frames = list(isp.stream([tmp_path / "a.png"] * 3, config=StreamConfig(every=2)))
    assert len(frames) == 3 and frames[2].result.pipeline is not None

"""One learned pipeline: it finds what helps, starts where it is told, resumes exactly, and its file is a policy."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adaptiveisp.errors import PipelineError, PolicyError, UsageError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.fixed import load_fixed
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.training.methods.fixed import PRESETS, RAW, Fixed, FixedConfig
from adaptiveisp.training.methods.learner import NonFiniteLossError
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

SMALL = replace(RAW, modules=("exposure", "white_balance"), initial={}, size=64, precision="float32")


def learner(config: FixedConfig = SMALL, budget: int = 10**6) -> Fixed:
    return Fixed(config, GreyStream(), WantsLight(), budget, 0)


def test_a_module_that_is_only_stated_is_refused() -> None:
    with pytest.raises(UsageError, match="bilateral_grid is no module to choose"):
        replace(SMALL, modules=("bilateral_grid",))


def test_the_best_exposure_is_found() -> None:
    subject = learner(budget=8 * 80)
    while not subject.done:
        metrics, _ = subject.iterate()
    assert subject.passes == 640 == metrics["passes"]
    images = torch.stack([GreyStream()[number].image for number in range(1000, 1016)])
    stops = subject.pipeline.stages[0].params["ev"]
    losses = {ev: subject.detector.loss(images * 2**ev, []).mean() for ev in (stops - 0.5, stops, stops + 0.5)}
    assert min(losses, key=lambda ev: losses[ev].item()) == stops
    assert metrics["parameters"]["exposure"]["ev"] == stops


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_begin_at_their_initial_values(preset: str) -> None:
    pipeline = learner(PRESETS[preset]).pipeline
    assert len(pipeline.stages) == 10
    values = {stage.module: stage.params for stage in pipeline.stages}
    assert values["exposure"]["ev"] == pytest.approx(4.0 if preset == "raw" else 0.0, abs=1e-4)
    assert values["white_balance"]["red"] == pytest.approx(1.0, abs=1e-4)
    # A neutral value keeps 2 % off the end of its range; one that was asked for may lie closer.
    assert values["denoise"]["h"] == pytest.approx(0.002 if preset == "raw" else 0.02, abs=1e-5)


def test_a_run_resumes_bit_by_bit() -> None:
    through = learner()
    for _ in range(3):
        through.iterate()
    saved = copy.deepcopy(through.state_dict())
    expected = [through.iterate()[0] for _ in range(3)]
    resumed = learner()
    resumed.load_state_dict(saved)
    assert [resumed.iterate()[0] for _ in range(3)] == expected


def test_its_file_is_a_policy_with_its_start(tmp_path: Path) -> None:
    subject = learner(replace(SMALL, preprocessing="auto-exposure"))
    subject.iterate()
    subject.save_policy(tmp_path, "best", {})
    loaded = load_policy(str(tmp_path))
    image = GreyStream()[3].image[None]
    (plan,) = loaded.plan(image)
    assert [stage.module for stage in plan.stages] == ["white_balance", "exposure", "srgb", "exposure", "white_balance"]
    assert loaded.plan(image) == [replace(plan)] == subject.policy().plan(image)
    with pytest.raises(PipelineError, match=r"best\.json: starts from auto-exposure.*as a policy"):
        Pipeline.load(tmp_path / "best.json")
    (tmp_path / "best.json").write_text('{"version": 1, "stages": [], "start": "dusk"}')
    with pytest.raises(PipelineError, match="start 'dusk' does not exist"):
        load_fixed(tmp_path / "best.json")


def test_a_warm_start_begins_at_another_runs_values(tmp_path: Path) -> None:
    first = learner()
    for _ in range(5):
        first.iterate()
    first.save_policy(tmp_path, "latest", {})
    second = learner()
    second.warm_start(str(tmp_path))
    for ours, theirs in zip(second.pipeline.stages, first.pipeline.stages, strict=True):
        assert dict(ours.params) == pytest.approx(dict(theirs.params), rel=1e-4)
    with pytest.raises(PolicyError, match="other modules or another preprocessing"):
        learner(replace(SMALL, preprocessing="auto-exposure")).warm_start(str(tmp_path))


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: torch.Tensor, targets: list[object]) -> torch.Tensor:
            return image.mean(dim=(1, 2, 3)) * float("nan")

    subject = Fixed(SMALL, GreyStream(), Broken(), 1000, 0)  # type: ignore[arg-type]
    before = [row.clone() for row in subject.rows]
    with pytest.raises(NonFiniteLossError, match="iteration 0") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (8, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(before, subject.rows, strict=True))

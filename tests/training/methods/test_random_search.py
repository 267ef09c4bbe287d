"""Random search: what it draws, whom it keeps, what a bracket costs, and its exact resumption."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.errors import PolicyError, UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.training.methods.learner import NonFiniteLossError
from adaptiveisp.training.methods.random_search import (
    PRESETS,
    RAW,
    Candidate,
    RandomSearch,
    RandomSearchConfig,
    better_half,
    clearly_lower,
    random_pipeline,
)
from adaptiveisp.types import Image, Targets
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

SMALL = replace(RAW, initial={}, size=64, candidates=8, batch=2, duel=8, precision="float32")
"""A bracket: rungs of 8·2, 4·4 and 2·8 passes and a duel of 2·8, together 64."""


CHEAP = ("exposure", "gamma", "contrast", "desaturation", "white_balance")


def learner(config: RandomSearchConfig = SMALL, budget: int = 10**6, seed: int = 0) -> RandomSearch:
    return RandomSearch(config, GreyStream(), WantsLight(), budget, seed)


def bright(ev: float) -> Pipeline:
    return Pipeline((Stage("exposure", {"ev": ev}),), "wide")


def test_pipelines_are_drawn_with_all_lengths_and_modules_around_the_starting_values() -> None:
    config = replace(RAW, spread=0.5)
    drawn = [random_pipeline(config, torch.Generator().manual_seed(seed)) for seed in range(400)]
    lengths = [len(pipeline.stages) for pipeline in drawn]
    assert {lengths.count(n) > 50 for n in (1, 2, 3, 4, 5)} == {True} and max(lengths) == 5
    for pipeline in drawn:
        names = [stage.module for stage in pipeline.stages]
        assert len(set(names)) == len(names)
    assert {stage.module for pipeline in drawn for stage in pipeline.stages} == set(config.chosen)
    assert len({pipeline.stages[0].module for pipeline in drawn}) == 10  # any may come first
    exposure = find_module("exposure", "wide")
    evs = [s.params["ev"] for pipeline in drawn for s in pipeline.stages if s.module == "exposure"]
    z = torch.tensor([exposure.logits_from_params({"ev": ev})[0] for ev in evs])
    centre = exposure.logits_from_params({"ev": 4.0})[0]  # of the preset, not neutral
    assert z.mean().item() == pytest.approx(centre, abs=0.12) and z.std().item() == pytest.approx(0.5, abs=0.1)
    assert random_pipeline(config, torch.Generator().manual_seed(3)) == drawn[3]


def test_the_better_half_goes_on_by_all_it_has_seen() -> None:
    candidates = [Candidate(bright(float(ev)), total) for ev, total in ((0, 0.0), (1, 5.0), (2, 1.0), (3, 1.0))]
    losses = torch.tensor([[3.0, 3.0], [0.0, 0.0], [0.5, 0.5], [1.0, 1.0]], dtype=torch.float64)
    left = better_half(candidates, losses)
    assert [(c.pipeline.stages[0].params["ev"], c.total) for c in left] == [(2.0, 2.0), (3.0, 3.0)]


def test_a_duel_is_won_by_more_than_a_standard_error() -> None:
    theirs = torch.tensor([1.0, 1.0, 1.0, 1.0])
    differences = torch.tensor([0.3, -0.1, 0.3, -0.1])  # mean 0.1, standard deviation 0.231, error 0.1155
    assert not clearly_lower(theirs - differences, theirs)
    assert clearly_lower(theirs - differences - 0.02, theirs)
    assert not clearly_lower(theirs, theirs - differences)


def test_a_bracket_costs_what_it_says_and_images_are_fresh() -> None:
    seen: list[int] = []

    class Watched(GreyStream):
        def __getitem__(self, number: int) -> TrainingImage:
            seen.append(number)
            return super().__getitem__(number)

    detector = WantsLight()
    subject = RandomSearch(SMALL, Watched(), detector, 10**6, 0)
    lines = [subject.iterate()[0] for _ in range(4)]
    assert [line["pipelines"] for line in lines] == [8, 4, 2, 2]
    assert [line["passes"] for line in lines] == [16, 32, 48, 64] and SMALL.bracket_passes(8) == 64
    assert detector.passes == 64
    assert seen == list(range(2 + 4 + 8 + 8))
    assert [line["brackets"] for line in lines] == [0, 0, 0, 1]


@pytest.mark.parametrize("budget", [20, 64, 100, 150, 300])
def test_the_budget_is_never_exceeded_and_hardly_wasted(budget: int) -> None:
    subject = learner(budget=budget)
    while not subject.done:
        metrics, _ = subject.iterate()
    assert budget - SMALL.bracket_passes(2) < metrics["passes"] <= budget
    assert not subject.candidates  # no bracket is left without its duel


def test_a_better_pipeline_is_found() -> None:
    """The detector wants light; three brackets find a pipeline that brings most of it."""
    subject = learner(replace(SMALL, candidates=16, duel=16, batch=4), budget=3 * 288)
    images = torch.stack([GreyStream()[number].image for number in range(5000, 5050)])

    def loss(pipeline: Pipeline) -> float:
        return subject.detector.loss(pipeline.render(images), []).mean().item()

    nothing = loss(subject.policy().pipeline)
    while not subject.done:
        subject.iterate()
    assert subject.bracket == 3
    assert nothing > 0.25 and loss(subject.policy().pipeline) < 0.15


def test_luck_alone_seldom_takes_over() -> None:
    """Where the losses are noise, a duel is won one time in six; the lower mean would win every other time."""

    class Noise(WantsLight):
        """Its loss depends on the image in a way that no pipeline can mean to use."""

        def loss(self, image: Image, targets: list[Targets]) -> Tensor:
            return (image.flatten(1).double().sum(dim=1) * 1e6).sin()

    subject = RandomSearch(replace(SMALL, modules=CHEAP, candidates=2, duel=16), GreyStream(), Noise(), 10**6, 0)
    takeovers, kept = 0, subject.best
    while subject.bracket < 40:
        subject.iterate()
        takeovers += subject.best != kept
        kept = subject.best
    assert 1 <= takeovers <= 13  # 40 / 6.3 = 6.3; half of them would be 20


def test_a_run_resumes_bit_by_bit_within_a_bracket(tmp_path: Path) -> None:
    config = replace(SMALL, modules=CHEAP)
    for before in (2, 3, 4):
        through = learner(config)
        for _ in range(before):
            through.iterate()
        torch.save(through.state_dict(), tmp_path / "latest.pt")
        expected = [through.iterate()[0] for _ in range(4)]
        resumed = learner(config)
        resumed.load_state_dict(torch.load(tmp_path / "latest.pt", weights_only=True))
        assert [resumed.iterate()[0] for _ in range(4)] == expected
        assert resumed.best == through.best
    assert learner(seed=1).iterate()[0] != learner(seed=0).iterate()[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_begin_with_the_start_alone(preset: str) -> None:
    subject = learner(PRESETS[preset], budget=12_000)
    assert subject.policy().pipeline.stages == () and subject.policy().preprocessing == preset
    assert len(PRESETS[preset].chosen) == 10


def test_a_warm_start_is_kept_until_it_is_beaten(tmp_path: Path) -> None:
    images = torch.stack([GreyStream()[number].image for number in range(50)])
    stops = math.log2(0.4 / images.mean().item())
    save_fixed(tmp_path / "good.json", FixedPipeline(bright(stops)))
    subject = learner(replace(SMALL, modules=("sharpen", "denoise", "desaturation")))
    subject.warm_start(str(tmp_path / "good.json"))
    for _ in range(12):  # three brackets of modules that bring no light
        subject.iterate()
    assert subject.bracket == 3
    assert subject.best.stages[0].params["ev"] == pytest.approx(stops)
    with pytest.raises(PolicyError, match="has the preprocessing raw"):
        learner(replace(SMALL, preprocessing="auto-exposure")).warm_start(str(tmp_path / "good.json"))


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Tensor:
            return image.mean(dim=(1, 2, 3)) * float("inf")

    subject = RandomSearch(SMALL, GreyStream(), Broken(), 1000, 0)
    with pytest.raises(NonFiniteLossError, match="not finite") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (2, 3, 64, 64)
    assert subject.passes == subject.iteration == 0 and not subject.candidates


def test_settings_that_make_no_sense_are_refused() -> None:
    for changes in ({"candidates": 12}, {"candidates": 1}, {"duel": 1}, {"spread": 0.0}, {"longest": 0}):
        with pytest.raises(UsageError):
            replace(SMALL, **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="budget must be at least 20"):
        learner(budget=19)

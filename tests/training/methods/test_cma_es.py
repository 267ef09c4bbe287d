"""CMA-ES: its mathematics on functions with a known minimum, and the learner on a detector with a known best gain."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaptiveisp.errors import PolicyError, UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline, save_fixed
from adaptiveisp.training.methods.cma_distribution import Constants, Distribution, default_population
from adaptiveisp.training.methods.cma_es import PRESETS, RAW, CmaEs, CmaEsConfig
from adaptiveisp.training.methods.learner import NonFiniteLossError
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.types import Image, Targets
from tests.training.methods.test_actor_critic import GreyStream, WantsLight


def minimised(function: Callable[[Tensor], Tensor], start: Tensor, generations: int, seed: int = 0) -> Distribution:
    generator = torch.Generator().manual_seed(seed)
    population = default_population(len(start))
    constants = Constants.of(len(start), population)
    found = Distribution.around(start, 0.5)
    for _ in range(generations):
        points = found.ask(population, generator)
        found = found.updated(points, function(points), constants)
    return found


def rotated_ellipsoid(n: int, condition: float) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """f(x) = (x - x*)ᵀ H (x - x*) with eigenvalues of H from 1 to `condition` along random axes; and H."""
    axes, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(7)))
    hessian = axes @ torch.diag(torch.logspace(0, math.log10(condition), n, dtype=torch.float64)) @ axes.T
    return lambda points: ((points - 0.3) @ hessian * (points - 0.3)).sum(dim=1), hessian


def test_a_rotated_ellipsoid_is_minimised_and_its_shape_is_learned() -> None:
    function, hessian = rotated_ellipsoid(6, 1e3)
    found = minimised(function, torch.ones(6, dtype=torch.float64), 400)
    assert function(found.mean[None]).item() < 1e-8
    assert found.sigma < 1e-3
    # On a quadratic C comes to the inverse of its matrix but for a factor: their product is nearly isotropic.
    values = torch.linalg.eigvals(found.covariance @ hessian).real
    assert (values.max() / values.min()).item() < 20
    assert 10 < found.axis_ratio < 100  # about the square root of the condition


def test_the_covariance_stays_symmetric_and_positive_definite() -> None:
    function, _ = rotated_ellipsoid(6, 1e6)
    generator = torch.Generator().manual_seed(1)
    constants, found = Constants.of(6, 9), Distribution.around(torch.zeros(6), 0.5)
    for generation in range(200):
        points = found.ask(9, generator)
        values = function(points)
        values[generation % 9] = math.inf  # a point that cannot be used
        found = found.updated(points, values, constants)
        assert torch.equal(found.covariance, found.covariance.T)
        assert torch.linalg.eigvalsh(found.covariance).min() > 0
    assert found.generation == 200


@pytest.mark.parametrize(("n", "population"), [(1, 4), (5, 8), (27, 13), (27, 40)])
def test_the_constants_are_those_of_the_tutorial(n: int, population: int) -> None:
    found = Constants.of(n, population)
    assert len(found.weights) == population // 2
    assert found.weights.sum().item() == pytest.approx(1, abs=1e-12)
    assert (found.weights > 0).all() and (found.weights.diff() < 0).all()
    assert 1 <= found.mu_eff <= population // 2
    assert 0 < found.c_1 + found.c_mu <= 1 and 0 < found.c_sigma < 1 and 0 < found.c_c <= 1
    lengths = torch.randn(200_000, n, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    assert found.chi == pytest.approx(lengths.mean().item(), rel=0.01 if n > 1 else 0.02)


def test_only_the_order_of_the_values_counts() -> None:
    start, constants = Distribution.around(torch.zeros(3), 0.5), Constants.of(3, 7)
    points = start.ask(7, torch.Generator().manual_seed(0))
    values = points.square().sum(dim=1)
    one, other = (start.updated(points, v, constants) for v in (values, 5 * values.exp() - 3))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.covariance, other.covariance)
    assert one.sigma == other.sigma


def test_one_generation_by_hand() -> None:
    """Two of four points recombined in one dimension: the mean moves to their weighted mean."""
    constants, start = Constants.of(1, 4), Distribution.around(torch.tensor([1.0]), 2.0)
    points = torch.tensor([[3.0], [1.0], [-1.0], [5.0]], dtype=torch.float64)
    found = start.updated(points, torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64), constants)
    first = math.log(2.5) / (2 * math.log(2.5) - math.log(2))  # weights ln 2.5 - ln i
    assert constants.weights.tolist() == pytest.approx([first, 1 - first])
    assert found.mean.item() == pytest.approx(3 * first + 1 * (1 - first))
    # y = (1, 0): rank-μ gives first · 1², the path is its first step.
    path = math.sqrt(constants.c_c * (2 - constants.c_c) * constants.mu_eff) * first
    expected = 1 - constants.c_1 - constants.c_mu + constants.c_1 * path**2 + constants.c_mu * first
    assert found.covariance.item() == pytest.approx(expected)
    length = math.sqrt(constants.c_sigma * (2 - constants.c_sigma) * constants.mu_eff) * first
    grown = 2 * math.exp(constants.c_sigma / constants.d_sigma * (length / constants.chi - 1))
    assert found.sigma == pytest.approx(grown)


SMALL = replace(RAW, modules=("exposure", "white_balance"), initial={}, size=64, precision="float32")


class NoGradient(WantsLight):
    """The same loss as a number that nothing can be differentiated by; it counts the images that it sees."""

    def loss(self, image: Image, targets: list[Targets]) -> Tensor:
        assert not torch.is_grad_enabled()
        return super().loss(image, targets).detach()


def learner(config: CmaEsConfig = SMALL, budget: int = 10**6, seed: int = 0) -> CmaEs:
    return CmaEs(config, GreyStream(), NoGradient(), budget, seed)


def best_exposure(images: Tensor) -> float:
    """The stops at which the mean distance of the means from 0.4 is least, by trying them all."""
    stops = torch.linspace(1, 3, 401)
    losses = [((images * 2**ev).clamp(max=1).mean(dim=(1, 2, 3)) - 0.4).abs().mean() for ev in stops.tolist()]
    return stops[int(torch.stack(losses).argmin())].item()


@pytest.mark.long
def test_the_best_exposure_is_found_without_a_gradient() -> None:
    subject = learner(replace(SMALL, modules=("exposure",), population=8), budget=8 * 8 * 30)
    while not subject.done:
        metrics, _ = subject.iterate()
    assert subject.passes == 8 * 8 * 30 == metrics["passes"] == subject.detector.passes  # type: ignore[attr-defined]
    images = torch.stack([GreyStream()[number].image for number in range(240)])
    (stage,) = subject.policy().pipeline.stages
    assert stage.params["ev"] == pytest.approx(best_exposure(images), abs=0.1)
    assert metrics["parameters"]["exposure"]["ev"] == stage.params["ev"]
    assert metrics["gradient_norm"] == {} and metrics["best_loss"] <= metrics["detector_loss"] < 0.1


def test_a_generation_sees_one_minibatch_and_the_next_a_fresh_one() -> None:
    seen: list[int] = []

    class Watched(GreyStream):
        def __getitem__(self, number: int):  # type: ignore[no-untyped-def]
            seen.append(number)
            return super().__getitem__(number)

    subject = CmaEs(replace(SMALL, batch=3), Watched(), NoGradient(), 1000, 0)
    subject.iterate()
    subject.iterate()
    assert seen == [0, 1, 2, 3, 4, 5]
    assert subject.passes == 2 * 3 * subject.population


def test_a_run_resumes_bit_by_bit(tmp_path: Path) -> None:
    through = learner()
    for _ in range(3):
        through.iterate()
    torch.save(through.state_dict(), tmp_path / "latest.pt")
    expected = [through.iterate()[0] for _ in range(3)]
    resumed = learner()
    resumed.load_state_dict(torch.load(tmp_path / "latest.pt", weights_only=True))
    assert [resumed.iterate()[0] for _ in range(3)] == expected
    assert [learner(seed=1).iterate()[0]] != [learner(seed=0).iterate()[0]]
    with pytest.raises(ValueError, match="another number of parameters"):
        learner(replace(SMALL, modules=("exposure",))).load_state_dict(through.state_dict())


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_begin_where_fixed_does(preset: str) -> None:
    settings = find_method("fixed").presets[preset]
    theirs = find_method("fixed").learner(settings, GreyStream(), WantsLight(), 100, 0)
    ours = learner(PRESETS[preset])
    assert ours.population == 13 and len(ours.distribution.mean) == 27
    for mine, other in zip(ours.pipeline.stages, theirs.policy().pipeline.stages, strict=True):  # type: ignore[attr-defined]
        assert mine.module == other.module
        assert dict(mine.params) == pytest.approx(dict(other.params), rel=1e-5, abs=1e-6)


def test_a_warm_start_begins_at_another_pipelines_values(tmp_path: Path) -> None:
    stages = (Stage("exposure", {"ev": 2.5}), Stage("white_balance", {"red": 1.0, "green": 1.0, "blue": 1.0}))
    save_fixed(tmp_path / "mine.json", FixedPipeline(Pipeline(stages, "wide")))
    subject = learner()
    subject.iterate()
    subject.warm_start(str(tmp_path / "mine.json"))
    assert subject.pipeline.stages[0].params["ev"] == pytest.approx(2.5, abs=1e-4)
    assert subject.distribution.sigma == SMALL.sigma and subject.distribution.generation == 0
    with pytest.raises(PolicyError, match="other modules or another preprocessing"):
        learner(replace(SMALL, modules=("exposure",))).warm_start(str(tmp_path / "mine.json"))


def test_a_point_that_is_no_pipeline_is_the_worst_and_costs_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = learner(replace(SMALL, modules=("ccm",), initial={}))
    points = subject.distribution.ask(subject.population, torch.Generator().manual_seed(0))
    points[0, :3] = 0.0  # the first row of the matrix is all zeros
    monkeypatch.setattr(Distribution, "ask", lambda *_: points)
    subject.iterate()
    assert subject.passes == (subject.population - 1) * SMALL.batch
    assert subject.distribution.mean[:3].abs().min() > 0


def test_a_loss_that_is_not_finite_stops_with_its_batch() -> None:
    class Broken(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Tensor:
            return image.mean(dim=(1, 2, 3)) * float("nan")

    subject = CmaEs(SMALL, GreyStream(), Broken(), 1000, 0)
    before = copy.deepcopy(subject.state_dict())
    with pytest.raises(NonFiniteLossError, match="not finite") as caught:
        subject.iterate()
    assert caught.value.batch["images"].shape == (8, 3, 64, 64)
    assert caught.value.batch["pipeline"]["stages"][0]["module"] == "exposure"
    assert torch.equal(before["distribution"]["mean"], subject.distribution.mean) and subject.passes == 0


def test_settings_that_make_no_sense_are_refused() -> None:
    for changes in ({"population": 3}, {"sigma": 0.0}, {"batch": 0}, {"initial": {"gamma": {"gamma": 1.0}}}):
        with pytest.raises(UsageError):
            replace(SMALL, **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="must have a parameter"):
        learner(replace(SMALL, modules=(), initial={}))

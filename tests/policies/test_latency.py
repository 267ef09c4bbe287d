"""Clock tables, and which modules are dropped from a pipeline that takes longer than a latency."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from adaptiveisp import AdaptiveISP, Pipeline, Stage
from adaptiveisp.errors import UsageError
from adaptiveisp.evaluation.benchmark import untrained_policy, untrained_sequence, whole_policies
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies import clock_table, latency
from adaptiveisp.policies.base import Developed, Policy
from adaptiveisp.policies.clock_table import ClockTable, low_quantile, module_times, policy_times, readings_of
from adaptiveisp.policies.fixed import FixedPipeline, ForcedModules
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.latency import Limit, WithinLatency, within_latency
from adaptiveisp.policies.registry import NAMED_POLICIES
from adaptiveisp.policies.sequence.networks import observe
from adaptiveisp.policies.sequence.policy import SequencePolicy
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector

TIMES = {"white_balance": 0.5, "exposure": 0.5, "srgb": 0.5, "denoise": 8.0, "gamma": 1.0, "sharpen": 2.0, "ccm": 1.5}
PIXELS = clock_table.pixels_of(80)
THREE = Pipeline((Stage("gamma", {"gamma": 0.8}), Stage("denoise", {"h": 0.1}), Stage("sharpen", {"factor": 1.5})))


def frame(height: int = 60, width: int = 80) -> Developed:
    generator = torch.Generator().manual_seed(0)
    return Developed(None, torch.rand(1, 3, height, width, generator=generator) * 0.3, (height, width))


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements find `TIMES`, 1 ms for other modules, and 0.25 ms for a policy."""
    named = {find_module(name, "extended").name: TIMES.get(name, 1.0) for name in TIMES}

    def times(names: Sequence[str], *_: Any) -> dict[str, float]:
        return {name: named.get(name, 1.0) for name in names}

    for module in (clock_table, latency):
        monkeypatch.setattr(module, "module_times", times)
    monkeypatch.setattr(clock_table, "policy_times", lambda *_: (0.25, 0.0))
    monkeypatch.setattr(latency, "excess_ms", lambda *_: 0.0)


def by_hand(times: Sequence[float], n_first: int, limit: float) -> set[tuple[int, ...]]:
    """The kept indices of every set of dropped modules of which none can be put back, by trying all."""
    own = range(n_first, len(times))
    fits = {
        (*range(n_first), *kept)
        for count in range(len(own) + 1)
        for kept in itertools.combinations(own, count)
        if sum(times[i] for i in (*range(n_first), *kept)) <= limit
    }
    return {kept for kept in fits if not any(set(kept) < set(other) for other in fits)}


@pytest.mark.parametrize("limit", [2.0, 4.4, 7.0, 9.5, 11.0, 13.0, 15.0])
@pytest.mark.parametrize("n_first", [0, 2])
def test_the_choices_are_those_to_which_nothing_can_be_added(limit: float, n_first: int) -> None:
    names = ["exposure", "gamma", "denoise", "sharpen", "ccm", "gamma"]
    subject = Limit(ClockTable(TIMES), limit)
    choices = subject.choices(names, n_first)
    times = [TIMES[name] for name in names]
    assert set(choices) == by_hand(times, n_first, limit) and len(set(choices)) == len(choices)
    assert all(subject.fits([names[i] for i in kept]) for kept in choices)
    ranks = [(-len(kept), -sum(times[i] for i in kept)) for kept in choices]
    assert ranks == sorted(ranks)  # fewest dropped first, then those that save least


def test_the_preprocessing_stays_even_if_it_is_too_long() -> None:
    assert Limit(ClockTable(TIMES), 0.1).choices(["exposure", "srgb", "gamma"], 2) == ((0, 1),)


def test_a_long_pipeline_keeps_its_fastest_modules() -> None:
    names = ["denoise", *["gamma"] * 14, "exposure"]
    (kept,) = Limit(ClockTable(TIMES), 5.6).choices(names)
    assert len(kept) == 6 and 15 in kept and 0 not in kept


def test_times_follow_the_number_of_pixels() -> None:
    subject = Limit(ClockTable(TIMES, policy_ms=1.0, size=80), 10.0)
    assert subject.fits(["denoise", "gamma"]) and not subject.fits(["denoise", "gamma"], pixels=2 * PIXELS)
    assert subject.choices(["denoise", "gamma"], pixels=2 * PIXELS) == ((1,),)


@pytest.mark.usefixtures("known_times")
def test_a_pipeline_is_shortened_before_it_runs() -> None:
    subject = within_latency(FixedPipeline(THREE, "mine"), 4.0, 80)
    found = subject.render(frame())
    assert found.dropped == ("denoise",) and subject.name == "mine" and subject.is_static
    left = Pipeline((THREE.stages[0], THREE.stages[2]))
    assert found.pipeline == left and torch.equal(found.image, left.render(frame().small))
    assert subject.plan(frame().small) == [left]
    large = subject.render(frame(120, 160))  # four times as many pixels
    assert large.dropped == ("gamma", "denoise", "sharpen") or large.pipeline == Pipeline(())
    whole = within_latency(FixedPipeline(THREE), 20.0, 80).render(frame())
    assert whole.dropped == () and whole.pipeline == THREE


@pytest.mark.parametrize(
    "limit, dropped",
    [(20.0, ()), (10.0, ("bilateral_grid",)), (5.0, ("denoise",)), (2.0, ("denoise", "bilateral_grid"))],
)
def test_a_bilateral_grid_keeps_its_grid_or_is_dropped_whole(limit: float, dropped: tuple[str, ...]) -> None:
    policy = next(one for one in whole_policies() if one.name == "bilateral grid after denoise")
    within = WithinLatency(policy, Limit(ClockTable({**TIMES, "bilateral_grid": 1.0}, size=80), limit))
    rendered = within.render(frame())
    assert rendered.dropped == dropped and rendered.pipeline is not None
    torch.testing.assert_close(rendered.image, rendered.pipeline.render(frame().small))
    assert ("incomplete" in rendered.pipeline.to_json()) == ("bilateral_grid" not in dropped)


@pytest.mark.usefixtures("known_times")
def test_what_a_policy_adds_itself_is_never_dropped(caplog: pytest.LogCaptureFixture) -> None:
    after = FixedPipeline(THREE, "after", "auto-exposure")
    first = [stage.module for stage in after.plan(frame().small)[0].stages[:3]]
    for policy in (after, ForcedModules(after, THREE)):
        found = within_latency(policy, 1.0, 80).render(frame())
        assert found.pipeline is not None and [stage.module for stage in found.pipeline.stages] == first
    assert "after: a latency of 1 ms cannot be kept: its own time and its preprocessing take 1.75 ms" in caplog.text


@pytest.mark.usefixtures("known_times")
def test_policies_that_are_not_planned_ahead_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    for policy in (NAMED_POLICIES["camera"], NAMED_POLICIES["greedy-oracle"], untrained_policy(2)):
        assert within_latency(policy, 1.0, 80) is policy
    assert caplog.text.count("no module is dropped for a latency of 1 ms") == 3


@pytest.mark.usefixtures("known_times")
def test_policies_that_render_by_themselves_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    class Brightens(FixedPipeline):
        def process(self, image: torch.Tensor, *, stopwatch: Any = None) -> tuple[list[Pipeline], torch.Tensor]:
            return self.plan(image), image.sqrt()

    policy = Brightens(THREE)
    assert within_latency(policy, 1.0, 80) is policy
    assert "no module is dropped for a latency of 1 ms, because it renders images by itself" in caplog.text
    assert isinstance(within_latency(FixedPipeline(THREE), 1.0, 80), WithinLatency)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_latency_is_a_positive_number(value: float) -> None:
    with pytest.raises(UsageError, match=r"latency_ms .*: give milliseconds above 0"):
        within_latency(AutoExposure(), value, 80)


def sequence_policy(seed: int = 3) -> SequencePolicy:
    """A sequence policy whose head prefers some modules."""
    policy = untrained_sequence()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weights in policy.network.parameters():
            weights.add_(0.3 * torch.randn(weights.shape))
        policy.network.sequence_head.bias[-1] -= 20.0  # it stops late
    return policy


def ln_pi(policy: SequencePolicy, orders: Sequence[Sequence[int]]) -> list[float]:
    """ln π by the network that learns."""
    network, stop = policy.network, len(policy.header.modules) - 1
    with torch.no_grad():
        embedding = network.embed(observe(frame().small, "auto-exposure"))
        rows = torch.tensor([[*order, *[stop] * (policy.header.horizon - len(order))] for order in orders])
        return network.log_probs(embedding.expand(len(rows), -1), rows)[0].tolist()


def test_likelihoods_are_those_of_the_network_that_learns() -> None:
    policy = sequence_policy()
    orders = [[], [4], [2, 0, 7], [7, 2, 0], list(range(policy.header.horizon))]
    observation = observe(frame().small, "auto-exposure")
    embedding = policy.inference.embed(observation)[0]
    assert policy.inference.log_likelihoods(embedding, orders) == pytest.approx(ln_pi(policy, orders), abs=1e-3)


@pytest.mark.usefixtures("known_times")
def test_a_sequence_policy_drops_what_its_head_prefers_to_leave_out() -> None:
    policy = sequence_policy().with_steps(7)
    plan = policy.plan(frame().small)[0]
    names = [stage.module for stage in plan.stages]
    assert len(names) == 10
    subject = within_latency(policy, 6.0, 80)
    assert isinstance(subject, WithinLatency)
    choices = subject.limit.choices(names, 3, 60 * 80)
    assert 1 < len(choices) <= latency.MOST_CHOICES
    orders = [[policy.header.modules.index(names[i]) for i in kept[3:]] for kept in choices]
    values = ln_pi(policy, orders)
    best = choices[values.index(max(values))]
    found = subject.render(frame())
    assert found.pipeline == Pipeline(tuple(plan.stages[i] for i in best), plan.module_set)
    assert found.dropped == tuple(names[i] for i in range(len(names)) if i not in best)
    assert torch.allclose(found.image, found.pipeline.clipped(found.pipeline.render(frame().small)), atol=1e-5)


def test_a_module_that_a_table_lacks_is_measured() -> None:
    limit = Limit(ClockTable({}, size=64), 1000.0)
    assert limit.choices(["gamma"]) == ((0,),) and 0 < limit.table.milliseconds["gamma"] < 1000


def test_a_busy_machine_hardly_changes_a_reading() -> None:
    assert low_quantile([5.0] * 4 + [500.0] * 11) == 5.0 and low_quantile([1.0] + [5.0] * 14) == 5.0
    moments = itertools.cycle([1.0, 1.0, 30.0, 40.0])
    assert readings_of({"one": lambda: next(moments)}) == {"one": 1.0}


def test_long_work_is_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"long": 0, "short": 0}

    def work(name: str, ms: float) -> float:
        calls[name] += 1
        return ms

    readings_of({"long": lambda: work("long", 300.0), "short": lambda: work("short", 0.1)})
    warm_up = 2
    assert calls == {
        "long": warm_up + clock_table.LEAST_REPEATS,
        "short": warm_up + clock_table.REPEATS,
    }


def test_a_module_is_measured_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = module_times(["gamma", "exposure"], "extended", 48, threads=1)
    monkeypatch.setattr(clock_table, "readings_of", lambda work: pytest.fail(str(work)) if work else {})
    assert module_times(["exposure", "gamma"], "extended", 48, threads=1) == first
    assert all(0 < ms < 1000 for ms in first.values())


def test_a_bilateral_grid_is_timed_with_a_grid_of_its_usual_size() -> None:
    assert 0 < module_times(["bilateral_grid"], "extended", 48, threads=1)["bilateral_grid"] < 1000


def test_the_own_time_of_a_policy_leaves_out_its_modules() -> None:
    own, step = policy_times(FixedPipeline(THREE), 64, threads=1)
    whole = FixedPipeline(THREE).render(frame(48, 64))
    assert 0 <= own < 50 and step == 0.0 and whole.modules_ms > 0
    table = clock_table.clock_table(AutoExposure(), 64, threads=1, costs={"srgb": 7.0, "tone": 3.0})
    assert table.milliseconds["srgb"] == 7.0 and list(table.milliseconds) == [
        "white_balance",
        "exposure",
        "srgb",
        "tone",
    ]
    assert "1 thread: policy " in table.text and "; srgb 7.00, " in table.text


@pytest.mark.usefixtures("known_times")
def test_the_result_of_a_raw_names_what_was_dropped() -> None:
    isp = AdaptiveISP(FixedPipeline(THREE), RedDetector(), size=80, latency_ms=4.0)
    result = isp(red_box_raw())
    assert result.dropped_modules == ("denoise",) and result.to_json()["dropped_modules"] == ["denoise"]
    plain = AdaptiveISP(FixedPipeline(THREE), RedDetector(), size=80)(red_box_raw())
    assert plain.dropped_modules == () and "dropped_modules" not in plain.to_json()


def test_a_latency_is_kept_by_the_times_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times with all threads are too short where something else runs on the same cores."""
    asked: list[int | None] = []

    def measured(policy: Policy, size: int, device: str, threads: int | None, costs: Any) -> ClockTable:
        asked.append(threads)
        return ClockTable({"sharpen": 4.0}, size=size)

    monkeypatch.setattr(latency, "clock_table", measured)
    within_latency(FixedPipeline(THREE), 9.0, 64)
    assert asked == [1]

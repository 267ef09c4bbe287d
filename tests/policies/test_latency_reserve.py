"""The reserve beyond the clock table's sum, by policies whose times are known."""

import time
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies import latency, latency_reserve
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.clock_table import ClockTable
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.latency_reserve import excess_ms, nearly_all, reserve_ms
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch

ONE = Pipeline((Stage("gamma", {"gamma": 1.2}),))


@dataclass(frozen=True)
class SlowAfterOthers(Policy):
    """Works 8 ms in the first run after other work, and nearly nothing in the runs after it."""

    others: list[bool] = field(default_factory=list)
    name: str = "slow after others"

    def plan(self, image: Image) -> list[Pipeline]:
        return [ONE] * len(image)

    def process(self, image: Image, *, stopwatch: Stopwatch | None = None) -> tuple[list[Pipeline], Image]:
        end = time.process_time() + (0.008 if self.others else 0.0)
        self.others.clear()
        while time.process_time() < end:
            pass
        return self.plan(image), image


class Noted(nn.Module):
    """Stands for the detector's work, and tells the policy of it."""

    def __init__(self, others: list[bool]):
        super().__init__()
        self.others = others

    def forward(self, image: Image) -> Image:
        self.others.append(True)
        return image


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> SlowAfterOthers:
    found = SlowAfterOthers()
    monkeypatch.setattr(latency_reserve, "_detector_like", lambda _: Noted(found.others))
    return found


def test_the_reserve_is_what_a_run_after_other_work_takes_beyond_the_sum(policy: SlowAfterOthers) -> None:
    table = ClockTable({"gamma": 2.0}, policy_ms=1.0, size=32, threads=1)
    assert 5.0 <= excess_ms(policy, table) < 5.0 + 20.0  # 8 ms of which the table knows 3
    assert excess_ms(policy, replace(table, policy_ms=1000.0)) == latency_reserve.LEAST_EXCESS
    assert reserve_ms(5.0, 40.0) == 7.0


def test_one_long_run_of_twenty_is_left_out() -> None:
    assert nearly_all([*[2.0] * 19, 90.0]) == 2.0 and nearly_all([*[2.0] * 18, 5.0, 90.0]) == 5.0
    assert nearly_all([1.0, 2.0, 3.0]) == 3.0  # of few runs none is left out


def test_a_slow_policy_runs_seldom(policy: SlowAfterOthers, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[bool] = []
    monkeypatch.setattr(latency_reserve, "_detector_like", lambda _: Noted(runs))
    monkeypatch.setattr(latency_reserve, "MOST_SECONDS", 0.0)
    excess_ms(policy, ClockTable({"gamma": 1.0}, size=32, threads=1))
    assert len(runs) == latency_reserve.LEAST_REPEATS


def test_a_real_policy_has_a_reserve_in_milliseconds_and_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    assert 0 < excess_ms(FixedPipeline(ONE), ClockTable({"gamma": 0.0}, size=64, threads=1)) < 1000
    assert torch.equal(torch.get_rng_state(), before)


def test_the_time_of_choosing_what_is_dropped_is_in_the_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for twice: with the first reserve modules may be dropped, and to choose them takes time as well."""
    seen = []

    def asked(policy: Policy, table: ClockTable) -> float:
        assert isinstance(policy, latency.WithinLatency) and table.policy_ms == 1.0
        seen.append(table.reserve_ms)
        return 4.5 if table.reserve_ms else 3.5

    monkeypatch.setattr(latency, "clock_table", lambda *_, **__: ClockTable({"gamma": 2.0}, policy_ms=1.0, size=32))
    monkeypatch.setattr(latency, "excess_ms", asked)
    found = latency.within_latency(FixedPipeline(ONE), 6.0, 32)
    assert seen == [0.0, 3.5 + 0.3]
    assert isinstance(found, latency.WithinLatency) and found.limit.table.reserve_ms == 4.5 + 0.3


def test_a_latency_keeps_the_reserve_free_unless_costs_are_given(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(latency, "clock_table", lambda *_, **__: ClockTable({"gamma": 2.0}, policy_ms=1.0, size=32))
    monkeypatch.setattr(latency, "excess_ms", lambda *_: 4.0)
    for none in (None, {}):
        found = latency.within_latency(FixedPipeline(ONE), 6.0, 32, costs=none)
        assert isinstance(found, latency.WithinLatency)
        assert not found.limit.fits(["gamma"]) and found.limit.choices(["gamma"]) == ((),)
    given = latency.within_latency(FixedPipeline(ONE), 6.0, 32, costs={"gamma": 2.0})
    assert isinstance(given, latency.WithinLatency) and given.limit.fits(["gamma"])
    assert not caplog.text
    latency.within_latency(FixedPipeline(ONE), 5.0, 32)
    text = "5 ms may not be kept: its own time and its preprocessing take 1.00 ms at size 32, and 4.25 ms more for some"
    assert text in caplog.text


def test_the_reserve_is_the_same_for_images_of_any_size() -> None:
    """Emptied caches cost the same whatever the image's pixels are."""
    limit = latency.Limit(ClockTable({"gamma": 2.0}, policy_ms=0.0, size=40, reserve_ms=2.0), 6.0)
    pixels = 40 * 30
    assert limit.fits(["gamma"], pixels=2 * pixels) and not limit.fits(["gamma"], pixels=2 * pixels + 1)

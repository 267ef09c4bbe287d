"""The clock table of a run, its latency: the multiplier, the choice on dev, what is left out, and resumption."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import adaptiveisp
from adaptiveisp.errors import UsageError
from adaptiveisp.policies.clock_table import ClockTable
from adaptiveisp.policies.latency import Limit
from adaptiveisp.training import latency
from adaptiveisp.training.config import TrainConfig, make_settings, read_config, recipe_files, resolve
from adaptiveisp.training.dev_scores import DevScore
from adaptiveisp.training.dev_selection import DevSelection
from adaptiveisp.training.methods.actor_critic.settings import CPU, PRESETS, ActorCriticConfig
from adaptiveisp.training.methods.sequence.settings import ADAPTIVE, FAST, SequenceConfig
from adaptiveisp.training.rl import runtime_price
from adaptiveisp.training.rl.runtime_price import RuntimePrice
from adaptiveisp.training.runs import resumed_run
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import QUICK, metrics, train_arguments
from tests.support.training_runs import adaptiveisp as command
from tests.training.methods.test_sequence import learner

pytestmark = pytest.mark.usefixtures("quiet_place", "known_times")

TIMES = {"white_balance": 0.5, "exposure": 0.5, "srgb": 0.5, "gain": 0.5, "denoise": 8.0, "gamma": 1.0, "sharpen": 2.0}
SMALL = {"batch": 4, "size": 64, "expert_modules": ["denoise", "gamma"], "imitation_warmup": 0.5, "horizon": 3}
"""Settings of the sequence method that make an iteration quick."""


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measurements find `TIMES`, 1 ms for other modules, and 0.25 ms for the policy."""
    monkeypatch.setattr(latency, "module_times", lambda names, *_: {name: TIMES.get(name, 1.0) for name in names})
    monkeypatch.setattr(latency, "policy_times", lambda *_: (0.25, 0.125))
    monkeypatch.setattr(latency, "excess_ms", lambda *_: 0.0)


def photos(folder: Path, **changes: Any) -> TrainConfig:
    labelled_photos(folder)
    config = TrainConfig(str(folder / "labels.json"), str(folder / "images"), "sequence", light="mixed", budget=8)
    return replace(config, **changes)


def measured(settings: Any, method: str = "sequence") -> tuple[Any, dict[str, Any]]:
    return latency.with_clock(TrainConfig(method=method, dev_size=64), settings, RedDetector(), "cpu")


def test_a_new_run_stores_the_clock_and_a_config_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = photos(tmp_path)
    adaptiveisp.train(config, SMALL, out=tmp_path / "run", detector=RedDetector())
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    costs = stored["settings"]["costs"]
    assert {costs[name] for name in ("denoise", "sharpen", "tone")} == {8.0, 2.0, 1.0}
    assert (stored["settings"]["policy_ms"], stored["settings"]["step_ms"]) == (0.25, 0.125)
    assert stored["provenance"]["cost_table"] == "clock"
    assert stored["provenance"]["clock_table"] == {"size": 416, "threads": 1, "device": "cpu"}
    monkeypatch.setattr(latency, "_measured", lambda *_: pytest.fail("measured again"))
    options, settings = resolve(*read_config(tmp_path / "run" / "config.yaml"), "config.yaml")
    again = adaptiveisp.train(options, settings, out=tmp_path / "again", detector=RedDetector())
    assert metrics(again.folder) == metrics(tmp_path / "run")
    with resumed_run(tmp_path / "run", lambda _: RedDetector()) as run:
        assert run.settings.costs == costs and run.costs == costs and run.limit is None


def test_the_default_of_new_runs_is_the_clock_and_that_of_files_the_papers() -> None:
    assert make_settings("sequence", "", {}, "train").costs == "clock"
    assert make_settings("actor_critic", "", {}, "train").costs == "clock"
    assert {PRESETS[name].costs == {} for name in ("paper", "released")} == {True}
    assert make_settings("sequence", "", {}, "old.yaml", from_file=True).costs == "paper"
    assert make_settings("sequence", "", {"costs": "clock"}, "new.yaml", from_file=True).costs == "clock"
    assert SequenceConfig().costs == {} and ActorCriticConfig().costs == {}  # Python code of earlier versions


def test_no_recipe_is_measured() -> None:
    for name, path in recipe_files().items():
        options, settings = resolve(*read_config(path), name)
        kept, facts = latency.with_clock(options, settings, RedDetector(), "cpu")
        assert kept is settings and not facts and getattr(settings, "costs", {}) != "clock", name


def test_a_run_without_a_penalty_measures_nothing() -> None:
    assert measured(CPU, "actor_critic") == (replace(CPU, costs="paper"), {"cost_table": "paper"})
    with_penalty, facts = measured(replace(CPU, runtime_weight=0.01), "actor_critic")
    assert with_penalty.costs["denoise"] == 8.0 and facts["cost_table"] == "clock"
    table = dict.fromkeys(ADAPTIVE.chosen, 3.0)
    assert measured(replace(ADAPTIVE, costs=table)) == (replace(ADAPTIVE, costs=table), {})
    assert measured(replace(ADAPTIVE, costs={}))[0].costs == {}


def test_a_latency_measures_what_is_kept_free_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stored configuration keeps it, whatever its latency is; one without it, and costs of one's own, get none."""
    monkeypatch.setattr(latency, "excess_ms", lambda *_: 1.5)
    monkeypatch.setattr(latency, "_EXCESS", {})
    found, _ = measured(replace(ADAPTIVE, latency_ms=50.0))
    without, _ = measured(ADAPTIVE)
    assert (found.excess_ms, without.excess_ms, found.policy_ms) == (1.5, 0.0, without.policy_ms)
    assert latency.training_limit(found).usable_ms == 50.0 - 1.5 - 0.05 * 50.0
    monkeypatch.setattr(latency, "excess_ms", lambda *_: pytest.fail("measured again"))
    assert measured(found)[0] == found
    other, _ = measured(replace(found, latency_ms=20.0))
    assert latency.training_limit(other).usable_ms == 20.0 - 1.5 - 0.05 * 20.0
    assert "excess_ms" not in caplog.text
    old, _ = measured(replace(without, latency_ms=20.0))
    assert (
        old.excess_ms == 0.0 and "latency_ms 20: the clock table of this configuration has no excess_ms" in caplog.text
    )
    own, _ = measured(replace(ADAPTIVE, costs=dict.fromkeys(ADAPTIVE.chosen, 3.0) | {"srgb": 0.1}, latency_ms=50.0))
    assert own.excess_ms == 0.0


def test_a_table_of_ones_own_is_kept_with_a_latency() -> None:
    table = {**dict.fromkeys(ADAPTIVE.chosen, 3.0), "srgb": 0.1}
    found, facts = measured(replace(ADAPTIVE, costs=table, latency_ms=50.0))
    assert found.costs == table and found.policy_ms == 0.25 and "cost_table" not in facts


def test_expert_modules_for_which_there_is_no_time_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    found, _ = measured(replace(FAST, latency_ms=3.0))
    assert found.expert_modules == ("local_tone",) and found.imitation_warmup == FAST.imitation_warmup
    assert "leaves no time for 1 of 2 expert modules of the imitation warm-up: denoise" in caplog.text
    alone, _ = measured(replace(FAST, latency_ms=1.0))
    assert alone.expert_modules == () and alone.imitation_warmup == 0.0


LISTED = {
    **{"candidates": "listed", "group_size": 2, "expert_modules": (), "imitation_warmup": 0.5, "horizon": 2},
    "pipelines": (("denoise", "gamma"), ("gamma",)),
}


def test_listed_pipelines_keep_their_warmup_and_those_that_take_too_long_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, _ = measured(replace(ADAPTIVE, **LISTED, latency_ms=5.0))  # type: ignore[arg-type]
    assert settings.imitation_warmup == 0.5 and settings.pipelines == LISTED["pipelines"]
    assert "latency_ms 5: 1 of pipelines take longer: denoise, gamma (11.00 ms)" in caplog.text
    with pytest.raises(UsageError, match=r"the fastest of the listed pipelines take 2\.88 ms"):
        measured(replace(ADAPTIVE, **LISTED, latency_ms=2.5))  # type: ignore[arg-type]


def test_a_latency_below_the_least_possible_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        measured(replace(ADAPTIVE, latency_ms=1.0))
    what = "the policy's own time and its preprocessing take 1.75 ms on this machine; give at least 1.75"
    assert str(caught.value) == f"latency_ms 1: {what}"
    assert measured(replace(ADAPTIVE, latency_ms=1.75))[0].expert_modules == ()


def test_the_least_possible_latency_that_a_refusal_names_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept free grows with the latency: 1.75 ms, 1.5 ms and 5 % of it."""
    monkeypatch.setattr(latency, "excess_ms", lambda *_: 1.5)
    monkeypatch.setattr(latency, "_EXCESS", {})
    text = r"take 1\.75 ms on this machine, beside a reserve of 1\.55 ms; give at least 3\.43"
    with pytest.raises(UsageError, match=text):
        measured(replace(ADAPTIVE, latency_ms=1.0))
    assert measured(replace(ADAPTIVE, latency_ms=3.43))[0].expert_modules == ()
    own = replace(ADAPTIVE, costs=dict.fromkeys(ADAPTIVE.chosen, 3.0) | {"srgb": 0.1}, policy_ms=1.0)
    with pytest.raises(UsageError) as caught:
        measured(replace(own, latency_ms=1.0))
    named = float(str(caught.value).rsplit(" ", 1)[1])
    measured(replace(own, latency_ms=named))
    with pytest.raises(UsageError):
        measured(replace(own, latency_ms=named - 0.02))


def test_a_fixed_pipeline_has_the_modules_for_which_there_is_time(caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings("fixed", "raw", {"latency_ms": 11.0}, "train")
    found, _ = measured(settings, "fixed")
    assert "denoise" not in found.modules and set(found.initial) == {"exposure", "gamma"}
    assert "leaves no time for 1 of 10 modules of the pipeline: denoise" in caplog.text
    assert sum(TIMES.get(name, 1.0) + 0.125 for name in found.modules) + 0.25 <= 11.0 and found.costs["gamma"] == 1.0
    with pytest.raises(UsageError, match=r"the preprocessing and the fastest module take 0\.88 ms"):
        measured(replace(settings, latency_ms=0.5), "fixed")


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("cma_es", {"latency_ms": 3.0}, "cma_es keeps no latency; leave it out, or choose sequence"),
        ("sequence", {"latency_ms": 0.0}, "latency_ms 0.0: give milliseconds above 0"),
        ("actor_critic", {"latency_ms": 5.0, "rollout": 2}, "latency_ms needs whole episodes"),
        ("sequence", {"costs": "watch"}, "costs = 'watch' does not fit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(method: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_settings(method, "", changes, "train")


NO_EXPERTS: dict[str, Any] = {"expert_modules": (), "imitation_warmup": 0.0}


def limited(**changes: Any) -> SequenceConfig:
    settings = replace(ADAPTIVE, size=64, latency_ms=5.0, runtime_weight=0.02, precision="float32", **changes)
    return measured(settings)[0]


def test_the_multiplier_rises_while_pipelines_are_too_long_and_falls_otherwise() -> None:
    price = RuntimePrice(limited())
    room = 5.0 - 0.25 - 1.5  # the policy's own time, and auto-exposure
    price.observe(torch.tensor([room + 0.1] * 4), imitating=True, group_size=2)
    assert (price.weight, price.share) == (0.02, pytest.approx(0.05))
    share, weight = 0.05, 0.02
    for over in (1.0, 0.5, 0.0):
        costs = torch.tensor([room + 0.1 if over > 0.2 else room, 99.0, room + 0.1 if over > 0.7 else room, 99.0])
        price.observe(costs, imitating=False, group_size=2)  # the second of each pair is an edit
        share = 0.95 * share + 0.05 * over
        weight *= math.exp(0.05 * (share - 0.05))
        assert (price.weight, price.share) == (pytest.approx(weight), pytest.approx(share))
    assert price.config.runtime_weight == price.weight
    for cost, start, end in ((room + 1, 9.0, runtime_price.MOST_WEIGHT), (0.0, 0.0011, runtime_price.LEAST_WEIGHT)):
        price.weight, price.share = start, 0.05
        for _ in range(200):
            price.observe(torch.full((2,), cost), imitating=False, group_size=1)
        assert price.weight == end


def test_listed_pipelines_count_with_their_probability() -> None:
    listed = (("gamma",), ("denoise",))
    price = RuntimePrice(limited(**NO_EXPERTS, candidates="listed", pipelines=listed, group_size=2))
    price.observe(torch.tensor([1.0, 8.0] * 2), False, 2, torch.tensor([0.75, 0.25, 0.5, 0.5]).log())
    assert price.share == pytest.approx(0.95 * 0.05 + 0.05 * 0.375)


def test_without_a_latency_the_price_is_the_setting() -> None:
    price = RuntimePrice(ADAPTIVE)
    price.observe(torch.full((4,), 1e6), imitating=False, group_size=2)
    assert price.weight == 0.02 and price.config is ADAPTIVE and not price.metrics and not price.state_dict()


def test_a_module_costs_what_it_adds_to_the_policys_time() -> None:
    subject = learner(limited(**NO_EXPERTS))
    named = dict(zip([module.name for module in subject.modules], subject.costs.tolist(), strict=True))
    assert (named["denoise"], named["gamma"], named["stop"]) == (8.125, 1.125, 0.0)


def test_a_learner_goes_on_with_its_multiplier() -> None:
    config = limited(**NO_EXPERTS)
    one, other = learner(config), learner(config, seed=5)
    first = [one.iterate()[0] for _ in range(2)]
    assert first[0]["latency"]["weight"] != first[1]["latency"]["weight"]
    other.load_state_dict(one.state_dict())
    assert other.iterate()[0] == one.iterate()[0]


def score(ap50: float, within: float) -> DevScore:
    return DevScore(ap50, ap50, 1.0, 50.0, {}, ("gamma",), within=within, within_clock=within / 2)


def test_the_best_policy_is_the_best_of_those_that_keep_the_latency() -> None:
    selection = DevSelection(runtime_weight=0.5)
    assert selection.takes(score(0.3, 0.5), 1) and selection.takes(score(0.1, 0.6), 2)
    assert not selection.takes(score(0.4, 0.59), 3) and selection.takes(score(0.2, 0.6), 4)
    assert not selection.latency(4.0)["kept_on_dev"]
    assert selection.takes(score(0.05, 0.95), 5)
    assert not selection.takes(score(0.04, 1.0), 6) and not selection.takes(score(0.5, 0.94), 7)
    assert selection.takes(score(0.06, 0.96), 8)
    expected = {"latency_ms": 4.0, "kept_on_dev": True, "share_on_dev_by_table": 0.96, "share_on_dev_by_clock": 0.48}
    assert (selection.best_ap50, selection.best_iteration, selection.latency(4.0)) == (0.06, 8, expected)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("method", ["fixed", pytest.param("sequence", marks=pytest.mark.long)])
def test_a_run_with_a_latency_says_what_it_reached(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    how = QUICK if method == "fixed" else ("--method", "sequence", *(f"--set={k}={v}" for k, v in SMALL.items()))
    arguments = [text for text in train_arguments("run", 8, ()) if text != "-q"]
    dev = ("--dev", "labels.json", "--dev-every", "1", "--latency-ms", 4)
    assert command(*arguments, *how, *dev) == 0
    printed = capsys.readouterr().out
    assert "clock table at 64 pixels, cpu, 1 thread: policy 0.25 ms and 0.125 ms for each module" in printed
    lines = [json.loads(line) for line in (tmp_path / "run" / "dev.jsonl").read_text().splitlines()]
    assert all(0 <= line["within_latency"] <= 1 for line in lines) and "within_latency" not in lines[0]["auto-exposure"]
    found = json.loads((tmp_path / "run" / "summary.json").read_text())["latency"]
    assert found["latency_ms"] == 4.0 and found["share_on_dev_by_table"] in {line["within_latency"] for line in lines}
    state = "kept" if found["kept_on_dev"] else "NOT kept"
    assert f"latency 4 ms: {state}" in printed.splitlines()[-1]
    assert method == "sequence" or found["kept_on_dev"]


def test_the_limit_of_a_run_is_read_from_its_settings() -> None:
    subject = Limit(ClockTable(TIMES, 0.25, 0.0), 5.0, ("gain",))
    assert subject.first_ms == 0.75 and subject.fits(["gain", "gamma", "sharpen"], 1)


def test_a_misspelt_table_of_costs_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("train", "--method", "sequence", "--data", "d.json", "--out", "run", "--costs", "clok") != 0
    assert "clok: no such file; give a table of costs, or one of paper and clock" in capsys.readouterr().err

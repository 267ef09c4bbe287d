"""`bench`, cost tables, and who uses them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adaptiveisp.cli.parser import main
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.evaluation.benchmark import COPY, medians, module_costs, run_benchmark, to_json
from adaptiveisp.isp.costs import cost_of, load_costs, save_costs
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS
from adaptiveisp.training.methods.actor_critic.settings import ActorCriticConfig
from tests.support.photos import labelled_photos
from tests.training.methods.test_actor_critic import SMALL, learner

TABLE = {module.name: 1.0 + i for i, module in enumerate((*EXTENDED, *HELPERS))}


def test_bench_writes_timings_and_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, costs = tmp_path / "bench.json", tmp_path / "costs.json"
    command = ["bench", "--size", "64", "--repeats", "2", "--detector", "none", "--threads", "1"]
    assert main([*command, "--out", str(out), "--write-costs", str(costs)]) == 0
    shown = capsys.readouterr().out
    assert "six" not in shown and "6 pointwise modules" in shown and "64x64" in shown
    content = json.loads(out.read_text())
    names = [row["name"] for row in content["timings"]]
    assert {module.name for module in (*EXTENDED, *HELPERS)} < set(names)
    assert {"coco-adaptive", "bilateral grid", "bilateral grid after denoise"} < set(names)
    assert all(row["ms"] > 0 and row["copies"] > 0 for row in content["timings"])
    assert content["timings"][0] | {"ms": 0} == {"name": COPY, "kind": "peer", "ms": 0, "copies": 1.0}
    assert content["provenance"]["threads"] >= 1 and content["size"] == 64
    table = load_costs(costs)
    assert table == {row["name"]: row["ms"] for row in content["timings"] if row["kind"] == "module"}
    assert main([*command, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--out", str(out), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{}/a.json", "--write-costs", "{}/a.json"], "written twice"),
        (["--write-costs", "{}", "--overwrite"], "is a folder"),
        (["--out", "{}/none/a.json"], "does not exist or cannot be written"),
    ],
)
def test_bench_refuses_bad_outputs_before_it_measures(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("adaptiveisp.evaluation.benchmark.run_benchmark", lambda *_: pytest.fail("it measured first"))
    assert main(["bench", *(argument.format(tmp_path) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_detector_is_a_peer() -> None:
    from tests.support.fake_detector import load

    timings = run_benchmark(64, 1, load())
    rows = {row["name"]: row for row in to_json(timings)}
    assert rows["detector forward"]["detector_forwards"] == 1.0 and "detector_forwards" in rows["denoise"]
    assert set(module_costs(timings)) == {*TABLE, *(module.name for module in BASELINES)}


def test_medians_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 1, 10, 12, 20, 25, 30, 31, 40, 43, 50, 52])  # a: 1, 5, 3; b: 2, 1, 2 seconds
    monkeypatch.setattr("adaptiveisp.evaluation.benchmark.time.perf_counter", lambda: next(ticks))
    found = medians({"a": lambda: None, "b": lambda: None}, 3)
    assert found == {"a": 3000, "b": 2000}


def test_costs_of_a_pipeline(tmp_path: Path) -> None:
    pipeline = Pipeline((Stage("exposure", {"ev": 1.0}), Stage("srgb", {}), Stage("exposure", {"ev": 0.5})))
    assert cost_of(pipeline, {}) == pytest.approx(1.7 + 2.0 + 1.7)
    assert cost_of(pipeline, TABLE) == 2 * TABLE["exposure"] + TABLE["srgb"]
    save_costs(tmp_path / "costs.json", TABLE, 512, {"seed": 0})
    assert load_costs(tmp_path / "costs.json") == TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "is no mapping"),
        ('{"version": 1}', "lacks milliseconds"),
        ('{"version": true, "milliseconds": {}}', "version = True does not fit"),
        ('{"version": 2, "milliseconds": {"exposure": 1}}', "is not a cost table"),
        ('{"version": 1, "milliseconds": {"blur": 1}}', "blur = 1"),
        (
            '{"version": 1, "milliseconds": {"exposure": "fast"}}',
            "'fast'} does not fit; give a mapping of names to a number",
        ),
        ('{"version": 1, "milliseconds": {"exposure": -1}}', "exposure = -1"),
        (
            '{"version": 1, "milliseconds": {"exposure": true}}',
            "True} does not fit; give a mapping of names to a number",
        ),
        ('{"version": 1, "milliseconds": {"exposure": 1e999}}', "does not fit"),
        ('{"version": 1, "milliseconds": {"exposure": 1}}', "lacks the modules black_level"),
        ("no json", "costs.json"),
    ],
)
def test_wrong_cost_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_costs(path)
    assert "bench --write-costs" in str(caught.value) and str(path) in str(caught.value)


def test_training_pays_by_the_table_it_is_given() -> None:
    subject = learner(replace(SMALL, costs=TABLE, runtime_weight=0.1))
    assert subject.costs.tolist() == [TABLE.get(module.name, 0.0) for module in subject.modules]  # stop costs nothing
    metrics, _ = subject.iterate()
    paid = sum(TABLE.get(name, 0.0) * count for name, count in metrics["modules"].items()) / SMALL.batch
    assert metrics["reward"]["runtime"] == pytest.approx(-0.1 * paid, rel=1e-5)
    with pytest.raises(UsageError, match="gamma must not be negative"):
        ActorCriticConfig(costs=TABLE | {"gamma": -1.0})
    with pytest.raises(UsageError, match="costs lacks the module gamma"):
        ActorCriticConfig(costs={"exposure": 1.0})


def test_eval_reports_costs_by_the_table(tmp_path: Path, tiny_weights: Path) -> None:
    labels = labelled_photos(tmp_path / "data")
    save_costs(tmp_path / "costs.json", TABLE, 512, {})
    command = ["eval", "--data", str(labels), "--images", str(tmp_path / "data" / "images"), "--light", "mixed"]
    command += ["--policy", "auto-exposure", "--size", "64", "--costs", str(tmp_path / "costs.json"), "-q"]
    assert main([*command, "--out", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (score,) = report["policies"]["auto-exposure"].values()
    assert score["cost_ms"] == pytest.approx(TABLE["white_balance"] + TABLE["exposure"] + TABLE["srgb"])
    assert report["provenance"]["cost_table"].endswith("costs.json")


def test_warm_up_is_not_measured() -> None:
    calls: list[int] = []
    medians({"a": lambda: calls.append(1)}, 2)
    assert len(calls) == 3
    assert torch.is_grad_enabled()

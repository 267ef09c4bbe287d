"""Modules from outside the package: by name in pipelines and policies, from a program, an option or a package."""

import json
import re
from pathlib import Path

import pytest
import torch

from adaptiveisp import IspModule, Param, Pipeline, Stage, register_module
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import DataError, PipelineError, UsageError, WeightsError
from adaptiveisp.isp import registry
from adaptiveisp.isp.costs import cost_of, load_costs
from adaptiveisp.isp.registry import EXTENDED, MODULE_SETS, find_module
from adaptiveisp.policies.checkpoint import load_sequence_file, read_policy, save_policy
from adaptiveisp.policies.registry import shipped_file
from adaptiveisp.raw.array_files import write_png16
from tests.inference.test_predictor import red_box_raw

OWN = """
import torch
from adaptiveisp import IspModule, Param

def log_curve(image, params):
    strength = params[:, :, None, None]
    return torch.log1p(strength * image) / torch.log1p(strength)

LOG_CURVE = IspModule("log_curve", "L", (Param("strength", 0.01, 100.0, "", 0.01, "log"),), log_curve, 1.0)
NUMBER = 3
made = lambda: IspModule("made", "M", (), log_curve, 1.0)
EXPOSURE = IspModule("exposure", "E", (), lambda image, params: image, 1.0)
"""


def halved(image: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    return image * params[:, :, None, None]


HALF = IspModule("half", "H", (Param("factor", 0.0, 1.0, "", 1.0),), halved, 1.0)


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._REGISTERED, "_values", {})


def test_a_registered_module_runs_in_a_pipeline_of_any_set() -> None:
    before = dict(MODULE_SETS)
    with pytest.raises(
        PipelineError, match=r"'half' is unknown in the set 'extended'; .* or give --module my_pkg\.my_fi"
    ):
        Pipeline((Stage("half", {"factor": 0.5}),))
    assert register_module(HALF) is HALF
    image = torch.rand(1, 3, 8, 8)
    for module_set in MODULE_SETS:
        pipeline = Pipeline((Stage("half", {"factor": 0.5}),), module_set)
        torch.testing.assert_close(pipeline.render(image), image / 2)
    assert before == MODULE_SETS and HALF not in EXTENDED
    with pytest.raises(PipelineError, match=r"half\.factor = 2 is out of range"):
        Pipeline((Stage("half", {"factor": 2.0}),))
    with pytest.raises(UsageError, match="the package has a module 'exposure'; give it another name"):
        register_module(IspModule("exposure", "E", (), halved, 1.0))


def test_a_policy_file_with_a_module_of_ones_own_needs_it_registered(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    header, _ = load_sequence_file(shipped_file("coco-fast"))
    names = [*header.modules]
    names[names.index("gamma") if "gamma" in names else 0] = "half_gamma"
    save_policy(path, type(header)(**{**vars(header), "modules": tuple(names)}), {})
    assert read_policy(path)[0].modules == tuple(names)
    with pytest.raises(WeightsError, match=r"mine\.safetensors: module 'half_gamma' is unknown .* give --module"):
        load_sequence_file(path)


def test_the_option_registers_before_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_modules.py").write_text(OWN)
    write_png16(red_box_raw().data, tmp_path / "x.png")
    content = {"version": 1, "stages": [{"module": "log_curve", "params": {"strength": 10.0}}]}
    (tmp_path / "pipeline.json").write_text(json.dumps(content))
    run = [
        "run",
        "x.png",
        "--pipeline",
        "pipeline.json",
        "--detector",
        "tests.support.fake_detector:load",
        "-q",
        "--out",
    ]
    assert main([*run, "without"]) == 1
    assert "module 'log_curve' is unknown" in capsys.readouterr().err
    assert main([*run, "with", "--module", "own_modules:LOG_CURVE"]) == 0
    assert json.loads((tmp_path / "with/x.pipeline.json").read_text())["stages"] == content["stages"]
    assert find_module("log_curve", "paper").params[0].high == 100
    assert main([*run, "made", "--module", "own_modules:made"]) == 0 and find_module("made", "paper").cost_ms == 1
    wrong = {
        "NUMBER": "is not an IspModule",
        "EXPOSURE": "the package has a module 'exposure'",
        "log_curve": "TypeError: .*; write NAME = IspModule.* there, or give a function without arguments that",
    }
    for name, message in wrong.items():
        assert main([*run, "wrong", "--module", f"own_modules:{name}"]) == 2
        assert re.search(f"own_modules:{name}: {message}", capsys.readouterr().err)


def test_the_machine_s_cost_table_has_modules_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timed_modules.py").write_text(OWN)
    command = ["bench", "--size", "32", "--repeats", "1", "--detector", "none", "--threads", "1"]
    assert main([*command, "--module", "timed_modules:LOG_CURVE", "--write-costs", "costs.json"]) == 0
    assert "log_curve" in capsys.readouterr().out
    costs = load_costs(Path("costs.json"))
    assert costs["log_curve"] > 0
    pipeline = Pipeline((Stage("log_curve", {"strength": 10.0}), Stage("exposure", {"ev": 1.0})))
    assert cost_of(pipeline, costs) == costs["log_curve"] + costs["exposure"]
    without = {name: value for name, value in costs.items() if name != "log_curve"}
    assert cost_of(pipeline, without) == 1.0 + costs["exposure"]
    monkeypatch.setattr(registry._REGISTERED, "_values", {})
    with pytest.raises(DataError, match=r"log_curve = .* is not a known module .* or give --module"):
        load_costs(Path("costs.json"))

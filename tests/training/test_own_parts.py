"""A run with code of the user's own is resumed by one complete command, which the refusal shows."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from adaptiveisp.cli.parser import main
from adaptiveisp.isp import registry
from adaptiveisp.training.methods.registry import METHODS
from adaptiveisp.training.rl.rewards import REWARDS
from tests.support.photos import labelled_photos
from tests.support.training_runs import PHOTOS, RED

CODE = """
from adaptiveisp import IspModule, Param

def lifted(image, params):
    return image + params[:, :, None, None]

LIFT = IspModule("lift", "L", (Param("by", -0.5, 0.5, "", 0.0),), lifted, 1.0)
LOWER = IspModule("lower", "W", (Param("by", -0.5, 0.5, "", 0.0),), lambda image, params: lifted(image, -params), 1.0)

def relative(inputs):
    return {"loss": -inputs.loss_after}
"""


@pytest.mark.long
def test_the_refusal_shows_a_command_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget() -> None:
        monkeypatch.setattr(registry._REGISTERED, "_values", {})
        for kind in (METHODS, REWARDS):
            monkeypatch.setattr(kind, "_values", {k: v for k, v in kind._values.items() if k != "relative"})

    labelled_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_parts.py").write_text(CODE)
    forget()
    own = ["--module", "my_parts:LIFT", "--module=my_parts:LOWER", "--reward", "my_parts:relative"]
    quick = ["--set=batch=4", "--budget", "8", "--set=modules=[exposure]", "--set=expert_modules=[lift]", "-q"]
    arguments = ["train", *PHOTOS, "--method", "sequence", *own, *quick, "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["adaptiveisp", *arguments])
    assert main(arguments) == 0
    forget()
    assert main(["train", "--resume", "run", "-q"]) == 2
    error = capsys.readouterr().err
    assert f"names code that no file may start: module lift, module lower, reward relative, detector {RED}" in error
    (shown,) = re.findall(r"adaptiveisp (train --resume .*)", error)
    assert shlex.split(shown)[3:] == [
        *("--module", "my_parts:LIFT", "--module", "my_parts:LOWER", "--reward", "my_parts:relative"),
        *("--detector", RED),
    ]
    forget()
    assert main([*shlex.split(shown), "-q"]) == 0
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    config["provenance"]["command"] = "an open quotation mark '"
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    forget()
    assert main(["train", "--resume", "run", "-q"]) == 2
    error = capsys.readouterr().err
    assert "--module my_pkg.my_file:name --module my_pkg.my_file:name --reward my_pkg.my_file:name" in error


def test_the_command_that_resumes_a_run_names_its_code(tmp_path: Path) -> None:
    from adaptiveisp.training.own_parts import resume_command

    started = (
        "adaptiveisp train --module my_isp:CURVE --reward=my_isp:cheaper --method sequence --out RUN --budget 9000"
    )
    expected = f"adaptiveisp train --resume {tmp_path} --module my_isp:CURVE --reward my_isp:cheaper"
    found = resume_command(tmp_path, {"command": started}).split()
    assert found[:4] == expected.split()[:4]
    assert sorted(zip(found[4::2], found[5::2], strict=True)) == [
        ("--module", "my_isp:CURVE"),
        ("--reward", "my_isp:cheaper"),
    ]
    assert resume_command(tmp_path, {}) == f"adaptiveisp train --resume {tmp_path}"


def test_modules_that_the_imitation_leaves_out_are_told(caplog: pytest.LogCaptureFixture) -> None:
    from adaptiveisp.training.config import make_settings

    experts = {"expert_modules": ["denoise", "gamma"]}
    make_settings("sequence", "", experts, "recipe", more_modules=["guided_denoise"])
    (message,) = [record.message for record in caplog.records]
    assert "guided_denoise: not among the expert modules, which the first 60 % of the budget imitates" in message
    assert "--set 'expert_modules=[denoise, gamma, guided_denoise]'" in message
    caplog.clear()
    make_settings("sequence", "", {}, "recipe", more_modules=["guided_denoise"])
    assert not caplog.records

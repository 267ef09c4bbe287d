"""The package on the page on entry points, written from the pages, installed by pip and used."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.inference.test_predictor import red_box_raw

DOCS = REPOSITORY / "docs"

USE = """
from adaptiveisp import load_detector, load_policy
from adaptiveisp.data.layouts import LAYOUTS
from adaptiveisp.isp.registry import find_module
from adaptiveisp.testing import check_detector
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.training.rl.rewards import REWARDS

import torch
module = find_module("michaelis", "paper")
image = torch.rand(1, 3, 8, 8)
assert (module(image, torch.tensor([module.neutral])) - image).abs().max() < 1e-3
assert load_policy("by-brightness").name == "by-brightness"
assert "few" in find_method("few_candidates").presets
assert callable(REWARDS.find("cheaper")) and LAYOUTS.find("table").parse
check_detector(load_detector("red-cells"))

from adaptiveisp.cli.parser import main
assert main(["weights", "list"]) == 0
run = ("run", "x.png", "--policy", "by-brightness", "--detector", "red-cells", "-q", "--out", "seen")
assert main(run) == 0
"""


def block(page: str, language: str, beginning: str) -> str:
    """The first block of a page that contains a text."""
    found = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    return str(next(one for one in found if beginning in one))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(block("entry-points.md", "toml", "[project]"))
    (source / "retina.py").write_text(block("entry-points.md", "python", "MICHAELIS"))
    (source / "own_detector.py").write_text(block("detectors.md", "python", "class RedCells"))
    (source / "my_layouts.py").write_text(block("datasets.md", "python", "TABLE = "))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder), str(source)], check=True, capture_output=True, timeout=120)
    return folder


def python(folder: Path, installed: Path, *arguments: str) -> str:
    paths = os.pathsep.join((str(installed), str(REPOSITORY / "src")))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_six_groups_of_the_page_give_their_objects(installed: Path, tmp_path: Path) -> None:
    from adaptiveisp.raw.array_files import write_png16

    write_png16(red_box_raw().data, tmp_path / "x.png")
    assert ": red-cells\n" in python(tmp_path, installed, "-c", USE)
    assert '"michaelis"' in (tmp_path / "seen/x.pipeline.json").read_text()


def test_the_page_on_detectors_prints_the_example_whole() -> None:
    assert (
        block("detectors.md", "python", "class RedCells") == (REPOSITORY / "examples" / "own_detector.py").read_text()
    )


def test_every_group_that_the_package_reads_is_on_the_page() -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / "src").rglob("*.py"))
    groups = set(re.findall(r'"(adaptiveisp\.(?:modules|policies|methods|rewards|detectors|datasets))"', source))
    declared = set(re.findall(r'\[project\.entry-points\."(.*?)"\]', (DOCS / "entry-points.md").read_text()))
    assert declared == groups and len(groups) == 6


def test_the_fields_on_the_page_on_detectors_are_those_of_the_types() -> None:
    from dataclasses import fields

    from adaptiveisp import Detections, RawImage, RewardInputs, Targets

    text = (DOCS / "detectors.md").read_text().split("## Types")[1]
    for kind in (Detections, Targets, RewardInputs, RawImage):
        table = text.split(f"| `{kind.__name__}`")[1].split("\n\n")[0]
        named = set(
            re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[1:] if "|" in line))
        )
        assert named == {field.name for field in fields(kind)} - {"unprocessing", "remarks"}, kind

"""The example package and the code of the page on extending work as a user would use them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adaptiveisp.cli.parser import main
from adaptiveisp.isp import registry as modules
from adaptiveisp.policies import registry as policies
from adaptiveisp.raw.array_files import write_png16
from adaptiveisp.training.methods.registry import METHODS
from adaptiveisp.training.rl.rewards import REWARDS
from tests.conftest import REPOSITORY
from tests.deployment.graphs import run_module
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos

EXAMPLE = REPOSITORY / "examples" / "night_parts"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package installed by pip."""
    folder = tmp_path_factory.mktemp("installed")
    source = tmp_path_factory.mktemp("source")
    for path in EXAMPLE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder), str(source)], check=True, capture_output=True, timeout=120)
    return folder


def adaptiveisp(folder: Path, installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(installed), str(REPOSITORY / "src")]
    return subprocess.run(
        [sys.executable, "-m", "adaptiveisp", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_package_adds_a_module_a_policy_and_a_detector(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png16(red_box_raw().data, tmp_path / "x.png")
    names = ("--policy", "by-brightness", "--detector", "bright-spots", "-q")
    done = adaptiveisp(tmp_path, installed, "run", "x.png", *names, "--out", "seen")
    assert done.returncode == 0, done.stderr
    (stage,) = json.loads((tmp_path / "seen/x.pipeline.json").read_text())["stages"]
    boxes = json.loads((tmp_path / "seen/x.boxes.json").read_text())
    assert stage["module"] == "log_curve" and 1 < stage["params"]["strength"] < 1000
    assert boxes["detector"] == "bright-spots" and {box["class"] for box in boxes["boxes"]} <= {"lamp"}
    # The pipeline that it chose is a file that names the module, and runs as one.
    again = ("--pipeline", "seen/x.pipeline.json", "--detector", "bright-spots", "-q", "--out", "again")
    assert adaptiveisp(tmp_path, installed, "run", "x.png", *again).returncode == 0
    assert (tmp_path / "again/x.png").read_bytes() == (tmp_path / "seen/x.png").read_bytes()
    # Where the package is not installed, as in this process, the file is refused with the remedy.
    monkeypatch.chdir(tmp_path)
    assert main(["run", "x.png", *again[:2], "-q", "--out", "third"]) == 1
    assert "install the package that declares it" in capsys.readouterr().err


@pytest.mark.long
def test_a_policy_learns_with_the_module_reward_and_detector_of_a_package(installed: Path, tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    labels = json.loads((tmp_path / "labels.json").read_text())
    labels["categories"] = [{"id": 47, "name": "lamp"}]
    labels["annotations"] = [one for one in labels["annotations"] if one["category_id"] == 47]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", "64")
    parts = ("--module", "log_curve", "--reward", "relative", "--detector", "bright-spots")
    quick = [f"--set={change}" for change in ("batch=4", "group_size=2", "horizon=3", "modules=[exposure, gamma]")]
    warm_up = ("--set=expert_modules=[log_curve]", "--budget", "16", "-q", "--out", "run")
    done = adaptiveisp(tmp_path, installed, "train", *data, "--method", "sequence", *parts, *quick, *warm_up)
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["settings"]
    assert settings["modules"] == ["exposure", "gamma", "log_curve"] and settings["reward"] == "relative"
    write_png16(red_box_raw().data, tmp_path / "x.png")
    use = ("run", "x.png", "--policy", "run", "--detector", "bright-spots", "-q", "--out", "seen")
    assert adaptiveisp(tmp_path, installed, *use).returncode == 0


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path)
    (tmp_path / "labels.json").rename(tmp_path / "train.json")
    (tmp_path / "images").rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for registered in (modules._REGISTERED, policies._REGISTERED, METHODS, REWARDS):
        monkeypatch.setattr(registered, "_values", dict(registered._values))
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "extending.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 7
    names = {"detector": RedDetector(), "make_detector": RedDetector}
    for block in blocks:
        quick = block.replace("budget=9000", "budget=8").replace("settings = {", 'settings = {"batch": 4, "size": 64, ')
        exec(quick, names)
    stored = yaml.safe_load((tmp_path / "RUN" / "config.yaml").read_text())["settings"]
    assert stored["modules"][-1] == stored["expert_modules"][-1] == "log_curve" and stored["reward"] == "cheaper"
    image, params = np.random.default_rng(0).random((1, 3, 8, 9), np.float32), np.float32([10])
    made = run_module(names["WITH_NODES"], image, params, free=True)
    np.testing.assert_allclose(made, np.log1p(10 * image) / np.log1p(10), atol=1e-5)


def test_the_code_of_the_readme_runs(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptiveisp.raw.dng import write_dng
    from adaptiveisp.types import RawImage

    del tiny_weights
    monkeypatch.chdir(tmp_path)
    codes = np.random.default_rng(0).integers(20, 200, (1536, 2592)).astype(np.uint8)
    (tmp_path / "frame.raw").write_bytes(codes.tobytes())
    mosaic = codes[:64, :96].astype(np.uint16)
    write_dng(RawImage(mosaic, "RGGB", (12.0,) * 4, 255.0), tmp_path / "night.dng")
    (tmp_path / "frames").mkdir()
    shutil.copy(tmp_path / "night.dng", tmp_path / "frames" / "a.dng")
    (tmp_path / "frames" / "b.dng").write_bytes(b"nothing")
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"mosaic": mosaic}
    exec(block, names)
    assert "<Result night.dng: " in capsys.readouterr().out and (tmp_path / "results/night.png").is_file()
    assert [Path(path).name for path, _ in names["results"].skipped] == ["b.dng"] and len(names["results"]) == 1

"""The commands and the code of the tutorials run, on small data and with a detector without weights."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp import AdaptiveISP
from adaptiveisp.cli.parser import main
from adaptiveisp.isp import registry
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.conftest import REPOSITORY
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos

RED = "tests.support.fake_detector:load"
QUICK = {"9000": "8", "yolov3-tiny": RED}
"""Words of commands that are replaced, so that they take seconds and need no weights."""


def blocks(page: str, language: str) -> list[str]:
    text = (REPOSITORY / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def run(command: str, *more: str) -> None:
    name, *arguments = [QUICK.get(word, word) for word in shlex.split(command, comments=True)]
    assert name == "adaptiveisp"
    if arguments[0] == "run" and "--detector" not in arguments:
        arguments += ["--detector", RED]
    if arguments[0] == "train":
        arguments += ["--size", "64", "--set=batch=4", "--set=group_size=2"]
    assert main([*arguments, *more, "-q"]) == 0, command


def execute(code: str, names: dict[str, Any]) -> None:
    exec(code.replace('detector="yolov3-tiny"', "detector=RedDetector()"), {"RedDetector": RedDetector, **names})


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None) -> Path:
    """A current folder with frames/, photos/, and dev/ with dev.json."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    (tmp_path / "images").rename(tmp_path / "photos")
    (tmp_path / "dev").symlink_to(tmp_path / "photos")
    (tmp_path / "labels.json").rename(tmp_path / "dev.json")
    (tmp_path / "frames").mkdir()
    codes = np.random.default_rng(0).integers(64, 900, (64, 96)).astype(np.uint16)
    write_dng(RawImage(codes, "RGGB", (64.0,) * 4, 1023.0), tmp_path / "frames" / "night.dng")
    return tmp_path


def test_your_camera(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "frames/night.dng").unlink()
    codes = np.random.default_rng(0).integers(13, 200, (1536, 2592)).astype(np.uint8)
    (place / "frames/0.raw").write_bytes(codes.tobytes())
    look, compare, finetune = blocks("tutorials/your-camera.md", "sh")
    run(look.strip())
    (facts,) = blocks("tutorials/your-camera.md", "yaml")
    (place / "frames/raw.yaml").write_text(facts)
    for command in compare.strip().splitlines():
        run(command)
    image = {"id": 1, "file_name": "0.raw", "width": 2592, "height": 1536}
    box = {"id": 1, "image_id": 1, "category_id": 47, "bbox": [600, 400, 600, 400], "area": 240000, "iscrowd": 0}
    labels = {"images": [image], "annotations": [box], "categories": [{"id": 47, "name": "cup"}]}
    for name in ("train.json", "dev.json"):
        (place / name).write_text(json.dumps(labels))
    run(finetune.strip(), "--budget", "4")
    assert (place / "tuned/best.safetensors").is_file()
    (code,) = blocks("tutorials/your-camera.md", "python")
    execute(code, {})
    assert "<Result frame: " in capsys.readouterr().out
    assert {path.name for path in place.glob("seen*/overview.png")} == {"overview.png"}


def test_train_without_labels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line for block in blocks("tutorials/train-without-labels.md", "sh") for line in block.splitlines()]
    assert [shlex.split(line)[1] for line in commands] == ["train", "eval", "run"]
    run(commands[0])
    run(commands[1], "--resamples", "200", "--size", "64")
    run(commands[2])
    assert (place / "report/report.html").is_file()
    (code,) = blocks("tutorials/train-without-labels.md", "python")
    execute(code, {})
    assert "<Result night.dng: " in capsys.readouterr().out


def test_own_module(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._REGISTERED, "_values", {})
    module, check = blocks("tutorials/own-module.md", "python")
    (place / "my_modules.py").write_text(module)
    sys.modules.pop("my_modules", None)
    execute(check, {})
    (pipeline,) = blocks("tutorials/own-module.md", "json")
    (place / "curve.json").write_text(pipeline)
    for command in [line for block in blocks("tutorials/own-module.md", "sh") for line in block.splitlines()]:
        run(command)
    found = json.loads((place / "seen/night.pipeline.json").read_text())
    assert found["stages"] == [{"module": "log_curve", "params": {"strength": 100.0}}]
    sys.modules.pop("my_modules", None)


def test_reading_a_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("tutorials/reading-a-result.md", "python")
    execute(code, {})
    printed = capsys.readouterr().out
    assert printed.startswith("<Result night.dng: ") and "Timings(read=" in printed and "exposure ev=" in printed


def test_production(place: Path) -> None:
    first, second, folder = blocks("production.md", "python")
    frame = np.random.default_rng(0).integers(64, 900, (64, 96)).astype(np.uint16)
    names: dict[str, Any] = {"detector": RedDetector(), "frame": frame}
    exec(first.replace("torch.set_num_threads(2)", ""), names)
    assert names["budget"]["total"].endswith(" ms") and isinstance(names["isp"], AdaptiveISP)
    exec(second, names)
    (place / "frames/damaged.dng").write_bytes(b"nothing")
    exec(folder, names)
    assert [Path(path).name for path, _ in names["results"].skipped] == ["damaged.dng"]
    assert place.is_dir()

"""Training from Python: the summary, the callbacks, and the modules that a run stores by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import adaptiveisp
from adaptiveisp.errors import UsageError
from adaptiveisp.isp import registry
from adaptiveisp.isp.registry import MODULE_SETS
from adaptiveisp.training.config import TrainConfig, make_settings, read_config, resolve
from adaptiveisp.training.methods.module_choice import MODULES_OF_FILES
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import metrics

pytestmark = pytest.mark.usefixtures("quiet_place")

FAST: dict[str, Any] = {"batch": 4, "size": 64, "expert_modules": [], "imitation_warmup": 0.0, "horizon": 2}
"""Settings of the sequence method that make an iteration quick."""


def photos(folder: Path, **changes: Any) -> TrainConfig:
    labelled_photos(folder)
    config = TrainConfig(str(folder / "labels.json"), str(folder / "images"), "sequence", light="mixed", budget=12)
    return replace(config, **changes)


def test_training_from_python(tmp_path: Path) -> None:
    config = photos(tmp_path, dev=str(tmp_path / "labels.json"), dev_images=str(tmp_path / "images"), dev_every=2)
    config = replace(config, checkpoint_every=2)
    lines: list[dict[str, Any]] = []
    checkpoints: list[Path] = []
    images: list[tuple[tuple[int, ...], Any, int]] = []
    summary = adaptiveisp.train(
        config,
        FAST,
        out=tmp_path / "run",
        detector=RedDetector(),
        on_iteration=lines.append,
        on_checkpoint=checkpoints.append,
        on_image=lambda rgb, iteration: images.append((rgb.shape, rgb.dtype, iteration)),
    )
    assert [line["iteration"] for line in lines] == [1, 2, 3] and lines == metrics(tmp_path / "run")
    assert checkpoints == [tmp_path / "run" / "latest.pt"] * 2  # after iteration 2, and at the end
    assert [iteration for *_, iteration in images] == [2, 3]
    assert all(shape[2] == 3 and kind == np.uint8 for shape, kind, _ in images)
    assert summary.finished and (summary.iterations, summary.passes) == (3, 12) and summary.skipped == {}
    assert summary.policy == tmp_path / "run" / "best.safetensors" and summary.best_ap50 is not None
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_ap50_on_dev"] == summary.best_ap50
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["detector"] == "red"
    assert adaptiveisp.load_policy(str(summary.folder)).name == "run"
    with pytest.raises(UsageError, match="overwrite"):
        adaptiveisp.train(config, FAST, out=tmp_path / "run", detector=RedDetector())
    with pytest.raises(UsageError, match="'speed' does not exist"):
        adaptiveisp.train(config, {"speed": 1}, out=tmp_path / "other", detector=RedDetector())


def test_a_run_stores_the_names_of_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that joins the set later changes neither the run nor a configuration file that leaves modules out."""
    config = photos(tmp_path)
    names = [module.name for module in MODULE_SETS["extended"]]
    adaptiveisp.train(config, FAST, out=tmp_path / "run", detector=RedDetector())
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["settings"]
    assert settings["modules"] == names
    old = tmp_path / "old.yaml"
    costs = dict.fromkeys(names, 1.0)
    for modules in ({}, {"modules": []}):
        content = {"train": {"method": "sequence"}, "settings": {"costs": costs, "start": "raw", **modules}}
        old.write_text(yaml.safe_dump(content))
        before = resolve(*read_config(old), "old.yaml")[1]
        with monkeypatch.context() as larger:
            added = replace(MODULE_SETS["extended"][0], name="mine")
            larger.setitem(registry.MODULE_SETS, "extended", (*MODULE_SETS["extended"], added))
            assert resolve(*read_config(old), "old.yaml")[1] == before
            assert make_settings("sequence", "", {}, "flags").chosen == (*names, "mine")
        assert before.modules == tuple(names) and before.preprocessing == "raw"


def test_the_modules_of_old_files_are_those_of_their_sets() -> None:
    """Until a set grows; then only the first names agree."""
    for name, modules in MODULES_OF_FILES.items():
        assert [module.name for module in MODULE_SETS[name]][: len(modules)] == list(modules)

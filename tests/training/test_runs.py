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
from adaptiveisp.training import dev_scores
from adaptiveisp.training.config import TrainConfig, make_settings, read_config, recipe_files, resolve
from adaptiveisp.training.methods.module_choice import MODULES_OF_FILES
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.runs import new_run, resumed_run
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
    assert checkpoints == [tmp_path / "run" / "latest.pt"] * 3  # at the start, after iteration 2, and at the end
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
    """A module that joins the set later changes neither a run of a preset nor a configuration file without modules."""
    config = photos(tmp_path)
    names = list(MODULES_OF_FILES["extended"])
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
            assert make_settings("sequence", "", {}, "flags").chosen == tuple(names)
            every = [module.name for module in MODULE_SETS["extended"]]
            assert SequenceConfig(module_set="extended").chosen == tuple(every) and every[-1] == "mine"
        assert before.modules == tuple(names) and before.preprocessing == "raw"


def test_the_modules_of_old_files_are_those_of_their_sets() -> None:
    """Until a set grows; then only the first names agree."""
    for name, modules in MODULES_OF_FILES.items():
        assert [module.name for module in MODULE_SETS[name]][: len(modules)] == list(modules)


@pytest.mark.parametrize(("size", "given", "expected"), [(64, 0, 416), (448, 0, 448), (64, 96, 96)])
def test_dev_is_scored_at_its_own_size(
    size: int, given: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The larger of 416 and the size of the training images, unless another one is given."""
    seen: list[int] = []
    real = dev_scores.score_dataset

    def score_dataset(dev: Any, policies: Any, detectors: Any, options: Any) -> Any:
        seen.append(options.size)
        return real(dev, policies, detectors, replace(options, size=64))

    monkeypatch.setattr(dev_scores, "score_dataset", score_dataset)
    dev = {"dev": str(tmp_path / "labels.json"), "dev_images": str(tmp_path / "images"), "dev_draws": 1}
    config = photos(tmp_path, method="fixed", preset="auto-exposure", budget=1, dev_size=given, **dev)
    settings = {"batch": 1, "size": size, "modules": ["exposure"], "initial": {}}
    adaptiveisp.train(config, settings, out=tmp_path / "run", detector=RedDetector())
    assert seen == [expected] * 2  # the start, and the end
    content = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert content["train"]["dev_size"] == expected
    del content["train"]["dev_size"]  # a run of an earlier version goes on at 416
    content["train"]["budget"] = 2
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(content))
    with resumed_run(tmp_path / "run", lambda _: RedDetector()) as run:
        run.train()
    assert seen == [expected, expected, 416]


def test_the_teacher_gets_images_of_the_same_size(tmp_path: Path) -> None:
    config = photos(tmp_path, method="fixed", budget=1, labels="teacher", teacher_confidence=0.01, dev_size=224)
    settings = make_settings("fixed", "", {"batch": 1, "size": 64}, "test")
    with new_run(tmp_path / "run", config, settings, RedDetector(), {}, False) as run:
        assert run.teacher is not None and run.teacher.size == 224


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"budget": 3}, {}, "budget 3 does not hold one batch of 4 images; raise the budget or lower batch"),
        ({}, {"rate": 11}, "rate = 11 is too large; give at most 10"),
        ({}, {"sequence_line_rate": 1e9}, r"sequence_line_rate = 1e\+09 is too large"),
        ({"needs_warm_start": True}, {}, "continue an earlier run; give its folder or its policy with --warm-start"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_folder(
    options: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        config = photos(tmp_path, **options)
        adaptiveisp.train(config, FAST | settings, out=tmp_path / "run", detector=RedDetector())
    assert not (tmp_path / "run").exists()


def test_recipes_with_a_warm_start_need_it() -> None:
    needing = set()
    for name, path in recipe_files().items():
        options, _ = resolve(*read_config(path), name)
        command = path.read_text().split("\n# seed:")[0]
        assert options.needs_warm_start == ("--warm-start" in command), name
        needing |= {name} if options.needs_warm_start else set()
    assert "sequence-denoiser-alone" in needing and "sequence-tone" not in needing


def test_a_recipe_is_trained_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With relative paths, which the run stores as absolute ones."""
    labelled_photos(tmp_path)
    config, settings = adaptiveisp.load_recipe("sequence-tone")
    assert config.method == "sequence" and settings.preprocessing == "auto-exposure"
    config = replace(config, data="labels.json", images="images", budget=2)
    settings = replace(settings, batch=2, size=64)
    adaptiveisp.train(config, settings, out="run", detector=RedDetector())
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert stored["train"]["data"] == str(tmp_path / "labels.json") and stored["settings"]["batch"] == 2


def test_a_config_names_no_code_and_no_cache(tmp_path: Path) -> None:
    """It may come from a file, and no file decides which code runs or where files are written."""
    config = photos(tmp_path, detector="tests.support.fake_detector:load")
    with pytest.raises(UsageError, match="detector"):
        adaptiveisp.train(config, FAST, out=tmp_path / "run")
    (tmp_path / "file.yaml").write_text("train: {method: fixed, cache: elsewhere}")
    assert adaptiveisp.load_recipe(str(tmp_path / "file.yaml"))[0].cache == ""

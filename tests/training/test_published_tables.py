"""The recipes of published tables, by the very commands in their headers, on made-up folders in the sets' layouts."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from adaptiveisp.training.config import read_config, recipe_files, resolve
from tests.support.darknet_cfg import write_mixed
from tests.support.layouts import lod_yolo, oneplus, oneplus_mosaics, rod, rod_arrays
from tests.support.training_runs import adaptiveisp, metrics

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

ITERATIONS = 20
SMALL = ("--size", 64, "--dev-size", 64, "--set", "replay_size=16", "--set", "batch=2", "--threads", 1, "-q")
"""What differs from the recipe, so that a run takes seconds; 512 pixels and 128 images in the pool take minutes."""
ROD = "layout: rod\nimages: '{split}'\nlabels: '{split}'\nraw-size: 64x48\nraw-white: p99\n"
ROD += "classes: {Pedestrian: person, Car: car, Truck: truck, Cyclist: null, Tram: null}\n"
TABLES: list[tuple[str, Callable[[Path], Path], str]] = [
    ("lod-yolov3-512", lod_yolo, ""),
    ("oneplus-yolov3-512", oneplus, ""),
    ("oneplus-yolov3-512", lod_yolo, "layout: oneplus\nannotations: yolo\n"),
    ("oneplus-yolov3-512", oneplus_mosaics, ""),
    ("rod-yolov3-512", rod, ROD),
    ("rod-yolov3-512", rod_arrays, ""),
]


def header_command(recipe: str) -> list[str]:
    first = recipe_files()[recipe].read_text().splitlines()[0]
    return shlex.split(first.removeprefix("# adaptiveisp "))


@pytest.mark.long
@pytest.mark.parametrize(("recipe", "write", "text"), TABLES)
def test_the_command_of_a_table_trains_on_its_layout(
    recipe: str, write: Callable[[Path], Path], text: str, tmp_path: Path
) -> None:
    """With a tiny network in the place of YOLOv3's weights."""
    name = recipe.split("-")[0]
    data = write(tmp_path)
    data.rename(tmp_path / f"{name}.yaml")
    if text:
        (tmp_path / f"{name}.yaml").write_text(text)
    if (tmp_path / "val").is_dir():
        shutil.copytree(tmp_path / "val", tmp_path / "dev")
    else:
        shutil.copy(tmp_path / "val.txt", tmp_path / "dev.txt")
    write_mixed(tmp_path, "yolov3")
    (tmp_path / "yolov3.names").write_text("person\ncup\n")
    budget = 16 + 2 * ITERATIONS + ITERATIONS  # the pool, two images an iteration, and fresh ones for those that left
    assert adaptiveisp(*header_command(recipe), *SMALL, "--budget", budget) == 0
    run = tmp_path / name
    assert len(metrics(run)) >= ITERATIONS
    settings = yaml.safe_load((run / "config.yaml").read_text())["settings"]
    assert (settings["horizon"], settings["module_set"], settings["preprocessing"]) == (5, "paper", "raw")
    how = ("--policy", "none", run, "--detector", "yolov3.weights", "--size", 64, "--steps", 5, "-q")
    assert adaptiveisp("eval", "--data", f"{name}.yaml:val", *how, "--resamples", 200, "--out", "report") == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["policies"][name]["yolov3"]["modules_per_image"] == 5


@pytest.mark.parametrize("recipe", sorted({recipe for recipe, _, _ in TABLES}))
def test_the_tables_are_at_512_with_five_steps_by_the_preset_of_the_paper(recipe: str) -> None:
    options, settings = resolve(*read_config(recipe_files()[recipe]), recipe)
    assert (options.method, options.preset, options.detector) == ("actor_critic", "paper", "yolov3.weights")
    assert (settings.size, options.dev_size, settings.horizon) == (512, 512, 5)
    lod, same = (resolve(*read_config(recipe_files()[name]), name)[1] for name in ("lod-yolov3-512", recipe))
    assert lod == same

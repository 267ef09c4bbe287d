"""--bits, --camera-matrix and --illuminants of `synth`, `eval` and `train`, from the flag to the files."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from adaptiveisp import SynthesisConfig
from adaptiveisp.cli.exit_codes import WRONG_USE
from adaptiveisp.cli.parser import build_parser
from adaptiveisp.cli.train import _train_settings
from adaptiveisp.data.training_images import PhotoTrainingImages
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.training.config import TrainConfig, completed, read_config, resolve, write_config
from adaptiveisp.training.inputs import open_dev, open_training_images
from adaptiveisp.training.methods.random_search import RandomSearchConfig
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import PHOTOS, QUICK, RED, adaptiveisp

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

CAMERA = "xyz-to-camera: [[1.0, 0.1, 0.0], [0.0, 1.0, 0.1], [0.1, 0.0, 1.0]]\n"
DATA = ("--data", "labels.json", "--images", "images")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path) -> None:
    labelled_photos(tmp_path, n=2)
    (tmp_path / "cameras.yaml").write_text(CAMERA)


def test_synth_writes_raws_of_that_sensor(tmp_path: Path) -> None:
    how = ("--light", "normal", "--bits", 4, "--camera-matrix", "cameras.yaml", "--illuminants", "planckian", "-q")
    assert adaptiveisp("synth", *DATA, *how, "--out", "raws") == 0
    options = json.loads((tmp_path / "raws" / "normal" / "labels.json").read_text())["info"]["options"]
    assert (options["bits"], options["camera_matrix"], options["illuminants"]) == (4, "cameras.yaml", "planckian")
    assert options["xyz_to_camera"] == [yaml.safe_load(CAMERA)["xyz-to-camera"]]
    raw = read_raw(tmp_path / "raws" / "normal" / "images" / "photo1_0.png")
    assert raw.unprocessing is not None and raw.unprocessing.bits == 4
    assert set(np.unique(raw.data)) <= {65535 // 15 * code for code in range(16)}


def test_eval_records_the_sensor_of_each_set_and_warns_where_it_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled_photos(tmp_path / "two", n=2)
    data = ("--data", "labels.json", "two/labels.json", "--images", "images", "two/images")
    how = ("--policy", "none", "--detector", RED, "--size", 64, "--resamples", 200, "-q")
    sensor = ("--bits", 6, "--camera-matrix", "sigma-sd1")
    assert adaptiveisp("eval", *data, "--light", "mixed", *sensor, *how, "--out", "seen") == 0
    report = json.loads((tmp_path / "seen" / "report.json").read_text())
    for one in (report, *report["sets"].values()):
        assert (one["settings"]["bits"], one["settings"]["camera_matrix"]) == (6, "sigma-sd1")
    assert adaptiveisp("synth", *DATA, "--light", "normal", "--out", "raws", "-q") == 0
    assert adaptiveisp("eval", "--data", "raws/normal", *sensor, *how, "--out", "raw") == 0
    assert "--camera-matrix has no effect without --light, which makes raws of photos" in caplog.messages
    assert json.loads((tmp_path / "raw" / "report.json").read_text())["settings"]["bits"] is None


def test_train_stores_the_sensor_and_its_files_are_recipes(tmp_path: Path) -> None:
    given = (
        *PHOTOS,
        *QUICK,
        "--budget",
        16,
        "--bits",
        8,
        "--camera-matrix",
        "cameras.yaml",
        "--out",
        "run",
        "--illuminants",
        "planckian",
    )
    options = build_parser().parse_args(["train", *map(str, given)])
    train, settings = completed(*_train_settings(options))
    write_config(tmp_path, train, settings, {})
    stored, _ = resolve(*read_config(tmp_path / "config.yaml"), "config.yaml")
    assert (stored.bits, stored.camera_matrix, stored.illuminants) == (8, str(tmp_path / "cameras.yaml"), "planckian")
    options = build_parser().parse_args(["train", "--config", "config.yaml", "--bits", "6", "--out", "again"])
    again, _ = _train_settings(options)
    assert (again.bits, again.camera_matrix, again.illuminants) == (6, stored.camera_matrix, "planckian")


def test_images_of_training_and_dev_have_the_same_sensor(tmp_path: Path) -> None:
    place = {"data": "labels.json", "images": "images", "dev": "labels.json", "dev_images": "images"}
    options = TrainConfig(
        **place, light="normal", bits=4, camera_matrix="sigma-sd1", noise="none", illuminants="planckian"
    )
    (dev,) = open_dev(options).values()
    assert "4 bits, camera matrix sigma-sd1, illuminants planckian" in dev.name
    made = open_training_images(options, RandomSearchConfig(size=64), RedDetector())
    assert isinstance(made, PhotoTrainingImages)
    same = SynthesisConfig("normal", 2, "none", bits=4, camera_matrix="sigma-sd1", illuminants="planckian")
    for synthesis in (made.synthesis, same):
        how = synthesis.unprocessing(1, 0)
        assert dev.unprocessing(1, 0) == how and how.bits == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", ["synth", "eval", "train"])
@pytest.mark.parametrize(
    ("sensor", "message"),
    [
        (("--bits", 3), "bits 3 is no depth of a raw; give a whole number from 4 to 14"),
        (("--camera-matrix", "nikon"), "camera_matrix 'nikon' does not exist; choose from brooks, canon-5d4"),
        (("--camera-matrix", "labels.yaml"), "labels.yaml"),
    ],
)
def test_a_sensor_that_there_is_not_is_one_line(
    command: str, sensor: tuple[object, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = ("--policy", "none", "--detector", RED) if command == "eval" else ()
    extra = (*QUICK, "--detector", RED, "--size", 64, "--budget", 16) if command == "train" else extra
    assert adaptiveisp(command, *DATA, "--light", "normal", *extra, *sensor, "--out", "out", "-q") == WRONG_USE
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0]

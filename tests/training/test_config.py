"""Options of training runs: configuration files, flags, warm starts and data; and the options that are refused."""

from pathlib import Path

import pytest
import torch
import yaml

from adaptiveisp.errors import UsageError
from adaptiveisp.training.config import TrainConfig, completed, data_digest, resolve
from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp, metrics, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

FIRST = ("--seed", 3, "--set", "replay_size=12")
TRUSTED = ("--detector", RED)  # a configuration file may not name code by itself


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("first")
    labelled_photos(folder)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        assert adaptiveisp(*train_arguments("run", 30), *FIRST) == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [], "annotations": []}, "lists no images"),
        ({"annotations": []}, "no labelled object"),
        ({"categories": [{"id": 1, "name": "unicorn"}, {"id": 47, "name": "griffin"}]}, "unicorn"),
    ],
)
def test_unusable_training_data(
    changes: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path, **changes)
    assert adaptiveisp(*train_arguments("run")) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_configuration_file_repeats_a_run_and_flags_replace_it(first: Path, tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    config = first / "config.yaml"
    assert adaptiveisp("train", "--config", config, *TRUSTED, "--out", "again", "-q", "--threads", 1) == 0
    assert metrics(tmp_path / "again") == metrics(first)
    again = ("train", "--config", config, *TRUSTED, "-q")
    assert adaptiveisp(*again, "--out", "other", "--budget", 16, "--set", "replay_size=8") == 0
    small = ("--budget", 20, "--size", 64, "--dev", "labels.json")
    assert adaptiveisp(*again, "--preset", "paper", *small, "--out", "p") == 0
    assert yaml.safe_load((tmp_path / "p" / "config.yaml").read_text())["settings"]["module_set"] == "paper"
    content = yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())
    assert (
        content["train"]["budget"] == 16 and content["settings"]["replay_size"] == 8 and content["train"]["seed"] == 3
    )


def test_a_warm_start_goes_on_from_a_policy(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("second", 20), *FIRST, "--warm-start", first) == 0
    assert metrics(tmp_path / "second")[0]["loss"] != metrics(first)[0]["loss"]  # all else is the same
    assert (
        adaptiveisp(
            *train_arguments("third", 90), "--warm-start", first, "--set", "stop=false", "--set", "imitation_warmup=0"
        )
        == 1
    )
    assert "has the modules" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    (tmp_path / "empty").mkdir()
    assert adaptiveisp("train", "--data", "labels.json") == 2
    assert adaptiveisp(*train_arguments("run"), "--preset", "gpu") == 2
    assert adaptiveisp(*train_arguments("run"), "--light", "dusk") == 2
    assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "magic") == 2
    assert adaptiveisp(*train_arguments("run"), "--set", "speed=9") == 2
    assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "fixed", "--bootstrap", "td") == 2
    assert adaptiveisp("train", "--config", "labels.json", "--out", "run") == 1
    assert adaptiveisp(*train_arguments("run"), "--warm-start", "nowhere") == 2
    assert adaptiveisp(*train_arguments("run"), "--size", 50) == 2
    if not torch.cuda.is_available():
        assert adaptiveisp(*train_arguments("run"), "--device", "cuda") == 2
    for change in ("batch=0", "rollout=0", "averaging=1.5", "actor_rate=-1", "module_set=paper", "overtime=2"):
        assert adaptiveisp(*train_arguments("run"), "--set", change) == 2, change
    for change in (
        "modules=[gama]",
        "initial={exposrue: {ev: 3}}",
        "initial={exposure: 3}",
        "initial={exposure: {e: 1}}",
    ):
        assert adaptiveisp(*train_arguments("run", 120, ()), "--method", "fixed", "--set", change) in (1, 2), change
    assert not (tmp_path / "run").exists()
    assert adaptiveisp("train", "--resume", "empty") == 1
    assert adaptiveisp("train", "--resume", "empty", "--seed", 500) == 2
    assert adaptiveisp("train", "--resume", "empty", "--set", "replay_size=3") == 2
    assert adaptiveisp("train", "--resume", "nowhere") == 1
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    assert adaptiveisp(*train_arguments("taken")) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "cpu" in error and "config.yaml" in error


def test_files_of_noise_and_cameras_are_stored_by_their_full_path_and_belong_to_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is resumed from another folder, or after the file has changed, notices it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("adaptiveisp-noise: 1\n")
    options, settings = resolve({"noise": "mine.yaml"}, {}, "x.yaml")
    assert completed(options, settings)[0].noise == str(tmp_path / "mine.yaml")
    assert completed(TrainConfig(noise="canon-5d4"), settings)[0].noise == "canon-5d4"
    first = data_digest(options)
    (tmp_path / "mine.yaml").write_text("adaptiveisp-noise: 2\n")
    assert data_digest(options) != first and data_digest(TrainConfig()) == data_digest(TrainConfig(noise="none"))
    (tmp_path / "cameras.yaml").write_text("xyz-to-camera: []\n")
    options = TrainConfig(bits=8, camera_matrix="cameras.yaml")
    assert completed(options, settings)[0].camera_matrix == str(tmp_path / "cameras.yaml")
    first = data_digest(options)
    (tmp_path / "cameras.yaml").write_text("xyz-to-camera: [[1]]\n")
    assert data_digest(options) != first
    with pytest.raises(UsageError, match="bits 15 is no depth of a raw; give a whole number from 4 to 14, or 0"):
        TrainConfig(bits=15)
    with pytest.raises(UsageError, match="camera_matrix 'nikon' does not exist; choose from brooks, canon-5d4"):
        TrainConfig(camera_matrix="nikon")
    with pytest.raises(UsageError, match="noise 'nikon' does not exist; choose from sensor"):
        TrainConfig(noise="nikon")

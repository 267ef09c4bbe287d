"""A training run that is killed, told to stop, out of space or damaged goes on as if nothing had been."""

import errno
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos
from tests.support.training_runs import QUICK, RED, adaptiveisp, metrics, train_arguments

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")


PASSES = 80


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed; what changes it takes a copy."""
    folder = tmp_path_factory.mktemp("whole")
    labelled_photos(folder)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        assert adaptiveisp(*train_arguments("run", PASSES)) == 0
    return folder / "run"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}


KILLED = """
import os, signal, sys
from adaptiveisp.cli.parser import main
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic

real = ActorCritic.iterate

def iterate(self):
    if self.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self)

ActorCritic.iterate = iterate
main(sys.argv[1:])
"""


@pytest.mark.long
def test_killed_and_resumed_equals_uninterrupted(whole: Path, tmp_path: Path) -> None:
    """kill -9 two iterations past a checkpoint, which are lost and done again; the log is the undisturbed run's."""
    labelled_photos(tmp_path)
    command = [sys.executable, "-c", KILLED, *train_arguments("cut", PASSES), "--checkpoint-every", "3"]
    assert subprocess.run(command, env=environment(), cwd=tmp_path).returncode == -signal.SIGKILL
    cut = tmp_path / "cut"
    assert len(metrics(cut)) == 5 and len(metrics(whole)) > 8
    assert adaptiveisp("train", "--resume", "cut", "--detector", RED, "--threads", 1, "-q") == 0
    assert metrics(cut) == metrics(whole)
    assert (cut / "latest.safetensors").read_bytes() == (whole / "latest.safetensors").read_bytes()


def test_data_that_cannot_be_used_leave_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JPEGs without --light: the command that mends it finds its --out free. What is no run is told as such."""
    labels = labelled_photos(tmp_path)
    for photo in (tmp_path / "images").iterdir():
        with Image.open(photo) as picture:
            picture.save(photo.with_suffix(".jpg"))
    labels.write_text(labels.read_text().replace(".png", ".jpg"))
    arguments = [argument for argument in train_arguments("run") if argument not in ("--light", "mixed")]
    assert adaptiveisp(*arguments) == 1 and not Path("run").exists()
    assert "with --light" in capsys.readouterr().err
    assert adaptiveisp("train", "--resume", "nowhere") == 1
    assert "nowhere: is not a run folder, since it has no config.yaml" in capsys.readouterr().err


def test_a_signal_writes_a_checkpoint_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process gets it in the midst of an iteration, which is finished."""
    labelled_photos(tmp_path)
    real = ActorCritic.iterate

    def iterate(self: ActorCritic) -> Any:
        if self.iteration == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(ActorCritic, "iterate", iterate)
    assert adaptiveisp(*train_arguments("run", 10**6)) == 130
    assert len(metrics(tmp_path / "run")) == 4
    assert (tmp_path / "run" / "latest.pt").exists() and (tmp_path / "run" / "latest.safetensors").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.long
def test_a_full_disk_ends_the_run_and_loses_nothing(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint finds no space; after that is mended the run goes on as if nothing had been."""
    labelled_photos(tmp_path)
    real, calls = torch.save, []

    def save(content: object, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half a checkpoint")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(content, path)

    with monkeypatch.context() as full:
        full.setattr(torch, "save", save)
        assert adaptiveisp(*train_arguments("full", PASSES), "--checkpoint-every", 3) == 1
    error = capsys.readouterr().err
    assert "full: cannot be written" in error and "train --resume full" in error and "Traceback" not in error
    assert not list((tmp_path / "full").glob(".*-part"))
    assert adaptiveisp("train", "--resume", "full", "--detector", RED, "--threads", 1, "-q") == 0
    assert metrics(tmp_path / "full") == metrics(whole)


def test_a_damaged_checkpoint_is_named_and_nothing_is_lost(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    log = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    checkpoint = tmp_path / "run" / "latest.pt"
    for content in (checkpoint.read_bytes()[:1000], b"", b"text"):
        checkpoint.write_bytes(content)
        assert adaptiveisp("train", "--resume", "run", "--detector", RED, "-q") == 1
        error = capsys.readouterr().err
        assert "latest.pt: is damaged" in error and "Traceback" not in error
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == log


@pytest.mark.long
def test_scores_on_dev_change_nothing_that_is_learned(whole: Path, tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    assert adaptiveisp(*train_arguments("with", PASSES), "--dev", "labels.json", "--dev-every", 2) == 0
    assert metrics(tmp_path / "with") == metrics(whole)


def test_a_run_goes_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled_photos(tmp_path)
    arguments = train_arguments("run", 16, ())
    assert adaptiveisp(*arguments, *QUICK, "--dev", "labels.json", "--dev-every", 2, "--limit", 1) == 0
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]
    assert settings["limit"] == 1 and Path(settings["data"]) == tmp_path / "labels.json"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert adaptiveisp("train", "--resume", tmp_path / "run", "--detector", RED, "--threads", 1, "-q") == 0
    assert adaptiveisp("train", "--resume", tmp_path / "run", "--limit", 2) == 2


def test_a_run_that_learns_nothing_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    monkeypatch.setattr("adaptiveisp.training.trainer.MOST_UNLEARNED", 3)
    monkeypatch.setattr(
        "adaptiveisp.training.methods.actor_critic.networks.optimiser_step",
        lambda parts, *_: dict.fromkeys(parts, math.nan),
    )
    assert adaptiveisp(*train_arguments("run", 10**6)) == 1
    assert "gradients were not finite 3 times in a row, up to iteration 3" in capsys.readouterr().err


def test_a_run_goes_on_with_the_detector_it_began_with(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same name and path may hold other weights by then."""
    shutil.copytree(whole, tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(config.read_text())
    assert "red" in content["provenance"]["weights_sha256"]
    content["provenance"]["weights_sha256"]["red"] = "0123456789abcdef"
    config.write_text(yaml.safe_dump(content))
    assert adaptiveisp("train", "--resume", "run", "--detector", RED, "-q") == 1
    assert "run: the run began with other weights of red, of hash 0123456789ab…" in capsys.readouterr().err

"""`torchrun … adaptiveisp train`: the run folder of two ranks, a killed rank, and resumption by one, two and three."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos
from tests.support.ranks import flat
from tests.support.training_runs import RED, adaptiveisp, metrics, train_arguments

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("quiet_place", "without_figures")]
PASSES = 80

KILLED = """
import os, signal, sys
from adaptiveisp.cli.parser import main
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic

real = ActorCritic.iterate

def iterate(self):
    if self.iteration == 5 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self)

ActorCritic.iterate = iterate
sys.exit(main(sys.argv[1:]))
"""


def torchrun(size: int, *program: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), *program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)


def check_same_metrics(found: Path, expected: Path) -> None:
    ours, theirs = metrics(found), metrics(expected)
    assert len(ours) == len(theirs) > 8
    for one, other in zip(ours, theirs, strict=True):
        assert one["modules"] == other["modules"], one["iteration"]
        known = {name: value for name, value in flat_or_none(one).items() if value is not None}
        for name, value in known.items():
            assert math.isclose(value, flat_or_none(other)[name] or 0.0, rel_tol=1e-3, abs_tol=1e-4), (one, other)


def flat_or_none(line: dict[str, object]) -> dict[str, float | None]:
    text = json.dumps(line).replace("null", "NaN")
    return {name: None if math.isnan(value) else value for name, value in flat(json.loads(text)).items()}


def test_two_ranks_leave_the_run_of_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The same metrics, scores on dev and files, and one summary."""
    labelled_photos(tmp_path)
    dev = ("--dev", "labels.json", "--dev-every", "5")
    done = torchrun(2, "-m", "adaptiveisp", *train_arguments("two", PASSES), *dev)
    assert done.returncode == 0, done.stderr
    assert adaptiveisp(*train_arguments("one", PASSES), *dev) == 0
    check_same_metrics(tmp_path / "two", tmp_path / "one")
    scores = [[json.loads(line) for line in (tmp_path / run / "dev.jsonl").open()] for run in ("one", "two")]
    assert [line["ap50"] for line in scores[0]] == [line["ap50"] for line in scores[1]] and len(scores[0]) >= 3
    names = [{path.name for path in (tmp_path / run).iterdir()} for run in ("one", "two")]
    assert names[0] == names[1] - {"dev.png"}  # this process draws no figures
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["ranks"] == 2 and summary["passes"] >= PASSES


def test_a_killed_rank_ends_the_run_and_any_number_resumes_it(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    lost = torchrun(2, "killed.py", *train_arguments("cut", PASSES), "--checkpoint-every", "3")
    assert lost.returncode != 0
    (line,) = [line for line in lost.stderr.splitlines() if line.startswith("adaptiveisp: cut: ")]
    assert "another rank has ended; its last checkpoint is complete; continue with --resume cut" in line
    assert len(metrics(tmp_path / "cut")) == 5
    assert adaptiveisp(*train_arguments("one", PASSES)) == 0
    for size in (1, 2, 3):
        shutil.copytree(tmp_path / "cut", tmp_path / f"resumed-{size}")
        arguments = ["train", "--resume", f"resumed-{size}", "--detector", RED, "--threads", "1", "-q"]
        if size == 1:
            assert adaptiveisp(*arguments) == 0
        else:
            done = torchrun(size, "-m", "adaptiveisp", *arguments)
            assert done.returncode == 0, done.stderr
        check_same_metrics(tmp_path / f"resumed-{size}", tmp_path / "one")


def test_other_commands_and_a_second_run_in_the_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    refused = torchrun(2, "-m", "adaptiveisp", "run", "x.dng", "--out", "seen")
    lines = [line for line in refused.stderr.splitlines() if line.startswith("adaptiveisp: torchrun")]
    assert len(lines) == 1 and "start it without torchrun" in lines[0]
    labelled_photos(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    taken = torchrun(2, "-m", "adaptiveisp", *train_arguments("taken", PASSES))
    lines = [line for line in taken.stderr.splitlines() if line.startswith("adaptiveisp: taken")]
    assert len(lines) == 1 and "taken: exists already" in lines[0]
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]

"""Some of the kills of `tests.robustness.kills`; all two hundred are run by hand, see there."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.long
def test_kills_lose_nothing_and_leave_nothing() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [sys.executable, "-m", "tests.robustness.kills", "--kills", "10", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert done.returncode == 0 and "10 kills, 0 with something wrong" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [sys.executable, "-m", "tests.robustness.resumed", "--kills", "20", "--frames", "120"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert done.returncode == 0 and "0 things wrong" in done.stdout, done.stdout + done.stderr

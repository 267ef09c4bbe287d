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

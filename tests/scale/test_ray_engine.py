"""The Ray engine on a cluster of several nodes on this machine, one of which is killed; `benchmarks/ray_cluster.py`."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.long
def test_a_lost_node_costs_no_row_and_doubles_none() -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "ray_cluster.py"), "--frames", "120", "--block", "6"]
    done = subprocess.run([*command, "--kill"], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed a node" in done.stdout and "120 rows of 120 frames, 0 differ" in done.stdout

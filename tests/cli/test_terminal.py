"""The command line at odd terminals: closed pipes, full devices, encodings without our characters, signals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
COMMAND = [sys.executable, "-m", "adaptiveisp"]


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--help"]])
def test_a_closed_pipe_is_no_surprise(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
    )
    os.close(write)
    assert done.stderr == "" and done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--version"], ["run", "--help"]])
def test_a_full_device_is_an_error_of_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(r"adaptiveisp: .*cannot .*\(No space left on device\); .*\n", done.stderr)


@pytest.mark.long
def test_a_terminal_that_is_not_utf8_gets_plain_characters() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    code = (
        "import sys\nfrom adaptiveisp.cli.parser import main\n"
        "assert main(['weights', 'list']) == 0\nsys.exit(main(['run', sys.argv[1], '--out', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "caf\u00e9.dng"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 1 and b"-----------" in done.stdout
    assert done.stderr.startswith(b"adaptiveisp: ") and done.stderr.count(b"\n") == 1
    assert rb"caf\xe9.dng: no such file" in done.stderr


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD" && exec "$0" -m adaptiveisp run x.npy --out /tmp/none'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=gone, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "adaptiveisp: the working folder does not exist any more; change to one that does\n"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGINT])
def test_a_signal_ends_a_command_and_all_its_processes(number: signal.Signals, tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    arguments = ["eval", "--data", "labels.json", "--images", "images", "--light", "dark", "--draws", "2000"]
    arguments += ["--policy", "none", "--detector", "tests.support.fake_detector:load", "--size", "64", "--out", "out"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--workers", "1"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A process that starts in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(_group(process.pid)) < 3 and time.monotonic() < deadline:  # itself, the reader, Python's resource tracker
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    # A reader that was being started may complain that its parent is gone.
    assert process.returncode == 130 and "adaptiveisp: interrupted" in error.splitlines(), error
    deadline = time.monotonic() + 20
    while _group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _group(process.pid), "processes are left behind"


def _group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdecimal() else []
        except OSError:
            continue
        if fields and int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found

"""A stream that is interrupted ends cleanly: whole files, the usual exit code, no traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.cli.parser import main
from tests.conftest import REPOSITORY

FACTS = ["--raw-size", "64x48", "--raw-bits", "10", "--raw-pattern", "RGGB", "--raw-black", "64"]
COMMON = ["--policy", "auto-exposure", "--detector", "tests.support.fake_detector:load", "--size", "64", *FACTS]


def frames(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(64, 1023, (n, 48, 64), dtype=np.uint16)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_stream_leaves_whole_files(tmp_path: Path, number: signal.Signals) -> None:
    """The pipe stays open, as a camera's does: the source waits for the next frame when the signal comes."""
    av = pytest.importorskip("av", reason="PyAV is not installed; pip install 'adaptiveisp[stream]'")
    video, lines, summary = tmp_path / "x.mp4", tmp_path / "x.jsonl", tmp_path / "x.json"
    files = ["--video", str(video), "--summary", str(summary), "--out", "-"]
    code = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from adaptiveisp.cli.parser import main\nsys.exit(main())"
    )
    command = [sys.executable, "-c", code, "stream", "-", *COMMON, *files]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(frames(5).tobytes())
    process.stdin.flush()
    lines.write_bytes(b"".join(process.stdout.readline() for _ in range(5)))
    process.send_signal(number)
    if number == signal.SIGTERM:  # saves a wait of five seconds for a source that gives no frame
        process.stdin.close()
    assert process.stderr is not None
    said = process.stderr.read()
    assert (
        process.wait(timeout=60) == 0 and b"5 of 5 frames" in said and b"Traceback" not in said and b"Fatal" not in said
    )
    assert [json.loads(line)["number"] for line in lines.read_text().splitlines()] == [0, 1, 2, 3, 4]
    with av.open(str(video)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
    assert json.loads(summary.read_text())["sinks"]["VideoFile"] == {"written": 5, "dropped": 0}


def test_the_summary_and_the_live_view_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, summary = frames(4), tmp_path / "x.json"
    given[1] = 0  # the lens cap
    (tmp_path / "x.raw").write_bytes(given.tobytes())
    command = ["stream", str(tmp_path / "x.raw"), *COMMON, "--summary", str(summary), "--mjpeg", "0"]
    assert main([*command, "--out", str(tmp_path / "x.jsonl")]) == 3
    assert "live view on http://127.0.0.1:" in capsys.readouterr().err
    found = json.loads(summary.read_text())
    assert (found["frames"], found["results"], found["dropped"], found["failed"][0]["name"]) == (4, 3, 0, "x-000001")
    assert found["sinks"] == {"JsonLines": {"written": 3, "dropped": 0}, "Mjpeg": {"written": 3, "dropped": 0}}
    assert found["source"] == str(tmp_path / "x.raw") and found["provenance"]["command"]
    assert main([*command, "--out", "-"]) == 2  # before the stream begins
    assert f"{summary}: exists already" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([*command, "--overwrite", "--mjpeg", port, "--out", str(tmp_path / "y.jsonl")]) == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "y.jsonl").exists()
    for wrong in (["--mjpeg", "70000"], ["--reconnect", "-1"], ["--reconnect", "nan"]):
        assert main([*command, "--overwrite", *wrong]) == 2

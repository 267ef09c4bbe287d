"""The command `view`: refusals before it listens, what it prints, and its end."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from adaptiveisp.cli.parser import main
from tests.conftest import REPOSITORY
from tests.support.view_server import small_dng

pytestmark = pytest.mark.usefixtures("quiet_place")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["view", "--no-browser", *words])
    text = capsys.readouterr().err
    assert code in (1, 2) and "Traceback" not in text and len(text.splitlines()) == 1, text
    return text


def test_other_machines_are_let_in_only_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--allow-remote" in refused(capsys, "--host", "0.0.0.0", "a.dng")


def test_inputs_that_cannot_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing.dng" in refused(capsys, "missing.dng")
    (tmp_path / "empty").mkdir()
    assert "no raw files" in refused(capsys, "empty")
    (tmp_path / "labels.json").write_text("{}")
    assert "--images" in refused(capsys, "labels.json")
    small_dng(tmp_path / "a.dng")
    assert "--light" in refused(capsys, "a.dng", "--draws", "2")


def test_the_folder_of_run_has_no_raws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_dng(tmp_path / "a.dng")
    words = ("run", "a.dng", "--out", "seen", "--policy", "none", "--size", "64", "-q")
    assert main([*words, "--detector", "tests.support.fake_detector:load"]) == 0
    capsys.readouterr()
    assert "holds the results of run" in refused(capsys, "seen")


def test_the_browser_gets_a_file_and_not_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of the machine can see the arguments of the browser's process."""
    import argparse

    from adaptiveisp.cli import view

    opened: list[str] = []
    monkeypatch.setattr(view.webbrowser, "open", lambda address: opened.append(address) or True)
    view._show("http://127.0.0.1:1/#token=secret", argparse.Namespace(quiet=True, no_browser=False), tmp_path)
    assert opened == [(tmp_path / "open.html").as_uri()] and "secret" not in opened[0]
    assert "url=http://127.0.0.1:1/#token=secret" in (tmp_path / "open.html").read_text()


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    small_dng(tmp_path / "a.dng")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "--port" in refused(capsys, "a.dng", "--port", str(taken.getsockname()[1]))


def test_without_its_libraries_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "fastapi" else real(name, *rest)
    )
    assert "pip install 'adaptiveisp[view]'" in refused(capsys, "a.dng")


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_leaves_nothing_behind(tmp_path: Path, number: int) -> None:
    small_dng(tmp_path / "a.dng")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}",
        "TMPDIR": str(tmp_path / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "adaptiveisp", "view", "a.dng", "--no-browser"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        address = running.stdout.readline().strip()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)#token=[\w-]{32}", address)
        assert found is not None, address
        assert list((tmp_path / "tmp").glob("adaptiveisp-view-*"))
        for _ in range(100):
            try:
                assert b"adaptiveisp view" in urllib.request.urlopen(found[1], timeout=5).read()
                break
            except OSError:
                continue
        running.send_signal(number)
        assert running.wait(20) in (0, 130)
        assert "Traceback" not in running.stderr.read()
    assert not list((tmp_path / "tmp").glob("adaptiveisp-view-*"))

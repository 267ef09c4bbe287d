"""Output folders: one writer at a time, our marker before anything is replaced, and no way out through links."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from adaptiveisp.errors import OutputError, OutputNameError, UsageError
from adaptiveisp.utils.output_folder import (
    MARKER,
    check_inside,
    claim_folder,
    mark_shared_folder,
    marker_kind,
    reclaim_folder,
    remove_inside,
)
from tests.conftest import REPOSITORY

HOLDER = """
import sys
from pathlib import Path
from adaptiveisp.utils.output_folder import claim_folder
claim_folder(Path(sys.argv[1]), "run", overwrite=True)
print("claimed", flush=True)
sys.stdin.read()
"""


def holder(folder: Path) -> "subprocess.Popen[str]":
    """A process that has claimed the folder and waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert process.stdout is not None and process.stdout.readline() == "claimed\n"
    return process


def test_the_second_process_is_refused_in_one_line_and_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as process:
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=rf"out: process {process.pid} is writing there; wait until it ends"):
                claim_folder(out, "run", overwrite)
        with pytest.raises(UsageError, match="is writing there"):
            reclaim_folder(out, "run")
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        with claim_folder(out, "run", overwrite=False) as claim:
            assert claim.folder == out


def test_a_process_may_claim_its_own_folder_again_and_the_last_release_counts(tmp_path: Path) -> None:
    first = claim_folder(tmp_path / "out", "train", overwrite=False)
    second = reclaim_folder(tmp_path / "out", "train")
    first.release()
    first.release()
    script = [sys.executable, "-c", HOLDER, str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    options = {"env": environment, "capture_output": True, "text": True, "input": ""}
    refused = subprocess.run(script, **options, check=False)  # type: ignore[call-overload]
    assert f"process {os.getpid()} is writing there" in refused.stderr
    second.release()
    (tmp_path / "out" / MARKER).write_text('{"kind": "run"}')
    assert subprocess.run(script, **options, check=False).returncode == 0  # type: ignore[call-overload]


def test_only_a_folder_of_ours_is_filled_again(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep me")
    with pytest.raises(UsageError, match=r"mine: exists already; choose another --out or add --overwrite"):
        claim_folder(folder, "run", overwrite=False)
    with pytest.raises(UsageError, match=r"mine: holds files, and no \.adaptiveisp says .* put an empty file"):
        claim_folder(folder, "run", overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / MARKER).symlink_to(tmp_path / "elsewhere")  # a link is no marker, and nothing is written through it
    with pytest.raises(UsageError, match="holds files"):
        claim_folder(folder, "run", overwrite=True)
    assert not (tmp_path / "elsewhere").exists()
    (folder / MARKER).unlink()
    (folder / MARKER).touch()
    claim_folder(folder, "run", overwrite=True).release()
    assert marker_kind(folder) == "run"
    with pytest.raises(UsageError, match="mine: holds what `run` made; choose another --out"):
        claim_folder(folder, "eval", overwrite=True)
    with pytest.raises(UsageError, match="mine: holds what `run` made, not `train`"):
        reclaim_folder(folder, "train")
    with pytest.raises(UsageError, match="mine: holds what `run` made; choose another --cache"):
        mark_shared_folder(folder, "cache", "--cache")


@pytest.mark.parametrize(
    "content", ["", "text", "[]", '{"kind": 3}', '{"kind": "a b\\n"}', "[" * 5000, '{"kind": null}']
)
def test_a_damaged_marker_says_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(content)
    assert marker_kind(tmp_path) is None
    claim_folder(tmp_path, "synth", overwrite=False).release()
    assert json.loads((tmp_path / MARKER).read_text())["kind"] == "synth"


def test_a_failure_leaves_a_folder_as_it_was_found(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(ZeroDivisionError), claim_folder(tmp_path / name, "run", overwrite=False):
            raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and not list((tmp_path / "old").iterdir())


def test_places_that_cannot_be_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: is a file"):
        claim_folder(tmp_path / "file", "run", overwrite=True)
    with pytest.raises(UsageError, match="file: is a file; choose another --cache"):
        mark_shared_folder(tmp_path / "file", "cache", "--cache")
    with pytest.raises(OutputError, match="cannot be written"):
        claim_folder(tmp_path / "file" / "below", "run", overwrite=True)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "a.png").write_text("keep me")
    (folder / "away").symlink_to(outside)
    (folder / "a.png").symlink_to(outside / "a.png")
    for act in (check_inside, remove_inside):
        with pytest.raises(OutputNameError, match="a link leads out of"):
            act(folder, folder / "away" / "a.png")
    with pytest.raises(OutputNameError, match="a link leads out of"):
        check_inside(folder, folder / ".." / "outside" / "a.png")
    remove_inside(folder, folder / "a.png")  # the link itself
    remove_inside(folder, folder / "gone.png")
    assert not (folder / "a.png").is_symlink() and (outside / "a.png").read_text() == "keep me"
    (tmp_path / "out2").mkdir()
    with pytest.raises(OutputNameError):  # a name that begins alike is another folder
        check_inside(folder, tmp_path / "out2" / "x")


def test_a_cache_is_shared_and_marked(tmp_path: Path) -> None:
    mark_shared_folder(tmp_path / "cache", "cache", "--cache")
    mark_shared_folder(tmp_path / "cache", "cache", "--cache")
    assert marker_kind(tmp_path / "cache") == "cache"

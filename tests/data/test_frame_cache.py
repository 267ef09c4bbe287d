"""The cache of developed raws: same results, damage mended, limited in size, shared by processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.cli.parser import main
from adaptiveisp.data.frame_cache import LIMIT_VARIABLE, FrameCache
from adaptiveisp.errors import OutputError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from tests.conftest import REPOSITORY
from tests.support import layouts

RED = "tests.support.fake_detector:load"


def frame(seed: int, shape: tuple[int, ...] = (3, 20, 30)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 65536, shape).astype(np.uint16))


def key(number: int) -> str:
    return f"{number:040x}"


KEY = key(255)


def fail() -> tuple[torch.Tensor, tuple[int, int]]:
    raise AssertionError("made again")


def test_a_frame_comes_back_from_the_file(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "new" / "cache")
    first = cache.get(KEY, lambda: (frame(1), (300, 200)))
    again = FrameCache(tmp_path / "new" / "cache").get(KEY, fail)
    for found in (first, again):
        assert torch.equal(found.pixels, frame(1)) and found.full_size == (300, 200) and found.mapped
    again.pixels[:] = 0  # what a reader does to its pixels is not written back
    assert torch.equal(cache.get(KEY, fail).pixels, frame(1))
    assert sorted(path.name for path in (tmp_path / "new" / "cache").iterdir()) == [".adaptiveisp", f"{KEY}.npy"]
    assert np.load(tmp_path / "new" / "cache" / f"{KEY}.npy").shape == (3, 20, 30)


def test_a_frame_that_was_copied_over_another_is_found_out(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path)
    for number in (1, 2):
        cache.get(key(number), lambda number=number: (frame(number), (300, 200)))  # type: ignore[misc]
    shutil.copy(tmp_path / f"{key(1)}.npy", tmp_path / f"{key(2)}.npy")
    assert FrameCache(tmp_path).find(key(2)) is None and FrameCache(tmp_path).find(key(1)) is not None


@pytest.mark.parametrize("damage", ["cut", "cut trailer", "flipped", "emptied", "text", "header", "longer"])
def test_a_damaged_frame_is_made_again(damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"{KEY}.npy"
    FrameCache(tmp_path).get(KEY, lambda: (frame(1), (300, 200)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    good = path.read_bytes()
    path.write_bytes(
        {
            "cut": good[:1000],
            "cut trailer": good[:-1],
            "flipped": bytes(content),
            "emptied": b"",
            "text": b"no frame",
            "header": good[:20] + b"((((" + good[24:],
            "longer": good + b"x" * 20,
        }[damage]
    )
    cache = FrameCache(tmp_path)
    assert cache.find("k") is None
    assert torch.equal(cache.get(KEY, lambda: (frame(2), (30, 20))).pixels, frame(2))
    assert cache.get(KEY, fail).full_size == (30, 20)


def test_the_key_is_the_content_what_is_known_of_it_and_the_settings(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "cache")
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.full((20, 20, 3), 9, np.uint16))
    keys = {
        "same": cache.key(tmp_path / "a.npy", None, "s"),
        "settings": cache.key(tmp_path / "a.npy", None, "t"),
        "header": cache.key(tmp_path / "a.npy", BayerHeader(white=100.0), "s"),
    }
    assert cache.key(tmp_path / "b.npy", None, "s") == keys["same"], "another name, the same content"
    (tmp_path / "raw.yaml").write_text("raw-white: 200\n")
    keys["sidecar"] = cache.key(tmp_path / "a.npy", None, "s")
    (tmp_path / "raw.yaml").unlink()
    np.save(tmp_path / "a.npy", np.full((20, 20, 3), 8, np.uint16))
    keys["content"] = cache.key(tmp_path / "a.npy", None, "s")
    assert len(set(keys.values())) == 5


def test_the_longest_unused_give_way(tmp_path: Path) -> None:
    one = 128 + 3 * 20 * 30 * 2 + 20  # header, pixels, trailer
    cache = FrameCache(tmp_path, limit_gb=5.2 * one / 1e9)
    for number in range(5):
        cache.get(key(number), lambda number=number: (frame(number), (1, 1)))
        os.utime(tmp_path / f"{key(number)}.npy", (1000 + number, 1000 + number))
    cache.get(key(0), fail)  # used again, so it is not the oldest any more
    cache.get(key(5), lambda: (frame(5), (1, 1)))
    assert sorted(int(path.stem, 16) for path in tmp_path.glob("*.npy")) == [0, 3, 4, 5], (
        "1 and 2 went: 90 % of 5.2 are 4"
    )
    too_large = cache.get(key(6), lambda: (frame(6, (3, 200, 300)), (1, 1)))
    assert not too_large.mapped and torch.equal(too_large.pixels, frame(6, (3, 200, 300)))


def test_nothing_but_frames_is_ever_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = 128 + 3 * 20 * 30 * 2 + 20
    mine = tmp_path / "mine"
    mine.mkdir()
    np.save(mine / "mine.npy", np.zeros(3000))
    with pytest.raises(UsageError, match=r"mine: holds files, and no \.adaptiveisp says .* put an empty file"):
        FrameCache(mine)
    (mine / ".adaptiveisp").touch()  # the remedy that the message names
    outside = tmp_path / "outside.npy"
    np.save(outside, np.zeros(3000))
    (mine / f"{key(9)}.npy").symlink_to(outside)
    (mine / ".frame.npy.adaptiveisp-part.txt").write_text("mine")
    cache = FrameCache(mine, limit_gb=1.2 * one / 1e9)
    for number in range(4):
        cache.get(key(number), lambda number=number: (frame(number), (1, 1)))
    assert (mine / "mine.npy").is_file() and (mine / ".frame.npy.adaptiveisp-part.txt").is_file()
    assert outside.is_file() and (mine / f"{key(9)}.npy").is_symlink()
    assert len([path for path in mine.glob("0*.npy") if not path.is_symlink()]) == 1


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    code = (
        "import sys, os\nfrom pathlib import Path\nfrom adaptiveisp.utils.files import atomic_path\n"
        f"with atomic_path(Path({str(tmp_path / 'f.npy')!r})) as part:\n"
        "    part.write_bytes(b'half')\n    print(part.name, flush=True)\n    sys.stdin.read()\n"
    )
    start = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(start, **pipes) as killed, subprocess.Popen(start, **pipes) as alive:  # type: ignore[call-overload]
        dead, live = (tmp_path / process.stdout.readline().strip() for process in (killed, alive))
        killed.kill()
        killed.wait()
        assert dead.is_file() and live.is_file()
        (tmp_path / ".adaptiveisp").touch()
        FrameCache(tmp_path)
        assert not dead.exists() and live.is_file()
        alive.stdin.close()
        assert alive.wait(60) == 0
    assert (tmp_path / "f.npy").read_bytes() == b"half" and not live.exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --cache"):
        FrameCache(tmp_path / "file" / "cache")
    for text in ("many", "-1", "0", "nan"):
        monkeypatch.setenv(LIMIT_VARIABLE, text)
        with pytest.raises(UsageError, match=f"{LIMIT_VARIABLE}={text}: must be a number of gigabytes"):
            FrameCache(tmp_path / "cache")
    monkeypatch.setenv(LIMIT_VARIABLE, "0.5")
    cache = FrameCache(tmp_path / "cache")
    assert cache.limit == 500_000_000
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")  # gone while a run goes on
    found = cache.get(KEY, lambda: (frame(1), (3, 2)))
    assert torch.equal(found.pixels, frame(1)) and not found.mapped


@pytest.mark.usefixtures("without_figures")
def test_train_and_eval_give_the_same_with_it_and_read_no_raw_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    path = layouts.oneplus(tmp_path)
    common = ["--data", f"{path}:train", "--detector", RED, "--size", "64", "-q"]
    short = ["--set", "batch=2", "--set", "modules=[exposure]", "--set", "initial={}", "--budget", "8"]
    train = ["train", "--method", "fixed", *common, *short, "--dev", f"{path}:val", "--out"]
    score = ["eval", "--policy", "none", "auto-exposure", *common, "--resamples", "200", "--out"]
    assert main([*train, "plain"]) == 0 and main([*score, "plain-report"]) == 0
    assert main([*train, "first", "--cache", "cache"]) == 0 and main([*score, "first-report", "--cache", "cache"]) == 0
    assert len(list(Path("cache").glob("*.npy"))) == 3  # the one of train at two sizes, that of val at one
    monkeypatch.setattr("adaptiveisp.data.image_paths.read_raw", fail)
    assert main([*train, "second", "--cache", "cache"]) == 0
    assert main([*score, "second-report", "--cache", "cache", "--workers", "0"]) == 0
    logs = [Path(run, "metrics.jsonl").read_text() for run in ("plain", "first", "second")]
    assert logs[0] == logs[1] == logs[2]
    pipelines = [Path(f"{run}-report", "pipelines.jsonl").read_text() for run in ("plain", "first", "second")]
    assert pipelines[0] == pipelines[1] == pipelines[2]
    assert json.loads(Path("second", "summary.json").read_text())["best_ap50_on_dev"] == 1


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
import torch
from adaptiveisp.data.frame_cache import FrameCache
def frame(seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 65536, (3, 20, 30)).astype(np.uint16))
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
cache = FrameCache(folder, limit_gb=20 * 3800 / 1e9)
(folder.parent / f"ready{seed}").touch()
while not all((folder.parent / f"ready{other}").exists() for other in (0, 1)):
    time.sleep(0.001)
made = 0
def make(number):
    global made
    made += 1
    return frame(number), (number, 7)
for turn in range(200):
    number = (turn * 7 + seed * 11) % 30
    found = cache.get(f"{number:040x}", lambda: make(number))
    assert torch.equal(found.pixels, frame(number)) and found.full_size == (number, 7), number
    if turn % 25 == 0:  # damage by another hand
        damaged = folder.parent / f"damaged-{seed}"  # put there whole, as by any writer: the old one may be mapped
        damaged.write_bytes(b"half")
        damaged.replace(folder / f"{(number + 1) % 30:040x}.npy")
print(made)
"""


@pytest.mark.long
def test_two_processes_share_a_cache_that_is_too_small_for_both(tmp_path: Path) -> None:
    """Frames appear, give way and are damaged under the eyes of both; each always gets the right pixels."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "cache"), str(seed)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 1)
    ]
    answers = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], answers
    made = [int(out) for out, _ in answers]
    assert sum(made) >= 30 and max(made) < 200, made
    assert not list(tmp_path.glob(".*-part"))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")) <= 20 * 3800

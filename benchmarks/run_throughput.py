"""Frames a second and peak memory of `adaptiveisp run`, against an earlier commit of it in the same run.

    python benchmarks/run_throughput.py [--frames 500] [--rounds 3] [--size 640x480] [--raws DIR] [--commit dff75bc]
        [--old TREE] [--work DIR] [--options "--policy coco-adaptive"]

Makes FRAMES synthetic raws (12-bit RGGB mosaics in DNG: a lit scene of rectangles on a gradient, with shot noise, a
seed for each), or takes those of --raws. Both trees run the command `run RAWS --out DIR` in processes of their own, in
turn, with the same options. The output has the frames a second of each round with and without the time of a run of one
frame (which is mostly the start of Python and PyTorch), the median of the ratios, the peak memory (RSS) for all frames
and for a quarter of them, and whether all pictures have the same pixels and all boxes are the same.

The other tree is --old, or a `git worktree` of --commit below --work, with its kernels compiled.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent.parent


def make_raws(folder: Path, count: int, width: int, height: int) -> None:
    sys.path.insert(0, str(HERE / "src"))
    from adaptiveisp.raw.dng import write_dng
    from adaptiveisp.types import RawImage

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        generator = np.random.default_rng(number)
        light = np.linspace(40, 400, width)[None] * np.linspace(1, 1.5, height)[:, None]
        for _ in range(12):
            left, top = generator.integers(0, width - 40), generator.integers(0, height - 40)
            light[top : top + generator.integers(30, 200), left : left + generator.integers(30, 200)] *= (
                generator.uniform(0.3, 3)
            )
        light[1::2, 1::2] *= 0.7
        light[::2, ::2] *= 0.6
        codes = generator.poisson(light) + generator.normal(0, 4, light.shape) + 256
        raw = RawImage(codes.clip(0, 4095).astype(np.uint16), "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6))
        write_dng(raw, folder / f"{number:06}.dng")


def old_tree(commit: str, work: Path) -> Path:
    tree = work / f"tree-{commit}"
    if not list(tree.glob("src/adaptiveisp/kernels/_kernels*.so")):
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["git", "-C", str(HERE), "worktree", "prune"], check=True)
        subprocess.run(["git", "-C", str(HERE), "worktree", "add", "--detach", str(tree), commit], check=True)
        build = [sys.executable, "-c", "from setuptools import setup; setup()", "-q", "build_ext", "--inplace"]
        subprocess.run(build, cwd=tree, check=True)
    return tree


def timed(tree: Path, raws: Path, out: Path, options: list[str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of one run."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "adaptiveisp", "run", str(raws), "--out", str(out), "-q", *options]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=raws.parent)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{tree}: run ended with {process.returncode}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def differences(one: Path, other: Path) -> tuple[int, int, int]:
    """Pictures, pixels that differ, and files of boxes that differ apart from times."""
    pictures = pixels = boxes = 0
    for path in sorted(one.rglob("*.png")):
        if path.name != "overview.png":
            with Image.open(path) as first, Image.open(other / path.relative_to(one)) as second:
                pictures += 1
                pixels += int((np.asarray(first) != np.asarray(second)).any(axis=-1).sum())
    for path in sorted(one.rglob("*.boxes.json")):
        first, second = (json.loads(p.read_text()) for p in (path, other / path.relative_to(one)))
        boxes += any(first[key] != second[key] for key in ("boxes", "width", "height"))
    return pictures, pixels, boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--raws", type=Path)
    parser.add_argument("--commit", default="dff75bc")
    parser.add_argument("--old", type=Path)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "run-throughput")
    parser.add_argument("--options", default="", help="options of run, as one text")
    given = parser.parse_args()
    work, options = given.work, shlex.split(given.options)
    work.mkdir(parents=True, exist_ok=True)
    raws = given.raws or work / f"raws-{given.size}-{given.frames}"
    if given.raws is None and not raws.exists():
        make_raws(raws, given.frames, *map(int, given.size.split("x")))
    trees = {"old": given.old or old_tree(given.commit, work), "new": HERE}
    n = len([path for path in raws.rglob("*") if path.is_file()])
    start = {name: timed(tree, raws, work / "warm", [*options, "--limit", "1"])[0] for name, tree in trees.items()}
    said = given.options or "with its defaults"
    print(f"{n} raws, run {said}; a run of one takes {start['old']:.1f} s (old) and {start['new']:.1f} s (new)")
    ratios, ratios_after_start = [], []
    peak = dict.fromkeys(trees, 0.0)
    for number in range(given.rounds):
        seconds = {}
        for name, tree in list(trees.items())[:: 1 if number % 2 == 0 else -1]:
            seconds[name], used = timed(tree, raws, work / name, options)
            peak[name] = max(peak[name], used)
        ratios.append(seconds["old"] / seconds["new"])
        ratios_after_start.append((seconds["old"] - start["old"]) / (seconds["new"] - start["new"]))
        rates = ", ".join(f"{name} {n / value:.2f} frames a second" for name, value in seconds.items())
        print(f"round {number + 1}: {rates}, ratio {ratios[-1]:.2f}, without the start {ratios_after_start[-1]:.2f}")
    quarter = {
        name: timed(tree, raws, work / "quarter", [*options, "--limit", str(n // 4)])[1] for name, tree in trees.items()
    }
    print(
        f"median ratio {statistics.median(ratios):.2f}, without the start {statistics.median(ratios_after_start):.2f}"
    )
    for name in trees:
        print(f"{name}: peak memory {peak[name]:.0f} MB for {n} frames, {quarter[name]:.0f} MB for {n // 4}")
    pictures, pixels, boxes = differences(work / "old", work / "new")
    print(f"{pictures} pictures, {pixels} pixels differ; boxes of {boxes} frames differ")


if __name__ == "__main__":
    main()

"""Kills a run again and again and resumes it: `python -m tests.robustness.resumed --kills 20 --frames 500 --seed 0`.

One run goes to its end. Another is killed (SIGKILL) at random moments, each time resumed, until it has been killed so
often; then it goes to its end. Both must have the same rows, each frame once, and the same files, apart from times.
"""

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import adaptiveisp.evaluation.tables
import adaptiveisp.inference.batch  # noqa: F401  (before the forks, so that a kill falls into the work)
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.robustness.kills import RED, digest, ended, start, whole_sets


def prepare(frames: int) -> None:
    """Raws in `raws`, one of them damaged."""
    Path("raws").mkdir()
    for number in range(frames):
        codes = np.random.default_rng(number).integers(300, 3000, (96, 128), dtype=np.uint16)
        write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), Path("raws") / f"{number:05}.dng")
    (Path("raws") / "00003.dng").write_text("damaged")


def command(out: str, *more: str) -> list[str]:
    facts = ["--detector", RED, "--policy", "auto-exposure", "--size", "128", "--save-steps", "--full", "-q"]
    return ["run", "raws", "--out", out, *facts, *more]


def check(frames: int, kills: int, seed: int) -> list[str]:
    """What is wrong in the end; empty for nothing."""
    begin = time.perf_counter()
    assert ended(start(command("whole"))) == 3
    seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    assert ended(start(command("whole", "--resume"))) == 3  # there is nothing to do, so this is the start alone
    starting = time.perf_counter() - begin
    chance = random.Random(seed)
    wrong, done, killed, lengths = [], 0, 0, []
    while killed < kills:
        process = start(command("out", "--resume"))
        time.sleep(starting * chance.uniform(0.7, 1.0) + chance.uniform(0, 2 * max(seconds - starting, 0.5) / kills))
        os.kill(process, signal.SIGKILL)
        code = ended(process)
        killed += code == -signal.SIGKILL
        if code not in (-signal.SIGKILL, 3):
            wrong.append(f"a run ended with {code}")
            break
        if code == 3:  # it reached its end before the kill, so another one begins
            shutil.rmtree("out")
        whole_sets(Path("out"))
        rows = Path("out/results.jsonl")
        lengths.append(rows.read_bytes().count(b"\n") if rows.exists() else 0)
        done = max(done, lengths[-1])
    code = ended(start(command("out", "--resume")))
    lines = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    counts = Counter(row["frame"] for row in lines)
    if code != 3 or len(lines) != frames or max(counts.values()) != 1:
        wrong.append(f"code {code}, {len(lines)} rows for {frames} frames, {max(counts.values())} of one")
    first, second = digest(Path("whole")), digest(Path("out"))
    wrong += [f"{name} differs" for name in first.keys() | second.keys() if first.get(name) != second.get(name)]
    print(f"rows after each kill: {lengths}")
    return wrong


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(options.frames)
        wrong = check(options.frames, options.kills, options.seed)
        os.chdir(home)
    print(f"{options.kills} kills of a run of {options.frames} frames, {len(wrong)} things wrong: {wrong[:5]}")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(run())

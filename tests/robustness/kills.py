"""Kills commands at random moments and looks at what is left: `python -m tests.robustness.kills --kills 200 --seed 0`.

Each command runs once to its end, in a child of this process. Then it runs again and again, each time killed (SIGKILL)
at a random moment of its duration. After each kill nothing may be lost, and the next run must end with the very same
files and leave nothing beside them. The children are forked, so that a kill falls into the work and not into the start
of Python.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaptiveisp.cli.parser import main
from adaptiveisp.data.opening import open_folder
from adaptiveisp.detectors import weights
from adaptiveisp.detectors.weights import WeightsEntry
from adaptiveisp.utils.files import PART_SUFFIX
from tests.conftest import shared_folder
from tests.support.photos import labelled_photos

RED = "tests.support.fake_detector:load"
TIMES = {
    "milliseconds",
    "timings",
    "times",
    "ms_per_image",
    "clock_ms",
    "table_ms",
    "clock_table",
    "ms",
    "learning_seconds",
    "seconds_of_parts",
    "peak_memory_mb",
    "provenance",
}
"""Keys of JSON files whose values differ from run to run."""
UNLIKE = ("timing.jsonl", ".adaptiveisp", "report.html", "overview.png", "trajectories.png")
"""Files that must be there, and show times."""
CONTENT = np.random.default_rng(0).bytes(20_000_000)
ENTRY = WeightsEntry(
    *("toy", "toy.weights", len(CONTENT), hashlib.sha256(CONTENT).hexdigest()),
    *("carrier==1", "ab" * 32, "carrier/toy.weights", "public domain", "random numbers"),
)


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: for the table.
        command: its arguments.
        again: those that go on after a kill; `command` where nothing was begun.
        out: file or folder that it writes, relative to the current one.
        check: looks at what a kill left, before the command goes on; raises AssertionError.
        begun: file in `out` without which there is nothing to go on from.
    """

    name: str
    command: list[str]
    again: list[str]
    out: str
    check: Callable[[Path], None]
    begun: str = ""


def scenarios() -> list[Scenario]:
    """All commands that write, with small inputs in the current folder (see `prepare`)."""
    small = ["--detector", RED, "--threads", "1", "-q"]
    photos = ["--data", "labels.json", "--images", "images", "--light", "mixed", "--size", "64", *small]
    run = ["run", "raws", "--out", "out", "--size", "64", "--save-steps", "--full", "--save-params", *small]
    synth = ["synth", "--data", "labels.json", "--images", "images", "--light", "dark,normal", "--draws", "3"]
    synth += ["--out", "out", "-q"]
    evaluate = ["eval", "--data", "set-of-raws/dark", "--policy", "none", "auto-exposure", "--cache", "cache"]
    evaluate += ["--size", "64", "--resamples", "200", "--out", "out", *small]
    train = ["train", "--out", "out", *photos, "--checkpoint-every", "2", "--dev", "labels.json", "--dev-every", "4"]
    train += ["--dev-size", "64"]
    critic = ["--budget", "96", "--set=replay_size=8", "--set=horizon=2", "--set=rollout=2"]
    critic += ["--set=expert_modules=[gamma, exposure]"]
    sequence = ["--budget", "60", "--method", "sequence", "--set=horizon=2", "--set=batch=2"]
    sequence += ["--set=expert_modules=[]", "--set=imitation_warmup=0", "--costs=paper"]  # measured costs differ
    resume = ["train", "--resume", "out", *small]
    get = ["weights", "get", "toy", "--from", "toy.weights"]
    found = [
        Scenario("train actor_critic", [*train, *critic], resume, "out", whole_files, "config.yaml"),
        Scenario("train sequence", [*train, *sequence], resume, "out", whole_files, "config.yaml"),
        Scenario("run", run, [*run, "--overwrite"], "out", whole_sets),
        Scenario("run resumed", run, [*run, "--resume"], "out", whole_sets, "settings.json"),
        Scenario("synth", synth, [*synth, "--overwrite"], "out", kept_promises),
        Scenario("eval with cache", evaluate, [*evaluate, "--overwrite"], "out", whole_files),
        Scenario("weights get", get, get, "weights-cache", whole_files),
    ]
    if Path("released.pth").exists():
        command = ["import", "released.pth", "--out", "out/policy.safetensors"]
        found.append(Scenario("import", command, [*command, "--overwrite"], "out", whole_files))
    return found


def prepare(folder: Path) -> None:
    """Makes the inputs of all scenarios in a new folder and goes there."""
    labelled_photos(folder, n=8)
    os.chdir(folder)
    data = ["--data", "labels.json", "--images", "images", "--light", "dark", "-q"]
    assert ended(start(["synth", *data, "--format", "dng", "--out", "set-of-raws"])) == 0
    shutil.copytree("set-of-raws/dark/images", "raws")
    released = shared_folder() / "golden" / "reference-random.pth"
    if released.is_file():
        shutil.copy(released, "released.pth")
    Path("toy.weights").write_bytes(CONTENT)
    weights.WEIGHTS["toy"] = ENTRY
    os.environ["ADAPTIVEISP_CACHE"] = str(folder / "weights-cache")


def start(arguments: list[str]) -> int:
    """The process of a command, forked; what it says goes to `log.txt`."""
    process = os.fork()
    if process == 0:
        code = 99
        try:
            log = os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = main(arguments)
        except BaseException:  # whatever it is must be told here: a forked child does not return
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    return process


def ended(process: int) -> int:
    """The exit code of a process at its end."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


# what may be left by a kill


def whole_files(out: Path) -> None:
    """Every file under its own name is whole."""
    for path in files_of(out):
        if path.name.endswith(PART_SUFFIX):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".weights":
            assert path.read_bytes() == CONTENT
        elif path.suffix in (".safetensors", ".pt"):
            assert path.stat().st_size > 1000


def whole_sets(out: Path) -> None:
    """Whoever finds boxes finds all that belongs to them."""
    whole_files(out)
    for boxes in out.rglob("*.boxes.json"):
        stem = boxes.name.removesuffix(".boxes.json")
        for suffix in (".png", ".boxes.png", ".full.png", ".pipeline.json", ".step00-developed.png"):
            assert boxes.with_name(stem + suffix).is_file(), f"{boxes} without {suffix}"
        stages = json.loads(boxes.with_name(f"{stem}.pipeline.json").read_text())["stages"]
        assert len(list(boxes.parent.glob(f"{stem}.step[0-9]*.png"))) == len(stages) + 1


def kept_promises(out: Path) -> None:
    """Labels list only raws that are there."""
    whole_files(out)
    for labels in out.rglob("labels.json"):
        for entry in json.loads(labels.read_text())["images"]:
            assert (labels.parent / entry["file_name"]).is_file()
    if (out / "set.json").is_file() and json.loads((out / "set.json").read_text())["lights"]:
        open_folder(out)


# what must be there in the end


def files_of(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file() and path.parent.name != "tensorboard")


def digest(out: Path) -> dict[str, Any]:
    """File → its content, without what differs from run to run."""
    return {str(path.relative_to(out)): _content(path) for path in files_of(out)}


def _content(path: Path) -> Any:
    if path.name in UNLIKE or path.name == "config.yaml":
        return "there"
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        return [_without_times(json.loads(line)) for line in lines]
    if path.name == "latest.pt":
        return "there"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def kill_once(scenario: Scenario, seconds: float, expected: dict[str, Any], moment: float) -> str:
    """Kills a command after a share of its duration, looks, goes on; what is wrong, "" for nothing."""
    clear()
    out = Path(scenario.out)
    mine = Path("mine.txt")
    mine.write_text("keep me")
    process = start(scenario.command)
    time.sleep(moment * seconds)
    os.kill(process, signal.SIGKILL)
    ended(process)
    try:
        scenario.check(out)
        begun = (out / scenario.begun).is_file() if scenario.begun else True
        again = scenario.again if begun else [*scenario.command, "--overwrite"]
        code = ended(start(again))
        if code != 0:
            return f"exit {code} after the kill: {Path('log.txt').read_text().splitlines()[-1:]}"
        left = [str(path) for path in Path(".").rglob(f"*{PART_SUFFIX}")]
        if left:
            return f"left behind: {left}"
        found = digest(out)
        if found != expected:
            names = {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
            return f"other than uninterrupted: {sorted(names)}"
        assert mine.read_text() == "keep me"
    except (AssertionError, ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def clear() -> None:
    """Removes what the last command wrote."""
    for name in ("out", "cache", "weights-cache", "log.txt"):
        path = Path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def kill_all(kills: int, seed: int, say: Callable[[str], None] = lambda line: None) -> list[str]:
    """Kills the scenarios in turn, in the current folder; what was wrong."""
    generator = random.Random(seed)
    wrong: list[str] = []
    ready = []
    for scenario in scenarios():
        clear()
        began = time.monotonic()
        code = ended(start(scenario.command))
        assert code == 0, (scenario.name, code, Path("log.txt").read_text())
        ready.append((scenario, time.monotonic() - began, digest(Path(scenario.out))))
        say(f"{scenario.name}: {ready[-1][1]:.2f} s, {len(ready[-1][2])} files")
    for number in range(kills):
        scenario, seconds, expected = ready[number % len(ready)]
        moment = generator.random()
        if failure := kill_once(scenario, seconds, expected, moment):
            wrong.append(f"{scenario.name}, kill {number} at {moment:.3f}: {failure}")
            say(wrong[-1])
        elif number % 10 == 9:
            say(f"{number + 1} kills")
    return wrong


def command_line() -> int:
    """Kills as often as asked; 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        wrong = kill_all(options.kills, options.seed, lambda line: print(line, flush=True))
        os.chdir("/")
    print(f"{options.kills} kills, {len(wrong)} with something wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(command_line())

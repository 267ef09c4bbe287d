"""Training runs that tests start through the command line, in the current folder with `labelled_photos`."""

import json
from collections.abc import Sequence
from pathlib import Path

from adaptiveisp.cli.parser import main

RED = "tests.support.fake_detector:load"
PHOTOS = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", "64", "--detector", RED)


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


SHORT = ("replay_size=16", "horizon=3", "rollout=3", "expert_modules=[gamma, exposure]")
"""Settings of the actor-critic that make an iteration quick; the rest is the default preset's."""


QUICK = ("--method", "fixed", "--set", "modules=[exposure, gamma]", "--set", "initial={}")
"""The method and settings of the quickest run, for tests to which the method does not matter."""


def train_arguments(out: str, budget: int = 120, changes: Sequence[str] = SHORT) -> list[str]:
    how = ("--threads", "1", "--out", out, "--budget", str(budget), "--dev-size", "64", "-q")
    return ["train", *PHOTOS, *how, *(f"--set={change}" for change in changes)]


def metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

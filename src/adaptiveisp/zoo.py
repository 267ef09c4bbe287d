"""Policies by what the command line names: built-in ones, pipeline files, policy files, run folders."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

from adaptiveisp.checkpoint import SEQUENCE, read_header
from adaptiveisp.errors import UsageError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.oracle import GreedyOracle
from adaptiveisp.policies import AnyPolicy, AutoExposure, CameraDevelopment, FixedPipeline, load_fixed
from adaptiveisp.sequence_policy import load_sequence
from adaptiveisp.stepwise import load_stepwise

RUN_POLICIES = ("best.safetensors", "best.json", "latest.safetensors", "latest.json")
"""Policy files of a run folder, the first that exists is taken."""


def night() -> FixedPipeline:
    """One pipeline of our modules for dark raws, which ships with the package."""
    with resources.as_file(resources.files("adaptiveisp") / "pipelines" / "night.json") as path:
        return FixedPipeline(Pipeline.load(path), "night")


NAMED_POLICIES: dict[str, AnyPolicy] = {
    "none": FixedPipeline(Pipeline(())),
    "auto-exposure": AutoExposure(),
    "camera": CameraDevelopment(),
    "night": night(),
    "greedy-oracle": GreedyOracle(),
    "greedy-oracle-raw": GreedyOracle("greedy-oracle-raw", start="raw"),
}
"""Policies that the command line knows by name; the oracles need labels, see `oracle`."""


def policy_file(spec: str) -> Path:
    """The file of a learned policy: the path itself, or the best one of a run folder.

    Raises:
        UsageError: there is none.
    """
    path = Path(spec)
    files = [path, *(path / name for name in RUN_POLICIES)]
    for file in files:
        if file.suffix in (".json", ".safetensors") and (file is path or file.is_file()):
            return file
    raise UsageError(
        f"policy {spec!r} does not exist; choose one of {', '.join(NAMED_POLICIES)}, a pipeline .json, "
        "a policy .safetensors or the folder of a training run"
    )


def load_policy(spec: str, device: str = "cpu", steps: int = 0) -> AnyPolicy:
    """The policy that P of the command line names.

    Args:
        spec: one of `NAMED_POLICIES`, a pipeline .json, a policy .safetensors, or the folder of a training run.
        device: where a learned policy's networks run.
        steps: so many steps of a step-wise policy, or at most of an oracle; 0 takes its own number.

    Raises:
        UsageError: there is no such policy.
        PipelineError, WeightsError: the file is missing or wrong.
    """
    if spec in NAMED_POLICIES:
        named = NAMED_POLICIES[spec]
        return replace(named, horizon=steps) if steps and isinstance(named, GreedyOracle) else named
    file = policy_file(spec)
    name = file.stem if file == Path(spec) else Path(spec).name
    if file.suffix == ".json":
        return replace(load_fixed(file), name=name)
    load = load_sequence if read_header(file).kind == SEQUENCE else load_stepwise
    return load(file, name, device, steps)

"""Policies by what the command line names: built-in ones, pipeline files, policy files, run folders."""

from importlib import resources
from pathlib import Path

from adaptiveisp.errors import UsageError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies import AnyPolicy, AutoExposure, CameraDevelopment, FixedPipeline
from adaptiveisp.stepwise import load_stepwise

RUN_POLICIES = ("best.safetensors", "latest.safetensors")
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
}
"""Policies that the command line knows by name."""


def load_policy(spec: str, device: str = "cpu", steps: int = 0) -> AnyPolicy:
    """The policy that P of the command line names.

    Args:
        spec: one of `NAMED_POLICIES`, a pipeline .json, a policy .safetensors, or the folder of a training run.
        device: where a learned policy's networks run.
        steps: so many steps of a step-wise policy; 0 takes its own number.

    Raises:
        UsageError: there is no such policy.
        PipelineError, WeightsError: the file is missing or wrong.
    """
    if spec in NAMED_POLICIES:
        return NAMED_POLICIES[spec]
    path = Path(spec)
    if path.suffix == ".json":
        return FixedPipeline(Pipeline.load(path), path.stem)
    if path.suffix == ".safetensors":
        return load_stepwise(path, device=device, steps=steps)
    for name in RUN_POLICIES:
        if (path / name).is_file():
            return load_stepwise(path / name, path.name, device, steps)
    raise UsageError(
        f"policy {spec!r} does not exist; choose one of {', '.join(NAMED_POLICIES)}, a pipeline .json, "
        "a policy .safetensors or the folder of a training run"
    )

"""A pipeline: the modules of one image in order with their parameters; it renders images and is stored as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.execution import Call, run
from adaptiveisp.isp.modules.bilateral_grid import IN_NO_FILE
from adaptiveisp.isp.registry import STATED, IspModule, find_module, modules_of
from adaptiveisp.types import Image
from adaptiveisp.utils.files import read_json, write_json

VERSION = 1
DEFAULT_SET = "extended"
"""The set whose modules and ranges a pipeline file without "module_set" may use: the largest."""

START_KEY = "start"
"""Key of a pipeline file that names a heuristic fitted to each image; such a file describes a policy."""

MOST_STAGES = 64
"""Most stages of a pipeline file: each is a pass over the image, and the longest of our policies has 12."""
FILE_REMEDY = 'give {"version": 1, "stages": [{"module": "exposure", "params": {"ev": 2.5}}]}'


@dataclass(frozen=True)
class Stage:
    """One module and its parameters by name, in physical units."""

    module: str
    params: Mapping[str, float]

    def __reduce__(self) -> tuple[type["Stage"], tuple[str, dict[str, float]]]:
        return Stage, (self.module, dict(self.params))  # a read-only mapping cannot be pickled


@dataclass(frozen=True)
class Pipeline:
    """Stages applied one after the other; only the named modules run.

    Attributes:
        stages: may be empty, which leaves images unchanged.
        module_set: the named set whose modules and ranges the stages use.

    Raises:
        PipelineError: an unknown module or set, or a parameter that is missing, unknown, not finite or out of range.

    >>> Pipeline((Stage("exposure", {"ev": 1.0}),)).render(torch.full((1, 3, 1, 1), 0.25)).flatten().tolist()
    [0.5, 0.5, 0.5]
    """

    stages: tuple[Stage, ...]
    module_set: str = DEFAULT_SET

    def __post_init__(self) -> None:
        modules_of(self.module_set)
        checked = tuple(
            Stage(stage.module, MappingProxyType(find_module(stage.module, self.module_set).check(stage.params)))
            for stage in self.stages
        )
        object.__setattr__(self, "stages", checked)

    def __reduce__(self) -> tuple[type["Pipeline"], tuple[tuple[Stage, ...], str]]:
        return Pipeline, (self.stages, self.module_set)  # checked again, and its parameters read-only again

    @property
    def modules(self) -> tuple[IspModule, ...]:
        """The modules in the order they run."""
        return tuple(find_module(stage.module, self.module_set) for stage in self.stages)

    @property
    def cost_ms(self) -> float:
        """Sum of the modules' costs in milliseconds, from the paper's table."""
        return sum(module.cost_ms for module in self.modules)

    def with_stages(self, stages: Sequence[Stage]) -> "Pipeline":
        """A pipeline of the same kind and module set with other stages."""
        return Pipeline(tuple(stages), self.module_set)

    def for_monochrome(self) -> "Pipeline":
        """The pipeline as monochrome raws need it, apart from stages that are left out; usually the same one."""
        return self

    def blended(self, before: "Pipeline", share: float) -> "Pipeline":
        """The pipeline with what is not in its stages between an earlier frame's and its own; usually the same one.

        Args:
            before: pipeline of the earlier frame.
            share: weight of this pipeline's own values.
        """
        return self

    def steps(self, image: Image) -> Iterator[Image]:
        """The image after each stage."""
        for stage, module in zip(self.stages, self.modules, strict=True):
            row = torch.tensor([list(stage.params.values())], dtype=image.dtype, device=image.device)
            image = module(image, row.expand(image.shape[0], -1))
            yield image

    def render(self, image: Image) -> Image:
        """The image after all stages; every image of the batch gets the same parameters.

        Stages of the set `pos-isp` may leave values above 1, see `clipped`.

        Where no gradient of the image is wanted, `execution.run` renders it, with the same values to 1e-5.

        Args:
            image: developed image, linear RGB in [0, 1].
        """
        if image.requires_grad and torch.is_grad_enabled():
            for step in self.steps(image):
                image = step
            return image
        return run(image, self.calls)

    def clipped(self, image: Image) -> Image:
        """The rendered image as a detector takes it: clipped to [0, 1] where the last module does not do that."""
        clips = not self.stages or find_module(self.stages[-1].module, self.module_set).clips
        return image if clips else image.clamp(0, 1)

    @property
    def calls(self) -> list[Call]:
        """Modules and parameters in order, as `execution.run` takes them."""
        return [(m, list(stage.params.values())) for m, stage in zip(self.modules, self.stages, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The contents of a pipeline file."""
        stages = [{"module": stage.module, "params": dict(stage.params)} for stage in self.stages]
        return {"version": VERSION, "module_set": self.module_set, "stages": stages}

    @classmethod
    def from_json(cls, value: Any, origin: str = "pipeline") -> "Pipeline":
        """The pipeline described by the parsed contents of a pipeline file.

        Args:
            value: parsed JSON.
            origin: name to put into errors, for instance the file.

        Raises:
            PipelineError: the structure, a module or a parameter is wrong.
        """
        if not isinstance(value, dict) or not isinstance(value.get("stages"), list) or not _is_current(value):
            raise PipelineError(f"{origin}: is not a pipeline of version {VERSION}; {FILE_REMEDY}")
        if value.get(START_KEY, "raw") != "raw":
            raise PipelineError(
                f"{origin}: starts from {value[START_KEY]}, which is fitted to each image; load it as a policy"
            )
        if len(value["stages"]) > MOST_STAGES:
            raise PipelineError(f"{origin}: has {len(value['stages'])} stages, more than {MOST_STAGES}; {FILE_REMEDY}")
        module_set = str(value.get("module_set", DEFAULT_SET))
        stages = []
        for number, stage in enumerate(value["stages"], 1):
            params = stage.get("params", {}) if isinstance(stage, dict) else None
            if not isinstance(params, dict) or not isinstance(stage.get("module"), str):
                raise PipelineError(f"{origin}: stage {number} lacks its module or params; {FILE_REMEDY}")
            if stage["module"] in {module.name for module in STATED}:
                raise PipelineError(f"{origin}: stage {number} is {stage['module']}: {IN_NO_FILE}")
            try:
                stages.append(Stage(stage["module"], find_module(stage["module"], module_set).check(params)))
            except PipelineError as error:
                raise PipelineError(f"{origin}: stage {number}: {error}") from None
        try:
            return cls(tuple(stages), module_set)
        except PipelineError as error:
            raise PipelineError(f"{origin}: {error}") from None

    def save(self, path: Path, **extra: Any) -> None:
        """Writes the pipeline as JSON, atomically; `extra` keys (such as provenance) go beside it."""
        write_json(Path(path), {**self.to_json(), **extra})

    @classmethod
    def load(cls, path: Path) -> "Pipeline":
        """The pipeline in a JSON file.

        Raises:
            PipelineError: the file is missing, is not JSON, or its contents are wrong.
        """
        return cls.from_json(read_json(Path(path), PipelineError, FILE_REMEDY), str(path))

    def describe(self) -> list[str]:
        """One readable line a stage, for instance "exposure ev=2.5"."""
        return [
            " ".join([stage.module, *(f"{name}={value:.3g}" for name, value in stage.params.items())])
            for stage in self.stages
        ]


def _is_current(value: Mapping[str, Any]) -> bool:
    """Whether a pipeline file is of this version; JSON's true does not count as 1."""
    version = value.get("version")
    return version == VERSION and not isinstance(version, bool)

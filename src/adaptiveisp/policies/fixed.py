"""Pipelines of files as policies: the whole pipeline, or its modules with the parameters of another policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from adaptiveisp.errors import PipelineError, PolicyError
from adaptiveisp.isp.external import names_external
from adaptiveisp.isp.pipeline import FILE_REMEDY, START_KEY, Pipeline, Stage
from adaptiveisp.policies.base import PREPROCESSINGS, Policy, Preprocessing, selected_stages
from adaptiveisp.policies.preprocessing import preprocessing_stages
from adaptiveisp.types import Image
from adaptiveisp.utils.files import read_json


@dataclass(frozen=True)
class FixedPipeline(Policy):
    """The same pipeline for every image; the policy `none` has the empty pipeline.

    Attributes:
        pipeline: its stages.
        name: short name for tables.
        preprocessing: heuristic whose stages run before the pipeline's, fitted to each image; "raw" for no stages.
    """

    pipeline: Pipeline
    name: str = "none"
    preprocessing: Preprocessing = "raw"
    is_static: ClassVar[bool] = True

    def plan(self, image: Image) -> list[Pipeline]:
        """The stages of the preprocessing for each image, then the pipeline's."""
        return self._after_preprocessing(image, self.pipeline.stages)

    @property
    def needs_raw(self) -> bool:
        """Whether one of the stages is an external ISP."""
        return names_external(self.pipeline.modules)

    @property
    def settable(self) -> tuple[str, ...]:
        """The modules of the pipeline."""
        return tuple(stage.module for stage in self.pipeline.stages)

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The stages of the preprocessing, then these modules with the pipeline's parameters for them."""
        return self._after_preprocessing(image, selected_stages(self.pipeline.stages, modules))

    def _after_preprocessing(self, image: Image, stages: tuple[Stage, ...]) -> list[Pipeline]:
        prefixes = preprocessing_stages(image, self.preprocessing)
        return [Pipeline(prefix + stages, self.pipeline.module_set) for prefix in prefixes]


def load_fixed(path: Path) -> FixedPipeline:
    """The policy in a pipeline file. The file's optional key "start" names the preprocessing.

    Args:
        path: a pipeline .json.

    Raises:
        PipelineError: the file is missing, is no JSON, or its contents are wrong.
    """
    path = Path(path)
    content = read_json(path, PipelineError, FILE_REMEDY)
    kind = content.pop(START_KEY, "raw") if isinstance(content, dict) else "raw"
    if kind not in PREPROCESSINGS:
        raise PipelineError(f"{path}: {START_KEY} {kind!r} does not exist; choose one of {', '.join(PREPROCESSINGS)}")
    return FixedPipeline(Pipeline.from_json(content, str(path)), path.stem, kind)


def save_fixed(path: Path, policy: FixedPipeline, **extra: Any) -> None:
    """Writes a file that `load_fixed` reads, atomically.

    Args:
        path: file to write.
        policy: pipeline and preprocessing.
        extra: further keys of the file, such as provenance.
    """
    start = {} if policy.preprocessing == "raw" else {START_KEY: policy.preprocessing}
    policy.pipeline.save(path, **start, **extra)


@dataclass(frozen=True)
class ForcedModules(Policy):
    """The modules of a pipeline file with the parameters that another policy chooses for them.

    Attributes:
        policy: chooses the parameters.
        pipeline: gives the modules and their order; its own parameters are not used.
        name: short name for tables; "" takes the policy's name with a mark.

    Raises:
        PolicyError: the policy sets no parameters for one of the modules.
    """

    policy: Policy
    pipeline: Pipeline
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", f"{self.policy.name} (forced)")
        known = self.policy.settable
        for stage in self.pipeline.stages:
            if stage.module not in known:
                raise PolicyError(
                    f"policy {self.policy.name} sets no parameters for the module {stage.module}; "
                    f"it sets {', '.join(known) or 'none'}; use --pipeline without --policy"
                )

    @property
    def note(self) -> str:
        """Whose parameters run, and which stages the policy's preprocessing adds."""
        first = self.policy.preprocessing
        own = f"the modules are the pipeline file's, their parameters are those of {self.policy.name}, not the file's"
        if first == "raw":
            return own
        return f"{self.policy.name} starts with {first}: its stages come first, then the file's; {own}"

    @property
    def thread_safe(self) -> bool:
        """That of the policy."""
        return self.policy.thread_safe and not self.needs_raw

    @property
    def needs_raw(self) -> bool:
        """Whether one of the modules is an external ISP."""
        return names_external(self.pipeline.modules)

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the policy, whose stages run before the forced modules."""
        return self.policy.preprocessing

    @property
    def n_preprocessing(self) -> int:
        """Number of its stages."""
        return self.policy.n_preprocessing

    def plan(self, image: Image) -> list[Pipeline]:
        """The forced modules with the policy's parameters, for each developed image."""
        return self.policy.plan_with(image, [stage.module for stage in self.pipeline.stages])

"""A pipeline with an external ISP, which holds the raw that this ISP develops."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adaptiveisp.isp.external import RawFrame, names_external, rendered_frames
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.types import Image, ParamTensor


@dataclass(frozen=True)
class RawPipeline(Pipeline):
    """A pipeline with an external ISP, bound to the raw that it develops.

    Attributes:
        frame: the raw and the part of it that the images show; always given.
    """

    frame: RawFrame | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["RawPipeline"], tuple[Any, ...]]:
        return RawPipeline, (self.stages, self.module_set, self.frame)

    @property
    def modules(self) -> tuple[IspModule, ...]:
        """The modules in the order they run; an external ISP develops this pipeline's raw."""
        assert self.frame is not None
        return tuple(_with_frame(module, self.frame) for module in super().modules)

    def with_stages(self, stages: Sequence[Stage]) -> "RawPipeline":
        """Other stages for the same raw."""
        return replace(self, stages=tuple(stages))


def _with_frame(module: IspModule, frame: RawFrame) -> IspModule:
    """The module itself, or that of an external ISP with a function that develops this frame."""
    if module.external is None:
        return module

    def develop(image: Image, params: ParamTensor) -> Image:
        return rendered_frames(module, [frame] * len(image), params, image)

    return replace(module, function=develop)


def bound_to(pipeline: Pipeline, frame: RawFrame) -> Pipeline:
    """The pipeline with its external ISPs bound to a raw; the pipeline itself if it has none.

    Args:
        pipeline: any pipeline.
        frame: the raw that the images show.
    """
    if not names_external(pipeline.modules):
        return pipeline
    return RawPipeline(pipeline.stages, pipeline.module_set, frame)

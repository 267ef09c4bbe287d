"""The images after each stage of a pipeline, kept as far as nothing before them has changed."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.execution import Call, run_one
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.policies.base import Developed, grey_pipeline
from adaptiveisp.serving.limits import STAGE_BYTES
from adaptiveisp.types import RawImage
from adaptiveisp.utils.clock import Stopwatch

Picture = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class StageImage:
    """An image after a stage.

    Attributes:
        image: values in [0, 1], above 1 where a later stage takes them.
        milliseconds: time of this stage alone, when it ran.
    """

    image: Picture
    milliseconds: float


class StageCache:
    """Images after the beginnings of pipelines, the least recently used of which are dropped.

    Args:
        most_bytes: bytes of images that are kept.
    """

    def __init__(self, most_bytes: int = STAGE_BYTES):
        self.most_bytes = most_bytes
        self._kept: OrderedDict[Hashable, StageImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def images(self, name: Hashable, raw: RawImage, developed: Developed, pipeline: Pipeline) -> list[StageImage]:
        """The developed image, then the image after each stage of a pipeline.

        Stages whose only effect is on colours pass a monochrome image on unchanged, as in `AdaptiveISP.render`.

        Args:
            name: of the image and its size.
            raw: the raw, which external ISPs develop.
            developed: the same raw, developed.
            pipeline: the pipeline.
        """
        start = StageImage(developed.small[0], 0.0)
        # Modules of one name compute different things in different sets.
        return self._after((name, pipeline.module_set), start, _calls(raw, developed, pipeline))

    def _after(self, name: Hashable, start: StageImage, calls: Sequence[Call | None]) -> list[StageImage]:
        found: list[StageImage] = [start]
        key: tuple[Hashable, ...] = (name,)
        for call in calls:
            if call is None:  # left out
                found.append(StageImage(found[-1].image, 0.0))
                continue
            module, params = call
            key = (*key, (module.name, tuple(params)))
            known = self._get(key)
            if known is None:
                stopwatch = Stopwatch(start.image.device)
                with stopwatch.part("stage"), torch.inference_mode():
                    image = run_one(found[-1].image, [call])
                known = StageImage(image, stopwatch.milliseconds["stage"])
                self._put(key, known)
            found.append(known)
        return found

    def _get(self, key: Hashable) -> StageImage | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def _put(self, key: Hashable, value: StageImage) -> None:
        with self._lock:
            self._kept[key] = value
            self._bytes += value.image.nbytes
            while self._bytes > self.most_bytes and len(self._kept) > 1:
                _, old = self._kept.popitem(last=False)
                self._bytes -= old.image.nbytes


def _calls(raw: RawImage, developed: Developed, pipeline: Pipeline) -> list[Call | None]:
    """Module and parameters of each stage; None for a stage that a monochrome image leaves out."""
    bound = bound_to(pipeline, RawFrame(raw))
    if not developed.is_monochrome:
        return list(bound.calls)
    grey = iter(grey_pipeline(bound)[0].calls)
    return [None if module.colour_only else next(grey) for module in bound.modules]

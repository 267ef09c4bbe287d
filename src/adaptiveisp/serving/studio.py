"""The work behind the image page: opens images, lets policies choose, renders pipelines and detects objects.

All of it is done by `AdaptiveISP` and the classes that it uses; here is only what is kept between requests.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.loading import DETECTORS, load_detector
from adaptiveisp.detectors.weights import WEIGHTS, is_installed
from adaptiveisp.errors import AdaptiveISPError, DataError, DetectorError, one_line, skip_reason
from adaptiveisp.evaluation.detector_loss import ImageLabels, image_losses
from adaptiveisp.inference.detection import working_size
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.prepared import Prepared
from adaptiveisp.inference.result import Result
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.policies.base import Policy, Rendered, grey_pipeline
from adaptiveisp.policies.explanation import Explanation, critic_of, explain, pipeline_after
from adaptiveisp.policies.registry import NAMED_POLICIES, SHIPPED, load_policy
from adaptiveisp.serving.entries import BusyError, Catalogue, NotGivenError
from adaptiveisp.serving.limits import MOST_IMAGES, MOST_WAITING, WORK_SECONDS
from adaptiveisp.serving.no_detector import NAME as NO_DETECTOR
from adaptiveisp.serving.no_detector import NoDetector
from adaptiveisp.serving.slopes import Slope, loss_and_slopes
from adaptiveisp.serving.stages import StageCache, StageImage
from adaptiveisp.types import Detector

LONGEST_NAME = 80
"""Characters of a name in a menu."""


@dataclass(frozen=True)
class StudioConfig:
    """The settings of the command line.

    Attributes:
        policies: P of --policy, which the menu has beside the package's own.
        detectors: D of --detector, the first of which is chosen at first.
        size: longer side in pixels; None as for `AdaptiveISP`.
        confidence: least score of a box.
        camera_white_balance, device: as for `AdaptiveISP`.
    """

    policies: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    size: int | None = None
    confidence: float = 0.05
    camera_white_balance: bool = False
    device: str = "cpu"


def detector_choices(given: Sequence[str]) -> dict[str, str]:
    """Name in the menu → D of each detector: those of the command line, the installed ones, and none."""
    installed = [name for name in DETECTORS if name in WEIGHTS and is_installed(name)]
    return menu([*given, *installed, NO_DETECTOR])


def policy_choices(given: Sequence[str]) -> dict[str, str]:
    """Name in the menu → P of each policy: those of the command line, the shipped ones, and rules."""
    named = [name for name, policy in NAMED_POLICIES.items() if not policy.needs_labels]
    return menu([*given, *SHIPPED, *named])


def menu(specs: Sequence[str]) -> dict[str, str]:
    """Name in a menu → text of the command line; a path is named by its last part, and a number tells equal ones apart.

    >>> menu(["runs/a.json", "b/a.json", "none", "none"])
    {'a.json': 'runs/a.json', 'a.json (2)': 'b/a.json', 'none': 'none'}
    """
    found: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        short = one_line(PurePath(spec).name or spec, LONGEST_NAME)
        name, number = short, 2
        while name in found:
            name, number = f"{short} ({number})", number + 1
        found[name] = spec
    return found


class Studio:
    """Images, policies and detectors in use; its methods may be called on any thread, one of which works at a time.

    Args:
        catalogue: what was given.
        config: settings.
    """

    def __init__(self, catalogue: Catalogue, config: StudioConfig):
        self.catalogue, self.config = catalogue, config
        self.policies, self.detectors = policy_choices(config.policies), detector_choices(config.detectors)
        self.stages = StageCache()
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._policies: dict[str, Policy] = {}
        self._detectors: dict[str, Detector] = {}
        self._opened: OrderedDict[tuple[str, int], Prepared] = OrderedDict()
        self._chosen: OrderedDict[tuple[str, int, str], Prepared] = OrderedDict()

    @contextmanager
    def working(self) -> Iterator[None]:
        """The right to compute, which one thread has at a time.

        Raises:
            BusyError: too many wait, or those before took too long.
        """
        if not self._waiting.acquire(blocking=False):
            raise BusyError("too many requests wait; try again in a moment")
        try:
            if not self._lock.acquire(timeout=WORK_SECONDS):
                raise BusyError("the requests before this one take too long; try again, or choose a smaller --size")
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._waiting.release()

    def policy(self, name: object) -> Policy:
        """A policy of the menu.

        Raises:
            NotGivenError: the menu has no such policy.
        """
        if not isinstance(name, str) or name not in self.policies:
            raise NotGivenError("the menu has no such policy; start the viewer with --policy to add one")
        if name not in self._policies:
            self._policies[name] = load_policy(self.policies[name], self.config.device)
        return self._policies[name]

    def detector(self, name: object) -> Detector:
        """A detector of the menu.

        Raises:
            NotGivenError: the menu has no such detector.
        """
        if not isinstance(name, str) or name not in self.detectors:
            raise NotGivenError("the menu has no such detector; start the viewer with --detector to add one")
        if name not in self._detectors:
            self._detectors[name] = (
                NoDetector() if name == NO_DETECTOR else load_detector(self.detectors[name], self.config.device)
            )
        return self._detectors[name]

    def size(self, detector: object) -> int:
        """The working size with a detector."""
        return working_size(self.config.size, [self.detector(detector)])

    def isp(self, policy: str, detector: object) -> AdaptiveISP:
        """The package's own pipeline of a call, with these two."""
        config = self.config
        return AdaptiveISP(
            self.policy(policy),
            self.detector(detector),
            self.size(detector),
            config.confidence,
            config.camera_white_balance,
            config.device,
        )

    def opened(self, image: str, detector: object) -> Prepared:
        """An image, read and developed at the working size of a detector."""
        key = (image, self.size(detector))
        entry = self.catalogue.images.find(image)
        if key not in self._opened:
            isp = self.isp("none", detector)
            self._opened[key] = isp.develop(entry.read())
            while len(self._opened) > MOST_IMAGES:
                old, _ = self._opened.popitem(last=False)
                self._chosen = OrderedDict((k, v) for k, v in self._chosen.items() if k[:2] != old)
        self._opened.move_to_end(key)
        return self._opened[key]

    def chosen(self, image: str, detector: object, policy: str) -> Prepared:
        """An image as a policy renders it, with the pipeline that it chose."""
        prepared = self.opened(image, detector)
        key = (image, self.size(detector), policy)
        if key not in self._chosen:
            self._chosen[key] = self.isp(policy, detector).render(prepared)
        return self._chosen[key]

    def rendered(self, image: str, detector: object, pipeline: Pipeline) -> Prepared:
        """An image as a pipeline renders it, by the way that `run --pipeline` takes."""
        return self.isp("none", detector).render(self.opened(image, detector), pipeline)

    def stage_images(self, image: str, detector: object, pipeline: Pipeline) -> list[StageImage]:
        """The developed image, then the image after each stage."""
        prepared = self.opened(image, detector)
        return self.stages.images((image, self.size(detector)), prepared.raw, prepared.developed, pipeline)

    def result(self, image: str, detector: object, pipeline: Pipeline | None, policy: str = "none") -> Result:
        """The detections in the image of a pipeline, or of a policy where there is no pipeline."""
        if pipeline is None:
            prepared = self.chosen(image, detector, policy)
        else:
            images = self.stage_images(image, detector, pipeline)
            made = pipeline.clipped(images[-1].image[None])
            total = sum(one.milliseconds for one in images)
            prepared = replace(self.opened(image, detector), rendered=Rendered(made, pipeline, total, total))
        return self.isp(policy, detector).detect(prepared)

    def labels(self, image: str, detector: object) -> ImageLabels | None:
        """The labels of an image that a detector knows; None where there are none."""
        entry = self.catalogue.images.find(image)
        found = self.detector(detector)
        if entry.annotations is None or isinstance(found, NoDetector):
            return None
        try:
            mapped = map_classes(found.class_names, entry.categories)
        except DataError:
            return None
        full_size = self.opened(image, detector).developed.full_size
        return ImageLabels(entry.annotations, mapped.category_to_label, full_size)

    def loss(self, image: str, detector: object, result: Result) -> tuple[float | None, str]:
        """The detector's loss of a result, or why there is none."""
        labels = self.labels(image, detector)
        if labels is None:
            return None, "this image has no labels, so that no loss is known"
        try:
            return image_losses(self.detector(detector), [result.image[None]], labels, result.size)[0], ""
        except Exception as error:  # a detector of the user's own may raise anything where it has no loss
            return None, _without_loss(self.detector(detector), error)

    def slopes(self, image: str, detector: object, pipeline: Pipeline) -> tuple[float, list[Slope]]:
        """The loss and how it changes with each parameter.

        Raises:
            DataError: the image has no labels.
            DetectorError: the detector has no loss with a gradient.
        """
        labels, prepared = self.labels(image, detector), self.opened(image, detector)
        if labels is None:
            raise DataError("this image has no labels that the detector knows, so that no loss is known")
        bound = bound_to(pipeline, RawFrame(prepared.raw))
        if prepared.developed.is_monochrome:
            bound = grey_pipeline(bound)[0]
        found = self.detector(detector)
        try:
            return loss_and_slopes(found, prepared.developed, labels, bound, self.size(detector))
        except AdaptiveISPError:
            raise
        except Exception as error:  # as above
            raise DetectorError(_without_loss(found, error)) from error

    def explanation(self, image: str, detector: object, policy: str) -> Explanation:
        """Why a policy chose its modules."""
        small = self.opened(image, detector).developed.small
        return explain(self.policy(policy), small, critic=critic_of(self.policies[policy]))

    def forced(self, image: str, detector: object, policy: str, begin: Sequence[str]) -> Pipeline:
        """The pipeline of a policy after some choices that it did not make."""
        return pipeline_after(self.policy(policy), self.opened(image, detector).developed.small, begin)

    def forget(self, image: str) -> None:
        """Drops what is kept of an image."""
        self._opened = OrderedDict((key, kept) for key, kept in self._opened.items() if key[0] != image)
        self._chosen = OrderedDict((key, kept) for key, kept in self._chosen.items() if key[0] != image)


def _without_loss(detector: Detector, error: Exception) -> str:
    return f"{detector.name} gives no usable loss ({skip_reason('loss', error)})"

"""Scores policies with detectors on one data set: all of them on the same samples, so that differences are paired."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.opening import Dataset, left_out
from adaptiveisp.detectors.class_names import ClassMap, map_classes
from adaptiveisp.detectors.letterbox import frame_size, pad_to_frame
from adaptiveisp.errors import DataError, DetectorError, first_few, logger, skip_reason
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.detector_loss import DetectorEvaluator, ImageLosses, frame_targets
from adaptiveisp.evaluation.pipeline_stats import Planned
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.reading import read_all
from adaptiveisp.evaluation.result import Evaluation, dropped_notes, label_notes
from adaptiveisp.evaluation.sample_records import Found, Rendering, SampleRecord, found_of, rendering_of
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.policies.base import Developed, FrameLabels, Planner, Policy, as_policy, grey_remark
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.types import Detections, Detector, RawImage, Sample, Targets

EVALUATION_CONFIDENCE = 0.001
"""Lowest score of a detection that counts in average precision, as in Wang et al. 2024."""


def score_dataset(
    dataset: Dataset,
    policies: Sequence[Planner],
    detectors: Sequence[Detector],
    options: ScoringOptions,
    on_image: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """The detections, costs and losses of every policy with every detector on every sample of a data set.

    A sample that one policy cannot use is left out for all policies, so that differences stay paired.

    Args:
        dataset: labelled raws.
        policies: policies with distinct names.
        detectors: detectors with distinct names. A policy that needs labels gets those whose classes the first
            detector knows, and lowers the loss of that detector.
        options: size, device and whatever else the evaluator is told.
        on_image: called with the name of each sample after it was scored, for progress.

    Raises:
        DataError: a detector knows none of the data set's classes, or no sample could be used.
        DetectorError: a detector's answers make no sense.
    """
    scoring = Scoring(dataset, policies, detectors, options)
    return scoring.evaluation(scoring.measured(range(len(dataset.samples)), on_image))


class Scoring:
    """The scoring of a data set in two steps: samples are measured one by one, and the records are put together.

    The steps may run in different processes: what a record holds depends on its sample alone.

    Args:
        dataset, policies, detectors, options: as for `score_dataset`.

    Attributes:
        unusable: detector → why it gives no loss, and the number of the sample at which that was found.

    Raises:
        DataError: a detector knows none of the data set's classes.
    """

    def __init__(
        self, dataset: Dataset, policies: Sequence[Planner], detectors: Sequence[Detector], options: ScoringOptions
    ):
        chosen = [as_policy(policy) for policy in policies]
        maps = class_maps(dataset, detectors)
        self._shared = _scored_categories(dataset, detectors, maps)
        self._evaluator = DetectorEvaluator(
            chosen, detectors, maps, options.size, EVALUATION_CONFIDENCE, options.losses
        )
        self.dataset, self.options = dataset, options
        self.unusable: dict[str, tuple[str, int]] = {}

    def measured(
        self, numbers: Sequence[int], on_image: Callable[[str], None] = lambda name: None
    ) -> Iterator[SampleRecord]:
        """Yields the records of the samples with these numbers, in their order.

        Raises:
            DetectorError: a detector's answers make no sense.
        """
        options, evaluator = self.options, self._evaluator
        _warm_up(evaluator.policies, options.device)
        # A policy that develops the raw itself, such as `camera`, needs what a cache of developed frames does not hold.
        needs_raw = not options.cache or any(policy.needs_raw for policy in evaluator.policies)
        read = read_all(self.dataset, options.workers, None if needs_raw else options, numbers)
        for number, (sample, raw) in zip(numbers, read, strict=True):
            try:
                record = self._record(number, sample, raw)
            except DetectorError:
                raise
            except Exception as error:
                remarks = raw.remarks if isinstance(raw, RawImage) else ()
                record = SampleRecord(number, skip_reason(sample.name, error), remarks)
            for name, reason in evaluator.unusable.items():
                self.unusable.setdefault(name, (reason, number))
            yield record
            on_image(sample.name)

    def _record(self, number: int, sample: Sample, raw: RawImage | Developed | Exception) -> SampleRecord:
        """What is kept of one sample, rendered with each policy and measured with each detector.

        Raises:
            DataError: the image has another size than its labels state.
            DetectorError: a detector's answers make no sense.
            Exception: `raw` itself, if it is an error, and any error of a policy.
        """
        evaluator = self._evaluator
        developed = _developed(sample, raw, self.options)
        labels = None
        if any(policy.needs_labels for policy in evaluator.policies):
            first = evaluator.detectors[0]
            labels = FrameLabels(_frame_targets(sample, developed, first, evaluator.maps[0]), first)
        rendered = [policy.render(developed, labels) for policy in evaluator.policies]
        found, losses = evaluator.measure(sample.annotations, developed, [one.image for one in rendered])
        remarks = list(raw.remarks) if isinstance(raw, RawImage) else []
        for policy, one in zip(evaluator.policies, rendered, strict=True):
            if one.left_out:
                remarks.append(grey_remark(sample.name, policy.name, one.left_out))
        return SampleRecord(
            number,
            remarks=tuple(remarks),
            renderings=tuple(rendering_of(one, self.options.costs) for one in rendered),
            found={
                detector.name: tuple(found_of(one, class_map) for one in found[detector.name])
                for detector, class_map in zip(evaluator.detectors, evaluator.maps, strict=True)
            },
            losses=losses,
        )

    def evaluation(self, records: Iterable[SampleRecord], tell: bool = True) -> Evaluation:
        """The results of all samples.

        Args:
            records: of each sample, in the order of their numbers.
            tell: whether warnings of invalid boxes and doubtful labels are given.

        Raises:
            DataError: no sample could be used.
        """
        collection = _Collection(self.dataset, self._evaluator)
        for record in records:
            collection.add(self.dataset.samples[record.number], record)
        unusable = {name: reason for name, (reason, _) in self.unusable.items()}
        evaluation = collection.evaluation(self._shared, unusable)
        for note in [*dropped_notes(evaluation.dropped_boxes), *label_notes(evaluation, self.dataset)] if tell else ():
            logger.warning("%s", note)
        return evaluation

    def told(self, reasons: Mapping[str, Sequence[Any]]) -> None:
        """Takes over why detectors give no loss from another process; of several reasons the first sample's counts.

        Args:
            reasons: detector → reason and number of the sample, as in `unusable`.
        """
        for name, (reason, number) in reasons.items():
            known = self.unusable.get(name)
            if known is None or number < known[1]:
                self.unusable[name] = (str(reason), int(number))


@dataclass
class _ResultLists:
    """The lists of a `PolicyResult`, to which each sample is appended."""

    scored: list[ScoredImage] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    modules: list[int] = field(default_factory=list)
    cost_ms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    raw_losses: list[float] = field(default_factory=list)
    auto_exposure_losses: list[float] = field(default_factory=list)
    pipelines: list[Planned | None] = field(default_factory=list)
    pixels: list[int] = field(default_factory=list)
    dropped: list[tuple[str, ...]] = field(default_factory=list)
    own_ms: list[float] = field(default_factory=list)
    module_set: str = DEFAULT_SET

    def add(self, scored: ScoredImage, rendered: Rendering) -> None:
        """Appends the detections, time, modules and cost of one image."""
        self.scored.append(scored)
        self.ms.append(rendered.ms)
        self.pipelines.append(rendered.pipeline)
        self.pixels.append(rendered.pixels)
        self.dropped.append(rendered.dropped)
        self.own_ms.append(rendered.own_ms)
        if rendered.pipeline is not None and rendered.cost_ms is not None:
            self.module_set = rendered.module_set
            self.modules.append(len(rendered.pipeline))
            self.cost_ms.append(rendered.cost_ms)

    def add_losses(self, losses: ImageLosses, index: int) -> None:
        """Appends the loss of the policy with this index, and the losses of the two references."""
        self.losses.append(losses.policies[index])
        self.raw_losses.append(losses.raw)
        self.auto_exposure_losses.append(losses.auto_exposure)

    def result(self, static: bool, with_losses: bool) -> PolicyResult:
        """The result, without losses unless the detector gave one for every image."""
        lists = {name: [] if "losses" in name and not with_losses else values for name, values in vars(self).items()}
        return PolicyResult(**lists, static=static)


class _Collection:
    """Collects the measurements of a data set, sample by sample, into an `Evaluation`.

    Args:
        dataset: labelled raws.
        evaluator: holds the policies and detectors.
    """

    def __init__(self, dataset: Dataset, evaluator: DetectorEvaluator):
        self.dataset, self.evaluator = dataset, evaluator
        names = [policy.name for policy in evaluator.policies]
        self.lists = {(name, detector.name): _ResultLists() for name in names for detector in evaluator.detectors}
        self.skipped: list[tuple[str, str]] = []
        self.dropped = dict.fromkeys((detector.name for detector in evaluator.detectors), 0)
        self.watch = RemarkWatch()

    def add(self, sample: Sample, record: SampleRecord) -> None:
        """Adds the record of one sample."""
        self.watch.add_remarks(record.remarks)
        if record.skipped:
            self.skipped.append((f"{sample.name} (draw {sample.draw})", record.skipped))
            return
        for index, (policy, rendered) in enumerate(zip(self.evaluator.policies, record.renderings, strict=True)):
            for detector in self.evaluator.detectors:
                found = record.found[detector.name][index]
                self.dropped[detector.name] += found.dropped
                lists = self.lists[policy.name, detector.name]
                lists.add(_with_labels(sample, found), rendered)
                if detector.name in record.losses:
                    lists.add_losses(record.losses[detector.name], index)

    def evaluation(self, scored_categories: set[int], unusable: dict[str, str]) -> Evaluation:
        """The results of all samples.

        Args:
            scored_categories: ids of the classes that are scored.
            unusable: detector → why it gives no loss.

        Raises:
            DataError: no sample could be used.
        """
        dataset, evaluator = self.dataset, self.evaluator
        if len(self.skipped) == len(dataset.samples):
            raise DataError(f"{dataset.name}: no image could be used; the first: {self.skipped[0][1]}")
        static = {policy.name: policy.is_static for policy in evaluator.policies}
        unmatched = {
            detector.name: tuple(name for key, name in dataset.categories.items() if key not in known.category_to_label)
            for detector, known in zip(evaluator.detectors, evaluator.maps, strict=True)
        }
        return Evaluation(
            results={
                (policy, detector): lists.result(static[policy], detector not in unusable)
                for (policy, detector), lists in self.lists.items()
            },
            categories={key: name for key, name in dataset.categories.items() if key in scored_categories},
            unmatched=unmatched,
            skipped=[*self.skipped, *left_out(dataset).items()],
            no_loss=unusable,
            upper_bounds=tuple(policy.name for policy in evaluator.policies if policy.needs_labels),
            dropped_boxes=self.dropped,
            remarks=tuple(remark.text for remark, _ in self.watch.remarks()),
        )


def scored_categories(dataset: Dataset, detectors: Sequence[Detector]) -> dict[int, str]:
    """Id and name of the classes of a data set that `score_dataset` scores: those that all detectors know.

    Raises:
        DataError: as for `score_dataset`, before any image is read.
    """
    shared = _scored_categories(dataset, detectors, class_maps(dataset, detectors))
    return {key: name for key, name in dataset.categories.items() if key in shared}


def class_maps(dataset: Dataset, detectors: Sequence[Detector]) -> list[ClassMap]:
    """The map of classes of each detector.

    Raises:
        DataError: a detector knows none of the data set's classes.
    """
    return [map_classes(d.class_names, dataset.categories, where=f"{dataset.name} with {d.name}") for d in detectors]


def _scored_categories(dataset: Dataset, detectors: Sequence[Detector], maps: Sequence[ClassMap]) -> set[int]:
    """The categories that the data set and all detectors know.

    Raises:
        DataError: they share no category, or no sample has a labelled object of a shared one.
    """
    shared = set(dataset.categories).intersection(*(class_map.category_to_label for class_map in maps))
    if not shared:
        raise DataError(f"{dataset.name}: {_why_none_shared(dataset, detectors, maps)}")
    if reason := why_nothing((sample.annotations for sample in dataset.samples), shared):
        names = " and ".join(detector.name for detector in detectors)
        known = first_few(dataset.categories[key] for key in sorted(shared))
        remedy = f"what {names} know{'s' * (len(detectors) == 1)} of its classes: {known}; {reason}; evaluate other"
        raise DataError(f"{dataset.name}: no object that could be scored; {remedy} images, or detectors one by one")
    return shared


def _why_none_shared(dataset: Dataset, detectors: Sequence[Detector], maps: Sequence[ClassMap]) -> str:
    """Why there is no class that the data set and all detectors know."""
    if not dataset.categories:
        return "its labels name no class, so there is no object that could be scored; check its label files"
    known = "; ".join(
        f"{detector.name} knows {first_few(dataset.categories[key] for key in sorted(class_map.category_to_label))}"
        for detector, class_map in zip(detectors, maps, strict=True)
    )
    return f"no class of it is known to all detectors ({known}); evaluate them one by one"


@torch.inference_mode()
def _warm_up(policies: Sequence[Policy], device: str) -> None:
    """Runs every policy once, so that the time of no image includes the cost of a first call."""
    image = torch.full((1, 3, 64, 64), 0.1, device=device)
    for policy in policies:
        if not (policy.needs_raw or policy.needs_labels):
            policy.plan(image)[0].render(image)


def _developed(sample: Sample, raw: RawImage | Developed | Exception, options: ScoringOptions) -> Developed:
    """The developed raw of a sample.

    Args:
        sample: the sample.
        raw: its raw, developed or not, or the error that reading it gave.
        options: as in `score_dataset`.

    Raises:
        DataError: the image has another size than its labels state.
        Exception: `raw` itself, if it is an error.
    """
    if isinstance(raw, Exception):
        raise raw
    if isinstance(raw, Developed):
        developed = replace(raw, small=raw.small.to(options.device))
    else:
        developed = develop_at_size(raw, options.size, options.camera_white_balance, options.device)
    height, width = developed.full_size
    if (width, height) != (sample.width, sample.height):
        raise DataError(f"{sample.name}: is {width}x{height} upright, its labels say {sample.width}x{sample.height}")
    return developed


def _frame_targets(sample: Sample, developed: Developed, detector: Detector, class_map: ClassMap) -> Targets:
    """The sample's labels that the detector knows, in pixels of its padded frame."""
    frame = frame_size(max(developed.small.shape[2:]), detector.stride)
    _, letterbox = pad_to_frame(developed.small, frame, (sample.height, sample.width))
    return frame_targets(sample.annotations, class_map.category_to_label, letterbox, developed.small.device)


def scored_image(sample: Sample, found: Detections, class_map: ClassMap) -> ScoredImage:
    """The sample with its detections in the data set's category ids, without those of classes that it does not know."""
    return _with_labels(sample, found_of(found, class_map))


def _with_labels(sample: Sample, found: Found) -> ScoredImage:
    """The sample with its detections."""
    return ScoredImage(
        image_id=sample.image_id,
        draw=sample.draw,
        light=sample.light,
        annotations=sample.annotations,
        boxes=found.boxes,
        scores=found.scores,
        category_ids=found.category_ids,
    )

"""Scores policies with detectors on one data set: all of them on the same samples, so that differences are paired."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.opening import Dataset, left_out
from adaptiveisp.detectors.class_names import ClassMap, map_classes
from adaptiveisp.detectors.letterbox import frame_size, pad_to_frame
from adaptiveisp.errors import DataError, DetectorError, first_few, logger, skip_reason
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.detector_loss import DetectorEvaluator, ImageLosses, frame_targets
from adaptiveisp.evaluation.pipeline_stats import Planned, as_planned
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.reading import read_all
from adaptiveisp.evaluation.result import Evaluation, dropped_notes, label_notes
from adaptiveisp.inference.drawing import Tile, draw_found
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.costs import Costs, cost_of
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.policies.base import Developed, FrameLabels, Planner, Policy, Rendered, as_policy, grey_remark
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.types import Detections, Detector, RawImage, Sample, Targets
from adaptiveisp.utils.color import to_uint8

EVALUATION_CONFIDENCE = 0.001
"""Lowest score of a detection that counts in average precision, as in Wang et al. 2024."""
SHEET_TILES = 12
"""Number of images on a policy's contact sheet."""


def score_dataset(
    dataset: Dataset,
    policies: Sequence[Planner],
    detectors: Sequence[Detector],
    options: ScoringOptions,
    on_image: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """The detections, costs and losses of every policy with every detector on every sample of a data set.

    With `options.part` only that part of the samples is scored, and the notes on the data set are left to the caller.
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
    chosen = [as_policy(policy) for policy in policies]
    maps = _class_maps(dataset, detectors)
    shared = _scored_categories(dataset, detectors, maps)
    evaluator = DetectorEvaluator(chosen, detectors, maps, options.size, EVALUATION_CONFIDENCE, options.losses)
    collection = _Collection(dataset, evaluator, options.costs)
    _warm_up(chosen, options.device)
    # A policy that develops the raw itself, such as `camera`, needs what a cache of developed frames does not hold.
    needs_raw = not options.cache or any(policy.needs_raw for policy in chosen)
    places = options.places(len(dataset.samples))
    raws = read_all(dataset, options.workers, None if needs_raw else options, places)
    for number, (sample, raw) in zip(places, raws, strict=True):
        collection.watch.add_remarks(raw.remarks if isinstance(raw, RawImage) else ())
        try:
            measured = _measure(sample, raw, evaluator, options)
        except DetectorError:
            raise
        except Exception as error:
            collection.skipped.append((f"{sample.name} (draw {sample.draw})", skip_reason(sample.name, error)))
        else:
            collection.add(number, sample, measured)
            for policy, rendered in zip(chosen, measured.rendered, strict=True):
                if rendered.left_out:
                    collection.watch.add_remarks([grey_remark(sample.name, policy.name, rendered.left_out)])
        on_image(sample.name)
    evaluation = collection.evaluation(shared)
    if options.part[1] > 1:
        return evaluation
    return checked_evaluation(evaluation, dataset)


def checked_evaluation(evaluation: Evaluation, dataset: Dataset, tell: bool = True) -> Evaluation:
    """The evaluation of a whole data set, with warnings of invalid boxes and doubtful labels.

    Args:
        evaluation: of all its samples, without what the data set itself leaves out.
        dataset: the data set.
        tell: whether the warnings are given.

    Raises:
        DataError: no sample could be used.
    """
    if len(evaluation.skipped) == len(dataset.samples):
        raise DataError(f"{dataset.name}: no image could be used; the first: {evaluation.skipped[0][1]}")
    for note in [*dropped_notes(evaluation.dropped_boxes), *label_notes(evaluation, dataset)] if tell else ():
        logger.warning("%s", note)
    evaluation.skipped += left_out(dataset).items()
    return evaluation


class _Measured(NamedTuple):
    """One sample as rendered by every policy and measured by every detector.

    Attributes:
        rendered: the image of each policy, in their order.
        found: detector → its detections in each of these images.
        losses: detector → its losses; detectors without a loss are missing.
    """

    rendered: list[Rendered]
    found: dict[str, list[Detections]]
    losses: dict[str, ImageLosses]


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

    def add(self, scored: ScoredImage, rendered: Rendered, costs: Costs) -> None:
        """Appends the detections, time, modules and cost of one image."""
        self.scored.append(scored)
        self.ms.append(rendered.milliseconds)
        self.pipelines.append(as_planned(rendered.pipeline))
        self.pixels.append(rendered.image.shape[2] * rendered.image.shape[3])
        self.dropped.append(rendered.dropped)
        self.own_ms.append(rendered.milliseconds - rendered.modules_ms)
        if rendered.pipeline is not None:
            self.module_set = rendered.pipeline.module_set
            self.modules.append(len(rendered.pipeline.stages))
            self.cost_ms.append(cost_of(rendered.pipeline, costs))

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
        costs: module → milliseconds; empty for the paper's table.
    """

    def __init__(self, dataset: Dataset, evaluator: DetectorEvaluator, costs: Costs):
        self.dataset, self.evaluator, self.costs = dataset, evaluator, costs
        names = [policy.name for policy in evaluator.policies]
        self.lists = {(name, detector.name): _ResultLists() for name in names for detector in evaluator.detectors}
        self.sheets: dict[str, list[Tile]] = {name: [] for name in names}
        self.skipped: list[tuple[str, str]] = []
        self.dropped = dict.fromkeys((detector.name for detector in evaluator.detectors), 0)
        self.watch = RemarkWatch()
        self.stride = max(1, len(dataset.samples) // SHEET_TILES)

    def add(self, number: int, sample: Sample, measured: _Measured) -> None:
        """Adds one sample.

        Args:
            number: its index in the data set, by which samples are chosen for the contact sheets.
            sample: the sample.
            measured: what the policies and detectors made of it.
        """
        detectors = list(zip(self.evaluator.detectors, self.evaluator.maps, strict=True))
        for index, (policy, rendered) in enumerate(zip(self.evaluator.policies, measured.rendered, strict=True)):
            for detector, class_map in detectors:
                found = measured.found[detector.name][index]
                self.dropped[detector.name] += found.dropped
                lists = self.lists[policy.name, detector.name]
                lists.add(_score(sample, found, class_map), rendered, self.costs)
                if detector.name in measured.losses:
                    lists.add_losses(measured.losses[detector.name], index)
            sheet = self.sheets[policy.name]
            if number % self.stride == 0 and len(sheet) < SHEET_TILES:
                first = self.evaluator.detectors[0]
                sheet.append(_tile(sample, rendered, measured.found[first.name][index], first.class_names))

    def evaluation(self, scored_categories: set[int]) -> Evaluation:
        """The results of all samples.

        Args:
            scored_categories: ids of the classes that are scored.
        """
        dataset, evaluator = self.dataset, self.evaluator
        static = {policy.name: policy.is_static for policy in evaluator.policies}
        unmatched = {
            detector.name: tuple(name for key, name in dataset.categories.items() if key not in known.category_to_label)
            for detector, known in zip(evaluator.detectors, evaluator.maps, strict=True)
        }
        return Evaluation(
            results={
                (policy, detector): lists.result(static[policy], detector not in evaluator.unusable)
                for (policy, detector), lists in self.lists.items()
            },
            sheets=self.sheets,
            categories={key: name for key, name in dataset.categories.items() if key in scored_categories},
            unmatched=unmatched,
            skipped=list(self.skipped),
            no_loss=evaluator.unusable,
            upper_bounds=tuple(policy.name for policy in evaluator.policies if policy.needs_labels),
            dropped_boxes=self.dropped,
            remarks=tuple(remark.text for remark, _ in self.watch.remarks()),
        )


def scored_categories(dataset: Dataset, detectors: Sequence[Detector]) -> dict[int, str]:
    """Id and name of the classes of a data set that `score_dataset` scores: those that all detectors know.

    Raises:
        DataError: as for `score_dataset`, before any image is read.
    """
    shared = _scored_categories(dataset, detectors, _class_maps(dataset, detectors))
    return {key: name for key, name in dataset.categories.items() if key in shared}


def _class_maps(dataset: Dataset, detectors: Sequence[Detector]) -> list[ClassMap]:
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


def _measure(
    sample: Sample, raw: RawImage | Developed | Exception, evaluator: DetectorEvaluator, options: ScoringOptions
) -> _Measured:
    """Renders one sample with each policy, and measures the images with each detector.

    Args:
        sample: the sample.
        raw: its raw, developed or not, or the error that reading it gave.
        evaluator: holds the policies and detectors.
        options: as in `score_dataset`.

    Raises:
        DataError: the image has another size than its labels state.
        DetectorError: a detector's answers make no sense.
        Exception: `raw` itself, if it is an error, and any error of a policy.
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
    labels = None
    if any(policy.needs_labels for policy in evaluator.policies):
        first = evaluator.detectors[0]
        labels = FrameLabels(_frame_targets(sample, developed, first, evaluator.maps[0]), first)
    rendered = [policy.render(developed, labels) for policy in evaluator.policies]
    found, losses = evaluator.measure(sample.annotations, developed, [one.image for one in rendered])
    return _Measured(rendered, found, losses)


def _frame_targets(sample: Sample, developed: Developed, detector: Detector, class_map: ClassMap) -> Targets:
    """The sample's labels that the detector knows, in pixels of its padded frame."""
    frame = frame_size(max(developed.small.shape[2:]), detector.stride)
    _, letterbox = pad_to_frame(developed.small, frame, (sample.height, sample.width))
    return frame_targets(sample.annotations, class_map.category_to_label, letterbox, developed.small.device)


def _score(sample: Sample, found: Detections, class_map: ClassMap) -> ScoredImage:
    """The sample with its detections in the data set's category ids, without those of classes that it does not know."""
    ids = np.array([class_map.label_to_category.get(label, -1) for label in found.labels.tolist()], dtype=np.int64)
    known = ids >= 0
    return ScoredImage(
        image_id=sample.image_id,
        draw=sample.draw,
        light=sample.light,
        annotations=sample.annotations,
        boxes=found.boxes.cpu().double().numpy()[known],
        scores=found.scores.cpu().double().numpy()[known],
        category_ids=ids[known],
    )


def _tile(sample: Sample, rendered: Rendered, found: Detections, class_names: tuple[str, ...]) -> Tile:
    """The image with its boxes, modules and parameters for a contact sheet."""
    drawn = draw_found(to_uint8(rendered.image[0]), found, class_names, sample.width)
    lines = rendered.pipeline.describe() if rendered.pipeline is not None else ["the camera's own development"]
    light = "" if sample.light is None else f", light {sample.light:.3g}"
    return Tile(drawn, f"{sample.name}{light}", lines or ["no module"])

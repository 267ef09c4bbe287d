"""Policies and detectors side by side on one data set: the same draws, the same frames, paired."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.frame_cache import open_cache
from adaptiveisp.data.opening import Dataset, left_out, notes_of, raw_file
from adaptiveisp.detectors.answers import dropped_note
from adaptiveisp.detectors.class_names import ClassMap, map_classes
from adaptiveisp.detectors.letterbox import frame_size, pad_to_frame
from adaptiveisp.errors import DataError, DetectorError, first_few, logger, skip_reason
from adaptiveisp.evaluation.coco_ap import ScoredImage, finds_anything
from adaptiveisp.evaluation.detector_loss import DetectorEvaluator, ImageLosses, frame_targets
from adaptiveisp.evaluation.pipeline_stats import Planned, as_planned
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.inference.drawing import Tile, draw_found
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.costs import Costs, cost_of
from adaptiveisp.policies.base import Developed, FrameLabels, Planner, Policy, Rendered, as_policy
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.types import Detections, Detector, RawImage, Sample, Targets
from adaptiveisp.utils.color import to_uint8

EVALUATION_CONFIDENCE = 0.001
"""Least score that counts in average precision, as in Wang et al. 2024."""
SHEET_TILES = 12
"""Pictures on a policy's contact sheet."""


@dataclass(frozen=True)
class EvalConfig:
    """How to evaluate.

    Attributes:
        size: longer side in pixels at which policies, modules and detectors work.
        camera_white_balance: apply the camera's own gains before a policy sees the image.
        workers: processes that read raws; 0 reads in this one.
        device: where modules and detectors run.
        costs: module → milliseconds, for the reported cost; empty for the paper's table.
        losses: also take the detectors' losses, of the policies and of the two references of `losses`.
        cache: folder where developed raws are kept, see `data.frame_cache`; "" keeps none.
    """

    size: int
    camera_white_balance: bool = False
    workers: int = 0
    device: str = "cpu"
    costs: Costs = field(default_factory=dict)
    losses: bool = False
    cache: str = ""


@dataclass
class Evaluation:
    """What an evaluation found.

    Attributes:
        results: (policy, detector) → its detections and costs.
        sheets: policy → pictures with boxes, modules and parameters.
        categories: the classes that are scored: known to the data set and to every detector.
        unmatched: detector → the data set's classes that it does not know; none of them is scored with any.
        skipped: inputs that could not be used by every policy, with the reason.
        no_loss: detector → why it gives no loss, where losses were asked for.
        upper_bounds: names of those that see the labels, so that they are no policies.
        dropped_boxes: detector → boxes in all renderings that were left out because their numbers make no sense.
        remarks: doubts about the raws, one line for each kind; those of frames from a cache are not known.
    """

    results: dict[tuple[str, str], PolicyResult]
    sheets: dict[str, list[Tile]]
    categories: dict[int, str]
    unmatched: dict[str, tuple[str, ...]]
    skipped: list[tuple[str, str]]
    no_loss: dict[str, str] = field(default_factory=dict)
    upper_bounds: tuple[str, ...] = ()
    dropped_boxes: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass
class _Collected:
    """The lists of a `PolicyResult` while they grow."""

    scored: list[ScoredImage] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    modules: list[int] = field(default_factory=list)
    cost_ms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    raw_losses: list[float] = field(default_factory=list)
    auto_exposure_losses: list[float] = field(default_factory=list)
    pipelines: list[Planned | None] = field(default_factory=list)

    def add_loss(self, losses: ImageLosses, place: int) -> None:
        """Keeps the loss of the policy at a place, and those of the references."""
        self.losses.append(losses.policies[place])
        self.raw_losses.append(losses.raw)
        self.auto_exposure_losses.append(losses.auto_exposure)

    def result(self, static: bool, with_losses: bool) -> PolicyResult:
        """The lists at the end; without losses where the detector gave none, perhaps only from some image on."""
        lists = {name: [] if "losses" in name and not with_losses else values for name, values in vars(self).items()}
        return PolicyResult(**lists, static=static)


def evaluate(
    dataset: Dataset,
    policies: Sequence[Planner],
    detectors: Sequence[Detector],
    options: EvalConfig,
    on_image: Callable[[str], None] = lambda name: None,
) -> Evaluation:
    """Every policy with every detector on every sample.

    A sample that one policy cannot use is left out for all, so that differences stay paired.

    Args:
        dataset: labelled raws.
        policies, detectors: with distinct names. What plans with labels sees those that the first detector knows, and
            its loss.
        options: see `EvalConfig`.
        on_image: called with each sample's name, for progress.

    Raises:
        DataError: a detector knows none of the data set's classes, or no sample could be used.
        DetectorError: a detector's answers make no sense.
    """
    chosen = [as_policy(policy) for policy in policies]
    maps = [map_classes(d.class_names, dataset.categories, where=f"{dataset.name} with {d.name}") for d in detectors]
    shared = _scored_categories(dataset, detectors, maps)
    collected = {(p.name, d.name): _Collected() for p in chosen for d in detectors}
    sheets: dict[str, list[Tile]] = {policy.name: [] for policy in chosen}
    skipped: list[tuple[str, str]] = []
    dropped = dict.fromkeys((detector.name for detector in detectors), 0)
    meter = DetectorEvaluator(chosen, detectors, maps, options.size, EVALUATION_CONFIDENCE, options.losses)
    _warm_up(chosen, options.device)
    watch = RemarkWatch()
    stride = max(1, len(dataset.samples) // SHEET_TILES)
    # The camera's own development starts from the raw itself, which a cache does not hold.
    needs_raw = not options.cache or any(policy.needs_raw for policy in chosen)
    for number, (sample, raw) in enumerate(read_all(dataset, options.workers, None if needs_raw else options)):
        watch.add_remarks(raw.remarks if isinstance(raw, RawImage) else ())
        try:
            rendered, found, losses = _one(sample, raw, chosen, options, meter)
        except DetectorError:
            raise
        except Exception as error:
            skipped.append((f"{sample.name} (draw {sample.draw})", skip_reason(sample.name, error)))
        else:
            for place, (policy, picture) in enumerate(zip(chosen, rendered, strict=True)):
                for detector, class_map in zip(detectors, maps, strict=True):
                    dropped[detector.name] += found[detector.name][place].dropped
                    scored = _score(sample, found[detector.name][place], class_map)
                    _collect(collected[policy.name, detector.name], scored, picture, options.costs)
                    if detector.name in losses:
                        collected[policy.name, detector.name].add_loss(losses[detector.name], place)
                if number % stride == 0 and len(sheets[policy.name]) < SHEET_TILES:
                    boxes = found[detectors[0].name][place]
                    sheets[policy.name].append(_tile(sample, picture, boxes, detectors[0].class_names))
        on_image(sample.name)
    if len(skipped) == len(dataset.samples):
        raise DataError(f"{dataset.name}: no image could be used; the first: {skipped[0][1]}")
    static = {policy.name: policy.is_static for policy in chosen}
    results = {key: c.result(static[key[0]], key[1] not in meter.unusable) for key, c in collected.items()}
    categories = {key: name for key, name in dataset.categories.items() if key in shared}
    unmatched = {
        detector.name: tuple(name for key, name in dataset.categories.items() if key not in known.category_to_label)
        for detector, known in zip(detectors, maps, strict=True)
    }
    upper_bounds = tuple(policy.name for policy in chosen if policy.needs_labels)
    skipped += left_out(dataset).items()
    remarks = tuple(remark.text for remark, _ in watch.remarks())
    evaluation = Evaluation(
        results, sheets, categories, unmatched, skipped, meter.unusable, upper_bounds, dropped, remarks
    )
    for note in [*_dropped_notes(dropped), *label_notes(evaluation, dataset)]:
        logger.warning("%s", note)
    return evaluation


def _scored_categories(dataset: Dataset, detectors: Sequence[Detector], maps: Sequence[ClassMap]) -> set[int]:
    """The categories that the data set and all detectors know.

    Raises:
        DataError: there is none, or no object of one.
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
    """Lets every policy work once, so that what only the first call costs is in no image's time."""
    image = torch.full((1, 3, 64, 64), 0.1, device=device)
    for policy in policies:
        if not (policy.needs_raw or policy.needs_labels):
            policy.plan(image)[0].render(image)


class _Reader(torch.utils.data.Dataset[tuple[Sample, RawImage | Developed | Exception]]):
    """A data set's raws by position; an unreadable one comes back as its error, so that the batch goes on."""

    def __init__(self, dataset: Dataset, cached: EvalConfig | None):
        self.dataset, self.cached = dataset, cached
        self.cache = open_cache(cached.cache) if cached is not None else None

    def __len__(self) -> int:
        return len(self.dataset.samples)

    def __getitem__(self, index: int) -> tuple[Sample, RawImage | Developed | Exception]:
        sample = self.dataset.samples[index]
        try:
            file = raw_file(self.dataset, sample) if self.cache is not None else None
            return sample, self.dataset.read(sample) if file is None else self._developed(sample, *file)
        except Exception as error:  # whatever one file does to its reader, the others go on
            return sample, error

    def _developed(self, sample: Sample, path: Path, header: BayerHeader | None) -> Developed:
        """The raw at the working size, from the cache if it is there."""
        assert self.cached is not None and self.cache is not None
        size, white_balance = self.cached.size, self.cached.camera_white_balance

        def make() -> tuple[torch.Tensor, tuple[int, int]]:
            made = develop_at_size(self.dataset.read(sample), size, white_balance)
            return made.small[0], (made.full_size[1], made.full_size[0])

        key = self.cache.key(path, header, f"eval {size} white balance {white_balance}")
        frame = self.cache.get(key, make)
        # Out of the file: it may give way to another frame, and another process must not find it open.
        return Developed(None, frame.pixels.clone()[None], (frame.full_size[1], frame.full_size[0]))


def read_all(
    dataset: Dataset, workers: int = 0, cached: EvalConfig | None = None
) -> Iterator[tuple[Sample, RawImage | Developed | Exception]]:
    """Every sample with its raw, in order, or with the error that reading it gave.

    Args:
        dataset: labelled raws.
        workers: processes that read ahead; they are spawned, since LibRaw and forked threads do not go together.
        cached: give raws that are files as developed for these options, through their cache; None gives raws.
    """
    context = "spawn" if workers else None
    reader = _Reader(dataset, cached)
    with warnings.catch_warnings():
        # More workers than cores are the user's choice; what PyTorch says of them on each pass helps nobody.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(reader, batch_size=None, num_workers=workers, multiprocessing_context=context)
    yield from loader


def _one(
    sample: Sample,
    raw: RawImage | Developed | Exception,
    policies: Sequence[Policy],
    options: EvalConfig,
    meter: DetectorEvaluator,
) -> tuple[list[Rendered], dict[str, list[Detections]], dict[str, ImageLosses]]:
    """The renderings of one sample by each policy, and each detector's detections in them and losses of them.

    Args:
        sample, raw: what to render, developed or not, or why it cannot be.
        policies, options: as for `evaluate`.
        meter: has the detectors.
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
    first, class_map = meter.detectors[0], meter.maps[0]
    labels = None
    if any(policy.needs_labels for policy in policies):
        labels = FrameLabels(_frame_targets(sample, developed, first, class_map), first)
    rendered = [policy.render(developed, labels) for policy in policies]
    found, losses = meter.measure(sample.annotations, developed, [picture.image for picture in rendered])
    return rendered, found, losses


def _frame_targets(sample: Sample, developed: Developed, detector: Detector, class_map: ClassMap) -> Targets:
    """The sample's labels that the detector knows, in pixels of its padded frame."""
    frame = frame_size(max(developed.small.shape[2:]), detector.stride)
    _, letterbox = pad_to_frame(developed.small, frame, (sample.height, sample.width))
    return frame_targets(sample.annotations, class_map.category_to_label, letterbox, developed.small.device)


def _score(sample: Sample, found: Detections, class_map: ClassMap) -> ScoredImage:
    """The detections with the data set's category ids; those of classes it does not know are dropped."""
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


def _collect(into: _Collected, scored: ScoredImage, picture: Rendered, costs: Costs) -> None:
    into.scored.append(scored)
    into.ms.append(picture.milliseconds)
    into.pipelines.append(as_planned(picture.pipeline))
    if picture.pipeline is not None:
        into.modules.append(len(picture.pipeline.stages))
        into.cost_ms.append(cost_of(picture.pipeline, costs))


def _tile(sample: Sample, picture: Rendered, found: Detections, class_names: tuple[str, ...]) -> Tile:
    """The picture with its boxes, modules and parameters for a contact sheet."""
    drawn = draw_found(to_uint8(picture.image[0]), found, class_names, sample.width)
    lines = picture.pipeline.describe() if picture.pipeline is not None else ["the camera's own development"]
    light = "" if sample.light is None else f", light {sample.light:.3g}"
    return Tile(drawn, f"{sample.name}{light}", lines or ["no module"])


def _dropped_notes(dropped: dict[str, int]) -> list[str]:
    """A line for each detector that gave boxes whose numbers make no sense."""
    return [note for name, count in dropped.items() if (note := dropped_note(f"detector {name}", count))]


def not_scored(found: Evaluation) -> list[str]:
    """A line for each detector that does not know all classes: these are not scored, with any detector."""
    return [
        f"{detector} does not know these classes, so they are not scored: {first_few(names)}."
        for detector, names in found.unmatched.items()
        if names
    ]


def label_notes(found: Evaluation, dataset: Dataset) -> list[str]:
    """What may be wrong with the labels: what the data set says itself, and detectors that never hit any."""
    notes = [f"{dataset.name}: {note}." for note in notes_of(dataset)]
    for name in dict.fromkeys(detector for _, detector in found.results):
        own = [result.scored for (_, detector), result in found.results.items() if detector == name]
        if not any(finds_anything(scored, found.categories) for scored in own):
            notes.append(
                f"{name}: none of its boxes overlaps a label of its class by an IoU of 0.5 or more, with any policy; "
                "it finds nothing in these images, or the labels are wrong: `adaptiveisp doctor --out DIR` draws them."
            )
    return notes


def notes_on(found: Evaluation, dataset: Dataset) -> list[str]:
    """What a reader of the report has to know: what `camera` is, what is not scored, what was skipped."""
    notes = [f"Data: {dataset.name}."]
    if any(policy == "camera" for policy, _ in found.results):
        notes.append(
            "camera: LibRaw's own default development for camera files and DNGs; for synthetic RGB raws the exact "
            "inverse of their making, which knows the true brightness, gains and colour matrix, as no camera does. "
            "Its time includes the whole development."
        )
    if found.upper_bounds:
        notes.append(
            f"{', '.join(found.upper_bounds)}: an upper bound, no policy. It sees the labels of each image and fits "
            "the pipeline to the loss that the first detector has for them. It is greedy: it bounds what such a search "
            "finds, not what exists. Its time is that of the search."
        )
    notes += label_notes(found, dataset) + not_scored(found) + _dropped_notes(found.dropped_boxes)
    notes += [f"Raws: {remark}" for remark in found.remarks]
    for name, reason in found.no_loss.items():
        notes.append(f"{name} gives no usable loss ({reason}): what is said of losses leaves it out.")
    if found.skipped:
        notes.append(f"{len(found.skipped)} inputs were skipped for all policies; skipped.json names them.")
    return notes

"""The photos of a report: chosen after the scoring, then read and rendered once more, so that few pictures are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.dataset import Dataset, photo_of
from adaptiveisp.detectors.class_names import ClassMap
from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.errors import DetectorError, logger
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import EVALUATION_CONFIDENCE, class_maps, scored_image
from adaptiveisp.evaluation.label_marks import label_marks
from adaptiveisp.evaluation.photo_choice import EACH, Chosen, choose
from adaptiveisp.evaluation.photo_grid import Mark, PhotoGrid, PhotoRow, Shot
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.report import Report
from adaptiveisp.evaluation.result import Evaluation
from adaptiveisp.evaluation.run_comparison import MOST_COLUMNS, RAW_COLUMN, brightened_note
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.drawing import DRAW_CONFIDENCE
from adaptiveisp.inference.parameter_text import CAMERA_STEPS
from adaptiveisp.inference.pictures import half_brightened
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Developed, Planner, Policy, Rendered, as_policy
from adaptiveisp.types import Detector, Image, Sample
from adaptiveisp.utils.color import to_uint8

CLEAN_COLUMN = "clean photo"

PhotoOf = Callable[[Sample], Float[Tensor, "3 height width"] | None]
"""The clean photo of a sample, sRGB code values in [0, 1]; None where there is none."""


class Contest(NamedTuple):
    """By which photos are chosen: how much the subject gains against the reference on each image.

    Attributes:
        subject: name of a policy.
        reference: name of another, or `RAW_COLUMN`.
        by: what is compared, for the reader.
        gains: one for each scored image.
        before, after: losses of reference and subject; empty where the detector gives none.
    """

    subject: str
    reference: str
    by: str
    gains: list[float]
    before: Sequence[float] = ()
    after: Sequence[float] = ()


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What all rows share: policies with a column, the first detector, options, and the results."""

    policies: Sequence[Policy]
    detector: Detector
    class_map: ClassMap
    options: ScoringOptions
    found: Evaluation
    photo: PhotoOf


def compared_photos(
    dataset: Dataset,
    policies: Sequence[Planner],
    detectors: Sequence[Detector],
    options: ScoringOptions,
    found: Evaluation,
    report: Report,
    each: int = EACH,
    photo: PhotoOf | None = None,
) -> PhotoGrid | None:
    """Photos of a data set side by side: the clean photo where there is one, the raw, and each policy.

    Boxes are those that were scored, of the first detector. Of the runs of a method with several seeds the first is
    shown.

    Args:
        dataset, policies, detectors, options: as for `score_dataset`.
        found: its result.
        report: the report on it.
        each: number of photos that gain most, that lose most, and that are typical.
        photo: the clean photo of a sample; None asks the data set.

    Returns:
        The grid; None where no photo can be read again.
    """
    detector = detectors[0]
    later_seeds = {m for by in report.groups.values() for group in by.values() for m in group.members[1:]}
    own = [p for p in map(as_policy, policies) if p.name not in later_seeds]
    contest = _contest(own, detector.name, found, report)
    named = {contest.subject, contest.reference}
    kept = {p.name for p in sorted(own, key=lambda p: p.name not in named)[:MOST_COLUMNS]}
    sheet = _Sheet(
        policies=sorted((p for p in own if p.name in kept), key=lambda p: not _is_raw(p)),
        detector=detector,
        class_map=class_maps(dataset, [detector])[0],
        options=options,
        found=found,
        photo=photo or (lambda sample: photo_of(dataset, sample)),
    )
    scored = found.results[own[0].name, detector.name].scored
    candidates = [i for i, image in enumerate(scored) if any(not a.iscrowd for a in image.annotations)]
    candidates = candidates or list(range(len(scored)))
    chosen = choose([contest.gains[i] for i in candidates], [scored[i].image_id for i in candidates], each)
    samples = {(sample.image_id, sample.draw): sample for sample in dataset.samples}
    rows = []
    for one in chosen:
        place = candidates[one.index]
        try:
            rows.append(_row(sheet, samples[scored[place].key], place, one, contest, dataset))
        except DetectorError:
            raise
        except Exception as error:  # the report is whole without a picture
            logger.warning("the page leaves out a photo: %s", error)
    return _grid(sheet, rows, contest, len(scored), own) if rows else None


def _grid(sheet: _Sheet, rows: Sequence[PhotoRow], contest: Contest, count: int, own: Sequence[Policy]) -> PhotoGrid:
    """The rows as a grid, without the column of clean photos where there are none."""
    has_clean = any(row.shots[0] is not None for row in rows)
    first = () if any(map(_is_raw, sheet.policies)) else (RAW_COLUMN,)
    names = tuple(RAW_COLUMN if _is_raw(p) else p.name for p in sheet.policies)
    against = f" against {contest.reference}" if contest.reference else ""
    choice = (
        f"Photos are chosen by {contest.by}, {contest.subject}{against}: those that gain most, those that lose most, "
        f"and typical ones; {len(rows)} of {count} images."
    )
    shown = [p.name for p in sheet.policies]
    return PhotoGrid(
        columns=((CLEAN_COLUMN,) if has_clean else ()) + first + names,
        rows=tuple(row if has_clean else PhotoRow(row.title, row.why, row.facts, row.shots[1:]) for row in rows),
        choice=choice,
        detector=sheet.detector.name,
        confidence=DRAW_CONFIDENCE,
        left_out=tuple(p.name for p in own if p.name not in shown),
    )


def _is_raw(policy: Policy) -> bool:
    """Whether a policy is the developed raw without any module."""
    return policy.name == "none"


def _contest(policies: Sequence[Policy], detector: str, found: Evaluation, report: Report) -> Contest:
    """Which policy is compared with which one: the best adaptive one with the best static one, by AP50.

    Without an adaptive policy it is the best of all. Where there is nothing to compare it with, it is the raw.
    """
    ap50 = {p.name: report.policies[p.name][detector].ap50 or 0.0 for p in policies}
    fair = [p for p in policies if not p.needs_labels] or list(policies)
    adaptive = [p for p in fair if not p.is_static] or [p for p in fair if not _is_raw(p)] or fair
    subject = max(adaptive, key=lambda p: ap50[p.name]).name
    static = [p for p in fair if p.is_static and p.name != subject]
    reference = max(static, key=lambda p: ap50[p.name], default=None)
    result = found.results[subject, detector]
    other = None if reference is None else found.results[reference.name, detector]
    if result.losses:
        before = result.raw_losses if other is None else other.losses
        gains = [b - a for b, a in zip(before, result.losses, strict=True)]
        name = RAW_COLUMN if reference is None or _is_raw(reference) else reference.name
        return Contest(subject, name, f"the loss of {detector}", gains, before, result.losses)
    gains = _label_gains(result, other, found)
    return Contest(subject, "" if reference is None else reference.name, "labels found less false boxes", gains)


def _label_gains(result: PolicyResult, other: PolicyResult | None, found: Evaluation) -> list[float]:
    """Labels found less false boxes in each image, less those of another policy."""

    def value(image: ScoredImage) -> float:
        kinds = [mark.kind for mark in label_marks(image, found.categories, (1, 1))]
        return float(kinds.count("found") - kinds.count("false"))

    own = [value(image) for image in result.scored]
    return own if other is None else [a - value(image) for a, image in zip(own, other.scored, strict=True)]


def _row(sheet: _Sheet, sample: Sample, place: int, chosen: Chosen, contest: Contest, dataset: Dataset) -> PhotoRow:
    """The pictures of one image: the clean photo or None, the raw unless it is a policy, and each policy."""
    options = sheet.options
    raw = dataset.read(sample)
    developed = develop_at_size(raw, options.size, options.camera_white_balance, options.device)
    shots: list[Shot | None] = [_clean_shot(sheet, sample)]
    if not any(map(_is_raw, sheet.policies)):
        shots.append(_raw_shot(developed, _marks_in(sheet, sample, developed.small)))
    for policy in sheet.policies:
        result = sheet.found.results[policy.name, sheet.detector.name]
        marks = label_marks(result.scored[place], sheet.found.categories, developed.full_size)
        if _is_raw(policy):
            shots.append(_raw_shot(developed, marks))
            continue
        rendered = _rendered(policy, developed, result, place)
        caption = CAMERA_STEPS if rendered.pipeline is None else ""
        shots.append(Shot(to_uint8(rendered.image[0]), marks, rendered.pipeline, caption))
    facts = [] if sample.light is None else [f"light {sample.light:.3g}"]
    if contest.after:
        facts.append(f"loss {contest.before[place]:.3f}, with {contest.subject} {contest.after[place]:.3f}")
    return PhotoRow(sample.name, chosen.why, "; ".join(facts), tuple(shots))


def _rendered(policy: Policy, developed: Developed, result: PolicyResult, place: int) -> Rendered:
    """The image of a policy once more; that of one that needs labels by the pipeline that it found."""
    if not policy.needs_labels:
        return policy.render(developed)
    planned = result.pipelines[place] if result.pipelines else None
    pipeline = Pipeline(tuple(Stage(m, params) for m, params in planned or ()), result.module_set)
    with torch.inference_mode():
        return Rendered(pipeline.clipped(pipeline.render(developed.small)), pipeline, 0.0)


def _raw_shot(developed: Developed, marks: tuple[Mark, ...]) -> Shot:
    """The developed raw, brightened in part."""
    image, gain = half_brightened(developed.small[0].clamp(0, 1))
    return Shot(image, marks, Pipeline(()), note=brightened_note(gain))


def _clean_shot(sheet: _Sheet, sample: Sample) -> Shot | None:
    """The clean photo with what the detector finds in it; None where there is none."""
    photo = sheet.photo(sample)
    if photo is None:
        return None
    small = resize_longer_side(photo, sheet.options.size)[None].to(sheet.options.device)
    return Shot(to_uint8(small[0]), _marks_in(sheet, sample, small), caption="the photo itself")


def _marks_in(sheet: _Sheet, sample: Sample, image: Image) -> tuple[Mark, ...]:
    """The labels and boxes in an image that was not scored."""
    full = (sample.height, sample.width)
    (found,) = detect(sheet.detector, [image], full, sheet.options.size, EVALUATION_CONFIDENCE)
    return label_marks(scored_image(sample, found, sheet.class_map), sheet.found.categories, full)

"""The result of scoring one data set, and the notes on it that a reader of the report needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adaptiveisp.data.dataset import Dataset, is_partly_labelled, notes_of
from adaptiveisp.detectors.answers import dropped_note
from adaptiveisp.errors import first_few
from adaptiveisp.evaluation.coco_ap import finds_anything
from adaptiveisp.evaluation.policy_scores import PolicyResult


@dataclass
class Evaluation:
    """The result of scoring one data set.

    Attributes:
        results: (policy, detector) → detections, costs and losses of every image.
        categories: the classes that are scored: known to the data set and to every detector.
        unmatched: detector → the data set's classes that it does not know; these are scored with no detector.
        skipped: inputs that could not be used by every policy, with the reason.
        no_loss: detector → why it gives no loss, where losses were asked for.
        upper_bounds: names of the policies that need labels, which makes them upper bounds.
        dropped_boxes: detector → number of invalid boxes that were left out, in the images of all policies.
        remarks: doubts about the raws, one line for each kind; frames from a cache have none.
    """

    results: dict[tuple[str, str], PolicyResult]
    categories: dict[int, str]
    unmatched: dict[str, tuple[str, ...]]
    skipped: list[tuple[str, str]]
    no_loss: dict[str, str] = field(default_factory=dict)
    upper_bounds: tuple[str, ...] = ()
    dropped_boxes: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def dropped_notes(dropped: dict[str, int]) -> list[str]:
    """A line for each detector that gave invalid boxes."""
    return [note for name, count in dropped.items() if (note := dropped_note(f"detector {name}", count))]


def not_scored(found: Evaluation) -> list[str]:
    """A line for each detector that does not know all classes, with the classes that are not scored because of it."""
    return [
        f"{detector} does not know these classes, so they are not scored: {first_few(names)}."
        for detector, names in found.unmatched.items()
        if names
    ]


def label_notes(found: Evaluation, dataset: Dataset) -> list[str]:
    """Doubts about the labels: the data set's own notes, and a line for each detector that finds no labelled object."""
    notes = [f"{dataset.name}: {note}." for note in notes_of(dataset)]
    for name in dict.fromkeys(detector for _, detector in found.results):
        own = [result.scored for (_, detector), result in found.results.items() if detector == name]
        if not any(finds_anything(scored, found.categories) for scored in own):
            notes.append(
                f"{name}: none of its boxes overlaps a label of its class by an IoU of 0.5 or more, with any policy; "
                "it finds nothing in these images, or the labels are wrong: `adaptiveisp doctor --out DIR` draws them."
            )
    return notes


def clock_note(origin: Mapping[str, Any], size: int, device: str) -> str:
    """The note that measured times hold for one machine, with its processor, threads and working size.

    Args:
        origin: provenance of the evaluation.
        size: working size in pixels.
        device: where the policies ran.
    """
    threads = origin.get("threads")
    counted = f"{threads} thread{'s' * (threads != 1)}"
    place = counted if device == "cpu" else f"{device}, {counted}"
    return (
        f"Clock: clock ms is this machine's ({origin.get('cpu')}; {place}), for policy and modules at size {size}; "
        "other machines and other numbers of threads (--threads) take other times. The cost is a table's."
    )


def notes_on(found: Evaluation, dataset: Dataset) -> list[str]:
    """Notes for the reader of the report: on `camera` and upper bounds, unscored classes, doubts and skipped inputs."""
    notes = [f"Data: {dataset.name}."]
    if is_partly_labelled(dataset):
        names = first_few(found.categories.values(), len(found.categories))
        notes.append(
            f"Scored classes: {names}. The labels state that no other class is labelled "
            "(info.labelled_category_ids), so detections of other classes do not count."
        )
    if any(policy == "camera" for policy, _ in found.results):
        notes.append(
            "camera: LibRaw's default development for camera files and DNGs; for synthetic RGB raws the exact inverse "
            "of their synthesis, with the true brightness, gains and colour matrix, which no camera knows. "
            "Its time includes the whole development."
        )
    if found.upper_bounds:
        notes.append(
            f"{', '.join(found.upper_bounds)}: an upper bound, not a policy. It knows the labels of each image and "
            "searches for the pipeline with the lowest loss of the first detector. The search is greedy, so better "
            "pipelines may exist. Its time is that of the search."
        )
    notes += label_notes(found, dataset) + not_scored(found) + dropped_notes(found.dropped_boxes)
    notes += [f"Raws: {remark}" for remark in found.remarks]
    for name, reason in found.no_loss.items():
        notes.append(f"{name} gives no usable loss ({reason}): the statistics of losses leave it out.")
    if found.skipped:
        notes.append(f"{len(found.skipped)} inputs were skipped for all policies; skipped.json names them.")
    return notes

"""The evaluation report: scores, paired differences and pipelines, as report.json and pipelines.jsonl."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from adaptiveisp.evaluation.bootstrap import Interval, Resampling
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.photo_grid import PhotoGrid
from adaptiveisp.evaluation.pipeline_stats import MOST_PIPELINES, FoundPipeline, ImageRun, frequent_pipelines
from adaptiveisp.evaluation.policy_scores import PolicyResult, PolicyScore, score_policy
from adaptiveisp.evaluation.seed_groups import (
    BestStatic,
    Compared,
    Difference,
    GroupScore,
    Units,
    compare,
    group_score,
    units_of,
)
from adaptiveisp.utils.files import write_json, write_text

SCHEMA_VERSION = 1

REPORT_FILES = ("report.json", "report.html", "pipelines.jsonl")
"""Files that `Report.save` writes beside `coco/`."""

FEW_PHOTOS = 50
"""Below this many photos a bootstrap interval tends to be too narrow, and the report says so."""

BEST_STATIC_CHOICE = "highest AP50 on this same data, which favours the static side"
"""How the static policy that adaptive policies are compared with is chosen."""


@dataclass(frozen=True, repr=False)
class Report:
    """The result of an evaluation: scores, paired differences and the pipelines that were chosen.

    Attributes:
        policies: policy → detector → scores, also for the members of groups.
        differences: differences between every two policies, where a group stands for its members.
        provenance, notes, settings: as they were given; settings are those of the evaluation, such as size and light.
        label_counts: class name → number of labels, by which the classes on the page are ordered.
        groups: group → detector → scores.
        best_static: detector → the best static policy or group, and the differences of the adaptive ones to it.
        runs: pipeline and losses of each policy and image.
        scored: (policy, detector) → labels and detections of each image.
        categories: id → name of the classes that were scored.
        photos: some photos side by side, as rendered by the policies; None where none were drawn.
        title: title of the page.
        skipped: inputs that were left out, each with the reason.
        upper_bounds: names of the policies that need labels, which makes them upper bounds.
        sets: name of a data set → the report on it alone. With several data sets the scores, groups and differences of
            this report are means over them, see `pooling`; empty for a report on one data set.
        clock_table: milliseconds of the modules that ran, measured on this machine, with size, threads and device.
    """

    policies: dict[str, dict[str, PolicyScore]]
    differences: tuple[Difference, ...]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]
    label_counts: dict[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, GroupScore]] = field(default_factory=dict)
    best_static: dict[str, BestStatic] = field(default_factory=dict)
    runs: tuple[ImageRun, ...] = ()
    scored: Mapping[tuple[str, str], Sequence[ScoredImage]] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)
    photos: PhotoGrid | None = None
    title: str = "Evaluation"
    skipped: tuple[tuple[str, str], ...] = ()
    upper_bounds: tuple[str, ...] = ()
    sets: Mapping[str, "Report"] = field(default_factory=dict)
    clock_table: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """The scores, a legend and the paired differences as text for readers, in points."""
        from adaptiveisp.evaluation.tables import score_tables

        return score_tables(self)

    def save(self, folder: str | Path) -> None:
        """Writes report.json, report.html, pipelines.jsonl and the detections as COCO results (`coco/`).

        Args:
            folder: output folder, made if missing; files of these names are replaced.

        Raises:
            AdaptiveISPError: matplotlib or jinja2 is not installed.
            OutputError: the folder cannot be written to.
        """
        from adaptiveisp.evaluation.html_report import write_report

        write_report(self, Path(folder), self.title)

    def __repr__(self) -> str:
        """The size of the evaluation and the best policy with each detector."""
        images = max((score.n_images for by in self.policies.values() for score in by.values()), default=0)
        parts = [f"{len(self.policies)} policies", f"{len(self.detectors)} detectors", f"{images} images"]
        for detector in self.detectors:
            known = {name: score.ap50 for name, score in self.units(detector).items() if score.ap50 is not None}
            if known:
                best = max(known, key=lambda name: known[name])
                parts.append(f"{detector}: best {best!r}, AP50 {100 * known[best]:.1f}")
        return f"Report({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """The table of scores, which notebooks show."""
        from adaptiveisp.evaluation.tables import scores_html

        return scores_html(self)

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors, in the order of first use."""
        return list(dict.fromkeys(detector for scores in self.policies.values() for detector in scores))

    @property
    def caution(self) -> str:
        """A warning that the intervals rest on few photos; "" if there are enough."""
        alone = self.sets.values() or (self,)
        photos = [score.n_photos for one in alone for by in one.policies.values() for score in by.values()]
        if not self.differences or min(photos) >= FEW_PHOTOS:
            return ""
        return f"With {min(photos)} photos the intervals are rough; use at least {FEW_PHOTOS}."

    def units(self, detector: str) -> dict[str, PolicyScore]:
        """Policy or group → scores with a detector (for a group the means), in the order of the report."""
        members = {group: by[detector].members for group, by in self.groups.items() if detector in by}
        names = units_of([policy for policy, by in self.policies.items() if detector in by], members)
        return {n: self.groups[n][detector].mean if n in members else self.policies[n][detector] for n in names}

    def ap50_of_sets(self, name: str, detector: str) -> list[float | None]:
        """AP50 (0..1) of a policy or group on each of the data sets alone, in their order; empty if there is one."""
        scores = [(one.units(detector) | _of_detector(one, detector)).get(name) for one in self.sets.values()]
        return [score.ap50 if score is not None else None for score in scores]

    def intervals_of_sets(self, difference: Difference) -> list[Interval | None]:
        """The same difference on each of the data sets alone, in their order; None where it is not defined."""
        key = (difference.a, difference.b, difference.detector)
        intervals = []
        for one in self.sets.values():
            known = {(d.a, d.b, d.detector): d.interval for d in one.differences}
            known |= {(d.b, d.a, d.detector): d.interval.reversed() for d in one.differences}
            intervals.append(known.get(key))
        return intervals

    def pipelines(self) -> dict[str, list[FoundPipeline]]:
        """Policy → its sequences of modules, the most frequent first."""
        runs: dict[str, list[ImageRun]] = {policy: [] for policy in self.policies}
        for run in self.runs:
            runs[run.policy].append(run)
        return {policy: frequent_pipelines(own) for policy, own in runs.items()}

    def to_json(self) -> dict[str, Any]:
        """The content of report.json."""
        alone = {"sets": {name: report.to_json() for name, report in self.sets.items()}} if self.sets else {}
        return {
            "schema_version": SCHEMA_VERSION,
            "policies": {
                policy: {detector: asdict(score) for detector, score in scores.items()}
                for policy, scores in self.policies.items()
            },
            "groups": {name: {detector: s.to_json() for detector, s in by.items()} for name, by in self.groups.items()},
            "differences": [difference.to_json() for difference in self.differences],
            "best_static": {
                detector: {**best.to_json(), "chosen_by": BEST_STATIC_CHOICE}
                for detector, best in self.best_static.items()
            },
            "pipelines": {p: [asdict(f) for f in found[:MOST_PIPELINES]] for p, found in self.pipelines().items()},
            "notes": list(self.notes),
            "settings": dict(self.settings),
            **({"clock_table": dict(self.clock_table)} if self.clock_table else {}),
            "provenance": dict(self.provenance),
            **alone,
        }

    def write_data(self, folder: Path) -> None:
        """Writes report.json, and pipelines.jsonl with a line for each image, draw and policy; both atomically."""
        write_json(Path(folder) / "report.json", self.to_json())
        lines = [json.dumps(run.to_json(), allow_nan=False, ensure_ascii=False) + "\n" for run in self.runs]
        write_text(Path(folder) / "pipelines.jsonl", "".join(lines))


def _of_detector(report: Report, detector: str) -> dict[str, PolicyScore]:
    """Policy → scores with a detector, also for the members of groups."""
    return {policy: by[detector] for policy, by in report.policies.items() if detector in by}


def build_report(
    results: Mapping[tuple[str, str], PolicyResult],
    categories: Mapping[int, str],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    settings: Mapping[str, Any] | None = None,
    groups: Units | None = None,
) -> Report:
    """The report: scores of every policy with every detector, and differences between every two policies.

    A difference is "later minus earlier" in the order of `results`, in which a group takes the place of its members.
    Where policies were not scored on the same images, those that all have are compared, and a note says so.

    Args:
        results: (policy, detector) → detections, costs and losses.
        categories: id → name of the categories to average over.
        provenance: recorded in report.json as it is.
        notes: sentences for the reader, e.g. how many inputs were skipped.
        resamples, seed, level: settings of the paired bootstrap, see `Resampling`.
        settings: settings of the evaluation, recorded in report.json as they are.
        groups: name → policies that are runs of one method.
    """
    resampling = Resampling(resamples, seed, level)
    detectors = dict.fromkeys(detector for _, detector in results)
    tables = {d: _score_detector(d, results, categories, groups or {}, resampling) for d in detectors}
    scores: dict[str, dict[str, PolicyScore]] = {}
    group_scores: dict[str, dict[str, GroupScore]] = {}
    for detector, table in tables.items():
        for policy, score in table.policies.items():
            scores.setdefault(policy, {})[detector] = score
        for name, group in table.groups.items():
            group_scores.setdefault(name, {})[detector] = group
    report = Report(
        policies=scores,
        differences=tuple(difference for table in tables.values() for difference in table.compared.differences),
        provenance=provenance,
        notes=(*notes, *(table.note for table in tables.values() if table.note)),
        label_counts=_label_counts(results, categories),
        settings=settings or {},
        groups=group_scores,
        best_static={d: best for d, table in tables.items() if (best := table.compared.best_static) is not None},
        runs=tuple(_runs(results)),
        scored={key: result.scored for key, result in results.items()},
        categories=dict(categories),
    )
    return replace(report, notes=(*report.notes, report.caution)) if report.caution else report


class _DetectorTable(NamedTuple):
    """The part of a report that concerns one detector.

    Attributes:
        policies: policy → scores.
        groups: group → scores.
        compared: the differences between policies or groups.
        note: states how many images the differences leave out; "" where they leave out none.
    """

    policies: dict[str, PolicyScore]
    groups: dict[str, GroupScore]
    compared: Compared
    note: str


def _score_detector(
    detector: str,
    results: Mapping[tuple[str, str], PolicyResult],
    categories: Mapping[int, str],
    groups: Units,
    resampling: Resampling,
) -> _DetectorTable:
    """The scores and differences of all policies with one detector; the arguments are those of `build_report`."""
    own = {policy: result for (policy, name), result in results.items() if name == detector}
    scores = {policy: score_policy(result, categories) for policy, result in own.items()}
    units = units_of(list(own), groups)
    group_scores = {
        name: group_score(members, [scores[member] for member in members])
        for name, members in units.items()
        if name in groups
    }
    static = {name: (group_scores[name].mean if name in group_scores else scores[name]).static for name in units}
    shared, left_out = on_common_images({policy: result.scored for policy, result in own.items()})
    note = (
        f"{detector}: {left_out} images were not scored with every policy; differences leave them out, "
        "the other numbers do not."
    )
    compared = compare(detector, shared, units, static, categories, resampling)
    return _DetectorTable(scores, group_scores, compared, note if left_out else "")


def on_common_images(scored: Mapping[str, Sequence[ScoredImage]]) -> tuple[dict[str, list[ScoredImage]], int]:
    """Policy → its images that all policies have, and the number of images that some policy lacks."""
    keys = [{image.key for image in images} for images in scored.values()]
    common = set.intersection(*keys)
    shared = {policy: [image for image in images if image.key in common] for policy, images in scored.items()}
    return shared, len(set.union(*keys)) - len(common)


def _label_counts(results: Mapping[tuple[str, str], PolicyResult], categories: Mapping[int, str]) -> dict[str, int]:
    """Class name → number of labels to find in the images of the first policy."""
    first = next(iter(results.values()), PolicyResult(()))
    counts = Counter(
        categories[annotation.category_id]
        for image in first.scored
        for annotation in image.annotations
        if not annotation.iscrowd and annotation.category_id in categories
    )
    return dict(counts)


def _runs(results: Mapping[tuple[str, str], PolicyResult]) -> Iterable[ImageRun]:
    """The pipeline of each policy on each image, with the losses of all detectors."""
    losses: dict[tuple[str, tuple[int, int]], dict[str, float | None]] = {}
    first: dict[tuple[str, tuple[int, int]], ImageRun] = {}
    for (policy, detector), result in results.items():
        for i, image in enumerate(result.scored):
            own = losses.setdefault((policy, image.key), {})
            own[detector] = result.losses[i] if result.losses else None
            pipeline = result.pipelines[i] if result.pipelines else None
            run = ImageRun(policy, *image.key, image.light, pipeline, own)
            first.setdefault((policy, image.key), run)
    return first.values()

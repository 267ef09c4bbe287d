"""The public function `evaluate`, which does what the command `eval` does without writing files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.dataset import Dataset
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.sources import names_of, shared_images
from adaptiveisp.detectors.backends.choice import backends_of, with_backend
from adaptiveisp.detectors.class_names import canonical
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import DataError, UsageError, first_few, logger
from adaptiveisp.evaluation.config import EvalConfig, ScoringOptions
from adaptiveisp.evaluation.evaluator import Scoring, scored_categories
from adaptiveisp.evaluation.latency import latency_notes, with_times
from adaptiveisp.evaluation.photo_choice import EACH
from adaptiveisp.evaluation.photo_sheet import compared_photos
from adaptiveisp.evaluation.pooling import pooled_report
from adaptiveisp.evaluation.report import Report, build_report
from adaptiveisp.evaluation.result import clock_note, not_scored, notes_on
from adaptiveisp.evaluation.sample_records import SampleRecord
from adaptiveisp.evaluation.shards import read_shards, sample_digest, write_shard
from adaptiveisp.inference.detection import working_size
from adaptiveisp.inference.fingerprint import detector_fingerprint, fingerprint
from adaptiveisp.inference.pretrained import warn_of_other_detectors
from adaptiveisp.isp.costs import PAPER, Costs, load_costs
from adaptiveisp.policies.base import Policy, as_policy
from adaptiveisp.policies.latency import within_latency
from adaptiveisp.policies.registry import load_policies
from adaptiveisp.types import Detector
from adaptiveisp.utils.provenance import package_version, provenance


def _ignore(name: str) -> None:
    """Does nothing with the name of an image; the default where no progress is shown."""


def evaluate(config: EvalConfig, on_image: Callable[[str], None] = _ignore) -> Report:
    """The scores of policies with detectors on labelled data, as the command `eval` computes them; writes nothing.

    With several data sets the scores and differences are means over them, and `Report.sets` has each set alone.

    Args:
        config: data, policies, detectors and settings.
        on_image: called with the name of each image after it was scored.

    Returns:
        The scores with paired differences; `Report.save` writes what `eval` writes.

    Raises:
        UsageError: a setting does not fit, or a policy or detector does not exist.
        DataError: a data set is missing or malformed, no image of it could be used, or several sets share no class.
        AdaptiveISPError: weights are missing or wrong, or a detector's answers make no sense.
    """
    return prepare(config).run(on_image)


@dataclass(frozen=True)
class PreparedEvaluation:
    """An evaluation whose data sets are open and whose policies and detectors are loaded.

    Attributes:
        config: the configuration that it was prepared from.
        datasets: name → labelled raws.
        policies, detectors: with distinct names.
        groups: name → names of the policies that are runs of one method.
        costs: module → milliseconds; empty for the paper's table.
        size: working size in pixels.
    """

    config: EvalConfig
    datasets: Mapping[str, Dataset]
    policies: tuple[Policy, ...]
    groups: dict[str, tuple[str, ...]]
    detectors: tuple[Detector, ...]
    costs: Costs
    size: int

    @property
    def n_samples(self) -> int:
        """Number of images and draws in all data sets."""
        return sum(len(dataset.samples) for dataset in self.datasets.values())

    def run(self, on_image: Callable[[str], None] = _ignore, shards: Sequence[Path] = ()) -> Report:
        """The report of the evaluation; see `evaluate`.

        Args:
            on_image: called with the name of each image after it was scored.
            shards: folders that `write_shard` filled; their samples are not measured again.

        Raises:
            UsageError, DataError: as for `evaluate`; a shard is missing, damaged, or of another evaluation.
        """
        scorings = self._scorings()
        measured = read_shards(shards, scorings, self.settings()) if shards else {}
        reports = {}
        for place, (name, scoring) in enumerate(scorings.items()):
            records = measured.get(name) or scoring.measured(range(len(scoring.dataset.samples)), on_image)
            reports[name] = self._report(place, scoring, records)
        if len(reports) == 1:
            return next(iter(reports.values()))
        pooled = pooled_report(reports, self.config.resamples, self.config.seed)
        note = clock_note(pooled.provenance, self.size, self.config.device)
        return replace(pooled, notes=(*pooled.notes, note))

    def write_shard(self, folder: Path, shard: tuple[int, int], on_image: Callable[[str], None] = _ignore) -> int:
        """Measures the samples of one shard and writes them, see `shards`; returns the number of those left out.

        Args:
            folder: the output folder.
            shard: number of the shard, from 1, and the number of all shards.
            on_image: called with the name of each image after it was scored.

        Raises:
            DataError, AdaptiveISPError: as for `evaluate`.
            OutputError: the folder cannot be written to.
        """
        return write_shard(folder, shard, self._scorings(), self.settings(), on_image)

    def settings(self) -> dict[str, Any]:
        """What decides the measurements, by which shards of one evaluation are told from those of another."""
        config = self.config
        recorded = {name: config.recorded(self.size, place) for place, name in enumerate(self.datasets)}
        for one in recorded.values():
            del one["resamples"], one["device"]
        return {
            "version": package_version(),
            "--policy": [f"{one.name} {fingerprint(one)}" for one in self.policies],
            "--detector": [f"{one.name}, {detector_fingerprint(one)}" for one in self.detectors],
            "--backend": [backends_of(one) for one in self.detectors],
            "--costs": fingerprint(dict(self.costs)),
            "--data": {name: f"samples {sample_digest(dataset)}" for name, dataset in self.datasets.items()},
            "settings": recorded,
        }

    def _options(self) -> ScoringOptions:
        config = self.config
        return ScoringOptions(
            size=self.size,
            camera_white_balance=config.camera_white_balance,
            workers=config.workers,
            device=config.device,
            costs=self.costs,
            losses=True,
            cache=config.cache,
        )

    def _scorings(self) -> dict[str, Scoring]:
        options = self._options()
        return {
            name: Scoring(dataset, self.policies, self.detectors, options) for name, dataset in self.datasets.items()
        }

    def _report(self, place: int, scoring: Scoring, records: Iterable[SampleRecord]) -> Report:
        """The report on one data set.

        Args:
            place: its place among the data sets.
            scoring: puts its records together.
            records: of all its samples.
        """
        config, dataset, options = self.config, scoring.dataset, scoring.options
        found = scoring.evaluation(records)
        for line in [*found.remarks, *not_scored(found)]:
            logger.warning("%s", line)
        weights = {detector.name: detector.weights_sha256 for detector in self.detectors}
        backends = {detector.name: backends_of(detector) for detector in self.detectors}
        origin = provenance(config.seed, weights, config.cost_table or PAPER, backends)
        kinds = max(1, EACH // len(self.datasets))
        timed = with_times(found.results, self.size, config.device, config.latency_ms)
        report = build_report(
            timed.results,
            found.categories,
            origin,
            [*notes_on(found, dataset), clock_note(origin, self.size, config.device)],
            config.resamples,
            config.seed,
            settings=config.recorded(self.size, place),
            groups=self.groups,
        )
        photos = compared_photos(dataset, self.policies, self.detectors, options, found, report, kinds)
        return replace(
            report,
            photos=photos,
            notes=(*report.notes, *latency_notes(report.policies, config.latency_ms)),
            clock_table=timed.clock_table,
            title=f"Evaluation on {dataset.name}",
            skipped=tuple(found.skipped),
            upper_bounds=found.upper_bounds,
        )


def prepare(config: EvalConfig) -> PreparedEvaluation:
    """Opens the data sets and loads policies and detectors; raises as `evaluate` does."""
    _warn_of_settings_without_effect(config)
    policies, groups = _load_policies(config)
    datasets = {
        name: open_dataset(data, images, synthesis, limit=config.limit) if isinstance(data, str | Path) else data
        for name, (data, images), synthesis in zip(
            names_of(config.sources), config.sources, config.syntheses, strict=True
        )
    }
    detectors = tuple(
        load_detector(one, config.device) if isinstance(one, str) else one for one in dict.fromkeys(config.detectors)
    )
    _require_distinct("detectors", [detector.name for detector in detectors])
    if all(isinstance(one, str) for one in config.detectors):
        runs = [policy for policy in config.policies if isinstance(policy, str)]
        warn_of_other_detectors(runs, [str(one) for one in config.detectors])
    costs = load_costs(Path(config.costs)) if isinstance(config.costs, str | Path) else config.costs or {}
    size = working_size(config.size, detectors)
    if config.latency_ms is not None:
        latency = config.latency_ms
        policies = tuple(within_latency(policy, latency, size, config.device, costs) for policy in policies)
    if len(datasets) > 1:  # a set that cannot be scored is refused before hours are spent on the others
        _require_common_class(datasets, detectors)
        for line in shared_images(datasets):
            logger.warning("%s, which the mean of the sets counts in both", line)
    detectors = tuple(with_backend(detector, config.backend, config.precision, size) for detector in detectors)
    return PreparedEvaluation(config, datasets, policies, groups, detectors, costs, size)


def _load_policies(config: EvalConfig) -> tuple[tuple[Policy, ...], dict[str, tuple[str, ...]]]:
    """The policies and groups that a configuration names, then its policy objects."""
    named, groups = load_policies(
        [policy for policy in config.policies if isinstance(policy, str)], config.device, config.steps
    )
    objects = [as_policy(policy) for policy in config.policies if not isinstance(policy, str)]
    policies = (*named, *objects)
    _require_distinct("policies", [*groups, *(policy.name for policy in policies)])
    if config.steps and not any(policy.takes_steps for policy in policies):
        logger.warning("--steps has no effect: no policy here takes steps")
    return policies, groups


def _require_common_class(datasets: Mapping[str, Dataset], detectors: Sequence[Detector]) -> None:
    """Checks that a mean over data sets is one of comparable scores.

    Raises:
        DataError: a set cannot be scored, or there is no class that is scored on all of them.
    """
    classes = {
        name: {canonical(one) for one in scored_categories(dataset, detectors).values()}
        for name, dataset in datasets.items()
    }
    if not set.intersection(*classes.values()):
        known = "; ".join(f"{name} has {first_few(sorted(found))}" for name, found in classes.items())
        raise DataError(
            f"{' and '.join(datasets)}: no class that {' and '.join(one.name for one in detectors)} know is scored on "
            f"all of them ({known}); evaluate them one by one"
        )


def _require_distinct(kind: str, names: list[str]) -> None:
    """Checks that no two policies, or no two detectors, have the same name.

    Raises:
        UsageError: a name occurs twice.
    """
    if len(set(names)) < len(names):
        remedy = "rename a file or a group" if kind == "policies" else "rename a file"
        raise UsageError(f"two {kind} have the same name ({', '.join(names)}); {remedy}")


def _warn_of_settings_without_effect(config: EvalConfig) -> None:
    """Logs a warning for each setting that has no effect because of another one."""
    if any(config.syntheses) and config.cache:
        logger.warning("--cache has no effect: raws that --light makes are made again in each evaluation")
    for data, images in config.sources:
        if images is not None and isinstance(data, str | Path) and Path(data).is_dir():
            logger.warning("--images has no effect: %s is a folder", data)

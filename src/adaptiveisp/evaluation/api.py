"""The public function `evaluate`, which does what the command `eval` does without writing files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from adaptiveisp.data.dataset import Dataset
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.detectors.backends.choice import backends_of, with_backend
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import UsageError, logger
from adaptiveisp.evaluation.config import EvalConfig, ScoringOptions
from adaptiveisp.evaluation.data_sets import check_together, names_of
from adaptiveisp.evaluation.evaluator import score_dataset, scored_categories
from adaptiveisp.evaluation.pooling import pooled_report
from adaptiveisp.evaluation.report import Report, build_report
from adaptiveisp.evaluation.result import not_scored, notes_on
from adaptiveisp.inference.detection import working_size
from adaptiveisp.inference.pretrained import warn_of_other_detectors
from adaptiveisp.isp.costs import PAPER, Costs, load_costs
from adaptiveisp.policies.base import Policy, as_policy
from adaptiveisp.policies.registry import load_policies
from adaptiveisp.types import Detector
from adaptiveisp.utils.provenance import provenance


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

    def run(self, on_image: Callable[[str], None] = _ignore) -> Report:
        """The report of the evaluation; see `evaluate`."""
        reports = {name: self._report(dataset, on_image) for name, dataset in self.datasets.items()}
        if len(reports) == 1:
            return next(iter(reports.values()))
        return pooled_report(reports, self.config.resamples, self.config.seed)

    def _report(self, dataset: Dataset, on_image: Callable[[str], None]) -> Report:
        """The report on one data set.

        Args:
            dataset: labelled raws.
            on_image: as for `evaluate`.
        """
        config = self.config
        options = ScoringOptions(
            size=self.size,
            camera_white_balance=config.camera_white_balance,
            workers=config.workers,
            device=config.device,
            costs=self.costs,
            losses=True,
            cache=config.cache,
        )
        found = score_dataset(dataset, self.policies, self.detectors, options, on_image)
        for line in [*found.remarks, *not_scored(found)]:
            logger.warning("%s", line)
        weights = {detector.name: detector.weights_sha256 for detector in self.detectors}
        backends = {detector.name: backends_of(detector) for detector in self.detectors}
        report = build_report(
            found.results,
            found.categories,
            provenance(config.seed, weights, config.cost_table or PAPER, backends),
            notes_on(found, dataset),
            config.resamples,
            config.seed,
            settings=config.recorded(self.size),
            groups=self.groups,
        )
        return replace(
            report,
            sheets=found.sheets,
            title=f"Evaluation on {dataset.name}",
            skipped=tuple(found.skipped),
            upper_bounds=found.upper_bounds,
        )


def prepare(config: EvalConfig) -> PreparedEvaluation:
    """Opens the data sets and loads policies and detectors; raises as `evaluate` does."""
    _warn_of_settings_without_effect(config)
    policies, groups = _load_policies(config)
    datasets = {
        name: open_dataset(data, images, config.resolved_synthesis, limit=config.limit)
        if isinstance(data, str | Path)
        else data
        for name, (data, images) in zip(names_of(config.sources), config.sources, strict=True)
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
    if len(datasets) > 1:  # a set that cannot be scored is refused before hours are spent on the others
        scored = {name: scored_categories(dataset, detectors) for name, dataset in datasets.items()}
        check_together(datasets, scored, detectors)
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
    if config.synthesis is not None and config.cache:
        logger.warning("--cache has no effect: raws that --light makes are made again in each evaluation")
    for data, images in config.sources:
        if images is not None and isinstance(data, str | Path) and Path(data).is_dir():
            logger.warning("--images has no effect: %s is a folder", data)

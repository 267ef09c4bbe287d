"""Starts, resumes and finishes training runs."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError, UsageError, WeightsError, logger
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import register_module, register_named
from adaptiveisp.kernels.loading import description
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.training.config import (
    CONFIG,
    TrainConfig,
    completed,
    data_digest,
    make_settings,
    read_config,
    resolve,
    write_config,
)
from adaptiveisp.training.distributed import ALONE, Ranks, join
from adaptiveisp.training.latency import cost_table_name, with_clock
from adaptiveisp.training.methods.module_choice import with_more_modules
from adaptiveisp.training.own_parts import require_own_parts
from adaptiveisp.training.prolonging import check_budget, prolong, warn_of_warmup
from adaptiveisp.training.run_files import KIND, LATEST, check_links, read_provenance, remove_results
from adaptiveisp.training.run_summary import peak_memory_mb
from adaptiveisp.training.shared_run import require_same, require_shares
from adaptiveisp.training.trainer import OnCheckpoint, OnImage, OnIteration, Trainer
from adaptiveisp.types import Detector
from adaptiveisp.utils.config import as_yaml, changed
from adaptiveisp.utils.output_folder import claim_folder, is_marked, reclaim_folder
from adaptiveisp.utils.own_code import names_code
from adaptiveisp.utils.provenance import provenance

FORMER_DEV_SIZE = 416
"""Size at which runs scored dev before `dev_size` was an option; their configurations do not have it."""


@dataclass(frozen=True)
class TrainSummary:
    """The outcome of a training run.

    Attributes:
        folder: the run folder, which is also a policy for `AdaptiveISP` and `load_policy`.
        finished: whether the budget is spent; False if a signal stopped the run.
        iterations: number of iterations.
        passes: number of images that passed through the detector.
        best_ap50: AP50 on dev of the best policy, in [0, 1]; None without a dev set.
        best_iteration: iteration of the best policy, 0 for a warm start that nothing improved on; None where it is not
            known.
        start_ap50: AP50 on dev at iteration 0 of the policy from which the run started ("start", which is the policy of
            `warm_start` with the settings of this run) and of "auto-exposure"; empty without a dev set, and for runs
            that began with an earlier version.
        latency: with `latency_ms`, whether the best policy keeps it, see `DevSelection.latency`; else empty.
        policy: file of the best policy on dev, or of the last policy without a dev set.
        skipped: image that could not be read → reason.
        peak_memory_mb: peak memory of the process in megabytes.
        unused_modules: names of the user's own modules that the finished policy did not use on dev, or on some training
            images without a dev set.
    """

    folder: Path
    finished: bool
    iterations: int
    passes: int
    best_ap50: float | None
    policy: Path
    skipped: dict[str, str]
    peak_memory_mb: float
    unused_modules: tuple[str, ...] = ()
    best_iteration: int | None = None
    start_ap50: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, Any] = field(default_factory=dict)


def train(
    config: TrainConfig,
    settings: Any = None,
    *,
    out: str | Path,
    detector: Detector | str | None = None,
    modules: Sequence[IspModule | str] = (),
    device: str = "cpu",
    overwrite: bool = False,
    on_iteration: OnIteration | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    on_image: OnImage | None = None,
) -> TrainSummary:
    """Learns a policy for a frozen detector and returns a summary of the run.

    In a script that `torchrun` starts, the processes share the run, see `training.distributed`.

    Args:
        config: options of the run: its data, method, budget and seed.
        settings: setting of the method → value, where it differs from the preset; or an instance of the method's
            settings. None for the preset itself.
        out: the run folder.
        detector: the frozen detector, or its name as for `load_detector`; None for that of the config, which may name
            neither code nor a model to download, because a config may come from a file. The run folder stores its name.
        modules: modules from outside the package, or their registered names, that join those of the settings, like
            `--module` of the command line.
        device: "cpu" or "cuda".
        overwrite: whether a folder that is not empty may be used.
        on_iteration: called after each iteration with its metrics.
        on_checkpoint: called after each checkpoint with the path of latest.pt.
        on_image: called after each score on dev, from the first iteration on, with a picture (8-bit RGB) of some dev
            images after each of their stages, and the iteration.

    Raises:
        UsageError: an option or a setting does not exist or does not fit, or the folder is not empty.
        DataError: the images or their labels cannot be used.
        NonFiniteLossError: a loss or too many gradients in a row are not finite.
        OutputError: the folder cannot be written.
    """
    from adaptiveisp.detectors.loading import load_detector

    ranks = join(device)
    settings = _with_modules(config, settings, modules)
    if detector is None and names_code(config.detector):
        remedy = f"give train(…, detector={config.detector!r}), or a detector object"
        raise UsageError(f"detector {config.detector}: a config may not name code, since it may be a file; {remedy}")
    if detector is not None:
        config = replace(config, detector=detector if isinstance(detector, str) else detector.name)
    if detector is None or isinstance(detector, str):
        detector = load_detector(config.detector, device, trusted=detector is not None)
    origin = provenance(config.seed, {detector.name: detector.weights_sha256}, cost_table_name(settings))
    with new_run(Path(out), config, settings, detector, origin, overwrite, device, ranks) as run:
        return finish(run, on_iteration, on_checkpoint, on_image)


def _with_modules(config: TrainConfig, settings: Any, modules: Sequence[IspModule | str]) -> Any:
    """The settings of a run with further modules, which are registered where they are not yet.

    Expert modules of an instance stay as they are, because its author may have chosen them.

    Args:
        config, settings, modules: as for `train`.

    Raises:
        UsageError: a module is not registered or its name is taken, or a setting does not fit.
    """
    if isinstance(modules, str | IspModule):
        raise UsageError("modules: give a list of modules or of their names")
    named = [register_named(one) if isinstance(one, str) else register_module(one) for one in modules]
    names = [module.name for module in named]
    if settings is None or isinstance(settings, Mapping):
        return make_settings(config.method, config.preset, settings or {}, "settings", more_modules=names)
    if not names:
        return settings
    given = {"expert_modules": settings.expert_modules} if hasattr(settings, "expert_modules") else {}
    return changed(settings, with_more_modules(settings, given, names), "settings")


def finish(
    run: Trainer,
    on_iteration: OnIteration | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    on_image: OnImage | None = None,
) -> TrainSummary:
    """Trains until the budget is spent or a signal stops the run.

    Args:
        run: a new or resumed run.
        on_iteration, on_checkpoint, on_image: as for `train`.

    Raises:
        NonFiniteLossError, OutputError: as for `Trainer.train`.
    """
    finished = run.train(on_iteration, on_checkpoint, on_image)
    return TrainSummary(
        folder=run.folder,
        finished=finished,
        iterations=run.learner.iteration,
        passes=run.learner.passes,
        best_ap50=run.selection.best_ap50,
        policy=policy_file(str(run.folder)),
        skipped=run.skipped,
        peak_memory_mb=peak_memory_mb(),
        unused_modules=run.unused_modules() if finished else (),
        best_iteration=run.selection.best_iteration,
        start_ap50=run.selection.start or {},
        latency={} if run.limit is None else run.selection.latency(run.limit.latency_ms),
    )


def new_run(
    folder: Path,
    options: TrainConfig,
    settings: Any,
    detector: Detector,
    provenance: dict[str, Any],
    overwrite: bool,
    device: str = "cpu",
    ranks: Ranks = ALONE,
) -> Trainer:
    """Starts a run: checks all inputs, then creates the folder and writes its config.yaml.

    The config is complete: it names the modules that the run uses, for instance, so that a module that joins the set
    later does not change it, and holds the clock table that the run measures.

    Args:
        folder, options, settings, detector, provenance, device, ranks: as for `Trainer`.
        overwrite: whether a folder that is not empty may be used.

    Raises:
        UsageError: the folder is not empty and `overwrite` is False, or the options and settings do not fit.
        DataError: the images or their labels cannot be used.
    """
    options, settings = ranks.together(lambda: _completed(options, settings, ranks))
    # One rank measures, because the times differ from rank to rank.
    settings, clock = ranks.on_first(lambda: with_clock(options, settings, detector, device))
    if settings.size % detector.stride:
        raise UsageError(f"size {settings.size}: must be a multiple of {detector.stride} for {detector.name}")
    provenance = {**provenance, **clock, "data": data_digest(options), **_rank_facts(ranks)}
    require_same(ranks, data=provenance["data"], detector=detector.weights_sha256, settings=_plain(options, settings))

    def made() -> Trainer:
        run = Trainer(folder, options, settings, detector, provenance, device, ranks)
        if options.warm_start:
            run.learner.warm_start(options.warm_start)
        if run.teacher is None:  # images that cannot be used are refused before the folder is created
            run.stream[0]
        return run

    def claimed() -> None:
        if ranks.first:
            run.claim = claim_folder(folder, KIND, overwrite)
            check_links(folder)
            remove_results(folder)
            write_config(folder, options, settings, provenance)

    run = ranks.together(made)
    try:
        ranks.together(claimed)
        if options.warm_start:
            run.checkpoint()  # the initial policy may be changed or removed before the next checkpoint
    except BaseException:
        run.close()
        raise
    return run


def _completed(options: TrainConfig, settings: Any, ranks: Ranks) -> tuple[TrainConfig, Any]:
    """The options and settings, written out, of a run that the ranks can share."""
    require_shares(options.method, ranks)
    return completed(options, settings)


def _plain(options: TrainConfig, settings: Any) -> str:
    """The options and settings of a run as a text, which is the same on ranks that have the same."""
    return repr((as_yaml(options), as_yaml(settings)))


def _rank_facts(ranks: Ranks) -> dict[str, int]:
    """The entry of the provenance about several ranks; the numbers of a run do not depend on it."""
    return {} if ranks.alone else {"ranks": ranks.size}


def resumed_run(
    folder: Path,
    load_detector: Callable[[str], Detector],
    device: str = "cpu",
    cache: str = "",
    detector_given: bool = True,
    budget: int | None = None,
    ranks: Ranks = ALONE,
) -> Trainer:
    """Resumes the run of a folder from its last checkpoint, which may come from another device.

    With a larger budget it is prolonged. Learning rates, temperature and imitation warm-up depend on the share of the
    budget that is spent, so that they step back to their values at that share of the larger budget.

    Args:
        folder: the run folder.
        load_detector: loads the detector that config.yaml names; a file must not decide which code runs.
        device: device of the detector.
        cache: folder of developed raws, see `data.frame_cache`. The one in config.yaml is not used, because a file must
            not decide where files are written and removed.
        detector_given: whether the user names the detector, which may then be code.
        budget: the larger budget in detector passes; None for that of the run.
        ranks: processes that share the run from now on, any number; the folder has to be visible to all.

    Raises:
        DataError: config.yaml or the training images cannot be used.
        WeightsError: latest.pt is damaged, or the detector's weights have changed since the run began.
        UsageError: another process trains there, a module, reward, method or detector of the user's own is missing, or
            `budget` is smaller than that of the run.
    """
    stored = ranks.together(lambda: _stored(folder, load_detector, cache, detector_given, budget))
    options, settings, provenance, detector, former = stored
    if not ranks.alone:
        digest = data_digest(options)
        require_same(ranks, data=digest, detector=detector.weights_sha256, settings=_plain(options, settings))
    run = ranks.together(lambda: Trainer(folder, options, settings, detector, provenance, device, ranks))

    def claimed() -> None:
        if ranks.first:
            run.claim = reclaim_folder(folder, KIND)
            check_links(folder)

    def prolonged() -> Mapping[str, Any]:
        if options.budget == former:
            return run.provenance
        warn_of_warmup(settings, folder, run.learner.passes, former, options.budget)
        done = run.learner.iteration, run.learner.passes
        return prolong(folder, former, options.budget, provenance, *done)

    try:
        ranks.together(claimed)
        ranks.together(run.restore)
        run.provenance = ranks.on_first(prolonged)
    except BaseException:
        run.close()
        raise
    return run


def _stored(
    folder: Path, load_detector: Callable[[str], Detector], cache: str, detector_given: bool, budget: int | None
) -> tuple[TrainConfig, Any, dict[str, Any], Detector, int]:
    """The options, settings and provenance of a run folder, its detector, and its budget until now.

    Args:
        folder, load_detector, cache, detector_given, budget: as for `resumed_run`.

    Raises:
        DataError, WeightsError, UsageError: as for `resumed_run`.
    """
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder}: is not a run folder, since it has no {CONFIG}; give --resume the --out of a training run"
        )
    train_part, settings_part = read_config(folder / CONFIG)
    provenance = read_provenance(folder)
    require_own_parts(folder, train_part, settings_part, provenance, detector_given)
    options, settings = _resolved(folder, train_part, settings_part)
    if options.cache and os.path.abspath(options.cache) != os.path.abspath(cache):
        logger.warning("%s: its cache was %s; give --cache to use it again", folder, options.cache)
    former = options.budget
    check_budget(folder, former, budget or former)
    options = replace(options, cache=cache, budget=budget or former)
    detector = load_detector(options.detector)
    _check_origin(folder, provenance, options, detector)
    if not (folder / LATEST).is_file() and not is_marked(folder):
        raise DataError(f"{folder}: has no {LATEST} to continue from; start a new run with another --out")
    return options, settings, provenance, detector, former


def _resolved(folder: Path, train_part: dict[str, Any], settings_part: dict[str, Any]) -> tuple[TrainConfig, Any]:
    """The options and settings of a run folder.

    Raises:
        DataError: they are not valid.
    """
    try:
        return resolve({"dev_size": FORMER_DEV_SIZE, **train_part}, settings_part, str(folder / CONFIG))
    except (DataError, UsageError) as error:
        raise DataError(f"{error}; restore the {CONFIG} with which the run was started") from error


def _check_origin(folder: Path, provenance: Mapping[str, Any], options: TrainConfig, detector: Detector) -> None:
    """Compares what a run began with: other weights are refused, other kernels and data cause a warning.

    Raises:
        WeightsError: the detector's weights have changed since the run began.
    """
    weights = provenance.get("weights_sha256")
    began_with = weights.get(detector.name) if isinstance(weights, dict) else None
    if began_with is not None and began_with != detector.weights_sha256:
        raise WeightsError(
            f"{folder}: the run began with other weights of {detector.name}, of hash {str(began_with)[:12]}… instead "
            f"of {detector.weights_sha256[:12]}…; restore them, or start a new run with --warm-start {folder}"
        )
    if (kernels := provenance.get("kernels", description())) != description():
        logger.warning(
            "%s: began with kernels %s, continues with %s; results agree up to rounding",
            folder,
            kernels,
            description(),
        )
    digest = data_digest(options)
    if provenance.get("data", digest) != digest:
        logger.warning("%s: data or dev have changed since the run began; it continues with the changed files", folder)

"""A training run in its folder: settings, log, checkpoints, scores on dev, and exact resumption.

RUN/
  config.yaml            every setting, and where the run came from
  metrics.jsonl          one line an iteration; repeats bit by bit for the same seed and threads
  timing.jsonl           seconds of the parts of each iteration; repeats never
  dev.jsonl              scores on the dev set
  tensorboard/           the same as curves, with the module shares and trajectories as pictures
  trajectories.png       some dev images after each of their stages, at the last score
  latest.pt              all that the next iteration depends on
  latest.*, best.*       the policy as it stands, and the best on dev (.safetensors or .json): by AP50, less the
                         runtime penalty where there is one
  summary.json           what the finished run was: budget, time, peak memory, best score; with a teacher also its
                         passes, how many images it looked at, and in how many it found nothing
"""

import math
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import torch
from PIL import Image as PilImage

from adaptiveisp.data.opening import Dataset
from adaptiveisp.errors import AdaptiveISPError, DataError, OutputError, UsageError, WeightsError, logger
from adaptiveisp.evaluation.coco_ap import coco_average_precision
from adaptiveisp.evaluation.evaluator import EvalConfig, evaluate
from adaptiveisp.evaluation.stage_sheet import trajectory_sheet
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.isp.costs import Costs
from adaptiveisp.kernels.forward import description
from adaptiveisp.policies.registry import RUN_POLICIES
from adaptiveisp.training import run_logger as runlog
from adaptiveisp.training.config import (
    CONFIG,
    TrainConfig,
    check_gradients,
    check_loss,
    data_digest,
    open_dev,
    open_teacher,
    open_training_images,
    read_config,
    resolve,
    write_config,
)
from adaptiveisp.training.methods.registry import Learner, NonFiniteLossError, find_method
from adaptiveisp.training.run_logger import RunLogger
from adaptiveisp.training.run_state import read_state
from adaptiveisp.types import Detector
from adaptiveisp.utils.files import atomic_path, write_json
from adaptiveisp.utils.output_folder import FolderClaim, claim_folder, is_marked, reclaim_folder, remove_inside
from adaptiveisp.utils.yaml_files import read_yaml

LATEST, LATEST_POLICY, BEST_POLICY = "latest.pt", "latest", "best"
SUMMARY, TRAJECTORIES, NOT_FINITE = "summary.json", "trajectories.png", "not-finite.pt"
KIND = "train"
"""What marks the folder of a run, see `output_folder`."""
DEV_SIZE = 416
"""Longer side in pixels at which dev is scored, as `eval` does."""
MOST_UNLEARNED = 50
"""Iterations in a row whose gradient is not finite, before a run gives up."""
SHOWN = 6
"""Dev images whose trajectories are drawn."""


def new_run(
    folder: Path,
    options: TrainConfig,
    settings: Any,
    detector: Detector,
    provenance: dict[str, Any],
    overwrite: bool,
    device: str = "cpu",
) -> "Trainer":
    """A run at its start, its folder made and its config.yaml written; all inputs are checked before.

    Args:
        folder, options, settings, detector, provenance, device: as for `Trainer`.
        overwrite: whether the folder may hold something.

    Raises:
        UsageError: the folder holds something and `overwrite` is off.
        DataError: the images or their labels cannot be used.
    """
    if settings.size % detector.stride:
        raise UsageError(f"size {settings.size}: must be a multiple of {detector.stride} for {detector.name}")
    provenance = {**provenance, "data": data_digest(options)}
    run = Trainer(folder, options, settings, detector, provenance, device)
    if options.warm_start:
        run.learner.warm_start(options.warm_start)
    if run.teacher is None:  # one that can only be used otherwise is told before there is a folder
        run.stream[0]
    run.claim = claim_folder(folder, KIND, overwrite)
    try:
        run.check_names()
        run.remove_results()
        write_config(folder, options, settings, provenance)
        if options.warm_start:
            run.checkpoint()  # the policy it came from may change or go before the next one
    except BaseException:
        run.close()
        raise
    return run


def resumed_run(
    folder: Path, load_detector: Callable[[str], Detector], device: str = "cpu", cache: str = ""
) -> "Trainer":
    """The run of a folder, where its last checkpoint left it; that may have been on another device.

    Args:
        folder: the run folder.
        load_detector: gives the detector for what config.yaml says of it, which is a file's word.
        device: where the detector is.
        cache: folder of developed raws, see `data.frame_cache`; the one that config.yaml names is not used, since
            a file must not decide where something is written and removed.

    Raises:
        DataError: config.yaml or the training images cannot be used.
        WeightsError: latest.pt is damaged, or the detector's weights are others than the run began with.
        UsageError: another process trains there.
    """
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder}: is no folder of a run, it has no {CONFIG}; give --resume the --out of a training run"
        )
    try:
        options, settings = resolve(*read_config(folder / CONFIG), origin=str(folder / CONFIG))
    except (DataError, UsageError) as error:
        raise DataError(f"{error}; --resume needs the folder of a run") from error
    if options.cache and os.path.abspath(options.cache) != os.path.abspath(cache):
        logger.warning("%s: kept frames in %s; give --cache to use that again", folder, options.cache)
    options = replace(options, cache=cache)
    provenance = _provenance_of(folder)
    detector = load_detector(options.detector)
    weights = provenance.get("weights_sha256")
    began_with = weights.get(detector.name) if isinstance(weights, dict) else None
    if began_with is not None and began_with != detector.weights_sha256:
        raise WeightsError(
            f"{folder}: began with weights of {detector.name} that were {str(began_with)[:12]}…, now they are "
            f"{detector.weights_sha256[:12]}…; bring those back, or start a new run with --warm-start {folder}"
        )
    if (kernels := provenance.get("kernels", description())) != description():
        logger.warning(
            "%s: began with kernels %s, goes on with %s; results agree to rounding only", folder, kernels, description()
        )
    digest = data_digest(options)
    if provenance.get("data", digest) != digest:
        logger.warning("%s: its data or dev have changed since it began; it goes on with what is there now", folder)
    if not (folder / LATEST).is_file() and not is_marked(folder):
        raise DataError(f"{folder}: has no {LATEST} to go on from; start the run again with --out and another folder")
    run = Trainer(folder, options, settings, detector, provenance, device)
    run.claim = reclaim_folder(folder, KIND)
    try:
        run.check_names()
        run.restore()
    except BaseException:
        run.close()
        raise
    return run


def _provenance_of(folder: Path) -> dict[str, Any]:
    """Where a run came from, as its config.yaml says.

    Raises:
        DataError: that is no mapping.
    """
    remedy = "--resume needs the folder of a run"
    content = read_yaml(folder / CONFIG, DataError, remedy)
    provenance = (content.get("provenance") if isinstance(content, dict) else None) or {}
    if not isinstance(provenance, dict):
        raise DataError(f"{folder / CONFIG}: provenance is no mapping; {remedy}")
    return provenance


class Trainer:
    """Trains in a folder until the budget is spent, or a signal asks to stop.

    Args:
        folder: the run folder, which exists and has its config.yaml when training begins.
        options, settings: of the run and of its method.
        detector: the frozen detector.
        provenance: kept in each JSON.
        device: where the detector is, and where the run learns.

    Raises:
        DataError: the images or their labels cannot be used.
        UsageError: the method needs gradients that the detector's loss does not have.
    """

    def __init__(
        self,
        folder: Path,
        options: TrainConfig,
        settings: Any,
        detector: Detector,
        provenance: Mapping[str, Any],
        device: str = "cpu",
    ):
        self.folder, self.options, self.detector, self.provenance = folder, options, detector, provenance
        self.device = device
        check_gradients(options.method, settings, detector)
        check_loss(options.method, settings, detector, device)
        self.dev = open_dev(options)
        self.teacher = open_teacher(options, detector, device)
        self.stream = open_training_images(options, settings, detector, self.teacher)
        method = find_method(options.method)
        self.learner: Learner = method.learner(settings, self.stream, detector, options.budget, options.seed, device)
        self.runtime_weight = getattr(settings, "runtime_weight", 0.0)
        self.costs: Costs = getattr(settings, "costs", {})
        self.best: float | None = None
        self.best_ap50: float | None = None
        self.stopping = False
        self.unlearned = 0
        self.why_no_tensorboard = ""
        self.unreadable_dev: dict[str, str] = {}
        self.former_skipped: dict[str, str] = {}
        self.claim: FolderClaim | None = None

    def close(self) -> None:
        """Lets other processes write into the folder."""
        if self.claim is not None:
            self.claim.release()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(self, on_iteration: Callable[[dict[str, Any]], None] = lambda metrics: None) -> bool:
        """Iterates until the budget is spent (True) or a signal stops it (False); either way latest.pt is up to date.

        Raises:
            NonFiniteLossError: a loss is not finite, its batch is saved beside the log; or gradients were not finite
                for MOST_UNLEARNED iterations in a row.
            OutputError: the folder cannot be written; the last checkpoint stands.
        """
        learner = self.learner
        with self._stop_on_signals(), RunLogger(self.folder, learner.iteration) as log:
            while not learner.done and not self.stopping:
                try:
                    metrics, seconds = learner.iterate()
                except NonFiniteLossError as error:
                    self._save_batch(error)
                    where = self.folder / NOT_FINITE
                    raise NonFiniteLossError(
                        f"{error}; {where} holds its batch; try lower rates", error.batch
                    ) from error
                log.metrics(metrics)
                log.timing({"iteration": metrics["iteration"], **seconds})
                self._count_unlearned(metrics)
                on_iteration(metrics)
                if self.dev is not None and (learner.iteration % self.options.dev_every == 0 or learner.done):
                    self._score_dev(self.dev, log)
                if learner.iteration % self.options.checkpoint_every == 0:
                    self.checkpoint(log.line_counts())
            self.checkpoint(log.line_counts())
        self.why_no_tensorboard = log.why_no_tensorboard
        if learner.done:
            self._write_summary()
        return learner.done

    def _count_unlearned(self, metrics: dict[str, Any]) -> None:
        """Gives up where one iteration after another teaches nothing, since gradients are not finite.

        Raises:
            NonFiniteLossError: there were MOST_UNLEARNED in a row.
        """
        finite = all(math.isfinite(norm) for norm in metrics["gradient_norm"].values())
        self.unlearned = 0 if finite else self.unlearned + 1
        if self.unlearned == MOST_UNLEARNED:
            raise NonFiniteLossError(
                f"{self.folder}: gradients were not finite {MOST_UNLEARNED} times in a row, up to iteration "
                f"{metrics['iteration']}; try lower rates, or another start",
                {},
            )

    @property
    def skipped(self) -> dict[str, str]:
        """Images that could not be read so far, with the reason; others took the places of training images."""
        return {**self.former_skipped, **getattr(self.stream, "skipped", {}), **self.unreadable_dev}

    def _score_dev(self, dev: Dataset, log: RunLogger) -> None:
        """Scores the policy on dev; the best so far is kept. Neither random numbers nor the budget are touched."""
        learner = self.learner
        with torch.random.fork_rng(devices=[]):  # reading ahead draws from the generator that dropout uses
            options = EvalConfig(DEV_SIZE, device=self.device, costs=self.costs, cache=self.options.cache)
            found = evaluate(dev, [learner.policy()], [self.detector], options)
        self.unreadable_dev = dict(found.skipped)
        (result,) = found.results.values()
        score = coco_average_precision(result.scored, found.categories)
        cost_ms = sum(result.cost_ms) / max(1, len(result.cost_ms))
        line = {
            "iteration": learner.iteration,
            "passes": learner.passes,
            "ap50": score.ap50,
            "ap": score.ap,
            "modules_per_image": sum(result.modules) / max(1, len(result.modules)),
            "cost_ms": cost_ms,
        }
        log.dev(line)
        self._draw_trajectories(dev, log)
        if score.ap50 is None:
            return
        # What the run is after: points of AP50, less what the modules cost at the price that its reward puts on them.
        worth = 100 * score.ap50 - self.runtime_weight * cost_ms
        if self.best is None or worth > self.best:
            self.best, self.best_ap50 = worth, score.ap50
            with writing(self.folder):
                learner.save_policy(self.folder, BEST_POLICY, self.provenance)

    def _draw_trajectories(self, dev: Dataset, log: RunLogger) -> None:
        """Draws what the policy does to some dev images, spread over the light where it is known."""
        samples = sorted(dev.samples, key=lambda sample: sample.light or 0.0)
        images, names, lights = [], [], []
        n = min(SHOWN, len(samples))
        for sample in (samples[round(i * (len(samples) - 1) / max(1, n - 1))] for i in range(n)):
            try:
                images.append(develop_at_size(dev.read(sample), DEV_SIZE, device=self.device).small)
            except Exception:  # whatever one file does to its reader; the evaluation has noted it
                continue
            names.append(sample.name)
            lights.append(sample.light)
        if images:
            sheet = trajectory_sheet(self.learner.policy(), images, names, lights)
            log.picture("trajectories", sheet, self.learner.iteration)
            with writing(self.folder), atomic_path(self.folder / TRAJECTORIES) as temporary:
                PilImage.fromarray(sheet).save(temporary, format="PNG")

    def checkpoint(self, lines: Mapping[str, int] = MappingProxyType({})) -> None:
        """Writes latest.pt and the policy as it stands.

        Args:
            lines: how many each log has now.

        Raises:
            OutputError: the disk is full or the folder is gone.
        """
        content = {
            "learner": self.learner.state_dict(),
            "best": self.best,
            "best_ap50": self.best_ap50,
            "lines": dict(lines),
            "skipped": dict(self.skipped),
            "teacher": self.teacher.state_dict() if self.teacher is not None else None,
        }
        with writing(self.folder):
            with atomic_path(self.folder / LATEST) as temporary:
                torch.save(content, temporary)
            self.learner.save_policy(self.folder, LATEST_POLICY, self.provenance)

    def remove_results(self) -> None:
        """Removes what an earlier run left in the folder, but for its config.yaml and files that are no part of it."""
        for name in (LATEST, SUMMARY, TRAJECTORIES, NOT_FINITE, *RUN_POLICIES):
            remove_inside(self.folder, self.folder / name)
        runlog.remove(self.folder)

    def check_names(self) -> None:
        """Refuses a folder in which a link leads out what the run cuts, appends to or removes.

        Raises:
            OutputError: names the link.
        """
        for name in (*runlog.LOGS, runlog.TENSORBOARD):
            path = self.folder / name
            if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
                # A backup by hard links, say: what is appended here must not appear there.
                with atomic_path(path) as temporary:
                    shutil.copyfile(path, temporary)
            if path.is_symlink():
                raise OutputError(f"{path}: is a link, and the run would write through it; put in place what it means")

    def restore(self) -> None:
        """Goes back to latest.pt: the learner, and the logs cut to where they were then.

        Raises:
            WeightsError: latest.pt is damaged, or does not fit config.yaml.
        """
        path = self.folder / LATEST
        if not path.exists():  # stopped before the first checkpoint: the run starts again
            self.remove_results()
            if self.options.warm_start:
                self.learner.warm_start(self.options.warm_start)
            return
        remedy = (
            f"it does not fit the settings in {CONFIG}; bring that file back to what the run was started with, or go "
            "on from an earlier version's run by --warm-start"
        )
        # Which images it has answered for differs from run to run.
        teacher = {**self.teacher.state_dict(), "answers": {}} if self.teacher is not None else None
        state = read_state(path, self.learner.state_dict(), teacher, remedy)
        try:
            if self.teacher is not None:  # before the learner, which may ask for its images at once
                self.teacher.load_state_dict(state.teacher)
            self.learner.load_state_dict(state.learner)
        except AdaptiveISPError:
            raise
        except Exception as error:  # whatever values of the right types lead to
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise WeightsError(f"{path}: {reason}; {remedy}") from error
        self.best, self.best_ap50, self.former_skipped = state.best, state.best_ap50, state.skipped
        runlog.cut(self.folder, state.lines)

    def _save_batch(self, error: NonFiniteLossError) -> None:
        with writing(self.folder), atomic_path(self.folder / NOT_FINITE) as temporary:
            torch.save(error.batch, temporary)

    def _write_summary(self) -> None:
        seconds = runlog.seconds_of_parts(self.folder)
        summary = {
            "iterations": self.learner.iteration,
            "passes": self.learner.passes,
            "best_ap50_on_dev": self.best_ap50,
            "learning_seconds": sum(seconds.values()),
            "seconds_of_parts": seconds,
            "peak_memory_mb": peak_memory_mb(),
            "device": self.device,
            "threads": torch.get_num_threads(),
            "skipped": self.skipped,
            "provenance": dict(self.provenance),
        }
        if self.teacher is not None:
            summary["teacher_passes"] = self.teacher.passes
            summary["teacher_images"] = len(self.teacher.answers)
            summary["teacher_found_nothing_in"] = self.teacher.found_nothing
        write_json(self.folder / SUMMARY, summary)

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the iteration and writes a checkpoint; a second SIGINT interrupts."""

        def stop(number: int, frame: FrameType | None) -> None:
            if self.stopping and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stopping = True

        former = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what goes wrong while a run writes into one line; files appear whole or not at all, so nothing is lost.

    Raises:
        OutputError: the disk is full or the folder is gone.
    """
    try:
        yield
    except (OSError, RuntimeError, OutputError) as error:  # torch.save raises RuntimeError on a full disk
        unclear = isinstance(error, RuntimeError)  # torch's message says where in its own code
        detail = "a checkpoint could not be written whole" if unclear else str(error).splitlines()[0]
        raise OutputError(
            f"{folder}: cannot be written ({detail}); free space, then go on with `adaptiveisp train --resume {folder}`"
        ) from error


def peak_memory_mb() -> float:
    """The most memory this process has held so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)

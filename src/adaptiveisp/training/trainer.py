"""A training run in its folder: settings, log, checkpoints, scores on dev, and exact resumption.

RUN/
  config.yaml            every option and setting, and the provenance of the run
  metrics.jsonl          one line for each iteration, the same bit by bit for the same seed and number of threads
  timing.jsonl           seconds of the parts of each iteration
  dev.jsonl              scores on the dev set; the line of iteration 0 has the start and, nested, auto-exposure
  dev.png                the scores as a curve with the detector's loss below, where matplotlib is installed
  tensorboard/           the same as curves, with pictures of the modules' shares and of dev images
  trajectories.png       some dev images after each of their stages, at the last score
  latest.pt              the complete state on which the next iteration depends
  latest.*, best.*       the current policy, and the best one on dev (.safetensors or .json): by AP50 less the runtime
                         penalty, if the method has one; a warm start that nothing improved on is the best one
  summary.json           of a finished run: iterations, passes, time, peak memory, best score and those of the start;
                         with a teacher also its passes, the number of its images, and of those without a detection
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as PilImage

from adaptiveisp.detectors.contract import TRAINING_CHECKS, make_trial, run_checks
from adaptiveisp.errors import AdaptiveISPError, SilentError, WeightsError
from adaptiveisp.isp.costs import Costs, listed_costs
from adaptiveisp.policies.base import Policy, as_policy
from adaptiveisp.policies.latency import training_limit
from adaptiveisp.policies.registry import NAMED_POLICIES
from adaptiveisp.training import run_logger
from adaptiveisp.training.config import CONFIG, TrainConfig
from adaptiveisp.training.dev_curve import DevCurve
from adaptiveisp.training.dev_scores import DevScore, draw_on_dev, score_on_dev
from adaptiveisp.training.dev_selection import AUTO_EXPOSURE, START, DevSelection
from adaptiveisp.training.distributed import ALONE, LostRankError, Ranks
from adaptiveisp.training.inputs import external_isps, open_dev, open_teacher, open_training_images
from adaptiveisp.training.methods.registry import Learner, NonFiniteLossError, find_method
from adaptiveisp.training.run_files import (
    BEST_POLICY,
    CURVE,
    LATEST,
    LATEST_POLICY,
    NOT_FINITE,
    TRAJECTORIES,
    remove_results,
    writing,
)
from adaptiveisp.training.run_logger import RunLogger, SilentLogger
from adaptiveisp.training.run_state import read_state
from adaptiveisp.training.run_summary import write_summary
from adaptiveisp.training.shared_run import any_stops, require_images, require_shares, shared_notes
from adaptiveisp.training.stopping import stopped_by_signals
from adaptiveisp.training.trial_loss import check_gradients, check_loss
from adaptiveisp.training.trial_parts import check_modules, check_reward, own_modules
from adaptiveisp.types import Detector
from adaptiveisp.utils.files import atomic_path, write_bytes
from adaptiveisp.utils.output_folder import FolderClaim

OnIteration = Callable[[dict[str, Any]], None]
"""Called with the metrics of an iteration."""
OnCheckpoint = Callable[[Path], None]
"""Called with the path of latest.pt."""
OnImage = Callable[[UInt8[np.ndarray, "height width 3"], int], None]
"""Called with a picture and the iteration."""
MOST_UNLEARNED = 50
"""Number of iterations in a row without a finite gradient after which a run gives up."""

UNUSED_IMAGES = 8
"""Number of training images on which a run without a dev set tells whether its policy uses a module."""


class Trainer:
    """Trains a policy in a run folder until the budget is spent or a signal stops it.

    Args:
        folder: the run folder, which exists and has its config.yaml when training begins.
        options: of the run; with a `dev_size`, see `config.completed`.
        settings: of its method.
        detector: the frozen detector.
        provenance: stored in each JSON file of the run.
        device: device of the detector, on which the policy learns.
        ranks: processes that share the run, which all make a trainer; the first one writes.

    Raises:
        DataError: the images or their labels cannot be used.
        UsageError: the method needs gradients that the detector's loss does not have, a module or reward of the user's
            own has a fault, or the method cannot be split among so many ranks.
        DetectorError: detections are not valid, or the loss of an image depends on other images of the batch.
    """

    def __init__(
        self,
        folder: Path,
        options: TrainConfig,
        settings: Any,
        detector: Detector,
        provenance: Mapping[str, Any],
        device: str = "cpu",
        ranks: Ranks = ALONE,
    ):
        self.ranks = ranks
        require_shares(options.method, ranks)
        self.folder, self.options, self.detector, self.provenance = folder, options, detector, provenance
        self.settings, self.device = settings, device
        check_gradients(options.method, settings, detector)
        check_loss(options.method, settings, detector, device)
        run_checks(detector, make_trial(detector, settings.size, device), TRAINING_CHECKS)
        check_modules(options.method, settings, device)
        check_reward(options.method, settings, device)
        self.dev = open_dev(options, mosaics=bool(external_isps(settings)))
        self.teacher = open_teacher(options, detector, device)
        self.stream = open_training_images(options, settings, detector, self.teacher)
        method = find_method(options.method)
        self.learner: Learner = method.learner(settings, self.stream, detector, options.budget, options.seed, device)
        if not ranks.alone:
            require_images(self.learner, ranks)
        if self.teacher is not None:
            self.teacher.mark()
        self.chosen: object = None
        self.costs: Costs = listed_costs(getattr(settings, "costs", {}))
        self.limit = training_limit(settings)
        if self.limit is not None:
            self.limit.table = replace(self.limit.table, size=options.dev_size)
        self.selection = DevSelection(getattr(settings, "runtime_weight", 0.0))
        self.curve = DevCurve(folder)
        self.stopping = False
        self.unlearned = 0
        self.unreadable_dev: dict[str, str] = {}
        self.former_skipped: dict[str, str] = {}
        self.claim: FolderClaim | None = None

    def close(self) -> None:
        """Releases the folder for other processes."""
        if self.claim is not None:
            self.claim.release()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def train(
        self,
        on_iteration: OnIteration | None = None,
        on_checkpoint: OnCheckpoint | None = None,
        on_image: OnImage | None = None,
    ) -> bool:
        """Iterates until the budget is spent (True) or a signal stops the run (False); then writes a checkpoint.

        Args:
            on_iteration: called after each iteration with its line of metrics.jsonl.
            on_checkpoint: called after each checkpoint with the path of latest.pt.
            on_image: called after each score on dev, from the first iteration on, with the picture of trajectories.png
                and the iteration. With several ranks these are called on the first one.

        Raises:
            NonFiniteLossError: a loss is not finite, and its batch is saved in the run folder; or gradients were not
                finite in `MOST_UNLEARNED` iterations in a row.
            OutputError: the folder cannot be written; the last checkpoint is still complete.
            LostRankError: another rank ended or does not answer.
        """
        if not self.ranks.first:
            on_iteration = on_checkpoint = on_image = None
        try:
            return self._train(on_iteration, on_checkpoint, on_image)
        except LostRankError as error:
            state = (
                "its last checkpoint is complete" if (self.folder / LATEST).is_file() else "it has no checkpoint yet"
            )
            remedy = f"{state}; continue with --resume {self.folder}, with any number of ranks"
            raise LostRankError(f"{self.folder}: {error.what}; {remedy}", error.what) from error

    def _train(
        self, on_iteration: OnIteration | None, on_checkpoint: OnCheckpoint | None, on_image: OnImage | None
    ) -> bool:
        """`train`, where an error of another rank does not name the folder."""
        learner = self.learner
        with (
            stopped_by_signals(self._stop),
            RunLogger(self.folder, learner.iteration) if self.ranks.first else SilentLogger() as log,
        ):
            if self.dev and learner.iteration == 0 and self.selection.start is None:
                self._score_start(log)
                self._checkpoint(log, on_checkpoint)  # a run that is killed early does not score it again
            while not learner.done and not self._stops():
                metrics, seconds = self._iterate()
                self.chosen = metrics.get("modules")
                log.metrics(metrics)
                log.timing({"iteration": metrics["iteration"], **seconds})
                self._count_unlearned(metrics)
                if on_iteration is not None:
                    on_iteration(metrics)
                if self.dev and (learner.iteration % self.options.dev_every == 0 or learner.done):
                    self._score_dev(log, on_image)
                if learner.iteration % self.options.checkpoint_every == 0:
                    self._checkpoint(log, on_checkpoint)
            self._checkpoint(log, on_checkpoint)
        if learner.done and self.ranks.first:
            write_summary(self)
        return learner.done

    def _stops(self) -> bool:
        """Whether a signal stops the run; all ranks stop after the same iteration."""
        done = self.learner.iteration, self.learner.passes, self.chosen
        return any_stops(self.ranks, self.stopping, done, self.folder)

    def _iterate(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Does one iteration; the batch of a loss that is not finite is saved in the run folder."""
        try:
            return self.learner.iterate()
        except NonFiniteLossError as error:
            path = self.folder / NOT_FINITE
            if not self.ranks.first:
                raise SilentError("the first rank tells the loss that is not finite") from error
            with writing(self.folder), atomic_path(path) as temporary:
                torch.save(error.batch, temporary)
            raise NonFiniteLossError(f"{error}; {path} holds its batch; try lower rates", error.batch) from error

    def _count_unlearned(self, metrics: dict[str, Any]) -> None:
        """Counts iterations whose gradients are not finite, which change no weight.

        Raises:
            NonFiniteLossError: there were `MOST_UNLEARNED` in a row.
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
        """Image that could not be read → reason; training images among them were replaced by others."""
        return {**self.former_skipped, **getattr(self.stream, "skipped", {}), **self.unreadable_dev}

    def _score_start(self, log: RunLogger) -> None:
        """Scores auto-exposure and the policy from which the run starts.

        Only a warm start may be the best policy: a policy that has learned nothing is not one that a user wants, even
        if it scores well.
        """
        policies = [as_policy(self.learner.policy()).renamed(START), NAMED_POLICIES[AUTO_EXPOSURE]]
        start, auto_exposure = self._scores(policies)
        auto_exposure = replace(auto_exposure, within=None)  # the table has the own time of the learned policy
        log.dev({"iteration": 0, "passes": 0, **start.line, AUTO_EXPOSURE: auto_exposure.line})
        named = {START: start.ap50, AUTO_EXPOSURE: auto_exposure.ap50}
        self.selection.start = {name: ap50 for name, ap50 in named.items() if ap50 is not None}
        if self.options.warm_start:
            self._select(start)
        self._draw_curve()

    def _score_dev(self, log: RunLogger, on_image: OnImage | None) -> None:
        """Scores the policy on dev and saves it if it is the best so far; the budget does not count these passes."""
        learner = self.learner
        (score,) = self._scores([learner.policy()])
        log.dev({"iteration": learner.iteration, "passes": learner.passes, **score.line})
        picture = None
        if self.ranks.first:
            picture = draw_on_dev(self.dev, learner.policy(), self.options.dev_size, self.device)
        if picture is not None:
            log.picture("trajectories", picture, learner.iteration)
            with writing(self.folder), atomic_path(self.folder / TRAJECTORIES) as temporary:
                PilImage.fromarray(picture).save(temporary, format="PNG")
            if on_image is not None:
                on_image(picture, learner.iteration)
        self._select(score)
        self._draw_curve()

    def _scores(self, policies: Sequence[Policy]) -> list[DevScore]:
        """The scores of some policies on dev."""
        options = self.options
        how = (options.dev_size, self.device, self.costs, options.cache, self.limit, self.ranks)
        scores = score_on_dev(self.dev, policies, self.detector, *how)
        self.unreadable_dev = scores[0].skipped
        return scores

    def _select(self, score: DevScore) -> None:
        """Saves the current policy as the best one if its score is the best so far."""
        if self.selection.takes(score, self.learner.iteration) and self.ranks.first:
            with writing(self.folder):
                self.learner.save_policy(self.folder, BEST_POLICY, self.provenance)

    def _draw_curve(self) -> None:
        """Writes dev.png, where matplotlib is installed."""
        picture = self.curve.png(self.selection.best_iteration, self.start_name) if self.ranks.first else None
        if picture is not None:
            with writing(self.folder):
                write_bytes(self.folder / CURVE, picture)

    @property
    def start_name(self) -> str:
        """Name of the policy from which the run starts, for users."""
        return f"warm {START}" if self.options.warm_start else START

    def _checkpoint(self, log: RunLogger, on_checkpoint: OnCheckpoint | None) -> None:
        """Writes a checkpoint and tells the callback."""
        self.checkpoint(log.line_counts())
        if on_checkpoint is not None:
            on_checkpoint(self.folder / LATEST)

    def checkpoint(self, lines: Mapping[str, int] = MappingProxyType({})) -> None:
        """Writes latest.pt and the current policy; every rank calls it, and the first one writes.

        Args:
            lines: number of lines of each log.

        Raises:
            OutputError: the disk is full or the folder was removed.
        """
        skipped = {**self.former_skipped, **getattr(self.stream, "skipped", {})}
        self.former_skipped = shared_notes(self.ranks, skipped, self.teacher)
        self.ranks.together(lambda: self._write_checkpoint(lines) if self.ranks.first else None)

    def _write_checkpoint(self, lines: Mapping[str, int]) -> None:
        content = {
            "learner": self.learner.state_dict(),
            **self.selection.state_dict(),
            "lines": dict(lines),
            "skipped": dict(self.skipped),
            "teacher": self.teacher.state_dict() if self.teacher is not None else None,
        }
        with writing(self.folder):
            with atomic_path(self.folder / LATEST) as temporary:
                torch.save(content, temporary)
            self.learner.save_policy(self.folder, LATEST_POLICY, self.provenance)

    def restore(self) -> None:
        """Restores the state in latest.pt and cuts the logs to its number of lines.

        Raises:
            WeightsError: latest.pt is damaged, or does not fit config.yaml.
        """
        path = self.folder / LATEST
        if not path.exists():  # stopped before the first checkpoint, so that the run starts again
            if self.ranks.first:
                remove_results(self.folder)
            if self.options.warm_start:
                self.learner.warm_start(self.options.warm_start)
            return
        remedy = (
            f"it does not fit the settings in {CONFIG}; restore the {CONFIG} with which the run was started, or "
            "start a new run from this one with --warm-start"
        )
        # The teacher's answers differ from those of a new run, so that they are not compared.
        teacher = {**self.teacher.state_dict(), "answers": {}} if self.teacher is not None else None
        state = read_state(path, self.learner.state_dict(), teacher, remedy)
        try:
            if self.teacher is not None:  # before the learner, which may load its images immediately
                self.teacher.load_state_dict(state.teacher)
            self.learner.load_state_dict(state.learner)
        except AdaptiveISPError:
            raise
        except Exception as error:  # any error that values of the right types can cause
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise WeightsError(f"{path}: {reason}; {remedy}") from error
        self.former_skipped = state.skipped
        for name in self.selection.state_dict():
            setattr(self.selection, name, getattr(state, name))
        # The checkpoint of a warm start was written before the logs were opened, and counts none of their lines.
        if self.ranks.first:
            run_logger.cut(self.folder, {**dict.fromkeys(run_logger.LOGS, 0), **state.lines})

    def unused_modules(self) -> tuple[str, ...]:
        """Names of the user's own modules in no pipeline of the best policy on dev, or on training images without dev.

        It is empty where the pipelines on dev are not known.
        """
        own, used = [module.name for module in own_modules(self.settings)], self.selection.best_modules
        if own and not self.dev:
            image = torch.stack([self.stream[number].image for number in range(UNUSED_IMAGES)]).to(self.device)
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                pipelines = self.learner.policy().plan(image)
            used = tuple(stage.module for pipeline in pipelines for stage in pipeline.stages)
        return tuple(name for name in own if used is not None and name not in used)

    def _stop(self) -> bool:
        """Asks the run to stop after its iteration; returns whether it was asked before."""
        asked, self.stopping = self.stopping, True
        return asked

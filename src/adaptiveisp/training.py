"""A training run: its folder, log, checkpoints, and how it stops and goes on.

RUN/
  config.yaml            every setting of the run
  metrics.jsonl          one line an iteration; repeats exactly for the same seed and threads
  timing.jsonl           seconds of the parts of each logged iteration; repeats never
  dev.jsonl              scores on the dev set
  latest.pt              all that the next iteration depends on
  latest.safetensors     the policy as it stands
  best.safetensors       the policy with the best AP50 on dev
"""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from adaptiveisp.checkpoint import save_policy
from adaptiveisp.classes import map_classes
from adaptiveisp.coco_map import coco_average_precision
from adaptiveisp.datasets import Dataset, open_dataset
from adaptiveisp.errors import DataError, UsageError, WeightsError
from adaptiveisp.evaluate import EvaluationOptions, evaluate
from adaptiveisp.files import atomic_path, prepare_output_folder, write_text
from adaptiveisp.methods.actor_critic import ActorCritic, NonFiniteLossError
from adaptiveisp.presets import PRESETS, ActorCriticConfig
from adaptiveisp.stream import PhotoStream
from adaptiveisp.types import Detector

CONFIG, METRICS, TIMING, DEV, LATEST = "config.yaml", "metrics.jsonl", "timing.jsonl", "dev.jsonl", "latest.pt"
LATEST_POLICY, BEST_POLICY = "latest.safetensors", "best.safetensors"
DEV_SIZE = 416
"""Longer side in pixels at which dev is scored, as `eval` does."""


@dataclass(frozen=True)
class TrainOptions:
    """What a run is made of; kept in its folder, so that `--resume` needs nothing else.

    Attributes:
        data, images: COCO JSON and folder of the training photos.
        dev, dev_images: the same of the photos that choose the best policy; "" trains without.
        detector: as for `load_detector`.
        light, noise: names of the brightness range and noise model.
        budget: image passes through the detector.
        seed: fixes everything.
        checkpoint_every, dev_every: iterations between checkpoints, and between scores on dev.
        dev_draws: draws a photo of dev.
        preset: name of the settings that `changes` started from.
    """

    data: str
    images: str
    detector: str
    light: str = "mixed"
    noise: str = "sensor"
    budget: int = 12_000
    seed: int = 0
    dev: str = ""
    dev_images: str = ""
    checkpoint_every: int = 200
    dev_every: int = 500
    dev_draws: int = 2
    preset: str = "cpu"


def write_config(folder: Path, options: TrainOptions, config: ActorCriticConfig, provenance: dict[str, Any]) -> None:
    """Writes config.yaml."""
    content = {"train": asdict(options), "actor_critic": asdict(config), "provenance": provenance}
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False))


def read_config(folder: Path) -> tuple[TrainOptions, ActorCriticConfig]:
    """The settings of a run folder.

    Raises:
        DataError: it has no readable config.yaml.
    """
    try:
        content = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        return TrainOptions(**content["train"]), ActorCriticConfig(**content["actor_critic"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{folder / CONFIG}: cannot be read ({error}); give the folder of a run to --resume") from error


def make_config(preset: str, changes: dict[str, Any]) -> ActorCriticConfig:
    """A preset with some settings changed.

    Raises:
        UsageError: there is no such preset or setting.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r} does not exist; choose one of {', '.join(PRESETS)}")
    known = {field.name for field in fields(ActorCriticConfig)}
    if unknown := [name for name in changes if name not in known]:
        raise UsageError(f"setting {unknown[0]!r} does not exist; there are {', '.join(sorted(known))}")
    return ActorCriticConfig(**{**asdict(PRESETS[preset]), **changes})


def build_learner(options: TrainOptions, config: ActorCriticConfig, detector: Detector) -> ActorCritic:
    """The learner of a run, at its start."""

    def to_label(categories: dict[int, str]) -> dict[int, int]:
        return map_classes(detector.class_names, categories).category_to_label

    stream = PhotoStream(
        Path(options.data),
        Path(options.images),
        to_label,
        config.size,
        options.light,
        options.noise,  # type: ignore[arg-type]
        options.seed,
    )
    return ActorCritic(config, stream, detector, options.budget, options.seed)


def open_dev(options: TrainOptions) -> Dataset | None:
    """The data set that chooses the best policy, None where there is none."""
    if not options.dev:
        return None
    return open_dataset(
        Path(options.dev),
        Path(options.dev_images),
        options.light,
        options.dev_draws,
        options.noise,  # type: ignore[arg-type]
    )


def new_run(
    folder: Path,
    options: TrainOptions,
    config: ActorCriticConfig,
    detector: Detector,
    provenance: dict[str, Any],
    overwrite: bool,
) -> "Run":
    """A run at its start, its folder made and its config.yaml written; all inputs are checked before.

    Raises:
        UsageError: the folder holds something and `overwrite` is off.
        DataError: the photos or their labels cannot be used.
    """
    run = Run(folder, options, config, detector)
    prepare_output_folder(folder, overwrite)
    for name in (METRICS, TIMING, DEV, LATEST, LATEST_POLICY, BEST_POLICY):
        (folder / name).unlink(missing_ok=True)
    write_config(folder, options, config, provenance)
    return run


class Run:
    """Trains in a folder until the budget is spent, or a signal asks to stop.

    Args:
        folder: the run folder, which exists and has its config.yaml.
        options, config: its settings.
        detector: the frozen detector.
        resume: go on from latest.pt.

    Raises:
        DataError: the photos or their labels cannot be used.
        WeightsError: latest.pt is damaged.
    """

    def __init__(
        self, folder: Path, options: TrainOptions, config: ActorCriticConfig, detector: Detector, resume: bool = False
    ):
        self.folder, self.options, self.detector = folder, options, detector
        self.learner = build_learner(options, config, detector)
        self.dev = open_dev(options)
        self.best = -1.0
        self.stopping = False
        if resume:
            self._restore()

    def train(self, on_iteration: Callable[[dict[str, Any]], None] = lambda metrics: None) -> bool:
        """Iterates until the budget is spent (True) or a signal stops it (False); either way latest.pt is up to date.

        Raises:
            NonFiniteLossError: a loss is not finite; its batch is saved beside the log.
        """
        with self._stop_on_signals(), self._log(METRICS) as metrics_log, self._log(TIMING) as timing_log:
            while not self.learner.done and not self.stopping:
                try:
                    metrics, seconds = self.learner.iterate()
                except NonFiniteLossError as error:
                    self._save_batch(error)
                    raise
                _write_line(metrics_log, metrics)
                _write_line(timing_log, {"iteration": metrics["iteration"], **seconds})
                on_iteration(metrics)
                iteration = self.learner.iteration
                if self.dev is not None and iteration % self.options.dev_every == 0:
                    self._score_dev()
                if iteration % self.options.checkpoint_every == 0:
                    self._checkpoint()
            if self.learner.done and self.dev is not None and self.learner.iteration % self.options.dev_every:
                self._score_dev()
            self._checkpoint()
        return self.learner.done

    def _score_dev(self) -> None:
        """Scores the policy on dev; the best so far is kept. Neither random numbers nor the budget are touched."""
        assert self.dev is not None
        found = evaluate(self.dev, [self.learner.policy()], [self.detector], EvaluationOptions(DEV_SIZE))
        (result,) = found.results.values()
        score = coco_average_precision(result.scored, found.categories)
        line = {
            "iteration": self.learner.iteration,
            "passes": self.learner.passes,
            "ap50": score.ap50,
            "ap": score.ap,
            "modules_per_image": sum(result.modules) / max(1, len(result.modules)),
            "cost_ms": sum(result.cost_ms) / max(1, len(result.cost_ms)),
        }
        with self._log(DEV) as log:
            _write_line(log, line)
        if score.ap50 is not None and score.ap50 > self.best:
            self.best = score.ap50
            save_policy(self.folder / BEST_POLICY, self.learner.header, self.learner.actor, self.learner.critic)

    def _checkpoint(self) -> None:
        content = {
            "learner": self.learner.state_dict(),
            "best": self.best,
            "lines": {name: _count_lines(self.folder / name) for name in (METRICS, TIMING, DEV)},
        }
        with atomic_path(self.folder / LATEST) as temporary:
            torch.save(content, temporary)
        save_policy(self.folder / LATEST_POLICY, self.learner.header, self.learner.actor, self.learner.critic)

    def _restore(self) -> None:
        """Goes back to latest.pt: the learner, and the logs cut to where they were then."""
        path = self.folder / LATEST
        if not path.exists():  # stopped before the first checkpoint: the run starts again
            for name in (METRICS, TIMING, DEV):
                (self.folder / name).unlink(missing_ok=True)
            return
        try:
            content = torch.load(path, weights_only=True)
        except Exception as error:  # torch and pickle raise many kinds on a damaged file
            raise WeightsError(f"{path}: is damaged; remove it to start the run again, or restore a copy") from error
        for name, lines in content["lines"].items():
            _cut_lines(self.folder / name, lines)
        self.best = content["best"]
        self.learner.load_state_dict(content["learner"])

    def _save_batch(self, error: NonFiniteLossError) -> None:
        with atomic_path(self.folder / "not-finite.pt") as temporary:
            torch.save(error.batch, temporary)

    @contextmanager
    def _log(self, name: str) -> Iterator[Any]:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            yield file

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


def _write_line(file: Any, value: dict[str, Any]) -> None:
    file.write(json.dumps(value) + "\n")
    file.flush()


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _cut_lines(path: Path, lines: int) -> None:
    """Drops what was logged after the checkpoint, an unfinished last line included."""
    if path.exists():
        kept = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[:lines]
        write_text(path, "".join(kept))

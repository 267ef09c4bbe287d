"""Sweeps: the training runs of a plan, one after the other or several at once, and one table of them at the end.

OUT/
  runs/TRIAL/seed-K/       a run folder of `train`; TRIAL has the number and the values of the trial
  runs/TRIAL/seed-K.yaml   its configuration
  runs/TRIAL/seed-K.log    what it printed
  runs/options.json        --detector and --module, with which the sweep began
  report/                  the evaluation of all runs, those of a trial as a group of seeds: report.json, report.html
  sweep.json, sweep.md     the table of the trials

Each run is a process of its own, so that a sweep that is stopped or killed leaves checkpoints, from which the same
command resumes it.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from adaptiveisp.errors import DataError, UsageError, first_few
from adaptiveisp.scale.sweep_plan import Run, Trial
from adaptiveisp.training.config import CONFIG, data_digest
from adaptiveisp.training.run_files import SUMMARY
from adaptiveisp.utils.files import read_json, write_json, write_text
from adaptiveisp.utils.yaml_files import read_yaml

INTERRUPTED = 130
"""Exit code of a run that a signal stopped."""
DONE = (0, 3)
"""Exit codes of a finished run; 3 says that inputs were skipped."""
DECISIVE = ("--detector", "--module")
"""Options of the command line that decide what a run learns; the others are in its configuration."""
OPTIONS_FILE = "options.json"
OnRun = Callable[[Run, str], None]
"""Called with a run and its outcome: "", or the reason why it failed."""


@dataclass
class Runner:
    """Runs training processes.

    Attributes:
        out: folder of the sweep.
        options: options that every process gets, such as --threads and --detector.
        stopping: whether no further run begins.
    """

    out: Path
    options: Sequence[str] = ()
    stopping: bool = False
    _processes: set["subprocess.Popen[bytes]"] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def folder(self, run: Run) -> Path:
        """The run folder of a run."""
        return self.out / "runs" / run.name

    def finished(self, run: Run) -> bool:
        """Whether the run has spent its budget."""
        return (self.folder(run) / SUMMARY).is_file()

    def prepare(self, runs: Sequence[Run]) -> None:
        """Writes the configurations of runs that have none yet, and the options that decide what they learn.

        Raises:
            UsageError: a run was made from another configuration, or with another detector or module.
        """
        self._check_options()
        for run in runs:
            path = self.folder(run).with_suffix(".yaml")
            if path.is_file() and path.read_text(encoding="utf-8") != run.config:
                raise UsageError(
                    f"{path}: differs from the sweep file; restore that file, or give another --out for the changed one"
                )
            if not path.is_file():
                write_text(path, run.config)

    def _check_options(self) -> None:
        """Refuses a detector or modules other than those with which the sweep began, since its table has all runs."""
        given = zip(self.options[::2], self.options[1::2], strict=True)
        decisive = [
            f"{name} {os.path.abspath(text) if os.path.exists(text) else text}"
            for name, text in given
            if name in DECISIVE
        ]
        path = self.out / "runs" / OPTIONS_FILE
        if not path.is_file():
            write_json(path, decisive)
        elif (former := read_json(path, DataError, "give another --out")) != decisive:
            began = " ".join(map(str, former)) if isinstance(former, list) else ""
            raise UsageError(
                f"{self.out}: the sweep began with {began or 'no --detector or --module'}, not "
                f"{' '.join(decisive) or 'without'}; give the same, or another --out"
            )

    def do(self, run: Run) -> str:
        """Trains until the run is finished; returns the reason if it is not, "" if it is."""
        if self.finished(run):
            return ""
        with self._lock:
            if self.stopping:
                return "stopped"
            process = self._started(run)
            self._processes.add(process)
            self._end_if_stopped(process)
        code = process.wait()
        with self._lock:
            self._processes.discard(process)
        if code in DONE and self.finished(run):
            return ""
        return "stopped" if code == INTERRUPTED or self.stopping else self._reason(run, code)

    def _end_if_stopped(self, process: "subprocess.Popen[bytes]") -> None:
        """Ends a process that began when the signal had already come."""
        if self.stopping:
            process.terminate()

    def _started(self, run: Run) -> "subprocess.Popen[bytes]":
        folder = self.folder(run)
        new = ["--config", str(folder.with_suffix(".yaml")), "--out", str(folder), "--overwrite"]
        how = ["--resume", str(folder)] if (folder / CONFIG).is_file() else new
        command = [sys.executable, "-m", "adaptiveisp", "train", *how, *self.options, "-q"]
        with open(folder.with_suffix(".log"), "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ))

    def _reason(self, run: Run, code: int) -> str:
        """Why a run failed: the last line that it printed."""
        log = self.folder(run).with_suffix(".log")
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
        return lines[-1].removeprefix("adaptiveisp: ") if lines else f"ended with exit code {code}; see {log}"

    def stop(self) -> bool:
        """Begins no further run and tells those that are running to write a checkpoint; returns whether it was told."""
        asked, self.stopping = self.stopping, True
        for process in list(self._processes):
            if process.poll() is None:
                process.terminate()
        return asked


def data_warning(runner: Runner, trials: Sequence[Trial]) -> str:
    """A warning if runs have begun with other data than there are now, which one table would mix; "" if none has.

    Args:
        runner: knows the folders of the runs.
        trials: of the sweep.
    """
    known: dict[tuple[object, ...], str] = {}
    others = []
    for trial in trials:
        one = trial.options
        key = (one.data, one.images, one.dev, one.dev_images, one.noise, one.camera_matrix)
        if key not in known:
            known[key] = data_digest(one)
        others += [run.name for run in trial.runs if _began_with(runner.folder(run)) not in ("", known[key])]
    if not others:
        return ""
    remedy = "give another --out to compare runs on the same data"
    return f"data or dev have changed since these runs began: {first_few(others)}; {remedy}"


def _began_with(folder: Path) -> str:
    """The hash of the data with which a run began; "" where there is none."""
    path = folder / CONFIG
    content = read_yaml(path, DataError, "restore it, or give another --out") if path.is_file() else None
    provenance = content.get("provenance") if isinstance(content, dict) else None
    return str(provenance.get("data", "")) if isinstance(provenance, dict) else ""


def run_all(runner: Runner, trials: Sequence[Trial], jobs: int, on_run: OnRun) -> dict[str, str]:
    """Trains all runs that are not finished.

    Args:
        runner: starts the processes.
        trials: of the sweep.
        jobs: runs at the same time.
        on_run: called after each run.

    Returns:
        Name of a run that is not finished → the reason.
    """
    runs = [run for trial in trials for run in trial.runs]
    failed: dict[str, str] = {}

    def one(run: Run) -> None:
        reason = runner.do(run)
        if reason:
            failed[run.name] = reason
        on_run(run, reason)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, runs))
    return {run.name: failed[run.name] for run in runs if run.name in failed}

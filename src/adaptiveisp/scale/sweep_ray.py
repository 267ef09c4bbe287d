"""Sweeps whose runs are trials of Ray Tune, which places them on the machines of a cluster.

The folder of the sweep has to be visible to all of them under the same path. A run continues from its own checkpoint,
wherever it was started before.
"""

from collections.abc import Sequence
from typing import Any

from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.scale.ray_engine import RayConfig, connected
from adaptiveisp.scale.sweep import OnRun, Runner
from adaptiveisp.scale.sweep_plan import Trial
from adaptiveisp.utils.optional_imports import import_extra


def run_with_ray(
    runner: Runner, trials: Sequence[Trial], jobs: int, on_run: OnRun, config: RayConfig
) -> dict[str, str]:
    """`sweep.run_all` by Ray Tune.

    Args:
        runner, trials, on_run: as for `run_all`; `on_run` is called when all runs have ended.
        jobs: most runs at the same time; 0 leaves it to the resources of the cluster.
        config: address of the cluster, and CPUs and GPUs of each run; a GPU may be shared by a fraction.

    Raises:
        AdaptiveISPError: Ray is not installed, the cluster is not there or fails, or no run finished.
    """
    tune = import_extra("ray.tune", "ray")
    runs = [run for trial in trials for run in trial.runs]
    plain: Any = {"out": runner.out.resolve(), "options": tuple(runner.options)}

    def train_one(config: dict[str, Any]) -> dict[str, str]:
        """Runs in a worker, where the package is installed too."""
        return {"reason": Runner(**plain).do(runs[config["run"]])}

    with connected(config):
        able = tune.with_resources(train_one, {"cpu": config.cpus, "gpu": config.gpus})
        how = tune.TuneConfig(max_concurrent_trials=jobs or None, metric=None, mode=None)
        # Ray's own files are of no use here, since each run has its folder.
        storage = tune.RunConfig(storage_path=str((runner.out / "ray").resolve()), verbose=0)
        space = {"run": tune.grid_search(list(range(len(runs))))}
        results = tune.Tuner(able, param_space=space, tune_config=how, run_config=storage).fit()
    reasons = {one.config["run"]: one.metrics.get("reason") if one.metrics else None for one in results}
    failed = {}
    for number, run in enumerate(runs):
        reason = reasons.get(number)
        if reason is None:
            reason = "" if runner.finished(run) else "Ray gave no outcome; see the folder ray"
        if reason:
            failed[run.name] = reason
        on_run(run, reason)
    if len(failed) == len(runs) and not any(runner.finished(run) for run in runs):
        raise AdaptiveISPError(f"{runner.out}: no run finished; the first: {failed[runs[0].name]}")
    return failed

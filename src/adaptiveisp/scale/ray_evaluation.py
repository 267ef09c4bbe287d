"""An evaluation on a Ray cluster: each shard is a task that writes its file, and the driver merges them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.evaluation.api import PreparedEvaluation
from adaptiveisp.evaluation.shards import SHARDS_FOLDER, numbers_of
from adaptiveisp.scale.ray_engine import RayConfig, connected
from adaptiveisp.scale.ray_stages import begin_process
from adaptiveisp.scale.worker_warnings import TellOnce, kept_warnings

TRIES = 10
"""Times that a shard is measured again where its worker or node is lost."""


def measure_on_ray(
    prepared: PreparedEvaluation,
    folder: Path,
    shards: int,
    config: RayConfig,
    own_modules: tuple[str, ...] = (),
    on_shard: Callable[[int], None] = lambda samples: None,
) -> list[Path]:
    """Measures all samples in shards, and returns the folders of the shards, for `PreparedEvaluation.run`.

    Args:
        prepared: the evaluation.
        folder: the output folder, which all nodes share; a folder for each shard is made below it.
        shards: number of shards; 0 for one on each CPU of the cluster.
        config: address of the cluster, and what each task asks for.
        own_modules: values of --module, registered in each process.
        on_shard: called with the number of samples of each shard that is done.

    Raises:
        AdaptiveISPError: Ray is not installed, the cluster is not there, or a task failed.
    """
    total = prepared.n_samples
    with connected(config) as ray:
        count = min(total, shards or max(1, int(ray.cluster_resources().get("CPU", 1))))
        places = [folder / SHARDS_FOLDER / f"{number}-of-{count}" for number in range(1, count + 1)]
        packed = ray.put(pickle.dumps(prepared))
        resources = {"num_cpus": 1, "num_gpus": config.gpus, "max_retries": TRIES}
        task = ray.remote(**resources)(_measure)
        tell = TellOnce()
        waiting = {
            task.remote(packed, str(place.resolve()), (number, count), os.getcwd(), own_modules): number
            for number, place in enumerate(places, 1)
        }
        while waiting:
            done, _ = ray.wait(list(waiting))
            number = waiting.pop(done[0])
            reason, warnings = ray.get(done[0])
            tell(warnings)
            if reason:
                raise AdaptiveISPError(reason)
            on_shard(sum(len(numbers_of((number, count), len(one.samples))) for one in prepared.datasets.values()))
    return places


def _measure(
    packed: bytes, folder: str, shard: tuple[int, int], cwd: str, own_modules: tuple[str, ...]
) -> tuple[str, dict[str, str]]:
    """Writes one shard, in a process of the cluster; returns why it failed, "" if it did not, and its warnings."""
    begin_process(cwd, own_modules)
    prepared: PreparedEvaluation = pickle.loads(packed)
    place = Path(folder)
    if not place.parent.parent.is_dir():
        return f"{place.parent.parent}: is not on this machine; give an --out that all nodes of the cluster share", {}
    with kept_warnings() as warnings:
        try:
            place.mkdir(parents=True, exist_ok=True)
            prepared.write_shard(place, shard)
        except AdaptiveISPError as error:
            return str(error), warnings
    return "", warnings

"""Blocks of frames on a Ray cluster, by Ray Data: it is imported when this engine is asked for.

The operators are streamed: Ray holds a reader back while its successors are busy, starts lost workers again, and makes
again what a lost node held. The driver sees a few numbers of each block.
"""

import json
import logging
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaptiveisp.errors import AdaptiveISPError, UsageError
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.scale.blocks import Block, BlockSummary
from adaptiveisp.scale.ray_address import require_cluster
from adaptiveisp.scale.ray_stages import DetectStage, Item, Job, RenderStage, item_of, read, write
from adaptiveisp.scale.worker_warnings import TellOnce
from adaptiveisp.utils.optional_imports import import_extra

CPUS = 0.25
"""Share of a core that each operator asks Ray for, so that all four fit on one core at the same time."""
MOST_ACTORS = 2
"""Most processes that render, and most that detect, where no number is given."""


@dataclass(frozen=True)
class RayConfig:
    """How the work is spread.

    Attributes:
        address: of the cluster, "auto" for the one that this machine belongs to, or "" for a new one on this machine.
        actors: most processes that render, and most that detect.
        gpus: share of a GPU that each process that detects or renders asks for; 0 for none.
        cpus: share of a core that each process asks for.

    Raises:
        UsageError: a value makes no sense.
    """

    address: str = ""
    actors: int = 0
    gpus: float = 0.0
    cpus: float = CPUS

    def __post_init__(self) -> None:
        if self.actors < 0 or self.gpus < 0 or self.cpus <= 0:
            raise UsageError("--actors, --gpus and --cpus must not be negative, and --cpus above 0")


def run_on_ray(job: Job, blocks: Sequence[Block], config: RayConfig) -> Iterator[BlockSummary]:
    """Yields a summary of each block as soon as it is written, in any order.

    Args:
        job: what the operators need to know.
        blocks: those that are to be made.
        config: how the work is spread.

    Raises:
        AdaptiveISPError: Ray is not installed, the cluster is not there, a detector's answers make no sense, or an
            output cannot be written.
    """
    data = import_extra("ray.data", "ray")
    with connected(config) as ray:
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        made = _flow(data, job, blocks, config, ray.put(pickle.dumps(job)))
        tell = TellOnce()
        for row in made.iter_rows():
            tell(json.loads(row["warnings"]))
            if row["error"]:
                raise AdaptiveISPError(row["error"])
            yield BlockSummary(int(row["block"]), int(row["n_results"]), int(row["n_skipped"]))


@contextmanager
def connected(config: RayConfig) -> Iterator[Any]:
    """The library ray, connected to a cluster until the end of the block, unless it was connected before.

    Raises:
        AdaptiveISPError: Ray is not installed, there is no cluster at the address, or it fails in the block.
    """
    ray = import_extra("ray", "ray")
    started = _connect(ray, config)
    try:
        yield ray
    except ray.exceptions.RayError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        raise AdaptiveISPError(f"the Ray cluster failed ({reason}); run the command again") from error
    finally:
        if started:
            ray.shutdown()


def _flow(data: Any, job: Job, blocks: Sequence[Block], config: RayConfig, packed: Any) -> Any:
    """The operators of the work, which begin when their rows are asked for."""
    pool: dict[str, Any] = {
        "compute": data.ActorPoolStrategy(min_size=1, max_size=config.actors or MOST_ACTORS),
        "num_cpus": config.cpus,
    }
    actors = {**pool, "fn_constructor_args": (packed, job.cwd, job.own_modules)}
    if config.gpus:
        actors["num_gpus"] = config.gpus
    items = data.from_items([item_of(block) for block in blocks], override_num_blocks=max(1, len(blocks)))
    rows = items.map(partial(read, options=job.options, cwd=job.cwd), num_cpus=config.cpus)
    rows = rows.map(Render, **actors).map(Detect, **actors)
    # Actors write, too: Ray ends an idle task process within a second, and a new one would import PyTorch each time.
    return rows.map(Write, **pool, fn_constructor_args=(job.folder, job.options))


class Write:
    """Writes blocks to the output folder.

    Args:
        folder: the output folder.
        options: what is written.
    """

    def __init__(self, folder: Path, options: RunOptions):
        self.folder, self.options = folder, options

    def __call__(self, item: Item) -> Item:
        """What was written of the block."""
        return write(item, self.folder, self.options)


def _content(job: Any) -> bytes:
    content: bytes = job if isinstance(job, bytes) else import_extra("ray", "ray").get(job)
    return content


class Render(RenderStage):
    """`RenderStage` that gets its job from the cluster's memory."""

    content = staticmethod(_content)


class Detect(DetectStage):
    """`DetectStage` that gets its job from the cluster's memory."""

    content = staticmethod(_content)


def _connect(ray: Any, config: RayConfig) -> bool:
    """Connects to the cluster, or starts one on this machine; returns whether it has to be left again.

    Raises:
        AdaptiveISPError: there is no cluster at the address.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of each step
    if ray.is_initialized():
        return False
    require_cluster(config.address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if config.address:
        options = {"address": config.address, **{name: options[name] for name in ("log_to_driver", "logging_level")}}
    else:  # a new cluster, whatever RAY_ADDRESS names
        # Its workers find what the driver finds, and have its priority instead of a low one.
        options["address"] = "local"
        os.environ.setdefault("RAY_worker_niceness", "0")
        options["runtime_env"] = {"env_vars": {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise AdaptiveISPError(
            f"--address {config.address}: no Ray cluster ({reason}); start one with ray start, or set "
            "RAY_AUTH_MODE=token if the cluster asks for a token"
        ) from error
    return True

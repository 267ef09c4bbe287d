"""The files of a run folder, and what is removed or checked before a run writes there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError, OutputError
from adaptiveisp.policies.registry import RUN_POLICIES
from adaptiveisp.training import run_logger
from adaptiveisp.training.config import CONFIG
from adaptiveisp.training.curves import TENSORBOARD
from adaptiveisp.utils.files import atomic_path, sha256_of
from adaptiveisp.utils.output_folder import remove_inside
from adaptiveisp.utils.yaml_files import read_yaml

KIND = "train"
"""Mark of a run folder, see `output_folder`."""
LATEST, LATEST_POLICY, BEST_POLICY = "latest.pt", "latest", "best"
SUMMARY, TRAJECTORIES, CURVE, NOT_FINITE = "summary.json", "trajectories.png", "dev.png", "not-finite.pt"


def read_provenance(folder: Path) -> dict[str, Any]:
    """The provenance in the config.yaml of a run.

    Raises:
        DataError: it is not a mapping.
    """
    remedy = "--resume needs the folder of a run"
    content = read_yaml(folder / CONFIG, DataError, remedy)
    provenance = (content.get("provenance") if isinstance(content, dict) else None) or {}
    if not isinstance(provenance, dict):
        raise DataError(f"{folder / CONFIG}: provenance is not a mapping; {remedy}")
    return provenance


def policy_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each policy file of a run, by which `AdaptiveISP.from_pretrained` knows one that was changed."""
    return {name: sha256_of(folder / name) for name in RUN_POLICIES if (folder / name).is_file()}


def remove_results(folder: Path) -> None:
    """Removes the results of an earlier run from a folder, except its config.yaml and files that are not of a run."""
    for name in (LATEST, SUMMARY, TRAJECTORIES, CURVE, NOT_FINITE, *RUN_POLICIES):
        remove_inside(folder, folder / name)
    run_logger.remove(folder)


def check_links(folder: Path) -> None:
    """Refuses a folder in which a link leads from a file that the run cuts, appends to or removes to another place.

    A hard link, as some backups have, is replaced by a copy, so that the other file keeps its content.

    Raises:
        OutputError: names the link.
    """
    for name in (*run_logger.LOGS, TENSORBOARD):
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            with atomic_path(path) as temporary:
                shutil.copyfile(path, temporary)
        if path.is_symlink():
            raise OutputError(f"{path}: is a link, through which the run would write; replace it by its file")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns errors of writing into a folder into one line; files appear whole or not at all, so that nothing is lost.

    Raises:
        OutputError: the disk is full or the folder was removed.
    """
    try:
        yield
    except (OSError, RuntimeError, OutputError) as error:  # torch.save raises RuntimeError on a full disk
        unclear = isinstance(error, RuntimeError)  # torch's message names a place in its own code
        detail = "a checkpoint could not be written whole" if unclear else str(error).splitlines()[0]
        raise OutputError(
            f"{folder}: cannot be written ({detail}); free space, then `adaptiveisp train --resume {folder}`"
        ) from error

"""Removes what an earlier evaluation left in a folder, which would not belong to the new one beside it."""

from collections.abc import Collection
from pathlib import Path

from adaptiveisp.evaluation.coco_results import remove_coco
from adaptiveisp.evaluation.report import REPORT_FILES
from adaptiveisp.evaluation.shards import SHARD_FILE, SHARDS_FOLDER
from adaptiveisp.utils.output_folder import remove_inside


def remove_report(folder: Path) -> None:
    """Removes the files of a report, and the list of what was skipped.

    Raises:
        OutputError: one cannot be removed, or a link leads out of the folder.
    """
    for name in (*REPORT_FILES, "skipped.json"):
        remove_inside(folder, folder / name)
    remove_coco(folder)


def remove_shards(folder: Path, kept: Collection[Path] = ()) -> None:
    """Removes the files of shards: that of the folder itself, and those of an evaluation on a cluster below it.

    Args:
        folder: the output folder.
        kept: shards that are still wanted, folders or files.

    Raises:
        OutputError: one cannot be removed, or a link leads out of the folder.
    """
    wanted = {path.resolve() for path in kept}
    for path in (folder / SHARD_FILE, *sorted((folder / SHARDS_FOLDER).glob(f"*-of-*/{SHARD_FILE}"))):
        if not wanted & {path.resolve(), path.parent.resolve()}:
            remove_inside(folder, path)
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()

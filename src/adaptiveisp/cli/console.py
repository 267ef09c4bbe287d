"""What the commands share: threads and device, progress, a list of what was skipped, outputs that can be written."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.cli.exit_codes import DONE, DONE_WITH_SKIPS
from adaptiveisp.cli.progress import Progress
from adaptiveisp.errors import UsageError, one_line
from adaptiveisp.utils.files import remove_abandoned


def set_up_torch(options: argparse.Namespace) -> str:
    """Applies --threads and --device, makes freed memory stay, and returns the device's name.

    Raises:
        UsageError: CUDA is asked for and not there.
    """
    import torch

    from adaptiveisp.utils.allocator import keep_freed_memory

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(options.device)


def progress(
    options: argparse.Namespace, total: int, command: str, unit: str = "image", log: Path | None = None
) -> Progress:
    """The progress of a command on standard error; a context manager.

    Args:
        options: with --quiet nothing is shown.
        total: number of steps, 0 if unknown.
        command: name of the command.
        unit: of a step.
        log: file in a claimed output folder that gets the progress lines too.
    """
    return Progress(total, command, unit, log, quiet=options.quiet)


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, so that others keep the default of a configuration."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def say(message: object) -> None:
    """Says something on standard error, in one printable line."""
    print(f"adaptiveisp: {one_line(str(message))}", file=sys.stderr)


def report_skips(out: Path, skipped: list[tuple[str, str]], provenance: dict[str, Any]) -> int:
    """Writes skipped.json and says on standard error what was skipped; the exit code of a command that went on.

    Args:
        out: the folder.
        skipped: (input, why) of each; where there is none, a former skipped.json goes.
        provenance: of the command.
    """
    from adaptiveisp.utils.files import write_json

    if not skipped:
        (out / "skipped.json").unlink(missing_ok=True)
        return DONE
    entries = [{"input": name, "error": error} for name, error in skipped]
    write_json(out / "skipped.json", {"skipped": entries, "provenance": provenance})
    say_skips(skipped, f" in {out / 'skipped.json'}")
    return DONE_WITH_SKIPS


def say_skips(skipped: list[tuple[str, str]], where: str = "") -> None:
    """Says on standard error what was skipped, the first ten by name.

    Args:
        skipped: (input, why) of each.
        where: where the others are listed, to be put behind their number.
    """
    for _, error in skipped[:10]:
        say(f"skipped: {error}")
    if len(skipped) > 10:
        say(f"{len(skipped) - 10} more{where}")


def check_files(paths: Sequence[Path | None], overwrite: bool) -> None:
    """Refuses files that could not be written, before the work for them is done.

    Raises:
        UsageError: two are the same, one is a folder, exists already, or its folder cannot be written to.
    """
    wanted = [path for path in paths if path is not None]
    if len({path.resolve() for path in wanted}) < len(wanted):
        raise UsageError(f"{wanted[0]}: would be written twice; give each output a name of its own")
    for path in wanted:
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name or add --overwrite")
        if not os.access(path.resolve().parent, os.W_OK):
            raise UsageError(f"{path}: its folder does not exist or cannot be written to; choose another name")
        remove_abandoned(path.parent)

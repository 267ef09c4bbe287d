"""Functions that the commands share: threads and device, progress, the list of skipped inputs, checks of outputs."""

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
    """Applies --threads and --device, keeps freed memory in the process, and returns the name of the device.

    Raises:
        UsageError: CUDA is requested and not available.
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
    """The progress of a command, shown on standard error; a context manager.

    Args:
        options: options of the command; --quiet shows no progress.
        total: number of steps, 0 if unknown.
        command: name of the command.
        unit: unit of a step, in the singular.
        log: file in a claimed output folder to which the progress lines are written too.
    """
    return Progress(total, command, unit, log, quiet=options.quiet)


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The values of those options that were given; the others keep the defaults of a configuration."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def say(message: object) -> None:
    """Prints a message on standard error as one printable line."""
    print(f"adaptiveisp: {one_line(str(message))}", file=sys.stderr)


def report_skips(out: Path, skipped: list[tuple[str, str]], provenance: dict[str, Any]) -> int:
    """Writes skipped.json, lists the skipped inputs on standard error, and returns the exit code of the command.

    Args:
        out: the output folder.
        skipped: (input, reason) of each; if it is empty, an earlier skipped.json is removed.
        provenance: provenance of the results.
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
    """Lists the first ten skipped inputs on standard error, and the number of the others.

    Args:
        skipped: (input, reason) of each.
        where: place where the others are listed, appended to their number.
    """
    for _, error in skipped[:10]:
        say(f"skipped: {error}")
    if len(skipped) > 10:
        say(f"{len(skipped) - 10} more{where}")


def check_files(paths: Sequence[Path | None], overwrite: bool) -> None:
    """Refuses output files that could not be written, before their content is computed.

    Raises:
        UsageError: two paths are equal, or a path is a folder, exists already, or lies in a folder that is missing or
            cannot be written to.
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

"""`run` with results in blocks, rows and tar shards, on this machine or a Ray cluster."""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, say_skips
from adaptiveisp.errors import DataError

if TYPE_CHECKING:
    from adaptiveisp.cli.run import Inputs
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.run_options import RunOptions
    from adaptiveisp.scale.blocks import Block, BlockSummary
    from adaptiveisp.utils.output_folder import FolderClaim


def run_blocks(
    claim: "FolderClaim",
    isp: "AdaptiveISP",
    inputs: "Inputs",
    options: argparse.Namespace,
    wanted: "RunOptions",
    origin: dict[str, Any],
) -> int:
    """Writes the blocks of the frames of --shard that are not there yet, and returns the exit code.

    Args:
        claim: the output folder.
        isp: policy and detector.
        inputs: the frames.
        options: the options of the command.
        wanted: what is written.
        origin: provenance.
    """
    from adaptiveisp.cli.run import latency_line
    from adaptiveisp.inference.result_files import SUMMARY_FILE
    from adaptiveisp.inference.run_settings import settings_of
    from adaptiveisp.inference.run_summary import RunNotes
    from adaptiveisp.scale.blocks import BLOCK_FRAMES, blocks_of, check_block_options, left_to_make, read_blocks
    from adaptiveisp.utils.files import write_json

    check_block_options(wanted)
    out, size = claim.folder, options.block or BLOCK_FRAMES
    blocks = blocks_of(inputs.chosen, size)
    settings = {**settings_of(isp, wanted, inputs.frames, options.shard), "--block": size}
    # A process of the earlier run that still lives may have written a block since the others were removed.
    left = blocks if _begin(out, inputs, settings, options.resume) else left_to_make(out, blocks, wanted)
    total, wanting = (sum(len(block.frames) for block in each) for each in (blocks, left))
    with progress(options, total, "run") as bar:
        bar.update(total - wanting)
        for summary in _engine(isp, left, options, wanted, origin, out) if left else ():
            bar.update(summary.n_results + summary.n_skipped)
    notes, failed = RunNotes(isp.detector.name, isp.latency_ms), list[tuple[str, str]]()
    for frame, row in zip(inputs.chosen, read_blocks(out, blocks, wanted), strict=True):
        if row["skipped"] is None:
            notes.add(row, frame.source)
        else:
            failed.append((row["frame"], row["skipped"]))
    skipped = [*inputs.missing, *failed]
    if len(failed) == total:
        say_skips(skipped)
        raise DataError("no input could be used")
    code = report_skips(out, skipped, origin)
    facts = {"n_rows": total, "n_skipped": len(skipped), "blocks": len(blocks), "block": size, **notes.tell()}
    write_json(out / SUMMARY_FILE, {**facts, "engine": options.engine, "provenance": origin})
    if not options.quiet:
        if notes.latency is not None:
            print(latency_line(notes.latency.to_json()))
        print(f"{total} rows in {len(blocks)} blocks, {out}/part-*.{wanted.rows}; {len(skipped)} skipped")
    return code


def _begin(out: Path, inputs: "Inputs", settings: dict[str, Any], resume: bool) -> bool:
    """Removes what an earlier run left, unless it is resumed, and stores the settings; before anything is computed.

    Args:
        out: the output folder, claimed.
        inputs: the frames.
        settings: what decides the results.
        resume: whether blocks that are there are kept.

    Returns:
        Whether none is kept.
    """
    from adaptiveisp.inference.journal import Journal
    from adaptiveisp.inference.result_files import FormerFiles
    from adaptiveisp.utils.output_folder import set_outdated

    journal = Journal(out, settings, resume)
    if journal.is_new:
        former = FormerFiles(out, [Path(frame.stem) for frame in inputs.frames])
        former.remove_batch_files()
        for frame in inputs.frames:
            former.remove(frame.stem)
    journal.begin_settings()
    set_outdated(out, False)
    return journal.is_new


def _engine(
    isp: "AdaptiveISP",
    blocks: Sequence["Block"],
    options: argparse.Namespace,
    wanted: "RunOptions",
    origin: dict[str, Any],
    folder: Path,
) -> "Iterator[BlockSummary]":
    """Yields a summary of each block that the engine has written."""
    from adaptiveisp.scale.local_engine import run_local

    if options.engine == "local":
        return run_local(isp, blocks, folder, wanted, origin)
    from adaptiveisp.scale.ray_engine import RayConfig, run_on_ray
    from adaptiveisp.scale.ray_stages import Job

    place = folder.resolve()
    job = Job(isp, place, wanted, origin, os.getcwd(), tuple(options.own_modules), options.threads or 1)
    config = RayConfig(options.address or "", options.actors, options.gpus)
    return run_on_ray(job, blocks, config)

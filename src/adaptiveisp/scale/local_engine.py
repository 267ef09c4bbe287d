"""Blocks of frames on this machine, by the threads of `AdaptiveISP.map`."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from adaptiveisp.inference.batch import Made
from adaptiveisp.inference.mapping import FrameWork, Skipped, batches, overlapped, shares
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.level_checks import facts_of
from adaptiveisp.scale.blocks import Block, BlockSummary, make, write_block


def run_local(
    isp: AdaptiveISP, blocks: Sequence[Block], folder: Path, options: RunOptions, origin: dict[str, Any]
) -> Iterator[BlockSummary]:
    """Yields a summary of each block as soon as it is written.

    Args:
        isp: policy and detector.
        blocks: those that are to be made.
        folder: the output folder.
        options: what is written, and how the frames are read.
        origin: provenance.

    Raises:
        OutputError: the folder cannot be written to.
        DetectorError: the detector's answers make no sense.
    """

    def finish(frame: Any, result: Any) -> Made:
        return make(isp, frame, result, facts_of(result.raw), options, origin)

    work = FrameWork(isp, options.header, finish, all_errors=True)
    groups = [(block, batch) for block in blocks for batch in batches(block.frames, options.batch)]
    waiting: list[Made | Skipped] = []
    with closing(overlapped((batch for _, batch in groups), work, shares(isp, options.workers))) as made:
        for (block, _), found in zip(groups, made, strict=True):
            waiting += found
            if len(waiting) == len(block.frames):
                yield write_block(folder, block, waiting, options)
                waiting = []

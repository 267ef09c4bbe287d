"""Results in blocks of frames: `part-000007.jsonl` or `.parquet` has the rows of block 7, `part-000007.tar` its files.

A block is written under the name that its number gives, first the tar file and last the rows, each under a temporary
name that is renamed. Whoever writes a block again, because a worker, a node or the whole run was lost, replaces it by
the same rows, so that each frame has one row, whatever happened. Blocks whose rows are there are not made again.

In a tar file the files of frame 12 begin with `000000012.`, as WebDataset groups them: `000000012.png`,
`000000012.boxes.png`, `000000012.boxes.json`, `000000012.pipeline.json`.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.errors import OutputError, UsageError
from adaptiveisp.inference.batch import Made, write_result
from adaptiveisp.inference.frames import Changes, Frame, tell_changes
from adaptiveisp.inference.journal import line_of, read_lines
from adaptiveisp.inference.mapping import Skipped
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.records import Row, row_of, skipped_row
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.result_files import EncodedFiles
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.level_checks import RawFacts
from adaptiveisp.utils.files import atomic_path, write_bytes
from adaptiveisp.utils.output_folder import remove_inside

BLOCK_FRAMES = 64
"""Frames of a block, where no number is given."""


@dataclass(frozen=True)
class Block:
    """Consecutive frames of a run or of a shard of it.

    Attributes:
        number: number of the block, from 0.
        frames: its frames.
    """

    number: int
    frames: tuple[Frame, ...]

    @property
    def stem(self) -> str:
        """Beginning of the names of its files."""
        return f"part-{self.number:06}"


@dataclass(frozen=True)
class BlockSummary:
    """What is told of a block that was written: its numbers, which are small, instead of its rows.

    Attributes:
        number: of the block.
        n_results, n_skipped: numbers of its frames with and without a result.
    """

    number: int
    n_results: int
    n_skipped: int


def blocks_of(frames: Sequence[Frame], size: int) -> list[Block]:
    """The frames in blocks of `size`, the last one perhaps shorter."""
    starts = range(0, len(frames), size)
    return [Block(number, tuple(frames[start : start + size])) for number, start in enumerate(starts)]


def rows_file(folder: Path, block: Block, options: RunOptions) -> Path:
    """The file of the rows of a block."""
    return folder / f"{block.stem}.{options.rows}"


def left_to_make(folder: Path, blocks: Sequence[Block], options: RunOptions) -> list[Block]:
    """The blocks without rows, and those of which the file of a frame has changed since.

    The rows of the latter are removed, of which a warning tells.

    Raises:
        OutputError: the rows of a block are damaged, are those of other frames, or cannot be removed.
    """
    left, changes = [], list[str]()
    for block in blocks:
        path = rows_file(folder, block, options)
        if path.exists():
            own = Changes(block.frames)
            if not sum(own(row) for row in _checked(path, block, options)):
                continue
            changes += own.changed
            remove_inside(folder, path)
        left.append(block)
    tell_changes(changes)
    return left


def make(
    isp: AdaptiveISP, frame: Frame, result: Result, facts: RawFacts, options: RunOptions, origin: dict[str, Any]
) -> Made:
    """The row and the encoded files of a frame, which are named by its number."""
    files = EncodedFiles(options.pictures)
    write_result(isp, result, files, f"{frame.number:09}", options, origin)
    return Made(row_of(frame, result, facts, files.names), files.contents)


def write_block(folder: Path, block: Block, made: Sequence[Made | Skipped], options: RunOptions) -> BlockSummary:
    """Writes the files and then the rows of a block, each whole or not at all.

    Args:
        folder: the output folder, which every process that writes sees under this name.
        block: the block.
        made: what was made of each of its frames, in their order.
        options: format of the rows and what is written.

    Raises:
        OutputError: the folder is not there, cannot be written to, or the disk is full.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not on this machine; give an --out that all nodes of the cluster share")
    rows = [
        one.row if isinstance(one, Made) else skipped_row(frame, one.reason)
        for frame, one in zip(block.frames, made, strict=True)
    ]
    if options.write != "json":
        files = (content for one in made if isinstance(one, Made) for content in one.files)
        with atomic_path(folder / f"{block.stem}.tar") as temporary:
            write_tar(temporary, files)
    _write_rows(rows_file(folder, block, options), rows, options)
    skipped = sum(row["skipped"] is not None for row in rows)
    return BlockSummary(block.number, len(rows) - skipped, skipped)


def write_tar(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Writes files into a tar file, which depends on their names and contents alone."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def read_blocks(folder: Path, blocks: Iterable[Block], options: RunOptions) -> Iterator[Row]:
    """Yields the rows of blocks in order.

    Raises:
        OutputError: a block is missing, damaged, or holds other frames.
    """
    for block in blocks:
        path = rows_file(folder, block, options)
        if not path.exists():
            raise OutputError(f"{path}: is missing; run it again with --resume")
        yield from _checked(path, block, options)


def _checked(path: Path, block: Block, options: RunOptions) -> Iterator[Row]:
    """Yields the rows of a block, which must be those of its frames, each once.

    Raises:
        OutputError: they are not, or the file is damaged.
    """
    count = 0
    for count, row in enumerate(_rows_in(path, options), 1):
        frame = block.frames[count - 1] if count <= len(block.frames) else None
        if frame is None or (row["number"], row["frame"]) != (frame.number, frame.id):
            raise OutputError(f"{path}: holds other frames; remove it and run again with --resume")
        yield row
    if count < len(block.frames):
        raise OutputError(f"{path}: holds {count} of {len(block.frames)} frames; remove it and use --resume")


def _rows_in(path: Path, options: RunOptions) -> Iterator[Row]:
    if options.rows == "parquet":
        from adaptiveisp.inference.parquet import read_rows

        return read_rows(path)
    return read_lines(path)


def _write_rows(path: Path, rows: Sequence[Row], options: RunOptions) -> None:
    if options.rows == "parquet":
        from adaptiveisp.inference.parquet import write_rows

        write_rows(path, rows)
    else:
        write_bytes(path, b"".join(line_of(row) for row in rows))


def check_block_options(options: RunOptions) -> None:
    """Refuses what is written for single inputs only.

    Raises:
        UsageError: such an option is given.
    """
    names = ("full", "save_steps", "save_params", "explain")
    if given := [name for name in names if getattr(options, name)]:
        flag = given[0].replace("_", "-")
        raise UsageError(f"--{flag} writes files of single inputs; leave it out, or leave out --block and --engine")

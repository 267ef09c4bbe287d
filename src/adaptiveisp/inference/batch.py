"""The batch of `run`: each raw gives a row of results, and a set of files with the rendered image, boxes and pipeline.

Workers read, develop, render, detect and encode (see `mapping`); the calling thread writes what they made, in order.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as PilImage

from adaptiveisp.errors import OutputError, OutputNameError, UsageError, logger, skip_reason
from adaptiveisp.inference.drawing import Tile, contact_sheet
from adaptiveisp.inference.frames import Frame
from adaptiveisp.inference.journal import Journal
from adaptiveisp.inference.mapping import FrameWork, Skipped, batches, overlapped, shares
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.records import Row, caption, parameter_rows, row_of, skipped_row
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.result_files import (
    OVERVIEW_FILE,
    PARAMS_FILE,
    PARQUET_FILE,
    ROWS_FILE,
    SETTINGS_FILE,
    SUMMARY_FILE,
    EncodedFiles,
    FileSet,
    FormerFiles,
    ResultFiles,
    encoded,
    save_content,
)
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.inference.run_summary import RunNotes, RunSummary
from adaptiveisp.inference.stage_sheet import stage_strip
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.raw.level_checks import facts_of
from adaptiveisp.types import Image
from adaptiveisp.utils.allocator import available_bytes
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.files import atomic_path, write_json_lists
from adaptiveisp.utils.output_folder import check_inside

FULL_BYTES_PER_PIXEL = 60
"""Bytes of memory that `--full` takes for each pixel: 12 for the developed frame, at most 36 for a pipeline of the
shipped policies with its result, 12 for the 8-bit picture and its PNG. Measured with frames of 6 and 12 MP."""
OVERVIEW_TILES = 60
"""Most pictures of the overview; with more, a reader could not see much of each."""


def check_outputs(frames: Sequence[Frame], out: Path) -> None:
    """Refuses an output folder that holds one of the inputs, since outputs could replace them.

    Raises:
        UsageError: an input lies in `out`.
    """
    place = Path(out).resolve()
    for frame in frames:
        if isinstance(frame.source, Path) and frame.source.resolve().is_relative_to(place):
            raise UsageError(f"{frame.id}: lies in the output folder {out}; choose another --out")


def run_files(
    isp: AdaptiveISP,
    frames: Sequence[Frame],
    journal: Journal,
    options: RunOptions,
    provenance: dict[str, Any],
    on_image: Callable[[str], None] = lambda name: None,
) -> RunSummary:
    """Runs every frame that has no row yet. A frame that fails is reported, and the batch continues.

    Files that an earlier run wrote for the same inputs are replaced as soon as there are new ones; those of inputs that
    are skipped now are removed from the first result on. However the batch
    ends, an input has either all of its files or none, and a summary lists the results.

    Args:
        isp: policy and detector.
        frames: the frames, see `frames.find_frames`.
        journal: the rows of the output folder, which is claimed (`output_folder.claim_folder`).
        options: which files to write.
        provenance: stored in each JSON file.
        on_image: called with the name of each file, for progress.

    Raises:
        OutputError: the output folder cannot be written or the disk is full.
        DetectorError: the detector's answers make no sense.
    """
    batch = _Batch(isp, journal, options, provenance)
    former = FormerFiles(batch.out, [Path(frame.stem) for frame in frames])
    if former.n_others:
        logger.warning("%s: %d files of other inputs stay there, from an earlier run", batch.out, former.n_others)
    if journal.renewed:
        former.remove_batch_files(kept=(ROWS_FILE, SETTINGS_FILE))
    for frame in frames:
        if frame.number in journal.done:
            on_image(frame.name)
    # A batch is worked on as a whole again, since the detector's rounding may depend on the frames beside one.
    wanted = [one for one in batches(frames, options.batch) if any(f.number not in journal.done for f in one)]
    renders = options.full or bool(options.writers)
    work = FrameWork(isp, options.header, batch.make, all_errors=True, finish_alone=renders)
    try:
        with closing(overlapped(wanted, work, shares(isp, options.workers))) as made:
            for group, found in zip(wanted, made, strict=True):
                for frame, one in zip(group, found, strict=True):
                    if frame.number not in journal.done:
                        batch.commit(frame, one, former)
                        on_image(frame.name)
    except BaseException as error:
        batch.summary.stopped = str(error) or type(error).__name__
        batch.finish_after_failure()
        raise
    if batch.summary.n_results:
        batch.finish({frame.number: frame for frame in frames})
    return batch.summary


class Made(NamedTuple):
    """A frame's row and the files to write for it, each with its content."""

    row: Row
    files: list[tuple[str, bytes]]


class _Batch:
    """The results of a batch so far."""

    def __init__(self, isp: AdaptiveISP, journal: Journal, options: RunOptions, provenance: dict[str, Any]):
        self.isp, self.out, self.options, self.provenance = isp, journal.folder, options, provenance
        self.journal, self.summary = journal, RunSummary(journal)
        self._skipped_first: list[str] = []

    def make(self, frame: Frame, result: Result) -> Made:
        """The row and the encoded files of a result; called on a worker's thread."""
        files = EncodedFiles(self.options.pictures)
        write_result(self.isp, result, files, frame.stem, self.options, self.provenance)
        assert result.raw is not None
        return Made(row_of(frame, result, facts_of(result.raw), files.names), files.contents)

    def commit(self, frame: Frame, made: Made | Skipped, former: FormerFiles) -> None:
        """Writes the files and the row of a frame, or notes why it is skipped."""
        if isinstance(made, Made):
            try:
                with ResultFiles(self.out) as files:
                    for name, content in made.files:
                        files.content(name, content)
            except OutputNameError as error:
                made = Skipped(frame.id, skip_reason(frame.id, error))
        if isinstance(made, Skipped):
            self.journal.add(skipped_row(frame, made.reason))
            if self.journal.has_begun:
                self._remove_former(frame.stem, former, ())
            else:  # a run without any result changes nothing
                self._skipped_first.append(frame.stem)
            return
        self._begin(former)
        self._remove_former(frame.stem, former, files.names)
        self.journal.add(made.row)

    def _begin(self, former: FormerFiles) -> None:
        if self.journal.has_begun:
            return
        try:  # the earlier files about all inputs are outdated from the first result on
            former.remove_batch_files()
        except OutputError as error:
            logger.warning("%s", error)
        self.journal.begin()
        for stem in self._skipped_first:
            self._remove_former(stem, former, ())
        self._skipped_first.clear()

    def _remove_former(self, stem: str, former: FormerFiles, kept: Sequence[str]) -> None:
        try:
            former.remove(stem, kept)
        except OutputError as error:
            logger.warning("%s", error)

    def finish(self, frames: dict[int, Frame]) -> None:
        """Writes the files about all inputs together.

        Args:
            frames: number → frame.
        """
        named = self.summary.batch_files
        self.journal.put_in_order()
        if tiles := self._tiles():
            sheet = contact_sheet(tiles, columns=min(3, len(tiles)))
            with atomic_path(self.out / OVERVIEW_FILE) as temporary:
                save_content(temporary, encoded(sheet))
            named.append(OVERVIEW_FILE)
        if self.options.save_params:
            rows = (line for row in self.journal.results() for line in parameter_rows(row))
            _write_csv(self.out / PARAMS_FILE, ("file", "stage", "module", "param", "value"), rows)
            named.append(PARAMS_FILE)
        named += [PARQUET_FILE if self.options.rows == "parquet" else ROWS_FILE, SETTINGS_FILE]
        self._write_summary(frames)
        if self.options.rows == "parquet" and self.journal.has_begun:
            from adaptiveisp.inference.parquet import write_rows

            write_rows(self.out / PARQUET_FILE, self.journal.rows())
            self.journal.close()
            self.journal.path.unlink()

    def finish_after_failure(self) -> None:
        """Writes the summary of the results before the batch was stopped, if it can be written."""
        if not self.summary.n_results:
            return
        try:
            self._write_summary({})
        except OutputError as error:
            logger.warning("the summary is not written: %s", error)

    def _tiles(self) -> list[Tile]:
        """The first pictures with boxes, which are read again, so that a resumed run has the same overview."""
        tiles: list[Tile] = []
        for row in self.journal.results():
            name = next((one for one in row["files"] if one.endswith((".boxes.png", ".boxes.jpg"))), "")
            if name:
                check_inside(self.out, self.out / name)  # a resumed run reads the name from a file
                with PilImage.open(self.out / name) as picture:
                    tiles.append(Tile(np.asarray(picture.convert("RGB")), Path(row["frame"]).name, caption(row)))
            if len(tiles) == OVERVIEW_TILES:
                break
        return tiles

    def _write_summary(self, frames: dict[int, Frame]) -> None:
        summary, notes = self.summary, RunNotes(self.isp.detector.name, self.isp.latency_ms)
        for row in self.journal.results():
            frame = frames.get(row["number"])
            notes.add(row, None if frame is None else frame.source)
        told = notes.tell()
        content = {
            "images": (asdict(row) for row in summary.rows),
            "remarks": told.pop("remarks"),
            "dropped_boxes": told.pop("dropped_boxes"),
            "n_skipped": len(summary.skipped),
            "skipped": [{"input": name, "error": error} for name, error in summary.skipped],
            "stopped": summary.stopped,
            "files": summary.files,
            **told,
            "provenance": self.provenance,
        }
        write_json_lists(self.out / SUMMARY_FILE, content)


def write_result(
    isp: AdaptiveISP, result: Result, files: FileSet, stem: str, options: RunOptions, provenance: dict[str, Any]
) -> None:
    """Places STEM.png, .boxes.png, .boxes.json, .pipeline.json and the files of the options."""
    if options.write == "json":
        return
    if options.write == "boxes":
        files.picture(f"{stem}.boxes.png", result.drawn())
        return
    height, width = result.full_size
    result.place(files, stem, provenance)
    if options.full:
        warn_of_memory(result.file, width * height)
        files.picture(f"{stem}.full.png", to_uint8(isp.render_full(result)))
    if options.save_steps and result.pipeline is not None:
        steps = _save_steps(result.developed.small, result.pipeline, files, stem)
        files.picture(f"{stem}.steps.png", stage_strip(result.pipeline, steps, result.name, result.drawn()))
    for writer in options.writers:
        writer(isp, result, files, stem)


def warn_of_memory(path: object, pixels: int) -> None:
    """Warns, before a frame is rendered at full size, if this needs more memory than is free."""
    needed, free = FULL_BYTES_PER_PIXEL * pixels, available_bytes()
    if free is not None and needed > free:
        logger.warning(
            "%s: --full of %.0f MP needs about %.1f GB of memory, %.1f GB are free; leave out --full if it fails",
            *(path, pixels / 1e6, needed / 1e9, free / 1e9),
        )


@torch.inference_mode()
def _save_steps(developed: Image, pipeline: Pipeline, files: FileSet, stem: str) -> list[Image]:
    """Places the developed image as step 0, and the image after each module; returns these images."""
    images, names = [developed, *pipeline.steps(developed)], ["developed", *(s.module for s in pipeline.stages)]
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        files.picture(f"{stem}.step{number:02}-{name}.png", to_uint8(image[0]))
    return images


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> None:
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

"""The batch of `run`: each raw file gives a set of files with the rendered image, its boxes and its pipeline."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.detectors.answers import dropped_note
from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.errors import DetectorError, OutputError, OutputNameError, UsageError, logger, skip_reason
from adaptiveisp.inference.drawing import Tile, contact_sheet
from adaptiveisp.inference.explanation import Explanation, Explanations, explain
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.result_files import (
    OVERVIEW_FILE,
    PARAMS_FILE,
    SUMMARY_FILE,
    FormerFiles,
    ResultFiles,
    save_png,
)
from adaptiveisp.inference.stage_sheet import stage_strip
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.latency import KEPT_SHARE
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.types import Image
from adaptiveisp.utils.allocator import available_bytes
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.files import atomic_path, write_json, write_text

FULL_BYTES_PER_PIXEL = 60
"""Bytes of memory that `--full` takes for each pixel: 12 for the developed frame, at most 36 for a pipeline of the
shipped policies with its result, 12 for the 8-bit picture and its PNG. Measured with frames of 6 and 12 MP."""
OVERVIEW_TILES = 60
"""Most pictures of the overview; with more, a reader could not see much of each."""


@dataclass(frozen=True)
class RunOptions:
    """The files to write in addition to image, boxes and pipeline.

    Attributes:
        full: whether to write the rendered image at full size.
        save_steps: whether to write the image after each module, and all of them in one strip.
        save_params: whether to write one table of all parameters.
        header: size, depth and pattern of files that have no header.
        explain: whether to write what each module is worth to each box, see `explanation`.
    """

    full: bool = False
    save_steps: bool = False
    save_params: bool = False
    header: BayerHeader | None = None
    explain: bool = False


@dataclass(frozen=True)
class RunRow:
    """One line of the summary; `stem` is the beginning of its file names, relative to the output folder."""

    file: str
    stem: str
    modules: tuple[str, ...]
    found: str
    milliseconds: float
    timings: dict[str, float] = field(default_factory=dict)
    dropped_boxes: int = 0
    dropped_modules: tuple[str, ...] = ()


@dataclass
class RunSummary:
    """The results of a batch, and the inputs that were skipped with the reason.

    Attributes:
        rows: a line for each input that was used.
        skipped: (input, reason) of the others.
        files: names of all files written, relative to the output folder.
        stopped: reason why the batch ended before its last input; "" if it did not.
        explanations: of all inputs, where they were asked for.
    """

    rows: list[RunRow] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    stopped: str = ""
    explanations: Explanations = field(default_factory=Explanations)

    @property
    def dropped_boxes(self) -> int:
        """Number of boxes of all images that were left out because they make no sense, see `detectors.answers`."""
        return sum(row.dropped_boxes for row in self.rows)

    def latency(self, latency_ms: float) -> dict[str, Any]:
        """How often a latency was kept by the clock, and which modules were dropped from how many images.

        Args:
            latency_ms: most milliseconds of policy and modules.
        """
        within = sum(row.milliseconds <= latency_ms for row in self.rows)
        dropped = Counter(name for row in self.rows for name in dict.fromkeys(row.dropped_modules))
        share = within / max(1, len(self.rows))
        return {"latency_ms": latency_ms, "share_within": share, "dropped_modules": dict(dropped)}


def check_outputs(files: list[tuple[Path, Path]], out: Path) -> None:
    """Refuses an output folder that holds one of the inputs, since outputs could replace them.

    Raises:
        UsageError: an input lies in `out`.
    """
    place = Path(out).resolve()
    for path, _ in files:
        if path.resolve().is_relative_to(place):
            raise UsageError(f"{path}: lies in the output folder {out}; choose another --out")


def run_files(
    isp: AdaptiveISP,
    files: list[tuple[Path, Path]],
    out: Path,
    options: RunOptions,
    provenance: dict[str, Any],
    on_image: Callable[[str], None] = lambda name: None,
) -> RunSummary:
    """Runs every file. A file that fails is reported, and the batch continues.

    Files that an earlier run wrote for the same inputs are replaced as soon as there are new ones. However the batch
    ends, an input has either all of its files or none, and a summary lists the results.

    Args:
        isp: policy and detector.
        files: (input, output stem relative to `out`), see `raw.find_files.find_raw_files`.
        out: output folder, which exists and is claimed (`output_folder.claim_folder`).
        options: which files to write.
        provenance: stored in each JSON file.
        on_image: called with the name of each file, for progress.

    Raises:
        OutputError: the output folder cannot be written or the disk is full.
        DetectorError: the detector's answers make no sense.
    """
    batch = _Batch(isp, Path(out), options, provenance)
    former = FormerFiles(batch.out, [stem for _, stem in files])
    if former.n_others:
        logger.warning("%s: %d files of other inputs stay there, from an earlier run", out, former.n_others)
    try:
        for path, stem in files:
            batch.add(path, stem.as_posix(), former)
            on_image(path.name)
    except BaseException as error:
        batch.summary.stopped = str(error) or type(error).__name__
        batch.finish_after_failure()
        raise
    if batch.summary.rows:
        batch.finish()
    return batch.summary


class _Batch:
    """The results of a batch so far."""

    def __init__(self, isp: AdaptiveISP, out: Path, options: RunOptions, provenance: dict[str, Any]):
        self.isp, self.out, self.options, self.provenance = isp, out, options, provenance
        self.summary = RunSummary()
        self.watch = RemarkWatch()
        self.tiles: list[Tile] = []
        self.params: list[tuple[str, int, str, str, float]] = []

    def add(self, path: Path, stem: str, former: FormerFiles) -> None:
        """Runs one input and writes its files, or notes why it is skipped."""
        try:
            result = self.isp(path, self.options.header)
            explanation = explain(self.isp, result) if self.options.explain else None
            with ResultFiles(self.out) as files:
                tile = write_result(self.isp, result, path, files, stem, self.options, self.provenance, explanation)
        except Exception as error:  # an error of one file must not stop the others
            if isinstance(error, OutputError | DetectorError) and not isinstance(error, OutputNameError):
                raise
            self.summary.skipped.append((str(path), skip_reason(str(path), error)))
            return
        self._remove_former(stem, former, files.names)
        self.summary.files += files.names
        self.summary.rows.append(_row(path, stem, result))
        self.watch.add(result.raw)
        if explanation is not None:
            self.summary.explanations.add(explanation)
        self.params += _parameter_rows(path, result)
        if len(self.tiles) < OVERVIEW_TILES:
            self.tiles.append(tile)

    def _remove_former(self, stem: str, former: FormerFiles, kept: tuple[str, ...] | list[str]) -> None:
        try:
            if not self.summary.rows:  # the earlier files about all inputs are outdated from the first result on
                former.remove_batch_files()
            former.remove(stem, kept)
        except OutputError as error:
            logger.warning("%s", error)

    def finish(self) -> None:
        """Writes the files about all inputs together."""
        summary = self.summary
        if self.tiles:
            with atomic_path(self.out / OVERVIEW_FILE) as temporary:
                save_png(temporary, contact_sheet(self.tiles, columns=min(3, len(self.tiles))))
            summary.files.append(OVERVIEW_FILE)
        if self.options.save_params:
            _write_csv(self.out / PARAMS_FILE, ("file", "stage", "module", "param", "value"), self.params)
            summary.files.append(PARAMS_FILE)
        self._write_summary()

    def finish_after_failure(self) -> None:
        """Writes the summary of the results before the batch was stopped, if it can be written."""
        if not self.summary.rows:
            return
        try:
            self._write_summary()
        except OutputError as error:
            logger.warning("the summary is not written: %s", error)

    def _write_summary(self) -> None:
        images = [asdict(row) for row in self.summary.rows]
        if note := dropped_note(f"detector {self.isp.detector.name}", self.summary.dropped_boxes):
            logger.warning("%s", note)
        remarks = self.watch.remarks()
        for remark, _ in self.watch.news():
            logger.warning("%s", remark.text)
        content = {
            "images": images,
            "remarks": [{"kind": remark.kind, "text": remark.text, "n_files": count} for remark, count in remarks],
            "dropped_boxes": self.summary.dropped_boxes,
            "n_skipped": len(self.summary.skipped),
            "skipped": [{"input": name, "error": error} for name, error in self.summary.skipped],
            "stopped": self.summary.stopped,
            "files": self.summary.files,
            **self._latency(),
            "provenance": self.provenance,
        }
        write_json(self.out / SUMMARY_FILE, content)

    def _latency(self) -> dict[str, Any]:
        """The entry about the latency, which is warned of where it is not kept."""
        limit = self.isp.latency_ms
        if limit is None:
            return {}
        found = self.summary.latency(limit)
        if found["share_within"] < KEPT_SHARE:
            kept, needed = 100 * found["share_within"], 100 * KEPT_SHARE
            logger.warning("%g ms are kept for %.0f %% of the images, less than %.0f %%", limit, kept, needed)
        return {"latency": found}


def write_result(
    isp: AdaptiveISP,
    result: Result,
    path: Path,
    files: ResultFiles,
    stem: str,
    options: RunOptions,
    provenance: dict[str, Any],
    explanation: Explanation | None = None,
) -> Tile:
    """Places STEM.png, .boxes.png, .boxes.json, .pipeline.json and the files of the options; returns its tile."""
    height, width = result.full_size
    drawn = result.drawn()
    result.place(files, stem, provenance)
    if options.full:
        warn_of_memory(path, width * height)
        files.picture(f"{stem}.full.png", to_uint8(isp.render_full(result)))
    if explanation is not None:
        files.json(f"{stem}.explain.json", {"file": str(path), **explanation.to_json(), "provenance": provenance})
    if result.pipeline is None:
        return Tile(drawn, path.name, ["the camera's own development"])
    if options.save_steps:
        steps = _save_steps(result.developed.small, result.pipeline, files, stem)
        files.picture(f"{stem}.steps.png", stage_strip(result.pipeline, steps, path.name, drawn))
    return Tile(drawn, path.name, result.pipeline.describe() or ["no module"])


def warn_of_memory(path: Path, pixels: int) -> None:
    """Warns, before a frame is rendered at full size, if this needs more memory than is free."""
    needed, free = FULL_BYTES_PER_PIXEL * pixels, available_bytes()
    if free is not None and needed > free:
        logger.warning(
            "%s: --full of %.0f MP needs about %.1f GB of memory, %.1f GB are free; leave out --full if it fails",
            *(path, pixels / 1e6, needed / 1e9, free / 1e9),
        )


def _row(path: Path, stem: str, result: Result) -> RunRow:
    modules = tuple(module.name for module in result.pipeline.modules) if result.pipeline is not None else ("camera",)
    counts: dict[str, float] = {}
    for label, score in zip(result.detections.labels.tolist(), result.detections.scores.tolist(), strict=True):
        counts.setdefault(shown_name(result.class_names[label]), score)
    found = ", ".join(f"{name} {score:.2f}" for name, score in list(counts.items())[:4])
    timings = result.timings.to_json()
    dropped = result.detections.dropped
    cut = result.dropped_modules
    return RunRow(str(path), stem, modules, found or "nothing", result.milliseconds, timings, dropped, cut)


def _parameter_rows(path: Path, result: Result) -> list[tuple[str, int, str, str, float]]:
    if result.pipeline is None:
        return []
    return [
        (str(path), number, stage.module, name, value)
        for number, stage in enumerate(result.pipeline.stages, 1)
        for name, value in stage.params.items()
    ]


@torch.inference_mode()
def _save_steps(developed: Image, pipeline: Pipeline, files: ResultFiles, stem: str) -> list[Image]:
    """Places the developed image as step 0, and the image after each module; returns these images."""
    images, names = [developed, *pipeline.steps(developed)], ["developed", *(s.module for s in pipeline.stages)]
    for number, (name, image) in enumerate(zip(names, images, strict=True)):
        files.picture(f"{stem}.step{number:02}-{name}.png", to_uint8(image[0]))
    return images


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())

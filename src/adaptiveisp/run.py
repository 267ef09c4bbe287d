"""`run`: raw files → what the detector saw, its boxes and the pipeline, one set of files for each input."""

import csv
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PilImage

from adaptiveisp.color import to_uint8
from adaptiveisp.drawing import Tile, contact_sheet, draw_found
from adaptiveisp.errors import DetectorError, OutputError, OutputNameError, UsageError, skip_reason
from adaptiveisp.files import atomic_path, write_json, write_text
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.predictor import AdaptiveISP, Result
from adaptiveisp.raw import BayerHeader
from adaptiveisp.types import Detections, Image

SUMMARY_FILE = "summary.json"
OVERVIEW_TILES = 60
"""More pictures than this do not fit a sheet that a person looks at."""


@dataclass(frozen=True)
class RunOptions:
    """What to write beside image, boxes and pipeline.

    Attributes:
        full: also the rendered image at full size.
        save_steps: also the image after each module.
        save_params: also one table of all parameters.
        header: size, depth and pattern of files that have no header.
    """

    full: bool = False
    save_steps: bool = False
    save_params: bool = False
    header: BayerHeader | None = None


@dataclass(frozen=True)
class RunRow:
    """One line of the summary."""

    file: str
    modules: tuple[str, ...]
    found: str
    milliseconds: float


@dataclass(frozen=True)
class RunSummary:
    """What was done, and the inputs that were skipped with the reason."""

    rows: list[RunRow]
    skipped: list[tuple[str, str]]


def check_outputs(files: list[tuple[Path, Path]], out: Path) -> None:
    """Refuses an output folder that holds one of the inputs, since outputs could replace them.

    Raises:
        UsageError: an input lies in `out`.
    """
    place = Path(out).resolve()
    for path, _ in files:
        if path.resolve().is_relative_to(place):
            raise UsageError(f"{path}: lies in the output folder {out}; choose another --out")


def remove_former_outputs(out: Path) -> None:
    """Deletes what the summary of an earlier run in `out` lists, so that nothing stale stays beside new results."""
    summary = Path(out) / SUMMARY_FILE
    try:
        listed = json.loads(summary.read_text(encoding="utf-8"))["files"]
        names = [Path(name) for name in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names:
        if not name.is_absolute() and ".." not in name.parts:
            (Path(out) / name).unlink(missing_ok=True)
    summary.unlink(missing_ok=True)


class Outputs:
    """Writes the files of a run below one folder, atomically, and remembers their names for the summary."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.names: list[str] = []

    def place(self, name: str) -> Path:
        """The path of an output, noted down."""
        self.names.append(name)
        return self.folder / name

    def forget(self, kept: int) -> None:
        """Removes all but the first `kept` outputs: those of an input that failed half-way."""
        for name in self.names[kept:]:
            with suppress(OSError):  # it was not written yet, or its name is what failed
                (self.folder / name).unlink()
        del self.names[kept:]

    def picture(self, name: str, picture: Any) -> None:
        """Writes an 8-bit array or a PIL picture as PNG."""
        image = picture if isinstance(picture, PilImage.Image) else PilImage.fromarray(picture)
        with atomic_path(self.place(name)) as temporary:
            image.save(temporary, format="PNG")


def run_files(
    isp: AdaptiveISP,
    files: list[tuple[Path, Path]],
    out: Path,
    options: RunOptions,
    provenance: dict[str, Any],
    on_image: Callable[[str], None] = lambda name: None,
) -> RunSummary:
    """Runs every file; one that fails is reported and the batch goes on.

    Args:
        isp: policy and detector.
        files: (input, output stem relative to `out`), see `raw.find_raw_files`.
        out: output folder, which exists.
        options: what to write.
        provenance: kept in each JSON.
        on_image: called with each file's name, for progress.

    Raises:
        OutputError: the output folder cannot be written or the disk is full.
        DetectorError: the detector's answers make no sense.
    """
    rows: list[RunRow] = []
    skipped: list[tuple[str, str]] = []
    tiles: list[Tile] = []
    params: list[tuple[str, int, str, str, float]] = []
    outputs = Outputs(out)
    for path, stem in files:
        written = len(outputs.names)
        try:
            result = isp(path, options.header)
            tile = write_result(isp, result, path, outputs, stem.as_posix(), options, provenance)
        except Exception as error:  # whatever one file does, the others go on
            if isinstance(error, OutputError | DetectorError) and not isinstance(error, OutputNameError):
                raise
            outputs.forget(written)
            skipped.append((str(path), skip_reason(str(path), error)))
        else:
            rows.append(_row(path, result))
            if len(tiles) < OVERVIEW_TILES:
                tiles.append(tile)
            params += _parameter_rows(path, result)
        on_image(path.name)
    if tiles:
        outputs.picture("overview.png", contact_sheet(tiles, columns=min(3, len(tiles))))
    if options.save_params:
        _write_csv(outputs.place("params.csv"), ("file", "stage", "module", "param", "value"), params)
    images = [asdict(row) for row in rows]
    summary = {"images": images, "n_skipped": len(skipped), "files": outputs.names, "provenance": provenance}
    write_json(Path(out) / SUMMARY_FILE, summary)
    return RunSummary(rows, skipped)


def write_result(
    isp: AdaptiveISP,
    result: Result,
    path: Path,
    outputs: Outputs,
    stem: str,
    options: RunOptions,
    provenance: dict[str, Any],
) -> Tile:
    """Writes STEM.png, .boxes.png, .boxes.json, .pipeline.json and what the options ask for; returns its tile."""
    drawn = draw_result(result)
    outputs.picture(f"{stem}.png", to_uint8(result.image))
    outputs.picture(f"{stem}.boxes.png", drawn)
    height, width = result.full_size
    boxes = {
        "file": str(path),
        "width": width,
        "height": height,
        "policy": isp.policy.name,
        "detector": isp.detector.name,
        "size": isp.size,
        "milliseconds": round(result.milliseconds, 3),
        "boxes": named_boxes(result.detections, result.class_names),
        "provenance": provenance,
    }
    write_json(outputs.place(f"{stem}.boxes.json"), boxes)
    if options.full:
        outputs.picture(f"{stem}.full.png", to_uint8(isp.render_full(result)))
    if result.pipeline is None:
        return Tile(drawn, path.name, ["the camera's own development"])
    result.pipeline.save(outputs.place(f"{stem}.pipeline.json"), provenance=provenance)
    if options.save_steps:
        _save_steps(result.developed.small, result.pipeline, outputs, stem)
    return Tile(drawn, path.name, result.pipeline.describe() or ["no module"])


def named_boxes(found: Detections, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Detections for people and scripts: xyxy in pixels of the upright full frame, class name, score."""
    return [
        {"box": [round(value, 2) for value in box], "class": class_names[label], "score": round(score, 4)}
        for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def draw_result(result: Result) -> Any:
    """The rendered image with its boxes."""
    return draw_found(to_uint8(result.image), result.detections, result.class_names, result.full_size[1])


def _row(path: Path, result: Result) -> RunRow:
    modules = tuple(module.name for module in result.pipeline.modules) if result.pipeline is not None else ("camera",)
    counts: dict[str, float] = {}
    for label, score in zip(result.detections.labels.tolist(), result.detections.scores.tolist(), strict=True):
        counts.setdefault(result.class_names[label], score)
    found = ", ".join(f"{name} {score:.2f}" for name, score in list(counts.items())[:4])
    return RunRow(str(path), modules, found or "nothing", result.milliseconds)


def _parameter_rows(path: Path, result: Result) -> list[tuple[str, int, str, str, float]]:
    if result.pipeline is None:
        return []
    return [
        (str(path), number, stage.module, name, value)
        for number, stage in enumerate(result.pipeline.stages, 1)
        for name, value in stage.params.items()
    ]


@torch.inference_mode()
def _save_steps(developed: Image, pipeline: Pipeline, outputs: Outputs, stem: str) -> None:
    """Writes the developed image as step 0, and the image after each module."""
    outputs.picture(f"{stem}.step00-developed.png", to_uint8(developed[0]))
    for number, (stage, image) in enumerate(zip(pipeline.stages, pipeline.steps(developed), strict=True), 1):
        outputs.picture(f"{stem}.step{number:02}-{stage.module}.png", to_uint8(image[0]))


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())

"""`run`: raw files → what the detector saw, its boxes and the pipeline, one set of files for each input."""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image as PilImage

from adaptiveisp.color import to_uint8
from adaptiveisp.drawing import Tile, contact_sheet, draw_detections
from adaptiveisp.errors import AdaptiveISPError, OutputError
from adaptiveisp.files import atomic_path, write_json, write_text
from adaptiveisp.predictor import AdaptiveISP, Result
from adaptiveisp.raw import BayerHeader
from adaptiveisp.types import Detections

DRAW_CONFIDENCE = 0.25
"""Boxes below this score are in the files but not in the pictures."""
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
    """
    rows: list[RunRow] = []
    skipped: list[tuple[str, str]] = []
    tiles: list[Tile] = []
    params: list[tuple[str, int, str, str, float]] = []
    for path, stem in files:
        try:
            result = isp(path, options.header)
            tile = write_result(isp, result, path, out / stem, options, provenance)
        except OutputError:
            raise
        except AdaptiveISPError as error:
            skipped.append((str(path), str(error)))
        else:
            rows.append(_row(path, result))
            if len(tiles) < OVERVIEW_TILES:
                tiles.append(tile)
            params += _parameter_rows(path, result)
        on_image(path.name)
    if tiles:
        _save_picture(contact_sheet(tiles, columns=min(3, len(tiles))), out / "overview.png")
    if options.save_params:
        _write_csv(out / "params.csv", ("file", "stage", "module", "param", "value"), params)
    return RunSummary(rows, skipped)


def write_result(
    isp: AdaptiveISP, result: Result, path: Path, stem: Path, options: RunOptions, provenance: dict[str, Any]
) -> Tile:
    """Writes STEM.png, .boxes.png, .boxes.json, .pipeline.json and what the options ask for; returns its tile."""
    picture = to_uint8(result.image)
    drawn = draw_result(result)
    _save_picture(PilImage.fromarray(picture), stem.with_name(stem.name + ".png"))
    _save_picture(PilImage.fromarray(drawn), stem.with_name(stem.name + ".boxes.png"))
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
    write_json(stem.with_name(stem.name + ".boxes.json"), boxes)
    if result.pipeline is not None:
        result.pipeline.save(stem.with_name(stem.name + ".pipeline.json"), provenance=provenance)
    if options.save_steps and result.pipeline is not None:
        _save_steps(result, stem)
    if options.full:
        full = PilImage.fromarray(to_uint8(isp.render_full(result)))
        _save_picture(full, stem.with_name(stem.name + ".full.png"))
    lines = result.pipeline.describe() if result.pipeline is not None else ["the camera's own development"]
    return Tile(drawn, path.name, lines or ["no module"])


def named_boxes(found: Detections, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Detections for people and scripts: xyxy in pixels of the upright full frame, class name, score."""
    return [
        {"box": [round(value, 2) for value in box], "class": class_names[label], "score": round(score, 4)}
        for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def draw_result(result: Result) -> Any:
    """The rendered image with the boxes of at least `DRAW_CONFIDENCE`."""
    keep = result.detections.scores >= DRAW_CONFIDENCE
    scale = result.image.shape[2] / result.full_size[1]
    labels = [result.class_names[label] for label in result.detections.labels[keep].tolist()]
    boxes = (result.detections.boxes[keep] * scale).cpu().numpy()
    return draw_detections(to_uint8(result.image), boxes, labels, result.detections.scores[keep].cpu().numpy())


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
def _save_steps(result: Result, stem: Path) -> None:
    assert result.pipeline is not None
    start = result.developed.small
    _save_picture(PilImage.fromarray(to_uint8(start[0])), stem.with_name(f"{stem.name}.step0-developed.png"))
    names = [module.name for module in result.pipeline.modules]
    for number, (name, image) in enumerate(zip(names, result.pipeline.steps(start), strict=True), 1):
        _save_picture(PilImage.fromarray(to_uint8(image[0])), stem.with_name(f"{stem.name}.step{number}-{name}.png"))


def _save_picture(picture: PilImage.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _write_csv(path: Path, header: tuple[str, ...], rows: list[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())

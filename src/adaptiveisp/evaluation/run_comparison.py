"""The page of `run` with several policies: the same frames side by side, without labels.

Boxes are compared with those of the first policy. The frames of the page are chosen by the rows that the runs wrote,
and are then read and rendered once more, so that the page does not depend on the pictures that were kept.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.errors import AdaptiveISPError, DetectorError, logger
from adaptiveisp.evaluation.html_page import readable, render_template
from adaptiveisp.evaluation.photo_choice import Chosen, choose
from adaptiveisp.evaluation.photo_grid import Kind, Mark, PhotoGrid, PhotoRow, Shot, grid_view
from adaptiveisp.inference.drawing import DRAW_CONFIDENCE
from adaptiveisp.inference.explanation import match_boxes
from adaptiveisp.inference.frames import Frame
from adaptiveisp.inference.parameter_text import CAMERA_STEPS
from adaptiveisp.inference.parquet import read_rows
from adaptiveisp.inference.pictures import half_brightened
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.records import Row
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.result_files import PARQUET_FILE, ROWS_FILE
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.types import Detections, RawImage
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.files import write_text

RAW_COLUMN = "raw"
MOST_COLUMNS = 7
"""Most policies with a column of pictures."""


@dataclass
class RunFacts:
    """What the run of one policy found, for the table of the page.

    Attributes:
        name: name of the policy.
        folder: its folder, relative to the output folder.
        frames: number of frames.
        n_boxes, n_modules: numbers of boxes and of modules of all frames.
        gained, lost: boxes that the first policy does not have, and boxes of it that are missing; None for itself.
        times: milliseconds of policy and modules of each frame.
    """

    name: str
    folder: str
    frames: int = 0
    n_boxes: int = 0
    n_modules: int = 0
    gained: int | None = None
    lost: int | None = None
    times: list[float] = field(default_factory=list)

    def add(self, n_boxes: int, row: Row) -> None:
        """Adds one frame.

        Args:
            n_boxes: number of its boxes that are drawn.
            row: its row.
        """
        self.frames += 1
        self.n_boxes += n_boxes
        self.n_modules += len(row["pipeline"] or ())
        self.times.append(row["times"]["policy"] + row["times"]["modules"])

    def to_json(self) -> dict[str, Any]:
        """A row of the table; means are over the frames."""
        count = max(1, self.frames)
        return {
            "name": self.name,
            "folder": self.folder,
            "frames": self.frames,
            "boxes": self.n_boxes / count,
            "gained": self.gained,
            "lost": self.lost,
            "modules": self.n_modules / count,
            "ms": median(self.times) if self.times else None,
        }


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Several policies on the same frames.

    Attributes:
        grid: photos side by side.
        table: a row for each policy, see `RunFacts.to_json`.
    """

    grid: PhotoGrid
    table: list[dict[str, Any]]

    def save(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes the page.

        Raises:
            AdaptiveISPError: jinja2 is not installed.
            OutputError: the file cannot be written.
        """
        view = {**grid_view(self.grid), "salt": "run", "colours": {}}
        frames = max((row["frames"] for row in self.table), default=0)
        lead = f"{len(self.table)} policies on {frames} frames, detector {self.grid.detector}"
        page = render_template(
            "compare.html.j2",
            title="Policies side by side",
            lead=lead,
            view=view,
            table=self.table,
            provenance=readable(provenance),
        )
        write_text(path, page)


def compare_runs(
    predictors: Mapping[str, AdaptiveISP],
    folders: Mapping[str, str],
    frames: Sequence[Frame],
    out: Path,
    header: BayerHeader | None = None,
) -> RunComparison:
    """The runs of several policies on the same frames, side by side.

    Args:
        predictors: policy → its predictor, with the same detector, size and white balance; the first one is the
            reference that boxes are compared with.
        folders: policy → the folder of its outputs, relative to `out`.
        frames: the inputs.
        out: folder with the folders of the policies.
        header: size, depth and pattern of files that have no header.
    """
    facts, used, gains = _read_facts(list(predictors), folders, frames, out)
    chosen = choose(gains, [frame.id for frame in used])
    names = list(predictors)[:MOST_COLUMNS]
    first = next(iter(predictors))
    rows = []
    for one in chosen:
        try:
            rows.append(_row(used[one.index], one, {name: predictors[name] for name in names}, gains, header))
        except DetectorError:
            raise
        except AdaptiveISPError as error:  # a file that went after its run
            logger.warning("the page leaves out a frame: %s", error)
    raw = () if "none" in names else (RAW_COLUMN,)
    choice = (
        f"Frames are chosen by the boxes that the other policies gain against {first}, less those that they lose, "
        f"weighted by score: those that gain most, those that lose most, and typical ones; {len(rows)} of {len(used)}."
    )
    grid = PhotoGrid(
        columns=(*raw, *names),
        rows=tuple(rows),
        choice=choice,
        detector=predictors[first].detector.name,
        confidence=DRAW_CONFIDENCE,
        reference=first,
        left_out=tuple(name for name in predictors if name not in names),
    )
    return RunComparison(grid, [one.to_json() for one in facts])


def _read_facts(
    names: Sequence[str], folders: Mapping[str, str], frames: Sequence[Frame], out: Path
) -> tuple[list[RunFacts], list[Frame], list[float]]:
    """The facts of each policy, the frames that all of them have, and the gain of each frame."""
    facts = [RunFacts(name, folders[name]) for name in names]
    for one in facts[1:]:
        one.gained = one.lost = 0
    by_number = {frame.number: frame for frame in frames}
    used: list[Frame] = []
    gains: list[float] = []
    for rows in zip(*(_rows(out / folders[name]) for name in names), strict=True):  # in step, for little memory
        if any(row["skipped"] is not None for row in rows) or rows[0]["number"] not in by_number:
            continue
        gain = 0.0
        reference = _plain(rows[0])
        for one, row in zip(facts, rows, strict=True):
            found = _plain(row)
            one.add(len(found.scores), row)
            if one.gained is not None and one.lost is not None:
                new, lost = _changes(reference, found)
                one.gained, one.lost = one.gained + len(new), one.lost + len(lost)
                gain += float(found.scores[new].sum() - reference.scores[lost].sum()) / (len(names) - 1)
        used.append(by_number[rows[0]["number"]])
        gains.append(gain)
    return facts, used, gains


def _rows(folder: Path) -> Iterator[Row]:
    """Yields the rows of a run, which are in the order of the frames."""
    if (folder / PARQUET_FILE).is_file():
        yield from read_rows(folder / PARQUET_FILE)
        return
    with open(folder / ROWS_FILE, encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _plain(row: Row) -> Detections:
    """The boxes of a row that are drawn; a label is a hash of the class's name, which is all that is compared."""
    found = zip(row["boxes"], row["scores"], row["labels"], strict=True)
    kept = [one for one in found if one[1] >= DRAW_CONFIDENCE]
    corners = torch.tensor([box for box, _, _ in kept], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([hash(name) for _, _, name in kept], dtype=torch.long)
    return Detections(corners, torch.tensor([score for _, score, _ in kept], dtype=torch.float32), labels)


def _changes(reference: Detections, found: Detections) -> tuple[list[int], list[int]]:
    """Indices of the boxes that the reference does not have, and of those of the reference that are missing."""
    matched = match_boxes(reference, found)
    lost = sorted(set(range(len(reference.scores))) - {index for index in matched if index is not None})
    return [index for index, own in enumerate(matched) if own is None], lost


def _row(
    frame: Frame,
    chosen: Chosen,
    predictors: Mapping[str, AdaptiveISP],
    gains: Sequence[float],
    header: BayerHeader | None,
) -> PhotoRow:
    """The pictures of one frame: the raw, and each policy."""
    first = next(iter(predictors.values()))
    prepared = first.develop(frame.source, None if isinstance(frame.source, RawImage) else header)
    results = {name: isp.detect(isp.render(prepared)) for name, isp in predictors.items()}
    reference = drawn(next(iter(results.values())).detections)
    shots = [
        shot_of(result, reference if number else None, name == "none")
        for number, (name, result) in enumerate(results.items())
    ]
    if "none" not in results:
        raw = first.detect(first.render(prepared, Pipeline(())))
        shots.insert(0, shot_of(raw, reference, True))
    gain = f"score of boxes gained less lost {gains[chosen.index]:+.2f}".replace("-", "\N{MINUS SIGN}")
    return PhotoRow(frame.stem or frame.id, chosen.why, gain, tuple(shots))


def drawn(found: Detections) -> Detections:
    """The detections that are drawn."""
    kept = found.scores >= DRAW_CONFIDENCE
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def shot_of(result: Result, reference: Detections | None, is_raw: bool) -> Shot:
    """The picture of a result with its boxes.

    Args:
        result: the result.
        reference: drawn detections of another policy, with which the boxes are compared; None compares with nothing.
        is_raw: whether it is the developed raw without any module, which is brightened in part.
    """
    marks = marks_of(result, reference)
    if not is_raw:
        caption = CAMERA_STEPS if result.pipeline is None else ""
        return Shot(to_uint8(result.image), marks, result.pipeline, caption)
    image, gain = half_brightened(result.image)
    return Shot(image, marks, result.pipeline, note=brightened_note(gain))


def brightened_note(gain: float) -> str:
    """What was done to a picture for the eye; "" for nothing."""
    return f"right \N{MULTIPLICATION SIGN}{gain:.0f}" if gain > 1 else ""


def marks_of(result: Result, reference: Detections | None) -> tuple[Mark, ...]:
    """The boxes of a result, compared with those of a reference; None compares with nothing."""
    found = drawn(result.detections)
    new, lost = ([], []) if reference is None else _changes(reference, found)
    marks = [_mark(result, found, i, "gained" if i in new else "box") for i in range(len(found.scores))]
    if reference is not None:
        marks += [_mark(result, reference, i, "lost") for i in lost]
    return tuple(marks)


def _mark(result: Result, found: Detections, index: int, kind: Kind) -> Mark:
    """One detection as a box of the page."""
    height, width = result.full_size
    x0, y0, x1, y1 = found.boxes[index].tolist()
    name = shown_name(result.class_names[int(found.labels[index])])
    return Mark((x0 / width, y0 / height, x1 / width, y1 / height), name, kind, float(found.scores[index]))

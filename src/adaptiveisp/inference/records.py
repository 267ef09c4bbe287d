"""The rows of `results.jsonl` and `results.parquet`: one for each frame, with the same columns in both.

| column | type | what |
|---|---|---|
| frame | text | id: path, URL or SHARD.tar::MEMBER |
| number | integer | number among all frames of the inputs, from 0, before they are split by --shard |
| stem | text | beginning of the names of its files |
| width, height | integer | of the upright full frame, in pixels |
| policy, detector, size | text, text, integer | what ran, and its working size in pixels |
| boxes | list of 4 numbers each | xyxy in pixels of the full frame, rounded to 0.01, best first |
| scores, labels | lists | score, rounded to 0.0001, and class name of each box |
| pipeline | list of module and params | the stages in order with their parameters; null for `camera` |
| module_set | text | named set whose ranges the pipeline uses |
| times | read, develop, policy, modules, detector, total | milliseconds |
| dropped_boxes | integer | boxes that made no sense |
| dropped_modules | list of text | modules that were dropped to keep a latency |
| remarks | list of kind and text | doubts about the raw |
| raw | shape, black, white, lowest | levels, smallest values; `lowest` is empty where the file states its black level |
| files | list of text | files written for it |
| stamp | text | hash of sizes and times of change of the local files that the frame was read from, for `--resume` |
| skipped | text | why there is no result; null where there is one. The columns from `width` to `files` are then null |
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from adaptiveisp.inference.frames import Frame
from adaptiveisp.inference.result import Result
from adaptiveisp.raw.level_checks import RawFacts
from adaptiveisp.types import Remark

Row: TypeAlias = dict[str, Any]
"""One row, column → value."""

COLUMNS = (
    *("frame", "number", "stem", "width", "height", "policy", "detector", "size", "boxes", "scores", "labels"),
    *(
        "pipeline",
        "module_set",
        "times",
        "dropped_boxes",
        "dropped_modules",
        "remarks",
        "raw",
        "files",
        "stamp",
        "skipped",
    ),
)
LATER_COLUMNS = ("stamp",)
"""Columns that rows of earlier commits do not have; they count as null there."""
TIMES = ("read", "develop", "policy", "modules", "detector", "total")
MOST_FOUND = 4
"""Most classes that the summary names for an image."""


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


def row_of(frame: Frame, result: Result, facts: RawFacts, files: Sequence[str] = ()) -> Row:
    """The row of a result.

    Args:
        frame: the frame.
        result: its result.
        facts: what is kept of its raw.
        files: names of the files written for it.
    """
    boxes = result.boxes()
    plan = None if result.pipeline is None else result.pipeline.to_json()
    return {
        "frame": frame.id,
        "number": frame.number,
        "stem": frame.stem,
        "width": result.full_size[1],
        "height": result.full_size[0],
        "policy": result.policy,
        "detector": result.detector,
        "size": result.size,
        "boxes": [box["box"] for box in boxes],
        "scores": [box["score"] for box in boxes],
        "labels": [box["class"] for box in boxes],
        "pipeline": None if plan is None else plan["stages"],
        "module_set": None if plan is None else plan["module_set"],
        "times": result.timings.to_json(),
        "dropped_boxes": result.detections.dropped,
        "dropped_modules": list(result.dropped_modules),
        "remarks": [{"kind": remark.kind, "text": remark.text} for remark in facts.remarks],
        "raw": {
            "shape": list(facts.shape),
            "black": list(facts.black),
            "white": facts.white,
            "lowest": list(facts.lowest),
        },
        "files": list(files),
        "stamp": frame.stamp,
        "skipped": None,
    }


def skipped_row(frame: Frame, reason: str) -> Row:
    """The row of a frame without a result."""
    known = {"frame": frame.id, "number": frame.number, "stem": frame.stem, "stamp": frame.stamp, "skipped": reason}
    return {name: known.get(name) for name in COLUMNS}


def is_row(value: Any) -> TypeGuard[Row]:
    """Whether a value from a file, which may come from anybody, has the columns of a row and their types."""
    if not isinstance(value, dict) or value.keys() | set(LATER_COLUMNS) != set(COLUMNS):
        return False
    if not isinstance(value["number"], int) or not isinstance(value.get("stamp"), str | None):
        return False
    if not isinstance(value["frame"], str) or not isinstance(value["stem"], str):
        return False
    if isinstance(value["skipped"], str):
        return True
    return value["skipped"] is None and _holds_a_result(value)


def _holds_a_result(row: Row) -> bool:
    times, raw, plan = row["times"], row["raw"], row["pipeline"]
    lists = [row[name] for name in ("boxes", "scores", "labels", "dropped_modules", "remarks", "files")]
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists[:3]}) != 1:
        return False
    texts = [*row["labels"], *row["dropped_modules"], *row["files"]]
    numbers = [*row["scores"], row["dropped_boxes"]]
    if not isinstance(times, dict) or times.keys() != set(TIMES) or not _are(times.values(), float):
        return False
    if not _are(texts, str) or not _are(numbers, float) or not (plan is None or isinstance(plan, list)):
        return False
    stages = all(
        isinstance(one, dict)
        and isinstance(one.get("module"), str)
        and isinstance(one.get("params"), dict)
        and _are(one["params"].values(), float)
        for one in plan or []
    )
    remarks = all(isinstance(one, dict) and _are([one.get("kind"), one.get("text")], str) for one in row["remarks"])
    known = isinstance(raw, dict) and all(isinstance(raw.get(name), list) for name in ("shape", "black", "lowest"))
    return stages and remarks and known and _are([raw.get("white"), *raw["black"], *raw["lowest"]], float)


def _are(values: Iterable[Any], kind: type) -> bool:
    """Whether all values are of a type; whole numbers count as numbers."""
    kinds = (int, float) if kind is float else (kind,)
    return all(isinstance(value, kinds) for value in values)


def summary_row(row: Row) -> RunRow:
    """The line of the summary for the row of a result."""
    best: dict[str, float] = {}
    for label, score in zip(row["labels"], row["scores"], strict=True):
        best.setdefault(label, score)
    found = ", ".join(f"{name} {score:.2f}" for name, score in list(best.items())[:MOST_FOUND])
    plan, times = row["pipeline"], row["times"]
    return RunRow(
        file=row["frame"],
        stem=row["stem"],
        modules=("camera",) if plan is None else tuple(stage["module"] for stage in plan),
        found=found or "nothing",
        milliseconds=round(times["policy"] + times["modules"], 3),
        timings=dict(times),
        dropped_boxes=row["dropped_boxes"],
        dropped_modules=tuple(row["dropped_modules"]),
    )


def raw_facts_of(row: Row, source: Any = None) -> RawFacts:
    """The facts of the raw of a row.

    Args:
        row: the row of a result.
        source: the frame's source, which tells whether it is a local file.
    """
    kept = row["raw"]
    remarks = tuple(Remark(one["kind"], one["text"]) for one in row["remarks"])
    path = Path(row["frame"]) if isinstance(source, Path) else None
    return RawFacts(remarks, path, tuple(kept["shape"]), tuple(kept["black"]), kept["white"], tuple(kept["lowest"]))


def parameter_rows(row: Row) -> list[tuple[str, int, str, str, float]]:
    """File, number of the stage, module, parameter and value of each parameter of a row's pipeline."""
    return [
        (row["frame"], number, stage["module"], name, value)
        for number, stage in enumerate(row["pipeline"] or [], 1)
        for name, value in stage["params"].items()
    ]


def caption(row: Row) -> list[str]:
    """The pipeline of a row as readable lines, one a stage."""
    if row["pipeline"] is None:
        return ["the camera's own development"]
    return [_line(stage) for stage in row["pipeline"]] or ["no module"]


def _line(stage: Mapping[str, Any]) -> str:
    return " ".join([stage["module"], *(f"{name}={value:.3g}" for name, value in stage["params"].items())])

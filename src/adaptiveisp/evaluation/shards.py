"""Evaluations whose samples are split among processes or hosts by their numbers, and put together again.

A shard I of N measures the samples whose number leaves the remainder I - 1 by N, and writes one file, `shard.jsonl`: a
header, and a line for each sample. Whoever puts the shards together opens the same data, policies and detectors again,
and makes of the lines what a single process would have made of them. The report differs in times and provenance alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.data.dataset import Dataset
from adaptiveisp.errors import DataError, UsageError, first_few, shown
from adaptiveisp.evaluation.evaluator import Scoring
from adaptiveisp.evaluation.sample_records import SampleRecord, record_from_json
from adaptiveisp.utils.files import atomic_path

SHARD_FILE = "shard.jsonl"
SHARDS_FOLDER = "shards"
"""Folder, below the output folder, of the shards of an evaluation on a cluster."""
VERSION = 1
REMEDY = "evaluate the shard again"

Shard = tuple[int, int]
"""Number of a shard, from 1, and the number of all shards."""


def numbers_of(shard: Shard, n_samples: int) -> range:
    """Numbers of the samples of a shard.

    >>> list(numbers_of((2, 3), 8))
    [1, 4, 7]
    """
    return range(shard[0] - 1, n_samples, shard[1])


def sample_digest(dataset: Dataset) -> str:
    """SHA-256 of the samples, their labels and the sizes of their files, hexadecimal.

    Two processes tell by it that they have the same.
    """
    digest = hashlib.sha256()
    for sample in dataset.samples:
        facts = (sample.image_id, sample.draw, sample.name, sample.width, sample.height, sample.light)
        labels = [(one.category_id, one.bbox, one.area, one.iscrowd) for one in sample.annotations]
        digest.update(repr((facts, labels, _bytes_of(sample.source))).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _bytes_of(source: Any) -> int | None:
    """Bytes of the file of a sample; None where its source is no file."""
    path = source if isinstance(source, Path) else getattr(getattr(source, "image", None), "path", None)
    try:
        return os.stat(path).st_size if isinstance(path, Path) else None
    except OSError:  # it is told of when it is read
        return None


def write_shard(
    folder: Path,
    shard: Shard,
    scorings: Mapping[str, Scoring],
    settings: Mapping[str, Any],
    on_image: Callable[[str], None] = lambda name: None,
) -> int:
    """Measures the samples of a shard and writes them, and returns the number of those that are left out.

    Args:
        folder: output folder, claimed.
        shard: the shard.
        scorings: name of a data set → its scoring.
        settings: what decides the results, by the names of the options.
        on_image: called with the name of each sample, for progress.

    Raises:
        DetectorError: a detector's answers make no sense.
        OutputError: the folder cannot be written to.
    """
    skipped = 0
    with atomic_path(Path(folder) / SHARD_FILE) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        header = {"version": VERSION, "shard": list(shard), "settings": dict(settings)}
        stream.write(_line(header))
        for name, scoring in scorings.items():
            for record in scoring.measured(numbers_of(shard, len(scoring.dataset.samples)), on_image):
                stream.write(_line({"set": name, **record.to_json()}))
                skipped += bool(record.skipped)
        unusable = {name: scoring.unusable for name, scoring in scorings.items()}
        stream.write(_line({"end": True, "unusable": unusable}))
    return skipped


def read_shards(
    folders: Sequence[Path], scorings: Mapping[str, Scoring], settings: Mapping[str, Any]
) -> dict[str, list[SampleRecord]]:
    """The records of all samples of each data set in order; what made a loss unusable is told to the scorings.

    Args:
        folders: one for each shard, in any order.
        scorings: name of a data set → its scoring, which has measured nothing.
        settings: what decides the results; that of each shard must be the same.

    Raises:
        UsageError: a shard was made with other settings, is missing, or is given twice.
        DataError: a file is missing or damaged.
    """
    found: dict[str, dict[int, SampleRecord]] = {name: {} for name in scorings}
    shards: dict[Shard, Path] = {}
    for folder in folders:
        path = folder / SHARD_FILE if folder.is_dir() else folder
        lines = _lines(path)
        shard = _checked_header(next(lines, None), path, settings)
        if shard in shards:
            raise UsageError(f"{path}: is shard {shard[0]}/{shard[1]}, as {shards[shard]} is; give each shard once")
        shards[shard] = path
        _read_into(found, lines, path, scorings)
    counts = {count for _, count in shards}
    if len(counts) != 1 or len(shards) != next(iter(counts)):
        given = ", ".join(f"{number}/{count}" for number, count in sorted(shards))
        raise UsageError(f"--merge: has the shards {given}; give all shards of one evaluation")
    for name, records in found.items():
        wanted = len(scorings[name].dataset.samples)
        if sorted(records) != list(range(wanted)):
            raise DataError(f"{name}: the shards hold {len(records)} of {wanted} samples; {REMEDY}")
    return {name: [records[number] for number in sorted(records)] for name, records in found.items()}


def _read_into(
    found: dict[str, dict[int, SampleRecord]], lines: Iterator[Any], path: Path, scorings: Mapping[str, Scoring]
) -> None:
    """Adds the records of a shard."""
    try:
        for value in lines:
            if "end" in value:
                for name, reasons in value["unusable"].items():
                    scorings[name].told(reasons)
                return
            found[value["set"]][int(value["number"])] = record_from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: is damaged ({type(error).__name__}: {error}); {REMEDY}") from error
    raise DataError(f"{path}: ends too early; {REMEDY}")


def _checked_header(header: Any, path: Path, settings: Mapping[str, Any]) -> Shard:
    """The shard of a file.

    Raises:
        UsageError: its settings are others.
        DataError: it is no file of a shard.
    """
    known = isinstance(header, dict) and header.get("version") == VERSION and isinstance(header.get("settings"), dict)
    shard = header.get("shard") if known else None
    if not (isinstance(shard, list) and len(shard) == 2 and all(isinstance(one, int) for one in shard)):
        raise DataError(f"{path}: is no shard of an evaluation; give what eval --shard wrote")
    former, own = header["settings"], json.loads(json.dumps(dict(settings)))
    if differing := [name for name in {**former, **own} if former.get(name) != own.get(name)]:
        changes = (f"{name} {shown(former.get(name), 60)}, now {shown(own.get(name), 60)}" for name in differing)
        listed = first_few(changes, longest=200)
        raise UsageError(f"{path}: was made with other settings: {listed}; give the options of the shards")
    return shard[0], shard[1]


def _lines(path: Path) -> Iterator[Any]:
    """Yields the values of a file of JSON lines.

    Raises:
        DataError: it cannot be read, or a line is damaged.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{path}: line {number} is damaged ({error}); {REMEDY}") from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the folders that eval --shard wrote") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {REMEDY}") from error


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":")) + "\n"

"""Finds out what each input of `view` is: raws, a data set, a report, a run, or the output of a stream."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from adaptiveisp.data.dataset import Dataset, notes_of, raw_file
from adaptiveisp.data.dataset_yaml import is_set_file
from adaptiveisp.data.opening import LABELS_FILE, SET_FILE, open_dataset
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import AdaptiveISPError, UsageError
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.serving.entries import Catalogue, FolderEntry, ImageEntry, NotGivenError, Place, file_entry
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.output_folder import marker_kind

REPORT_FILE, METRICS_FILE = "report.json", "metrics.jsonl"
DEMO_RAWS = "raws"
"""Folder of the raws in that of `demo`."""
RUN_FILES = (METRICS_FILE, "dev.jsonl", "latest.pt", "summary.json")
"""Files one of which every run folder has beside its config.yaml once it has begun."""


@dataclass(frozen=True)
class InputFacts:
    """What the command line says about the inputs.

    Attributes:
        images: folder of the images of a COCO JSON.
        synthesis: how raws are made of its photos; None where the images are raws.
        header: facts about raws without a header.
        limit: most photos of a data set; 0 for all.
    """

    images: Path | None = None
    synthesis: SynthesisConfig | None = None
    header: BayerHeader | None = None
    limit: int = 0


def fill(catalogue: Catalogue, inputs: Sequence[str], facts: InputFacts) -> None:
    """Adds inputs to a catalogue, in their order.

    Args:
        catalogue: to fill.
        inputs: raw files, folders, globs, data sets, folders of `eval` and `train`, or files of `stream`.
        facts: about them.

    Raises:
        AdaptiveISPError: an input is none of these, or cannot be read.
    """
    for text in inputs:
        path = Path(text)
        kind = kind_of(path)
        if kind == "report":
            folder = path if path.is_dir() else path.parent
            catalogue.reports.add(FolderEntry(_name(folder), folder))
            if (folder / DEMO_RAWS / LABELS_FILE).is_file():
                add_dataset(catalogue, folder / DEMO_RAWS, facts)
        elif kind == "training":
            catalogue.runs.add(FolderEntry(_name(path), path))
        elif kind == "stream":
            catalogue.streams.add(FolderEntry(path.name, path))
        elif kind == "data":
            add_dataset(catalogue, path, facts)
        else:
            _add_files(catalogue, text, facts)
        catalogue.opens_with(kind if kind in ("report", "training", "stream") else "image")


def kind_of(path: Path) -> str:
    """The kind of an input: "report", "training", "stream", "data" or "raw".

    Raises:
        UsageError: it is an output folder of `run`.
    """
    if is_set_file(path):
        return "data"
    if not os.path.exists(path):
        return "raw"  # a glob, or a mistake that the search for raws names
    if path.is_file():
        if path.name == REPORT_FILE:
            return "report"
        if path.suffix == ".jsonl":
            return "stream"
        return "data" if path.suffix == ".json" else "raw"
    if (path / REPORT_FILE).is_file() and not (path / LABELS_FILE).is_file():
        return "report"
    if (path / "config.yaml").is_file() and any((path / name).is_file() for name in RUN_FILES):
        return "training"
    if marker_kind(path) == "run":
        remedy = "give the raws that it was given, and one of its pipeline files as --policy"
        raise UsageError(f"{path}: holds the results of run, which has no raws; {remedy}")
    if (path / LABELS_FILE).is_file() or (path / SET_FILE).is_file():
        return "data"
    return "data" if any(path.glob(f"*/{LABELS_FILE}")) else "raw"


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name


def _add_files(catalogue: Catalogue, text: str, facts: InputFacts) -> None:
    """Adds raw files; those that a link leads out of the given folder are left out."""
    files, missing = find_raw_files([text])
    root = Path(text) if os.path.isdir(text) else None
    left_out = 0
    for path, _ in files:
        try:
            place = Place.of(path, root)
        except NotGivenError:
            left_out += 1
            continue
        name = str(path.relative_to(root)) if root is not None else path.name
        catalogue.images.add(file_entry(place, name, _name(root) if root is not None else "files", facts.header))
    catalogue.notes += [reason for _, reason in missing]
    if left_out:
        catalogue.notes.append(f"{Path(text).name}: {left_out} files are links out of the folder and are left out")
    if left_out == len(files):
        raise UsageError(f"{text}: all of its raw files are links out of the folder; give their own folder")


def add_dataset(catalogue: Catalogue, path: Path, facts: InputFacts, darkest_first: bool = False) -> None:
    """Adds the images of a data set, with their labels.

    Args:
        catalogue: to fill.
        path: as `open_dataset` takes it.
        facts: about it.
        darkest_first: whether the darkest images come first in the list.

    Raises:
        AdaptiveISPError: the data set cannot be opened.
    """
    if path.suffix == ".json" and facts.images is None:
        raise UsageError(f"{path}: a COCO JSON needs --images FOLDER, and --light where these are photos")
    synthesis = facts.synthesis if path.is_file() and not is_set_file(path) else None
    images = facts.images if path.is_file() and not is_set_file(path) else None
    dataset = open_dataset(path, images, synthesis, limit=facts.limit)
    root = None if is_set_file(path) else images or path
    samples = list(dataset.samples)
    if darkest_first:
        samples.sort(key=lambda sample: 1.0 if sample.light is None else sample.light)
    left_out, names = 0, Counter(sample.name for sample in samples)
    for sample in samples:
        try:
            entry = _sample_entry(dataset, sample, root, _name(path))
            name = f"{entry.name} · draw {sample.draw}" if names[entry.name] > 1 else entry.name
            catalogue.images.add(replace(entry, name=name))
        except NotGivenError:
            left_out += 1
    catalogue.notes += [f"{_name(path)}: {note}" for note in notes_of(dataset)]
    if left_out:
        catalogue.notes.append(f"{_name(path)}: {left_out} images lie outside of its folder and are left out")


def _sample_entry(dataset: Dataset, sample: Sample, root: Path | None, group: str) -> ImageEntry:
    """The entry of a sample.

    Raises:
        NotGivenError: its file lies outside of the folder that was given.
    """
    stored = None
    with suppress(AdaptiveISPError):  # a file that cannot be read is said when it is opened
        stored = raw_file(dataset, sample)
    place = None if stored is None else Place.of(stored[0], root)

    def read() -> RawImage:
        if place is not None:
            place.checked()
        return dataset.read(sample)

    return ImageEntry(
        sample.name,
        group,
        read,
        sample.annotations,
        dataset.categories,
        sample.light,
        (sample.image_id, sample.draw),
        None if place is None else place.path,
    )


def json_lines(path: Path, most: int, most_bytes: int) -> list[dict[str, object]]:
    """The objects of a file of JSON lines; a last line that is not complete yet is left out, damaged ones too.

    Args:
        path: the file, which may still grow.
        most: lines that are read, from the end.
        most_bytes: bytes that are read, from the end.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - most_bytes))
        content = file.read(most_bytes)
    lines = content.split(b"\n")[:-1]
    lines = lines[1:] if size > most_bytes else lines
    found = []
    for line in lines[-most:]:
        with suppress(ValueError, RecursionError):
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(value)
    return found

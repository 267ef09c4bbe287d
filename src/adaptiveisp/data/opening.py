"""Opens the data set that DATA of the command line names, or the argument `data` in Python."""

import os
from pathlib import Path
from typing import Any

from adaptiveisp.data.dataset import Dataset, left_out, notes_of, raw_file
from adaptiveisp.data.dataset_yaml import is_set_file
from adaptiveisp.data.formats.coco import CocoRaws, limit_photos
from adaptiveisp.data.formats.folder import FolderRaws
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.data.layouts import open_set, require_labels
from adaptiveisp.data.synthetic import SynthesisConfig, SyntheticRaws
from adaptiveisp.errors import DataError, UsageError, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.config import changed
from adaptiveisp.utils.files import read_json

LABELS_FILE = "labels.json"
"""Name of the COCO JSON in a folder made by `synth`."""
SET_FILE = "set.json"
"""Name of the file in the folder above with the lights that the last run of `synth` finished: `{"lights": [...]}`."""


class JoinedRaws:
    """Several data sets as one, for instance the lights of a folder made by `synth`.

    Args:
        name: short name for tables and errors.
        parts: the data sets, whose draws differ.

    Raises:
        DataError: two data sets have different names for one class id.
    """

    def __init__(self, name: str, parts: list[CocoRaws]):
        self.name = name
        self.categories = _joined_categories(parts)
        self.partly_labelled = any(part.partly_labelled for part in parts)
        self.samples = [sample for part in parts for sample in part.samples]
        self.notes = list(dict.fromkeys(note for part in parts for note in part.notes))
        self._reader = parts[0]

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return self._reader.read(sample)

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample, and the facts known about it."""
        return self._reader.raw_file(sample)


def _joined_categories(parts: list[CocoRaws]) -> dict[int, str]:
    """Class id → name in all parts; if the labels of a part state which classes are labelled, only of those.

    Raises:
        DataError: two parts have different names for one class id.
    """
    joined: dict[int, tuple[str, str]] = {}
    for part in parts:
        for key, name in part.categories.items():
            known, source = joined.setdefault(key, (name, part.name))
            if known != name:
                raise DataError(
                    f"{part.name}: class id {key} is {shown(name)}, but {shown(known)} in {source}; "
                    "give both the same classes, or open them one by one"
                )
    lacking = {key for part in parts if part.partly_labelled for key in joined.keys() - part.categories.keys()}
    return {key: name for key, (name, _) in joined.items() if key not in lacking}


def label_files(folder: Path) -> list[Path]:
    """The label files of the lights in a folder: those that its `SET_FILE` lists, or all if there is no such file.

    Raises:
        DataError: `SET_FILE` is malformed, lists no light, or lists one without a label file.
    """
    listing = folder / SET_FILE
    if not os.path.isfile(listing):
        return sorted(folder.glob(f"*/{LABELS_FILE}"))
    remedy = "make the set again with `adaptiveisp synth --overwrite`, or open the folder of one light"
    content = read_json(listing, DataError, remedy)
    lights = content.get("lights") if isinstance(content, dict) else None
    if not isinstance(lights, list) or not all(isinstance(light, str) and _is_plain(light) for light in lights):
        raise DataError(f"{listing}: must hold the names of the lights; {remedy}")
    if not lights:
        raise DataError(f"{listing}: lists no light, the run that made it did not finish one; {remedy}")
    files = [folder / light / LABELS_FILE for light in sorted(set(lights))]
    for path in files:
        if not os.path.isfile(path):
            raise DataError(f"{path}: no such file, but {listing.name} lists its light; {remedy}")
    return files


def _is_plain(name: str) -> bool:
    """Whether a text is the name of a folder and not a path."""
    return name not in ("", ".", "..") and not any(character in name for character in "/\\\0")


def open_folder(folder: Path, limit: int = 0) -> Dataset:
    """Opens a folder made by `synth`: that of one light, or the folder above with all lights of the last run.

    Args:
        folder: the folder.
        limit: number of photos to keep from the start; 0 keeps all.

    Raises:
        DataError: the folder holds no label file, a listed light has none, or the lights disagree about a class.
    """
    if (folder / LABELS_FILE).is_file():
        return CocoRaws(folder / LABELS_FILE, folder, limit)
    parts: list[CocoRaws] = []
    offset = 0
    for labels in label_files(folder):
        part = CocoRaws(labels, labels.parent, draw_offset=offset)
        offset = 1 + max(sample.draw for sample in part.samples)
        parts.append(part)
    if not parts:
        raise DataError(
            f"{folder}: holds no {LABELS_FILE}; make one with `adaptiveisp synth`, or give a COCO JSON and --images, "
            "with --light if these are photos"
        )
    joined = JoinedRaws(str(folder), parts)
    joined.samples = limit_photos(joined.samples, limit)
    return joined


def open_dataset(
    data: str | Path,
    images: str | Path | None = None,
    synthesis: SynthesisConfig | str | None = None,
    *,
    limit: int = 0,
    light: str | None = None,
    **former: Any,
) -> Dataset:
    """Opens the data set that DATA of the command line names.

    Args:
        data: a folder made by `synth`, a COCO JSON, or a data-set YAML with or without `:SPLIT` at the end.
        images: folder of the images of a COCO JSON.
        synthesis: settings for making raws of sRGB photos; a text is the name of the light. Without it the images are
            raws.
        limit: number of photos to keep from the start; 0 keeps all.
        light: short for `synthesis=SynthesisConfig(light, …)`.
        former: other fields of `SynthesisConfig`, if `light` is given.

    Raises:
        DataError: the data set is missing or malformed.
        UsageError: the arguments contradict each other.
    """
    synthesis = _synthesis(synthesis, light, former)
    data = Path(data)
    if is_set_file(data):
        if synthesis is not None or images is not None:
            option = "--images: the YAML says where they are" if images is not None else "--light: its images are raws"
            raise UsageError(f"{data}: leave out {option}")
        dataset = open_set(data, limit)
        require_labels(dataset)
        return dataset
    # `os.path` returns False for an impossible path, such as one that is too long, where pathlib raises.
    if not os.path.exists(data):
        raise DataError(
            f"{data}: no such file or folder; give a folder made by `adaptiveisp synth`, a COCO JSON or YAML"
        )
    if data.is_dir():
        if synthesis is not None:
            raise UsageError(f"{data}: holds raws already, --light needs a COCO JSON of photos; leave out --light")
        return open_folder(data, limit)
    if images is None:
        raise UsageError(f"{data}: a COCO JSON needs --images FOLDER")
    if synthesis is None:
        return CocoRaws(data, Path(images), limit)
    return SyntheticRaws(data, Path(images), synthesis, limit)


def _synthesis(
    synthesis: SynthesisConfig | str | None, light: str | None, former: dict[str, Any]
) -> SynthesisConfig | None:
    """The synthesis from the arguments of `open_dataset`.

    Raises:
        UsageError: `synthesis` and `light` are mixed, or a field is given without a light or does not exist.
    """
    if light is None and not former:
        return SynthesisConfig(synthesis) if isinstance(synthesis, str) else synthesis
    if synthesis is not None or light is None:
        found = ", ".join(former) or "light"
        raise UsageError(f"{found}: give synthesis=SynthesisConfig(light, …) alone, or light with the fields beside it")
    return changed(SynthesisConfig(light), former, "open_dataset")


def open_unlabelled(data: Path, images: Path | None = None, limit: int = 0) -> Dataset:
    """Opens raws without using labels: those of any folder, or of a COCO JSON with or without annotations.

    Args:
        data: a folder of raw files, a folder made by `synth` (whose draws and lights are kept), a COCO JSON, or a
            data-set YAML.
        images: folder of the images of a COCO JSON.
        limit: number of photos to keep from the start; 0 keeps all.

    Raises:
        DataError: the data set is missing or malformed, or holds no raw file.
        UsageError: `images` is missing for a COCO JSON.
    """
    data = Path(data)
    if is_set_file(data):
        return open_set(data, limit, labelled=False)
    if not os.path.exists(data):
        raise DataError(f"{data}: no such file or folder; give a folder of raw files, a COCO JSON or a data-set YAML")
    if data.is_dir():
        made_by_synth = (data / LABELS_FILE).is_file() or label_files(data)
        return open_folder(data, limit) if made_by_synth else FolderRaws(data, limit)
    if images is None:
        raise UsageError(f"{data}: a COCO JSON needs --images FOLDER")
    return CocoRaws(data, images, limit, labelled=False)


__all__ = [
    "LABELS_FILE",
    "SET_FILE",
    "CocoRaws",
    "Dataset",
    "FolderRaws",
    "LabelledRaws",
    "SynthesisConfig",
    "SyntheticRaws",
    "is_set_file",
    "left_out",
    "notes_of",
    "open_dataset",
    "open_folder",
    "open_unlabelled",
    "raw_file",
]

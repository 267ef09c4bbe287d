"""Opens all splits of a data set for `doctor`; invalid labels are collected instead of raised."""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from adaptiveisp.data.annotations import SetConfig, SetOptions
from adaptiveisp.data.dataset_yaml import split_spec
from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.labelled import LabelledRaws
from adaptiveisp.data.layouts import open_config, read_config, splits_of
from adaptiveisp.data.opening import LABELS_FILE, Dataset, FolderRaws, is_set_file, label_files
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.types import RawImage, Sample


@dataclass(frozen=True)
class UnusablePart:
    """A split that cannot be read, for instance because its folder is missing, in a data set with other splits.

    Attributes:
        name: name of the split in errors.
        reason: the reason, in one line.
    """

    name: str
    reason: str
    samples: tuple[Sample, ...] = ()
    categories: dict[int, str] = field(default_factory=dict)

    def read(self, sample: Sample) -> RawImage:
        """Raises the reason why the split cannot be read.

        Raises:
            DataError: always.
        """
        raise DataError(self.reason)


def open_parts(data: Path, images: Path | None = None, limit: int = 0) -> list[tuple[str, Dataset]]:
    """Opens the splits that DATA names; problems of single labels are collected instead of raised.

    Args:
        data: a data-set YAML (the split that DATA names, otherwise all), a folder made by `synth`, a folder of raws,
            or a COCO JSON.
        images: folder of the images of a COCO JSON.
        limit: number of photos to keep from the start of each split; 0 keeps all.

    Raises:
        DataError: the data set is missing or malformed as a whole, or none of its splits can be read.
        UsageError: the arguments contradict each other.
    """
    if is_set_file(data):
        config = read_config(data)
        names = () if split_spec(data)[1] else splits_of(config)  # a split that DATA names is opened alone
        if not names:
            return [(config.options.split, open_config(config, limit, strict=False))]
        parts = [(name, replace(config, options=replace(config.options, split=name))) for name in names]
        opened = [(name, _open_part(part, limit)) for name, part in parts]
        if all(isinstance(dataset, UnusablePart) for _, dataset in opened):
            open_config(parts[0][1], limit, strict=False)  # raises the error of the first split
        return opened
    if not os.path.exists(data):
        raise DataError(f"{data}: no such file or folder; give a folder, a COCO JSON with --images, or a data-set YAML")
    if data.is_dir():
        found = [data / LABELS_FILE] if (data / LABELS_FILE).is_file() else label_files(data)
        if not found:
            return [("", FolderRaws(data, limit))]
        return [("" if len(found) == 1 else path.parent.name, _coco(path, path.parent, limit)) for path in found]
    if images is None:
        raise UsageError(f"{data}: a COCO JSON needs --images FOLDER")
    return [("", _coco(data, images, limit))]


def _open_part(config: SetConfig, limit: int) -> Dataset:
    """Opens a split; one that cannot be read becomes an `UnusablePart`."""
    try:
        return open_config(config, limit, strict=False)
    except DataError as error:
        return UnusablePart(f"{config.path}:{config.options.split}", str(error))


def _coco(labels: Path, images: Path, limit: int) -> LabelledRaws:
    options = SetOptions(labels=str(labels.resolve()), images=str(images.resolve()), annotations="coco")
    return open_config(SetConfig(labels, "coco", images, options), limit, strict=False)


def why_refused(dataset: Dataset) -> str:
    """The reason why `train` and `eval` refuse the labels of a part from `open_parts`, with the remedy, or ""."""
    if not isinstance(dataset, LabelledRaws):
        return ""
    if is_set_file(dataset.config.path):
        return dataset.refusal
    try:  # without a YAML, these commands use `load_coco`, whose checks differ from those of the layout
        load_coco(dataset.config.path)
    except DataError as error:
        single = any(problem.kind in ("bad label", "bad box") for problem in dataset.problems)
        drop = ", or name the JSON in a data-set YAML with layout: coco and bad-labels: drop"
        return f"{error}{drop if single else ''}"
    return ""

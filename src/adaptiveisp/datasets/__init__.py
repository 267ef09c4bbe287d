"""Data sets, opened by what the command line was given."""

from pathlib import Path

from adaptiveisp.datasets.coco import CocoRaws, limit_photos
from adaptiveisp.datasets.dataset import Dataset
from adaptiveisp.datasets.synthetic import SyntheticRaws
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.unprocess import NoiseName

LABELS_FILE = "labels.json"
"""Name of the COCO JSON in a folder made by `synth`."""


class JoinedRaws:
    """Several data sets as one, for instance the lights of a folder made by `synth`."""

    def __init__(self, name: str, parts: list[CocoRaws]):
        self.name = name
        self.categories = {key: value for part in parts for key, value in part.categories.items()}
        self.samples = [sample for part in parts for sample in part.samples]
        self._reader = parts[0]

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return self._reader.read(sample)


def open_folder(folder: Path, limit: int = 0) -> Dataset:
    """The raws of a folder made by `synth`: one light, or the folder above with all of them.

    Raises:
        DataError: it holds no label file.
    """
    if (folder / LABELS_FILE).is_file():
        return CocoRaws(folder / LABELS_FILE, folder, limit)
    parts: list[CocoRaws] = []
    offset = 0
    for labels in sorted(folder.glob(f"*/{LABELS_FILE}")):
        part = CocoRaws(labels, labels.parent, draw_offset=offset)
        offset = 1 + max(sample.draw for sample in part.samples)
        parts.append(part)
    if not parts:
        raise DataError(
            f"{folder}: holds no {LABELS_FILE}; make one with `adaptiveisp synth`, or give a COCO JSON and --images"
        )
    joined = JoinedRaws(str(folder), parts)
    joined.samples = limit_photos(joined.samples, limit)
    return joined


def open_dataset(
    data: Path,
    images: Path | None = None,
    light: str | None = None,
    draws: int = 1,
    noise: NoiseName = "sensor",
    seed: int = 0,
    limit: int = 0,
) -> Dataset:
    """The data set that DATA of the command line names.

    Args:
        data: a folder made by `synth`, or a COCO JSON.
        images: folder of the images of a COCO JSON.
        light: with it the images are sRGB photos and raws are made on the fly; without it they are raws.
        draws, noise, seed: of the raws made on the fly.
        limit: keep the first so many photos; 0 keeps all.

    Raises:
        DataError: it is missing or malformed.
        UsageError: the arguments contradict each other.
    """
    data = Path(data)
    if not data.exists():
        raise DataError(f"{data}: no such file or folder; give a folder made by `adaptiveisp synth`, or a COCO JSON")
    if data.is_dir():
        if light is not None:
            raise UsageError(f"{data}: holds raws already, --light needs a COCO JSON of photos; leave out --light")
        return open_folder(data, limit)
    if images is None:
        raise UsageError(f"{data}: a COCO JSON needs --images FOLDER")
    if light is None:
        return CocoRaws(data, images, limit)
    return SyntheticRaws(data, images, light, draws, noise, seed, limit)


__all__ = ["LABELS_FILE", "CocoRaws", "Dataset", "SyntheticRaws", "open_dataset", "open_folder"]

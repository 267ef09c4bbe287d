"""`synth`: a labelled synthetic raw set on disk, made from labelled photos."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.datasets import LABELS_FILE
from adaptiveisp.datasets.synthetic import SyntheticRaws
from adaptiveisp.dng import write_dng
from adaptiveisp.errors import AdaptiveISPError, DataError, OutputError
from adaptiveisp.files import write_json
from adaptiveisp.raw import write_png16
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.unprocess import NoiseName

FORMATS = ("png16", "dng")
EXTENSIONS = {"png16": ".png", "dng": ".dng"}


@dataclass(frozen=True)
class SynthOptions:
    """What to make.

    Attributes:
        lights: names of brightness ranges; each becomes a folder with its own labels.
        draws: random cameras, lights and noises per photo.
        format: "png16", demosaiced linear RGB, or "dng", a Bayer mosaic.
        noise: name of the noise model.
        seed: with image id and draw it fixes all randomness.
        limit: make only the first so many photos; 0 makes all.
    """

    lights: tuple[str, ...]
    draws: int = 1
    format: str = "png16"
    noise: NoiseName = "sensor"
    seed: int = 0
    limit: int = 0


@dataclass(frozen=True)
class SynthSummary:
    """What was made: number of files per light, and the photos that could not be used with the reason."""

    written: dict[str, int]
    skipped: list[tuple[str, str]]


def synthesise_set(
    labels: Path,
    images: Path,
    out: Path,
    options: SynthOptions,
    provenance: dict[str, Any],
    on_image: Callable[[str], None] = lambda name: None,
) -> SynthSummary:
    """Writes OUT/<light>/images/…, and OUT/<light>/labels.json last, so that labels never promise a missing file.

    Args:
        labels: COCO JSON of the photos.
        images: folder of the photos.
        out: output folder, which exists.
        options: what to make.
        provenance: kept in each label file.
        on_image: called with each file's name, for progress.

    Raises:
        DataError: no photo could be used.
        OutputError: the folder cannot be written or the disk is full.
    """
    written: dict[str, int] = {}
    skipped: list[tuple[str, str]] = []
    for light in options.lights:
        dataset = SyntheticRaws(
            labels, images, light, options.draws, options.noise, options.seed, options.limit, options.format == "dng"
        )
        entries: list[tuple[Sample, str]] = []
        for sample in dataset.samples:
            name = f"images/{Path(sample.name).with_suffix('')}_{sample.draw}{EXTENSIONS[options.format]}"
            try:
                raw = dataset.read(sample)
                if raw.data.shape[:2] != (sample.height, sample.width):
                    found = f"{raw.data.shape[1]}x{raw.data.shape[0]}"
                    raise DataError(f"{sample.source}: is {found}, its labels say {sample.width}x{sample.height}")
                _write(raw, out / light / name)
                entries.append((sample, name))
            except OutputError:
                raise
            except AdaptiveISPError as error:
                skipped.append((str(sample.source), str(error)))
            on_image(name)
        if entries:
            write_json(out / light / LABELS_FILE, _labels(dataset, entries, light, options, provenance))
        written[light] = len(entries)
    if not any(written.values()):
        raise DataError(skipped[0][1] if skipped else f"{labels}: lists no images")
    return SynthSummary(written, skipped)


def _write(raw: RawImage, path: Path) -> None:
    if raw.pattern is None:
        write_png16(raw.data, path, raw.unprocessing)
    else:
        write_dng(raw, path)


def _labels(
    dataset: SyntheticRaws,
    entries: list[tuple[Sample, str]],
    light: str,
    options: SynthOptions,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """COCO JSON of the written files; each entry records its photo, draw, brightness and how it was made."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (sample, name) in enumerate(entries, 1):
        images.append(
            {
                "id": image_id,
                "file_name": name,
                "width": sample.width,
                "height": sample.height,
                "photo": sample.name,
                "photo_id": sample.image_id,
                "draw": sample.draw,
                "light_name": light,
                "light": sample.light,
                "unprocessing": asdict(dataset.unprocessing(sample.image_id, sample.draw)),
            }
        )
        annotations += [
            {"id": len(annotations) + number, "image_id": image_id, **asdict(annotation)}
            for number, annotation in enumerate(sample.annotations, 1)
        ]
    info = {"description": f"synthetic raws, light {light}", "options": asdict(options), "provenance": provenance}
    categories = [{"id": key, "name": name} for key, name in dataset.categories.items()]
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}

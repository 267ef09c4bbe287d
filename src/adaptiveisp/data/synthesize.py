"""Writes a labelled set of raws made from labelled photos: `synthesize`, which the command `synth` calls."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.formats.coco_ids import LABELLED
from adaptiveisp.data.opening import LABELS_FILE, SET_FILE
from adaptiveisp.data.synthetic import SynthesisConfig, SyntheticRaws
from adaptiveisp.errors import DataError, OutputError, OutputNameError, UsageError, logger, skip_reason
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.noise import CameraNoise
from adaptiveisp.raw.reader import write_png16
from adaptiveisp.raw.synthesis_metadata import note_entries
from adaptiveisp.raw.unprocess import NOISES
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.files import check_length, write_json
from adaptiveisp.utils.output_folder import check_inside, claim_folder, remove_inside
from adaptiveisp.utils.provenance import provenance

EXTENSIONS = {"png16": ".png", "dng": ".dng"}


@dataclass(frozen=True)
class SynthesisSummary:
    """The result of `synthesize`.

    Attributes:
        written: light → number of raws.
        skipped: the photos that could not be used, each with the reason.
        provenance: provenance of the run, as in the label files.
    """

    written: dict[str, int]
    skipped: list[tuple[str, str]]
    provenance: dict[str, Any] = field(default_factory=dict)


def _ignore(name: str) -> None:
    """Ignores a name, if no progress is shown."""


def synthesize(
    config: SynthesisConfig,
    data: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    limit: int = 0,
    overwrite: bool = False,
    on_image: Callable[[str], None] = _ignore,
) -> SynthesisSummary:
    """Writes a labelled set of raws made from labelled photos, as the command `synth` does.

    Args:
        config: lights, draws, noise, seed and format of the raws; each light becomes a folder with its own labels.
        data: COCO JSON of the photos.
        images: folder of the photos.
        out: output folder: OUT/<light>/images/…, OUT/<light>/labels.json, and OUT/set.json with the lights.
        limit: number of photos to use from the start; 0 uses all.
        overwrite: whether a folder of an earlier `synth` may be overwritten.
        on_image: called with the name of each raw, for progress.

    Raises:
        DataError: the JSON is missing or malformed, or no photo could be used.
        OutputError: the folder cannot be written or the disk is full.
        UsageError: the folder exists already, is in use, or was not made by `synth`; or the run would replace the
            labels.
    """
    for note in load_coco(Path(data)).notes:
        logger.warning("%s: %s", data, note)
    with claim_folder(Path(out), "synth", overwrite) as claim:
        origin = provenance(config.seed)
        return synthesize_set(Path(data), Path(images), claim.folder, config, origin, on_image, limit)


def synthesize_set(
    labels: Path,
    images: Path,
    out: Path,
    config: SynthesisConfig,
    provenance: dict[str, Any],
    on_image: Callable[[str], None] = _ignore,
    limit: int = 0,
) -> SynthesisSummary:
    """Writes OUT/<light>/images/…, then OUT/<light>/labels.json, and the light's name into OUT/set.json.

    A label file never lists a missing raw, even after an interrupt: the label file of an earlier run is removed before
    the first raw of its light is written. After a light is finished, raws that an earlier run made of the same photos
    and this run did not write are removed. A run that cannot use any photo changes nothing.

    Args:
        labels, images, out: see `synthesize`; the folder `out` belongs to this process.
        config: settings of the raws.
        provenance: provenance that is stored in each label file.
        on_image, limit: see `synthesize`.

    Raises:
        DataError: no photo could be used.
        OutputError: the folder cannot be written or the disk is full.
        UsageError: the run would replace the labels.
    """
    for light in config.lights:
        if (out / light / LABELS_FILE).resolve() == Path(labels).resolve():
            raise UsageError(f"{labels}: would be replaced by this run; choose another --out")
    options = {"lights": config.lights, "draws": config.draws, "format": config.format}
    options |= {"noise": config.noise, "seed": config.seed, "limit": limit}
    if isinstance(config.noise_model, CameraNoise) and config.noise not in NOISES:
        options["noise_model"] = asdict(config.noise_model)  # a file can change or be lost
    options |= config.recorded_sensor()
    writer = _SetWriter(out, options, provenance, on_image)
    written = {}
    for light in config.lights:
        written[light] = writer.write_light(SyntheticRaws(labels, images, replace(config, light=light), limit))
    if not writer.finished:
        raise DataError(writer.skipped[0][1] if writer.skipped else f"{labels}: lists no images")
    return SynthesisSummary(written, writer.skipped, provenance)


@dataclass
class _SetWriter:
    """Writes the lights of a set one after the other.

    Attributes:
        out: folder of the set.
        options, provenance: stored in each label file.
        on_image: called with the name of each raw.
        finished: the lights whose labels are written.
        skipped: the photos that could not be used, each with the reason.
    """

    out: Path
    options: dict[str, Any]
    provenance: dict[str, Any]
    on_image: Callable[[str], None]
    finished: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    _has_started: bool = False

    def write_light(self, dataset: SyntheticRaws) -> int:
        """Writes the raws of a light, then its labels; returns how many raws there are."""
        light, extension = dataset.synthesis.light, EXTENSIONS[dataset.synthesis.format]
        stems = output_stems(dataset.file_names)
        entries: list[tuple[Sample, str]] = []
        labels_withdrawn = False
        for sample in dataset.samples:
            name = f"images/{stems[sample.image_id]}_{sample.draw}{extension}"
            try:
                raw = _read(dataset, sample)
                self._check_place(light, name)
                if not self._has_started:
                    _write_set(self.out, [], self.provenance)
                    self._has_started = True
                if not labels_withdrawn:
                    _withdraw_labels(self.out / light)
                    labels_withdrawn = True
                _write(raw, self.out / light / name)
                entries.append((sample, name))
            except Exception as error:  # no error in one photo may stop the run
                if isinstance(error, OutputError) and not isinstance(error, OutputNameError):
                    raise
                self.skipped.append((str(sample.source), skip_reason(str(sample.source), error)))
            self.on_image(name)
        if entries:
            labels = _labels(dataset, entries, light, self.options, self.provenance)
            write_json(self.out / light / LABELS_FILE, labels)
            self.finished.append(light)
            _write_set(self.out, self.finished, self.provenance)
            _remove_stale(self.out / light, stems.values(), [name for _, name in entries])
        return len(entries)

    def _check_place(self, light: str, name: str) -> None:
        """Refuses a raw whose name is too long, or whose path leaves the folder of its light through a link."""
        check_inside(self.out / light / "images", self.out / light / name)
        check_inside(self.out, self.out / light / name)
        check_length(self.out / light / name)


def output_stems(file_names: Mapping[int, str]) -> dict[int, str]:
    """Image id → path of its raws below `images` without draw and extension, different for each image.

    This is the photo's path without its extension. Photos that differ only in the extension keep it, and several
    entries of one photo are followed by their ids. Names that differ only in case count as equal, as on some systems.

    >>> output_stems({1: "a.jpg", 2: "a.png", 3: "b/c.jpg", 4: "d.jpg", 5: "d.jpg"})
    {3: 'b/c', 1: 'a.jpg', 2: 'a.png', 4: 'd.jpg-4', 5: 'd.jpg-5'}
    """
    full = {key: Path(name).as_posix() for key, name in file_names.items()}
    short = {key: name.removesuffix(Path(name).suffix) for key, name in full.items()}
    counts = Counter(name.casefold() for name in short.values())
    full_counts = Counter(name.casefold() for name in full.values())
    stems = {key: name for key, name in short.items() if counts[name.casefold()] == 1}
    used = {name.casefold() for name in stems.values()}
    for key, name in full.items():
        if key in stems:
            continue
        stem = name if full_counts[name.casefold()] == 1 and name.casefold() not in used else f"{name}-{key}"
        while stem.casefold() in used:
            stem += "-"
        stems[key] = stem
        used.add(stem.casefold())
    return stems


def _write_set(out: Path, lights: list[str], provenance: dict[str, Any]) -> None:
    """Writes the list of finished lights, which is empty while the first is made, so that no older set is used."""
    write_json(out / SET_FILE, {"version": 1, "lights": lights, "provenance": provenance})


def _withdraw_labels(folder: Path) -> None:
    """Removes the label file of an earlier run, which would not describe the raws that are written next.

    Raises:
        OutputError: the file cannot be removed.
    """
    remove_inside(folder.parent, folder / LABELS_FILE)


def _remove_stale(folder: Path, stems: Iterable[str], written: Iterable[str]) -> None:
    """Removes raws of other draws or of the other format that an earlier run made of the same photos.

    They are recognised by the naming scheme of `synth`, and not by a list in a file, which could name any file.

    Args:
        folder: folder of one light.
        stems: stems of the photos, see `output_stems`.
        written: names below `folder` that this run wrote.

    Raises:
        OutputError: a file cannot be removed.
    """
    # On some file systems, names that differ only in case are the same file.
    kept = {name.casefold() for name in written}
    wanted = set(stems)
    for parent in sorted({Path(stem).parent for stem in wanted}):
        place = folder / "images" / parent
        for name in sorted(entry.name for entry in os.scandir(place)) if place.is_dir() else ():
            match = re.fullmatch(r"(.+)_[0-9]+\.(png|dng)", name)
            full = (Path("images") / parent / name).as_posix()
            if match and (parent / match[1]).as_posix() in wanted and full.casefold() not in kept:
                remove_inside(folder.parent, folder / full)


def _read(dataset: SyntheticRaws, sample: Sample) -> RawImage:
    """The raw of a sample.

    Raises:
        DataError: the size of the raw is not that in the labels.
    """
    raw = dataset.read(sample)
    if raw.data.shape[:2] != (sample.height, sample.width):
        found = f"{raw.data.shape[1]}x{raw.data.shape[0]}"
        raise DataError(f"{sample.source}: is {found}, its labels say {sample.width}x{sample.height}")
    return raw


def _write(raw: RawImage, path: Path) -> None:
    if raw.pattern is None:
        write_png16(raw.data, path, raw.unprocessing)
    else:
        write_dng(raw, path)


def _labels(
    dataset: SyntheticRaws,
    entries: list[tuple[Sample, str]],
    light: str,
    options: dict[str, Any],
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """COCO JSON of the written files; each entry records its photo, draw, brightness and unprocessing."""
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
                "unprocessing": note_entries(dataset.unprocessing(sample.image_id, sample.draw)),
            }
        )
        annotations += [
            {"id": len(annotations) + number, "image_id": image_id, **asdict(annotation)}
            for number, annotation in enumerate(sample.annotations, 1)
        ]
    info: dict[str, Any] = {
        "description": f"synthetic raws, light {light}",
        "options": options,
        "provenance": provenance,
    }
    if dataset.partly_labelled:
        info[LABELLED] = list(dataset.categories)
    categories = [{"id": key, "name": name} for key, name in dataset.categories.items()]
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}

"""`synth`: a labelled synthetic raw set on disk, made from labelled photos."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.data.opening import LABELS_FILE, SET_FILE
from adaptiveisp.data.synthetic import SyntheticRaws
from adaptiveisp.errors import DataError, OutputError, OutputNameError, UsageError, skip_reason
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import write_png16
from adaptiveisp.raw.unprocess import NoiseName
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.files import check_length, write_json
from adaptiveisp.utils.output_folder import check_inside, remove_inside

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
    """Writes OUT/<light>/images/…, then OUT/<light>/labels.json, and the light's name into OUT/set.json.

    Labels never promise a missing file, also not after an interrupt: those of an earlier run are removed before the
    first image of their light is written, and afterwards its images of the same photos that this run did not write.
    A run that can use no photo leaves everything as it was.

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
        UsageError: the labels are a file that the run would replace.
    """
    written: dict[str, int] = {}
    skipped: list[tuple[str, str]] = []
    finished: list[str] = []
    started = False
    withdrawn: set[str] = set()
    for light in options.lights:
        if (out / light / LABELS_FILE).resolve() == Path(labels).resolve():
            raise UsageError(f"{labels}: would be replaced by this run; choose another --out")
    for light in options.lights:
        dataset = SyntheticRaws(
            labels, images, light, options.draws, options.noise, options.seed, options.limit, options.format == "dng"
        )
        stems = output_stems(dataset.file_names)
        entries: list[tuple[Sample, str]] = []
        for sample in dataset.samples:
            name = f"images/{stems[sample.image_id]}_{sample.draw}{EXTENSIONS[options.format]}"
            try:
                raw = _read(dataset, sample)
                check_inside(out / light / "images", out / light / name)
                check_inside(out, out / light / name)
                check_length(out / light / name)
                if not started:
                    _write_set(out, [], provenance)
                    started = True
                if light not in withdrawn:
                    _withdraw_labels(out / light)
                    withdrawn.add(light)
                _write(raw, out / light / name)
                entries.append((sample, name))
            except Exception as error:  # whatever one photo does, the others go on
                if isinstance(error, OutputError) and not isinstance(error, OutputNameError):
                    raise
                skipped.append((str(sample.source), skip_reason(str(sample.source), error)))
            on_image(name)
        if entries:
            write_json(out / light / LABELS_FILE, _labels(dataset, entries, light, options, provenance))
            finished.append(light)
            _write_set(out, finished, provenance)
            _remove_stale(out / light, stems.values(), [name for _, name in entries])
        written[light] = len(entries)
    if not finished:
        raise DataError(skipped[0][1] if skipped else f"{labels}: lists no images")
    return SynthSummary(written, skipped)


def output_stems(file_names: Mapping[int, str]) -> dict[int, str]:
    """Image id → path of its raws below `images` without draw and extension, different for each image.

    The photo's own path without its extension; photos that differ in the extension only keep it, and entries of one
    photo get their id too. Names that differ in upper and lower case only count as the same, as on some disks they are.

    >>> output_stems({1: "a.jpg", 2: "a.png", 3: "b/c.jpg", 4: "d.jpg", 5: "d.jpg"})
    {3: 'b/c', 1: 'a.jpg', 2: 'a.png', 4: 'd.jpg-4', 5: 'd.jpg-5'}
    """
    full = {key: Path(name).as_posix() for key, name in file_names.items()}
    short = {key: name.removesuffix(Path(name).suffix) for key, name in full.items()}
    counts = Counter(name.casefold() for name in short.values())
    full_counts = Counter(name.casefold() for name in full.values())
    stems = {key: name for key, name in short.items() if counts[name.casefold()] == 1}
    taken = {name.casefold() for name in stems.values()}
    for key, name in full.items():
        if key in stems:
            continue
        stem = name if full_counts[name.casefold()] == 1 and name.casefold() not in taken else f"{name}-{key}"
        while stem.casefold() in taken:
            stem += "-"
        stems[key] = stem
        taken.add(stem.casefold())
    return stems


def _write_set(out: Path, lights: list[str], provenance: dict[str, Any]) -> None:
    """Writes which lights are finished: none while the first is being made, so that no older one is taken for it."""
    write_json(out / SET_FILE, {"version": 1, "lights": lights, "provenance": provenance})


def _withdraw_labels(folder: Path) -> None:
    """Removes the label file of an earlier run, which the images to come would contradict.

    Raises:
        OutputError: it cannot be removed.
    """
    remove_inside(folder.parent, folder / LABELS_FILE)


def _remove_stale(folder: Path, stems: Iterable[str], written: Iterable[str]) -> None:
    """Removes raws of other draws or of the other format that an earlier run made of the same photos.

    They are found by the names that `synth` gives, never by a list in a file: that may come from anybody.

    Args:
        folder: of one light.
        stems: of the photos, see `output_stems`.
        written: names below `folder` that this run wrote.

    Raises:
        OutputError: one cannot be removed.
    """
    # Upper and lower case may be the same file.
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
    """The raw of a sample, its size checked."""
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

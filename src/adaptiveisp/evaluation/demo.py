"""The command `demo`: policies and a detector on four photos of scikit-image, made into DNGs at three light levels."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.opening import LABELS_FILE, open_folder
from adaptiveisp.detectors.backends.choice import backends_of, with_backend
from adaptiveisp.detectors.boxes import as_annotations
from adaptiveisp.detectors.letterbox import resize_longer_side
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.evaluation.html_report import figure_png
from adaptiveisp.evaluation.photo_sheet import compared_photos
from adaptiveisp.evaluation.report import Report, build_report
from adaptiveisp.evaluation.result import notes_on
from adaptiveisp.inference.detection import detect
from adaptiveisp.inference.drawing import Tile, draw_found
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.unprocess import draw_unprocessing, seeded_generator, synthesise_mosaic
from adaptiveisp.types import Detections, Detector
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.files import write_json
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.provenance import provenance

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
"""scikit-image's photos, public domain or CC0."""
LIGHTS = {"bright": 0.5, "dim": 0.05, "dark": 0.01}
"""Brightness factors of the three draws."""
REFERENCE_CONFIDENCE = 0.5
"""Lowest score of a box on the clean photo that becomes a reference label."""
POLICIES = ("none", "auto-exposure", "camera", "coco-adaptive")
FIGURE_LIGHT = "dark"

Picture = Float[Tensor, "3 height width"]


def run_demo(
    out: Path,
    detector_spec: str,
    seed: int,
    device: str,
    size: int,
    on_image: Callable[[str], None] = lambda name: None,
    backend: str = "auto",
    precision: str = "auto",
) -> Report:
    """Writes DNGs, labels, report.json, report.html and figure.png into `out` and returns the report.

    Args:
        out: output folder, which exists.
        detector_spec: see `load_detector`.
        seed: seed of the cameras and the noise.
        device: where modules and detector run.
        size: longer side in pixels. The photos are close-ups: YOLOv3-tiny finds neither the astronaut nor the cat at
            the usual 416, but finds both at 224.
        on_image: called after each image, for progress.
        backend, precision: how the detector's network is run, see `detectors.backends.choice.with_backend`.

    Raises:
        DataError: the detector finds nothing on any clean photo.
        AdaptiveISPError: scikit-image or the weights are missing.
    """
    detector = with_backend(load_detector(detector_spec, device), backend, precision, size)
    photos = {name: load_photo(name) for name in PHOTOS}
    references = {name: reference_boxes(detector, photo.to(device), size) for name, photo in photos.items()}
    backends = {detector.name: backends_of(detector)}
    origin = provenance(seed, {detector.name: detector.weights_sha256}, backends=backends)
    write_raws(photos, references, detector, out / "raws", seed, origin)
    dataset = open_folder(out / "raws")
    policies = [load_policy(name) for name in POLICIES]
    options = ScoringOptions(size, device=device)
    found = score_dataset(dataset, policies, [detector], options, on_image)
    notes = [
        f"Reference: the boxes (score {REFERENCE_CONFIDENCE} or more) that {detector.name} itself finds on the clean "
        f"photos. Four photos illustrate the method but are too few to measure it. Everything ran at --size {size}, "
        "since the photos are close-ups. Boxes with a score of 25 % or more are drawn; average precision counts all.",
        *notes_on(found, dataset),
    ]
    settings = {"size": size, "lights": LIGHTS, "reference_confidence": REFERENCE_CONFIDENCE}
    report = build_report(found.results, found.categories, origin, notes, 200, seed, settings=settings)
    grid = compared_photos(
        dataset, policies, [detector], options, found, report, photo=lambda sample: photos[sample.name.split("-")[0]]
    )
    report = replace(report, photos=grid, title="adaptiveisp demo")
    report.save(out)
    draw_figure(out, photos, references, [AdaptiveISP(p, detector, size, device=device) for p in policies])
    return report


def load_photo(name: str) -> Picture:
    """One of `PHOTOS` as sRGB code values in [0, 1], with even sides so that every Bayer block is whole."""
    pixels: np.ndarray = getattr(import_extra_photos(), name)()
    even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
    return torch.from_numpy(even.copy()).permute(2, 0, 1).float() / 255


def import_extra_photos() -> Any:
    """scikit-image's module of photos."""
    return import_extra("skimage.data", "demo")


def reference_boxes(detector: Detector, photo: Picture, size: int) -> Detections:
    """The boxes on the clean photo, in its pixels, to which the detector gives at least `REFERENCE_CONFIDENCE`."""
    small = resize_longer_side(photo, size)[None]
    return detect(detector, [small], (photo.shape[1], photo.shape[2]), size, REFERENCE_CONFIDENCE)[0]


def write_raws(
    photos: dict[str, Picture],
    references: dict[str, Detections],
    detector: Detector,
    folder: Path,
    seed: int,
    origin: dict[str, Any],
) -> None:
    """Writes a DNG of each photo under each light, and their reference boxes as COCO labels."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for photo_id, (name, photo) in enumerate(photos.items(), 1):
        camera = draw_unprocessing(seeded_generator(seed, photo_id, 0, "parameters"), "mixed", "sensor")
        for draw, (light_name, light) in enumerate(LIGHTS.items()):
            raw = synthesise_mosaic(
                photo, replace(camera, light=light), seeded_generator(seed, photo_id, draw, "noise")
            )
            file_name = f"{name}-{light_name}.dng"
            write_dng(raw, folder / file_name)
            image_id = len(images) + 1
            images.append(
                {
                    "id": image_id,
                    "file_name": file_name,
                    "width": photo.shape[2],
                    "height": photo.shape[1],
                    "photo_id": photo_id,
                    "draw": draw,
                    "light": light,
                }
            )
            for annotation in as_annotations(references[name]):
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **asdict(annotation)})
    if not annotations:
        raise DataError(f"{detector.name}: finds nothing on the clean demo photos; choose another --detector")
    categories = [{"id": label, "name": name} for label, name in enumerate(detector.class_names)]
    info = {"description": "demo: reference boxes by the detector itself", "provenance": origin}
    write_json(
        folder / LABELS_FILE, {"info": info, "images": images, "annotations": annotations, "categories": categories}
    )


def draw_figure(
    out: Path, photos: dict[str, Picture], references: dict[str, Detections], predictors: list[AdaptiveISP]
) -> None:
    """Writes figure.png: a row for each photo; columns are the clean photo and each policy on its dark DNG."""
    rows: list[list[Tile]] = []
    names = predictors[0].detector.class_names
    for name, photo in photos.items():
        small = to_uint8(resize_longer_side(photo, predictors[0].size))
        tiles = [Tile(draw_found(small, references[name], names, photo.shape[2]), "")]
        for predictor in predictors:
            result = predictor(out / "raws" / f"{name}-{FIGURE_LIGHT}.dng")
            tiles.append(Tile(result.drawn(), ""))
        rows.append(tiles)
    titles = ["clean photo (reference)", *(predictor.policy.name for predictor in predictors)]
    figure_png(out / "figure.png", rows, titles, [f"{name}, light {LIGHTS[FIGURE_LIGHT]}" for name in photos])

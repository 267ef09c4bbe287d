"""The raws that the viewer opens without inputs: the demo's photos, in the dark and dimmer, made into DNGs."""

import shutil
from pathlib import Path

from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.demo import PHOTOS, import_extra_photos, load_photo, reference_boxes, write_raws
from adaptiveisp.serving.entries import Catalogue
from adaptiveisp.serving.no_detector import NoDetector
from adaptiveisp.serving.opening import InputFacts, add_dataset, fill
from adaptiveisp.types import Detections, Detector

SAMPLE_SIZE = 224
"""Longer side at which the samples are looked at: they are close-ups, as in the demo."""
FOLDER = "samples"


def add_samples(catalogue: Catalogue, detector: Detector, folder: Path, seed: int) -> None:
    """Writes the samples and adds them; their labels are the detector's own boxes in the clean photos.

    Args:
        catalogue: to fill.
        detector: finds the labels.
        folder: temporary folder.
        seed: of cameras and noise.

    Raises:
        AdaptiveISPError: scikit-image, which has the photos, is not installed.
    """
    import_extra_photos()
    photos = {name: load_photo(name) for name in PHOTOS}
    place = folder / FOLDER
    try:
        references = {name: reference_boxes(detector, photo, SAMPLE_SIZE) for name, photo in photos.items()}
        write_raws(photos, references, detector, place, seed, {})
    except DataError:  # a detector that finds none of them, or no detector
        shutil.rmtree(place, ignore_errors=True)
        box = photos[PHOTOS[0]].new_tensor([[0.0, 0.0, 8.0, 8.0]])
        shown = {name: Detections(box, box[0, :1], box[0, :1].long()) for name in photos}
        write_raws(photos, shown, NoDetector(), place, seed, {})
        add_files_only(catalogue, place)
        return
    add_dataset(catalogue, place, InputFacts(), darkest_first=True)
    catalogue.notes.append(
        f"samples: photos in the public domain or under CC0; labels are what {detector.name} finds in the clean photos"
    )


def add_files_only(catalogue: Catalogue, place: Path) -> None:
    """Adds the samples without labels."""
    (place / "labels.json").unlink()
    fill(catalogue, [str(place)], InputFacts())

"""Writes detections as COCO results, which other evaluation tools read, and the labels they were scored with."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_dictionaries
from adaptiveisp.utils.files import atomic_path, write_json
from adaptiveisp.utils.output_folder import remove_inside

if TYPE_CHECKING:
    from adaptiveisp.evaluation.report import Report

FOLDER, TRUTH_FILE = "coco", "ground-truth.json"
RESULTS_NAME = re.compile(r".+--.+\.json")
"""Matches the file names of results, `POLICY--DETECTOR.json`."""
BOX_DIGITS = 3
"""Decimals of box coordinates in pixels; a thousandth of a pixel hardly changes an overlap."""


def image_ids(images: Sequence[ScoredImage]) -> dict[tuple[int, int], int]:
    """(image id, draw) → id in the files: the data set's own id if each image occurs once, otherwise 1, 2, ….

    Args:
        images: scored images in any order; new ids follow the order of (image id, draw).
    """
    keys = sorted(image.key for image in images)
    own = [image_id for image_id, _ in keys]
    # COCO's evaluation takes id 0 for "none".
    usable = len(set(own)) == len(own) and min(own, default=1) > 0
    return {key: key[0] if usable else number for number, key in enumerate(keys, 1)}


def ground_truth(images: Sequence[ScoredImage], categories: Mapping[int, str]) -> dict[str, Any]:
    """The labels that were scored, as a COCO data set.

    Args:
        images: all images that any policy was scored on.
        categories: id → name of the classes that were scored.
    """
    ids = image_ids(images)
    labels, _ = coco_dictionaries(images, list(categories), ids)
    entries = [
        {"id": ids[image.key], "photo_id": image.image_id, "draw": image.draw, "light": image.light}
        for image in sorted(images, key=lambda image: image.key)
    ]
    names = [{"id": category, "name": name} for category, name in categories.items()]
    return {"images": entries, "annotations": labels, "categories": names}


def results(
    images: Sequence[ScoredImage], categories: Mapping[int, str], ids: Mapping[tuple[int, int], int]
) -> list[dict[str, Any]]:
    """One policy's detections with one detector, as COCO results: image_id, category_id, bbox (xywh, pixels), score.

    Args:
        images: scored images.
        categories: the classes that were scored; detections of others are left out.
        ids: see `image_ids`.
    """
    _, found = coco_dictionaries(images, list(categories), ids)
    for entry in found:
        entry["bbox"] = [round(value, BOX_DIGITS) for value in entry["bbox"]]
        entry["score"] = float(str(np.float32(entry["score"])))  # the shortest text of the float32 number
    return found


def write_coco(report: "Report", folder: Path) -> None:
    """Writes FOLDER/coco/ground-truth.json, and FOLDER/coco/POLICY--DETECTOR.json for each policy and detector.

    With several data sets each has these files in a folder of its own, FOLDER/coco/SET. Results of an earlier
    evaluation there that this one does not replace are removed.

    Args:
        report: report with the scored images.
        folder: the output folder, which exists.
    """
    place, written = Path(folder) / FOLDER, set[Path]()
    for name, one in zip(set_folders(list(report.sets)), report.sets.values(), strict=True):
        written |= _write_set(one, place / name)
    if not report.sets:
        written = _write_set(report, place)
    if written:
        remove_coco(Path(folder), written)


def remove_coco(folder: Path, kept: Collection[Path] = ()) -> None:
    """Removes the COCO results of an earlier evaluation.

    Args:
        folder: the output folder.
        kept: files that stay.

    Raises:
        OutputError: one cannot be removed.
    """
    place = folder / FOLDER
    for path in [*place.glob("*"), *place.glob("*/*")]:
        is_result = RESULTS_NAME.fullmatch(path.name) or path.name == TRUTH_FILE
        if is_result and path not in kept and not path.is_dir() and not path.parent.is_symlink():
            remove_inside(folder, path)
            if path.parent != place and not any(path.parent.iterdir()):
                path.parent.rmdir()


def _write_set(report: "Report", place: Path) -> set[Path]:
    """Writes the labels and results of one data set into a folder, and returns the files."""
    if not report.scored:
        return set()
    images = {image.key: image for scored in report.scored.values() for image in scored}
    ids = image_ids(list(images.values()))
    write_json(place / TRUTH_FILE, ground_truth(list(images.values()), report.categories))
    names = file_names(list(report.scored))
    for key, scored in report.scored.items():
        with atomic_path(place / names[key]) as temporary:
            lines = [json.dumps(entry, allow_nan=False) for entry in results(scored, report.categories, ids)]
            temporary.write_text("[" + ",\n ".join(lines) + "]\n", encoding="utf-8")
    return {place / TRUTH_FILE, *(place / name for name in names.values())}


def set_folders(names: Sequence[str]) -> list[str]:
    """A folder name for each data set, in their order; characters that some file systems refuse become "_".

    >>> set_folders(["coco/val", "voc/val", "coco_val"])
    ['coco_val', 'voc_val', 'coco_val-2']
    """
    return _distinct([re.sub(r"[^A-Za-z0-9.=+-]", "_", name).strip(".") or "set" for name in names], "")


def file_names(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """(policy, detector) → name of the file; characters that some file systems refuse become "_".

    >>> file_names([("ours/1", "yolov3-tiny"), ("ours_1", "yolov3-tiny")])
    {('ours/1', 'yolov3-tiny'): 'ours_1--yolov3-tiny.json', ('ours_1', 'yolov3-tiny'): 'ours_1--yolov3-tiny-2.json'}
    """
    stems = [re.sub(r"[^A-Za-z0-9.=+-]", "_", f"{policy}--{detector}")[:200] for policy, detector in keys]
    return dict(zip(keys, _distinct(stems, ".json"), strict=True))


def _distinct(stems: Sequence[str], ending: str) -> list[str]:
    """The stems with an ending; a number tells equal ones apart, also those that differ only in upper case."""
    found: list[str] = []
    taken: set[str] = set()
    for stem in stems:
        name, number = f"{stem}{ending}", 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}{ending}", number + 1
        taken.add(name.casefold())
        found.append(name)
    return found

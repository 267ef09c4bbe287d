"""Reads ROD: driving scenes by day and night, 24-bit HDR raws with one JSON file for each image.

Source: Xu et al. 2023, "Toward RAW Object Detection", github.com/amumu1843/Robust_Raw_Object_Detection: a .raw is
1856 rows of 2880 samples of three bytes, low byte first, divided by 2^24 - 1; a JSON has `shapes`, each with `label`
and `points` [[xmin, ymin], [xmax, ymax]]. The RGGB pattern is from SimROD (Xie et al. 2025). Values are read as linear,
since the publisher does not mention companding. AdaptiveISP reads .npy files and divides by their 99th percentile.
"""

from pathlib import Path
from typing import Any

from adaptiveisp.data.annotations import LabelledObject, ParsedSet, Problem, SetConfig, SetOptions
from adaptiveisp.data.formats.per_image import parse_per_image
from adaptiveisp.data.values import numbers, read_label_file, side_or_none
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.utils.files import parse_json

DEFAULTS = SetOptions(annotations="labelme", list="", extensions=(".raw", ".npy"))
HEADER = BayerHeader(2880, 1856, 24, "RGGB")
"""Facts about the .raw files, which keys of the YAML override."""


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels.

    Raises:
        DataError: no white level is given, a folder is missing, or there are no images.
    """
    if config.header is None or config.header.white is None:
        raise DataError(
            f"{config.path}: ROD's raws need a white level: add raw-white: 16777215 (full scale), or raw-white: p99 "
            "(the 99th percentile of each image, as AdaptiveISP)"
        )
    return parse_per_image(config, ".json", read_labelme)


def read_labelme(path: Path, config: SetConfig) -> tuple[int, int, list[LabelledObject], list[Problem]]:
    """Reads width, height, objects and problems of one file; a side that it does not state is 0."""
    try:
        text = read_label_file(path).decode("utf-8-sig")
        content: Any = parse_json(text, str(path), DataError, "correct or remove it")
        shapes = content.get("shapes") if isinstance(content, dict) else None
        if not isinstance(shapes, list):
            raise ValueError("there is none")
        width, height = (side_or_none(content.get(key)) for key in ("imageWidth", "imageHeight"))
    except DataError as error:
        return 0, 0, [], [Problem("bad label", str(path), str(error))]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        return 0, 0, [], [Problem("bad label", str(path), f"{path}: has no list `shapes` ({reason}); correct it")]
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    for number, shape in enumerate(shapes, 1):
        where = f"{path}: shape {number}"
        found = _object(shape, where)
        if isinstance(found, LabelledObject):
            objects.append(found)
        else:
            problems.append(found)
    return width, height, objects, problems


def _object(shape: Any, where: str) -> LabelledObject | Problem:
    """The object of one shape, or its problem."""
    shape = shape if isinstance(shape, dict) else {}
    name, points = shape.get("label"), shape.get("points")
    corners = [numbers(point, 2) for point in points] if isinstance(points, list) else []
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not name.strip() or len(corners) != 2 or None in corners:
        given = f"label {shown(shape.get('label'))}, points {shown(points)}"
        return Problem("bad label", where, f"{where}: needs a label and two points, has {given}; correct or remove it")
    xs, ys = zip(*(corner for corner in corners if corner is not None), strict=True)
    return LabelledObject(name.strip(), (min(xs), min(ys), max(xs), max(ys)), where)

"""ROD: driving scenes by day and night, 24-bit HDR raws with one JSON an image.

Source: Xu et al. 2023, "Toward RAW Object Detection", github.com/amumu1843/Robust_Raw_Object_Detection: a .raw is
1856 rows of 2880 samples of three bytes, low byte first, divided by 2^24 - 1; a JSON has `shapes`, each with `label`
and `points` [[xmin, ymin], [xmax, ymax]]. The RGGB pattern is SimROD's (Xie et al. 2025). Values are taken as linear:
the publisher does not speak of a compander. AdaptiveISP reads .npy files and divides by their 99th percentile.
"""

import json
import math
from pathlib import Path
from typing import Any

from adaptiveisp.datasets.labels import LabelledObject, ParsedSet, Problem, SetConfig, SetOptions
from adaptiveisp.datasets.per_image import parse_per_image
from adaptiveisp.errors import DataError
from adaptiveisp.rawheader import BayerHeader

DEFAULTS = SetOptions(annotations="labelme", list="", extensions=(".raw", ".npy"))
HEADER = BayerHeader(2880, 1856, 24, "RGGB")
"""What the .raw files do not say; keys of the YAML win."""


def parse(config: SetConfig) -> ParsedSet:
    """The images with their labels.

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
    """Width, height, objects and problems of one file; a size of 0 stands for one that it does not tell."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        shapes = list(content["shapes"])
        width, height = (int(content.get(key) or 0) for key in ("imageWidth", "imageHeight"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return 0, 0, [], [Problem("bad label", str(path), f"{path}: has no list `shapes` ({reason}); correct it")]
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    for number, shape in enumerate(shapes, 1):
        where = f"{path}: shape {number}"
        try:
            (x0, y0), (x1, y1) = ((float(x), float(y)) for x, y in shape["points"])
            name = str(shape["label"]).strip()
            if not name or not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
                raise ValueError("no name or no finite box")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            text = f"{where}: needs a label and two points ({type(error).__name__}: {error}); correct or remove it"
            problems.append(Problem("bad label", where, text.splitlines()[0]))
        else:
            objects.append(LabelledObject(name, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), where))
    return width, height, objects, problems

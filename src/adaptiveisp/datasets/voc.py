"""Pascal VOC labels: one XML an image with its size and a bndbox an object.

Source: Everingham et al. 2010, Pascal VOC devkit: Annotations, JPEGImages, ImageSets/Main; xmin, ymin, xmax and ymax
name the first and last pixel, the first of the image being 1. Many other tools write the same file with edges from 0.
"""

import math
from pathlib import Path
from xml.etree import ElementTree

from adaptiveisp.datasets.labels import LabelledObject, ParsedSet, Problem, SetConfig, SetOptions
from adaptiveisp.datasets.per_image import parse_per_image
from adaptiveisp.errors import DataError

DEFAULTS = SetOptions(
    images="JPEGImages", labels="Annotations", list="ImageSets/Main/{split}.txt", annotations="xml", first_pixel=1
)


def parse(config: SetConfig) -> ParsedSet:
    """The images of a split with their labels; without a split all.

    Raises:
        DataError: a folder or list is missing, or there are no images.
    """
    return parse_per_image(config, ".xml", read_xml)


def read_xml(path: Path, config: SetConfig) -> tuple[int, int, list[LabelledObject], list[Problem]]:
    """Width, height, objects and problems of one file; a size of 0 stands for one that it does not tell."""
    try:
        content = path.read_bytes()
        # Nothing of the format needs entities, which can be made to grow without end; UTF-16 would hide them.
        if b"<!ENTITY" in content or b"\0" in content:
            raise ValueError("declares entities, or is not in UTF-8")
        root = ElementTree.fromstring(content)
        width, height = (_whole(root.findtext(f"size/{side}")) for side in ("width", "height"))
    except (OSError, ElementTree.ParseError, ValueError, OverflowError, LookupError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        text = f"{path}: is no Pascal VOC file ({reason}); correct or remove it"
        return 0, 0, [], [Problem("bad label", str(path), text)]
    objects: list[LabelledObject] = []
    problems: list[Problem] = []
    for number, element in enumerate(root.findall("object"), 1):
        where = f"{path}: object {number}"
        try:
            objects.append(_object(element, where, config))
        except DataError as error:
            problems.append(Problem("bad label", where, str(error)))
    return width, height, objects, problems


def _object(element: ElementTree.Element, where: str, config: SetConfig) -> LabelledObject:
    name = (element.findtext("name") or "").strip()
    try:
        left, top, right, bottom = (
            float(element.findtext(f"bndbox/{key}") or "none") for key in ("xmin", "ymin", "xmax", "ymax")
        )
    except ValueError:
        raise DataError(f"{where}: has no bndbox with four numbers; correct or remove it") from None
    if not name or not all(math.isfinite(value) for value in (left, top, right, bottom)):
        raise DataError(f"{where}: has no name or a box that is not finite; correct or remove it")
    first = config.options.first_pixel
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    crowd = difficult and config.options.difficult == "ignore"
    return LabelledObject(name, (left - first, top - first, right, bottom), where, crowd=crowd)


def _whole(text: str | None) -> int:
    """A side in pixels; some tools leave it out, or write 0."""
    return round(float(text)) if text and text.strip() else 0

"""Pascal VOC labels: one XML file for each image, with its size and a bndbox for each object.

Source: Everingham et al. 2010, Pascal VOC devkit: Annotations, JPEGImages, ImageSets/Main; xmin, ymin, xmax and ymax
are the first and last pixel, and the first pixel of the image is 1. Many other tools write edges from 0.
"""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from adaptiveisp.data.annotations import LabelledObject, ParsedSet, Problem, SetConfig, SetOptions
from adaptiveisp.data.formats.per_image import parse_per_image
from adaptiveisp.data.values import finite, read_label_file, side_or_none
from adaptiveisp.errors import DataError, shown

DEFAULTS = SetOptions(
    images="JPEGImages", labels="Annotations", list="ImageSets/Main/{split}.txt", annotations="xml", first_pixel=1
)

DEEPEST = 50
"""Most levels of nesting; label files have four."""


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels; without a split, all images.

    Raises:
        DataError: a folder or list is missing, or there are no images.
    """
    return parse_per_image(config, ".xml", read_xml)


def read_xml(path: Path, config: SetConfig) -> tuple[int, int, list[LabelledObject], list[Problem]]:
    """Reads width, height, objects and problems of one file; a side that it does not state is 0."""
    try:
        root = parse_xml(read_label_file(path))
        width, height = (side_or_none((root.findtext(f"size/{side}") or "").strip()) for side in ("width", "height"))
    except (OSError, expat.ExpatError, ValueError, LookupError) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
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
    if not name:
        raise DataError(f"{where}: has no name; correct or remove it")
    edges = []
    for key in ("xmin", "ymin", "xmax", "ymax"):
        given = element.findtext(f"bndbox/{key}")
        edge = finite(given)
        if edge is None:
            found = "has no bndbox with four numbers" if given is None else f"{key} {shown(given)} is no finite number"
            raise DataError(f"{where}: {found}; correct or remove it")
        edges.append(edge)
    left, top, right, bottom = edges
    first = config.options.first_pixel
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    crowd = difficult and config.options.difficult == "ignore"
    return LabelledObject(name, (left - first, top - first, right, bottom), where, crowd=crowd)


def parse_xml(content: bytes) -> ElementTree.Element:
    """Parses an XML document without entities, and returns its root.

    Entities can expand to gigabytes or include other files, and label files do not need them. Their declarations are
    refused in any encoding.

    Raises:
        ValueError: the document declares an entity, or is nested too deeply.
        xml.parsers.expat.ExpatError: the document is not XML.
    """
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} levels deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(name: str, *_: Any) -> None:
        raise ValueError("declares entities, which no labels need")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.Parse(content, True)
    root: ElementTree.Element = builder.close()
    return root

"""Reads data sets with one label file per image, matched by their stems, such as Pascal VOC, LOD and ROD.

Source: Everingham et al. 2010, Pascal VOC devkit (lists of stems in ImageSets, one XML for each image).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from adaptiveisp.data.annotations import (
    LabelledImage,
    LabelledObject,
    ParsedSet,
    Problem,
    SetConfig,
    files_by_stem,
    listed_stems,
    shown_name,
    the_only,
)
from adaptiveisp.errors import DataError

ReadLabels = Callable[[Path, SetConfig], tuple[int, int, list[LabelledObject], list[Problem]]]
"""Function that reads a label file: width and height of the labelled image (0 if not stated), objects and problems."""


def parse_per_image(config: SetConfig, extension: str, read: ReadLabels) -> ParsedSet:
    """Reads the images of a split with their labels; without a split, all images and label files.

    Args:
        config: settings of the data set.
        extension: extension of the label files.
        read: function that reads a label file.

    Raises:
        DataError: a folder or list is missing, two files share a name, or there are no images.
    """
    label_files = files_by_stem(config.below(config.options.labels), {extension})
    image_files = files_by_stem(config.below(config.options.images), config.options.extensions)
    stems = listed_stems(config)
    images: list[LabelledImage] = []
    problems: list[Problem] = []
    for stem in dict.fromkeys(stems if stems is not None else sorted({*image_files, *label_files})):
        if stem not in image_files:
            at = label_files[stem][0] if stem in label_files else config.below(config.options.images) / stem
            text = f"{at}: there is no image of this name below {config.below(config.options.images)}; add it"
            problems.append(Problem("label without image", str(at), text))
            continue
        path = the_only(image_files[stem])
        width, height, objects = 0, 0, list[LabelledObject]()
        if stem in label_files:
            width, height, objects, wrong = read(the_only(label_files[stem]), config)
            problems += wrong
        elif not _kept_without_label(
            path, f"{config.below(config.options.labels) / stem}{extension}", config, problems
        ):
            continue
        name, unlabelled = shown_name(path, config.root), stem not in label_files
        images.append(LabelledImage(path, name, width, height, tuple(objects), unlabelled=unlabelled))
    if not images:
        first = f"; the first: {problems[0].text}" if problems else ""
        raise DataError(f"{config.path}: no image with labels below {config.root}{first}")
    return ParsedSet(tuple(images), _names(images), False, tuple(problems))


def _kept_without_label(path: Path, label_file: str, config: SetConfig, problems: list[Problem]) -> bool:
    """Whether an image without label file is kept; adds a problem if it is left out, or raises DataError."""
    text = f"{path}: has no label file {label_file}; add it, or set missing-labels: background"
    if config.options.missing_labels == "refuse":
        raise DataError(text)
    if config.options.missing_labels == "skip":
        problems.append(Problem("image without label", str(path), text))
    return config.options.missing_labels == "background"


def _names(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    return tuple(sorted({labelled.name for image in images for labelled in image.objects}))

"""Images without labels: folders of photos or raws, and COCO JSONs without their annotations."""

import os
from collections.abc import Sequence
from pathlib import Path

from adaptiveisp.data.annotations import LabelledImage, ParsedSet, SetConfig, SetOptions, files_of_set, shown_name
from adaptiveisp.data.formats.coco import CocoImage, CocoLabels, load_coco
from adaptiveisp.errors import DataError, RawFileError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import KNOWN_EXTENSIONS, PHOTO_EXTENSIONS, find_raw_files, read_raw
from adaptiveisp.types import RawImage, Sample
from adaptiveisp.utils.files import walk_files

DEFAULTS = SetOptions(annotations="none")
"""Defaults of the layout `folder`, whose YAML states facts that are missing in the raw files."""
PICTURE_EXTENSIONS = PHOTO_EXTENSIONS | {".png", ".tif", ".tiff"}
"""Extensions of files that are read as sRGB photos if photos are required."""


def parse(config: SetConfig) -> ParsedSet:
    """The raw files of the layout `folder`, sorted by their paths.

    Raises:
        DataError: there are no raw files.
    """
    folder = config.below(config.options.images)
    extensions = {extension.lower() for extension in config.options.extensions} or KNOWN_EXTENSIONS
    paths = list(files_of_set(folder, extensions))
    if not paths:
        raise DataError(f"{folder}: no raw files in it; correct root or images in {config.path}")
    images = tuple(LabelledImage(path, shown_name(path, config.root), 0, 0, ()) for path in paths)
    return ParsedSet(images, (), False, ())


def load_photos(data: Path) -> CocoLabels:
    """Lists the photos of a folder with its subfolders, or those of a COCO JSON, without annotations.

    File names are relative to the folder. Width and height are 0 in a folder, whose files are not opened.

    Raises:
        DataError: the folder or file does not exist, it holds no photo, or the JSON is malformed.
    """
    data = Path(data)
    if not os.path.isdir(data):
        return load_coco(data, labelled=False)
    names = [str(path.relative_to(data)) for path in walk_files(data, PICTURE_EXTENSIONS)]
    if not names:
        known = " ".join(sorted(PICTURE_EXTENSIONS))
        raise DataError(f"{data}: no photos in it; known are {known}; leave out --light if it holds raw files")
    images = [CocoImage(i, name, 0, 0, (), photo_id=i, draw=0, light=None) for i, name in enumerate(names, 1)]
    return CocoLabels(data, tuple(images), {})


class FolderRaws:
    """The raw files of a folder with its subfolders, without labels; `find_raw_files` decides which files these are.

    Width and height of the samples are 0, since a raw must be read before its size is known.

    Args:
        folder: the folder.
        limit: number of files to keep from the start; 0 keeps all.

    Raises:
        DataError: the folder holds no raw file.
    """

    def __init__(self, folder: Path, limit: int = 0):
        self.name = str(folder)
        self.categories: dict[int, str] = {}
        try:
            files, _ = find_raw_files([str(folder)])
        except RawFileError as error:
            raise DataError(f"{error}; add --light L if it holds photos") from error
        self.samples: Sequence[Sample] = [
            Sample(i, 0, str(path.relative_to(folder)), 0, 0, (), light=None, source=path)
            for i, (path, _) in enumerate(files[: limit or None], 1)
        ]

    def read(self, sample: Sample) -> RawImage:
        """The raw file of a sample."""
        return read_raw(sample.source)

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample; its sidecar may state facts about it."""
        return sample.source, None

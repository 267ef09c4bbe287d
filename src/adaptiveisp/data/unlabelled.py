"""Raws that nobody labelled, in a folder: the layout `folder`, whose YAML tells what the raws do not say themselves."""

from adaptiveisp.data.labels import LabelledImage, ParsedSet, SetConfig, SetOptions, files_of_set, shown_name
from adaptiveisp.errors import DataError
from adaptiveisp.raw.reader import KNOWN_EXTENSIONS

DEFAULTS = SetOptions()


def parse(config: SetConfig) -> ParsedSet:
    """The raws below the folder, in order.

    Raises:
        DataError: there are none.
    """
    folder = config.below(config.options.images)
    extensions = {extension.lower() for extension in config.options.extensions} or KNOWN_EXTENSIONS
    paths = list(files_of_set(folder, extensions))
    if not paths:
        raise DataError(f"{folder}: no raw files in it; correct root or images in {config.path}")
    images = tuple(LabelledImage(path, shown_name(path, config.root), 0, 0, ()) for path in paths)
    return ParsedSet(images, (), False, ())

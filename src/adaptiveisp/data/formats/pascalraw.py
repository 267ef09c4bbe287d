"""PASCALRAW: 4259 daylight photos of a Nikon D3200 (NEF, 12 bits) with Pascal VOC XML of persons, bicycles and cars.

Source: Omid-Zohoor et al. 2014, purl.stanford.edu/hq050zr7488. The labels belong to images of 600x400 pixels, and are
scaled to the raw. Folder names are those of RAW-Adapter's copy (Cui and Harada 2024); those of the archive may differ.
"""

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions
from adaptiveisp.data.formats import voc

DEFAULTS = SetOptions(
    images="original/raw",
    labels="annotations",
    list="trainval/{split}.txt",
    annotations="xml",
    extensions=(".nef",),
    scale_labels=True,
)


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels.

    Raises:
        DataError: a folder or list is missing, or there are no images.
    """
    return voc.parse(config)

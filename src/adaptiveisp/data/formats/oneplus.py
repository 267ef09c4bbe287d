"""Raws of a OnePlus phone: those of multiRAW (OnePlus 5T, DNG and XML), or AdaptiveISP's in the layout of its LOD.

Source: Li et al. 2024, "Efficient Visual Computing with Camera RAW Snapshots", multiRAW/oneplus_5t: `raw/ID.dng`,
`labels/detection/ID.xml`, train.txt and test.txt with one ID a line (as read by the authors' loader in
github.com/lizhihao6/mmdetection). AdaptiveISP's images are the 141 of a OnePlus 6T of Yu et al. 2021 (ReconfigISP).
"""

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions
from adaptiveisp.data.formats import lod

DEFAULTS = SetOptions(
    images="raw", labels="labels/detection", list="{split}.txt", annotations="xml", extensions=(".dng",)
)
YOLO_DEFAULTS = lod.YOLO_DEFAULTS


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels.

    Raises:
        DataError: a folder or list is missing, or there are no images.
    """
    return lod.parse(config)

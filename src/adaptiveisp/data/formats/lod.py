"""LOD, the Low-light Object Detection data set: pairs of long and short exposures of a Canon EOS 5D Mark IV.

Source: Hong et al. 2021, "Crafting Object Detection in Very Low Light", github.com/ying-fu/LODDataset: an XML file for
each image of RAW-dark, RAW-normal, RGB-dark and RGB-normal, and the camera's CR2 files; the short exposure of N.CR2 is
number N + 1. Folder names are those of the copy in RAW-Adapter (Cui and Harada 2024); with YOLO labels they are those
of AdaptiveISP (Wang et al. 2024: train.txt, val.txt, labels with the ids of COCO's 80).
"""

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions
from adaptiveisp.data.formats import voc, yolo_txt
from adaptiveisp.detectors.class_names import COCO_80

DEFAULTS = SetOptions(images="RAW_dark", labels="RAW-dark-Annotations", list="trainval/{split}.txt", annotations="xml")
YOLO_DEFAULTS = SetOptions(
    images="RAW_dark",
    labels="labels",
    list="{split}.txt",
    annotations="yolo",
    names=COCO_80,
    missing_labels="background",
)


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images of a split with their labels, as XML or as YOLO text.

    Raises:
        DataError: a folder or list is missing, or there are no images.
    """
    return yolo_txt.parse(config) if config.options.annotations == "yolo" else voc.parse(config)

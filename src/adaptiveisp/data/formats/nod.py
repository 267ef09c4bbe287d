"""NOD, Night Object Detection: street scenes at night of a Sony RX100 VII (ARW) and a Nikon D750 (NEF), COCO JSON.

Source: Morawski et al. 2021 and 2022, github.com/igor-morawski/NOD and RAW-NOD. The JSON of RAW-NOD names the raws and
has texts such as "DSC01316" as ids; that of NOD names the JPGs. Both give the size of the camera's JPG, which LibRaw's
frame may exceed by some pixels, so boxes are scaled to the raw.
"""

from adaptiveisp.data.annotations import ParsedSet, SetConfig, SetOptions
from adaptiveisp.data.formats import coco
from adaptiveisp.errors import DataError

DEFAULTS = SetOptions(annotations="coco", extensions=(".arw", ".nef"), scale_labels=True, by_stem=True)


def parse(config: SetConfig) -> ParsedSet:
    """Reads the images that the JSON lists, each with the raw of its stem.

    Raises:
        DataError: no JSON is named, it is malformed, or there are no images.
    """
    if not config.options.labels:
        raise DataError(
            f"{config.path}: name the JSON, for instance labels: annotations/Nikon/raw_new_Nikon750_{{split}}.json"
        )
    return coco.parse(config)

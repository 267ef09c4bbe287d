"""Checks of a detector's attributes, and of the images and labels that it is given."""

from collections.abc import Sequence

from torch import Tensor

from adaptiveisp.detectors.class_names import MOST_CLASSES
from adaptiveisp.detectors.limits import MAX_STRIDE
from adaptiveisp.errors import DetectorError, shown
from adaptiveisp.types import Detector, Targets


def check_image(name: str, image: Tensor, stride: int) -> None:
    """Refuses a batch whose shape is not (batch, 3, height, width), or whose sides are not multiples of the stride.

    Args:
        name: name of the detector, for the error.
        image: the batch that the detector was given.
        stride: stride of the detector in pixels.

    Raises:
        DetectorError: the shape does not fit; the message names it.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise DetectorError(f"{name}: expects images of shape (batch, 3, height, width), not {tuple(image.shape)}")
    height, width = image.shape[-2:]
    if height % stride or width % stride or not height or not width:
        raise DetectorError(f"{name}: height and width must be multiples of {stride}, not {height}x{width}")


def check_labels(targets: Sequence[Targets], n_classes: int) -> None:
    """Refuses labels outside 0 to n_classes - 1.

    Args:
        targets: targets of a batch.
        n_classes: number of classes of the detector.

    Raises:
        DetectorError: a label is out of range; the message names the range.
    """
    for target in targets:
        label = target.labels
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < n_classes:
            raise DetectorError(f"a target has a label outside 0 to {n_classes - 1}; map the data set's classes first")


def check_facts(detector: Detector, text: str) -> None:
    """Refuses a detector whose attributes have other types or values than the protocol `Detector` requires.

    Raises:
        DetectorError: an attribute is wrong; the message names it.
    """
    # `isinstance` with a protocol only checks that the attributes exist. Wrong values would fail deep inside a run.
    name, names, stride = detector.name, detector.class_names, detector.stride
    is_list = isinstance(names, Sequence) and not isinstance(names, str)
    facts = (
        ("name", isinstance(name, str) and name != "", "text"),
        (
            "class_names",
            is_list and 0 < len(names) <= MOST_CLASSES and all(isinstance(n, str) for n in names),
            f"a tuple or list of class names, at most {MOST_CLASSES}",
        ),
        (
            "stride",
            isinstance(stride, int) and not isinstance(stride, bool) and 1 <= stride <= MAX_STRIDE,
            f"a whole number from 1 to {MAX_STRIDE}",
        ),
        ("weights_sha256", isinstance(detector.weights_sha256, str), 'text ("" if there are no weights)'),
    )
    for attribute, is_right, expected in facts:
        if not is_right:
            raise DetectorError(
                f"{text}: its {attribute} is {shown(getattr(detector, attribute))}, expected {expected}"
            )

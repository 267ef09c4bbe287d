"""Checks of the images and labels that a detector is given."""

from collections.abc import Sequence

from torch import Tensor

from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Targets


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

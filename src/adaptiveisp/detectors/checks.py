"""What every detector refuses before it looks: images and labels that make no sense to it."""

from collections.abc import Sequence

from torch import Tensor

from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Targets


def check_image(name: str, image: Tensor, stride: int) -> None:
    """Refuses images of another shape than (batch, 3, height, width), or whose sides are no multiples of the stride.

    Args:
        name: the detector's, for the error.
        image: what it was given.
        stride: pixels.

    Raises:
        DetectorError: says what the shape is.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise DetectorError(f"{name}: expects images of shape (batch, 3, height, width), not {tuple(image.shape)}")
    height, width = image.shape[-2:]
    if height % stride or width % stride or not height or not width:
        raise DetectorError(f"{name}: height and width must be multiples of {stride}, not {height}x{width}")


def check_labels(targets: Sequence[Targets], n_classes: int) -> None:
    """Refuses labels outside 0 to n_classes - 1.

    Args:
        targets: of a batch.
        n_classes: that the detector has.

    Raises:
        DetectorError: says what the range is.
    """
    for target in targets:
        label = target.labels
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < n_classes:
            raise DetectorError(f"a target has a label outside 0 to {n_classes - 1}; map the data set's classes first")

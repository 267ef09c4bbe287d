"""What a data set is to the rest of the package."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from adaptiveisp.types import RawImage, Sample


@runtime_checkable
class Dataset(Protocol):
    """Labelled raws; the list is light, pixels are read when asked."""

    @property
    def name(self) -> str:
        """Short name for tables and errors."""
        ...

    @property
    def samples(self) -> Sequence[Sample]:
        """Every image and draw, in a fixed order."""
        ...

    @property
    def categories(self) -> dict[int, str]:
        """Category id → class name."""
        ...

    def read(self, sample: Sample) -> RawImage:
        """The raw of a sample.

        Raises:
            AdaptiveISPError: its file is missing, damaged, or does not fit its labels.
        """
        ...

"""The interface of data sets, and optional interfaces."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import RawImage, Sample


@runtime_checkable
class Dataset(Protocol):
    """Labelled raws. The samples hold no pixels; `read` reads them."""

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


@runtime_checkable
class OnDisk(Protocol):
    """A data set whose raws are files, so that developed frames can be kept in a `FrameCache`."""

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample, and the facts known about it; None if the frame must not be kept."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A data set that leaves out invalid labels or images, and lists them."""

    @property
    def left_out(self) -> dict[str, str]:
        """Place of each label or image that is left out → the reason, in one line."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """A data set that has notes for its user."""

    @property
    def notes(self) -> Sequence[str]:
        """The notes, one line each."""
        ...


@runtime_checkable
class PartlyLabelled(Protocol):
    """A data set that knows whether its labels state which classes are labelled."""

    @property
    def partly_labelled(self) -> bool:
        """Whether objects of classes that are not in `categories` may be in the images without a label."""
        ...


@runtime_checkable
class HasPhotos(Protocol):
    """A data set whose raws are made of photos."""

    def photo(self, sample: Sample) -> Float[Tensor, "3 height width"]:
        """The clean photo that the raw of a sample is made of, sRGB code values in [0, 1], upright.

        Raises:
            DataError: its file is missing or damaged.
        """
        ...


def is_partly_labelled(dataset: Dataset) -> bool:
    """Whether the labels of a data set state that only the classes in `categories` are labelled."""
    return isinstance(dataset, PartlyLabelled) and dataset.partly_labelled


def notes_of(dataset: Dataset) -> list[str]:
    """The notes on a data set as a whole, one line each; empty if it has none."""
    return list(dataset.notes) if isinstance(dataset, HasNotes) else []


def left_out(dataset: Dataset) -> dict[str, str]:
    """Place of each label or image that a data set leaves out → the reason."""
    return dataset.left_out if isinstance(dataset, LeavesOut) else {}


def photo_of(dataset: Dataset, sample: Sample) -> Float[Tensor, "3 height width"] | None:
    """The clean photo of a sample, sRGB code values in [0, 1]; None where the raws are not made of photos."""
    return dataset.photo(sample) if isinstance(dataset, HasPhotos) else None


def raw_file(dataset: Dataset, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
    """The file of a sample, and the facts known about it; None if there is no file, as for raws made on the fly."""
    return dataset.raw_file(sample) if isinstance(dataset, OnDisk) else None

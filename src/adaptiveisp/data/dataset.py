"""What a data set is to the rest of the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from adaptiveisp.raw.headerless import BayerHeader
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


@runtime_checkable
class OnDisk(Protocol):
    """A data set whose raws are files, so that what is developed of them can be kept, see `framecache`."""

    def raw_file(self, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
        """The file of a sample, and what is known of it; None where it should be read anew each time."""
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A data set that leaves out labels or images that make no sense, and tells which."""

    @property
    def left_out(self) -> dict[str, str]:
        """Where → why, in one line."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """A data set about which a user should know something, though it can be used."""

    @property
    def notes(self) -> Sequence[str]:
        """A line each."""
        ...


def notes_of(dataset: Dataset) -> list[str]:
    """What a user should know about a data set as a whole, a line each."""
    return list(dataset.notes) if isinstance(dataset, HasNotes) else []


def left_out(dataset: Dataset) -> dict[str, str]:
    """Where → why, of the labels and images that a data set leaves out."""
    return dataset.left_out if isinstance(dataset, LeavesOut) else {}


def raw_file(dataset: Dataset, sample: Sample) -> tuple[Path, BayerHeader | None] | None:
    """The file of a sample, and what is known of it; None where there is none, as of raws made on the fly."""
    return dataset.raw_file(sample) if isinstance(dataset, OnDisk) else None

"""The training images of several data sets as one sequence."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from adaptiveisp.data.raw_frames import RawFrameTrainingImages
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImage, shuffled

SEED_STEP = 1_000_003
"""Distance of the seeds of two data sets, so that their images have different crops, light and noise."""


class JoinedTrainingImages:
    """The training images of several data sets in turn: an epoch has each image of each set once, in a random order.

    A set with more images is seen more often; an image has the same weight in whatever set it is.

    Args:
        parts: the training images of each set, with seeds that differ, see `seed_of`.
        seed: seed of the order in which the sets take turns.
    """

    def __init__(self, parts: Sequence[PhotoTrainingImages | RawTrainingImages | RawFrameTrainingImages], seed: int):
        self.parts, self.seed = parts, seed
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)

    @property
    def skipped(self) -> dict[str, str]:
        """Title of each label or image that cannot be used → the reason."""
        return {title: reason for part in self.parts for title, reason in part.skipped.items()}

    def __len__(self) -> int:
        """Number of images of all sets, which is that of the training images in an epoch."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of a number; it depends on the number and the seeds only."""
        epoch, place = divmod(number, len(self))
        owners = torch.bucketize(shuffled(len(self), epoch, self.seed)[: place + 1], self._ends, right=True)
        owner = int(owners[-1])
        part = self.parts[owner]
        # Within an epoch, the images of a set are taken in the order of that set's own epoch.
        own = epoch * len(part) + int((owners[:-1] == owner).sum())
        return replace(part[own], number=number)


def seed_of(seed: int, index: int) -> int:
    """The seed of the data set at an index, from that of the run; the first one has the run's.

    >>> seed_of(7, 0), seed_of(7, 1)
    (7, 1000010)
    """
    return seed + SEED_STEP * index

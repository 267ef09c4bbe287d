"""The raws of a data set in order, read ahead by other processes and kept in a cache of developed frames if asked."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from adaptiveisp.data.frame_cache import open_cache
from adaptiveisp.data.opening import Dataset, raw_file
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.policies.base import Developed
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import RawImage, Sample


class _Reader(torch.utils.data.Dataset[tuple[Sample, RawImage | Developed | Exception]]):
    """The raws of a data set by index; for an unreadable file the error is returned, so that reading goes on."""

    def __init__(self, dataset: Dataset, cached: ScoringOptions | None, numbers: Sequence[int]):
        self.dataset, self.cached, self.numbers = dataset, cached, numbers
        self.cache = open_cache(cached.cache) if cached is not None else None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[Sample, RawImage | Developed | Exception]:
        sample = self.dataset.samples[self.numbers[index]]
        try:
            file = raw_file(self.dataset, sample) if self.cache is not None else None
            return sample, self.dataset.read(sample) if file is None else self._developed(sample, *file)
        except Exception as error:  # one bad file must not stop the evaluation of the others
            return sample, error

    def _developed(self, sample: Sample, path: Path, header: BayerHeader | None) -> Developed:
        """The raw at the working size, from the cache if it is there."""
        assert self.cached is not None and self.cache is not None
        size, white_balance = self.cached.size, self.cached.camera_white_balance

        def make() -> tuple[torch.Tensor, tuple[int, int]]:
            made = develop_at_size(self.dataset.read(sample), size, white_balance)
            return made.small[0], (made.full_size[1], made.full_size[0])

        key = self.cache.key(path, header, f"eval {size} white balance {white_balance}, mosaics at the working size")
        frame = self.cache.get(key, make)
        # A copy, since the frame is mapped from its file, which the cache may delete or another process replace.
        return Developed(None, frame.pixels.clone()[None], (frame.full_size[1], frame.full_size[0]))


def read_all(
    dataset: Dataset, workers: int = 0, cached: ScoringOptions | None = None, numbers: Sequence[int] | None = None
) -> Iterator[tuple[Sample, RawImage | Developed | Exception]]:
    """Every sample with its raw, in order, or with the error that reading it gave.

    Args:
        dataset: labelled raws.
        workers: processes that read ahead; they are spawned, since LibRaw and forked threads do not go together.
        cached: options with a cache, from which raws that are files come back developed; None returns all as raws.
        numbers: of the samples that are read; None for all.
    """
    context = "spawn" if workers else None
    reader = _Reader(dataset, cached, range(len(dataset.samples)) if numbers is None else numbers)
    with warnings.catch_warnings():
        # The user chose the number of workers; PyTorch would warn on each pass that it exceeds the cores.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(reader, batch_size=None, num_workers=workers, multiprocessing_context=context)
    yield from loader

"""Stacks of dark and flat frames: read from files one at a time, checked, and grouped by their level."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import DataError, UsageError, first_few
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import read_frame
from adaptiveisp.raw.shading import NO_SHADING
from adaptiveisp.types import MONO, RawImage

SAME_LEVEL = 0.05
"""Flats whose means above black differ by at most this share are frames of one level."""
LEAST_DARKS, LEAST_LEVELS = 2, 2
SMALLEST_SIDE = 16
MEMORY = 1 << 30
"""Most bytes of frames that a stack keeps; the others are read several times."""


class Stack(Sequence[NDArray[Any]]):
    """Frames that are read when they are needed, and kept up to a limit of memory.

    Args:
        frames: paths of raws, raws, or arrays of whole codes.
        header: facts about headerless files and arrays.
        kept: frames that were read before.
        numbers: numbers of the frames for messages; None counts from 0.
    """

    def __init__(
        self,
        frames: Sequence[Path | RawImage | NDArray[Any]],
        header: BayerHeader | None = None,
        kept: dict[Path, RawImage] | None = None,
        numbers: Sequence[int] | None = None,
    ):
        self._numbers = range(len(frames)) if numbers is None else numbers
        self.sources, self.header = list(frames), header
        self._kept: dict[Path, RawImage] = {} if kept is None else kept

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> "Stack": ...

    def __getitem__(self, index: int | slice) -> "NDArray[Any] | Stack":
        if isinstance(index, slice):
            return self.part(range(len(self))[index])
        return self.raw(index).data

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[index] for index in range(len(self)))

    def raw(self, index: int) -> RawImage:
        """A frame with its pattern and its declared levels."""
        source = self.sources[index]
        if isinstance(source, RawImage):
            return source
        if isinstance(source, np.ndarray):
            header = self.header or BayerHeader()
            white = header.white if isinstance(header.white, int | float) else 2.0 ** (header.bits or 16) - 1
            return RawImage(source, header.pattern or MONO, header.black_levels, white)
        if source not in self._kept:
            # Corrections would change the noise that is measured.
            uncorrected = replace(self.header or BayerHeader(), shading=NO_SHADING, defects=False)
            raw = read_frame(source, uncorrected)
            if sum(kept.data.nbytes for kept in self._kept.values()) + raw.data.nbytes > MEMORY:
                return raw
            self._kept[source] = raw
        return self._kept[source]

    def name(self, index: int) -> str:
        """The name of a frame for messages."""
        source = self.sources[index]
        path = source if isinstance(source, Path) else getattr(source, "path", None)
        return str(path) if path is not None else f"frame {self._numbers[index]}"

    def part(self, indices: Sequence[int]) -> "Stack":
        """The frames of these numbers."""
        numbers = [self._numbers[index] for index in indices]
        return Stack([self.sources[index] for index in indices], self.header, self._kept, numbers)


@dataclass(frozen=True)
class FrameFacts:
    """What all frames of a calibration have in common, as the first one states it.

    Attributes:
        name: of that frame.
        shape: (height, width).
        pattern: colours of the 2x2 block, or "MONO".
        black, white: declared levels in codes.
        camera: make and model, or None.
    """

    name: str
    shape: tuple[int, ...]
    pattern: str
    black: tuple[float, float, float, float]
    white: float
    camera: str | None


def checked_frame(stack: Stack, index: int, facts: FrameFacts | None) -> tuple[NDArray[Any], FrameFacts]:
    """A frame that fits the other frames, and the facts of the first one.

    Args:
        stack: the frames.
        index: number of the frame.
        facts: those of the first frame; None for the first frame itself.

    Raises:
        DataError: it is no mosaic of whole codes, or its size or pattern is another one.
    """
    raw, name = stack.raw(index), stack.name(index)
    if raw.pattern is None:
        raise DataError(f"{name}: is RGB and no mosaic of the sensor's codes; give raws that are not demosaiced")
    if raw.data.dtype.kind not in "ui":
        raise DataError(f"{name}: holds {raw.data.dtype} values; give the sensor's whole codes, of at most 16 bits")
    if min(raw.data.shape) < SMALLEST_SIDE:
        raise DataError(f"{name}: is too small; give frames of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels")
    own = FrameFacts(name, raw.data.shape, raw.pattern, raw.black_level, raw.white_level, raw.camera)
    if facts is None:
        return raw.data, own
    if own.shape != facts.shape:
        sizes = f"is {own.shape[1]}x{own.shape[0]}, but {facts.name} is {facts.shape[1]}x{facts.shape[0]}"
        raise DataError(f"{name}: {sizes}; give frames of one camera and one mode")
    if own.pattern != facts.pattern:
        raise DataError(f"{name}: has the pattern {own.pattern}, but {facts.name} has {facts.pattern}; correct one")
    if own.camera != facts.camera:
        raise DataError(f"{name}: is of {own.camera}, but {facts.name} is of {facts.camera}; give frames of one camera")
    return raw.data, facts


def _refuse_copies(frames: Stack) -> None:
    """Refuses frames that are copies of each other: their difference would hold no noise.

    Frames of a single value are no copies: they may be cut off at 0.

    Raises:
        DataError: two frames have the same values.
    """
    seen: dict[bytes, str] = {}
    for index, data in enumerate(frames):
        digest = hashlib.sha256(data.tobytes()).digest()
        if digest in seen and data.min() != data.max():
            remedy = "leave out one of them, and give frames that were taken one after the other"
            raise DataError(f"{frames.name(index)}: has the same values as {seen[digest]}; {remedy}")
        seen[digest] = frames.name(index)


def check_darks(darks: Stack) -> FrameFacts:
    """The common facts of the darks.

    Raises:
        UsageError: there is only one.
        DataError: frames differ in size, one is brighter than the others, or one is a copy of another.
    """
    if len(darks) < LEAST_DARKS:
        names = darks.name(0) if len(darks) else "--dark"
        raise UsageError(f"{names}: is a single dark frame; give at least {LEAST_DARKS} with the same settings")
    facts: FrameFacts | None = None
    means = []
    for index in range(len(darks)):
        data, facts = checked_frame(darks, index, facts)
        means.append(float(data.mean(dtype=np.float64)))
    assert facts is not None
    middle = float(np.median(means))
    for index, mean in enumerate(means):
        if abs(mean - middle) > 0.02 * (facts.white - middle):
            found = f"has the mean {mean:.1f}, the other darks {middle:.1f}"
            raise DataError(f"{darks.name(index)}: {found}; leave it out, or cover the lens and take it again")
    _refuse_copies(darks)
    return facts


def flat_levels(flats: Stack, facts: FrameFacts, black: Sequence[float]) -> list[Stack]:
    """The flats in groups of one level, the darkest first.

    Raises:
        UsageError: there are too few flats.
        DataError: a frame does not fit, is not brighter than the darks, is a copy, or is alone at its level.
    """
    if len(flats) < 2 * LEAST_LEVELS:
        names = first_few(flats.name(index) for index in range(len(flats))) or "--flat"
        raise UsageError(f"{names}: too few flats; give two at each of at least {LEAST_LEVELS} exposures")
    level = float(np.mean(black))
    means = []
    for index in range(len(flats)):
        data, _ = checked_frame(flats, index, facts)
        means.append(float(data.mean(dtype=np.float64)) - level)
        if means[-1] < 1:
            found = f"has the mean {means[-1] + level:.1f}, and the darks have {level:.1f}"
            raise DataError(
                f"{flats.name(index)}: is not brighter than the darks ({found}); are --dark and --flat swapped?"
            )
    groups: list[list[int]] = []
    for index in sorted(range(len(flats)), key=lambda number: means[number]):
        if groups and means[index] <= (1 + SAME_LEVEL) * means[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        if len(group) == 1:
            found = f"is the only flat at its level (mean {means[group[0]]:.0f} above black)"
            raise DataError(f"{flats.name(group[0])}: {found}; give two of each exposure, or leave it out")
    if len(groups) < LEAST_LEVELS:
        raise DataError(
            f"{flats.name(0)}: all flats have one level; give two at each of at least {LEAST_LEVELS} exposures"
        )
    _refuse_copies(flats)
    return [flats.part(sorted(group)) for group in groups]

"""The operators of the Ray engine: read, develop + policy + modules, detect, write; each takes a whole block.

What passes from one to the next is pickled by this package's own processes within the cluster, which trust one another.
"""

import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.errors import AdaptiveISPError, DetectorError, OutputError, skip_reason
from adaptiveisp.inference.frames import Frame
from adaptiveisp.inference.mapping import Skipped, batches
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.prepared import Prepared
from adaptiveisp.inference.raw_input import as_raw
from adaptiveisp.inference.result import Result
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.isp.registry import register_named
from adaptiveisp.raw.level_checks import RawFacts, facts_of
from adaptiveisp.scale.blocks import Block, make, write_block
from adaptiveisp.scale.worker_warnings import kept_warnings
from adaptiveisp.types import RawImage
from adaptiveisp.utils.clock import Stopwatch

Item = dict[str, Any]
"""A row of the Ray data set: the number of a block, and its pickled content."""


@dataclass(frozen=True)
class Job:
    """What the operators need to know; sent to each of them once.

    Attributes:
        isp: policy and detector.
        folder: the output folder, which all nodes share.
        options: what is written, and how the frames are read.
        origin: provenance.
        cwd: working folder of the driver, from which relative paths count.
        own_modules: values of --module, registered in each process.
        threads: PyTorch's threads of each process.
    """

    isp: AdaptiveISP
    folder: Path
    options: RunOptions
    origin: dict[str, Any]
    cwd: str
    own_modules: tuple[str, ...] = ()
    threads: int = 1


def begin_process(cwd: str, own_modules: Sequence[str]) -> None:
    """Goes to the driver's working folder, where it exists, and registers the modules from outside the package."""
    with suppress(OSError):
        os.chdir(cwd)
    for text in own_modules:
        register_named(text)


@dataclass(frozen=True)
class Read:
    """A frame that was read, and the milliseconds that this took."""

    raw: RawImage
    milliseconds: float


@dataclass(frozen=True)
class Rendered:
    """A frame that the policy rendered, with what is kept of its raw."""

    prepared: Prepared
    facts: RawFacts


def read(item: Item, options: RunOptions, cwd: str) -> Item:
    """Reads and decodes the frames of a block."""
    begin_process(cwd, ())

    def one(frame: Frame) -> Any:
        return _tried(frame, lambda: decoded(frame))

    def decoded(frame: Frame) -> Read:
        stopwatch = Stopwatch("cpu")
        with stopwatch.part("read"):
            raw = frame.source if isinstance(frame.source, RawImage) else as_raw(frame.source, options.header)
        return Read(raw, stopwatch.milliseconds["read"])

    block: Block = pickle.loads(item["content"])
    with kept_warnings() as warnings:
        found = [one(frame) for frame in block.frames]
    return _packed(block, found, warnings)


class Stage:
    """Works on blocks with policy or detector; one object for each actor.

    Args:
        job: the pickled `Job`, or what `content` takes for it.
        cwd, own_modules: its own, which have to be there before it is read.
    """

    def __init__(self, job: Any, cwd: str, own_modules: tuple[str, ...]):
        begin_process(cwd, own_modules)
        self.job: Job = pickle.loads(self.content(job))
        torch.set_num_threads(self.job.threads)

    @staticmethod
    def content(job: Any) -> bytes:
        """The pickled job."""
        packed: bytes = job
        return packed

    def __call__(self, item: Item) -> Item:
        """The block with what was made of each frame."""
        block, found, former = _unpacked(item)
        with kept_warnings() as warnings:
            found = self.worked_on(block, found)
        return _packed(block, found, {**warnings, **former})

    def worked_on(self, block: Block, found: list[Any]) -> list[Any]:
        """What is made of each frame of a block.

        Args:
            block: the block.
            found: what the operator before has made of each frame.
        """
        raise NotImplementedError


class RenderStage(Stage):
    """Develops the frames of a block, and runs policy and modules."""

    def worked_on(self, block: Block, found: list[Any]) -> list[Any]:
        """Rendered frames."""
        return [self._one(frame, one) for frame, one in zip(block.frames, found, strict=True)]

    def _one(self, frame: Frame, found: Any) -> Any:
        if not isinstance(found, Read):
            return found

        def work() -> Rendered:
            prepared = self.job.isp.render(self.job.isp.develop(found.raw))
            facts = facts_of(prepared.raw)
            # The frame at full size stays here: it would be most of what passes to the next operator.
            bare = replace(prepared.raw, data=prepared.raw.data[:2, :2])
            developed = replace(prepared.developed, full=None, raw=None)
            return Rendered(replace(prepared, raw=bare, developed=developed, read_ms=found.milliseconds), facts)

        return _tried(frame, work)


class DetectStage(Stage):
    """Runs the detector on the frames of a block, and encodes what is written."""

    def worked_on(self, block: Block, found: list[Any]) -> list[Any]:
        """Rows and encoded files."""
        made = list(found)
        rendered = {place: one for place, one in enumerate(found) if isinstance(one, Rendered)}
        for places in batches(rendered, self.job.options.batch):
            for place, result in zip(places, self._detected(block, places, rendered), strict=True):
                made[place] = self._made(block.frames[place], result, rendered[place].facts)
        return made

    def _made(self, frame: Frame, result: Any, facts: RawFacts) -> Any:
        """Row and files of a result; whatever else it is stays as it is."""
        if not isinstance(result, Result):
            return result
        job, named = self.job, replace(result, frame=frame.id)
        return _tried(frame, lambda: make(job.isp, frame, named, facts, job.options, job.origin))

    def _detected(self, block: Block, places: Sequence[int], rendered: dict[int, Rendered]) -> list[Any]:
        """The results of a batch; where it fails, its frames are tried one by one."""
        try:
            return list(self.job.isp.detect_all([rendered[place].prepared for place in places]))
        except DetectorError as error:
            return [Fatal(str(error))] * len(places)
        except Exception as error:
            if len(places) == 1:
                frame = block.frames[places[0]]
                return [Skipped(frame.id, skip_reason(frame.id, error))]
        return [one for place in places for one in self._detected(block, [place], rendered)]


def write(item: Item, folder: Path, options: RunOptions) -> Item:
    """Writes a block, and tells how many of its frames have a result, and of the warnings, as JSON."""
    block, found, warnings = _unpacked(item)
    told = {"block": block.number, "n_results": 0, "n_skipped": 0, "error": "", "warnings": json.dumps(warnings)}
    if fatal := next((one for one in found if isinstance(one, Fatal)), None):
        return {**told, "error": fatal.reason}
    try:
        summary = write_block(folder, block, found, options)
    except OutputError as error:
        return {**told, "error": str(error)}
    return {**told, "n_results": summary.n_results, "n_skipped": summary.n_skipped}


@dataclass(frozen=True)
class Fatal:
    """A reason why the whole run ends."""

    reason: str


def item_of(block: Block) -> Item:
    """The row of the Ray data set for a block that is not read yet."""
    return {"block": block.number, "content": pickle.dumps(block)}


def _packed(block: Block, found: Sequence[Any], warnings: Mapping[str, str]) -> Item:
    return {"block": block.number, "content": pickle.dumps((block, list(found), dict(warnings)))}


def _unpacked(item: Item) -> tuple[Block, list[Any], dict[str, str]]:
    block, found, warnings = pickle.loads(item["content"])
    return block, found, warnings


def _tried(frame: Frame, work: Callable[[], Any]) -> Any:
    """What is made of a frame; a reason to end the run; or why the frame is skipped."""
    try:
        return work()
    except DetectorError as error:
        return Fatal(str(error))
    except AdaptiveISPError as error:
        return Skipped(frame.id, str(error))
    except Exception as error:  # an error of one frame must not stop the others
        return Skipped(frame.id, skip_reason(frame.id, error))

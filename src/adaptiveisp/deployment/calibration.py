"""The raws by which a static graph of whole numbers learns the ranges of its activations."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.deployment.development import Frame
from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.extensions import HEADERLESS_EXTENSIONS
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.types import BAYER_PATTERNS, RawImage


@dataclass(frozen=True)
class CalibrationRaw:
    """A raw for calibration.

    Attributes:
        raw: with values of the type that the graph takes.
        facts: name and SHA-256 of its file, for the manifest.
    """

    raw: RawImage
    facts: dict[str, Any]


def calibration_raws(
    paths: Sequence[str | os.PathLike[str]], header: BayerHeader | None, frame: Frame
) -> list[CalibrationRaw]:
    """The raws in files and folders.

    Args:
        paths: files, folders or glob patterns.
        header: of headerless files.
        frame: what the graph takes.

    Raises:
        RawFileError: there is none, or one cannot be read.
        UsageError: one does not fit the graph.
    """
    files, missing = find_raw_files([os.fspath(path) for path in paths])
    if missing:
        raise RawFileError(missing[0][1])
    found = []
    for file, _ in files:
        raw = read_raw(file, header if file.suffix.lower() in HEADERLESS_EXTENSIONS else None)
        if fault := _fault(raw, frame):
            raise UsageError(f"{file}: {fault}; calibrate with raws of the frames that the graph takes")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        found.append(CalibrationRaw(raw, {"file": Path(file).name, "sha256": digest}))
    return found


def _fault(raw: RawImage, frame: Frame) -> str | None:
    """Why a raw is no frame of the graph, in words; None if it is one."""
    data, is_mosaic = raw.data, frame.kind == "mosaic"
    if is_mosaic != (raw.pattern in BAYER_PATTERNS):
        return f"is no {'Bayer mosaic' if is_mosaic else 'RGB frame'}"
    if data.dtype.kind not in "ui" or int(data.max()) > 2**frame.bits - 1:
        return f"has values of {data.dtype} up to {data.max()}, the graph takes whole numbers of {frame.bits} bits"
    if any(side not in (None, have) for side, have in zip((frame.height, frame.width), data.shape, strict=False)):
        return f"has {data.shape[1]}x{data.shape[0]} pixels, the graph takes {frame.width}x{frame.height}"
    if raw.orientation != frame.orientation:
        return f"has the orientation {raw.orientation}, the graph {frame.orientation}"
    if frame.pattern not in (None, raw.pattern):
        return f"has the pattern {raw.pattern}, the graph {frame.pattern}"
    if frame.black is not None and frame.white is not None:
        have = (*raw.black_level[: len(frame.black)], raw.white_level)
        if not np.allclose(have, (*frame.black, frame.white), rtol=0, atol=0.5):
            return f"has the levels {have}, the graph {(*frame.black, frame.white)}"
    return None

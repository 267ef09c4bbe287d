"""Writes the tuning of a policy's pipeline into a file of the kind that its name says."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.errors import UsageError
from adaptiveisp.inference.prepared import develop_at_size
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.raw.dng import dng_bytes
from adaptiveisp.tuning import cube, libcamera
from adaptiveisp.tuning.decomposition import decompose
from adaptiveisp.tuning.dng_tags import dng_tuning
from adaptiveisp.types import RawImage
from adaptiveisp.utils import defaults
from adaptiveisp.utils.files import write_bytes, write_json, write_text

SUFFIXES = (".json", ".cube", ".dng")
"""Of a tuning file of libcamera, a look-up table, and a DNG with tags."""


@dataclass(frozen=True)
class TuningOptions:
    """What the kinds of files need to know beside the pipeline.

    Attributes:
        target: ISP of a tuning file.
        grid: points of a look-up table along each axis.
        encoding: what the table is looked up by.
        bits: depth of the raw, where it is known; None takes the least that holds its white level.
    """

    target: libcamera.Target = "bcm2835"
    grid: int = 33
    encoding: cube.Encoding = "cube-root"
    bits: int | None = None


def pipeline_for(policy: Policy, raw: RawImage | None, size: int = defaults.SIZE) -> Pipeline:
    """The one pipeline of a policy, or the one that it chooses for a raw.

    Args:
        policy: any policy that has pipelines.
        raw: the raw; None for policies with the same pipeline for all images.
        size: working size in pixels.

    Raises:
        UsageError: the policy chooses for each image and there is no raw, or it has no pipelines.
    """
    if raw is None:
        if isinstance(policy, FixedPipeline) and policy.preprocessing == "raw":
            return policy.pipeline
        raise UsageError(f"policy {policy.name}: chooses for each image; give --raw FILE, whose pipeline is exported")
    pipeline = policy.render(develop_at_size(raw, size)).pipeline
    if pipeline is None:
        raise UsageError(f"policy {policy.name}: develops raws without a pipeline, so that there is nothing to export")
    return pipeline


def write_tuning(
    path: Path, pipeline: Pipeline, raw: RawImage | None, options: TuningOptions, provenance: dict[str, Any]
) -> list[str]:
    """Writes the file, atomically.

    Args:
        path: file to write; its suffix says what it holds.
        pipeline: of one frame.
        raw: a mosaic, which a DNG needs; its black level is that of a tuning file.
        options: of the kind of file.
        provenance: of a tuning file or a table.

    Returns:
        A line for each stage that the file does not hold exactly.

    Raises:
        UsageError: the suffix is another, or a DNG has no raw.
        PipelineError: the pipeline cannot be exported.
        OutputError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"{path}: give a name that ends in {', '.join(SUFFIXES)} (libcamera, look-up table, DNG tags)")
    if suffix == ".cube":
        return _write_cube(path, pipeline, options, provenance)
    blocks = decompose(pipeline)
    if suffix == ".dng":
        if raw is None:
            raise UsageError(f"{path}: DNG tags are written beside the pixels of a raw; give --raw FILE")
        tuned = dng_tuning(raw, blocks)
        write_bytes(path, dng_bytes(tuned.raw, path, tuned.tags))
        return blocks.notes
    black = 0.0 if raw is None else sum(raw.black_level) / 4 / _full_scale(raw, options.bits)
    write_json(path, {**libcamera.tuning_file(blocks, options.target, black), "provenance": provenance})
    return blocks.notes


def _full_scale(raw: RawImage, bits: int | None) -> float:
    """2^bits: libcamera scales the sensor's codes to 16 bits by their depth, wherever saturation is."""
    return 2.0 ** (math.ceil(math.log2(raw.white_level)) if bits is None else bits)


def _write_cube(path: Path, pipeline: Pipeline, options: TuningOptions, provenance: dict[str, Any]) -> list[str]:
    """Writes a look-up table; the notes say how far it is from the pipeline between its points."""
    low, high = cube.SIZES
    if not low <= options.grid <= high:
        raise UsageError(f"--grid {options.grid}: give {low} to {high} points along each axis")
    part, notes = cube.pointwise_part(pipeline)
    table = cube.table_of(part, options.grid, options.encoding)
    error = cube.interpolation_error(part, table, options.encoding)
    notes = [*notes, f"colours between the table's points are up to {error:.3f} off, of 1"]
    stages = "; ".join(part.describe()) or "no stages"
    about = [f"adaptiveisp {provenance.get('version', '')}: {stages}", f"looked up by {options.encoding} RGB"]
    write_text(path, cube.cube_text(table, path.stem.replace('"', "'"), [*about, *notes]))
    return notes

"""What a model file does not say of itself: how its outputs are read, its classes, and what its input expects.

It comes from a sidecar MODEL.yaml beside MODEL.onnx, and else from the metadata and the shapes of the outputs.
Source: the metadata keys `names`, `stride`, `task`, `head` and `end2end` are those that exports by ultralytics write.
"""

import ast
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.detectors.class_names import MOST_CLASSES, names_beside, tidy_names
from adaptiveisp.detectors.limits import MAX_STRIDE
from adaptiveisp.errors import DetectorError, one_line
from adaptiveisp.utils.config import record
from adaptiveisp.utils.yaml_files import read_yaml

Decode = Literal["yolo", "yolo-no-objectness", "yolox", "detr", "detr-sigmoid", "boxes", "boxes-scores"]
DECODES = ("yolo", "yolo-no-objectness", "yolox", "detr", "detr-sigmoid", "boxes", "boxes-scores")

Coordinates = Literal["xyxy", "yxyx", "cxcywh", "xywh"]
"""What the four numbers of a box are: two corners, in either order, the centre and size, or a corner and size."""

MAX_SIDE = 4096
"""Pixels of a side of the input. One image of that size takes 200 MB, and what a network makes of it far more."""

MOST_METADATA = 1_000_000
"""Characters of one value of a model's metadata; the names of `MOST_CLASSES` classes fit."""

RTDETR_HEAD = "RTDETRDecoder"
"""What ultralytics' exports of RT-DETR write as `head`. Their boxes are centre and size in 0..1, even in a table."""


LATER_KEYS = ("layout", "coordinates", "logits", "first_label")
"""Keys of a sidecar that earlier versions of this package did not have."""


@dataclass(frozen=True)
class Sidecar:
    """What the sidecar says; everything may be left out.

    Attributes:
        decode: how the outputs are read, see `onnx_decode`; "" finds it from their shapes.
        names: class names, index = label: a list, numbers with names, or the path of a file with one a line.
        size: (height, width) or one side of the input in pixels, to which every image is resized and padded.
        stride: sides of the input must be multiples of this, where they are free.
        scale: what an image's 1.0 is multiplied by first: 1 or 255.
        mean, std: then (x - mean) / std, one number a channel in the order of `channels`.
        channels: order of the input's colours.
        layout: order of the input's axes, channels first or last; "" finds it from its shape.
        boxes: unit of the boxes' coordinates; "" finds it.
        coordinates: what the four numbers of a box are; "" is that of the decode.
        logits: scores (and objectness) are logits, so that the sigmoid is still to be taken.
        first_label: the label that the first name has, where labels are given as numbers.
        input: name of the image input; "" takes the one with four axes.
        outputs: names of the outputs in the order of the decode's parts; none finds them.
        strides: of the grids of a `yolox` output, in its order.
    """

    decode: Decode | Literal[""] = ""
    names: str | tuple[str, ...] | Mapping[Any, str] = ""
    size: int | tuple[int, ...] = ()
    stride: int = 0
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc", ""] = ""
    boxes: Literal["pixels", "normalised", ""] = ""
    coordinates: Coordinates | Literal[""] = ""
    logits: bool = False
    first_label: int = 0
    input: str = ""
    outputs: str | tuple[str, ...] = ()
    strides: tuple[int, ...] = (8, 16, 32)


@dataclass(frozen=True)
class Metadata:
    """What a model's own metadata say, as text; other keys are not read.

    Attributes:
        names: class names, as Python or JSON writes a mapping or a list.
        stride: sides of the input must be multiples of this.
        task: what the model is made for.
        head: class of the network's last part.
        end2end: `True` where each object is found once, so that the output is a table of answers.
    """

    names: str = ""
    stride: str = ""
    task: str = "detect"
    head: str = ""
    end2end: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known of a model.

    Attributes:
        sidecar: its settings, all as lists.
        path: where the sidecar is, or would be.
        names: class names, none if unknown.
        size: (height, width) that was declared, or None.
        stride: 0 if unknown.
        head: what the metadata name as the network's last part, "" if nothing.
        end2end: the metadata say that the output is a table of answers.
    """

    sidecar: Sidecar
    path: Path
    names: tuple[str, ...]
    size: tuple[int, int] | None
    stride: int
    head: str = ""
    end2end: bool = False


def read_facts(model: Path, metadata: Mapping[str, str]) -> Facts:
    """What the sidecar and the metadata of a model say.

    Args:
        model: the .onnx file.
        metadata: its metadata_props.

    Raises:
        DetectorError: the sidecar or the metadata cannot be read or hold something unknown or impossible.
    """
    path = model.with_suffix(".yaml")
    sidecar = _read_sidecar(path) if os.path.isfile(path) else Sidecar()
    known = _read_metadata(metadata, model)
    if known.task != "detect" and not sidecar.decode:
        raise DetectorError(
            f"{model}: is made for the task {one_line(known.task, 80)}; give a model that detects boxes"
        )
    names = _names(sidecar.names, path) if sidecar.names else _metadata_names(known.names, model)
    size = (sidecar.size, sidecar.size) if isinstance(sidecar.size, int) else sidecar.size
    stride = sidecar.stride or _metadata_stride(known.stride, model)
    shape = (size[0], size[1]) if size else None
    return Facts(sidecar, path, names, shape, stride, known.head, known.end2end.lower() == "true")


def with_sidecar(digest: str, facts: Facts) -> str:
    """The SHA-256 that stands for a model with its sidecar: the model's own where nothing is declared.

    Args:
        digest: SHA-256 of the model's files.
        facts: what is declared; it changes results as weights do.
    """
    if facts.sidecar == Sidecar():
        return digest
    # Keys that came later count only where they are used, so that the hashes of older reports stay what they are.
    held = [(entry.name, getattr(facts.sidecar, entry.name), entry.default) for entry in fields(Sidecar)]
    said = ", ".join(f"{name}={value!r}" for name, value, default in held if name not in LATER_KEYS or value != default)
    return hashlib.sha256(f"{digest} Sidecar({said}) {facts.names!r}".encode()).hexdigest()


def _read_sidecar(path: Path) -> Sidecar:
    """The settings of a YAML file; those of a file that holds none of our keys, so is someone else's, are empty."""
    content = read_yaml(path, DetectorError, "correct it")
    known = [entry.name for entry in fields(Sidecar)]
    if not isinstance(content, dict) or not set(content) & set(known):
        return Sidecar()
    named = {str(key): value for key, value in content.items()}
    sidecar = record(Sidecar, named, str(path), DetectorError, "correct it, see docs/detectors.md")
    sizes = sidecar.size if isinstance(sidecar.size, tuple) else (sidecar.size,)
    checks = (
        (len(sizes) in (0, 2) or isinstance(sidecar.size, int), "size must be one side, or [height, width]"),
        (all(side > 0 for side in sizes), "size must be above 0"),
        (all(side <= MAX_SIDE for side in sizes), f"size must be at most {MAX_SIDE}, for the memory it takes"),
        (sidecar.stride >= 0, "stride must not be negative"),
        (sidecar.stride <= MAX_STRIDE, f"stride must be at most {MAX_STRIDE}, or images become too large"),
        (sidecar.scale > 0, "scale must be above 0"),
        (len(sidecar.mean) in (0, 3) and len(sidecar.std) in (0, 3), "mean and std must have three numbers"),
        (all(value > 0 for value in sidecar.std), "std must be above 0"),
        (0 < len(sidecar.strides) <= 16, "strides must have 1 to 16 numbers"),
        (all(0 < value <= MAX_STRIDE for value in sidecar.strides), f"strides must be above 0, at most {MAX_STRIDE}"),
        (0 <= sidecar.first_label <= MOST_CLASSES, f"first_label must be from 0 to {MOST_CLASSES}"),
        (not sidecar.logits or not sidecar.decode.startswith("detr"), "a detr has logits anyway; leave out logits:"),
        (not sidecar.logits or sidecar.decode != "boxes", "boxes with labels have no logits; leave out logits:"),
    )
    for holds, message in checks:
        if not holds:
            raise DetectorError(f"{path}: {message}")
    return sidecar


def _read_metadata(metadata: Mapping[str, str], model: Path) -> Metadata:
    """The metadata that we know; those of a length that none has are refused before anything parses them."""
    known = {entry.name: metadata[entry.name] for entry in fields(Metadata) if entry.name in metadata}
    long = next((name for name, text in known.items() if len(text) > MOST_METADATA), "")
    if long:
        raise DetectorError(f"{model}: {long} in its metadata has {len(known[long])} characters; export it again")
    return record(Metadata, known, f"{model}: its metadata", DetectorError, "export it again")


def _names(given: str | tuple[str, ...] | Mapping[Any, str], origin: Path) -> tuple[str, ...]:
    """Class names from a list, a mapping of numbers, or a file beside `origin`."""
    if isinstance(given, str):
        return names_beside(origin, given)
    if isinstance(given, Mapping):
        numbered = {int(number) if _is_label(number) else -1: name for number, name in given.items()}
        if sorted(numbered) != list(range(len(given))):
            raise DetectorError(f"{origin}: names must be numbered from 0 without a gap")
        given = tuple(numbered[number] for number in range(len(given)))
    return tidy_names(given, origin)


def _is_label(number: Any) -> bool:
    """Whether a key is a whole number; Python refuses to convert very long ones, and no label has so many digits."""
    text = str(number) if isinstance(number, int | str) and not isinstance(number, bool) else ""
    return text.isdecimal() and len(text) < 10


def _metadata_names(text: str, model: Path) -> tuple[str, ...]:
    """Class names from metadata, written as Python or JSON writes a mapping or a list; none if there are none."""
    if not text:
        return ()
    try:
        value = ast.literal_eval(text)  # literals only: nothing is executed
        listed = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
        if listed or (isinstance(value, dict) and all(isinstance(name, str) for name in value.values())):
            return _names(tuple(value) if listed else value, model)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise DetectorError(f"{model}: the class names in its metadata cannot be read; declare names: in a sidecar")


def _metadata_stride(text: str, model: Path) -> int:
    """The stride in metadata; 0 where there is none, or what is there is no number."""
    try:
        stride = max(0, int(float(text or "0")))
    except (ValueError, OverflowError):
        return 0
    if stride > MAX_STRIDE:
        raise DetectorError(f"{model}: the stride in its metadata is {stride}; declare stride: in a sidecar")
    return stride

"""Settings of an ONNX detector that its graph lacks: decode of the outputs, class names and normalisation of the input.

They come from a sidecar MODEL.yaml beside MODEL.onnx, and otherwise from the metadata of the model.
Source: the metadata keys `names`, `stride`, `task`, `head` and `end2end` are those of exports by ultralytics.
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
"""Meaning of the four numbers of a box: two corners (two orders of x and y), centre and size, or corner and size."""

MAX_SIDE = 4096
"""Greatest side of the input in pixels. One image of that size takes 200 MB, and a network's activations far more."""

MOST_METADATA = 1_000_000
"""Most characters of a value in a model's metadata; the names of `MOST_CLASSES` classes fit."""

RTDETR_HEAD = "RTDETRDecoder"
"""Value of `head` in ultralytics' exports of RT-DETR, whose boxes are centre and size in 0..1, even in a table."""

LATER_KEYS = ("layout", "coordinates", "logits", "first_label")
"""Keys of a sidecar that earlier versions of this package did not have."""


@dataclass(frozen=True)
class Sidecar:
    """The settings of a sidecar; each is optional.

    Attributes:
        decode: decode of the outputs, see `onnx.decode`; "" infers it from shapes and values.
        names: class names, index = label: a list, a mapping of labels to names, or the path of a file with one a line.
        size: (height, width), or the side of a square input, in pixels; every image is resized and padded to it.
        stride: number of pixels of which the sides of a free input must be multiples.
        scale: factor for an image in [0, 1], usually 1 or 255.
        mean, std: normalisation (x - mean) / std after `scale`, one number for each of the `channels`.
        channels: order of the input's colour channels.
        layout: order of the input's axes, channels first or last; "" infers it from the shape.
        boxes: unit of the boxes; "" takes pixels, unless the decode has another unit.
        coordinates: meaning of the four numbers of a box; "" takes the usual one of the decode.
        logits: whether scores (and objectness) are logits, to which the sigmoid is still to be applied.
        first_label: label of the first class name, for outputs that hold labels.
        input: name of the image input; "" takes the only one with four axes.
        outputs: names of the outputs in the order in which the decode lists them; none infers them.
        strides: strides of the grids of a `yolox` output, in the order of the output.
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
    """The metadata in a model's file, as text; other keys are not read.

    Attributes:
        names: class names, a mapping or a list in Python's or JSON's notation.
        stride: number of pixels of which the sides of the input must be multiples.
        task: task of the model.
        head: class of the network's last layer.
        end2end: `True` if the output is a table of final detections.
    """

    names: str = ""
    stride: str = ""
    task: str = "detect"
    head: str = ""
    end2end: str = ""


@dataclass(frozen=True)
class Facts:
    """The settings of a model, from sidecar and metadata.

    Attributes:
        sidecar: settings of the sidecar.
        path: path of the sidecar, which may not exist.
        names: class names, empty if unknown.
        size: declared (height, width) in pixels, or None.
        stride: stride in pixels, 0 if unknown.
        head: class of the network's last layer, "" if unknown.
        end2end: whether the output is a table of final detections.
    """

    sidecar: Sidecar
    path: Path
    names: tuple[str, ...]
    size: tuple[int, int] | None
    stride: int
    head: str = ""
    end2end: bool = False


def read_facts(model: Path, metadata: Mapping[str, str]) -> Facts:
    """The settings of a model, from its sidecar and its metadata.

    Args:
        model: the .onnx file.
        metadata: the `metadata_props` of the model.

    Raises:
        DetectorError: the sidecar or the metadata cannot be read, or hold an unknown or impossible value.
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
    """The SHA-256 of a model with its sidecar; that of the model alone if the sidecar declares nothing.

    Args:
        digest: SHA-256 of the model's files.
        facts: settings of the model, which change its detections as its weights do.
    """
    if facts.sidecar == Sidecar():
        return digest
    # Later keys count only if they are used, so that the hashes in older reports stay valid.
    held = [(entry.name, getattr(facts.sidecar, entry.name), entry.default) for entry in fields(Sidecar)]
    said = ", ".join(f"{name}={value!r}" for name, value, default in held if name not in LATER_KEYS or value != default)
    return hashlib.sha256(f"{digest} Sidecar({said}) {facts.names!r}".encode()).hexdigest()


def _read_sidecar(path: Path) -> Sidecar:
    """The settings in a YAML file; the defaults if it has none of the keys, and so belongs to another program."""
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
        (
            not sidecar.logits or not sidecar.decode.startswith("detr"),
            "logits: has no effect on a detr and must be left out",
        ),
        (
            not sidecar.logits or sidecar.decode != "boxes",
            "logits: has no meaning for decode: boxes and must be left out",
        ),
    )
    for holds, message in checks:
        if not holds:
            raise DetectorError(f"{path}: {message}; correct it, see docs/detectors.md")
    return sidecar


def _read_metadata(metadata: Mapping[str, str], model: Path) -> Metadata:
    """The known keys of the metadata; a value of excessive length is refused before it is parsed."""
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
            raise DetectorError(
                f"{origin}: names must be numbered from 0 without a gap; correct names: in {_yaml(origin)}"
            )
        given = tuple(numbered[number] for number in range(len(given)))
    return tidy_names(given, origin)


def _is_label(number: Any) -> bool:
    """Whether a key is a whole number of at most nine digits; Python refuses to convert very long ones."""
    text = str(number) if isinstance(number, int | str) and not isinstance(number, bool) else ""
    return text.isdecimal() and len(text) < 10


def _metadata_names(text: str, model: Path) -> tuple[str, ...]:
    """Class names from metadata, a mapping or a list in Python's or JSON's notation; empty if there are none."""
    if not text:
        return ()
    try:
        value = ast.literal_eval(text)  # evaluates literals only and executes no code
        listed = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
        if listed or (isinstance(value, dict) and all(isinstance(name, str) for name in value.values())):
            return _names(tuple(value) if listed else value, model)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise DetectorError(f"{model}: the class names in its metadata cannot be read; declare names: in {_yaml(model)}")


def _yaml(path: Path) -> str:
    """Name of the sidecar, from the path of the model or the sidecar."""
    return path.with_suffix(".yaml").name


def _metadata_stride(text: str, model: Path) -> int:
    """The stride in metadata; 0 if it is missing or not a number."""
    try:
        stride = max(0, int(float(text or "0")))
    except (ValueError, OverflowError):
        return 0
    if stride > MAX_STRIDE:
        raise DetectorError(f"{model}: the stride in its metadata is {stride}; declare stride: in {_yaml(model)}")
    return stride

"""What a model file does not say of itself: how its outputs are read, its classes, and what its input expects.

It comes from a sidecar MODEL.yaml beside MODEL.onnx, and else from the metadata and the shapes of the outputs.
Source: the metadata keys `names`, `stride` and `task` are those that exports by ultralytics write.
"""

import ast
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.errors import DetectorError, UsageError
from adaptiveisp.settings import changed
from adaptiveisp.yamlfile import read_yaml

Decode = Literal["yolo", "yolo-no-objectness", "yolox", "detr", "detr-sigmoid", "boxes"]
DECODES = ("yolo", "yolo-no-objectness", "yolox", "detr", "detr-sigmoid", "boxes")


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
        boxes: unit of the boxes' coordinates; "" finds it.
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
    boxes: Literal["pixels", "normalised", ""] = ""
    input: str = ""
    outputs: str | tuple[str, ...] = ()
    strides: tuple[int, ...] = (8, 16, 32)


@dataclass(frozen=True)
class Facts:
    """What is known of a model.

    Attributes:
        sidecar: its settings, all as lists.
        path: where the sidecar is, or would be.
        names: class names, none if unknown.
        size: (height, width) that was declared, or None.
        stride: 0 if unknown.
    """

    sidecar: Sidecar
    path: Path
    names: tuple[str, ...]
    size: tuple[int, int] | None
    stride: int


def read_facts(model: Path, metadata: Mapping[str, str]) -> Facts:
    """What the sidecar and the metadata of a model say.

    Args:
        model: the .onnx file.
        metadata: its metadata_props.

    Raises:
        DetectorError: the sidecar cannot be read or holds something unknown or impossible.
    """
    path = model.with_suffix(".yaml")
    sidecar = _read_sidecar(path) if os.path.isfile(path) else Sidecar()
    task = metadata.get("task", "detect")
    if task != "detect" and not sidecar.decode:
        raise DetectorError(f"{model}: is made for the task {task}; give a model that detects boxes")
    names = _names(sidecar.names, path) if sidecar.names else _metadata_names(metadata.get("names", ""), model)
    size = (sidecar.size, sidecar.size) if isinstance(sidecar.size, int) else sidecar.size
    return Facts(
        sidecar, path, names, (size[0], size[1]) if size else None, sidecar.stride or _metadata_stride(metadata)
    )


def with_sidecar(digest: str, facts: Facts) -> str:
    """The SHA-256 that stands for a model with its sidecar: the model's own where nothing is declared.

    Args:
        digest: SHA-256 of the model's files.
        facts: what is declared; it changes results as weights do.
    """
    if facts.sidecar == Sidecar():
        return digest
    return hashlib.sha256(f"{digest} {facts.sidecar!r} {facts.names!r}".encode()).hexdigest()


def _read_sidecar(path: Path) -> Sidecar:
    """The settings of a YAML file; those of a file that holds none of our keys, so is someone else's, are empty."""
    content = read_yaml(path, DetectorError, "correct it")
    known = [entry.name for entry in fields(Sidecar)]
    if not isinstance(content, dict) or not set(content) & set(known):
        return Sidecar()
    try:
        sidecar = changed(Sidecar(), {str(key): value for key, value in content.items()}, str(path))
    except UsageError as error:
        raise DetectorError(str(error)) from None
    sizes = sidecar.size if isinstance(sidecar.size, tuple) else (sidecar.size,)
    checks = (
        (len(sizes) in (0, 2) or isinstance(sidecar.size, int), "size must be one side, or [height, width]"),
        (all(side > 0 for side in sizes), "size must be above 0"),
        (sidecar.stride >= 0, "stride must not be negative"),
        (sidecar.scale > 0, "scale must be above 0"),
        (len(sidecar.mean) in (0, 3) and len(sidecar.std) in (0, 3), "mean and std must have three numbers"),
        (all(value > 0 for value in sidecar.std), "std must be above 0"),
        (len(sidecar.strides) > 0 and all(value > 0 for value in sidecar.strides), "strides must be above 0"),
    )
    for holds, message in checks:
        if not holds:
            raise DetectorError(f"{path}: {message}")
    return sidecar


def _names(given: str | tuple[str, ...] | Mapping[Any, str], origin: Path) -> tuple[str, ...]:
    """Class names from a list, a mapping of numbers, or a file beside `origin`."""
    if isinstance(given, str):
        path = origin.parent / given
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise DetectorError(f"{path}: cannot be read; it must be a text file with one class name a line") from error
        return tuple(line.strip() for line in lines if line.strip())
    if isinstance(given, Mapping):
        numbered = {int(number) if str(number).isdecimal() else -1: name for number, name in given.items()}
        if sorted(numbered) != list(range(len(given))):
            raise DetectorError(f"{origin}: names must be numbered from 0 without a gap")
        return tuple(numbered[number] for number in range(len(given)))
    return tuple(given)


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


def _metadata_stride(metadata: Mapping[str, str]) -> int:
    try:
        return max(0, int(float(metadata.get("stride", "0"))))
    except (ValueError, OverflowError):
        return 0

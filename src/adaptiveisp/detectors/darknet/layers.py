"""The layers of a network in Darknet's format: a .cfg is read as a list of sections, from which the layers are built.

Source: the file format and the layers of the public Darknet release (Redmon and Farhadi 2018).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptiveisp.detectors.limits import (
    ANCHOR_SIDES,
    MAX_DENSITY,
    MAX_FILE,
    MAX_LAYER_WEIGHTS,
    MAX_LAYERS,
    MAX_NUMBER,
    MAX_STRIDE,
    MAX_WEIGHTS,
    MAX_WINDOW,
)
from adaptiveisp.detectors.yolo.loss import Head
from adaptiveisp.errors import DetectorError, one_line, shown

BATCH_NORM_EPS = 1e-6
"""Added to the variance, as in OpenCV's reader of these files; Darknet itself adds it to the standard deviation."""

LEAKY_SLOPE = 0.1
"""Slope of Darknet's leaky activation below 0."""

ACTIVATIONS = ("linear", "leaky", "relu")

VARIANTS = (("scale_x_y", 1.0), ("new_coords", 0.0))
"""Options of detection layers of later YOLO versions, with the value at which they have no effect."""

REMEDY = "correct it, or get the .cfg again"
EXPORT = "export the network to ONNX instead"


@dataclass(frozen=True)
class Section:
    """One `[kind]` block of a .cfg: its options as text, and the line where it begins, for messages."""

    kind: str
    options: dict[str, str]
    path: Path
    line: int

    def error(self, message: str, remedy: str = REMEDY) -> DetectorError:
        """The error about this section, with file and line."""
        return DetectorError(f"{self.path}:{self.line}: [{self.kind}] {message}; {remedy}")

    def integers(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The comma-separated whole numbers of an option.

        Raises:
            DetectorError: the option is missing and has no default, or is not made of whole numbers.
        """
        text = self.options.get(key)
        if text is None:
            if default is None:
                raise self.error(f"needs {key}=")
            return default
        try:
            return tuple(int(item) for item in text.split(",") if item.strip())
        except ValueError:
            raise self.error(f"{key}={one_line(text, 80)}: expected whole numbers") from None

    def integer(self, key: str, default: int | None = None, low: int = 0, high: int = MAX_NUMBER) -> int:
        """The single whole number of an option, from `low` to `high`."""
        values = self.integers(key, None if default is None else (default,))
        if len(values) != 1 or not low <= values[0] <= high:
            raise self.error(
                f"{key}={one_line(str(self.options.get(key)), 80)}: expected one whole number, at least {low} and "
                f"at most {high}"
            )
        return values[0]

    def numbers(self, key: str) -> tuple[float, ...]:
        """The comma-separated numbers of a required option."""
        try:
            return tuple(float(item) for item in self.options[key].split(",") if item.strip())
        except KeyError:
            raise self.error(f"needs {key}=") from None
        except ValueError:
            raise self.error(f"{key}={one_line(self.options[key], 80)}: expected numbers") from None


def read_cfg(path: Path) -> list[Section]:
    """The sections of a .cfg file in order, the first being `[net]`.

    Raises:
        DetectorError: the file cannot be read, or a line is neither `[kind]`, `key=value` nor a comment.
    """
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_FILE + 1)
        lines = content.decode("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise DetectorError(f"{path}: cannot be read ({reason}); give a Darknet .cfg file") from error
    if len(content) > MAX_FILE:
        raise DetectorError(f"{path}: is larger than {MAX_FILE // 1_000_000} MB; give a Darknet .cfg file")
    sections: list[Section] = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].split(";")[0].strip()
        if not text:
            continue
        if text.startswith("[") and text.endswith("]"):
            sections.append(Section(text[1:-1].strip().lower(), {}, Path(path), number))
            continue
        key, equals, value = text.partition("=")
        if not equals or not sections:
            raise DetectorError(
                f"{path}:{number}: {shown(text)} is neither [section] nor key=value; give a Darknet .cfg file"
            )
        sections[-1].options[key.strip()] = value.strip()
    if not sections or sections[0].kind not in ("net", "network"):
        raise DetectorError(f"{path}: must begin with [net]; give a Darknet .cfg file")
    return sections


class Shape(NamedTuple):
    """Shape of a layer's output: its channels, and its stride in pixels of the image."""

    channels: int
    stride: int


class Convolution(nn.Module):
    """Convolution, batch norm (unless absent or folded) and activation."""

    def __init__(self, section: Section, in_channels: int) -> None:
        """Builds the layer that a `[convolutional]` section describes, with `in_channels` input channels."""
        super().__init__()
        filters, size = section.integer("filters", low=1), section.integer("size", 1, 1, MAX_WINDOW)
        groups = section.integer("groups", 1, low=1)
        if in_channels % groups or filters % groups:
            raise section.error(f"groups={groups} divides neither {in_channels} channels nor filters={filters}")
        if _weights_of(section, in_channels) > MAX_LAYER_WEIGHTS:
            raise section.error(f"filters={filters}, size={size} on {in_channels} channels are too many weights")
        padding = size // 2 if section.integer("pad", 0) else section.integer("padding", 0, high=MAX_WINDOW)
        normalised = section.integer("batch_normalize", 0) != 0
        self.activation = section.options.get("activation", "linear")
        if self.activation not in ACTIVATIONS:
            raise section.error(
                f"activation={self.activation} is not supported (known: {', '.join(ACTIVATIONS)})", EXPORT
            )
        stride = section.integer("stride", 1, 1, MAX_WINDOW)
        self.conv = nn.Conv2d(in_channels, filters, size, stride, padding, groups=groups, bias=not normalised)
        self.norm = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS) if normalised else None

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        # In place, because the gradients of convolution and batch norm do not need their outputs.
        if self.activation == "leaky":
            return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
        return F.relu(x, inplace=True) if self.activation == "relu" else x

    def fill(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fills the layer (bias, perhaps scale, mean and variance, then weights) and returns the rest of `values`."""
        norm, conv = self.norm, self.conv
        slots: list[Tensor | None]
        if norm is not None:
            slots = [norm.bias, norm.weight, norm.running_mean, norm.running_var, conv.weight]
        else:
            slots = [conv.bias, conv.weight]
        for slot in slots:
            assert slot is not None
            slot.data.copy_(torch.from_numpy(values[: slot.numel()].copy()).view_as(slot))
            values = values[slot.numel() :]
        return values

    def fold(self) -> None:
        """Folds the batch norm into the convolution; the output stays the same up to rounding."""
        if self.norm is None:
            return
        norm, old = self.norm, self.conv
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias.double() - norm.running_mean.double() * scale
        weight = (old.weight.double() * scale[:, None, None, None]).to(old.weight.dtype)
        old.weight = nn.Parameter(weight, requires_grad=False)
        old.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
        self.norm = None


def _weights_of(section: Section, in_channels: int) -> int:
    """The number of kernel weights of a `[convolutional]` section."""
    filters, size = section.integer("filters", low=1), section.integer("size", 1, 1, MAX_WINDOW)
    return filters * (in_channels // section.integer("groups", 1, low=1)) * size**2


class MaxPool(nn.Module):
    """Max pooling with Darknet's padding: size - 1 pixels in total, the larger half at the right and bottom."""

    def __init__(self, size: int, stride: int) -> None:
        """Kernel size and stride in pixels."""
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, of ceil(side / stride) pixels."""
        size, stride = self.size, self.stride
        if size % 2:
            return F.max_pool2d(x, size, stride, padding=size // 2)
        # A window of 2 with stride 2 never reaches the padding of an even side; the common case needs no padded copy.
        if (size, stride) != (2, 2) or x.shape[-1] % 2 or x.shape[-2] % 2:
            low, high = (size - 1) // 2, size // 2
            x = F.pad(x, (low, high, low, high), value=float("-inf"))
        return F.max_pool2d(x, size, stride)


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by a whole factor."""

    def __init__(self, factor: int) -> None:
        """Upsamples both sides by `factor`."""
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return F.interpolate(x, scale_factor=float(self.factor), mode="nearest")


class Route(nn.Module):
    """Concatenated channels of earlier layers; with groups, only one of the equal groups of each layer's channels."""

    def __init__(self, sources: tuple[int, ...], groups: int, group: int) -> None:
        """`sources` are absolute layer numbers."""
        super().__init__()
        self.sources, self.groups, self.group = sources, groups, group

    def join(self, outputs: list[Tensor]) -> Tensor:
        """The layer's output from those of its sources, in their order."""
        parts = [output.chunk(self.groups, dim=1)[self.group] for output in outputs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Shortcut(nn.Module):
    """The sum of the layer before and an earlier one."""

    def __init__(self, sources: tuple[int, ...]) -> None:
        """`sources` are absolute layer numbers: the layer before, then the earlier one."""
        super().__init__()
        self.sources = sources

    def join(self, outputs: list[Tensor]) -> Tensor:
        """The layer's output from those of its sources."""
        return outputs[0] + outputs[1]


class Yolo(nn.Module):
    """A detection layer: its anchors and its stride in pixels."""

    anchors: Tensor

    def __init__(self, anchors: list[tuple[float, float]], classes: int, stride: int) -> None:
        """`anchors` are the widths and heights of this layer's anchors in pixels."""
        super().__init__()
        self.classes, self.stride = classes, stride
        self.register_buffer("anchors", torch.tensor(anchors, dtype=torch.float32), persistent=False)

    def forward(self, x: Tensor) -> Head:
        """The logits as (image, anchor, row, column, value)."""
        batch, _, rows, columns = x.shape
        return x.view(batch, len(self.anchors), 5 + self.classes, rows, columns).permute(0, 1, 3, 4, 2)


def build_layers(sections: list[Section], most_weights: int = MAX_WEIGHTS) -> list[nn.Module]:
    """One module per section after `[net]`.

    Args:
        sections: sections of a .cfg.
        most_weights: most weights that the network may have, from the size of the weights file.

    Raises:
        DetectorError: a section is wrong or exceeds a limit; the message names it.
    """
    if len(sections) > MAX_LAYERS:
        raise sections[0].error(f"is followed by {len(sections) - 1} layers; at most {MAX_LAYERS - 1} are supported")
    weights = 0
    channels = sections[0].integer("channels", 3)
    if channels != 3:
        raise sections[0].error(f"channels={channels}: only RGB networks are supported", "give another network")
    layers: list[nn.Module] = []
    shapes: list[Shape] = []
    for section in sections[1:]:
        before = shapes[-1] if shapes else Shape(channels, 1)
        if section.kind == "convolutional":
            weights += _weights_of(section, before.channels)
            if weights > most_weights:  # checked before the layer is allocated
                raise section.error(f"brings the network to {weights} weights; at most {most_weights} fit")
        layer, shape = _build_layer(section, before, shapes)
        if shape.stride > MAX_STRIDE:
            raise section.error(f"brings the stride to {shape.stride}; at most {MAX_STRIDE} is supported")
        if shape.channels > MAX_DENSITY * shape.stride**2:
            raise section.error(f"has {shape.channels} channels at a stride of {shape.stride}, too much for any memory")
        layers.append(layer)
        shapes.append(shape)
    return layers


def _build_layer(section: Section, before: Shape, shapes: list[Shape]) -> tuple[nn.Module, Shape]:
    """The module of one section, and the shape of its output."""
    match section.kind:
        case "convolutional":
            conv = Convolution(section, before.channels)
            return conv, Shape(conv.conv.out_channels, before.stride * conv.conv.stride[0])
        case "maxpool":
            stride = section.integer("stride", 1, 1, MAX_WINDOW)
            size = section.integer("size", stride, 1, MAX_WINDOW)
            if section.integer("padding", size - 1) != size - 1:
                raise section.error("padding= other than size - 1 is not supported", EXPORT)
            return MaxPool(size, stride), Shape(before.channels, before.stride * stride)
        case "upsample":
            factor = section.integer("stride", 2, 1, MAX_WINDOW)
            if before.stride % factor:
                raise section.error(f"stride={factor} would exceed the input's resolution")
            return Upsample(factor), Shape(before.channels, before.stride // factor)
        case "route":
            return _build_route(section, shapes)
        case "shortcut":
            sources = (len(shapes) - 1, *_sources(section, "from", shapes))
            if len(sources) != 2 or shapes[sources[0]] != shapes[sources[1]]:
                raise section.error("needs one earlier layer of the same channels and stride")
            if section.options.get("activation", "linear") != "linear":
                raise section.error("only activation=linear is supported", EXPORT)
            return Shortcut(sources), before
        case "yolo":
            return _build_yolo(section, before), before
    raise section.error("is not supported (known: convolutional, maxpool, route, shortcut, upsample, yolo)", EXPORT)


def _sources(section: Section, key: str, shapes: list[Shape]) -> tuple[int, ...]:
    """Absolute numbers of the layers in an option; negative numbers count back from the section's own layer."""
    here = len(shapes)
    sources = tuple(number if number >= 0 else here + number for number in section.integers(key))
    if not sources or not all(0 <= number < here for number in sources):
        given = one_line(section.options[key], 80)
        raise section.error(f"{key}={given}: must name earlier layers (this is layer {here})")
    return sources


def _build_route(section: Section, shapes: list[Shape]) -> tuple[nn.Module, Shape]:
    sources = _sources(section, "layers", shapes)
    groups, group = section.integer("groups", 1, low=1), section.integer("group_id", 0)
    if len({shapes[number].stride for number in sources}) != 1:
        raise section.error("joins layers of different strides")
    if group >= groups or any(shapes[number].channels % groups for number in sources):
        raise section.error(f"groups={groups}, group_id={group} do not fit the channels of the layers it names")
    channels = sum(shapes[number].channels // groups for number in sources)
    return Route(sources, groups, group), Shape(channels, shapes[sources[0]].stride)


def _build_yolo(section: Section, before: Shape) -> Yolo:
    numbers, classes = section.numbers("anchors"), section.integer("classes", low=1)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    mask = section.integers("mask", tuple(range(len(pairs))))
    if len(numbers) % 2 or not mask or not all(0 <= number < len(pairs) for number in mask):
        raise section.error("mask= must name pairs of anchors=")
    if not all(ANCHOR_SIDES[0] <= number <= ANCHOR_SIDES[1] for number in numbers):
        low, high = ANCHOR_SIDES
        raise section.error(f"anchors={section.options['anchors']}: expected sides from {low:g} to {high:g} pixels")
    if any(option in section.options and section.numbers(option) != (neutral,) for option, neutral in VARIANTS):
        raise section.error(
            f"is of a later YOLO: {', '.join(option for option, _ in VARIANTS)} are not supported", EXPORT
        )
    if before.channels != len(mask) * (5 + classes):
        raise section.error(
            f"needs {len(mask)} anchors x (5 + {classes} classes) = {len(mask) * (5 + classes)} channels, "
            f"the layer before has {before.channels}"
        )
    return Yolo([pairs[number] for number in mask], classes, before.stride)


def last_uses(layers: nn.ModuleList) -> dict[int, int]:
    """The number of each layer that is an input of a later one → the number of the last such layer."""
    last: dict[int, int] = {}
    for number, layer in enumerate(layers):
        if isinstance(layer, Route | Shortcut):
            last.update(dict.fromkeys(layer.sources, number))
    return last

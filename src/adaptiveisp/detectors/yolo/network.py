"""A YOLOv3 or YOLOv5 network from the description inside its checkpoint: a list of [from, number, module, args] rows.

Source: the form of the descriptions (models/*.yaml) of the YOLOv3 and YOLOv5 repositories.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adaptiveisp.detectors.darknet.layers import Shape, Upsample, Yolo
from adaptiveisp.detectors.limits import ANCHOR_SIDES, MAX_DENSITY, MAX_NUMBER, MAX_STRIDE, MAX_WINDOW
from adaptiveisp.detectors.yolo.detector import YoloDetector
from adaptiveisp.detectors.yolo.layers import C3, SPP, SPPF, Bottleneck, BottleneckCSP, Concat, Conv, Detect, Focus
from adaptiveisp.detectors.yolo.loss import Head
from adaptiveisp.errors import DetectorError, shown
from adaptiveisp.types import Image

MAX_ROWS, MAX_REPEATS, MAX_MULTIPLE = 256, 64, 16.0
"""Limits of a description; published ones have 25 to 33 rows, 12 repeats and multiples of 1.33 at most."""

CHANNEL_STEP = 8
"""Scaled numbers of channels are rounded up to a multiple of this."""

ARGUMENTS: dict[str, int] = {
    "Conv": 4,
    "Focus": 4,
    "Bottleneck": 2,
    "BottleneckCSP": 2,
    "C3": 2,
    "SPP": 2,
    "SPPF": 2,
    "Concat": 1,
    "nn.Upsample": 3,
    "nn.MaxPool2d": 3,
    "nn.ZeroPad2d": 1,
    "Detect": 2,
}
"""Supported modules of a description → greatest number of arguments."""

WITHOUT_CHANNELS = ("Concat", "nn.Upsample", "nn.MaxPool2d", "nn.ZeroPad2d", "Detect")
"""Modules whose first argument is not a number of channels."""

BLOCKS: dict[str, type[C3] | type[BottleneckCSP]] = {"C3": C3, "BottleneckCSP": BottleneckCSP}
"""Modules that repeat a part inside instead of being repeated themselves."""

Anchors = tuple[tuple[float, float], ...]
"""Widths and heights of one detection layer's anchors in pixels."""


@dataclass(frozen=True)
class Description:
    """The description of a network.

    Attributes:
        yaml: `nc`, `depth_multiple`, `width_multiple`, `backbone` and `head`, as plain data.
        anchors: one entry for each input of `Detect`, in its order.
    """

    yaml: Mapping[str, Any]
    anchors: tuple[Anchors, ...]


class Row(NamedTuple):
    """One row of a description, with its inputs as row numbers; -1 is the image."""

    number: int
    sources: tuple[int, ...]
    repeats: int
    module: str
    args: tuple[Any, ...]

    def error(self, message: str) -> DetectorError:
        """The error about this row."""
        return DetectorError(f"layer {self.number} ({self.module}): {message}")

    def integer(self, place: int, default: int | None, low: int, high: int) -> int | None:
        """The argument at `place`, a whole number, or the default if it is left out."""
        value = self.args[place] if place < len(self.args) else default
        if value is None and default is None:
            return None
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:  # a square window
            value = value[0]
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"argument {place + 1}: expected a whole number from {low} to {high}")
        return value

    def required(self, place: int, default: int, low: int, high: int) -> int:
        """As `integer`, but never None."""
        value = self.integer(place, default, low, high)
        assert value is not None
        return value

    def switch(self, place: int, default: bool) -> bool:
        """The argument at `place`, true or false."""
        value = self.args[place] if place < len(self.args) else default
        if not isinstance(value, bool):
            raise self.error(f"argument {place + 1}: expected true or false")
        return value


class Scale(NamedTuple):
    """Scale of a description: `depth` of repeats and `width` of channels; the `values` of a cell are not scaled."""

    depth: float
    width: float
    values: int

    def repeats(self, wanted: int) -> int:
        """The scaled number of repeats of a row that has `wanted`."""
        return max(round(wanted * self.depth), 1) if wanted > 1 else wanted

    def channels(self, wanted: int) -> int:
        """The scaled number of channels of a row that has `wanted`."""
        return wanted if wanted == self.values else math.ceil(wanted * self.width / CHANNEL_STEP) * CHANNEL_STEP


class YoloNetwork(YoloDetector):
    """The frozen detector that a `Description` describes, with the decoding `v5`."""

    def __init__(
        self, description: Description, class_names: tuple[str, ...], name: str, weights_sha256: str = ""
    ) -> None:
        """Builds the network without weights, which `assign` adds.

        Args:
            description: its rows, scale and anchors.
            class_names: index = label; as many as the network has classes.
            name: short name for tables.
            weights_sha256: hash of the weights file, "" if there is none.

        Raises:
            DetectorError: the description is wrong, or has a module that is not supported.
        """
        super().__init__(name, class_names, "v5", weights_sha256)
        self.description = description
        classes = description.yaml.get("nc")
        if classes != len(class_names) or not class_names:
            raise DetectorError(f"has {len(class_names)} class names, but detects {shown(classes)} classes")
        self.rows = read_rows(description.yaml)
        scale = _scale(description, len(class_names))
        self.layers, shapes = nn.ModuleList(), list[Shape]()
        for row in self.rows:
            inputs = [shapes[source] if source >= 0 else Shape(3, 1) for source in row.sources]
            layer, shape = _build_layer(row, inputs, scale)
            if shape.stride > MAX_STRIDE:
                raise row.error(f"brings the stride to {shape.stride}; at most {MAX_STRIDE} is supported")
            if shape.channels > MAX_DENSITY * shape.stride**2:
                raise row.error(f"has {shape.channels} channels at a stride of {shape.stride}, too much for any memory")
            self.layers.append(layer)
            shapes.append(shape)
        # The image must be divisible by the greatest stride of any layer, or the concatenated layers would not fit.
        self.stride = max(shape.stride for shape in shapes)
        self.strides = tuple(shapes[source].stride for source in self.rows[-1].sources)
        if len(self.strides) != len(description.anchors):
            raise DetectorError(f"has {len(self.strides)} detection layers, but anchors for {len(description.anchors)}")
        self._places = sorted(range(len(self.strides)), key=lambda place: self.strides[place])
        self.detection_layers = [
            Yolo(list(description.anchors[place]), len(class_names), self.strides[place]) for place in self._places
        ]
        self._grids = nn.ModuleList(
            self.detection_layers
        )  # registered, so that they move to another device with the network
        self._last_use = {source: row.number for row in self.rows for source in row.sources}
        self._freeze()
        self._check_shapes()

    def _check_shapes(self) -> None:
        """Refuses a network whose layers do not fit each other, by a pass on the "meta" device, without values.

        Raises:
            DetectorError: the layers do not fit.
        """
        height, width = self.stride, 2 * self.stride
        try:
            with torch.no_grad():
                heads = self.heads(torch.empty(1, 3, height, width, device="meta"))
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise DetectorError(f"its layers do not fit each other ({reason})") from error
        for head, layer in zip(heads, self.detection_layers, strict=True):
            if head.shape[2:4] != (height // layer.stride, width // layer.stride):
                raise DetectorError("its layers do not reduce the image as their strides say")

    def assign(self, weights: Mapping[str, Tensor]) -> None:
        """Takes over the weights without a copy.

        Args:
            weights: one tensor for each name of `state_dict`, float32.

        Raises:
            ValueError: the weights do not fit the network.
        """
        if wrong := [name for name, value in weights.items() if value.dtype != torch.float32]:
            raise ValueError(f"{wrong[0]} is not float32")
        try:
            self.load_state_dict(dict(weights), assign=True)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from error
        for module in self.layers.modules():
            if isinstance(module, nn.Conv2d):  # faster on a CPU, as in `Darknet`
                module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
        self._freeze()

    def _logits(self, image: Image) -> list[Head]:
        kept: dict[int, Tensor] = {}
        x: Any = image
        for row, layer in zip(self.rows, self.layers, strict=True):
            before = row.number - 1
            inputs = [x if source == before else kept[source] for source in row.sources]
            x = layer(inputs if isinstance(layer, Concat | Detect) else inputs[0])
            if self._last_use.get(row.number, -1) > row.number + 1:
                kept[row.number] = x
            for source in [source for source in kept if self._last_use[source] <= row.number]:
                del kept[source]
        return [grid(x[place]) for grid, place in zip(self.detection_layers, self._places, strict=True)]


def read_rows(yaml: Mapping[str, Any]) -> list[Row]:
    """The rows of a description.

    Raises:
        DetectorError: `yaml` is not such a description, or does not end with its only `Detect`.
    """
    parts = [yaml.get("backbone"), yaml.get("head")]
    if not all(isinstance(part, Sequence) and not isinstance(part, str) for part in parts):
        raise DetectorError("the network's description has no backbone and head")
    content = [row for part in parts if part is not None for row in part]
    if len(content) > MAX_ROWS:
        raise DetectorError(f"the network's description has {len(content)} rows; at most {MAX_ROWS} are supported")
    rows = [_read_row(number, row) for number, row in enumerate(content)]
    if [row.number for row in rows if row.module == "Detect"] != [len(rows) - 1]:
        raise DetectorError(
            "the network's description does not end with its only Detect, and other heads are not supported"
        )
    return rows


def _read_row(number: int, row: Any) -> Row:
    match row:
        case [sources, int(repeats), str(module), [*args]]:
            sources = sources if isinstance(sources, list | tuple) else [sources]
        case _:
            raise DetectorError(f"layer {number}: is not described by [from, number, module, args]")
    if module not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise DetectorError(f"layer {number}: the module {module[:40]!r} is not supported (known: {known})")
    whole = all(type(source) is int and -number - 1 <= source < number for source in sources)
    if not whole or not sources:
        raise DetectorError(f"layer {number} ({module}): must come from earlier layers")
    absolute = tuple(source if source >= 0 else number + source for source in sources)
    # YAML reads the word None as text, which the repositories evaluate.
    found = Row(number, absolute, repeats, module, tuple(None if arg == "None" else arg for arg in args))
    if len(args) > ARGUMENTS[module]:
        raise found.error(f"has {len(args)} arguments, of which {ARGUMENTS[module]} are known")
    if not 1 <= repeats <= MAX_REPEATS or (repeats > 1 and module in WITHOUT_CHANNELS):
        raise found.error(f"cannot be repeated {repeats} times")
    if len(sources) > 1 and module not in ("Concat", "Detect"):
        raise found.error("takes one layer only")
    return found


def _scale(description: Description, classes: int) -> Scale:
    multiples = [description.yaml.get(key) for key in ("depth_multiple", "width_multiple")]
    depth, width = (
        float(value) if isinstance(value, int | float) and 0 < value <= MAX_MULTIPLE else math.nan
        for value in multiples
    )
    if math.isnan(depth) or math.isnan(width):
        raise DetectorError(f"depth_multiple and width_multiple must be above 0 and at most {MAX_MULTIPLE:g}")
    counts = {len(anchors) for anchors in description.anchors}
    sides = [side for anchors in description.anchors for pair in anchors for side in pair]
    low, high = ANCHOR_SIDES
    if len(counts) != 1 or not sides or not all(low <= side <= high for side in sides):
        raise DetectorError(f"each layer must have equally many anchors, with sides from {low:g} to {high:g} pixels")
    return Scale(depth, width, counts.pop() * (5 + classes))


def _build_layer(row: Row, inputs: list[Shape], scale: Scale) -> tuple[nn.Module, Shape]:
    """The module of one row, and the shape of its output."""
    before = inputs[0]
    match row.module:
        case "Concat":
            if row.args not in ((), (1,)) or len({shape.stride for shape in inputs}) != 1:
                raise row.error("must concatenate the channels of layers of one stride")
            return Concat(), Shape(sum(shape.channels for shape in inputs), before.stride)
        case "nn.Upsample":
            if row.args[:1] != (None,) or row.args[2:] != ("nearest",):
                raise row.error("only nearest-neighbour upsampling by a whole factor is supported")
            factor = row.required(1, 2, 1, MAX_WINDOW)
            if before.stride % factor:
                raise row.error("would exceed the input's resolution")
            return Upsample(factor), Shape(before.channels, before.stride // factor)
        case "nn.MaxPool2d":
            size = row.required(0, 2, 1, MAX_WINDOW)
            step, padding = row.required(1, size, 1, MAX_WINDOW), row.required(2, 0, 0, MAX_WINDOW)
            return nn.MaxPool2d(size, step, padding), Shape(before.channels, before.stride * step)
        case "nn.ZeroPad2d":
            (sides,) = row.args or ([],)
            if not isinstance(sides, list) or len(sides) != 4 or not all(side in range(MAX_WINDOW) for side in sides):
                raise row.error("expected four numbers of pixels")
            left, right, top, bottom = sides
            return nn.ZeroPad2d((left, right, top, bottom)), before
        case "Detect":
            return Detect(tuple(shape.channels for shape in inputs), scale.values), before
    return _build_wide(row, before, scale)


def _build_wide(row: Row, before: Shape, scale: Scale) -> tuple[nn.Module, Shape]:
    """The module of a row whose first argument is its channels, and the shape of its output."""
    if not row.args:
        raise row.error("needs its number of channels")
    channels, repeats = scale.channels(row.required(0, 0, 1, MAX_NUMBER)), scale.repeats(row.repeats)
    if repeats > MAX_REPEATS:
        raise row.error(f"is repeated {repeats} times; at most {MAX_REPEATS} are supported")
    if row.module in BLOCKS:
        block = BLOCKS[row.module](before.channels, channels, repeats, row.switch(1, True))
        return block, Shape(channels, before.stride)
    modules, step = [], 1
    for _ in range(repeats):
        module, own_step = _one_wide(row, before.channels, channels)
        modules.append(module)
        step *= own_step
    layer = nn.Sequential(*modules) if repeats > 1 else modules[0]
    return layer, Shape(channels, before.stride * step)


def _one_wide(row: Row, c1: int, c2: int) -> tuple[nn.Module, int]:
    """One module of a row that is repeated as a whole, and its stride."""
    match row.module:
        case "Bottleneck":
            return Bottleneck(c1, c2, row.switch(1, True)), 1
        case "SPP":
            sizes = row.args[1] if len(row.args) > 1 else [5, 9, 13]
            if not isinstance(sizes, list) or not all(size in range(1, MAX_WINDOW + 1, 2) for size in sizes):
                raise row.error("expected a list of odd windows")
            return SPP(c1, c2, tuple(sizes)), 1
        case "SPPF":
            return SPPF(c1, c2, row.required(1, 5, 1, MAX_WINDOW)), 1
    size, step = row.required(1, 1, 1, MAX_WINDOW), row.required(2, 1, 1, MAX_WINDOW)
    padding = row.integer(3, None, 0, MAX_WINDOW)
    if row.module == "Focus":
        return Focus(c1, c2, size, step, padding), 2 * step
    return Conv(c1, c2, size, step, padding), step

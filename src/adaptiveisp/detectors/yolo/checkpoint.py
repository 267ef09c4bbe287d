"""Detectors from `.pt` checkpoints of the YOLOv3 and YOLOv5 repositories, read without their code.

Such a file pickles the whole network as objects of those repositories. `restricted_pickle` reads it as plain records.
The network is built by this package from the description in the file, and takes the weights by name.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptiveisp.detectors.class_names import tidy_names
from adaptiveisp.detectors.darknet.layers import LEAKY_SLOPE
from adaptiveisp.detectors.limits import MAX_STRIDE
from adaptiveisp.detectors.yolo.exports import export_remedy
from adaptiveisp.detectors.yolo.layers import BottleneckCSP, Conv
from adaptiveisp.detectors.yolo.network import Anchors, Description, YoloNetwork
from adaptiveisp.detectors.yolo.restricted_pickle import Record, StoredTensor, shown
from adaptiveisp.detectors.yolo.torch_file import TorchFile, is_torch_file, open_torch_file
from adaptiveisp.errors import DetectorError, WeightsError
from adaptiveisp.utils.files import sha256_of

REMEDY = "give a .pt that train.py of the YOLOv3 or YOLOv5 repository wrote"

NEWER_PACKAGE = "ultralytics."
"""Package of the classes of YOLOv8 and later; those of YOLOv3 and YOLOv5 are in `models.`."""

MODELS = ("ema", "model")
"""Keys of a checkpoint that hold the network. The moving average of the weights comes first, as in the repositories."""

YAML_KEYS = ("nc", "depth_multiple", "width_multiple", "backbone", "head")
"""Keys of the description that are read. Anchors come from the detection layer, since training may change them."""

MAX_YAML_VALUES, MAX_YAML_DEPTH, MAX_YAML_NUMBER = 10_000, 6, 2.0**31
"""Limits of the description; published ones have some 400 values in four levels of lists."""

MAX_TEXT_LENGTH = 200
"""Most characters of a class name or of any text in the description."""

ACTIVATIONS: dict[str, str] = {
    "SiLU": "silu",
    "LeakyReLU": "leaky",
    "Hardswish": "hardswish",
    "ReLU": "relu",
    "Identity": "linear",
}
"""Class in the file → name of the activation."""

FACTS: dict[str, tuple[str, ...]] = {
    "Conv2d": ("stride", "padding", "dilation", "groups"),
    "MaxPool2d": ("kernel_size", "stride", "padding"),
    "Bottleneck": ("add",),
}
"""Class → attributes in which the object in the file must agree with the description."""


def holds_detector(path: Path) -> bool:
    """Whether a file is a checkpoint that pickles a network as an object, judged by its content.

    Raises:
        WeightsError: the file was written by `torch.save`, but its pickle is refused.
    """
    if not is_torch_file(path):
        return False
    with open_torch_file(path) as file:
        return _model_of(file.content) is not None


def load_ultralytics(path: Path) -> YoloNetwork:
    """The frozen detector in a checkpoint, named after the file; half precision is converted to single.

    Args:
        path: a `.pt` of YOLOv3, YOLOv3-SPP, YOLOv3-tiny or YOLOv5.

    Raises:
        WeightsError: the file is missing, damaged, refused, or its weights do not fit its description.
        DetectorError: the file holds another kind of network.
    """
    path = Path(path)
    with open_torch_file(path) as file:
        return _Reading(file).network()


def _model_of(content: Any) -> Record | None:
    """The record of the network, which may be inside a checkpoint or stand alone; None if there is none."""
    if isinstance(content, dict):
        content = next((content[key] for key in MODELS if isinstance(content.get(key), Record)), None)
    return content if isinstance(content, Record) and isinstance(content.state, dict) else None


class _Reading:
    """Builds the network of one checkpoint."""

    def __init__(self, file: TorchFile) -> None:
        self.file, self.path = file, file.path

    def error(self, message: str) -> WeightsError:
        return WeightsError(f"{self.path}: {message}; {self.remedy()}")

    def remedy(self) -> str:
        """The remedy for an error: networks of YOLOv8 and later must be exported to ONNX."""
        model = _model_of(self.file.content)
        if model is not None and model.name.startswith(NEWER_PACKAGE):
            return export_remedy(self.path.name)
        return REMEDY

    def network(self) -> YoloNetwork:
        model = _model_of(self.file.content)
        if model is None:
            raise self.error("holds no network as an object, only weights or other data")
        yaml = model.state.get("yaml")
        if not isinstance(yaml, dict):
            raise self.error(f"its {shown(model.name)} has no description `yaml`")
        try:
            plain = _plain({key: yaml[key] for key in YAML_KEYS if key in yaml}, [MAX_YAML_VALUES])
        except ValueError as error:
            raise self.error(f"its description `yaml` is refused ({error})") from error
        sequential = self.child(model, "model", "its network")
        layers = sequential.state.get("_modules") if isinstance(sequential.state, dict) else None
        last = list(layers.values())[-1] if isinstance(layers, dict) and layers else None
        if not isinstance(last, Record) or last.name.rpartition(".")[2] != "Detect":
            raise self.error("its last layer is not Detect, and other heads are not supported")
        strides = self.strides(last)
        anchors, names = self.anchors(last, strides), self.names(model.state.get("names"))
        try:
            network = YoloNetwork(Description(plain, anchors), names, self.path.stem, sha256_of(self.path))
        except DetectorError as error:
            raise DetectorError(f"{self.path}: {error}; {self.remedy()}") from error
        if network.strides != strides:
            raise self.error(f"its strides are {strides}, but its description makes {network.strides}")
        if sum(value.numel() for value in network.parameters()) > self.file.most_values:
            raise self.error("its description asks for more weights than it holds")
        weights: dict[str, Tensor] = {}
        for number, layer in enumerate(network.layers):
            record = self.child(sequential, str(number), "its network")
            weights |= self.weights(layer, record, f"layers.{number}")
        try:
            network.assign(weights)
        except ValueError as error:
            raise self.error(f"its weights do not fit ({error})") from error
        return network

    def names(self, value: Any) -> tuple[str, ...]:
        """Class names from a list, or from a dict of labels and names."""
        if isinstance(value, dict):
            value = [value.get(label) for label in range(len(value))]
        if not isinstance(value, list) or not all(isinstance(n, str) and len(n) <= MAX_TEXT_LENGTH for n in value):
            raise self.error("has no list `names` of its classes")
        return tidy_names(value, self.path)

    def strides(self, detect: Record) -> tuple[int, ...]:
        value = detect.state.get("stride") if isinstance(detect.state, dict) else None
        if not isinstance(value, StoredTensor) or len(value.shape) != 1:
            raise self.error("its Detect has no strides; the network was never built for training")
        strides = self.file.tensor(value).tolist()
        if not all(1 <= stride <= MAX_STRIDE for stride in strides):
            raise self.error("its Detect has strides that no network has")
        return tuple(int(stride) for stride in strides)

    def anchors(self, detect: Record, strides: tuple[int, ...]) -> tuple[Anchors, ...]:
        """The anchors in pixels; the file has them in grid cells."""
        buffers = detect.state.get("_buffers")
        value = buffers.get("anchors") if isinstance(buffers, dict) else None
        if not isinstance(value, StoredTensor) or len(value.shape) != 3 or value.shape[::2] != (len(strides), 2):
            message = "its Detect has no anchors; YOLOv8 and later, and the u models, are read from ONNX"
            raise WeightsError(f"{self.path}: {message}; {export_remedy(self.path.name)}")
        pixels = self.file.tensor(value) * torch.tensor(strides)[:, None, None]
        return tuple(tuple((width, height) for width, height in layer) for layer in pixels.tolist())

    def child(self, record: Record, name: str, where: str) -> Record:
        """The submodule `name` of a module."""
        modules = record.state.get("_modules") if isinstance(record.state, dict) else None
        found = modules.get(name) if isinstance(modules, dict) else None
        if not isinstance(found, Record) or not isinstance(found.state, dict):
            raise self.error(f"{where} has no {name}")
        return found

    def value(self, record: Record, name: str, shape: tuple[int, ...], where: str) -> Tensor:
        """The parameter or buffer `name` of a module, as float64 for folding."""
        for kind in ("_parameters", "_buffers"):
            values = record.state.get(kind)
            found = values.get(name) if isinstance(values, dict) else None
            if isinstance(found, StoredTensor):
                if found.shape != shape:
                    raise self.error(f"{where}.{name} has the shape {found.shape}, not {shape}")
                return self.file.tensor(found).double()
        raise self.error(f"{where} has no {name}")

    def check(self, module: nn.Module, record: Record, where: str) -> None:
        """Refuses an object whose class or `FACTS` differ from the module that was built from the description."""
        kind, expected = record.name.rpartition(".")[2], type(module).__name__
        if kind != expected:
            raise self.error(f"{where} is a {shown(kind)}, but its description says {expected}")
        for fact in FACTS.get(expected, ()):
            if record.state.get(fact) != getattr(module, fact):
                raise self.error(f"{where} has another {fact} than its description says")

    def weights(self, module: nn.Module, record: Record, where: str) -> dict[str, Tensor]:
        """The weights of a module and its submodules by their names in this package; also sets the activations."""
        self.check(module, record, where)
        if isinstance(module, Conv):
            scale, shift = self.norm(record, module.conv.out_channels, where)
            module.activation = self.activation(record, where)
            return self.folded(module.conv, self.child(record, "conv", where), scale, shift, f"{where}.conv")
        if isinstance(module, BottleneckCSP):
            return self.csp_weights(module, record, where)
        if isinstance(module, nn.Conv2d):
            bias = self.value(record, "bias", (module.out_channels,), where)
            return self.folded(module, record, torch.ones_like(bias), bias, where)
        result: dict[str, Tensor] = {}
        for name, child in module.named_children():
            result |= self.weights(child, self.child(record, name, where), f"{where}.{name}")
        return result

    def csp_weights(self, module: BottleneckCSP, record: Record, where: str) -> dict[str, Tensor]:
        """The weights of a block with a batch norm after the concatenation; each branch takes its half of the norm."""
        half = module.cv2.out_channels
        scale, shift = self.norm(record, 2 * half, where)
        module.activation = self.activation(record, where)
        result: dict[str, Tensor] = {}
        for place, name in enumerate(("cv3", "cv2")):  # in the order of the concatenation
            part = slice(place * half, (place + 1) * half)
            branch = self.child(record, name, where)
            result |= self.folded(getattr(module, name), branch, scale[part], shift[part], f"{where}.{name}")
        for name in ("cv1", "cv4", "m"):
            result |= self.weights(getattr(module, name), self.child(record, name, where), f"{where}.{name}")
        return result

    def folded(self, conv: nn.Conv2d, record: Record, scale: Tensor, shift: Tensor, where: str) -> dict[str, Tensor]:
        """The weights of a convolution times `scale`, with `shift` as its bias."""
        self.check(conv, record, where)
        weight = self.value(record, "weight", tuple(conv.weight.shape), where) * scale[:, None, None, None]
        return {f"{where}.weight": weight.float(), f"{where}.bias": shift.float()}

    def norm(self, record: Record, channels: int, where: str) -> tuple[Tensor, Tensor]:
        """The scale and shift to which the batch norm `bn` of a module amounts."""
        norm, shape, where = self.child(record, "bn", where), (channels,), f"{where}.bn"
        weight, bias = self.value(norm, "weight", shape, where), self.value(norm, "bias", shape, where)
        mean, variance = self.value(norm, "running_mean", shape, where), self.value(norm, "running_var", shape, where)
        eps = norm.state.get("eps")
        if not isinstance(eps, float) or not 0 < eps < 1 or (variance < 0).any():
            raise self.error(f"{where} has no usable variance")
        scale = weight / (variance + eps).sqrt()
        return scale, bias - mean * scale

    def activation(self, record: Record, where: str) -> str:
        act = self.child(record, "act", where)
        kind = act.name.rpartition(".")[2]
        if kind not in ACTIVATIONS or act.state.get("negative_slope", LEAKY_SLOPE) != LEAKY_SLOPE:
            raise self.error(f"{where} has the activation {shown(kind)}; known: {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[kind]


def _plain(value: Any, left: list[int], depth: int = MAX_YAML_DEPTH) -> Any:
    """A copy of a value made of numbers, text, lists and dicts; tuples become lists.

    Args:
        value: value to copy; it may contain itself.
        left: number of values that are still allowed, in a list so that it is counted down.
        depth: levels of nesting that are still allowed.

    Raises:
        ValueError: the value holds other types, too many values, or too many levels.
    """
    left[0] -= 1
    if left[0] < 0 or depth < 0:
        raise ValueError("too large")
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, left, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, left, depth - 1) for item in value]
    if isinstance(value, int | float) and abs(value) <= MAX_YAML_NUMBER:
        return value
    if value is None or (isinstance(value, str) and len(value) <= MAX_TEXT_LENGTH):
        return value
    raise ValueError("no plain data")

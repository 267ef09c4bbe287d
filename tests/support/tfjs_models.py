"""Graph models of TensorFlow.js for tests: their files, and small networks with random weights."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.detectors.centernet.detector import CenterNet, load_centernet
from adaptiveisp.detectors.nanodet.detector import NanoDet, load_nanodet

NAMES = ("thing", "other", "third")
MADE_FOR = 64
"""Side of the images that the small networks are made for, in pixels."""


def attribute(value: Any) -> dict[str, Any]:
    """An attribute as TensorFlow writes it."""
    if isinstance(value, bool):
        return {"b": value}
    if isinstance(value, int):
        return {"i": str(value)}
    if isinstance(value, float):
        return {"f": value}
    if isinstance(value, str):
        return {"s": base64.b64encode(value.encode()).decode()}
    if isinstance(value, tuple):
        return {"shape": {"dim": [{"size": str(side)} for side in value]}}
    kind = "s" if value and isinstance(value[0], str) else "i"
    return {"list": {kind: [attribute(one)[kind] for one in value]}}


class Writer:
    """Collects the nodes and weights of a graph, and writes the two files."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.entries: list[dict[str, Any]] = []
        self.data = b""
        self.node("Placeholder", "image", shape=shape)

    def node(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns its name."""
        named = {key: attribute(value) for key, value in attributes.items()}
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": named})
        return name

    def constant(self, name: str, value: Any, **quantisation: Any) -> str:
        """Adds a weight; a quantised one is given as it is stored, with `dtype`, `scale` and `min`."""
        array = np.asarray(value)
        if not quantisation:
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
        if quantisation:
            entry |= {"dtype": quantisation.pop("original", "float32"), "quantization": quantisation}
        self.entries.append(entry)
        self.data += array.tobytes()
        self.nodes.append({"name": name, "op": "Const", "attr": {}})
        return name

    def convolution(self, name: str, given: str, weight: NDArray[Any], stride: int = 1, **more: Any) -> str:
        """Adds a convolution with its weights, padded to "SAME"."""
        kernel = self.constant(f"{name}/weights", weight)
        steps = [1, stride, stride, 1]
        more = {"padding": "SAME", "strides": steps, "dilations": [1, 1, 1, 1], "data_format": "NHWC"} | more
        bias = more.pop("bias", None)
        op = more.pop("op", "Conv2D" if bias is None else "_FusedConv2D")
        inputs = [given, kernel] if bias is None else [given, kernel, self.constant(f"{name}/bias", bias)]
        return self.node(op, name, *inputs, **more)

    def save(self, folder: Path, stem: str = "model") -> tuple[Path, Path]:
        """Writes the files and returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        graph, weights = folder / f"{stem}.json", folder / f"{stem}.bin"
        manifest = [{"paths": [weights.name], "weights": self.entries}]
        graph.write_text(
            json.dumps({"format": "graph-model", "modelTopology": {"node": self.nodes}, "weightsManifest": manifest})
        )
        weights.write_bytes(self.data)
        return graph, weights


def centernet(folder: Path) -> CenterNet:
    """A CenterNet with random weights, and boxes of some pixels at each cell."""
    random = np.random.default_rng(0)
    made = Writer((1, MADE_FOR, MADE_FOR, 3))
    fine = made.convolution(
        "fine", "image", random.normal(0, 0.004, (3, 3, 3, 8)), 2, bias=np.zeros(8), fused_ops=["BiasAdd", "Relu6"]
    )
    coarse = made.convolution("coarse", fine, random.normal(0, 0.3, (3, 3, 8, 1)), 2, op="DepthwiseConv2dNative")
    far = made.convolution("far", coarse, random.normal(0, 0.3, (3, 3, 8, 8)), 2)
    size = made.constant("size", np.array([MADE_FOR // 4] * 2))
    near = made.node("ResizeBilinear", "near", far, size, align_corners=False, half_pixel_centers=False)
    both = made.node("ConcatV2", "both", coarse, near, made.constant("axis", np.array(3)))
    heat = made.convolution(
        "heat", both, random.normal(0, 0.5, (1, 1, 16, 3)), bias=np.full(3, -1.0), fused_ops=["BiasAdd"]
    )
    made.node("Identity", "tower_0/keypoints", made.node("Sigmoid", "sigmoid", heat))
    sides = made.convolution(
        "sides", both, random.normal(0, 0.02, (1, 1, 16, 4)), bias=np.full(4, 1.0), fused_ops=["BiasAdd", "Relu"]
    )
    made.node("Identity", "tower_0/wh", made.node("Mul", "times", sides, made.constant("sixteen", np.array(16.0))))
    return load_centernet(*made.save(folder), "small-centernet", class_names=NAMES)


def nanodet(folder: Path) -> NanoDet:
    """A NanoDet with random weights, whose channels come first between its layers."""
    random = np.random.default_rng(0)
    made = Writer((1, 3, MADE_FOR, MADE_FOR))
    last = made.constant("channels last", np.array([0, 2, 3, 1]))
    first = made.constant("channels first", np.array([0, 3, 1, 2]))
    swapped = made.constant("swapped", np.array([0, 2, 1]))
    border = made.constant("border", np.array([[0, 0], [0, 0], [1, 1], [1, 1]]))
    axis, parts = made.constant("axis", np.array(1)), made.constant("parts", np.array([3, 44]))
    shapes = [made.constant(f"shape {n}", np.array([1, n, -1])) for n in (3, 44)]
    x = "image"
    for level, stride in enumerate((8, 2, 2)):
        inputs, name = (3 if level == 0 else 8), f"level {level}"
        padded = made.node("Pad", f"{name} padded", x, border)
        image = made.node("Transpose", f"{name} last", padded, last)
        weight = random.normal(0, 0.3, (3, 3, inputs, 8))
        made_here = made.convolution(f"{name} convolution", image, weight, stride, padding="VALID")
        sum_ = made.node("AddV2", f"{name} sum", made_here, made.constant(f"{name} bias", random.normal(0, 0.1, 8)))
        x = made.node("LeakyRelu", name, made.node("Transpose", f"{name} first", sum_, first), alpha=0.1)
        out = made.node("Transpose", f"{name} out", x, last)
        head = made.convolution(f"{name} head", out, random.normal(0, 0.4, (1, 1, 8, 47)))
        split = made.node(
            "SplitV", f"{name} split", made.node("Transpose", f"{name} head first", head, first), parts, axis
        )
        scores = made.node("Sigmoid", f"{name} sigmoid", split)
        suffixes = ("" if level == 0 else f"_{level}", f"_{level + 3}")
        for part, shape, suffix in zip((scores, f"{split}:1"), shapes, suffixes, strict=True):
            flat = made.node("Reshape", f"flat{suffix}", part, shape)
            made.node("Identity", f"Identity{suffix}", made.node("Transpose", f"turned{suffix}", flat, swapped))
    return load_nanodet(*made.save(folder), "small-nanodet", class_names=NAMES)

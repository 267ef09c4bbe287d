"""Small ONNX detectors that tests make for themselves: fixed answers, and a network with random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

node = helper.make_node
FLOAT, HALF, INT = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64
BYTE = onnx.TensorProto.UINT8


def save(
    path: Path,
    nodes: list[Any],
    outputs: dict[str, int],
    constants: dict[str, NDArray[Any]],
    shape: tuple[int | str, ...],
    metadata: dict[str, str] | None = None,
    more_inputs: dict[str, tuple[int | str, ...]] | None = None,
    kind: int = FLOAT,
) -> Path:
    """Writes a model whose image input has this shape and type."""
    inputs = [helper.make_tensor_value_info("images", kind, shape)]
    inputs += [helper.make_tensor_value_info(name, INT, size) for name, size in (more_inputs or {}).items()]
    values = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", inputs, values, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def answers(
    path: Path,
    tables: dict[str, NDArray[Any]],
    shape: tuple[int | str, ...] = ("batch", 3, 64, 64),
    names: str = "",
    kind: int = FLOAT,
    **metadata: str,
) -> Path:
    """A model that says the same of every image: each output is its table, a row of it for each image."""
    constants: dict[str, NDArray[Any]] = {"axes": np.array([1, 2, 3]), "zero": np.float32(0), "one": np.float32(1)}
    nodes = [
        node("Cast", ["images"], ["numbers"], to=FLOAT),
        node("ReduceMean", ["numbers", "axes"], ["mean"], keepdims=1),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["nothing", "one"], ["ones"]),
    ]
    for name, table in tables.items():
        ndim = table.ndim
        constants |= {f"{name}-table": table.astype(np.float32), f"{name}-shape": np.array([-1] + [1] * (ndim - 1))}
        nodes.append(node("Reshape", ["ones", f"{name}-shape"], [f"{name}-ones"]))
        whole = table.dtype.kind == "i"
        nodes.append(node("Mul", [f"{name}-table", f"{name}-ones"], [f"{name}-float" if whole else name]))
        if whole:
            nodes.append(node("Cast", [f"{name}-float"], [name], to=INT))
    outputs = {name: INT if table.dtype.kind == "i" else FLOAT for name, table in tables.items()}
    known = {**({"names": names} if names else {}), **metadata}
    return save(path, nodes, outputs, constants, shape, known, kind=kind)


def network(
    path: Path,
    names: str = "{0: 'cup', 1: 'person'}",
    shape: tuple[int | str, ...] = ("batch", 3, 64, 64),
    differentiable: bool = True,
    baked_batch: bool = False,
    half: bool = False,
    seed: int = 0,
    camera: bool = False,
) -> Path:
    """A YOLO without objectness of one convolution: an answer for each block of 16 pixels, two classes.

    One for a `camera` takes bytes with channels last, and is the same otherwise.
    """
    random = np.random.default_rng(seed)
    constants: dict[str, NDArray[Any]] = {
        "weight": random.normal(0, 0.06, (6, 3, 16, 16)).astype(np.float32),
        "bias": np.array([0, 0, -0.5, -0.5, 0, 0], np.float32),
        "shape": np.array([1 if baked_batch else 0, 6, -1]),
        "size": np.array([64, 64, 64, 64, 1, 1], np.float32).reshape(1, 6, 1),
        "none": np.zeros(1, np.float32),
        "white": np.float32(255),
    }
    of_camera = [
        node("Cast", ["images"], ["numbers"], to=FLOAT),
        node("Div", ["numbers", "white"], ["shares of white"]),
        node("Transpose", ["shares of white"], ["single"], perm=[0, 3, 1, 2]),
    ]
    of_half = [node("Cast", ["images"], ["single"], to=FLOAT)]
    nodes = [
        *(of_camera if camera else of_half if half else []),
        node("Conv", ["single" if half or camera else "images", "weight", "bias"], ["cells"], strides=[16, 16]),
        node("Reshape", ["cells", "shape"], ["rows"]),
    ]
    if not differentiable:  # what it adds is nothing, but it has no counterpart of ours
        nodes += [node("Hardmax", ["rows"], ["hard"]), node("Mul", ["hard", "none"], ["zero"])]
    nodes += [
        node("Add", ["rows", "none" if differentiable else "zero"], ["logits"]),
        node("Sigmoid", ["logits"], ["shares"]),
        node("Mul", ["shares", "size"], ["output0"]),
    ]
    metadata = {"names": names} if names else {}
    kind = BYTE if camera else HALF if half else FLOAT
    return save(path, nodes, {"output0": FLOAT}, constants, shape, metadata, kind=kind)


def detr_network(path: Path, seed: int = 0) -> Path:
    """A DETR of one convolution: a query for each block of 16 pixels, two classes and none; its sidecar beside it."""
    random = np.random.default_rng(seed)
    constants: dict[str, NDArray[Any]] = {
        "weight": random.normal(0, 0.06, (7, 3, 16, 16)).astype(np.float32),
        "bias": np.array([0, 0, -0.5, -0.5, 0, 0, 0], np.float32),
        "shape": np.array([0, 7, -1]),
        "parts": np.array([4, 3]),
    }
    nodes = [
        node("Conv", ["images", "weight", "bias"], ["cells"], strides=[16, 16]),
        node("Reshape", ["cells", "shape"], ["columns"]),
        node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        node("Split", ["rows", "parts"], ["places", "logits"], axis=2),
        node("Sigmoid", ["places"], ["boxes"]),
    ]
    sidecar = "decode: detr\nnames: [cup, person]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\noutputs: [logits, boxes]\n"
    path.with_suffix(".yaml").write_text(sidecar)
    return save(path, nodes, {"logits": FLOAT, "boxes": FLOAT}, constants, ("batch", 3, 64, 64))

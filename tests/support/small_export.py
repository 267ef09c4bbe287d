"""A folder as `adaptiveisp export` writes it, with a graph of a few nodes whose outputs can be computed by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

PATTERNS = ["RGGB", "BGGR", "GRBG", "GBRG"]
FORMAT = {
    **{"name": "SRGGB12P", "layout": "csi2", "bits": 12, "container_bits": 16},
    **{"high_bits": False, "big_endian": False},
    **{"group_values": 2, "group_bytes": 3, "row_bytes": None, "offset": 0},
}
EXPECTED_TOLERANCES = {"image": 1e-3, "params": 1e-3, "scores": 1e-3, "iou": 0.99, "confidence": 0.05}


def model() -> Any:
    """frame, pattern, levels → image = (frame - black) / (white - black), thrice; a box over the upper left quarter."""
    given = [
        helper.make_tensor_value_info("frame", TensorProto.UINT16, ["height", "width"]),
        helper.make_tensor_value_info("pattern", TensorProto.INT64, []),
        helper.make_tensor_value_info("black_level", TensorProto.FLOAT, [4]),
        helper.make_tensor_value_info("white_level", TensorProto.FLOAT, [1]),
    ]
    results = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("modules", TensorProto.INT64, [2]),
        helper.make_tensor_value_info("params", TensorProto.FLOAT, [2, 3]),
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "h", "w"]),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "shape": np.array([1, 3, 1, 1], np.int64),
        "quarter": np.array([0, 0, 0.5, 0.5], np.float32),
        "order": np.array([1, 0, 1, 0], np.int64),
        "modules_": np.array([1, -1], np.int64),
        "label": np.array([2], np.int64),
        "pad": np.array([0, 0, 1, 2], np.int64),
        "row": np.array([1, 1], np.int64),
        "one": np.array([1], np.int64),
        "four": np.array([1, 4], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["black_level", "first"], ["black"]),
        helper.make_node("Sub", ["float", "black"], ["above"]),
        helper.make_node("Sub", ["white_level", "black"], ["span"]),
        helper.make_node("Div", ["above", "span"], ["linear"]),
        helper.make_node("Expand", ["linear", "shape"], ["image"]),
        helper.make_node("ReduceMax", ["linear"], ["most"], keepdims=0),
        helper.make_node("Reshape", ["most", "one"], ["scores"]),
        helper.make_node("Shape", ["frame"], ["sides"]),
        helper.make_node("Gather", ["sides", "order"], ["whxy"]),
        helper.make_node("Cast", ["whxy"], ["whxy_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["whxy_float", "quarter"], ["box"]),
        helper.make_node("Reshape", ["box", "four"], ["boxes"]),
        helper.make_node("Identity", ["label"], ["labels"]),
        helper.make_node("Identity", ["modules_"], ["modules"]),
        helper.make_node("Cast", ["pattern"], ["pattern_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pattern_float", "row"], ["params_row"]),
        helper.make_node("Pad", ["params_row", "pad"], ["params"]),
    ]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "full", given, results, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    onnx.checker.check_model(made)
    return made


def outputs_by_hand(frame: np.ndarray, pattern: str, black: float, white: float) -> dict[str, np.ndarray]:
    height, width = frame.shape
    linear = ((frame - black) / (white - black)).astype(np.float32)
    params = np.zeros((2, 3), np.float32)
    params[0, 0] = PATTERNS.index(pattern)
    return {
        "boxes": np.array([[0, 0, width / 2, height / 2]], np.float32),
        "scores": linear.max().reshape(1),
        "labels": np.array([2]),
        "modules": np.array([1, -1]),
        "params": params,
        "image": np.repeat(linear[None, None], 3, axis=1),
    }


def write_export(folder: Path, frame_changes: dict[str, Any] | None = None, made: Any = None) -> Path:
    """Writes the folder and returns it."""
    (folder / "self_test").mkdir(parents=True)
    content = (model() if made is None else made).SerializeToString()
    (folder / "full.onnx").write_bytes(content)
    frame = np.arange(64, 64 + 96, dtype=np.uint16).reshape(8, 12) * 20
    given = {
        "frame": frame,
        "pattern": np.asarray(2, np.int64),
        "black_level": np.full(4, 64, np.float32),
        "white_level": np.array([4095], np.float32),
    }
    sides = {"inputs": given, "outputs": outputs_by_hand(frame, "GRBG", 64, 4095)}
    entries: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for side, values in sides.items():
        for name, value in values.items():
            file = f"self_test/full_{side}_{name}.bin"
            (folder / file).write_bytes(np.ascontiguousarray(value).tobytes())
            entries[side].append({"name": name, "file": file, "dtype": str(value.dtype), "shape": list(value.shape)})
    manifest = {
        "format": "adaptiveisp-export",
        "format_version": 1,
        "something_new": 1,
        "policy": {"name": "small"},
        "graphs": {
            "full": {
                "file": "full.onnx",
                "sha256": hashlib.sha256(content).hexdigest(),
                "inputs": [{"name": name} for name in given],
                "outputs": [{"name": name} for name in sides["outputs"]],
            }
        },
        "frame": {
            **{"kind": "mosaic", "bits": 12, "dtype": "uint16", "height": None, "width": None, "pattern": None},
            **{"patterns": PATTERNS, "black_level": None, "white_level": None, "orientation": 1, "format": FORMAT},
            **(frame_changes or {}),
        },
        "geometry": {"size": 416},
        "pipeline": {
            **{"length": 2, "width": 3, "end": -1, "fixed": None, "module_set": "extended"},
            "modules": [
                {"id": 0, "name": "exposure", "params": [{"name": "ev", "low": -10, "high": 10}]},
                {"id": 1, "name": "gamma", "params": [{"name": "gamma", "low": 0.333, "high": 3}]},
            ],
        },
        "detector": {"name": "tiny", "class_names": ["person", "bicycle", "car"]},
        "self_test": {"full": {**entries, "tolerances": EXPECTED_TOLERANCES}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

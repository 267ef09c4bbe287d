"""Small graphs for the tests of `adaptiveisp.deployment`, run by onnxruntime."""

from typing import Any

import numpy as np
import onnx

from adaptiveisp.deployment.ops import Ops
from adaptiveisp.deployment.self_test import run_graph
from adaptiveisp.deployment.writers import apply_module
from adaptiveisp.isp.module import IspModule


def checked(ops: Ops, name: str = "test") -> bytes:
    """The finished graph after the checks of the onnx package."""
    model = ops.model(name)
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    return model.SerializeToString()


def run_module(
    module: IspModule,
    image: np.ndarray[Any, Any],
    params: np.ndarray[Any, Any],
    free: bool,
    dtype: Any = np.float32,
    loops: bool = True,
) -> np.ndarray[Any, Any]:
    """The image after a module, by a graph for this size or, if `free`, for any size."""
    ops = Ops()
    ops.root.precision, ops.root.loops = np.dtype(dtype), loops
    shape = [1, 3, "height", "width"] if free else list(image.shape)
    given = ops.input("image", np.float32, shape)
    sides = [ops.item(ops("Shape", given), axis) for axis in (2, 3)]
    if not free:
        sides = [ops.constant(np.asarray(side, np.int64)) for side in image.shape[2:]]
    ops.root.sides = (sides[0], sides[1])
    row = ops.input("params", np.float32, [len(params)])
    made = apply_module(ops, module, ops.cast(given, dtype), row)
    ops.output("made", ops.cast(made, np.float32), [1, 3, "rows", "columns"])
    return run_graph(checked(ops), {"image": image, "params": params})["made"]

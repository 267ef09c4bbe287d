"""ONNX operators in PyTorch against onnxruntime, one by one, and whole exported networks."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from adaptiveisp.detectors.onnx.graph import SUPPORTED, ConversionError, OnnxGraph, verified  # noqa: E402
from adaptiveisp.errors import DetectorError  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)


def floats(*shape: int, low: float = -2, high: float = 2) -> Array:
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


class Case(NamedTuple):
    op: str
    inputs: tuple[Array | None, ...]
    attributes: Mapping[str, Any] = MappingProxyType({})
    opset: int = 20
    outputs: int = 1


X = floats(2, 3, 6, 8)
ROWS = floats(4, 5)
TRUTH = np.array([[True, False, True]])
TIES = np.array([[1, 3, 3, 0], [2, 2, 2, 2]], np.float32)
BOXES = np.array([[[0, 0, 4, 4], [0, 0, 4, 3.9], [8, 8, 5, 5], [0, 1, 4, 5]]], np.float32)
FEW = np.array([[[0.9, 0.8, 0.3, 0.05], [0.2, 0.6, 0.7, 0.65]]], np.float32)

UNARY = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "IsNaN", "Mish", "Neg", "Reciprocal")
UNARY += ("Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh", "Gelu", "HardSigmoid")
BINARY = ("Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mul", "Sub")
REDUCING = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare")
REDUCING += ("ReduceLogSumExp",)


def resize(mode: str, scales: tuple[float, ...] | None = None, sizes: tuple[int, ...] = (), **more: str) -> Case:
    given = np.array(scales, np.float32) if scales else None
    attributes = {"mode": mode, **{name: value for name, value in more.items() if value}}
    return Case("Resize", (X, None, given, whole(*sizes) if sizes else None), attributes)


CASES = [
    *(Case(op, (X,)) for op in UNARY),
    *(Case(op, (X, floats(6, 1))) for op in BINARY),
    *(Case(op, (X, whole(-1, 1)), {"keepdims": 0}) for op in REDUCING),
    Case("ReduceMean", (X,), {"axes": [2, 3]}, 17),
    Case("ReduceMean", (X,)),
    Case("ReduceMax", (X, np.zeros(0, np.int64)), {"noop_with_empty_axes": 1}),
    Case("Div", (whole(-7, 7, -7), whole(2, 2, -2))),
    Case("Mod", (whole(-7, 7, -7), whole(3, -3, -3))),
    Case("Mod", (X, floats(8)), {"fmod": 1}),
    Case("Pow", (np.abs(X), np.array(2.5, np.float32))),
    Case("Pow", (X, np.array(2, np.int64))),
    Case("Log", (np.abs(X) + 0.1,)),
    Case("Sqrt", (np.abs(X),)),
    Case("IsInf", (np.array([np.inf, 1, -np.inf, np.nan], np.float32),)),
    *(Case(op, (TRUTH, np.array([[True], [False]]))) for op in ("And", "Or", "Xor")),
    Case("Not", (TRUTH,)),
    Case("Where", (TRUTH, floats(2, 3), floats(1))),
    Case("Sum", (X, floats(8), floats(1))),
    Case("Mean", (X, floats(8), floats(1))),
    Case("Max", (whole(1, 5), whole(3, 2))),
    Case("Clip", (X, np.array(-1, np.float32), np.array(0.5, np.float32))),
    Case("Clip", (X, None, np.array(0.5, np.float32))),
    Case("Clip", (X,), {"min": 0.0, "max": 1.0}, 7),
    Case("Gemm", (ROWS, floats(3, 5), floats(3)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", (floats(5, 4), floats(5, 3)), {"transA": 1}),
    Case("MatMul", (X, floats(8, 5))),
    Case("Einsum", (ROWS, floats(5, 3)), {"equation": "ij,jk->ki"}),
    Case("Softmax", (X,)),
    Case("Softmax", (X,), {"axis": 1}),
    Case("Softmax", (X,), {}, 11),
    Case("LogSoftmax", (X,), {"axis": 2}),
    Case("ArgMax", (TIES,), {"axis": 1}),
    Case("ArgMax", (TIES,), {"axis": 1, "select_last_index": 1, "keepdims": 0}),
    Case("ArgMin", (TIES,), {"axis": 0}),
    Case("TopK", (TIES, whole(3)), {"axis": 1}, outputs=2),
    Case("TopK", (X, whole(2)), {"axis": 1, "largest": 0}, outputs=2),
    Case("CumSum", (ROWS, np.array(1, np.int64))),
    Case("CumSum", (ROWS, np.array(0, np.int64)), {"reverse": 1, "exclusive": 1}),
    Case("Cast", (X,), {"to": 7}),
    Case("Cast", (X,), {"to": 9}),
    Case("Dropout", (X,)),
    Case("Shape", (X,), {"start": 1, "end": -1}),
    Case("Size", (X,)),
    Case("Reshape", (X, whole(0, -1, 4))),
    Case("Flatten", (X,), {"axis": 2}),
    Case("Flatten", (X,), {"axis": -1}),
    Case("Transpose", (X,)),
    Case("Transpose", (X,), {"perm": [0, 2, 3, 1]}),
    Case("Squeeze", (floats(1, 3, 1, 2), whole(-2))),
    Case("Squeeze", (floats(1, 3, 1, 2),), {"axes": [0]}, 11),
    Case("Squeeze", (floats(1, 3, 1, 2),)),
    Case("Unsqueeze", (ROWS, whole(-1, 0))),
    Case("Unsqueeze", (ROWS,), {"axes": [1, 3]}, 11),
    Case("Concat", (ROWS, floats(4, 2)), {"axis": -1}),
    Case("Split", (ROWS, whole(1, 4)), {"axis": 1}, outputs=2),
    Case("Split", (ROWS,), {"axis": 0}, 13, 2),
    Case("Split", (ROWS,), {"axis": 1, "num_outputs": 2}, 20, 2),
    Case("Split", (ROWS,), {"axis": 1, "split": [2, 3]}, 11, 2),
    Case("Slice", (X, whole(1, -3), whole(2**62, -1), whole(2, 3))),
    Case("Slice", (X, whole(-1), whole(-(2**62)), whole(3), whole(-2))),
    Case("Slice", (X, whole(4), whole(2), whole(3))),
    Case("Slice", (X, whole(0), whole(7), whole(3), whole(3))),
    Case("Slice", (X,), {"starts": [1], "ends": [3], "axes": [2]}, 9),
    Case("Gather", (X, np.array([[0, -1], [2, 1]], np.int64)), {"axis": 1}),
    Case("Gather", (X, np.array(-2, np.int64)), {"axis": -1}),
    Case("GatherElements", (ROWS, np.array([[0, -1], [2, 1]], np.int64)), {"axis": 1}),
    Case("GatherND", (X, np.array([[0, 1], [1, -1]], np.int64))),
    Case("GatherND", (X, np.array([[[2, 5]], [[0, -1]]], np.int64)), {"batch_dims": 1}),
    Case("ScatterND", (ROWS, np.array([[1, 2], [-1, 0]], np.int64), floats(2))),
    Case("ScatterND", (ROWS, np.array([[1], [1]], np.int64), floats(2, 5)), {"reduction": "add"}),
    Case("ScatterElements", (ROWS, np.array([[1, -1]], np.int64), floats(1, 2)), {"axis": 1}),
    Case("Expand", (floats(3, 1), whole(2, 1, 4))),
    Case("Tile", (ROWS, whole(2, 3))),
    Case("Constant", (), {"value_floats": [1.0, 2.5]}),
    Case("Constant", (), {"value_int": 3}),
    Case("ConstantOfShape", (whole(2, 3),)),
    Case("ConstantOfShape", (whole(2),), {"value": onnx.numpy_helper.from_array(np.array([7], np.int64))}),
    Case("Range", (np.array(1, np.int64), np.array(8, np.int64), np.array(3, np.int64))),
    Case("OneHot", (whole(0, -1, 2), np.array(3, np.int64), floats(2)), {"axis": 0}),
    Case("OneHot", (np.array([[0, 2]], np.int64), np.array(3, np.int64), floats(2))),
    Case("NonZero", (np.array([[1, 0], [0, 2]], np.float32),)),
    Case("Trilu", (floats(3, 4), np.array(1, np.int64))),
    Case("Trilu", (floats(3, 4),), {"upper": 0}),
    Case("Pad", (X, whole(0, 0, 1, 2, 0, 0, 3, 4), np.array(0.5, np.float32))),
    Case("Pad", (X, whole(1, 2, 3, 4), None, whole(-1, 2)), {"mode": "reflect"}),
    Case("Pad", (X, whole(0, 1, 2, 0, 0, 0, 1, 3)), {"mode": "edge"}),
    Case("Pad", (X,), {"pads": [0, 0, 1, 0, 0, 0, 0, 2], "value": 1.5}, 10),
    Case("NonMaxSuppression", (BOXES, FEW, whole(3), *(np.array([v], np.float32) for v in (0.5, 0.1)))),
    Case("NonMaxSuppression", (np.abs(BOXES) + 1, FEW, whole(2), np.array([0.6], np.float32)), {"center_point_box": 1}),
    Case("Conv", (X, floats(4, 3, 3, 3), floats(4)), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Case("Conv", (X, floats(6, 1, 3, 2)), {"group": 3, "pads": [1, 0, 2, 1], "dilations": [2, 1]}),
    Case("Conv", (X, floats(2, 3, 3, 2)), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", (X, floats(2, 3, 3, 2)), {"auto_pad": "SAME_LOWER", "strides": [1, 1]}),
    Case("Conv", (X, floats(2, 3, 3, 2)), {"auto_pad": "VALID"}),
    Case("Conv", (floats(2, 3, 9), floats(4, 3, 3)), {"pads": [1, 1]}),
    Case(
        "ConvTranspose",
        (X, floats(3, 2, 3, 3), floats(2)),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 0]},
    ),
    Case("ConvTranspose", (X, floats(3, 2, 4, 4)), {"strides": [2, 2], "pads": [1, 1, 0, 1]}),
    Case("MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0, 0, 1, 1]}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 3], "strides": [2, 3], "ceil_mode": 1}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    Case("MaxPool", (X,), {"kernel_shape": [2, 2], "dilations": [1, 2]}),
    Case("AveragePool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", (X,), {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("AveragePool", (X,), {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
    Case("GlobalAveragePool", (X,)),
    Case("GlobalMaxPool", (X,)),
    Case("BatchNormalization", (X, floats(3), floats(3), floats(3), np.abs(floats(3))), {"epsilon": 1e-3}),
    Case("InstanceNormalization", (X, floats(3), floats(3))),
    Case("LayerNormalization", (X, floats(8), floats(8)), {"epsilon": 1e-4}),
    Case("LayerNormalization", (X, floats(6, 8)), {"axis": 2}),
    Case("GroupNormalization", (floats(2, 6, 4, 4), floats(6), floats(6)), {"num_groups": 3}, 21),
    Case("GroupNormalization", (floats(2, 6, 4, 4), floats(3), floats(3)), {"num_groups": 3}, 18),
    *(
        resize(mode, scales, coordinate_transformation_mode=coordinates)
        for mode in ("linear", "cubic")
        for scales in ((1, 1, 2, 2.5), (1, 1, 0.6, 0.5))
        for coordinates in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    ),
    *(
        resize("nearest", (1, 1, 2, 1.5), coordinate_transformation_mode=coordinates, nearest_mode=rule)
        for coordinates in ("half_pixel", "asymmetric")
        for rule in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    resize("nearest", None, (2, 3, 9, 4), coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    resize("linear", None, (2, 3, 9, 4), coordinate_transformation_mode="half_pixel_symmetric"),
    Case("Resize", (X, np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}, 10),
    Case("Upsample", (X, np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}, 9),
    Case("Upsample", (X, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}, 9),
    *(
        Case("GridSample", (X, floats(2, 4, 5, 2, low=-1.2, high=1.2)), {"mode": mode, "padding_mode": padding})
        for mode, padding in (("linear", "zeros"), ("nearest", "border"), ("cubic", "reflection"))
    ),
    Case("DepthToSpace", (floats(2, 8, 3, 2),), {"blocksize": 2}),
    Case("DepthToSpace", (floats(2, 8, 3, 2),), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (X,), {"blocksize": 2}),
    Case("Gelu", (X,), {"approximate": "tanh"}),
    Case("LeakyRelu", (X,), {"alpha": 0.2}),
    Case("PRelu", (X, floats(3, 1, 1))),
    Case("Elu", (X,), {"alpha": 0.7}),
    Case("Celu", (X,), {"alpha": 0.7}),
    Case("Selu", (X,)),
    Case("HardSigmoid", (X,), {"alpha": 0.3, "beta": 0.4}),
    Case("Swish", (X,), {"alpha": 1.5}, 24),
]


def model_of(case: Case) -> tuple[Any, dict[str, Array]]:
    names = [f"x{place}" if value is not None else "" for place, value in enumerate(case.inputs)]
    feeds = {name: value for name, value in zip(names, case.inputs, strict=True) if value is not None}
    outputs = [f"y{place}" for place in range(case.outputs)]
    node = onnx.helper.make_node(case.op, names, outputs, **case.attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    graph = onnx.helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in outputs])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", case.opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model), feeds


def expected_of(model: Any, feeds: dict[str, Array], op: str) -> list[Array]:
    """What onnxruntime says; of an operator that it does not have on the CPU, onnx's own reference."""
    if op == "Swish":
        from onnx.reference import ReferenceEvaluator

        return list(ReferenceEvaluator(model).run(None, feeds))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.op}-{case.opset}")
def test_an_operator_is_that_of_onnxruntime(case: Case) -> None:
    model, feeds = model_of(case)
    expected = expected_of(model, feeds, case.op)
    inputs = {name: torch.from_numpy(value.copy()) for name, value in feeds.items()} or {"none": torch.zeros(1)}
    found = list(OnnxGraph(model)(inputs).values())
    assert len(found) == len(expected)
    for own, reference in zip(found, expected, strict=True):
        assert own.numpy().dtype == reference.dtype and own.shape == reference.shape
        np.testing.assert_allclose(own.numpy(), reference, rtol=1e-4, atol=1e-5)


def test_every_operator_has_its_case() -> None:
    assert {case.op for case in CASES} == set(SUPPORTED)


def run_of(model: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]

    def run(feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        arrays = {name: value.detach().numpy() for name, value in feeds.items()}
        return dict(zip(names, map(torch.from_numpy, session.run(None, arrays)), strict=True))

    return run


class Attentive(nn.Module):
    """Convolutions, an upsampled branch, attention and a grid of positions: what exported detectors are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.SiLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Hardswish())
        self.queries = nn.Linear(8, 24)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(16, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.first(image)
        coarse = self.second(fine)
        tokens = coarse.flatten(2).transpose(1, 2)
        heads = [part.unflatten(2, (2, 4)).transpose(1, 2) for part in self.queries(tokens).chunk(3, dim=2)]
        attended = nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        tokens = self.norm(tokens + attended)
        back = tokens.transpose(1, 2).reshape(coarse.shape)
        wide = nn.functional.interpolate(back, scale_factor=2.0, mode="bilinear", align_corners=False)
        joined = torch.cat((wide, nn.functional.max_pool2d(fine, 5, 1, 2)), dim=1).flatten(2).transpose(1, 2)
        found = self.head(joined)
        x = torch.arange(joined.shape[1], device=image.device).to(image.dtype)
        return torch.cat((found[..., :1] + x[:, None], nn.functional.gelu(found[..., 1:])), dim=-1)


def exported(net: nn.Module, path: Path, example: torch.Tensor, dynamo: bool = False) -> Any:
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    net.eval()
    if dynamo:
        torch.onnx.export(net, (example,), str(path), dynamo=True, input_names=["image"], verbose=False)
    else:
        torch.onnx.export(net, (example,), str(path), dynamo=False, input_names=["image"], dynamic_axes=axes)
    return onnx.load(path)


def check_exported(net: nn.Module, model: Any, image: torch.Tensor) -> None:
    """The graph's values and its gradient are those of the network that it was made from."""
    graph, difference = verified(model, run_of(model), {"image": image}, "image", half=False)
    assert difference < 1e-5
    leaf, own = image.clone().requires_grad_(), image.clone().requires_grad_()
    weights = torch.rand(net(image).shape)
    (found,) = graph({"image": leaf}).values()
    torch.testing.assert_close(found, net(own), rtol=1e-4, atol=1e-4)
    (found * weights).sum().backward()
    (net(own) * weights).sum().backward()
    assert own.grad is not None and own.grad.abs().max() > 1e-4
    torch.testing.assert_close(leaf.grad, own.grad, rtol=1e-3, atol=1e-5)
    assert all(not value.requires_grad for value in graph.buffers())


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_an_exported_network_keeps_values_and_gradient(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Attentive()
    model = exported(net, tmp_path / "net.onnx", torch.rand(1, 3, 16, 24))
    check_exported(net, model, torch.rand(2, 3, 24, 32))  # another size and batch than it was exported with


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_a_network_of_the_new_exporter_keeps_values_and_gradient(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    net = Attentive()
    image = torch.rand(1, 3, 16, 24)
    check_exported(net, exported(net, tmp_path / "net.onnx", image, dynamo=True), image)


def simple(*nodes: Any, constants: dict[str, Array] | None = None, domain: str = "") -> Any:
    image = onnx.helper.make_tensor_value_info("image", 1, [1, 3, 4, 4])
    out = onnx.helper.make_tensor_value_info("y", 1, None)
    held = [onnx.numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = onnx.helper.make_graph(list(nodes), "simple", [image], [out], held)
    opsets = [onnx.helper.make_opsetid("", 20)] + ([onnx.helper.make_opsetid(domain, 1)] if domain else [])
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


IMAGE = {"image": torch.rand(1, 3, 4, 4)}
node = onnx.helper.make_node


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (simple(node("Hardmax", ["image"], ["y"])), "operator Hardmax is not supported"),
        (simple(node("FusedConv", ["image"], ["y"], domain="com.x"), domain="com.x"), "com.x.FusedConv"),
        (simple(node("Sign", ["image"], ["s"]), node("ArgMax", ["s"], ["y"])), "no gradient reaches the image"),
        (simple(node("Sub", ["image", "image"], ["d"]), node("Sqrt", ["d"], ["y"])), "gradient is not finite"),
    ],
)
def test_what_cannot_be_converted_says_why(model: Any, message: str) -> None:
    def run(feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in OnnxGraph(model)(feeds).items()}

    with pytest.raises(ConversionError, match=message):
        verified(model, run, IMAGE, "image", half=False)


def test_a_graph_that_disagrees_is_not_used() -> None:
    model = simple(node("Relu", ["image"], ["y"]))

    def wrong(feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"y": feeds["image"].relu() + 0.01}

    with pytest.raises(ConversionError, match="differs from onnxruntime by"):
        verified(model, wrong, IMAGE, "image", half=False)
    with pytest.raises(ConversionError, match=r"\(1, 3, 4, 4\) instead of \(1, 3, 4\)"):
        verified(model, lambda feeds: {"y": feeds["image"][..., 0]}, IMAGE, "image", half=False)
    nothing = simple(node("Sub", ["image", "image"], ["d"]), node("Log", ["d"], ["l"]), node("Mul", ["l", "d"], ["y"]))
    with pytest.raises(ConversionError, match="output y is not finite"):
        verified(nothing, lambda feeds: {"y": feeds["image"]}, IMAGE, "image", half=False)
    _, difference = verified(model, run_of(model), IMAGE, "image", half=False)
    assert difference == 0


def test_an_operator_that_fails_is_named() -> None:
    model = simple(node("Reshape", ["image", "s"], ["y"], name="here"), constants={"s": whole(5, 5)})
    with pytest.raises(DetectorError, match=r"operator Reshape \(here\): .*invalid"):
        OnnxGraph(model)(IMAGE)


def test_the_document_lists_every_operator() -> None:
    text = "".join(path.read_text() for path in sorted((REPOSITORY / "docs").glob("detectors*.md")))
    (block,) = re.findall(r"among these:\n\n((?:>.*\n)+)", text)
    assert sorted(block.replace(">", " ").split()) == sorted(SUPPORTED)

"""Graphs of TensorFlow.js: their files against values by hand, their operators against loops, networks against ONNX."""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptiveisp.detectors.tfjs.graph_file import read_graph
from adaptiveisp.detectors.tfjs.network import GraphNetwork, before_sigmoid
from adaptiveisp.detectors.weights import is_installed, require_files
from adaptiveisp.errors import WeightsError
from tests.support import tfjs_models
from tests.support.tfjs_models import Writer

RANDOM = np.random.default_rng(1)
Array = NDArray[Any]


def network(made: Writer, folder: Path, *outputs: str) -> GraphNetwork:
    return GraphNetwork(read_graph(*made.save(folder)), outputs or ("out",))


def run(made: Writer, folder: Path, image: Array) -> Array:
    """The output `out` for an image (batch, height, width, 3)."""
    (found,) = network(made, folder)(torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2))
    return found.numpy()


def photo(height: int, width: int, batch: int = 1) -> Array:
    return RANDOM.normal(size=(batch, height, width, 3)).astype(np.float32)


def same_border(side: int, window: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """(outputs, cells before the first value): TensorFlow's definition of "SAME"."""
    outputs = math.ceil(side / stride)
    return outputs, max((outputs - 1) * stride + (window - 1) * dilation + 1 - side, 0) // 2


def convolved(x: Array, weight: Array, stride: int, dilation: int, same: bool, depthwise: bool) -> Array:
    """A convolution by loops over outputs and window, in double precision."""
    height, width, channels = x.shape
    rows, columns, _, last = weight.shape
    if same:
        (tall, top), (wide, left) = (same_border(s, n, stride, dilation) for s, n in ((height, rows), (width, columns)))
    else:
        tall, wide = ((s - (n - 1) * dilation - 1) // stride + 1 for s, n in ((height, rows), (width, columns)))
        top = left = 0
    out = np.zeros((tall, wide, channels * last if depthwise else last))
    for i, j, u, v in itertools.product(range(tall), range(wide), range(rows), range(columns)):
        y, z = i * stride + u * dilation - top, j * stride + v * dilation - left
        if 0 <= y < height and 0 <= z < width:
            value = x[y, z].astype(float)
            out[i, j] += (value[:, None] * weight[u, v]).reshape(-1) if depthwise else value @ weight[u, v]
    return out


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("height", "width", "window"), [(8, 7, 3), (6, 9, 2)])
def test_convolutions(
    tmp_path: Path, depthwise: bool, stride: int, dilation: int, same: bool, height: int, width: int, window: int
) -> None:
    weight = RANDOM.normal(size=(window, window, 3, 2)).astype(np.float32)
    made, image = Writer((1, height, width, 3)), photo(height, width)
    made.convolution(
        "out",
        "image",
        weight,
        stride,
        op="DepthwiseConv2dNative" if depthwise else "Conv2D",
        padding="SAME" if same else "VALID",
        dilations=[1, dilation, dilation, 1],
    )
    expected = convolved(image[0], weight, stride, dilation, same, depthwise)
    np.testing.assert_allclose(run(made, tmp_path, image)[0], expected, atol=1e-5)


@pytest.mark.parametrize("op", ["_FusedConv2D", "FusedDepthwiseConv2dNative"])
@pytest.mark.parametrize(("fused", "low", "high"), [([], -9e9, 9e9), (["Relu"], 0, 9e9), (["Relu6"], 0, 6)])
def test_fused_convolutions(tmp_path: Path, op: str, fused: list[str], low: float, high: float) -> None:
    depthwise = "Depthwise" in op
    weight = RANDOM.normal(0, 3, size=(1, 1, 3, 1 if depthwise else 4)).astype(np.float32)
    bias = RANDOM.normal(size=3 if depthwise else 4).astype(np.float32)
    made, image = Writer((1, 4, 4, 3)), photo(4, 4, batch=2)
    made.convolution("out", "image", weight, op=op, bias=bias, fused_ops=["BiasAdd", *fused])
    plain = image * weight[0, 0, :, 0] if depthwise else image @ weight[0, 0]
    found = run(made, tmp_path, image)
    np.testing.assert_allclose(found, np.clip(plain + bias, low, high), atol=1e-5)
    assert not fused or (found == 0).any()


@pytest.mark.parametrize("same", [False, True])
def test_maximum_of_a_window(tmp_path: Path, same: bool) -> None:
    made, image = Writer((1, 6, 7, 3)), photo(6, 7) - 5
    made.node("MaxPool", "out", "image", padding="SAME" if same else "VALID", ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1])
    found = run(made, tmp_path, image)[0]
    (tall, top), (wide, left) = (same_border(s, 3, 2) if same else ((s - 3) // 2 + 1, 0) for s in (6, 7))
    assert found.shape == (tall, wide, 3)
    for i, j in itertools.product(range(tall), range(wide)):
        rows, columns = (slice(max(0, 2 * n - before), 2 * n - before + 3) for n, before in ((i, top), (j, left)))
        np.testing.assert_array_equal(found[i, j], image[0, rows, columns].max((0, 1)))


@pytest.mark.parametrize("half_pixel", [False, True])
def test_resizing(tmp_path: Path, half_pixel: bool) -> None:
    """The size in the graph is for the image that it was made for, 4 x 6 here, and grows with the image."""
    made = Writer((1, 4, 6, 3))
    made.node(
        "ResizeBilinear",
        "out",
        "image",
        made.constant("size", np.array([8, 18])),
        half_pixel_centers=half_pixel,
        align_corners=False,
    )
    for height, width in ((4, 6), (8, 6)):
        image = photo(height, width, batch=2)
        expected = np.zeros((2, 2 * height, 3 * width, 3))
        for i, j in itertools.product(range(2 * height), range(3 * width)):
            y, x = ((i + 0.5) / 2 - 0.5, (j + 0.5) / 3 - 0.5) if half_pixel else (i / 2, j / 3)
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            for u, v in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
                if (share := (1 - abs(y - u)) * (1 - abs(x - v))) > 0:
                    expected[:, i, j] += share * image[:, u, v]
        np.testing.assert_allclose(run(made, tmp_path, image), expected, atol=1e-5)


def test_functions_of_each_value(tmp_path: Path) -> None:
    made, image = Writer((1, 2, 2, 3)), 4 * photo(2, 2, batch=2)
    factor = RANDOM.normal(size=3).astype(np.float32)
    steps = {"Relu": {}, "Relu6": {}, "Sigmoid": {}, "Identity": {}, "LeakyRelu": {"alpha": 0.25}}
    for op, attributes in steps.items():
        made.node(op, op, "image", **attributes)
    constant = made.constant("factor", factor)
    made.node("Mul", "product", "image", constant)
    made.node("Sub", "difference", constant, "image")
    made.node("Sub", "other difference", "image", constant)
    made.node("AddV2", "sum", "image", "product")
    names = (*steps, "product", "difference", "other difference", "sum")
    found = network(made, tmp_path, *names)(torch.from_numpy(image).permute(0, 3, 1, 2))
    expected = (
        np.maximum(image, 0),
        np.clip(image, 0, 6),
        1 / (1 + np.exp(-image)),
        image,
        np.where(image > 0, image, image / 4),
        image * factor,
        factor - image,
        image - factor,
        image + image * factor,
    )
    for name, value, wanted in zip(names, found, expected, strict=True):
        np.testing.assert_allclose(value.numpy(), wanted, atol=1e-5, err_msg=name)


def test_changes_of_layout(tmp_path: Path) -> None:
    made, image = Writer((1, 4, 2, 3)), photo(4, 2, batch=2)
    turned = made.node("Transpose", "turned", "image", made.constant("order", np.array([0, 3, 1, 2])))
    one = made.constant("one", np.array(1))
    parts = made.node("SplitV", "parts", turned, made.constant("sizes", np.array([1, 2])), one)
    joined = made.node("ConcatV2", "joined", f"{parts}:1", parts, one)
    border = made.constant("border", np.array([[0, 0], [0, 0], [1, 2], [0, 3]]))
    padded = made.node("PadV2", "padded", joined, border, made.constant("value", np.array(-2.5)))
    # The converter of another format makes shapes by steps that do not depend on the image.
    nothing = [made.constant(f"nothing {n}", np.zeros(shape, int)) for n, shape in enumerate(((0, 1), (0,)))]
    zeros = made.node(
        "SparseToDense", "zeros", nothing[0], made.constant("three", np.array([3])), nothing[1], made.constant("0", 0)
    )
    shape = made.node("AddV2", "shape", made.constant("known", np.array([1, 3, -1])), zeros)
    flat = made.node("Reshape", "flat", padded, shape)
    made.node("Mean", "out", flat, made.constant("axes", np.array([2])), keep_dims=True)
    given = torch.from_numpy(image).permute(0, 3, 1, 2)
    found, mean = network(made, tmp_path, "flat", "out")(given)
    expected = np.full((2, 3, 7, 5), -2.5, np.float32)
    expected[:, :, 1:5, :2] = image.transpose(0, 3, 1, 2)[:, [1, 2, 0]]
    np.testing.assert_array_equal(found.numpy(), expected.reshape(2, 3, -1))
    np.testing.assert_allclose(mean.numpy(), expected.mean((2, 3))[..., None], rtol=1e-5)


def test_dequantisation(tmp_path: Path) -> None:
    made = Writer((1, 1, 4, 3))
    made.constant("bytes", np.array([0, 1, 255], np.uint8), dtype="uint8", scale=0.5, min=-3.25)
    made.constant("words", np.array([[0, 65535, 40]], np.uint16), dtype="uint16", scale=0.001, min=1.0)
    made.constant("half", np.array([0.1, -2.0], np.float16), dtype="float16")
    made.constant("whole", np.array([3, 9], np.uint8), dtype="uint8", scale=2.0, min=-7.0, original="int32")
    made.constant("plain", np.array([1.5]))
    made.constant("number", np.array(7))
    found = read_graph(*made.save(tmp_path)).constants
    expected = {
        "bytes": np.array([-3.25, -2.75, 124.25], np.float32),
        "words": np.array([[1.0, 66.535, 1.04]], np.float32),
        "half": np.array([0.1, -2.0], np.float16).astype(np.float32),
        "whole": np.array([-1, 11]),
        "plain": np.array([1.5], np.float32),
        "number": np.array(7),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_logits_in_the_place_of_scores(tmp_path: Path) -> None:
    made, image = Writer((1, 2, 2, 3)), photo(2, 2)
    made.node("Sigmoid", "score", "image")
    order = made.constant("order", np.array([0, 2, 1, 3]))
    made.node("Identity", "out", made.node("Transpose", "turned", "score", order))
    made.node("Relu", "other", "score")
    graph = read_graph(*made.save(tmp_path))
    (found,) = GraphNetwork(before_sigmoid(graph, "out"), ["out"])(torch.from_numpy(image).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(found.numpy(), image.transpose(0, 2, 1, 3))
    with pytest.raises(WeightsError, match="its output other is not a sigmoid"):
        before_sigmoid(graph, "other")


def test_an_unknown_operator_is_refused_by_name_where_it_is_needed(tmp_path: Path) -> None:
    made = Writer((1, 2, 2, 3))
    made.node("Relu", "out", "image")
    made.node("TopKV2", "best", "out")
    graph = read_graph(*made.save(tmp_path))
    GraphNetwork(graph, ["out"])
    with pytest.raises(WeightsError, match=r"model\.json: its operator TopKV2 \(best\) is not translated; these are: "):
        GraphNetwork(graph, ["best"])
    with pytest.raises(WeightsError, match="has no output nosuch"):
        GraphNetwork(graph, ["nosuch"])


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("_FusedConv2D", {"fused_ops": ["BiasAdd", "Elu"]}, "fused with Elu"),
        ("Conv2D", {"data_format": "NCHW"}, "NHWC"),
        ("Conv2D", {"padding": "EXPLICIT"}, "padding EXPLICIT"),
        ("Conv2D", {"strides": [1, 1, 1, 2]}, "strides along"),
        ("Conv2D", {"strides": [1, 1]}, "its inputs do not fit"),
        ("MaxPool", {}, "its inputs do not fit"),
    ],
)
def test_an_unknown_attribute_is_refused(tmp_path: Path, op: str, attributes: dict[str, Any], message: str) -> None:
    made = Writer((1, 4, 4, 3))
    if op == "MaxPool":  # without its window and padding
        made.node(op, "out", "image")
    else:
        made.convolution("out", "image", np.ones((1, 1, 3, 2)), op=op, **attributes)
    with pytest.raises(WeightsError, match=rf"its operator {op} \(out\) is not translated; .*{message}"):
        network(made, tmp_path)


def damaged(made: Writer, fault: str) -> None:
    if fault == "short":
        made.data = made.data[:-1]
    elif fault == "long":
        made.data += b"x"
    elif fault == "not finite":
        made.data = np.float32(np.nan).tobytes() + made.data[4:]
    elif fault == "type":
        made.entries[0]["dtype"] = "complex64"
    elif fault == "shape":
        made.entries[0]["shape"] = [1 << 40]
    elif fault == "missing":
        made.nodes[-1]["input"] = ["gone"]
    elif fault == "loop":
        made.nodes[-1]["input"] = ["out"]
    elif fault == "twice":
        made.nodes.append(made.nodes[-1])
    elif fault == "attribute":
        made.nodes[-1]["attr"]["padding"] = {"s": "?"}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("short", "too few for the weight out/weights"),
        ("long", "has 25 bytes, but its graph names 24"),
        ("not finite", "the weight out/weights has values that are not finite"),
        ("type", "is stored as complex64"),
        ("shape", "impossible shape"),
        ("missing", "its node out needs gone, which it lacks"),
        ("loop", "its node out depends on itself"),
        ("twice", "two nodes of one name"),
        ("attribute", "is not a graph model of TensorFlow.js"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, fault: str, message: str) -> None:
    made = Writer((1, 4, 4, 3))
    made.convolution("out", "image", np.ones((1, 1, 3, 2)))
    damaged(made, fault)
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        read_graph(*made.save(tmp_path))
    assert "model." in str(caught.value) and "get both files" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"modelTopology": {"node": [3]}}', "no json"])
def test_other_json_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"a\.json: is not"):
        read_graph(tmp_path / "a.json", tmp_path / "a.bin")


def files_of(name: str) -> list[Path]:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed; run `adaptiveisp weights get {name}`")
    return require_files(name)


def relative(found: Any, expected: Any) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max() / np.abs(np.asarray(expected)).max())


def test_mb3_centernet_gives_what_onnxruntime_gives(shared: Path) -> None:
    """The ONNX file was converted by other code, and has the decode inside: centre, size and peaks of the heat map."""
    ort = pytest.importorskip("onnxruntime")
    path = shared / "detectors" / "mb3-centernet.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}")
    image = torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.avg_pool2d(image, 9, 1, 4)
    graph = read_graph(*files_of("mb3-centernet"))
    heat, sides = (value[0].numpy() for value in GraphNetwork(graph, ("tower_0/keypoints", "tower_0/wh"))(image * 255))
    (table,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"images": (image * 255).numpy()}
    )
    centre_x, centre_y, width, height = table[0, :4].reshape(4, 128, 128)
    left, top, right, bottom = np.moveaxis(sides, 2, 0)
    y, x = np.mgrid[:128, :128]
    for found, expected in (
        (4 * x + (right - left) / 2, centre_x),
        (4 * y + (bottom - top) / 2, centre_y),
        (left + right, width),
        (top + bottom, height),
    ):
        assert relative(found, expected) < 1e-3
    # Where the heat map is flat, rounding decides which cell is the peak.
    scores = np.moveaxis(table[0, 4:].reshape(80, 128, 128), 0, 2)
    peaks = scores > 0
    assert relative(np.where(peaks, heat, 0), scores) < 1e-3 and peaks.sum() > 1000


def test_nanodet_g_gives_what_onnxruntime_gives() -> None:
    """The ONNX model is made by the script of the repository, which translates each node to ONNX."""
    ort, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    from benchmarks import nanodet_onnx

    path, weights = files_of("nanodet-g")
    names = [f"Identity{suffix}" for suffix in ("", "_1", "_2", "_3", "_4", "_5")]
    to = nanodet_onnx.Translation(json.loads(path.read_text()), weights.read_bytes(), 288)
    for name in names:
        to(name)
    image = onnx.helper.make_tensor_value_info("input_1", onnx.TensorProto.FLOAT, [1, 3, 288, 288])
    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    graph = onnx.helper.make_graph(to.made, "nanodet", [image], outputs, list(to.initializers.values()))
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", nanodet_onnx.OPSET)], ir_version=9
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = torch.randn(1, 3, 288, 288, generator=torch.Generator().manual_seed(0))
    found = GraphNetwork(read_graph(path, weights), names)(given)
    for name, value, expected in zip(names, found, session.run(names, {"input_1": given.numpy()}), strict=True):
        assert value.shape == expected.shape and relative(value, expected) < 1e-3, name


@pytest.mark.parametrize("made_by", [tfjs_models.centernet, tfjs_models.nanodet])
def test_gradients_reach_the_image(tmp_path: Path, made_by: Any) -> None:
    """Against differences in double precision, at a size that the graph was not made for."""
    detector = made_by(tmp_path)
    net = detector.network.double()
    assert not any(value.requires_grad for value in net.parameters())
    image = 100 * torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(net(x)), (image,), fast_mode=True, atol=1e-6)

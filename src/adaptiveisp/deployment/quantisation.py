"""Graphs of whole numbers of 8 bits: the networks of policy and detector, by onnxruntime's own tools.

Weights become whole numbers with a scale of their own for each output channel (static) or each layer (dynamic). In a
static graph the ranges of the activations are those of calibration raws, and nodes `QuantizeLinear` and
`DequantizeLinear` stand around each layer; in a dynamic one each image has its own ranges. Both have standard operators
only. Everything else stays in float32: development, statistics, modules, the decoding of boxes, and suppression.
"""

import copy
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptiveisp.deployment.ops import EXTRA, Array
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.own_code import reason_of

METHODS = ("int8-dynamic", "int8-static")
PARTS = ("policy", "detector")
"""What can be quantised; also the first scope of the names of its nodes."""
LAYERS = {"policy": ("Conv", "Gemm"), "detector": ("Conv", "Gemm", "MatMul")}
"""Part → operators of its layers; products of matrices in a policy are means over cells, which stay exact."""
BETWEEN = ("LeakyRelu", "Relu", "MaxPool", "Resize", "Concat")
"""Operators that hand whole numbers on from one layer to the next, so that nothing is converted between them."""
PREPARED = "onnx.quant.pre_process"
"""Key by which onnxruntime's tools know a model that they need not warn about."""


@dataclass(frozen=True)
class Quantised:
    """A quantised graph.

    Attributes:
        model: the `onnx.ModelProto`.
        layers: names of the layers that compute in whole numbers.
        kept: names of the layers that stay in float32.
    """

    model: Any
    layers: tuple[str, ...]
    kept: tuple[str, ...]


def quantised(model: Any, method: str, parts: Collection[str], feeds: Iterable[Mapping[str, Array]] = ()) -> Quantised:
    """A graph whose networks compute in whole numbers; the graph itself if it has none of them.

    Args:
        model: the `onnx.ModelProto`, in float32.
        method: one of `METHODS`.
        parts: which of `PARTS`.
        feeds: inputs of the graph, by which a static graph is calibrated.

    Raises:
        AdaptiveISPError: onnxruntime's tools fail.
    """
    chosen, between, kept = _layers_of(model.graph, parts, method == "int8-static")
    if not chosen:
        return Quantised(model, (), kept)
    given = copy.deepcopy(model)
    given.metadata_props.add(key=PREPARED, value="onnxruntime.quant")
    tools = import_extra("onnxruntime.quantization", EXTRA)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ranges of tensors that are not quantised
        out = Path(folder) / "quantised.onnx"
        try:
            if method == "int8-static":
                _static(tools, given, out, [*chosen, *between], feeds)
            else:
                _dynamic(tools, given, out, chosen)
        except Exception as error:  # the tools raise many kinds of errors
            reason = f"onnxruntime's tools cannot quantise it ({reason_of(error)})"
            raise AdaptiveISPError(f"{model.graph.name}.onnx: {reason}; export it in float32") from error
        made = import_extra("onnx", EXTRA).load(out)
    del made.metadata_props[:], made.graph.value_info[:]
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    return Quantised(made, tuple(chosen), kept)


def _static(tools: Any, model: Any, out: Path, nodes: Sequence[str], feeds: Iterable[Mapping[str, Array]]) -> None:
    operators = sorted({node.op_type for node in model.graph.node if node.name in set(nodes)})
    tools.quantize_static(
        model,
        out,
        _reader(tools, feeds),
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=operators,
        nodes_to_quantize=list(nodes),
        per_channel=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
    )


def _dynamic(tools: Any, model: Any, out: Path, nodes: Sequence[str]) -> None:
    # The tool turns each Gemm into a product of matrices of another name first. Unsigned weights, since ConvInteger
    # of onnxruntime 1.32 takes four times as long with signed ones.
    names = [name for node in nodes for name in (node, f"{node}_MatMul")]
    operators = ["Conv", "MatMul"]
    weights = tools.QuantType.QUInt8
    tools.quantize_dynamic(model, out, op_types_to_quantize=operators, nodes_to_quantize=names, weight_type=weights)


def _reader(tools: Any, feeds: Iterable[Mapping[str, Array]]) -> Any:
    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        """Gives the inputs one by one, then None."""

        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self.feeds, None)

    return Reader()


def _layers_of(graph: Any, parts: Collection[str], static: bool) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Names of the layers to quantise, of the nodes between them, and of the layers that stay.

    In a static graph the last layers stay, whose outputs are boxes, logits and parameters: 256 steps are too few there.
    Layers inside loops and branches stay too, which the tools do not calibrate.
    """
    constants = {tensor.name for tensor in graph.initializer}
    nodes = [node for node in graph.node if _part(node) in parts]
    makers = {output: node for node in nodes for output in node.output}
    layers = [node for node in nodes if _is_layer(node, constants)]
    followed = _before(layers, makers)
    chosen = [node for node in layers if not static or node.name in followed]
    names = [node.name for node in chosen]
    kept = [node.name for node in _inner(graph) if _is_layer(node, constants) and node.name not in names]
    leading, carried, between = _before(chosen, makers), {out for node in chosen for out in node.output}, []
    for node in nodes if static else []:  # in the order of computation
        if node.op_type in BETWEEN and node.name in leading and carried.intersection(node.input):
            between.append(node.name)
            carried.update(node.output)
    return names, between, tuple(kept)


def _part(node: Any) -> str:
    return str(node.name).split("/", 1)[0]


def _is_layer(node: Any, constants: Collection[str]) -> bool:
    return node.op_type in LAYERS.get(_part(node), ()) and len(node.input) > 1 and node.input[1] in constants


def _before(layers: Iterable[Any], makers: Mapping[str, Any]) -> set[str]:
    """Names of the nodes of which the inputs of these layers are made, directly or through others."""
    found: set[str] = set()
    waiting = [name for layer in layers for name in layer.input]
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is not None and maker.name not in found:
            found.add(maker.name)
            waiting.extend(maker.input)
    return found


def _inner(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of its loops and branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _inner(attribute.g)

"""Compares the operators of an export with the documented lists of other runtimes.

A graph that passes uses documented operators only; whether a runtime then runs it, and as fast, only that runtime can
tell.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptiveisp_runtime.errors import RuntimeFault
from adaptiveisp_runtime.manifest import load_manifest
from adaptiveisp_runtime.onnx_reader import Model, Node, read_model


def _names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


TENSORRT = "TensorRT 10.15"
TENSORRT_LACKS = _names(
    """AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
    ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool
    MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement QLinearConv
    QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
    SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer
    Unique"""
)
"""Standard operators that its parser does not take. Source: onnx-tensorrt, docs/operators.md, "TensorRT 10.15"."""
TENSORRT_OPSETS = (9, 24)
TENSORRT_INPUTS = {1: "float32", 2: "uint8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
"""Types that an input may have, by ONNX's numbers."""

MOBILE = "ONNX Runtime Mobile 1.11, pre-built"
MOBILE_HAS = _names(
    """Abs Add And ArgMax ArgMin AveragePool Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose
    Cos CumSum DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor
    Gather GatherND Gemm GlobalAveragePool Greater GreaterOrEqual Identity If InstanceNormalization LRN
    LeakyRelu Less LessOrEqual Log LogSoftmax Loop MatMul MatMulInteger Max MaxPool Mean Min Mul Neg
    NonMaxSuppression NonZero Not Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize ReverseSequence Round Scan
    ScatterND Shape Sigmoid Sin Size Slice Softmax SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh
    ThresholdedRelu Tile TopK Transpose Unique Unsqueeze Where"""
)
"""Operators of the reduced packages for phones. Source: onnxruntime, mobile_package.required_operators.config, and its
page "Mobile Pre-Built Package Operator and Type Support". The full packages for Android and iOS, which replaced these
in 1.19, have every operator of the CPU."""
MOBILE_OPSETS = (12, 15)
MOBILE_INPUTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool"}

TYPE_NAMES = {4: "uint16", 5: "int16", 12: "uint32", 13: "uint64", **MOBILE_INPUTS, **TENSORRT_INPUTS}
REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


@dataclass(frozen=True)
class Fault:
    """Something in a graph that a runtime's documentation does not allow.

    Attributes:
        graph: name of the graph.
        what: an operator, an input or the opset.
        reason: in words, with the number of places.
    """

    graph: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.graph}: {self.what}: {self.reason}"


def check_graphs(folder: str | Path, target: str, graphs: Sequence[str] | None = None) -> list[Fault]:
    """What the graphs of an export have that a runtime's documentation does not allow; empty if nothing.

    Args:
        folder: of the export.
        target: one of `TARGETS`.
        graphs: names; None takes all.

    Raises:
        RuntimeFault: there is no such target or folder, or a graph is damaged.
    """
    if target not in TARGETS:
        raise RuntimeFault(f"target {target!r} does not exist; choose one of {', '.join(TARGETS)}")
    manifest = load_manifest(folder)
    found: list[Fault] = []
    for name in manifest.graphs if graphs is None else graphs:
        graph = manifest.graph(name)
        try:
            model = read_model(graph.content())
        except (ValueError, TypeError) as error:
            raise RuntimeFault(f"{graph.path}: is no ONNX file ({error}); export the folder again") from error
        found += [Fault(name, what, reason) for what, reason in TARGETS[target](model)]
    return found


def _tensorrt(model: Model) -> list[tuple[str, str]]:
    lacking = Counter(node.operator for node in model.nodes if node.domain or node.operator in TENSORRT_LACKS)
    faults = [(operator, f"{TENSORRT} has no such operator ({_places(n)})") for operator, n in lacking.items()]
    limits: dict[tuple[str, str], int] = Counter(
        (node.operator, reason) for node in model.nodes if (reason := _tensorrt_limit(node, model))
    )
    faults += [(operator, f"{TENSORRT} {reason} ({_places(n)})") for (operator, reason), n in limits.items()]
    return [*_frame_faults(model, TENSORRT, TENSORRT_OPSETS, TENSORRT_INPUTS), *faults]


def _tensorrt_limit(node: Node, model: Model) -> str:
    """The documented limit that a node exceeds; "" if none does."""
    if (
        node.operator in REDUCTIONS
        and len(node.inputs) > 1
        and node.inputs[1]
        and node.inputs[1] not in model.constants
    ):
        return "needs constant axes"
    if node.operator == "CumSum" and node.inputs[1] not in model.constants:
        return "needs a constant axis"
    if node.operator == "Resize":
        if node.attributes.get("antialias", 0):
            return "has no antialiasing"
        if node.attributes.get("mode", "nearest") not in ("nearest", "linear"):
            return "has the modes nearest and linear only"
    if node.operator in ("AveragePool", "MaxPool") and "dilations" in node.attributes:
        return "has no dilations"
    if node.operator == "TopK" and node.attributes.get("sorted", 1) != 1:
        return "needs sorted = 1"
    if node.operator == "ScatterND" and node.attributes.get("reduction", "none") != "none":
        return "has no reduction"
    return ""


def _mobile(model: Model) -> list[tuple[str, str]]:
    lacking = Counter(node.operator for node in model.nodes if node.domain or node.operator not in MOBILE_HAS)
    faults = [(operator, f"{MOBILE} lacks it ({_places(n)})") for operator, n in lacking.items()]
    return [*_frame_faults(model, MOBILE, MOBILE_OPSETS, MOBILE_INPUTS), *faults]


def _frame_faults(
    model: Model, runtime: str, opsets: tuple[int, int], types: "dict[int, str]"
) -> list[tuple[str, str]]:
    """Faults of the opset and of the inputs' types."""
    faults = []
    low, high = opsets
    if not low <= model.opset <= high:
        faults.append((f"opset {model.opset}", f"{runtime} documents {low} to {high}"))
    for name, kind in model.inputs.items():
        if kind not in types:
            known = ", ".join(types.values())
            faults.append((f"input {name}", f"{runtime} takes no {TYPE_NAMES.get(kind, kind)}, only {known}"))
    return faults


def _places(count: int) -> str:
    return f"{count} node{'s' * (count > 1)}"


TARGETS: dict[str, Callable[[Model], list[tuple[str, str]]]] = {"tensorrt": _tensorrt, "ort-mobile": _mobile}
"""Runtimes with a documented list of operators."""

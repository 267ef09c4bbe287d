"""Writes ONNX graphs: `Ops` adds nodes, and `Value` is the result of one, with Python's arithmetic.

A node whose inputs are all constant is not written; its result is computed at once and becomes a constant. So the same
code describes a graph for one size, whose sizes are constants, and one for any size, whose sizes are values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.utils.optional_imports import import_extra

EXTRA = "onnx"
OPSET = 18
IR_VERSION = 9
"""Of ONNX 1.14 (2023), which onnxruntime 1.16 and OpenVINO 2023 read."""

Array: TypeAlias = NDArray[Any]
BOOLS = ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not", "IsNaN", "IsInf")
"""Operators whose result is of truth values."""
LONGS = ("Shape", "ArgMax", "Size", "NonZero", "NonMaxSuppression")
"""Operators whose result is of whole numbers."""
CONTROL = ("If", "Loop")


@dataclass(eq=False)
class Value:
    """A tensor of a graph.

    Attributes:
        ops: the graph that it belongs to.
        name: its name there; "" for a constant that no node has used yet.
        dtype: type of its numbers.
        data: its numbers if they are constant, else None.
    """

    ops: "Ops" = field(repr=False)
    name: str
    dtype: np.dtype[Any]
    data: Array | None = None
    __array_ufunc__ = None  # array * value is left to the value

    @property
    def graph(self) -> "Ops":
        """The graph or branch that is being written now, to which arithmetic adds its nodes."""
        return self.ops.root.writing[-1]

    def __add__(self, other: "Operand") -> "Value":
        return self.graph("Add", self, other)

    def __radd__(self, other: "Operand") -> "Value":
        return self.graph("Add", other, self)

    def __sub__(self, other: "Operand") -> "Value":
        return self.graph("Sub", self, other)

    def __rsub__(self, other: "Operand") -> "Value":
        return self.graph("Sub", other, self)

    def __mul__(self, other: "Operand") -> "Value":
        return self.graph("Mul", self, other)

    def __rmul__(self, other: "Operand") -> "Value":
        return self.graph("Mul", other, self)

    def __truediv__(self, other: "Operand") -> "Value":
        return self.graph("Div", self, other)

    def __rtruediv__(self, other: "Operand") -> "Value":
        return self.graph("Div", other, self)

    def __neg__(self) -> "Value":
        return self.graph("Neg", self)

    @property
    def number(self) -> float:
        """The number of a constant with one element."""
        assert self.data is not None
        return float(self.data.reshape(()))


Operand: TypeAlias = Value | float | int | bool | Array
"""What a node takes: a value, or numbers that become a constant."""


@dataclass
class _Root:
    """What all subgraphs of a graph share."""

    initializers: list[Any] = field(default_factory=list)
    known: dict[Any, str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    opset: int = OPSET
    writing: "list[Ops]" = field(default_factory=list)
    sides: "tuple[Value, Value] | None" = None
    """Height and width of the images that the modules change, the same for all of a graph."""
    precision: "np.dtype[Any]" = field(default_factory=lambda: np.dtype(np.float32))
    """Type of images and of the networks' intermediate values."""
    loops: bool = True
    """Whether nodes may be `Loop`s; some runtimes have none."""


class Ops:
    """A graph, or a branch of one, that is being written.

    Call it with the name of an operator to add a node; `ops("Relu", x)` returns its output.

    Args:
        parent: the graph around it, for a branch.
    """

    def __init__(self, parent: "Ops | None" = None):
        self.onnx = import_extra("onnx", EXTRA)
        self.root: _Root = parent.root if parent else _Root()
        self.scopes: list[str] = list(parent.scopes) if parent else []
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        if parent is None:
            self.root.writing.append(self)

    def __call__(self, kind: str, *operands: "Operand | None", dtype: Any = None, **attributes: Any) -> Value:
        """The output of a new node; numbers take the type of the first operand that is a value."""
        return self.several(kind, 1, *operands, dtype=dtype, **attributes)[0]

    def several(
        self, kind: str, count: int, *operands: "Operand | None", dtype: Any = None, **attributes: Any
    ) -> list[Value]:
        """The outputs of a new node."""
        like = next((one.dtype for one in operands if isinstance(one, Value)), np.dtype(np.float32))
        values = [None if one is None else self.value(one, like) for one in operands]
        if dtype is None:
            dtype = np.bool_ if kind in BOOLS else np.int64 if kind in LONGS else self._dtype_of(kind, values, like)
        names = [self.unique(kind) for _ in range(count)]
        attributes = {name: value for name, value in attributes.items() if value is not None}
        if kind not in CONTROL and all(value is None or value.data is not None for value in values):
            return self._folded(kind, values, names, attributes)
        while values and values[-1] is None:  # absent inputs at the end are left out, since OpenVINO trips over them
            values.pop()
        inputs = ["" if value is None else self.named(value) for value in values]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return [Value(self, name, np.dtype(dtype)) for name in names]

    @staticmethod
    def _dtype_of(kind: str, values: "Sequence[Value | None]", like: np.dtype[Any]) -> np.dtype[Any]:
        place = 1 if kind == "Where" else 0
        chosen = values[place] if len(values) > place else None
        return chosen.dtype if chosen is not None else like

    def _folded(
        self, kind: str, values: "Sequence[Value | None]", names: Sequence[str], attributes: dict[str, Any]
    ) -> list[Value]:
        """The results of a node whose inputs are constant, as constants."""
        helper, reference = self.onnx.helper, import_extra("onnx.reference", EXTRA)
        given = {f"i{place}": value.data for place, value in enumerate(values) if value is not None}
        inputs = ["" if value is None else f"i{place}" for place, value in enumerate(values)]
        node = helper.make_node(kind, inputs, list(names), **attributes)
        entries = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(data.dtype), data.shape)
            for name, data in given.items()
            if data is not None
        ]
        results = [helper.make_value_info(name, self.onnx.TypeProto()) for name in names]
        model = helper.make_model(
            helper.make_graph([node], "folded", entries, results),
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        found = reference.ReferenceEvaluator(model).run(None, given)
        return [self.constant(one, np.asarray(one).dtype) for one in found]

    def constant(self, data: Any, dtype: Any = None) -> Value:
        """A constant; Python's floats become float32, whole numbers int64."""
        array = np.asarray(data)
        if dtype is None and array.dtype == np.float64:
            dtype = np.float32
        array = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
        return Value(self, "", array.dtype, array)

    def value(self, operand: Operand, dtype: Any) -> Value:
        """The operand as a value of this graph; plain numbers get the type."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, np.ndarray) and (operand.dtype.kind != "f" or np.dtype(dtype).kind != "f"):
            return self.constant(operand)
        return self.constant(operand, dtype)

    def named(self, value: Value) -> str:
        """The name of a value in the graph; a constant becomes an initializer when it is first used."""
        if value.name:
            return value.name
        assert value.data is not None
        key = (value.data.dtype.str, value.data.shape, value.data.tobytes())
        if key not in self.root.known:
            name = self.unique("constant")
            self.root.known[key] = name
            self.root.initializers.append(self.onnx.numpy_helper.from_array(value.data, name))
        return self.root.known[key]

    def unique(self, kind: str) -> str:
        """A new name, made of the scopes and the kind."""
        base = "/".join([*self.scopes, kind])
        number = self.root.used.get(base, 0)
        self.root.used[base] = number + 1
        return f"{base}_{number}" if number else base

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of nodes within begin with this name."""
        self.scopes.append(name)
        try:
            yield
        finally:
            self.scopes.pop()

    @contextmanager
    def written(self) -> Iterator[None]:
        """Arithmetic of values adds its nodes to this branch."""
        self.root.writing.append(self)
        try:
            yield
        finally:
            self.root.writing.pop()

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> Value:
        """An input of the graph; texts in the shape name free sizes."""
        self.root.used[name] = 1
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, list(shape)))
        return Value(self, name, np.dtype(dtype))

    def output(self, name: str, value: Value, shape: "Sequence[int | str] | None" = None) -> None:
        """Makes a value an output of the graph, under this name."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        self.nodes.append(self.onnx.helper.make_node("Identity", [self.named(value)], [name], name=f"{name}/output"))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, None if shape is None else list(shape)))

    def model(self, name: str) -> Any:
        """The finished graph as an `onnx.ModelProto`, without nodes and constants that no output needs."""
        helper = self.onnx.helper
        nodes, used = _needed(self.nodes, {output.name for output in self.outputs})
        constants = [tensor for tensor in self.root.initializers if tensor.name in used]
        graph = helper.make_graph(nodes, name, self.inputs, self.outputs, initializer=constants)
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.root.opset)],
            producer_name="adaptiveisp",
            ir_version=IR_VERSION,
        )
        return made

    # Arithmetic that reads better with a name.

    def cast(self, value: Value, dtype: Any) -> Value:
        """The value in another type; itself if it has that type."""
        wanted = np.dtype(dtype)
        if value.dtype == wanted:
            return value
        return self("Cast", value, dtype=wanted, to=self.onnx.helper.np_dtype_to_tensor_dtype(wanted))

    def clip(self, value: Value, low: float | None = None, high: float | None = None) -> Value:
        """The value in [low, high]."""
        bounds = [None if bound is None else np.asarray(bound, value.dtype) for bound in (low, high)]
        return self("Clip", value, *bounds)

    def where(self, condition: Value, yes: Operand, no: Operand) -> Value:
        """`yes` where the condition holds, else `no`; one of them must be a value."""
        like = next(one.dtype for one in (yes, no) if isinstance(one, Value))
        return self("Where", condition, self.value(yes, like), self.value(no, like))

    def reduce(self, kind: str, value: Value, axes: Sequence[int], keep: bool = False) -> Value:
        """Sum, mean, max or min over axes."""
        return self(f"Reduce{kind}", value, np.asarray(axes, np.int64), keepdims=int(keep))

    def reshape(self, value: Value, *sides: "int | Value") -> Value:
        """The value in another shape; 0 keeps a side, -1 is the side that remains."""
        return self("Reshape", value, self.stack(sides))

    def stack(self, numbers: "Sequence[int | Value]") -> Value:
        """Whole numbers as a vector."""
        parts = [
            self.constant(np.asarray([one], np.int64))
            if isinstance(one, int)
            else self("Reshape", one, np.asarray([1]))
            for one in numbers
        ]
        return parts[0] if len(parts) == 1 else self.concat(parts, 0)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """The values one after the other along an axis."""
        return self("Concat", *parts, axis=axis)

    def item(self, vector: Value, index: int) -> Value:
        """An element of a vector as a scalar."""
        return self("Gather", vector, self.constant(np.asarray(index, np.int64)), axis=0)

    def slice(self, value: Value, axis: int, start: "int | Value", stop: "int | Value | None" = None) -> Value:
        """The part of an axis from start to stop; None is its end."""
        end = np.iinfo(np.int64).max if stop is None else stop
        bounds = [self.stack([one]) for one in (start, end)]
        return self("Slice", value, *bounds, np.asarray([axis], np.int64))

    def pad(self, value: Value, sides: "Sequence[int | Value]", mode: str = "constant", fill: float = 0.0) -> Value:
        """The value with more rows and columns: sides are (top, left, bottom, right)."""
        pads = self.stack([0, 0, *sides[:2], 0, 0, *sides[2:]])
        given = np.asarray(fill, value.dtype) if mode == "constant" else None
        return self("Pad", value, pads, given, mode=mode)

    def branch(self, name: str, values: Sequence[Value]) -> Any:
        """The finished graph of a branch or a loop's body with these outputs."""
        helper, outputs = self.onnx.helper, []
        for value in values:
            result = self.unique("result")
            self.nodes.append(helper.make_node("Identity", [self.named(value)], [result], name=result))
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            outputs.append(helper.make_tensor_value_info(result, kind, None))
        nodes, _ = _needed(self.nodes, {output.name for output in outputs})
        return helper.make_graph(nodes, self.unique(name), self.inputs, outputs)


def _needed(nodes: Sequence[Any], wanted: set[str]) -> tuple[list[Any], set[str]]:
    """The nodes that some values need, in order, and the names of all values that these nodes use."""
    used, kept = set(wanted), []
    for node in reversed(nodes):
        if used.isdisjoint(node.output):
            continue
        kept.append(node)
        used |= set(_names_in(node))
    return kept[::-1], used


def _names_in(node: Any) -> Iterator[str]:
    """The values that a node and the nodes of its branches use."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _names_in(inner)

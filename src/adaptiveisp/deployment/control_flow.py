"""Branches and loops of a graph: only the chosen branch is computed."""

from collections.abc import Callable, Sequence

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value


def choose(
    ops: Ops, index: Value, branches: Sequence[Callable[[Ops], Sequence[Value]]], names: Sequence[str] = ()
) -> list[Value]:
    """The values of the branch with this index, by a balanced tree of `If`s; only that branch is computed.

    Args:
        ops: the graph.
        index: a scalar int64 from 0.
        branches: each adds its nodes to the graph that it is given, and returns its values.
        names: of the branches, for names of nodes; none if the branches name their nodes themselves.
    """
    if len(branches) == 1:
        return list(branches[0](ops))
    if index.data is not None:
        return list(branches[int(index.number)](ops))
    middle = len(branches) // 2
    halves = ((branches[:middle], 0, names[:middle]), (branches[middle:], middle, names[middle:]))
    graphs, dtypes = [], []
    for part, first, called in halves:
        inner = Ops(ops)
        with inner.written(), inner.scope(called[0] if len(called) == 1 else "choice"):
            values = choose(inner, inner("Sub", index, first) if first and len(part) > 1 else index, part, called)
            graphs.append(inner.branch("branch", values))
        dtypes = [value.dtype for value in values]
    first_half = ops("Less", index, middle)
    names_out = [ops.unique("If") for _ in dtypes]
    ops.nodes.append(
        ops.onnx.helper.make_node(
            "If",
            [ops.named(first_half)],
            names_out,
            name=names_out[0],
            then_branch=graphs[0],
            else_branch=graphs[1],
        )
    )
    return [Value(ops, name, dtype) for name, dtype in zip(names_out, dtypes, strict=True)]


def repeat(
    ops: Ops,
    steps: "int | Value",
    carried: Sequence[Value],
    going: Value | None,
    shapes: Sequence[Sequence[int | None]],
    body: Callable[[Ops, Value, Sequence[Value]], tuple[Sequence[Value], Value, Sequence[Value]]],
) -> tuple[list[Value], list[Value]]:
    """Values after a loop of at most `steps` rounds, and what its rounds collected, stacked.

    Args:
        ops: the graph.
        steps: most rounds, a number or a value.
        carried: values that a round takes and gives on.
        going: whether there is a first round; None if there is.
        shapes: of the carried values, None for free sizes; OpenVINO wants to know at least their number.
        body: (graph, number of the round, carried values) → (carried values, whether to go on, collected values).
    """
    helper, inner = ops.onnx.helper, Ops(ops)
    inner.scopes.append("round")
    longs, truths = ops.onnx.TensorProto.INT64, ops.onnx.TensorProto.BOOL
    number = Value(inner, inner.unique("number"), np.dtype(np.int64))
    inner.inputs += [
        helper.make_tensor_value_info(number.name, longs, []),
        helper.make_tensor_value_info(inner.unique("going"), truths, []),
    ]
    states = []
    for value, shape in zip(carried, shapes, strict=True):
        states.append(Value(inner, inner.unique("carried"), value.dtype))
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        inner.inputs.append(helper.make_tensor_value_info(states[-1].name, kind, list(shape)))
    with inner.written():
        after, further, collected = body(inner, number, states)
        graph = inner.branch("body", [further, *after, *collected])
    outputs = [*after, *collected]
    names = [ops.unique("Loop") for _ in outputs]
    first = ops.constant(np.asarray(True)) if going is None else going
    most = steps if isinstance(steps, Value) else ops.constant(np.asarray(steps, np.int64))
    inputs = [ops.named(most), ops.named(first)]
    inputs += [ops.named(value) for value in carried]
    ops.nodes.append(helper.make_node("Loop", inputs, names, name=names[0], body=graph))
    found = [Value(ops, name, value.dtype) for name, value in zip(names, outputs, strict=True)]
    return found[: len(after)], found[len(after) :]

"""Linear layers, and the mapping from unbounded outputs to a module's physical parameters, as nodes of a graph."""

import math
from functools import partial

import numpy as np

from adaptiveisp.deployment.ops import Array, Ops, Value
from adaptiveisp.deployment.tracing import traced_head
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.isp.modules.white_balance import EPSILON, balance_head
from adaptiveisp.utils.color import LUMA


def linear(ops: Ops, value: Value, weight: Array, bias: Array | None = None) -> Value:
    """value · weightᵀ + bias, in the type of the value."""
    given = None if bias is None else np.asarray(bias, value.dtype)
    return ops("Gemm", value, np.asarray(weight, value.dtype), given, transB=1)


def physical(ops: Ops, module: IspModule, logits: Value) -> Value:
    """The parameters of a module as a vector, from its outputs (1, n)."""
    row = ops.reshape(logits, -1)
    if not module.params:
        return row
    with ops.scope(module.name):
        if module.head is not None:
            head = module.head
            if isinstance(head, partial) and head.func is balance_head:
                return _balance(ops, row, float(head.keywords["limit"]))
            return traced_head(ops, module, row)
        first = module.params[0]
        if all((p.low, p.high, p.scale) == (first.low, first.high, first.scale) for p in module.params):
            return squash(ops, first, row)
        parts = [squash(ops, param, ops.slice(row, 0, i, i + 1)) for i, param in enumerate(module.params)]
        return ops.concat(parts, 0)


def squash(ops: Ops, param: Param, z: Value) -> Value:
    """Values in the parameter's range of unbounded z; see `Param.squash`."""
    if param.scale == "sigmoid":
        return param.low + (param.high - param.low) * ops("Sigmoid", z)
    unit = (ops("Tanh", z) + 1.0) * 0.5
    if param.scale == "log":
        low, high = math.log(param.low), math.log(param.high)
        return ops("Exp", low + (high - low) * unit)
    return param.low + (param.high - param.low) * unit


def _balance(ops: Ops, z: Value, limit: float) -> Value:
    """Gains of white balance; see `balance_head`."""
    gains = ops("Exp", limit * ops("Tanh", z * np.asarray([0, 1, 1], np.float32)))
    return gains / (ops.reduce("Sum", gains * np.asarray(LUMA, np.float32), [0], keep=True) + EPSILON)

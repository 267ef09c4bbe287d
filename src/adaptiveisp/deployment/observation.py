"""What policies see of an image, as nodes of a graph: means in cells, noise and light.

The same in PyTorch is in `policies.stepwise.networks`.
"""

from typing import NamedTuple

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.preprocessing import log2
from adaptiveisp.deployment.resampling import pool
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE
from adaptiveisp.policies.stepwise.networks import LEAST_LIGHT, NOISE_SCALE
from adaptiveisp.utils.color import LUMA


class Look(NamedTuple):
    """What a policy sees of an image: its means in 64x64 cells, and the deviation of its noise."""

    pooled: Value
    noise: Value


def look(ops: Ops, image: Value) -> Look:
    """The means of an image (1, 3, height, width) in cells, and its noise by the mean absolute Laplacian difference."""
    assert ops.root.sides is not None
    single = ops.cast(image, np.float32)
    with ops.scope("look"):
        # A product of matrices: the sum over an axis of three takes three times as long in onnxruntime.
        weights = np.asarray(LUMA, np.float32).reshape(1, 3)
        light = ops.reshape(ops("MatMul", weights, ops.reshape(single, 3, -1)), 1, 1, *ops.root.sides)
        down = ops.slice(light, 2, 0, -2) - 2.0 * ops.slice(light, 2, 1, -1) + ops.slice(light, 2, 2)
        both = ops.slice(down, 3, 0, -2) - 2.0 * ops.slice(down, 3, 1, -1) + ops.slice(down, 3, 2)
        noise = ops.reduce("Mean", ops("Abs", both), [0, 1, 2, 3]) * NOISE_SCALE
        return Look(pool(ops, single, *ops.root.sides, OBSERVATION_SIZE), noise)


def log_light(ops: Ops, values: Value) -> Value:
    """Logarithm to base 2 mapped so that 2^-12 becomes -1 and 1 becomes 1."""
    return log2(ops, ops.clip(values, 0.0) + LEAST_LIGHT) * (1 / 6) + 1.0

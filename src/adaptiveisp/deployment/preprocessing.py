"""Auto-exposure as nodes of a graph: the stages that run before a policy's own; see `policies.heuristics`."""

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.pointwise import exp2
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.heuristics import CLIPPED, TARGET_MEAN
from adaptiveisp.utils.color import LUMA

ROUNDS = 12
"""Rounds of Newton's method, which ends when no further value clips: after at most three on 192 raws of COCO photos."""
LUMINANCE = np.asarray(LUMA, np.float32)


def log2(ops: Ops, value: Value) -> Value:
    """Logarithm to base 2."""
    return ops("Log", value) * float(1 / np.log(2))


def stages_of(ops: Ops, pooled: Value, kind: Preprocessing, target: float = TARGET_MEAN) -> list[Value]:
    """The parameters of each stage of a preprocessing, vectors of float32.

    Args:
        pooled: (1, 3, 64, 64) the developed image averaged in cells, float32.
        kind: "auto-exposure" gives gains, stops and the empty parameters of the sRGB curve; "auto-gain" gains alone.
        target: mean luminance after the exposure.
    """
    if kind == "raw":
        return []
    with ops.scope("auto_exposure"):
        gains, stops = exposed(ops, pooled, target)
        if kind == "auto-gain":
            return [gains * exp2(ops, stops)]
        return [gains, stops, ops.constant(np.zeros(0, np.float32))]


def exposed(ops: Ops, pooled: Value, target: float = TARGET_MEAN) -> tuple[Value, Value]:
    """Gains of red, green and blue by grey world, and the exposure after them in stops, a vector of one."""
    pixels = ops.reshape(pooled, 3, -1)
    gains = _grey_world_gains(ops, pixels)
    stops = _exposure_to_mean(ops, pixels * ops.reshape(gains, 3, 1), target)
    return gains, ops.reshape(stops, 1)


def _grey_world_gains(ops: Ops, pixels: Value) -> Value:
    """Gains that make the mean of the unclipped pixels grey; where every pixel is clipped, all count."""
    usable = ops.cast(ops("Less", ops.reduce("Max", pixels, [0], keep=True), CLIPPED), np.float32)
    usable = ops.where(ops("Greater", ops.reduce("Sum", usable, [0, 1], keep=True), 0.0), usable, 1.0)
    means = ops.reduce("Sum", pixels * usable, [1]) / ops.reduce("Sum", usable, [0, 1])
    means = ops.clip(means, 1e-6)
    light = ops.reduce("Sum", means * LUMINANCE, [0], keep=True)
    bounds = find_module("white_balance", "wide").params[0]
    return ops.clip(light / means, bounds.low, bounds.high)


def _exposure_to_mean(ops: Ops, pixels: Value, target: float) -> Value:
    """Stops after which the mean luminance, clipped at 1, is `target`: Newton's method from below, see `heuristics`."""
    bounds = find_module("exposure", "wide").params[0]
    least, most = 2.0**bounds.low, 2.0**bounds.high
    weights = LUMINANCE[:, None]
    weighed = pixels * weights
    gain = ops.constant(np.float32(0))
    linear = clipped = None
    for _ in range(ROUNDS):
        at_limit = ops("GreaterOrEqual", pixels * gain, 1.0)
        linear = ops.reduce("Mean", ops.reduce("Sum", ops.where(at_limit, 0.0, weighed), [0]), [0])
        clipped = ops.reduce("Mean", ops.reduce("Sum", ops.cast(at_limit, np.float32) * weights, [0]), [0])
        better = (target - clipped) / ops.clip(linear, float(np.finfo(np.float32).tiny))
        better = ops("Min", better, most)
        gain = ops("Max", gain, ops.where(ops("Greater", linear, 0.0), better, gain))
    assert linear is not None and clipped is not None
    # Too much of the image is black for any gain to reach the target.
    dark = ops("And", ops("LessOrEqual", linear, 0.0), ops("Less", clipped, target))
    return ops.where(dark, bounds.high, log2(ops, ops.clip(gain, least, most)))

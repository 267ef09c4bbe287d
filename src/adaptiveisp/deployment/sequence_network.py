"""The sequence policy's network as nodes of a graph; see `policies.sequence`."""

import math

import numpy as np

from adaptiveisp.deployment.heads import linear, physical
from adaptiveisp.deployment.observation import Look, log_light
from adaptiveisp.deployment.ops import Array, Ops, Value
from adaptiveisp.deployment.pointwise import luminance
from adaptiveisp.deployment.preprocessing import log2
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE
from adaptiveisp.policies.sequence.networks import BINS, CHANNELS, CLIPPED, N_SCALARS, SequenceNetwork
from adaptiveisp.policies.stepwise.networks import SLOPE


def observation(ops: Ops, before: Look, after: Look, gains: Value) -> tuple[Value, Value]:
    """Planes (1, 6, 64, 64) and numbers (1, 23) of an observation.

    Args:
        before, after: the image before and after the preprocessing.
        gains: stops by which the preprocessing raises red, green and blue.
    """
    logarithm = log_light(ops, before.pooled)
    light = ops.reshape(luminance(ops, logarithm), 1, -1)
    count = OBSERVATION_SIZE**2
    place = ops.clip(ops("Floor", (light + 1.0) * (BINS / 2)), 0, BINS - 1)
    bins = ops.constant(np.arange(BINS, dtype=np.float32).reshape(BINS, 1))
    histogram = ops.reduce("Sum", ops.cast(ops("Equal", place, bins), np.float32), [1]) / float(count)
    mean = ops.reduce("Mean", light, [0, 1])
    off = light - mean
    deviation = ops("Sqrt", ops.reduce("Sum", off * off, [0, 1]) / float(count - 1))
    brightest = ops.reduce("Max", before.pooled, [1])
    clipped = ops.reduce("Mean", ops.cast(ops("Greater", brightest, CLIPPED), np.float32), [0, 1, 2])
    noises = [log_light(ops, one.noise) for one in (before, after)]
    green, tint = ops.item(gains, 1) * 0.25 - 1.0, ops.item(gains, 0) - ops.item(gains, 2)
    rest = [ops.reshape(one, 1) for one in (mean, deviation, clipped, *noises, green, tint)]
    numbers = ops.reshape(ops.concat([histogram, *rest], 0), 1, -1)
    return ops.concat([2.0 * after.pooled - 1.0, logarithm], 1), numbers


def log_gains(ops: Ops, stages: dict[str, Value]) -> Value:
    """Stops by which the stages of a preprocessing raise red, green and blue."""
    total = ops.constant(np.zeros(3, np.float32))
    for name, params in stages.items():
        if name in ("white_balance", "gain"):
            total = total + log2(ops, params)
        if name == "exposure":
            total = total + params
    return total


def weights_of(network: SequenceNetwork) -> dict[str, Array]:
    """The weights by name, with the outputs of the neutral parameters added to the line's."""
    found = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    found["parameter_line.bias"] = found["parameter_line.bias"] + network.neutral.cpu().numpy()
    return found


def embed(ops: Ops, network: SequenceNetwork, planes: Value, numbers: Value, dtype: np.dtype) -> Value:
    """The embedding (1, features), float32; the convolutions compute in `dtype`."""
    ours, features = weights_of(network), ops.cast(planes, dtype)
    for place in range(len(CHANNELS)):
        kernel, bias = (np.asarray(ours[f"encoder.{2 * place}.{kind}"], dtype) for kind in ("weight", "bias"))
        made = ops("Conv", features, kernel, bias, strides=[2, 2], pads=[1, 1, 1, 1])
        features = ops("LeakyRelu", made, alpha=SLOPE)
    features = ops.cast(features, np.float32)
    return ops.concat([ops.reduce("Mean", features, [2, 3]), ops.reduce("Max", features, [2, 3]), numbers], 1)


def parameters(ops: Ops, network: SequenceNetwork, embedding: Value) -> list[Value]:
    """Physical parameters of every module, in the order of action ids, each a vector."""
    ours, hidden = weights_of(network), embedding
    for place in (0, 2):
        made = linear(ops, hidden, ours[f"parameter_trunk.{place}.weight"], ours[f"parameter_trunk.{place}.bias"])
        hidden = ops("LeakyRelu", made, alpha=SLOPE)
    scalars = ops.slice(embedding, 1, -N_SCALARS)
    line = linear(ops, scalars, ours["parameter_line.weight"], ours["parameter_line.bias"])
    logits = linear(ops, hidden, ours["parameter_head.weight"]) + line
    found, start = [], 0
    for module, width in zip(network.modules_in_order, network.widths, strict=True):
        found.append(physical(ops, module, ops.slice(logits, 1, start, start + width)))
        start += width
    return found


def sequence(ops: Ops, network: SequenceNetwork, embedding: Value | None, steps: int) -> Value:
    """Action ids of the likeliest modules in order, (steps,) int64, -1 after the last one.

    Args:
        embedding: of the image; None where the sequence is the same for all images.
        steps: most modules.
    """
    ours = weights_of(network)
    stop = len(network.modules_in_order) - 1
    state = ops.constant(ours["sequence_start"][None])
    bias = ops.constant(ours["sequence_head.bias"][None])
    if embedding is not None:
        state = state + linear(ops, embedding, ours["sequence_trunk.weight"], ours["sequence_trunk.bias"])
        bias = bias + linear(ops, ops.slice(embedding, 1, -N_SCALARS), ours["sequence_line.weight"])
    state = ops("Tanh", state)
    tokens = ours["sequence_tokens.weight"] @ ours["sequence_cell.weight_ih"].T + ours["sequence_cell.bias_ih"]
    last = ops.constant(np.asarray([stop + 1], np.int64))
    ids = ops.constant(np.arange(stop + 1, dtype=np.int64)[None])
    ended, taken = ops.constant(np.asarray([False])), []
    for step in range(steps):
        with ops.scope(f"step{step}"):
            token = ops("Gather", tokens.astype(np.float32), last, axis=0, dtype=np.float32)
            state = _cell(ops, token, state, ours)
            logits = linear(ops, state, ours["sequence_head.weight"]) + bias
            last = ops("ArgMax", logits, axis=1, keepdims=0)
            ended = ops("Or", ended, ops("Equal", last, stop))
            taken.append(ops.where(ended, np.asarray([-1]), last))
            bias = ops.where(ops("Equal", ids, last), -math.inf, bias)
    return ops.concat(taken, 0)


def _cell(ops: Ops, token: Value, state: Value, ours: dict[str, Array]) -> Value:
    """One step of a gated recurrent unit: reset, update, new."""
    recurrent = linear(ops, state, ours["sequence_cell.weight_hh"], ours["sequence_cell.bias_hh"])
    size = ours["sequence_cell.weight_hh"].shape[1]
    both = ops("Sigmoid", ops.slice(token, 1, 0, 2 * size) + ops.slice(recurrent, 1, 0, 2 * size))
    reset, update = ops.slice(both, 1, 0, size), ops.slice(both, 1, size, 2 * size)
    new = ops("Tanh", ops.slice(token, 1, 2 * size) + reset * ops.slice(recurrent, 1, 2 * size))
    return new + update * (state - new)

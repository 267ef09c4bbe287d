"""The modules that change each pixel by itself, as nodes of a graph.

Each function takes the graph, the image (1, 3, height, width) and the module's parameters, a vector of float32, and
returns the image before the clip to [0, 1]. It computes what the module's own function in `isp.modules` computes.
"""

import math
from collections.abc import Sequence

import numpy as np

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.isp.modules import contrast as contrast_module
from adaptiveisp.isp.modules import pos_isp
from adaptiveisp.isp.modules import saturation as saturation_module
from adaptiveisp.isp.modules.tone import SEGMENTS
from adaptiveisp.utils.color import LUMA


def number(ops: Ops, image: Value, params: Value, index: int) -> Value:
    """A parameter as a scalar of the image's type."""
    return ops.cast(ops.item(params, index), image.dtype)


def channels(ops: Ops, image: Value) -> list[Value]:
    """The three channels, each (1, 1, height, width)."""
    return [ops.slice(image, 1, i, i + 1) for i in range(3)]


def weighted(ops: Ops, image: Value, weights: Sequence[float]) -> Value:
    """The weighted sum of the channels, (1, 1, height, width)."""
    kernel = np.asarray(weights, image.dtype).reshape(1, 3, 1, 1)
    return ops.reduce("Sum", image * kernel, [1], keep=True)


def luminance(ops: Ops, image: Value) -> Value:
    """The luminance with the weights of all modules but denoise."""
    return weighted(ops, image, LUMA)


def blend(image: Value, other: Value, amount: Value) -> Value:
    """image + amount·(other - image)."""
    return image + amount * (other - image)


def exp2(ops: Ops, value: Value) -> Value:
    """2 to the power of a value."""
    return ops("Exp", value * math.log(2))


def power(ops: Ops, value: Value, exponent: Value | float) -> Value:
    """A value above 0 to a power, by exponential and logarithm, which runtimes compute many times faster than `Pow`."""
    return ops("Exp", ops("Log", value) * exponent)


def scale(ops: Ops, image: Value, factors: Value) -> Value:
    """The channels times three factors."""
    return image * ops.cast(ops.reshape(factors, 1, 3, 1, 1), image.dtype)


def mix(ops: Ops, image: Value, matrix: Value) -> Value:
    """The channels times a 3x3 matrix."""
    rows = ops.reshape(ops.cast(matrix, image.dtype), 3, 3, 1, 1)
    return ops("Conv", image, rows)


def exposure(ops: Ops, image: Value, params: Value) -> Value:
    """x · 2^EV."""
    return image * ops.cast(exp2(ops, ops.item(params, 0)), image.dtype)


def gamma(ops: Ops, image: Value, params: Value, floor: float) -> Value:
    """max(x, floor)^γ; below float16's least normal number, the power is taken in float32."""
    single = ops.cast(image, np.float32)
    return ops.cast(power(ops, ops.clip(single, floor), ops.item(params, 0)), image.dtype)


def ccm(ops: Ops, image: Value, params: Value, epsilon: float = 0.0) -> Value:
    """The 3x3 matrix, its rows over their sums plus epsilon."""
    rows = ops.reshape(params, 3, 3)
    sums = ops.reduce("Sum", rows, [1], keep=True)
    return mix(ops, image, rows / (sums + epsilon if epsilon else sums))


def clipped_ccm(ops: Ops, image: Value, params: Value) -> Value:
    """`ccm` of POS-ISP, clipped."""
    return ops.clip(ccm(ops, image, params, pos_isp.SUM_EPSILON), 0, 1)


def tone(ops: Ops, image: Value, params: Value) -> Value:
    """Eight slopes over equal pieces of [0, 1]: where the piece of a value begins, and its slope from there."""
    slopes = params * (SEGMENTS / ops.reduce("Sum", params, [0]))
    ends = ops("CumSum", slopes, np.asarray(0, np.int64)) / float(SEGMENTS)
    begins = ops.concat([ops.constant(np.zeros(1, np.float32)), ops.slice(ends, 0, 0, SEGMENTS - 1)], 0)
    single = ops.cast(image, np.float32)
    piece = ops("Floor", ops.clip(single * float(SEGMENTS), 0, SEGMENTS - 1))
    place = ops.cast(piece, np.int64)
    along = single - piece / float(SEGMENTS)
    made = ops("Gather", begins, place, axis=0) + ops("Gather", slopes, place, axis=0) * along
    return ops.cast(made, image.dtype)


def clipped_tone(ops: Ops, image: Value, params: Value) -> Value:
    """`tone` of the clipped image, as in POS-ISP."""
    return tone(ops, ops.clip(image, 0, 1), params)


def contrast(ops: Ops, image: Value, params: Value) -> Value:
    """lerp(x, x·c/(L+1e-6), a) with c = 0.5 - 0.5·cos πL; the quotient is taken in float32."""
    light = ops.clip(ops.cast(luminance(ops, image), np.float32), 0, 1)
    curve = 0.5 - 0.5 * ops("Cos", light * math.pi)
    ratio = ops.cast(curve / (light + contrast_module.EPSILON), image.dtype)
    return blend(image, image * ratio, number(ops, image, params, 0))


def desaturation(ops: Ops, image: Value, params: Value) -> Value:
    """lerp(x, L, a)."""
    return blend(image, luminance(ops, image), number(ops, image, params, 0))


def _raised(ops: Ops, value: Value, saturation: Value) -> Value:
    """s + (1-s)(0.5-|0.5-v|)·0.8."""
    return saturation + (1.0 - saturation) * (0.5 - ops("Abs", 0.5 - value)) * saturation_module.STRENGTH


def saturation(ops: Ops, image: Value, params: Value) -> Value:
    """lerp(x, x', a): x' has a raised HSV saturation; computed in float32, since it divides by small numbers."""
    picture, amount, black = ops.cast(image, np.float32), ops.item(params, 0), saturation_module.BLACK
    value, least = (ops.reduce(kind, picture, [1], keep=True) for kind in ("Max", "Min"))
    chroma = value - least
    lit, coloured = ops("Greater", value, black), ops("Greater", chroma, black)
    found = ops.where(lit, chroma / ops.where(lit, value, 1.0), 0.0)
    ratio = ops.where(coloured, value * _raised(ops, value, found) / ops.where(coloured, chroma, 1.0), 1.0)
    return ops.cast(picture + amount * ((value - picture) * (1.0 - ratio)), image.dtype)


def saturation_released(ops: Ops, image: Value, params: Value) -> Value:
    """`saturation` of the set `released`, whose exactly grey pixels turn red."""
    picture, amount, black = ops.cast(image, np.float32), ops.item(params, 0), saturation_module.BLACK
    value, least = (ops.reduce(kind, picture, [1], keep=True) for kind in ("Max", "Min"))
    grey = _raised(ops, value, ops.constant(np.float32(0)))
    other = value * (1.0 - grey)
    reddened = ops.cast(blend(picture, ops.concat([value, other, other], 1), amount), image.dtype)
    return ops.where(ops("Greater", value - least, black), saturation(ops, image, params), reddened)


def black_level(ops: Ops, image: Value, params: Value) -> Value:
    """(x - offset) / (1 - offset)."""
    offset = number(ops, image, params, 0)
    return (image - offset) * (1.0 / (1.0 - offset))


def srgb(ops: Ops, image: Value, params: Value) -> Value:
    """sRGB code values."""
    single = ops.cast(image, np.float32)
    curve = 1.055 * power(ops, ops.clip(single, 0.0031308), 1 / 2.4) - 0.055
    made = ops.where(ops("LessOrEqual", single, 0.0031308), 12.92 * single, curve)
    return ops.cast(made, image.dtype)


def reinhard(ops: Ops, image: Value, params: Value) -> Value:
    """y = x (1 + x/w²) / (1 + x) with x = w · image."""
    white = ops.item(params, 0)
    scaled = ops.cast(image, np.float32) * white
    return ops.cast(scaled * (1.0 + scaled / (white * white)) / (1.0 + scaled), image.dtype)


def log_tone(ops: Ops, image: Value, params: Value) -> Value:
    """log(1 + a x) / log(1 + a).

    ONNX has no log1p. With u = 1 + z rounded, log1p(z) = log(u)·z/(u - 1), which is exact where log(1 + z) loses
    digits. Source: Goldberg 1991, theorem 4.
    """
    strength = ops.item(params, 0)
    made = _log1p(ops, ops.cast(image, np.float32) * strength) / _log1p(ops, strength)
    return ops.cast(made, image.dtype)


def _log1p(ops: Ops, value: Value) -> Value:
    above = value + 1.0
    exact = ops("Equal", above, 1.0)
    return ops.where(exact, value, ops("Log", above) * value / ops.where(exact, 1.0, above - 1.0))


def balanced(ops: Ops, image: Value, params: Value) -> Value:
    """White balance of POS-ISP: gains over the luminance that they give to white, plus 1e-6."""
    weights = ops.constant(np.asarray(LUMA, np.float32))
    light = ops.reduce("Sum", params * weights, [0], keep=True) + pos_isp.GAINS_EPSILON
    return scale(ops, image, params / light)


def hue_saturation(ops: Ops, image: Value, params: Value) -> Value:
    """Saturation of POS-ISP, by hue in sixths; see `isp.modules.pos_isp`."""
    picture = ops.clip(ops.cast(image, np.float32), 0, 1)
    red, green, blue = channels(ops, picture)
    value, least = (ops.reduce(kind, picture, [1], keep=True) for kind in ("Max", "Min"))
    chroma = value - least
    divisor = chroma + pos_isp.CHROMA_EPSILON
    from_red = _remainder(ops, (green - blue) / divisor)
    from_green, from_blue = (blue - red) / divisor + 2.0, (red - green) / divisor + 4.0
    hue = ops.where(ops("Equal", value, red), from_red, ops.where(ops("Equal", value, green), from_green, from_blue))
    raised = _raised(ops, value, chroma / (value + pos_isp.CHROMA_EPSILON))
    made = []
    for sixth in (5.0, 3.0, 1.0):
        k = _remainder(ops, hue + sixth)
        made.append(value - value * raised * ops.clip(ops("Min", k, 4.0 - k), 0, 1))
    return ops.cast(blend(picture, ops.concat(made, 1), ops.item(params, 0)), image.dtype)


def _remainder(ops: Ops, value: Value) -> Value:
    """The value modulo 6, in [0, 6)."""
    return value - 6.0 * ops("Floor", value / 6.0)

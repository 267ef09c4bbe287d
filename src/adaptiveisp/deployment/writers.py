"""Which nodes compute a module: those of its own hook, of this package, or those that PyTorch's exporter makes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from adaptiveisp.deployment import filters, pointwise
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.tracing import traced_module
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.modules import (
    black_level,
    ccm,
    contrast,
    denoise,
    desaturation,
    exposure,
    fast_denoise,
    gain,
    gamma,
    gray_world,
    guided_denoise,
    local_tone,
    log_tone,
    pos_isp,
    pos_isp_denoise,
    reinhard,
    saturation,
    sharpen,
    srgb,
    tone,
    white_balance,
)

Writer = Callable[..., Value]
"""(graph, image, parameters) → image before the clip to [0, 1]."""

WRITERS: dict[Callable[..., Any], Writer] = {
    black_level.black_level: pointwise.black_level,
    ccm.ccm: pointwise.ccm,
    contrast.contrast: pointwise.contrast,
    denoise.denoise: filters.denoise,
    desaturation.desaturation: pointwise.desaturation,
    exposure.exposure: pointwise.exposure,
    fast_denoise.fast_denoise: filters.fast_denoise,
    gain.gain: pointwise.scale,
    gamma.gamma: pointwise.gamma,
    gray_world.gray_world: filters.gray_world,
    guided_denoise.guided_denoise: filters.guided_denoise,
    local_tone.local_tone: filters.local_tone,
    log_tone.log_tone: pointwise.log_tone,
    pos_isp.balanced: pointwise.balanced,
    pos_isp.clipped_ccm: pointwise.clipped_ccm,
    pos_isp.clipped_tone: pointwise.clipped_tone,
    pos_isp.hue_saturation: pointwise.hue_saturation,
    pos_isp_denoise.denoise: filters.denoise_with_epsilon,
    reinhard.reinhard: pointwise.reinhard,
    saturation.saturation: pointwise.saturation,
    saturation.saturation_released: pointwise.saturation_released,
    sharpen.sharpen: filters.sharpen,
    srgb.srgb: pointwise.srgb,
    tone.tone: pointwise.tone,
    white_balance.white_balance: pointwise.scale,
}
"""The function of a module → the nodes that compute it; keywords of a `partial` are handed on."""


def writer_of(module: IspModule) -> Writer:
    """The function that adds the nodes of a module to a graph."""
    if module.onnx is not None:
        return module.onnx
    function: Any = module.function
    keywords: dict[str, Any] = {}
    if isinstance(function, partial):
        function, keywords = function.func, function.keywords
    if function in WRITERS:
        return partial(WRITERS[function], **keywords)
    return partial(traced_module, module)


def apply_module(ops: Ops, module: IspModule, image: Value, params: Value) -> Value:
    """The image after a module, clipped to [0, 1] where the module clips.

    Args:
        ops: the graph.
        module: the module.
        image: (1, 3, height, width).
        params: its parameters, a vector of float32.
    """
    with ops.scope(module.name):
        made = writer_of(module)(ops, image, params)
        return ops.clip(made, 0, 1) if module.clips else made

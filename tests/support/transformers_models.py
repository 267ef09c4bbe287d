"""Tiny random networks of Hugging Face's transformers, shared by the detector tests; none is ever fetched."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

CLASS_NAMES = ("person", "cup", "chair")

ATTENTION = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
RT_DETR = {
    **ATTENTION,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [8, 16, 16],
    "decoder_in_channels": [16, 16, 16],
    "num_queries": 12,
}


def _resnet(kind: str) -> Any:
    import transformers

    stages = ["stage4"] if kind == "ResNetConfig" else ["stage2", "stage3", "stage4"]
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    return getattr(transformers, kind)(**sizes, layer_type="basic", out_features=stages)


def _hgnet() -> Any:
    import transformers

    ones = [1, 1, 1, 1]
    return transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=ones,
        stage_in_channels=[8, 8, 8, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[8, 8, 16, 16],
        stage_num_blocks=ones,
        stage_numb_of_layers=ones,
        out_features=["stage2", "stage3", "stage4"],
    )


def _yolos() -> dict[str, Any]:
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return {**size, "image_size": [32, 48], "patch_size": 16, "num_detection_tokens": 10}


def _detr() -> dict[str, Any]:
    return {
        **ATTENTION,
        "backbone_config": _resnet("ResNetConfig"),
        "use_timm_backbone": False,
        "num_queries": 10,
        "auxiliary_loss": True,
    }


# Processor: the class of the library that prepares images for this kind, without torchvision.
KINDS: dict[str, tuple[str, str, Callable[[], dict[str, Any]]]] = {
    "yolos": ("YolosConfig", "YolosImageProcessorPil", _yolos),
    "detr": ("DetrConfig", "DetrImageProcessorPil", _detr),
    "conditional_detr": ("ConditionalDetrConfig", "ConditionalDetrImageProcessorPil", _detr),
    "rt_detr": (
        "RTDetrConfig",
        "RTDetrImageProcessorPil",
        lambda: {**RT_DETR, "backbone_config": _resnet("RTDetrResNetConfig")},
    ),
    "rt_detr_v2": (
        "RTDetrV2Config",
        "RTDetrImageProcessorPil",
        lambda: {**RT_DETR, "backbone_config": _resnet("RTDetrResNetConfig")},
    ),
    "d_fine": (
        "DFineConfig",
        "RTDetrImageProcessorPil",
        lambda: {**RT_DETR, "backbone_config": _hgnet()},
    ),
}
"""`model_type` → classes of its config and image processor, and small sizes."""


def config_of(kind: str, **changes: Any) -> Any:
    import transformers

    config, _, sizes = KINDS[kind]
    labels = dict(enumerate(CLASS_NAMES))
    return getattr(transformers, config)(**{**sizes(), "id2label": labels, **changes})


def processor_of(kind: str, **changes: Any) -> Any:
    import transformers

    return getattr(transformers, KINDS[kind][1])(do_resize=False, do_pad=False, **changes)


@cache
def network_of(kind: str) -> Any:
    """A network of that kind; its weights are larger than fresh ones, so that what it finds depends on the image."""
    return random_network(config_of(kind))


def random_network(config: Any) -> Any:
    import transformers

    generator = torch.Generator().manual_seed(1)
    model = transformers.AutoModelForObjectDetection.from_config(config).eval()
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 25
        parameter.data = noise * 1.4 * fan_in**-0.5 + (0 if parameter.ndim > 1 else 0.3)
    for key, buffer in model.named_buffers():
        if key.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        elif key.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
    return model


def write_model(folder: Path, kind: str, model: Any = None, **processor: Any) -> Path:
    """Saves model and image processor as users do, with the library's own `save_pretrained`."""
    (network_of(kind) if model is None else model).save_pretrained(folder)
    processor_of(kind, **processor).save_pretrained(folder)
    return folder

"""PyTorch as a backend in bfloat16; in float32 a detector runs without an engine."""

import copy
from typing import Any

import torch
from torch import nn

from adaptiveisp.detectors.backends.engine import Compiled, Engine, InferenceNetwork
from adaptiveisp.types import Image


class TorchEngine(Engine):
    """Runs a copy of the network under autocast, with the weights of its convolutions and matrix products cast once.

    Autocast alone casts frozen weights in every call: YOLOv3-tiny at 416 pixels takes 25 ms with it and 19 ms here,
    with the same outputs.
    """

    backend = "torch"

    def key(self, image: Image, threads: int) -> Any:
        """The device: PyTorch takes any shape and number of threads."""
        return image.device

    def compile(self, network: nn.Module, example: Image, threads: int) -> Compiled:
        """The copy of the network; see `Engine.compile`."""
        half = copy.deepcopy(network)
        if isinstance(half, InferenceNetwork):
            half.engine = None
        for module in half.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
                module.to(torch.bfloat16)

        def run(image: Image) -> Any:
            with torch.no_grad(), torch.autocast(image.device.type, torch.bfloat16):
                return half(image)

        return run

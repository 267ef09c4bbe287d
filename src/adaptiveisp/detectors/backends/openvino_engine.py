"""OpenVINO as a backend: the traced network is converted by its PyTorch frontend, without a file.

The frontend is used directly, since `openvino.convert_model` reports its use to the makers of OpenVINO.
"""

import os
import warnings
from collections import deque
from functools import cache
from typing import Any

import torch
from torch import nn

from adaptiveisp.detectors.backends.engine import Compiled, Engine, Outputs
from adaptiveisp.errors import UsageError
from adaptiveisp.types import Image
from adaptiveisp.utils.optional_imports import import_extra

EXTRA = "openvino"
HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""Precision → value of OpenVINO's INFERENCE_PRECISION_HINT. By default OpenVINO takes bfloat16 where the processor has
it, so the precision is always given."""


class OpenvinoEngine(Engine):
    """Runs the network by OpenVINO on the processor."""

    backend = "openvino"

    def compile(self, network: nn.Module, example: Image, threads: int) -> Compiled:
        """The compiled model; see `Engine.compile`.

        Raises:
            UsageError: the precision is bfloat16, and the processor has no instructions for it.
            AdaptiveISPError: OpenVINO is not installed.
        """
        core = _shared_core()
        if self.precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UsageError("--precision bfloat16: OpenVINO finds no bfloat16 in this processor; use float32")
        model, decoder = _converted(network, example)
        # Each call uses one stream of `threads` threads; calls from several Python threads use further streams. Pinned
        # threads of two processes would share one core and leave others idle.
        streams = max(1, _cores() // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": threads * streams,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        idle: deque[Any] = deque()

        def run(image: Image) -> list[torch.Tensor]:
            try:
                request = idle.pop()
            except IndexError:  # as many requests as there are calls at the same time
                request = compiled.create_infer_request()
            try:
                found = request.infer([image.detach().contiguous().numpy()], share_inputs=True)
                return [torch.from_numpy(found[place]) for place in range(len(compiled.outputs))]
            finally:
                idle.append(request)

        run.weights = decoder  # type: ignore[attr-defined]  # kept, since the model may use them where they lie
        return run


@cache
def _shared_core() -> Any:
    """OpenVINO's core, one for the process, which is never given up.

    On processors with AMX its CPU plugin gives the thread that loads it another stack for signals. Were the last core
    given up by another thread, that stack would be freed while it is in use, and the next signal (an interrupt, the end
    of a child process) would end the process by a segmentation fault; measured with OpenVINO 2026.4.1.

    Raises:
        AdaptiveISPError: OpenVINO is not installed.
    """
    return import_extra("openvino", EXTRA).Core()


def _converted(network: nn.Module, example: Image) -> tuple[Any, Any]:
    """The network as a model of OpenVINO for images of the example's shape, and the decoder that holds its weights."""
    frontend = import_extra("openvino.frontend", EXTRA).FrontEndManager().load_by_framework("pytorch")
    trace: Any = torch.jit.trace
    kind = import_extra("openvino.frontend.pytorch.ts_decoder", EXTRA).TorchScriptPythonDecoder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that a trace keeps fixed, which is meant: so is the shape
        traced = trace(Outputs(network), (example,), check_trace=False)
        decoder = kind(traced, example_input=(example,))
        model = frontend.convert(frontend.load(decoder))
    model.reshape(list(example.shape))
    return model, decoder


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

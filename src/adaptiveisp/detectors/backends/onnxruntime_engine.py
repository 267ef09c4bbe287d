"""onnxruntime as a backend: the network is exported to ONNX in memory by PyTorch's TorchScript exporter."""

import io
import warnings
from typing import Any

import torch
from torch import nn

from adaptiveisp.detectors.backends.engine import Compiled, Engine, Outputs
from adaptiveisp.types import Image
from adaptiveisp.utils.optional_imports import import_extra

EXTRA = "onnx"
OPSET = 17


class OnnxruntimeEngine(Engine):
    """Runs the network by onnxruntime on the processor, in float32."""

    backend = "onnxruntime"

    def compile(self, network: nn.Module, example: Image, threads: int) -> Compiled:
        """The session of onnxruntime; see `Engine.compile`.

        Raises:
            AdaptiveISPError: onnx or onnxruntime is not installed.
        """
        import_extra("onnx", EXTRA)
        runtime = import_extra("onnxruntime", EXTRA)
        file = io.BytesIO()
        export: Any = torch.onnx.export  # its annotations leave out file objects
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that a trace keeps fixed, which is meant: so is the shape
            # The newer exporter (dynamo=True) needs a further package, onnxscript, and takes 10 times as long.
            export(Outputs(network), (example,), file, dynamo=False, input_names=["image"], opset_version=OPSET)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # its log stays off the terminal; failures raise exceptions
        session = runtime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

        def run(image: Image) -> list[torch.Tensor]:
            found = session.run(None, {"image": image.detach().contiguous().numpy()})
            return [torch.from_numpy(value) for value in found]

        return run

"""The choice of a backend and a precision for a detector, and the backends that are installed."""

import copy
import importlib.util
from importlib import metadata
from typing import Any

import torch

from adaptiveisp.detectors.backends.engine import Engine, InferenceNetwork, Precision
from adaptiveisp.detectors.backends.onnxruntime_engine import OnnxruntimeEngine
from adaptiveisp.detectors.backends.openvino_engine import OpenvinoEngine
from adaptiveisp.detectors.backends.torch_engine import TorchEngine
from adaptiveisp.detectors.letterbox import frame_size
from adaptiveisp.errors import UsageError
from adaptiveisp.types import Detector
from adaptiveisp.utils.defaults import BACKENDS, PRECISIONS
from adaptiveisp.utils.optional_imports import require_extra

ENGINES: dict[str, type[Engine]] = {
    engine.backend: engine for engine in (TorchEngine, OnnxruntimeEngine, OpenvinoEngine)
}
LIBRARIES = {
    "torch": ("", ("torch",)),
    "onnxruntime": ("onnx", ("onnx", "onnxruntime")),
    "openvino": ("openvino", ("openvino",)),
}
"""Backend → the extra that installs it, and the modules that it needs."""


def with_backend(
    detector: Detector, backend: str = "auto", precision: str = "auto", size: int | None = None
) -> Detector:
    """The detector with its network run by a backend in `detect`; its loss and gradients stay in PyTorch and float32.

    Args:
        detector: a detector; it is not changed.
        backend: "torch", "onnxruntime" or "openvino"; "auto" keeps the detector's own, which is onnxruntime for an
            ONNX file and PyTorch for the others.
        precision: "float32" or "bfloat16"; "auto" is float32, since bfloat16 changes boxes.
        size: longer side in pixels for which the network is compiled now; None compiles it when it is first used.

    Raises:
        UsageError: there is no such backend or precision, or it does not fit the detector or the processor.
        DetectorError: the backend cannot run the network, or gives other outputs than PyTorch.
        AdaptiveISPError: the backend is not installed.
    """
    _require_known("backend", backend, BACKENDS)
    _require_known("precision", precision, PRECISIONS)
    own = backends_of(detector)
    wanted = own["backend"] if backend == "auto" else backend
    wished: Precision = "bfloat16" if precision == "bfloat16" else "float32"
    if (backend == "auto" or wanted == own["backend"]) and (precision == "auto" or wished == own["precision"]):
        return detector
    if not isinstance(detector, InferenceNetwork):
        runs = "by code of its own" if own["backend"] == "own" else f"by {own['backend']} in {own['precision']}"
        raise UsageError(
            f"detector {detector.name}: runs {runs} and has no other backend; leave out --backend and --precision"
        )
    _require_usable(detector, wanted, wished)
    made = copy.copy(detector)
    made.engine = None if (wanted, wished) == ("torch", "float32") else ENGINES[wanted](wished)
    if size is not None and made.engine is not None:
        side = frame_size(size, detector.stride)
        with torch.no_grad():
            made.infer(torch.zeros(1, 3, side, side, device=next(detector.parameters()).device))
    result: Any = made
    return result  # type: ignore[no-any-return]


def backends_of(detector: Any) -> dict[str, str]:
    """The backend and the precision of a detector, for provenance; "own" if a user's own detector names none."""
    return {name: str(getattr(detector, name, "own")) for name in ("backend", "precision")}


def installed_backends() -> dict[str, str]:
    """Backend → its version, or the command that installs it."""
    found = {}
    for name, (extra, modules) in LIBRARIES.items():
        missing = any(importlib.util.find_spec(module) is None for module in modules)
        found[name] = f"not installed: pip install 'adaptiveisp[{extra}]'" if missing else metadata.version(name)
    return found


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{what} {value!r} does not exist; choose one of {', '.join(known)}")


def _require_usable(detector: InferenceNetwork, backend: str, precision: Precision) -> None:
    """Refuses a backend that is not installed, or does not fit the device or the precision.

    Raises:
        UsageError: it does not fit.
        AdaptiveISPError: it is not installed.
    """
    extra, modules = LIBRARIES[backend]
    require_extra(extra, *modules)
    device = next(detector.parameters()).device.type
    if backend != "torch" and device != "cpu":
        raise UsageError(f"--backend {backend} runs on the CPU here; use --device cpu, or --backend torch")
    if precision != "bfloat16":
        return
    if backend == "onnxruntime":
        raise UsageError("--backend onnxruntime has no bfloat16 on a CPU; use --backend openvino or torch")
    if backend == "torch" and device == "cpu" and not _has_bfloat16():
        raise UsageError("--precision bfloat16: this processor has no bfloat16 for PyTorch; use float32")


def _has_bfloat16() -> bool:
    """Whether PyTorch's convolutions have bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

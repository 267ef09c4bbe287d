"""The libraries that run a graph: onnxruntime with execution providers by name, and OpenVINO."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.errors import RuntimeFault, first_line
from adaptiveisp_runtime.manifest import Graph
from adaptiveisp_runtime.prepared import prepared_file

Values = Mapping[str, NDArray[Any]]
ENGINES = ("onnxruntime", "openvino")
OPTIONAL_INSTALL = {"onnxruntime": "pip install onnxruntime", "openvino": "pip install adaptiveisp-runtime[openvino]"}


class Engine(Protocol):
    """A loaded graph.

    Attributes:
        providers: names of what runs it, in the order of preference.
        is_prepared: whether the file was prepared for this machine.
    """

    providers: tuple[str, ...]
    is_prepared: bool

    def __call__(self, values: Values) -> dict[str, NDArray[Any]]:
        """The outputs by name."""
        ...


def module(name: str) -> Any:
    """The library of an engine.

    Raises:
        RuntimeFault: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeFault(f"{name}: cannot be imported ({first_line(error)}); {OPTIONAL_INSTALL[name]}") from error


def available_providers() -> list[str]:
    """Execution providers of the installed onnxruntime, the fastest first."""
    found: list[str] = module("onnxruntime").get_available_providers()
    return found


def full_name(provider: str, known: Sequence[str]) -> str:
    """The provider's full name, for a name such as "cuda" or "CUDAExecutionProvider".

    Raises:
        RuntimeFault: onnxruntime as it is installed has no such provider.

    >>> full_name("cpu", ["CPUExecutionProvider"])
    'CPUExecutionProvider'
    """
    wanted = provider.lower().removesuffix("executionprovider")
    for name in known:
        if name.lower().removesuffix("executionprovider") == wanted:
            return name
    listed = ", ".join(known)
    raise RuntimeFault(f"provider {provider}: this onnxruntime has only {listed}; install the build that has it")


def load_engine(graph: Graph, engine: str, providers: Sequence[str] | None, threads: int) -> Engine:
    """Loads a graph.

    Args:
        graph: to load.
        engine: one of `ENGINES`.
        providers: of onnxruntime by name, in the order of preference; None takes all that there are. Of OpenVINO, its
            devices.
        threads: most threads of an operator; 0 for the library's default.

    Raises:
        RuntimeFault: engine or provider do not exist, or the graph cannot be loaded.
    """
    if engine not in ENGINES:
        raise RuntimeFault(f"engine {engine!r} does not exist; choose one of {', '.join(ENGINES)}")
    library = module(engine)
    try:
        if engine == "openvino":
            graph.check()
            return _OpenVino(library, graph.path, [str(one["name"]) for one in graph.outputs], providers, threads)
        # Its own file by its path: as bytes the weights would lie in memory once more.
        path = prepared_file(graph, library) if _is_cpu_alone(library, providers) else None
        if path is None:
            graph.check()
        return _OnnxRuntime(library, path or graph.path, providers, threads, path is not None)
    except RuntimeFault:
        raise
    except Exception as error:  # the libraries' exceptions have no common base
        raise RuntimeFault(f"{graph.path}: {engine} cannot load it ({first_line(error)}); see check_graphs") from error


def _wanted(library: Any, providers: Sequence[str] | None) -> list[str]:
    """The full names of the providers to use, in order."""
    known = library.get_available_providers()
    usable = [name for name in known if name != "AzureExecutionProvider"]  # it sends data to a server
    wanted = [full_name(name, known) for name in providers] if providers else usable
    if "CPUExecutionProvider" in known and "CPUExecutionProvider" not in wanted:
        wanted.append("CPUExecutionProvider")  # runs what the others lack
    return wanted


def _is_cpu_alone(library: Any, providers: Sequence[str] | None) -> bool:
    """Whether the processor runs the whole graph, for which alone graphs are prepared."""
    return _wanted(library, providers) == ["CPUExecutionProvider"]


class _OnnxRuntime:
    """A graph in onnxruntime."""

    def __init__(self, library: Any, path: Path, providers: Sequence[str] | None, threads: int, is_prepared: bool):
        options = library.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        if providers is None:  # one that is installed but cannot start is passed over
            options.log_severity_level = 4
        if is_prepared:
            options.add_session_config_entry("session.load_model_format", "ORT")
        self.is_prepared = is_prepared
        self.session = library.InferenceSession(str(path), options, providers=_wanted(library, providers))
        self.providers: tuple[str, ...] = tuple(self.session.get_providers())
        self.names = [output.name for output in self.session.get_outputs()]

    def __call__(self, values: Values) -> dict[str, NDArray[Any]]:
        return dict(zip(self.names, self.session.run(self.names, dict(values)), strict=True))


class _OpenVino:
    """A graph in OpenVINO, computed in float32."""

    is_prepared = False

    def __init__(self, library: Any, path: Path, names: Sequence[str], devices: Sequence[str] | None, threads: int):
        core = library.Core()
        known = core.available_devices
        device = devices[0].upper() if devices else "CPU"
        if device not in known:
            raise RuntimeFault(f"device {device}: OpenVINO sees only {', '.join(known)}")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads and device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = threads
        self.model = core.compile_model(core.read_model(str(path)), device, settings)
        self.providers: tuple[str, ...] = (device,)
        self.names = names

    def __call__(self, values: Values) -> dict[str, NDArray[Any]]:
        found = self.model({name: np.asarray(value, order="C") for name, value in values.items()})
        return {name: np.array(found[self.model.output(name)]) for name in self.names}

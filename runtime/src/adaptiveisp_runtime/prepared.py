"""A graph as onnxruntime has optimised it for this machine, which loads faster and in less memory.

While onnxruntime loads a graph it holds the weights several times over: as they lie in the file, and in the order in
which this processor wants them. A prepared graph is a file in onnxruntime's own format with the latter alone. It
belongs to a version of onnxruntime and to the instructions of a processor; elsewhere the graph of the export is used.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptiveisp_runtime.errors import RuntimeFault, first_line
from adaptiveisp_runtime.manifest import Graph, file_hash

FOLDER = "prepared"
"""Folder in that of the export."""


def machine() -> str:
    """What the optimised order of the weights depends on: kind of the processor and its instructions, as a hash."""
    words = [platform.system(), platform.machine()]
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                words += sorted(line.split(":", 1)[1].split())
                break
    except (OSError, IndexError):
        words.append(platform.processor())
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def prepared_file(graph: Graph, library: Any) -> Path | None:
    """The prepared file of a graph if there is one for this machine and version, else None.

    Raises:
        RuntimeFault: there is one, and it was changed.
    """
    entry = _facts(graph)
    wanted = {"graph_sha256": graph.sha256, "onnxruntime": library.__version__, "machine": machine()}
    if any(entry.get(key) != value for key, value in wanted.items()):
        return None
    path = _places(graph)[0]
    if not path.is_file():
        return None
    if file_hash(path) != entry.get("sha256"):
        raise RuntimeFault(f"{path}: was changed since it was prepared, by its hash; remove it, or prepare it again")
    return path


def prepare(graph: Graph, library: Any) -> Path:
    """Writes the prepared file of a graph, for the processor, beside the export.

    Raises:
        RuntimeFault: the graph cannot be loaded, or the file cannot be written.
    """
    graph.check()
    path, facts = _places(graph)
    try:
        path.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            options = library.SessionOptions()
            options.log_severity_level = 4  # it warns that the file is for this machine alone
            options.optimized_model_filepath = str(made)
            options.add_session_config_entry("session.save_model_format", "ORT")
            library.InferenceSession(str(graph.path), options, providers=["CPUExecutionProvider"])
            digest = file_hash(made)
            facts.unlink(missing_ok=True)
            os.replace(made, path)
        content = {
            "graph_sha256": graph.sha256,
            "onnxruntime": library.__version__,
            "machine": machine(),
            "sha256": digest,
        }
        temporary = facts.with_name(f"{facts.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, facts)
    except OSError as error:
        raise RuntimeFault(f"{path}: cannot be written ({error.strerror}); make the folder writable") from error
    except Exception as error:  # the library's exceptions have no common base
        raise RuntimeFault(f"{graph.path}: onnxruntime cannot prepare it ({first_line(error)})") from error
    return path


def _places(graph: Graph) -> tuple[Path, Path]:
    """The prepared file, and the one with its facts."""
    folder = graph.path.parent / FOLDER
    return folder / f"{graph.name}.ort", folder / f"{graph.name}.json"


def _facts(graph: Graph) -> Mapping[str, Any]:
    try:
        content = json.loads(_places(graph)[1].read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}

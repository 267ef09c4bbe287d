"""The provenance of results, which every JSON file of results holds."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from adaptiveisp.errors import without_secrets

LIBRARIES = (
    "torch",
    "numpy",
    "rawpy",
    "imagecodecs",
    "tifffile",
    "pillow",
    "faster-coco-eval",
    "onnx",
    "onnxruntime",
    "openvino",
    "transformers",
)


_facts: dict[str, Callable[[], Any]] = {}
"""Key → function that returns the value, for the entries that other packages add to every provenance."""


def add_fact(name: str, fact: Callable[[], Any]) -> None:
    """Adds an entry to every provenance from now on.

    Args:
        name: key of the entry.
        fact: returns its value, which JSON can hold.
    """
    _facts[name] = fact


def provenance(
    seed: int,
    weights: Mapping[str, str] | None = None,
    cost_table: str = "paper",
    backends: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """Version, commit, library versions, processor, kernels, threads, seed, weights' hashes, cost table and command.

    Args:
        seed: the seed of this run.
        weights: detector name → SHA-256 of its weights.
        cost_table: name of the table of module costs.
        backends: detector name → backend and precision of its network; None where no detector is run.
    """
    import torch

    return {
        "version": package_version(),
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _installed(name))},
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        **{name: fact() for name, fact in _facts.items()},
        "threads": torch.get_num_threads(),
        "seed": seed,
        "weights_sha256": dict(weights or {}),
        **({} if backends is None else {"detector_backends": {name: dict(one) for name, one in backends.items()}}),
        "cost_table": cost_table,
        "command": without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


def package_version() -> str:
    """The installed version, or "unknown" in a bare source tree."""
    return _installed("adaptiveisp") or "unknown"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree from which the package runs, with "+changes" if it differs from it.

    None where the package is installed.
    """
    source = Path(__file__).resolve().parent
    try:
        tracked = _git(source, "ls-files", "--error-unmatch", __file__)
        if not tracked:
            return None
        commit = _git(source, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(source, "status", "--porcelain", "--", str(source)) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()

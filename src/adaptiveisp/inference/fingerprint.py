"""A hash of what a policy or a detector holds, by which a resumed run tells that they are the same as before."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.clock_table import ClockTable

DEEPEST = 12
"""Levels of objects inside objects; deeper ones count by the name of their type."""


def fingerprint(thing: Any) -> str:
    """SHA-256 of an object's type and of all values in it, hexadecimal; the same in every process.

    Tensors, networks and arrays count by their content, modules and functions by their names. Values that are made on
    first use (`cached_property`) do not count, nor does the table of times that a latency is kept by: each process
    measures it anew.
    """
    digest = hashlib.sha256()
    _add(digest, thing, 0, set())
    return digest.hexdigest()


def detector_fingerprint(detector: Any) -> str:
    """What tells a detector from others of its name: its weights, and what its answers depend on beside them."""
    facts = (getattr(detector, "facts", None), getattr(detector, "pixels", None))  # of a sidecar or a model's folder
    sidecar = getattr(facts[0], "sidecar", None)
    beside = [list(detector.class_names), detector.stride, getattr(detector, "fixed", None), sidecar, facts[1]]
    return f"weights {detector.weights_sha256 or fingerprint(detector)}, classes and input {fingerprint(beside)[:16]}"


def _add(digest: Any, value: Any, depth: int, above: set[int]) -> None:
    """Adds a value to the hash; `above` holds the objects that it lies in, which end a cycle."""
    kind = type(value)
    digest.update(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        digest.update(repr(value).encode("utf-8", "backslashreplace"))
    elif isinstance(value, torch.Tensor):
        _add(digest, value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy(), depth + 1, above)
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, ClockTable):
        return
    elif isinstance(value, IspModule):
        digest.update(value.name.encode())
    elif id(value) in above or depth > DEEPEST:
        return
    else:
        for name, inner in _parts(value):
            digest.update(f"{name}=".encode("utf-8", "backslashreplace"))
            _add(digest, inner, depth + 1, above | {id(value)})


def _parts(value: Any) -> list[tuple[str, Any]]:
    """The named parts of a value in an order that is the same in every process."""
    if isinstance(value, torch.nn.Module):
        return [("training", None), *sorted(value.state_dict().items())]
    if isinstance(value, Mapping):
        return sorted(((repr(key), inner) for key, inner in value.items()), key=lambda part: part[0])
    if isinstance(value, set | frozenset):
        return [(str(number), inner) for number, inner in enumerate(sorted(value, key=repr))]
    if isinstance(value, tuple | list):
        return [(str(number), inner) for number, inner in enumerate(value)]
    if callable(value) and hasattr(value, "__qualname__"):
        return [("name", f"{getattr(value, '__module__', '')}.{value.__qualname__}")]
    made = {name for name, part in vars(type(value)).items() if isinstance(part, cached_property)}
    kept = getattr(value, "__dict__", {})
    return sorted((name, inner) for name, inner in kept.items() if name not in made)

"""The files of a graph model of TensorFlow.js: the graph in a .json file, its weights in a .bin file.

The .json file lists the nodes of a TensorFlow graph (`modelTopology`) and the weights in the order in which they are
stored (`weightsManifest`). A weight may be stored in fewer bytes: as half-precision numbers, or as whole numbers q of
one or two bytes that stand for q·scale + min.
Source: the formats of TensorFlow.js' converter (`io_utils`, `weights_manifest`).
"""

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.detectors.limits import MAX_LAYER_WEIGHTS, MAX_WEIGHTS
from adaptiveisp.errors import WeightsError
from adaptiveisp.utils.files import read_json

Array = NDArray[Any]

REMEDY = "get both files of the network again"
MOST_NODES = 20_000
"""Most nodes of a graph; published networks have fewer than 2,000."""
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int32": np.dtype("<i4"), "bool": np.dtype("u1")}
"""Type of a weight → its type in the file if it is not quantised."""
RESTORED: dict[str, type] = {"float32": np.float32, "int32": np.int64, "bool": np.bool_}
"""Type of a weight → NumPy's type in memory."""
QUANTISED: dict[str, np.dtype[Any]] = {"float16": np.dtype("<f2"), "uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}


class Node(NamedTuple):
    """One node of a graph.

    Attributes:
        name: its name.
        op: its operator, TensorFlow's name.
        inputs: names of its inputs; `name:1` is the second output of the node `name`.
        attributes: name → value, without TensorFlow's wrapping by type.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph(NamedTuple):
    """A graph model.

    Attributes:
        origin: its file, for errors.
        nodes: every node by name; each is listed after its inputs.
        constants: weights and other constants by name, dequantised.
    """

    origin: str
    nodes: Mapping[str, Node]
    constants: Mapping[str, Array]


def read_graph(path: Path, weights: Path) -> Graph:
    """The graph model in two files.

    Args:
        path: the .json file.
        weights: the .bin file; several are joined to one in the manifest's order.

    Raises:
        WeightsError: a file cannot be read, is damaged, or does not fit the other.
    """
    content = read_json(path, WeightsError, REMEDY)
    try:
        data = Path(weights).read_bytes()
    except OSError as error:
        raise WeightsError(f"{weights}: cannot be read ({error.strerror}); {REMEDY}") from error
    try:
        nodes = [_node(entry) for entry in content["modelTopology"]["node"]]
        entries = [entry for group in content["weightsManifest"] for entry in group["weights"]]
        constants = dequantised(entries, data)
    except WeightsError as error:
        raise WeightsError(f"{weights}: {error}; {REMEDY}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, binascii.Error) as error:
        raise WeightsError(
            f"{path}: is not a graph model of TensorFlow.js ({type(error).__name__}: {str(error)[:80]}); {REMEDY}"
        ) from error
    if len(nodes) > MOST_NODES:
        raise WeightsError(f"{path}: has {len(nodes)} nodes, more than {MOST_NODES}; {REMEDY}")
    return Graph(str(path), _ordered(path, nodes), constants)


def dequantised(entries: list[Any], data: bytes) -> dict[str, Array]:
    """The weights by name.

    Args:
        entries: the weights of a manifest, in their order in the file.
        data: the file.

    Raises:
        WeightsError: the file is too short or too long, or a weight has an unknown type or is not finite.
    """
    found: dict[str, Array] = {}
    offset = total = 0
    for entry in entries:
        name, dtype = str(entry["name"]), str(entry["dtype"])
        quantisation = entry.get("quantization")
        stored = QUANTISED.get(quantisation["dtype"]) if quantisation else DTYPES.get(dtype)
        if stored is None or dtype not in DTYPES:
            kind = quantisation["dtype"] if quantisation else dtype
            raise WeightsError(f"the weight {name} is stored as {kind} for {dtype}, which is not read")
        shape = tuple(int(side) for side in entry["shape"])
        count = math.prod(shape)
        total += count
        if min(shape, default=0) < 0 or count > MAX_LAYER_WEIGHTS or total > MAX_WEIGHTS:
            raise WeightsError(f"the weight {name} has an impossible shape {shape}")
        if offset + count * stored.itemsize > len(data):
            raise WeightsError(f"has {len(data)} bytes, too few for the weight {name} of its graph")
        values: Array = np.frombuffer(data, stored, count, offset).reshape(shape)
        offset += values.nbytes
        found[name] = _restored(name, values, dtype, quantisation)
    if offset != len(data):
        raise WeightsError(f"has {len(data)} bytes, but its graph names {offset}")
    return found


def _restored(name: str, values: Array, dtype: str, quantisation: Any) -> Array:
    """The values of one weight as its own type."""
    if quantisation is not None and quantisation["dtype"] != "float16":
        # In double precision and rounded once: TensorFlow.js computes with JavaScript's numbers.
        wide = values.astype(np.float64) * float(quantisation["scale"]) + float(quantisation["min"])
        values = np.floor(wide + 0.5) if dtype == "int32" else wide
    restored: Array = values.astype(RESTORED[dtype])
    # Infinity is allowed for the border of a maximum; it is one number.
    if restored.dtype == np.float32 and restored.size > 1 and not np.isfinite(restored).all():
        raise WeightsError(f"the weight {name} has values that are not finite")
    return restored


def _node(entry: Any) -> Node:
    inputs = tuple(str(given) for given in entry.get("input", ()) if not str(given).startswith("^"))
    attributes = {str(name): _value(value) for name, value in entry.get("attr", {}).items()}
    return Node(str(entry["name"]), str(entry["op"]), inputs, attributes)


def _value(value: Any) -> Any:
    """The value of an attribute, such as 0.1 for {"f": 0.1}; a text is stored in base64, a whole number as a text."""
    ((kind, content),) = value.items()
    if kind == "list":
        return [_value({key: one}) for key, many in content.items() for one in many]
    if kind == "i":
        return int(content)
    if kind == "f":
        return float(content)
    if kind == "s":
        return base64.b64decode(content, validate=True).decode("ascii")
    if kind == "shape":
        return tuple(int(axis["size"]) for axis in content.get("dim", ()))
    return content


def _ordered(path: Path, nodes: list[Node]) -> dict[str, Node]:
    """The nodes by name, each after its inputs.

    Raises:
        WeightsError: a node is missing or named twice, or depends on itself.
    """
    by_name = {node.name: node for node in nodes}
    if len(by_name) < len(nodes):
        raise WeightsError(f"{path}: has two nodes of one name; {REMEDY}")
    ordered: dict[str, Node] = {}
    begun: set[str] = set()
    waiting = list(reversed(by_name))
    while waiting:
        name = waiting[-1]
        if name in ordered:
            waiting.pop()
            continue
        needed = [owner_of(given) for given in by_name[name].inputs]
        if missing := next((one for one in needed if one not in by_name), None):
            raise WeightsError(f"{path}: its node {name} needs {missing}, which it lacks; {REMEDY}")
        open_inputs = [one for one in needed if one not in ordered]
        if open_inputs and name in begun:
            raise WeightsError(f"{path}: its node {name} depends on itself; {REMEDY}")
        begun.add(name)
        waiting += open_inputs
        if not open_inputs:
            ordered[name] = by_name[name]
            waiting.pop()
    return ordered


def owner_of(given: str) -> str:
    """The node that an input names.

    >>> owner_of("split:1")
    'split'
    """
    return given.partition(":")[0]

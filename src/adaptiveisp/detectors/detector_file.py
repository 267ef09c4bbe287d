"""Imported detectors on disk: safetensors whose header holds the description of the network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from adaptiveisp.detectors.class_names import tidy_names
from adaptiveisp.detectors.yolo.layers import ACTIVATIONS, BottleneckCSP, Conv
from adaptiveisp.detectors.yolo.network import Description, YoloNetwork
from adaptiveisp.errors import DetectorError, WeightsError
from adaptiveisp.utils.files import sha256_of, write_bytes

FORMAT = "adaptiveisp-detector"
FORMAT_VERSION = 1


def save_detector(path: Path, network: YoloNetwork, provenance: Mapping[str, Any]) -> None:
    """Writes a network as safetensors, atomically.

    Args:
        path: file to write.
        network: the network with its weights.
        provenance: origin of the network, which goes into the header unchanged.
    """
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "decode": network.decode,
        "yaml": network.description.yaml,
        "anchors": network.description.anchors,
        "strides": network.strides,
        "class_names": network.class_names,
        "activations": {name: module.activation for name, module in _activated(network).items()},
        "source_sha256": network.weights_sha256,
        "provenance": provenance,
    }
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    write_bytes(path, save(tensors, metadata={FORMAT: json.dumps(header, allow_nan=False)}))


def load_detector_file(path: Path) -> YoloNetwork:
    """The frozen detector in a file that `save_detector` wrote, named after the file.

    Raises:
        WeightsError: the file is missing, damaged or of another kind, or its weights do not fit its header.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[FORMAT])
            if (header["format"], header["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise WeightsError(f"{path}: is of another version of this package; import the detector again")
            network = _network(path, header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        network.assign(tensors)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; check the path") from None
    except KeyError as error:
        raise WeightsError(f"{path}: is not a detector of this package; make one with `adaptiveisp import`") from error
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        DetectorError,
    ) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if isinstance(error, TypeError | AttributeError):  # their messages name variables of this code
            reason = "a value in its header is of another type"
        raise WeightsError(f"{path}: cannot be used ({reason}); import the detector again") from error
    if not all(value.isfinite().all() for value in network.parameters()):
        raise WeightsError(f"{path}: some of its weights are not finite; import the detector again")
    return network


def _network(path: Path, header: dict[str, Any]) -> YoloNetwork:
    """The network that a header describes, without weights."""
    anchors = tuple(tuple((float(width), float(height)) for width, height in layer) for layer in header["anchors"])
    names = tidy_names([str(name) for name in header["class_names"]], path)
    network = YoloNetwork(Description(dict(header["yaml"]), anchors), names, path.stem, sha256_of(path))
    activations = header["activations"]
    for name, module in _activated(network).items():
        if activations[name] not in ACTIVATIONS:
            raise ValueError(f"{name} has an unknown activation")
        module.activation = activations[name]
    return network


def _activated(network: YoloNetwork) -> dict[str, Conv | BottleneckCSP]:
    """The modules of a network that have an `activation`, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, Conv | BottleneckCSP)}

"""The manifest of an export: what a program needs to know to run its graphs; docs/export.md describes each key."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from adaptiveisp.deployment.assembly import Design
from adaptiveisp.deployment.development import Frame
from adaptiveisp.deployment.plans import END
from adaptiveisp.detectors.letterbox import PAD_GREY, resized_size
from adaptiveisp.isp.module import IspModule
from adaptiveisp.raw.pixel_formats import PixelFormat
from adaptiveisp.types import BAYER_PATTERNS

FORMAT = "adaptiveisp-export"
FORMAT_VERSION = 1
FILE = "manifest.json"

MEANINGS = {
    "frame": ("code values of the camera", "the frame as the sensor gives it, rows from top to bottom"),
    "pattern": ("", "which of frame.patterns the colours of the top-left 2x2 block are, an index from 0"),
    "black_level": ("code values", "value without light: of each position of the 2x2 block, row by row; one for rgb"),
    "white_level": ("code values", "value of saturation"),
    "developed": ("linear light, 0 to 1", "the developed RGB image, upright, at the working size"),
    "image": ("0 to 1", "RGB after the pipeline, upright, at the working size: what the detector gets before padding"),
    "image_after": ("0 to 1", "the image after the module"),
    "module_params": ("as in pipeline.modules", "parameters of this module"),
    "full_size": ("pixels", "height and width of the upright full frame"),
    "boxes": ("pixels of the upright full frame", "x0, y0, x1, y1 of each detection, highest score first"),
    "scores": ("0 to 1", "score of each detection"),
    "labels": ("", "class of each detection, an index of detector.class_names"),
    "modules": ("", "ids of pipeline.modules in the order they run, pipeline.end after the last one"),
    "params": ("as in pipeline.modules", "parameters of each module in a row, filled up with zeros"),
}
"""Tensor → its unit and what it holds."""


def operators_of(graph: Any, modules: Collection[str]) -> dict[str, list[str]]:
    """Operator → the parts of the graph that need it: modules by their names, other parts by the first of their scopes.

    Args:
        graph: an `onnx.GraphProto`.
        modules: names of modules.
    """
    found: dict[str, set[str]] = {}
    for node in _nodes(graph):
        scopes = node.name.split("/")[:-1]
        part = next((scope for scope in reversed(scopes) if scope in modules), scopes[0] if scopes else "graph")
        found.setdefault(node.op_type, set()).add(part)
    return {operator: sorted(found[operator]) for operator in sorted(found)}


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node of a graph and its branches."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def graph_entry(model: Any, name: str, content: bytes, helper: Any, modules: Collection[str]) -> dict[str, Any]:
    """The manifest's entry of a graph.

    Args:
        model: the `onnx.ModelProto`.
        name: name of its file.
        content: the file's content.
        helper: the module `onnx.helper`.
        modules: names of the modules that it may run.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return {
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "opset": opset,
        "operators": operators_of(model.graph, modules),
        "inputs": [_tensor(entry, helper) for entry in model.graph.input],
        "outputs": [_tensor(entry, helper) for entry in model.graph.output],
    }


def _tensor(entry: Any, helper: Any) -> dict[str, Any]:
    kind = entry.type.tensor_type
    shape = [side.dim_value if side.HasField("dim_value") else side.dim_param for side in kind.shape.dim]
    unit, meaning = MEANINGS[entry.name]
    return {
        "name": entry.name,
        "dtype": str(helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        "shape": shape,
        "unit": unit,
        "meaning": meaning,
    }


def frame_entry(frame: Frame) -> dict[str, Any]:
    """How the bytes of a camera become the input `frame`."""
    return {
        "kind": frame.kind,
        "bits": frame.bits,
        "dtype": str(frame.dtype),
        "height": frame.height,
        "width": frame.width,
        "pattern": frame.pattern,
        "patterns": list(BAYER_PATTERNS),
        "black_level": None if frame.black is None else list(frame.black),
        "white_level": frame.white,
        "orientation": frame.orientation,
        "format": None if frame.packing is None else _packing(frame.packing, frame),
    }


def _packing(found: PixelFormat, frame: Frame) -> dict[str, Any]:
    values, n_bytes = found.group
    return {
        "name": found.name,
        "layout": found.layout.name.lower(),
        "bits": found.bits,
        "container_bits": found.container,
        "high_bits": found.msb,
        "big_endian": found.big_endian,
        "group_values": values,
        "group_bytes": n_bytes,
        "row_bytes": frame.stride or (None if frame.width is None else found.row_bytes(frame.width)),
        "offset": frame.offset,
    }


def pipeline_entry(design: Design) -> dict[str, Any]:
    """The modules that may run, and the form of a pipeline."""
    plan = design.plan
    return {
        "length": plan.length,
        "width": plan.width,
        "end": END,
        "fixed": None if plan.fixed is None else list(plan.fixed),
        "preprocessing": plan.n_first,
        "module_set": plan.module_set,
        "modules": [_module(number, module) for number, module in enumerate(plan.table)],
    }


def _module(number: int, module: IspModule) -> dict[str, Any]:
    params = [{"name": param.name, "unit": param.unit, "low": param.low, "high": param.high} for param in module.params]
    return {"id": number, "name": module.name, "params": params}


def geometry_entry(design: Design) -> dict[str, Any]:
    """The working size, and the square that the detector gets."""
    frame, resized = design.frame, None
    if frame.height is not None and frame.width is not None:
        sides = (frame.height, frame.width)
        resized = list(resized_size(*(sides if frame.orientation < 5 else sides[::-1]), design.size))
    return {"size": design.size, "resized": resized, "padded": design.padded, "fill": PAD_GREY}


def detector_entry(design: Design) -> dict[str, Any]:
    """The detector, its classes, and how its detections are chosen."""
    rule = design.suppression
    return {
        "name": design.detector.name,
        "class_names": list(design.detector.class_names),
        "confidence": rule.confidence,
        "nms_iou": None if rule.is_set else rule.iou,
        "max_detections": rule.most,
        "weights_sha256": design.detector.weights_sha256,
    }


def manifest_of(
    design: Design,
    graphs: Mapping[str, Any],
    policy: Mapping[str, Any],
    self_test: Mapping[str, Any],
    provenance: Mapping[str, Any],
    quantisation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole manifest.

    Args:
        design: what is exported.
        graphs: entry of each graph by name.
        policy: facts about the policy.
        self_test: entry of each graph's self-test by the graph's name.
        provenance: versions, hashes and the command.
        quantisation: which layers compute in whole numbers, and by which raws; None where none do.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "policy": dict(policy),
        "precision": design.described_precision,
        "quantisation": None if quantisation is None else dict(quantisation),
        "graphs": dict(graphs),
        "frame": frame_entry(design.frame),
        "geometry": geometry_entry(design),
        "pipeline": pipeline_entry(design),
        "detector": detector_entry(design),
        "self_test": dict(self_test),
        "provenance": dict(provenance),
    }

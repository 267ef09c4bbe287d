"""The self-test of an export: inputs, and the outputs that the package itself gives for them without the graphs.

The values lie as little-endian numbers in files of their own, so that a program in any language can replay the test.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from adaptiveisp.deployment.assembly import Design
from adaptiveisp.deployment.ops import EXTRA, Array
from adaptiveisp.deployment.plans import END, Plan
from adaptiveisp.deployment.tracing import sample_params
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.result import Result
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.types import RawImage
from adaptiveisp.utils.optional_imports import import_extra

FOLDER = "self_test"
TOLERANCES = {
    "float32": {"image": 1e-3, "params": 1e-3, "scores": 1e-3, "iou": 0.99},
    "float16": {"image": 2e-2, "params": 2e-2, "scores": 3e-2, "iou": 0.9},
    "int8-dynamic": {"image": 5e-2, "params": 2e-2, "scores": 0.15, "iou": 0.75},
    "int8-static": {"image": 2e-2, "params": 2e-2, "scores": 0.15, "iou": 0.85},
}
"""Precision → greatest difference of an output: absolute for image and scores, relative to each module's range for the
parameters; `iou` is the least overlap of a box with the expected one. Those of whole numbers are measured, see
`benchmarks/quantised.py` and docs/export.md."""
IMAGES = ("image", "developed", "image_after")
"""Outputs that are images."""
SCENE_SIZE = (480, 640)
"""(height, width) in pixels of the scene where the graph takes frames of any size."""


def scene(height: int, width: int) -> Array:
    """A drawn picture (height, width, 3), linear light in [0, 1]: a red octagon with a white rim on a pole, a street.

    YOLOv3-tiny takes it for a stop sign.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    y, x = (y + 0.5) / height, (x + 0.5) / height
    picture = np.empty((height, width, 3))
    picture[:] = np.where((y < 0.6)[..., None], [0.35, 0.5, 0.7], [0.12, 0.12, 0.13])
    picture *= (0.8 + 0.2 * np.cos(3 * y))[..., None]
    picture[(y > 0.45) & (y < 0.65)] = [0.06, 0.14, 0.04]
    middle = width / height / 2
    picture[(abs(x - middle) < 0.012) & (y > 0.4)] = [0.3, 0.3, 0.3]
    away = np.maximum.reduce(
        [abs(x - middle), abs(y - 0.4), (abs(x - middle) + abs(y - 0.4)) / np.sqrt(2)]
    )  # distance in the metric whose circles are octagons
    picture[away < 0.19], picture[away < 0.175] = [0.8, 0.8, 0.8], [0.5, 0.02, 0.02]
    letters = (abs(y - 0.4) < 0.04) & (abs(x - middle) < 0.13) & ((x * 40).astype(int) % 3 < 2)
    picture[letters] = [0.8, 0.8, 0.8]
    return picture


def raw_of_scene(design: Design, light: float = 0.1) -> RawImage:
    """The scene as a raw of the design's frame, with a little noise of a fixed seed."""
    frame = design.frame
    height, width = (frame.height, frame.width) if frame.height and frame.width else SCENE_SIZE
    picture = scene(height, width) * light
    picture += np.random.default_rng(0).normal(0, 0.002, picture.shape)
    white = float(2**frame.bits - 1) if frame.white is None else frame.white
    black = frame.black or ((64.0 / 4095 * white,) * (4 if frame.kind == "mosaic" else 1))
    pattern = None
    if frame.kind == "mosaic":
        pattern = frame.pattern or "RGGB"
        data = np.empty((height, width))
        for place, colour in enumerate(pattern):
            rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
            data[rows, columns] = picture[rows, columns, "RGB".index(colour)] * (white - black[place]) + black[place]
    else:
        data = picture * (white - black[0]) + black[0]
    codes = np.clip(np.round(data), 0, 2**frame.bits - 1).astype(frame.dtype)
    return RawImage(codes, pattern, black if len(black) == 4 else black[0], white, orientation=frame.orientation)


def feeds_of(raw: RawImage, inputs: "list[str]") -> dict[str, Array]:
    """The inputs of the graph `full` for a raw.

    Args:
        raw: of the kind that the graph takes.
        inputs: names of the graph's inputs.
    """
    from adaptiveisp.types import BAYER_PATTERNS

    values = {
        "frame": raw.data,
        "black_level": np.asarray(raw.black_level if raw.pattern else raw.black_level[:1], np.float32),
        "white_level": np.asarray([raw.white_level], np.float32),
    }
    if raw.pattern in BAYER_PATTERNS:
        values["pattern"] = np.asarray(BAYER_PATTERNS.index(raw.pattern), np.int64)
    return {name: values[name] for name in inputs}


def encoded(plan: Plan, pipeline: Pipeline | None) -> tuple[Array, Array]:
    """A pipeline in the form of the graphs: numbers of the modules, and their parameters in rows."""
    modules = np.full(plan.length, END, np.int64)
    params = np.zeros((plan.length, plan.width), np.float32)
    for place, (stage, module) in enumerate(zip(pipeline.stages, pipeline.modules, strict=True) if pipeline else ()):
        modules[place] = plan.number(module)
        params[place, : len(module.params)] = list(stage.params.values())
    return modules, params


def expected(plan: Plan, result: Result) -> dict[str, Array]:
    """The outputs of the graph `full` that belong to a result of the package."""
    modules, params = encoded(plan, result.pipeline)
    return {
        "boxes": result.detections.boxes.numpy(),
        "scores": result.detections.scores.numpy(),
        "labels": result.detections.labels.numpy(),
        "modules": modules,
        "params": params,
        "image": result.image[None].numpy(),
    }


def run_graph(content: bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a graph by onnxruntime on one thread.

    Raises:
        AdaptiveISPError: onnxruntime is not installed, or it cannot run the graph.
    """
    runtime = import_extra("onnxruntime", EXTRA)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:  # the exceptions of onnxruntime have no common base
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AdaptiveISPError(f"onnxruntime cannot run the graph ({reason}); report this with the policy") from error


def faults(
    plan: Plan, wanted: Mapping[str, Array], found: Mapping[str, Array], limit: Mapping[str, float]
) -> list[str]:
    """What differs by more than the tolerance, in words; empty if all agree.

    Args:
        plan: the policy.
        wanted, found: outputs by name.
        limit: tolerances, see `TOLERANCES`, and the least score `confidence`.
    """
    said = []
    if "modules" in wanted:
        if not np.array_equal(wanted["modules"], found["modules"]):
            return [f"modules are {found['modules'].tolist()} instead of {wanted['modules'].tolist()}"]
        spans = _spans(plan, wanted["modules"])
        if not _within(found["params"] / spans, wanted["params"] / spans, limit["params"]):
            said.append("parameters differ")
    if any(not _within(found[name], wanted[name], limit["image"]) for name in IMAGES if name in wanted):
        said.append("the image differs")
    if "boxes" in wanted:
        said += _box_faults(wanted, found, limit)
    return said


def _within(found: Array, wanted: Array, most: float) -> bool:
    return found.shape == wanted.shape and bool((abs(found - wanted) <= most).all())


def _spans(plan: Plan, modules: Array) -> Array:
    """The range of each parameter of a pipeline, 1 where there is none."""
    spans = np.ones((plan.length, plan.width), np.float32)
    for place, number in enumerate(modules.tolist()):
        if number != END:
            params = plan.table[number].params
            spans[place, : len(params)] = [param.high - param.low for param in params]
    return spans


def _box_faults(wanted: Mapping[str, Array], found: Mapping[str, Array], limit: Mapping[str, float]) -> list[str]:
    """What differs among detections; those with a score near the least one may be in one of the two alone."""
    pairs = ((wanted, found, "is missing"), (found, wanted, "should not be there"))
    for these, others, fault in pairs:
        for box, score, label in zip(these["boxes"], these["scores"], these["labels"], strict=True):
            alike = (others["labels"] == label) & (abs(others["scores"] - score) <= limit["scores"])
            same = overlap(others["boxes"][alike], box[None]) >= limit["iou"]
            if not same.any() and score > limit["confidence"] + 2 * limit["scores"]:
                return [f"a box of class {label} with the score {score:.3f} {fault}"]
    return []


def overlap(first: Array, second: Array) -> Array:
    """Intersection over union of boxes xyxy with a box each, or with one for all."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    both = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    found: Array = both / np.maximum(areas[0] + areas[1] - both, 1e-9)
    return found


Sample = tuple[dict[str, Array], dict[str, Array]]
"""Inputs of a graph, and the outputs that the package gives for them."""


def samples_of(isp: AdaptiveISP, design: Design, entries: Mapping[str, Any]) -> dict[str, Sample]:
    """The inputs of each graph of an export for the drawn scene, and the outputs that the package gives for them.

    Args:
        isp: the policy and the detector.
        design: what is exported.
        entries: the manifest's entry of each graph.
    """
    raw = raw_of_scene(design)
    result = isp(raw)
    return {name: sample_of(name, _input_names(entry), design, raw, result) for name, entry in entries.items()}


def _input_names(entry: Mapping[str, Any]) -> list[str]:
    return [str(one["name"]) for one in entry["inputs"]]


def sample_of(name: str, inputs: list[str], design: Design, raw: RawImage, result: Result) -> Sample:
    """The inputs of a graph for a raw, and the outputs that the package gives for them.

    Args:
        name: of the graph.
        inputs: names of its inputs.
        design: what is exported.
        raw: the raw.
        result: what the package made of it.
    """
    wanted = expected(design.plan, result)
    developed = result.developed.small.numpy()
    pipeline = {one: wanted[one] for one in ("modules", "params")}
    if name == "full":
        return feeds_of(raw, inputs), wanted
    if name == "develop":
        return feeds_of(raw, inputs), {"developed": developed}
    if name == "policy":
        return {"developed": developed}, pipeline
    if name == "isp":
        given = {"developed": developed, **pipeline}
        return {one: given[one] for one in inputs}, {"image": wanted["image"]}
    if name == "detector":
        sides = np.asarray(result.full_size, np.int64)
        boxes = {one: wanted[one] for one in ("boxes", "scores", "labels")}
        return {"image": wanted["image"], "full_size": sides}, boxes
    return _module_sample(design.plan, name.removeprefix("module_"), developed)


def _module_sample(plan: Plan, name: str, image: Array) -> Sample:
    """An image and parameters a little off the neutral ones, and the image after the module."""
    module = next(one for one in plan.table if one.name == name)
    row = sample_params(module)
    with torch.no_grad():
        made = replace(module, kernel=None)(torch.from_numpy(image), row).numpy()
    return {"image": image, "module_params": row[0].numpy()}, {"image_after": made}

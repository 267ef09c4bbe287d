"""The graphs of an export.

`full` goes from a frame to detections, `policy` from a developed image to a pipeline, and `isp` runs a pipeline. For
runtimes without `If` and `Loop`, a policy that chooses modules is written in parts, which a program runs one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from adaptiveisp.deployment.detector import candidates
from adaptiveisp.deployment.development import Frame, develop
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import Plan, Planned, run_chain, run_chosen
from adaptiveisp.deployment.suppression import Suppression, detections, to_full_frame
from adaptiveisp.deployment.writers import apply_module
from adaptiveisp.detectors.letterbox import PAD_GREY, frame_size
from adaptiveisp.errors import UsageError
from adaptiveisp.isp.module import IspModule
from adaptiveisp.types import Detector


@dataclass(frozen=True)
class Design:
    """What is exported.

    Attributes:
        plan: the policy.
        detector: the detector.
        frame: the camera's frame.
        size: longer side in pixels at which policy, modules and detector work.
        suppression: how detections are chosen.
        precision: type of images and of the networks' intermediate values.
        whole_numbers: how networks are made to compute in whole numbers, of `quantisation.METHODS`; "" if they are not.
        quantise: which of `quantisation.PARTS` do.
        loops: whether graphs may have loops.
    """

    plan: Plan
    detector: Detector
    frame: Frame
    size: int
    suppression: Suppression
    precision: np.dtype
    whole_numbers: str = ""
    quantise: tuple[str, ...] = ()
    loops: bool = True

    @property
    def described_precision(self) -> str:
        """The precision in the manifest."""
        return self.whole_numbers or str(self.precision)

    @property
    def padded(self) -> int:
        """Side of the detector's input in pixels."""
        return frame_size(self.size, self.detector.stride)


Build = Callable[["Design"], Any]
"""Makes the `onnx.ModelProto` of a graph."""


def graphs_of(design: Design, in_parts: bool) -> dict[str, Build]:
    """The graphs to write, by name; the name is that of the file, too.

    Args:
        design: what is exported.
        in_parts: whether no graph may choose what it computes.

    Raises:
        UsageError: the policy's own graph needs a loop.
    """
    if not in_parts or (design.plan.fixed is not None and not design.frame.is_free):
        return {"full": full_graph, "policy": policy_graph, "isp": isp_graph}
    if design.plan.looks_again:
        raise UsageError(
            "a step-wise policy observes the image after each module, so its graph needs Loop and If; leave out "
            "--without-if, or give a policy of another method"
        )
    if design.frame.is_free and design.frame.kind == "mosaic":
        raise UsageError("mosaics of any size are developed in one of two ways, which needs If; give --size WxH")
    modules = {f"module_{module.name}": partial(module_graph, module=module) for module in design.plan.table}
    return {"develop": develop_graph, "policy": policy_graph, **modules, "detector": detector_graph}


def begun(design: Design) -> Ops:
    """A new graph of the design's precision."""
    ops = Ops()
    ops.root.precision, ops.root.loops = design.precision, design.loops
    return ops


def full_graph(design: Design) -> Any:
    """The graph from a camera's frame to detections."""
    ops = begun(design)
    frame = ops.input("frame", design.frame.dtype, design.frame.shape)
    developed, full = develop(ops, frame, design.frame, design.size)
    planned = design.plan.run(ops, developed)
    image = planned.image if design.plan.clips else ops.clip(planned.image, 0, 1)
    _add_detections(ops, design, ops.cast(image, np.float32), full)
    _add_pipeline(ops, design, planned)
    ops.output("image", ops.cast(image, np.float32), [1, 3, *named_sides(ops)])
    return ops.model("full")


def _add_pipeline(ops: Ops, design: Design, planned: Planned) -> None:
    """Makes a pipeline an output."""
    ops.output("modules", planned.modules, [design.plan.length])
    ops.output("params", planned.params, [design.plan.length, design.plan.width])


def _add_detections(ops: Ops, design: Design, image: Value, full: tuple[Value, Value]) -> None:
    """Makes the detections in an image outputs, in pixels of the upright full frame, whose sides are given."""
    padded, corner = padded_image(ops, image, design.padded)
    boxes, scores = candidates(ops, design.detector, padded, design.padded)
    found, score, label = detections(ops, boxes, scores, design.padded, design.suppression)
    assert ops.root.sides is not None
    with ops.scope("full_frame"):
        found = to_full_frame(ops, found, ops.root.sides, corner, full)
    ops.output("boxes", found, ["detections", 4])
    ops.output("scores", score, ["detections"])
    ops.output("labels", label, ["detections"])


def develop_graph(design: Design) -> Any:
    """The graph from a camera's frame to the developed image at the working size."""
    ops = begun(design)
    frame = ops.input("frame", design.frame.dtype, design.frame.shape)
    developed, _ = develop(ops, frame, design.frame, design.size)
    ops.output("developed", developed, [1, 3, *named_sides(ops)])
    return ops.model("develop")


def module_graph(design: Design, module: IspModule) -> Any:
    """The graph of one module: an image and its parameters → the image after it."""
    ops = begun(design)
    image = image_input(ops, "image")
    params = ops.input("module_params", np.float32, [len(module.params)])
    made = apply_module(ops, module, ops.cast(image, design.precision), params)
    ops.output("image_after", ops.cast(made, np.float32), [1, 3, *named_sides(ops)])
    return ops.model(f"module_{module.name}")


def detector_graph(design: Design) -> Any:
    """The graph from an image after the pipeline, and the size of the full frame, to detections."""
    ops = begun(design)
    image = ops.clip(image_input(ops, "image"), 0, 1)
    full = ops.input("full_size", np.int64, [2])
    _add_detections(ops, design, image, (ops.item(full, 0), ops.item(full, 1)))
    return ops.model("detector")


def padded_image(ops: Ops, image: Value, padded: int) -> tuple[Value, tuple[Value, Value]]:
    """The image in the middle of a grey square, and the rows above and the columns to the left of it."""
    assert ops.root.sides is not None
    with ops.scope("letterbox"):
        top, left = ((padded - side) / 2 for side in ops.root.sides)
        height, width = ops.root.sides
        sides = [top, left, padded - height - top, padded - width - left]
        return ops("Reshape", ops.pad(image, sides, fill=PAD_GREY), np.asarray([1, 3, padded, padded])), (top, left)


def named_sides(ops: Ops) -> tuple[int | str, int | str]:
    """Height and width of the images, for the shape of an output."""
    assert ops.root.sides is not None
    height, width = ops.root.sides
    return tuple(  # type: ignore[return-value]
        name if side.data is None else int(side.number)
        for name, side in (("image_height", height), ("image_width", width))
    )


def policy_graph(design: Design) -> Any:
    """The graph from a developed image at the working size to the numbers and parameters of modules."""
    ops = begun(design)
    image = image_input(ops, "developed")
    planned = design.plan.run(ops, image)
    _add_pipeline(ops, design, planned)
    return ops.model("policy")


def image_input(ops: Ops, name: str) -> Value:
    """The input of an image of any size, whose sides become those of the graph's images."""
    image = ops.input(name, np.float32, [1, 3, "image_height", "image_width"])
    shape = ops("Shape", image)
    ops.root.sides = ops.item(shape, 2), ops.item(shape, 3)
    return image


def isp_graph(design: Design) -> Any:
    """The graph from a developed image and a pipeline to the image after it; its modules are an input if they vary."""
    ops, plan = begun(design), design.plan
    image = ops.cast(image_input(ops, "developed"), design.precision)
    if plan.fixed is None:
        modules = ops.input("modules", np.int64, [plan.length])
    params = ops.input("params", np.float32, [plan.length, plan.width])
    if plan.fixed is None:
        made = run_chosen(ops, plan, image, modules, params)
    else:
        stages = []
        for place, number in enumerate(plan.fixed):
            row = ops.reshape(ops.slice(params, 0, place, place + 1), -1)
            stages.append((number, ops.slice(row, 0, 0, len(plan.table[number].params))))
        made, _, _ = run_chain(ops, plan, image, stages)
    made = ops.cast(made if plan.clips else ops.clip(made, 0, 1), np.float32)
    ops.output("image", made, [1, 3, *named_sides(ops)])
    return ops.model("isp")

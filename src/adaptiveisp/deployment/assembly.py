"""The graphs of an export: `full`, `policy` and `isp`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptiveisp.deployment.detector import candidates
from adaptiveisp.deployment.development import Frame, develop
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.plans import Plan, run_chain, run_chosen
from adaptiveisp.deployment.suppression import Suppression, detections, to_full_frame
from adaptiveisp.detectors.letterbox import PAD_GREY, frame_size
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
    """

    plan: Plan
    detector: Detector
    frame: Frame
    size: int
    suppression: Suppression
    precision: np.dtype

    @property
    def padded(self) -> int:
        """Side of the detector's input in pixels."""
        return frame_size(self.size, self.detector.stride)


def full_graph(design: Design) -> Any:
    """The graph from a camera's frame to detections."""
    ops = Ops()
    ops.root.precision = design.precision
    frame = ops.input("frame", design.frame.dtype, design.frame.shape)
    developed, full = develop(ops, frame, design.frame, design.size)
    planned = design.plan.run(ops, developed)
    image = planned.image if design.plan.clips else ops.clip(planned.image, 0, 1)
    padded, corner = padded_image(ops, ops.cast(image, np.float32), design.padded)
    boxes, scores = candidates(ops, design.detector, padded, design.padded)
    found, score, label = detections(ops, boxes, scores, design.padded, design.suppression)
    assert ops.root.sides is not None
    with ops.scope("full_frame"):
        found = to_full_frame(ops, found, ops.root.sides, corner, full)
    ops.output("boxes", found, ["detections", 4])
    ops.output("scores", score, ["detections"])
    ops.output("labels", label, ["detections"])
    ops.output("modules", planned.modules, [design.plan.length])
    ops.output("params", planned.params, [design.plan.length, design.plan.width])
    ops.output("image", ops.cast(image, np.float32), [1, 3, *named_sides(ops)])
    return ops.model("full")


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
    ops = Ops()
    ops.root.precision = design.precision
    image = image_input(ops)
    planned = design.plan.run(ops, image)
    ops.output("modules", planned.modules, [design.plan.length])
    ops.output("params", planned.params, [design.plan.length, design.plan.width])
    return ops.model("policy")


def image_input(ops: Ops) -> Value:
    """The input of a developed image of any size, whose sides are set."""
    image = ops.input("developed", np.float32, [1, 3, "image_height", "image_width"])
    shape = ops("Shape", image)
    ops.root.sides = ops.item(shape, 2), ops.item(shape, 3)
    return image


def isp_graph(design: Design) -> Any:
    """The graph from a developed image and a pipeline to the image after it; its modules are an input if they vary."""
    ops, plan = Ops(), design.plan
    ops.root.precision = design.precision
    image = ops.cast(image_input(ops), design.precision)
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

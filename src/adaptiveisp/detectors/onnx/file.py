"""Detectors in ONNX files: detection by onnxruntime, and a loss whose gradient comes from the graph run in PyTorch.

The graph is converted by `onnx.graph` and used only if it agrees with onnxruntime. If it cannot be converted, the loss
has values but no gradient, and the detector reports it (`differentiable`, `not_differentiable_because`). The outputs
are decoded by `onnx.decode`, settings of a sidecar are in `onnx.sidecar`, and the loss is in `huggingface.set_loss`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.detectors.boxes import clip_boxes
from adaptiveisp.detectors.checks import check_image, check_labels
from adaptiveisp.detectors.huggingface.set_loss import decoded_loss, detr_loss
from adaptiveisp.detectors.letterbox import PAD_GREY
from adaptiveisp.detectors.onnx.decode import Layout, Predictions, best, decode_outputs
from adaptiveisp.detectors.onnx.graph import ConversionError, OnnxGraph, Values, verified
from adaptiveisp.detectors.onnx.layout import find_layout
from adaptiveisp.detectors.onnx.session import CODE_VALUES, Session, read_model, reason_of
from adaptiveisp.detectors.onnx.sidecar import Facts, read_facts, with_sidecar
from adaptiveisp.errors import DetectorError, logger
from adaptiveisp.types import Detections, Image, Targets

DEFAULT_STRIDE = 32
"""Stride of a model with a free input size, if neither the sidecar nor the metadata name one."""

TRIAL_SIZE = (256, 320)
"""(height, width) in pixels of the random trial image for a model with a free input size."""

BATCH_TOLERANCE = 1e-3
"""Greatest difference between an image's outputs in a batch and alone, relative to the greatest output value."""


class Place(NamedTuple):
    """Place of an image in the model's input, in pixels: x_input = x_image · x_scale + left."""

    left: int
    top: int
    x_scale: float
    y_scale: float
    height: int
    width: int


class OnnxDetector(nn.Module):
    """A frozen detector from an ONNX file (protocol `Detector`); see `load_onnx`.

    Attributes:
        layout: interpretation of its outputs.
        differentiable: whether its loss has a gradient.
        not_differentiable_because: the reason why its loss has no gradient; "" if it has one.
        difference: greatest difference of the converted graph from onnxruntime on a random image, relative to the
            greatest value of each output; None if the graph is not converted.
        backend, precision: the library that runs it for detection, and the type of its intermediate values.
    """

    thread_safe = True
    backend, precision = "onnxruntime", "float32"

    def __init__(self, path: Path, session: Session, facts: Facts, layout: Layout, weights_sha256: str):
        super().__init__()
        self.path, self.session, self.facts, self.layout = path, session, facts, layout
        self.name, self.class_names, self.weights_sha256 = path.stem, layout.names, weights_sha256
        self.fixed = facts.size or ((session.height, session.width) if session.height and session.width else None)
        self.stride = 1 if self.fixed else facts.stride or DEFAULT_STRIDE
        self.batch = session.batch
        self.graph: OnnxGraph | None = None
        self.differentiable, self.not_differentiable_because = False, "it was not converted"
        self.difference: float | None = None

    def train(self, mode: bool = True) -> "OnnxDetector":
        """Does nothing: a detector stays in evaluation mode."""
        return self

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """The loss of each image: `set_loss.detr_loss` of a DETR, `set_loss.decoded_loss` of all other models.

        It has a gradient if the detector is `differentiable`.

        Args:
            image: RGB in [0, 1].
            targets: one entry per image, boxes in pixels of `image`.

        Raises:
            DetectorError: the numbers of images and targets differ, or a label is out of range.
        """
        if len(targets) != len(image):
            raise DetectorError(f"{self.name}: {len(image)} images but targets for {len(targets)}")
        check_labels(targets, len(self.class_names))
        # The graph was verified in single precision, and therefore also runs in it.
        with torch.autocast(image.device.type, enabled=False):
            found, place = self._predictions(image.float(), by_graph=self.differentiable)
            losses = [self._one_loss(f, t, place) for f, t in zip(found, targets, strict=True)]
        return torch.stack(losses) if losses else image.new_zeros(0)

    def _one_loss(self, found: Predictions, targets: Targets, place: Place) -> Float[Tensor, ""]:
        scale, offset = _mapping(place, found.boxes)
        boxes = targets.boxes.to(found.boxes) * scale + offset
        if found.logits is None:
            return decoded_loss(found.boxes, found.scores, Targets(boxes, targets.labels))
        size = found.boxes.new_tensor((place.width, place.height) * 2)
        low, high = found.boxes[:, :2], found.boxes[:, 2:]
        centred = torch.cat(((low + high) / 2, high - low), dim=1) / size
        return detr_loss(
            found.logits, centred, Targets(boxes / size, targets.labels), self.layout.decode == "detr-sigmoid"
        )

    @torch.no_grad()
    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """The detections of each image, see `onnx.decode.best`.

        Args:
            image: RGB in [0, 1].
            confidence: scores at or below this are dropped.
            nms_iou: greatest IoU of two boxes of one class, if the decode needs suppression.
            max_detections: per image.
        """
        # The converted graph runs on devices that onnxruntime does not support here.
        by_graph = self.differentiable and image.device.type != self.session.on
        found, place = self._predictions(image.float(), by_graph)
        height, width = image.shape[2:]
        results = []
        for predictions in found:
            kept = best(predictions, self.layout, confidence, nms_iou, max_detections, place.height, place.width)
            scale, offset = _mapping(place, kept.boxes)
            results.append(replace(kept, boxes=clip_boxes((kept.boxes - offset) / scale, height, width)))
        return results

    def _predictions(self, image: Image, by_graph: bool) -> tuple[list[Predictions], Place]:
        """The predictions of each image in pixels of the model's input, and the place of the images in it."""
        check_image(self.name, image, self.stride)
        given, place = self._input(image)
        found: list[Predictions] = []
        for part, count in self._batches(given):
            values = self.run(part, by_graph)
            found += decode_outputs(self.layout, values, place.height, place.width)[:count]
        if len(found) != len(image):
            raise DetectorError(f"{self.name}: gave outputs for {len(found)} images, not {len(image)}")
        return found, place

    def run(self, given: Image, by_graph: bool) -> Values:
        """The outputs for a batch in the form that the model takes.

        Raises:
            DetectorError: the model fails on this batch.
        """
        feeds = self.session.feeds(given)
        try:
            if by_graph and self.graph is not None:
                # Bytes have no gradient, so the graph is given the code values as floats.
                found: Values = self.graph({**feeds, self.session.image: self.session.laid_out(given)})
                return found
            return self.session(feeds)
        except DetectorError as error:
            raise DetectorError(f"{self.path}: {error}") from error
        except Exception as error:  # the exceptions of onnxruntime have no common base
            sides = f"{given.shape[3]}x{given.shape[2]}"
            raise DetectorError(
                f"{self.path}: fails on an image of {sides} pixels ({reason_of(error)}); "
                f"declare size: or stride: in {self.facts.path.name}, or export it again"
            ) from error

    def _batches(self, given: Image) -> Iterator[tuple[Image, int]]:
        """The batch in parts of the model's batch size, filled up with black images; each with its number of images."""
        size = self.batch or max(1, len(given))
        for part in torch.split(given, size):
            missing = size - len(part) if self.batch else 0
            yield (torch.cat((part, part.new_zeros(missing, *part.shape[1:]))) if missing else part), len(part)

    def _input(self, image: Image) -> tuple[Float[Tensor, "batch 3 tall wide"], Place]:
        """The images as the model takes them: resized and padded to its size, with its channel order and values."""
        height, width = image.shape[2:]
        tall, wide = self.fixed or (height, width)
        factor = min(tall / height, wide / width)
        h, w = max(1, round(height * factor)), max(1, round(width * factor))
        if (h, w) != (height, width):
            image = F.interpolate(image, size=(h, w), mode="bilinear", antialias=True, align_corners=False)
        top, left = (tall - h) // 2, (wide - w) // 2
        if (h, w) != (tall, wide):
            image = F.pad(image, (left, wide - w - left, top, tall - h - top), value=PAD_GREY)
        sidecar = self.facts.sidecar
        if sidecar.channels == "bgr":
            image = image.flip(1)
        scale = CODE_VALUES if self.session.takes_bytes else sidecar.scale
        image = image * scale if scale != 1 else image
        if sidecar.mean:
            image = image - image.new_tensor(sidecar.mean)[:, None, None]
        if sidecar.std:
            image = image / image.new_tensor(sidecar.std)[:, None, None]
        return image, Place(left, top, w / width, h / height, tall, wide)


def load_onnx(path: Path, device: str | torch.device = "cpu") -> OnnxDetector:
    """The frozen detector in an ONNX file, with the settings of its sidecar MODEL.yaml.

    A trial on a random image shows how its outputs are to be decoded, whether it takes batches, and whether its
    conversion to PyTorch agrees with onnxruntime. Only the graph is run, and external data is read only from the folder
    of the file.

    Args:
        path: the .onnx file.
        device: device on which onnxruntime runs it, if it can.

    Raises:
        DetectorError: the file is missing, damaged or no detector, or a sidecar must declare more.
        AdaptiveISPError: onnx or onnxruntime is not installed.
    """
    model, digest = read_model(path)
    facts = read_facts(path, {entry.key: entry.value for entry in model.metadata_props})
    digest = with_sidecar(digest, facts)
    session = Session(path, model, torch.device(device), facts.sidecar.input, facts.sidecar.layout)
    if session.takes_bytes and (facts.sidecar.mean or facts.sidecar.std or facts.sidecar.scale not in (1, CODE_VALUES)):
        raise DetectorError(
            f"{path}: its input is of bytes, 0 to 255, which are not normalised; leave out scale:, mean: and std: in "
            f"{facts.path.name}"
        )
    if bool(session.height) != bool(session.width) and facts.size is None:
        raise DetectorError(f"{path}: only one side of its input is fixed; declare size: in {facts.path.name}")
    detector = OnnxDetector(path, session, facts, Layout("yolo", ()), digest)
    height, width = detector.fixed or tuple(-(-side // detector.stride) * detector.stride for side in TRIAL_SIZE)
    trial = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    given, _ = detector._input(trial)
    alone = detector.run(given[:1].repeat(max(1, session.batch), 1, 1, 1), by_graph=False)
    detector.layout = find_layout(facts, alone, height, width, path)
    detector.class_names = detector.layout.names
    if detector.layout.is_detr and not session.takes_bytes and not (facts.sidecar.mean and facts.sidecar.std):
        raise DetectorError(
            f"{path}: the normalisation of a DETR's input is unknown; write {facts.path.name} beside it with mean: "
            "[0.485, 0.456, 0.406] and std: [0.229, 0.224, 0.225], or mean: [0, 0, 0] and std: [1, 1, 1]"
        )
    if session.batch == 0 and not _takes_batches(detector, given, alone):
        detector.batch = 1
    _convert(detector, model, given[torch.arange(detector.batch or 2) % 2])
    return detector


def _takes_batches(detector: OnnxDetector, given: Image, alone: Values) -> bool:
    """Whether an image gives the same outputs in a batch as alone; exports with fixed shapes inside fail."""
    try:
        both = detector.run(given, by_graph=False)
        second = detector.run(given[1:], by_graph=False)
    except DetectorError:
        return False
    for name in detector.layout.outputs:
        expected = (alone[name], second[name])
        if len(both[name]) != 2 or any(len(value) != 1 for value in expected):
            return False
        wanted = torch.cat(expected).double()
        size = max(1.0, float(wanted.abs().max())) if wanted.numel() else 1.0
        if both[name].shape != wanted.shape or bool(((both[name] - wanted).abs() > BATCH_TOLERANCE * size).any()):
            return False
    return True


def _convert(detector: OnnxDetector, model: Any, given: Image) -> None:
    """Gives the detector the converted graph if it agrees with onnxruntime; else stores the reason and warns once."""
    session = detector.session
    try:
        feeds = session.feeds(given)
        half = session.dtype == torch.float16
        detector.graph, detector.difference = verified(model, session, feeds, session.image, half)
    except ConversionError as error:
        detector.not_differentiable_because = str(error)
        logger.warning("%s: its loss has no gradient: %s", detector.path, error)
    else:
        detector.differentiable, detector.not_differentiable_because = True, ""


def _mapping(place: Place, like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors and offsets that map xyxy boxes from pixels of an image to pixels of the model's input."""
    return (
        like.new_tensor((place.x_scale, place.y_scale) * 2),
        like.new_tensor((place.left, place.top) * 2),
    )

"""Hugging Face's detectors: a folder with config.json, preprocessor_config.json and safetensors weights.

Networks and losses are those of the library transformers, unchanged and in evaluation mode, so without dropout and
denoising queries. The library's loss divides by the number of boxes of a batch; here, one forward pass is followed by
the loss of each image. Images keep their size, which the library's image processor may change.

Source: Fang et al. 2021 (YOLOS), Carion et al. 2020 (DETR), Meng et al. 2021 (Conditional DETR), Zhao et al. 2024
(RT-DETR), Lv et al. 2024 (RT-DETRv2), Peng et al. 2024 (D-FINE).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from adaptiveisp.detectors.answers import choose
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.detectors.boxes import clip_boxes, cxcywh_to_xyxy, xyxy_to_cxcywh
from adaptiveisp.detectors.checks import check_image, check_labels
from adaptiveisp.detectors.class_names import tidy_names
from adaptiveisp.detectors.huggingface.folder import (
    CONFIG,
    EXTRA,
    PREPROCESSOR,
    TIMM,
    Pixels,
    hash_of,
    read_config,
    read_pixels,
    reason_of,
    weights_files,
)
from adaptiveisp.errors import DetectorError, WeightsError, shown
from adaptiveisp.types import Detections, Image, Targets
from adaptiveisp.utils.optional_imports import import_extra

LAYERS_FIRST = {
    "yolos": False,
    "detr": True,
    "conditional_detr": True,
    "rt_detr": False,
    "rt_detr_v2": False,
    "d_fine": False,
}
"""Known `model_type` → whether the outputs of its decoder layers are (layers, batch, …) instead of batch first."""

BACKBONE_STRIDE = 32
"""Stride in pixels of the deepest features of the convolutional backbones."""


class TransformersDetector(InferenceNetwork):
    """A frozen detector of the library transformers (protocol `Detector`): gradients reach the image only."""

    model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, pixels: Pixels, name: str, weights_sha256: str = "") -> None:
        """Takes over the network and freezes it.

        Args:
            model: an object-detection network of the library, with a `config.model_type` in `LAYERS_FIRST`.
            pixels: normalisation of its input.
            name: short name for tables.
            weights_sha256: hash of the weights' files, "" if there are none.
        """
        super().__init__()
        config = model.config
        self.model = model
        self.name, self.weights_sha256 = name, weights_sha256
        labels = range(config.num_labels)
        self.class_names = tidy_names([str(config.id2label.get(label, "N/A")) for label in labels], name)
        self.stride = int(config.patch_size) if config.model_type == "yolos" else BACKBONE_STRIDE
        self.scale = pixels.scale
        for key, value in (("mean", pixels.mean), ("std", pixels.std)):
            self.register_buffer(key, torch.tensor(value, dtype=torch.float32).view(3, 1, 1), persistent=False)
        layers_first = LAYERS_FIRST[config.model_type]
        model.loss_function = partial(_loss_per_image, model.loss_function, layers_first=layers_first)
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "TransformersDetector":
        """Does nothing: a detector stays in evaluation mode."""
        return self

    def forward(self, image: Image) -> tuple[Float[Tensor, "batch n c"], Float[Tensor, "batch n 4"]]:
        """Class logits and boxes (centre x, centre y, width, height, in 0..1 of the image) of every query."""
        check_image(self.name, image, self.stride)
        output = self.model(pixel_values=self._normalised(image))
        return output.logits.float(), output.pred_boxes.float()

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """The library's training loss of each image, with the library's weights of its terms.

        Args:
            image: RGB in [0, 1], height and width multiples of `stride`.
            targets: one entry per image, boxes in pixels of `image`.

        Raises:
            DetectorError: the image has another shape, or the targets do not fit.
        """
        losses: Tensor = self._with_labels(image, targets).loss
        return losses

    def _with_labels(self, image: Image, targets: list[Targets]) -> Any:
        """The complete output of the network, with the loss of each image."""
        check_image(self.name, image, self.stride)
        if len(targets) != len(image):
            raise DetectorError(f"{self.name}: {len(image)} images but targets for {len(targets)}")
        side = image.new_tensor((image.shape[-1], image.shape[-2]) * 2)
        check_labels(targets, len(self.class_names))
        labels = []
        for target in targets:
            label = target.labels.to(image.device, torch.int64)
            labels.append({"class_labels": label, "boxes": xyxy_to_cxcywh(target.boxes.to(side) / side)})
        return self.model(pixel_values=self._normalised(image), labels=labels)

    @torch.no_grad()
    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """The detections of each image, with scores as in the library's post-processing.

        Networks with a class for "no object" give one class for each query; the others may give several.

        Args:
            image: RGB in [0, 1], height and width multiples of `stride`.
            confidence: scores at or below this are dropped.
            nms_iou: not used, since these networks are trained to find each object once.
            max_detections: per image.
        """
        logits, boxes = self.infer(image)
        return self._detections(logits, boxes, image.shape[-2:], confidence, max_detections)

    @torch.no_grad()
    def detect_with_loss(
        self,
        image: Image,
        targets: list[Targets],
        detect_in: int,
        confidence: float = 0.001,
        nms_iou: float = 0.6,
        max_detections: int = 300,
    ) -> tuple[list[Detections], Float[Tensor, " batch"]]:
        """Detections and loss from one forward pass, see `DetectsWithLoss`; from two if an engine runs the network."""
        if self.engine is not None:  # its outputs lack those of the inner layers, which the loss needs
            return self.detect(image[:detect_in], confidence, nms_iou, max_detections), self.loss(image, targets)
        output = self._with_labels(image, targets)
        logits, boxes = output.logits[:detect_in].float(), output.pred_boxes[:detect_in].float()
        return self._detections(logits, boxes, image.shape[-2:], confidence, max_detections), output.loss

    def _detections(
        self,
        logits: Float[Tensor, "batch n c"],
        boxes: Float[Tensor, "batch n 4"],
        size: torch.Size,
        confidence: float,
        max_detections: int,
    ) -> list[Detections]:
        height, width = size
        corners = cxcywh_to_xyxy(boxes) * boxes.new_tensor((width, height, width, height))
        results = []
        for image_logits, image_corners in zip(logits, corners, strict=True):
            scores = _scores(image_logits, len(self.class_names))
            query, label, score, dropped = choose(image_corners, scores, confidence, height, width)
            kept = torch.argsort(score, descending=True, stable=True)[:max_detections]
            found = clip_boxes(image_corners[query[kept]], height, width)
            results.append(Detections(found, score[kept], label[kept], dropped))
        return results

    def _normalised(self, image: Image) -> Image:
        return (image * self.scale - self.mean) / self.std


def _scores(logits: Float[Tensor, "n c"], classes: int) -> Float[Tensor, "n classes"]:
    """Scores of the classes of each query of an image; with softmax, only the best class has a score above 0."""
    if logits.shape[1] <= classes:
        return logits.sigmoid()
    scores = logits.softmax(-1)[:, :classes]  # the last logit is that of "no object"
    label = scores.argmax(-1, keepdim=True)  # one class for each query
    return torch.zeros_like(scores).scatter(1, label, scores.gather(1, label))


def _loss_per_image(
    criterion: Callable[..., tuple[Tensor, Any, Any]],
    logits: Tensor,
    labels: list[dict[str, Tensor]],
    device: torch.device,
    pred_boxes: Tensor,
    config: Any,
    outputs_class: Tensor | None = None,
    outputs_coord: Tensor | None = None,
    *,
    layers_first: bool,
    **others: Any,
) -> tuple[Float[Tensor, " batch"], None, None]:
    """The library's loss function `criterion` for each image; the other arguments are those that networks give it."""
    losses = []
    layer_dim = int(layers_first)
    for number, label in enumerate(labels):
        boxes = _one(pred_boxes, number)
        if not bool(boxes.isfinite().all()):  # the matching would raise an error, where other detectors give NaN
            losses.append(boxes.sum() * torch.nan)
            continue
        loss, _, _ = criterion(
            _one(logits, number),
            [label],
            device,
            boxes,
            config,
            _one(outputs_class, number, layer_dim),
            _one(outputs_coord, number, layer_dim),
            **{key: _one(value, number) for key, value in others.items()},
        )
        losses.append(loss.reshape(()))
    return torch.stack(losses), None, None


def _one(value: Any, number: int, dim: int = 0) -> Any:
    """The part of image `number` with its batch dimension; a value that is no tensor is returned unchanged."""
    # Under autocast the network computes in half precision, which the loss and the matching by scipy do not support.
    return value.narrow(dim, number, 1).float() if isinstance(value, Tensor) else value


def load_transformers(folder: Path, name: str | None = None) -> TransformersDetector:
    """The frozen detector in a folder that `save_pretrained` of the library transformers wrote.

    Args:
        folder: config.json, preprocessor_config.json, and model.safetensors or several such files with their index.
        name: short name for tables; by default the name of the folder.

    Raises:
        DetectorError: a file is missing or wrong, or the kind of network is not supported.
        WeightsError: the weights cannot be read or do not fit the network.
        AdaptiveISPError: transformers or scipy is not installed.
    """
    folder = Path(folder)
    config = read_config(folder / CONFIG)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in LAYERS_FIRST:
        raise DetectorError(
            f"{folder}: {CONFIG} has the model_type {shown(kind)}; give a detector of the type "
            f"{', '.join(LAYERS_FIRST)}"
        )
    pixels, files = read_pixels(folder / PREPROCESSOR), weights_files(folder)
    library = import_extra("transformers", EXTRA)
    import_extra("scipy", EXTRA)  # needed by the matching in the loss
    model = _load_model(library, folder, kind, config, files)
    return TransformersDetector(model, pixels, name or folder.resolve().name, hash_of(files))


def _load_model(library: Any, folder: Path, kind: str, content: dict[str, Any], files: list[Path]) -> nn.Module:
    """The network with its weights, in float32.

    The library is given the checked settings and the weights, but never the folder, so that it cannot read other files
    there, such as code, pickles, or adapters that name other folders.
    """
    with _quiet(library):
        try:
            config = library.CONFIG_MAPPING[kind].from_dict(content)
            config.anchor_image_size = None  # computes anchors for the size of each image
            network = library.MODEL_FOR_OBJECT_DETECTION_MAPPING[type(config)]
            _check_amount(network, config, folder, files)
            weights: dict[str, Tensor] = {}
            for file in files:
                weights |= load_file(file)
            model, found = network.from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # mismatches are refused below, with a message of one line
                output_loading_info=True,
                local_files_only=True,
            )
        except DetectorError:
            raise
        # A wrong config.json or a damaged file can make the library raise any exception.
        except Exception as error:
            if isinstance(error, ImportError) and "timm" in str(error):
                raise DetectorError(f"{folder}: {TIMM}") from error
            raise DetectorError(f"{folder}: transformers cannot load it: {reason_of(error)}; get it again") from error
    wrong = sorted(found["missing_keys"]) + sorted(str(entry[0]) for entry in found["mismatched_keys"])
    if wrong:
        raise WeightsError(
            f"{folder}: its weights do not fit {CONFIG}: {len(wrong)} missing or of another shape, such as {wrong[0]}; "
            "give the folder of a whole object-detection model"
        )
    bad = [key for key, value in model.state_dict().items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise WeightsError(f"{folder}: {len(bad)} of its weights hold values that are not finite; get them again")
    loaded: nn.Module = model
    return loaded


def _check_amount(network: Any, config: Any, folder: Path, files: list[Path]) -> None:
    """Refuses a network with more weights than its files can hold, before they are allocated.

    Raises:
        DetectorError: the network has too many weights; the message gives both sizes.
    """
    with torch.device("meta"):
        wanted = sum(value.numel() for value in network(config).parameters())
    held = sum(file.stat().st_size for file in files)
    if wanted > held:
        raise DetectorError(
            f"{folder}: {CONFIG} asks for {wanted} weights, but its files have {held} bytes; get it again"
        )


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keeps the library's progress bars and reports off the terminal; errors are raised anyway."""
    logging = library.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

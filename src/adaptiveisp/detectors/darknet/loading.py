"""Detectors in Darknet's format: a .cfg that describes the network and a .weights file that fills it.

Source: Redmon and Farhadi 2018 (YOLOv3) and the file formats of the public Darknet release.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptiveisp.detectors.darknet.layers import Convolution, Route, Shortcut, Yolo, build_layers, last_uses, read_cfg
from adaptiveisp.detectors.limits import MAX_LAYER_WEIGHTS, MAX_WEIGHTS
from adaptiveisp.detectors.yolo.detector import YoloDetector
from adaptiveisp.detectors.yolo.loss import Decode, Head
from adaptiveisp.errors import DetectorError, WeightsError
from adaptiveisp.types import Image

CFG_FOLDER = Path(__file__).parent / "cfg"
"""Folder of the .cfg files that come with the package."""


class Darknet(YoloDetector):
    """The frozen detector that a .cfg describes."""

    def __init__(
        self,
        cfg: Path,
        class_names: tuple[str, ...],
        name: str,
        decode: Decode = "darknet",
        weights_sha256: str = "",
        most_weights: int = MAX_WEIGHTS,
    ) -> None:
        """Builds the network that `cfg` describes, with random weights.

        Args:
            cfg: Darknet network description.
            class_names: index = label; as many as the network has classes.
            name: short name for tables.
            decode: decoding of its boxes, see `yolo.loss.Decode`.
            weights_sha256: hash of the weights file, "" if there is none.
            most_weights: most weights that the network may have.

        Raises:
            DetectorError: the description is wrong, exceeds `most_weights`, has no detection layer, or has another
                number of classes.
        """
        super().__init__(name, class_names, decode, weights_sha256)
        self.layers = nn.ModuleList(build_layers(read_cfg(cfg), most_weights))
        self.detection_layers = sorted(
            (layer for layer in self.layers if isinstance(layer, Yolo)), key=lambda layer: layer.stride
        )
        if not self.detection_layers:
            raise DetectorError(f"{cfg}: has no [yolo] section, so it detects nothing; give the .cfg of a detector")
        counts = {layer.classes for layer in self.detection_layers}
        if counts != {len(class_names)}:
            found = " and ".join(str(count) for count in sorted(counts))
            raise DetectorError(
                f"{cfg}: detects {found} classes, but {len(class_names)} names were given; write them into a .names "
                "file beside the weights, one a line (without it they are COCO's 80)"
            )
        self.stride = max(layer.stride for layer in self.detection_layers)
        self._last_use = last_uses(self.layers)
        self._freeze()
        self._lay_out()

    def fold(self) -> "Darknet":
        """Folds every batch norm into its convolution, which is faster; the output stays the same up to rounding."""
        for layer in self.layers:
            if isinstance(layer, Convolution):
                layer.fold()
        self._lay_out()
        return self

    def _lay_out(self) -> None:
        # Channels last makes forward and backward a quarter faster on a CPU (8 images of 320 pixels: 390 ms, not 530).
        for layer in self.layers:
            if isinstance(layer, Convolution):
                layer.conv.weight.data = layer.conv.weight.data.contiguous(memory_format=torch.channels_last)

    def _logits(self, image: Image) -> list[Head]:
        found: dict[int, Head] = {}
        kept: dict[int, Tensor] = {}
        x = image
        for number, layer in enumerate(self.layers):
            if isinstance(layer, Yolo):
                found[id(layer)] = layer(x)
            elif isinstance(layer, Route | Shortcut):
                x = layer.join([kept[source] for source in layer.sources])
            else:
                x = layer(x)
            if self._last_use.get(number, -1) > number:
                kept[number] = x
            for source in [source for source in kept if self._last_use[source] <= number]:
                del kept[source]
        return [found[id(layer)] for layer in self.detection_layers]


def load_darknet(
    cfg: Path,
    weights: Path,
    class_names: tuple[str, ...],
    name: str,
    decode: Decode = "darknet",
    fold: bool = True,
) -> Darknet:
    """The frozen detector that a .cfg and a .weights file describe.

    Args:
        cfg, weights: the two files.
        class_names: index = label.
        name: short name for tables.
        decode: decoding of its boxes, see `yolo.loss.Decode`.
        fold: whether to fold batch norms into convolutions; the output stays the same up to rounding.

    Raises:
        DetectorError: the description is wrong or does not fit the names.
        WeightsError: the weights cannot be read or do not fit the description.
    """
    try:
        content = Path(weights).read_bytes()
    except OSError as error:
        raise WeightsError(f"{weights}: cannot be read ({error.strerror}); give a Darknet .weights file") from error
    # A description with more weights than the file holds is refused before memory is allocated. Below the limit of one
    # layer the message of `_fill` is clearer, since it gives both sizes.
    most = max(len(content), MAX_LAYER_WEIGHTS)
    model = Darknet(cfg, class_names, name, decode, hashlib.sha256(content).hexdigest(), most)
    _fill(model, content, Path(weights), Path(cfg))
    return model.fold() if fold else model


def _fill(model: Darknet, content: bytes, weights: Path, cfg: Path) -> None:
    """Puts the values of a .weights file into an unfolded network."""
    convolutions = [layer for layer in model.layers if isinstance(layer, Convolution)]
    expected = sum(value.numel() for layer in convolutions for value in layer.parameters())
    expected += sum(2 * layer.norm.num_features for layer in convolutions if layer.norm is not None)
    # major, minor, revision as int32, then the number of images seen: 8 bytes since version 0.2, 4 before.
    header = 12
    if len(content) >= header:
        major, minor = (int(number) for number in np.frombuffer(content, "<i4", count=2))
        header += 8 if major * 10 + minor >= 2 and major < 1000 and minor < 1000 else 4
    if len(content) != header + 4 * expected:
        raise WeightsError(
            f"{weights}: has {len(content)} bytes, but {cfg.name} needs {header + 4 * expected}; "
            "get the weights again or give the .cfg that belongs to them"
        )
    values = np.frombuffer(content, "<f4", offset=header).astype(np.float32, copy=False)
    finite = np.isfinite(values)
    if not finite.all():
        raise WeightsError(
            f"{weights}: {len(values) - np.count_nonzero(finite)} of {len(values)} values are not finite; "
            "get the weights again"
        )
    for layer in convolutions:
        values = layer.fill(values)
        if layer.norm is not None and layer.norm.running_var is not None and (layer.norm.running_var < 0).any():
            raise WeightsError(f"{weights}: holds negative variances; get the weights again")

"""Checkpoints that look like those of the YOLOv3 and YOLOv5 repositories, from stand-ins for their classes.

The stand-ins compute plainly, batch norms as they are, and are what our networks are compared with. Their modules exist
only while a file is written: whoever reads it cannot import them.
"""

import copy
import math
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Yaml = dict[str, Any]

ANCHORS = [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
TINY_ANCHORS = [[10, 14, 23, 27, 37, 58], [81, 82, 135, 169, 344, 319]]


def conv(channels: int, size: Any = 3, stride: int = 1, number: int = 1) -> list[Any]:
    return [-1, number, "Conv", [channels, size, stride]]


def joined(with_layer: int) -> list[list[Any]]:
    return [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, with_layer], 1, "Concat", [1]]]


def yolov5(width: float, depth: float, classes: int = 80, version: int = 6) -> Yaml:
    """Versions 6 (a convolution of 6 pixels, SPPF), 5 (Focus, SPP) and 3 (the same with BottleneckCSP)."""
    block = "BottleneckCSP" if version == 3 else "C3"
    stem = [-1, 1, "Conv", [64, 6, 2, 2]] if version == 6 else [-1, 1, "Focus", [64, 3]]
    third = [-1, 6 if version == 6 else 9, block, [256]]
    spp, last = [-1, 1, "SPP", [1024, [5, 9, 13]]], [-1, 3, block, [1024, False]]
    end = [[-1, 3, block, [1024]], [-1, 1, "SPPF", [1024, 5]]] if version == 6 else [spp, last]
    backbone = [stem, conv(128, 3, 2), [-1, 3, block, [128]], conv(256, 3, 2), third, conv(512, 3, 2)]
    backbone += [[-1, 9, block, [512]], conv(1024, 3, 2), *end]
    head = [conv(512, 1), *joined(6), [-1, 3, block, [512, False]], conv(256, 1), *joined(4)]
    head += [[-1, 3, block, [256, False]], conv(256, 3, 2), [[-1, 14], 1, "Concat", [1]]]
    head += [[-1, 3, block, [512, False]], conv(512, 3, 2), [[-1, 10], 1, "Concat", [1]]]
    head += [[-1, 3, block, [1024, False]], [[17, 20, 23], 1, "Detect", ["nc", "anchors"]]]
    scale = {"nc": classes, "depth_multiple": depth, "width_multiple": width}
    return {**scale, "anchors": ANCHORS, "backbone": backbone, "head": head, "ch": 3}


def yolov3(width: float = 1.0, classes: int = 80, spp: bool = False) -> Yaml:
    backbone = [conv(32)]
    for channels, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        backbone += [conv(channels, 3, 2), [-1, count, "Bottleneck", [channels]]]
    middle = [-1, 1, "SPP", [512, [5, 9, 13]]] if spp else conv(512, [1, 1])
    head = [[-1, 1, "Bottleneck", [1024, False]], middle, conv(1024), conv(512, 1), conv(1024)]
    head += [[-2, 1, "Conv", [256, 1, 1]], *joined(8), [-1, 1, "Bottleneck", [512, False]]]
    head += [[-1, 1, "Bottleneck", [512, False]], conv(256, 1), conv(512)]
    head += [[-2, 1, "Conv", [128, 1, 1]], *joined(6), [-1, 1, "Bottleneck", [256, False]]]
    head += [[-1, 2, "Bottleneck", [256, False]], [[27, 22, 15], 1, "Detect", ["nc", "anchors"]]]
    scale = {"nc": classes, "depth_multiple": 1.0, "width_multiple": width}
    return {**scale, "anchors": ANCHORS, "backbone": backbone, "head": head}


def yolov3_tiny(width: float = 1.0, classes: int = 80) -> Yaml:
    backbone: list[list[Any]] = []
    for channels in (16, 32, 64, 128, 256):
        backbone += [conv(channels), [-1, 1, "nn.MaxPool2d", [2, 2, 0]]]
    backbone += [conv(512), [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]], [-1, 1, "nn.MaxPool2d", [2, 1, 0]]]
    head = [conv(1024), conv(256, 1), conv(512), [-2, 1, "Conv", [128, 1, 1]], *joined(8), conv(256)]
    head += [[[19, 15], 1, "Detect", ["nc", "anchors"]]]
    scale = {"nc": classes, "depth_multiple": 1.0, "width_multiple": width}
    return {**scale, "anchors": TINY_ANCHORS, "backbone": backbone, "head": head}


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, eps=1e-3, momentum=1.0)
    nn.init.uniform_(layer.weight, 0.5, 1.5)
    nn.init.normal_(layer.bias, 0, 0.3)
    return layer


class Conv(nn.Module):
    def __init__(self, c1: int, c2: int, k: Any = 1, s: int = 1, p: int | None = None, act: nn.Module | None = None):
        super().__init__()
        k = k[0] if isinstance(k, list) else k
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn, self.act = norm(c2), act or nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, int(c2 * e)), Conv(int(c2 * e), c2, 3)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x)) if self.add else self.cv2(self.cv1(x))


class C3(nn.Module):
    def __init__(self, c1: int, c2: int, n: int, shortcut: bool = True):
        super().__init__()
        c = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, c), Conv(c1, c), Conv(2 * c, c2)
        self.m = nn.Sequential(*(Bottleneck(c, c, shortcut, 1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class BottleneckCSP(nn.Module):
    def __init__(self, c1: int, c2: int, n: int, shortcut: bool = True):
        super().__init__()
        c = c2 // 2
        self.cv1, self.cv4 = Conv(c1, c), Conv(2 * c, c2)
        self.cv2, self.cv3 = nn.Conv2d(c1, c, 1, bias=False), nn.Conv2d(c, c, 1, bias=False)
        self.bn, self.act = norm(2 * c), nn.LeakyReLU(0.1)
        self.m = nn.Sequential(*(Bottleneck(c, c, shortcut, 1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv4(self.act(self.bn(torch.cat([self.cv3(self.m(self.cv1(x))), self.cv2(x)], 1))))


class SPP(nn.Module):
    def __init__(self, c1: int, c2: int, k: list[int]):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(c1 // 2 * (len(k) + 1), c2)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [pool(x) for pool in self.m], 1))


class SPPF(nn.Module):
    """Written as what it equals: windows of 5, 9 and 13."""

    def __init__(self, c1: int, c2: int, k: int):
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(c1 // 2 * 4, c2)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        x, k = self.cv1(x), self.m.kernel_size
        pools = [nn.functional.max_pool2d(x, n * (k - 1) + 1, 1, n * (k - 1) // 2) for n in (1, 2, 3)]
        return self.cv2(torch.cat([x, *pools], 1))


class Focus(nn.Module):
    def __init__(self, c1: int, c2: int, k: int):
        super().__init__()
        self.conv = Conv(4 * c1, c2, k)

    def forward(self, x: Tensor) -> Tensor:
        upper_left, lower_left = x[..., ::2, ::2], x[..., 1::2, ::2]
        upper_right, lower_right = x[..., ::2, 1::2], x[..., 1::2, 1::2]
        return self.conv(torch.cat([upper_left, lower_left, upper_right, lower_right], 1))


class Concat(nn.Module):
    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, 1)


class Detect(nn.Module):
    def __init__(self, nc: int, anchors: list[list[int]], channels: list[int], strides: list[int]):
        super().__init__()
        self.nc, self.na, self.nl = nc, len(anchors[0]) // 2, len(anchors)
        self.stride = torch.tensor(strides).float()
        pixels = torch.tensor(anchors).float().view(self.nl, -1, 2)
        self.register_buffer("anchors", pixels / self.stride.view(-1, 1, 1))
        self.m = nn.ModuleList(nn.Conv2d(c, self.na * (5 + nc), 1) for c in channels)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        heads = []
        for layer, part in zip(self.m, x, strict=True):
            y = layer(part)
            heads.append(y.view(len(y), self.na, 5 + self.nc, *y.shape[2:]).permute(0, 1, 3, 4, 2))
        return heads


class DetectionModel(nn.Module):
    """Reads a description row by row, as the repositories document it."""

    def __init__(self, yaml: Yaml, names: Any, strides: list[int]):
        super().__init__()
        self.yaml, self.names, self.nc, self.inplace = copy.deepcopy(yaml), names, yaml["nc"], True
        anchors = yaml["anchors"]
        unscaled, channels, layers = len(anchors[0]) // 2 * (5 + yaml["nc"]), [3], []
        for number, (source, count, kind, args) in enumerate(yaml["backbone"] + yaml["head"]):
            sources = [s if s < 0 else s + 1 for s in (source if isinstance(source, list) else [source])]
            before = [channels[s] for s in sources]
            after, count = before[0], max(round(count * yaml["depth_multiple"]), 1) if count > 1 else count
            if kind == "Concat":
                layer, after = Concat(), sum(before)
            elif kind == "Detect":
                layer = Detect(yaml["nc"], anchors, before, strides)
            elif kind == "nn.Upsample":
                layer = nn.Upsample(None, args[1], args[2])
            elif kind.startswith("nn."):
                layer = getattr(nn, kind[3:])(*args)
            else:
                after = args[0]
                if after != unscaled:
                    after = math.ceil(after * yaml["width_multiple"] / 8) * 8
                more, made = args[1:], globals()[kind]
                if kind in ("C3", "BottleneckCSP"):
                    layer = made(before[0], after, count, *more)
                else:
                    several = [made(before[0], after, *more) for _ in range(count)]
                    layer = several[0] if count == 1 else nn.Sequential(*several)
            layer.i, layer.f, layer.type = number, source, kind
            layers.append(layer)
            channels.append(after)
        self.model, self.stride = nn.Sequential(*layers), torch.tensor(strides).float()

    def forward(self, x: Tensor) -> Any:
        outputs: list[Any] = []
        for layer in self.model:
            if isinstance(layer.f, list):
                value = layer([outputs[f] for f in layer.f])
            else:
                value = layer(x if not outputs else outputs[layer.f])
            outputs.append(value)
        return outputs[-1]


COMMON = (Conv, Bottleneck, C3, BottleneckCSP, SPP, SPPF, Focus, Concat)
for stand_in in COMMON:
    stand_in.__module__ = "models.common"
for stand_in in (Detect, DetectionModel):
    stand_in.__module__ = "models.yolo"


@contextmanager
def repository_importable() -> Iterator[None]:
    """Inside, `models.common` and `models.yolo` exist, as pickling needs them."""
    fakes = {name: types.ModuleType(name) for name in ("models", "models.common", "models.yolo")}
    for stand_in in (*COMMON, Detect, DetectionModel):
        setattr(fakes[stand_in.__module__], stand_in.__name__, stand_in)
    before = {name: sys.modules.get(name) for name in fakes}
    sys.modules.update(fakes)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def stand_in_model(yaml: Yaml, seed: int = 0, half: bool = False) -> DetectionModel:
    """A model in evaluation mode with random weights."""
    names = [f"thing {label}" for label in range(yaml["nc"] - 1)] + ["cup"]
    strides = [8, 16, 32][-len(yaml["anchors"]) :]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DetectionModel(yaml, dict(enumerate(names)) if half else names, strides)
        # The norms take the statistics of these images, or what they show would be lost on the way to the heads.
        model.train()(torch.rand(4, 3, 64, 64))
    return (model.half() if half else model).eval().requires_grad_(False)


def save_checkpoint(path: Path, model: nn.Module, **changes: Any) -> Path:
    """What the repositories' training leaves; `changes` replace keys."""
    facts = {"epoch": -1, "best_fitness": np.array([0.5]), "updates": None, "optimizer": None, "wandb_id": None}
    facts |= {"opt": {"weights": "x.pt", "imgsz": 640}, "date": "2024-01-01T00:00:00"}
    with repository_importable():
        torch.save({**facts, "ema": None, "model": model, **changes}, path)
    return path

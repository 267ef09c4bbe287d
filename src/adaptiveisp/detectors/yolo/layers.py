"""The layers of YOLOv3 and YOLOv5 networks, with batch norms folded and submodules named as in their checkpoints.

Every layer is built on the "meta" device, without memory for its weights, which come from a file.
Source: the architectures as published with YOLOv3 (Redmon and Farhadi 2018), CSPNet (Wang et al. 2020), spatial pyramid
pooling (He et al. 2015) and the network descriptions of the YOLOv3 and YOLOv5 repositories.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptiveisp.detectors.darknet.layers import LEAKY_SLOPE

ACTIVATIONS = ("silu", "leaky", "hardswish", "relu", "linear")


def activate(x: Tensor, activation: str) -> Tensor:
    """The activation function (one of `ACTIVATIONS`) of each value; `x` may be overwritten."""
    # The gradients of leaky and relu need only their output; the others need their input, which must then be kept.
    inplace = not x.requires_grad
    match activation:
        case "silu":
            return F.silu(x, inplace=inplace)
        case "hardswish":
            return F.hardswish(x, inplace=inplace)
        case "leaky":
            return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)
        case "relu":
            return F.relu(x, inplace=True)
    return x


def plain_convolution(c1: int, c2: int, size: int = 1, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution with bias, without values; the default padding gives an output of the input's size / stride."""
    return nn.Conv2d(c1, c2, size, stride, size // 2 if padding is None else padding, device="meta")


class Conv(nn.Module):
    """Convolution with folded batch norm, and activation."""

    def __init__(self, c1: int, c2: int, size: int = 1, stride: int = 1, padding: int | None = None) -> None:
        """From `c1` to `c2` channels."""
        super().__init__()
        self.conv = plain_convolution(c1, c2, size, stride, padding)
        self.activation = "silu"

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return activate(self.conv(x), self.activation)


class Bottleneck(nn.Module):
    """1x1 convolution to fewer channels and 3x3 back, plus the input if `shortcut` is set and the channels agree."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, inner: int | None = None) -> None:
        """The two convolutions have `inner` channels between them, by default half of `c2`."""
        super().__init__()
        inner = c2 // 2 if inner is None else inner
        self.cv1, self.cv2 = Conv(c1, inner), Conv(inner, c2, 3)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


def _bottlenecks(channels: int, count: int, shortcut: bool) -> nn.Sequential:
    return nn.Sequential(*(Bottleneck(channels, channels, shortcut, inner=channels) for _ in range(count)))


class C3(nn.Module):
    """Cross-stage partial block with three convolutions: half of the channels pass through the bottlenecks."""

    def __init__(self, c1: int, c2: int, count: int, shortcut: bool = True) -> None:
        """`count` bottlenecks."""
        super().__init__()
        half = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, half), Conv(c1, half), Conv(2 * half, c2)
        self.m = _bottlenecks(half, count, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))  # type: ignore[no-any-return]


class BottleneckCSP(nn.Module):
    """Cross-stage partial block as published; the batch norm after the concatenation is folded into both branches."""

    def __init__(self, c1: int, c2: int, count: int, shortcut: bool = True) -> None:
        """`count` bottlenecks."""
        super().__init__()
        half = c2 // 2
        self.cv1, self.cv4 = Conv(c1, half), Conv(2 * half, c2)
        self.cv2, self.cv3 = plain_convolution(c1, half), plain_convolution(half, half)
        self.m = _bottlenecks(half, count, shortcut)
        self.activation = "leaky"

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        joined = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), dim=1)
        return self.cv4(activate(joined, self.activation))  # type: ignore[no-any-return]


class SPP(nn.Module):
    """Spatial pyramid pooling: the input concatenated with its max poolings over several windows."""

    def __init__(self, c1: int, c2: int, sizes: tuple[int, ...] = (5, 9, 13)) -> None:
        """The windows have `sizes` pixels, which are odd."""
        super().__init__()
        half = c1 // 2
        self.cv1, self.cv2 = Conv(c1, half), Conv(half * (len(sizes) + 1), c2)
        self.sizes = sizes

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        x = self.cv1(x)
        pooled = [F.max_pool2d(x, size, 1, size // 2) for size in self.sizes]
        return self.cv2(torch.cat((x, *pooled), dim=1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Spatial pyramid pooling by three max poolings in a row: windows of 5, 9 and 13 pixels for a `size` of 5."""

    def __init__(self, c1: int, c2: int, size: int = 5) -> None:
        """Each pooling has a window of `size` pixels, which is odd."""
        super().__init__()
        half = c1 // 2
        self.cv1, self.cv2 = Conv(c1, half), Conv(half * 4, c2)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], self.size, 1, self.size // 2))
        return self.cv2(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


class Focus(nn.Module):
    """Each 2x2 block of pixels as channels (upper left, lower left, upper right, lower right), then a convolution."""

    def __init__(self, c1: int, c2: int, size: int = 1, stride: int = 1, padding: int | None = None) -> None:
        """The arguments are those of the convolution, which works at half the resolution."""
        super().__init__()
        self.conv = Conv(4 * c1, c2, size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        parts = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(parts, dim=1))  # type: ignore[no-any-return]


class Concat(nn.Module):
    """Concatenated channels of several layers."""

    def forward(self, parts: list[Tensor]) -> Tensor:
        """The layer's output."""
        return torch.cat(parts, dim=1)


class Detect(nn.Module):
    """One 1x1 convolution for each detection layer."""

    def __init__(self, channels: tuple[int, ...], values: int) -> None:
        """Each cell has `values` = anchors x (5 + classes) channels."""
        super().__init__()
        self.m = nn.ModuleList(plain_convolution(c, values) for c in channels)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        """The logits of each layer, with channels first."""
        return [convolution(part) for convolution, part in zip(self.m, parts, strict=True)]

"""Small networks in Darknet's format, and random weights for them, shared by the detector tests."""

from pathlib import Path

import numpy as np

# Every layer kind once: grouped convolution, halving, residual, pyramid pooling, stride-1 pooling of size 2, grouped
# route, upsampling, a join of strides, two detection layers (coarse first, as in YOLOv3).
MIXED = """
[net]
channels=3
[convolutional]   # 0: stride 2, no norm
filters=8
size=3
stride=2
pad=1
activation=leaky
[maxpool]         # 1: stride 4
size=2
stride=2
[convolutional]   # 2
batch_normalize=1
filters=8
size=1
activation=relu
[convolutional]   # 3
batch_normalize=1
filters=8
size=3
pad=1
groups=2
activation=leaky
[shortcut]        # 4
from=-3
activation=linear
[convolutional]   # 5: stride 8
batch_normalize=1
filters=12
size=3
stride=2
pad=1
activation=leaky
[maxpool]         # 6
size=2
stride=1
[maxpool]         # 7
size=5
stride=1
[route]           # 8
layers=-2
[maxpool]         # 9
size=3
stride=1
[route]           # 10: 12 + 12 + 12 channels
layers=-1,-3,-5
[convolutional]   # 11
filters=14
size=1
activation=linear
[yolo]            # 12
mask=2,3
anchors=4,4, 8,6, 12,20, 30,24
classes=2
num=4
[route]           # 13: the second half of layer 10's channels
layers=10
groups=2
group_id=1
[upsample]        # 14: stride 4
stride=2
[route]           # 15: 18 + 8 channels
layers=-1, 4
[convolutional]   # 16
batch_normalize=1
filters=14
size=1
activation=linear
[yolo]            # 17
mask=0,1
anchors=4,4, 8,6, 12,20, 30,24
classes=2
num=4
"""

MIXED_CONVOLUTIONS = (
    # in channels per group, filters, size, batch norm
    (3, 8, 3, False),
    (8, 8, 1, True),
    (4, 8, 3, True),
    (8, 12, 3, True),
    (36, 14, 1, False),
    (26, 14, 1, True),
)
"""The convolutions of `MIXED` in order, by hand: what its weights file must hold."""

ONE_LAYER = """
[net]
channels=3
[convolutional]
filters=7
size=1
stride=8
activation=linear
[yolo]
mask=0
anchors=16,8
classes=2
"""


def header(seen_bytes: int = 8) -> bytes:
    """The start of a weights file: version 0.2.0 with 8 bytes of images seen, or 0.1.0 with 4."""
    version = (0, 2, 0) if seen_bytes == 8 else (0, 1, 0)
    return np.array(version, "<i4").tobytes() + bytes(seen_bytes)


def mixed_weights(seed: int = 0) -> bytes:
    """A weights file for `MIXED` with random but tame values; variances are positive."""
    rng = np.random.default_rng(seed)
    parts = []
    for channels, filters, size, norm in MIXED_CONVOLUTIONS:
        parts.append(rng.normal(0, 0.3, filters))
        if norm:
            parts += [rng.uniform(0.5, 1.5, filters), rng.normal(0, 0.3, filters), rng.uniform(0.3, 2, filters)]
        parts.append(rng.normal(0, 1 / np.sqrt(channels * size * size), filters * channels * size * size))
    return header() + np.concatenate(parts).astype("<f4").tobytes()


def write_mixed(folder: Path, stem: str = "mixed") -> tuple[Path, Path]:
    """`MIXED` and its weights as `stem`.cfg and `stem`.weights in `folder`."""
    cfg, weights = folder / f"{stem}.cfg", folder / f"{stem}.weights"
    cfg.write_text(MIXED, encoding="utf-8")
    weights.write_bytes(mixed_weights())
    return cfg, weights

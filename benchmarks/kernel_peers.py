"""The kernels against the best that OpenCV, PyTorch and NumPy offer for the same output: float32 RGB, levels, clipping.

    python benchmarks/kernel_peers.py [--threads 1] [--repeats 21] [--only NAME]

All run in one process, in a random order in each round, each into new memory. With one thread the times are processor
time, which other programs on the machine disturb little; with more they are the time that passed. The ratio is the
median of the ratios to the fastest peer in the same round; above 1.2 it is marked. OpenCV's images are interleaved, the
others planar, as each library prefers. The peer of non-local means computes in 8 bits and searches in another colour
space, so it is not the same output. The script needs `pip install opencv-python-headless`.
"""

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # set for older libraries; they would slow down numpy
    os.environ.pop(name, None)

import cv2
import numpy as np
import torch
from torch.nn import functional

from adaptiveisp.detectors.letterbox import pad_to_frame, resize_longer_side
from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.registry import find_module
from adaptiveisp.raw.demosaic import compiled
from adaptiveisp.utils.allocator import keep_freed_memory

BAR = 1.2
Functions = dict[str, Callable[[], object]]


def clipped(image: np.ndarray) -> np.ndarray:
    """An OpenCV image clipped to [0, 1] in place."""
    cv2.threshold(image, 1, 1, cv2.THRESH_TRUNC, dst=image)
    return cv2.threshold(image, 0, 0, cv2.THRESH_TOZERO, dst=image)[1]


def demosaicing(height: int, width: int) -> Functions:
    """A 12-bit mosaic to float RGB: levels, clip, interpolation, clip."""
    codes = np.random.default_rng(0).integers(256, 4096, (height, width), dtype=np.uint16)
    mosaic, black, scale = torch.from_numpy(codes), (256.0,) * 4, (1 / 3839,) * 4

    def opencv() -> np.ndarray:
        rgb = cv2.demosaicing(codes, cv2.COLOR_BayerRGGB2RGB)
        return clipped(cv2.addWeighted(rgb, scale[0], rgb, 0, -256 * scale[0], dtype=cv2.CV_32F))

    return {
        "ours, Malvar": lambda: compiled(mosaic, "RGGB", "malvar", black, scale),
        "ours, bilinear": lambda: compiled(mosaic, "RGGB", "bilinear", black, scale),
        "OpenCV, bilinear": opencv,
    }


def pointwise(height: int, width: int) -> dict[str, Functions]:
    """Modules that work on each pixel by itself."""
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    array, pixels = image.numpy(), np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    matrix = torch.tensor([[1.5, -0.3, -0.2], [-0.2, 1.4, -0.2], [0.0, -0.5, 1.5]])
    square = matrix.numpy()
    slopes = [1.4, 1.3, 1.2, 1.1, 0.9, 0.8, 0.7, 0.6]

    def ours(name: str, *params: float) -> Callable[[], object]:
        call = [(find_module(name, "extended"), list(params))]
        return lambda: run_one(image, call)

    def opencv_saturation() -> np.ndarray:
        hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
        saturation += (1 - saturation) * (0.5 - np.abs(0.5 - value)) * 0.8
        raised = cv2.cvtColor(cv2.merge((hue, saturation, value)), cv2.COLOR_HSV2RGB)
        return clipped(cv2.addWeighted(pixels, 0.5, raised, 0.5, 0))

    def torch_curve() -> torch.Tensor:
        total = torch.tensor(slopes).sum()
        curve = torch.zeros_like(image)
        for part, slope in enumerate(slopes):
            curve.add_((image - part / 8).clamp_(0, 1 / 8), alpha=float(slope / total * 8))
        return curve.clamp_(0, 1)

    knots = np.concatenate([[0], np.cumsum(slopes) / np.sum(slopes)]).astype(np.float32)
    grid = np.linspace(0, 1, 9, dtype=np.float32)
    return {
        "exposure": {
            "ours": ours("exposure", 0.7),
            "PyTorch": lambda: torch.mul(image, 2**0.7).clamp_(0, 1),
            "NumPy": lambda: np.clip(product := array * np.float32(2**0.7), 0, 1, out=product),
            "OpenCV": lambda: clipped(cv2.multiply(pixels, (2**0.7,) * 3)),
        },
        "white_balance": {
            "ours": ours("white_balance", 1.7, 0.9, 1.2),
            "PyTorch": lambda: torch.mul(image, torch.tensor([1.7, 0.9, 1.2])[:, None, None]).clamp_(0, 1),
            "OpenCV": lambda: clipped(cv2.multiply(pixels, (1.7, 0.9, 1.2, 0))),
        },
        "ccm": {
            "ours": ours("ccm", *matrix.flatten().tolist()),
            "PyTorch": lambda: (matrix @ image.view(3, -1)).clamp_(0, 1),
            "NumPy": lambda: np.clip(product := square @ array.reshape(3, -1), 0, 1, out=product),
            "OpenCV": lambda: clipped(cv2.transform(pixels, square)),
        },
        "gamma": {
            "ours": ours("gamma", 0.45),
            "PyTorch": lambda: image.clamp(1e-4, 1).pow_(0.45),
            "OpenCV": lambda: clipped(cv2.pow(pixels, 0.45)),
        },
        "tone": {
            "ours": ours("tone", *slopes),
            "PyTorch": torch_curve,
            "NumPy, in float64": lambda: np.interp(array, grid, knots),
        },
        "saturation": {
            "ours": ours("saturation", 0.5),
            "OpenCV": opencv_saturation,
        },
        "desaturation": {
            "ours": ours("desaturation", 0.5),
            "PyTorch": lambda: image.lerp(
                (0.27 * image[0]).add_(image[1], alpha=0.67).add_(image[2], alpha=0.06)[None], 0.5
            ).clamp_(0, 1),
        },
    }


def filters(height: int, width: int) -> dict[str, Functions]:
    """Modules that look at neighbours, resizing and letterboxing."""
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    bytes_ = (pixels * 255).round().astype(np.uint8)
    sharpen, denoise = (find_module(name, "paper") for name in ("sharpen", "denoise"))
    smooth = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    kernel = -1.0 * smooth
    kernel[1, 1] += 2.0
    small = resize_longer_side(image, 416)
    little = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
    top = (416 - small.shape[1]) // 2
    border = (top, 416 - small.shape[1] - top, 0, 0, cv2.BORDER_CONSTANT)
    side = (416, small.shape[1])
    found: dict[str, Functions] = {
        "sharpen": {
            "ours": lambda: run_one(image, [(sharpen, [2.0])]),
            "OpenCV": lambda: clipped(cv2.filter2D(pixels, -1, kernel)),
        },
        "resize to 416": {
            "ours (PyTorch's antialiased bilinear)": lambda: resize_longer_side(image, 416),
            "OpenCV, area": lambda: clipped(cv2.resize(pixels, side, interpolation=cv2.INTER_AREA)),
        },
        "letterbox": {
            "ours": lambda: pad_to_frame(small[None], 416, (height, width)),
            "PyTorch": lambda: functional.pad(small[None], (0, 0, top, 416 - small.shape[1] - top), value=0.5),
            "OpenCV": lambda: cv2.copyMakeBorder(little, *border, value=(0.5,) * 3),
        },
    }
    if height * width <= 1 << 18:
        found["non-local means 11x11, 5x5"] = {
            "ours": lambda: run_one(image, [(denoise, [0.3])]),
            "OpenCV, 8 bit, not the same output": lambda: cv2.fastNlMeansDenoisingColored(bytes_, None, 10, 10, 5, 11),
        }
    return found


def compare(title: str, functions: Functions, repeats: int, clock: Callable[[], float]) -> None:
    """Prints the median milliseconds of each function, and the ratio of ours to the fastest peer."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    order = random.Random(0)
    for _ in range(repeats + 2):
        # In a random order, since each function gets the memory, still in the cache, that the one before it gave back.
        for name, function in order.sample(list(functions.items()), len(functions)):
            start = clock()
            function()
            taken[name].append((clock() - start) * 1e3)
    medians = {name: statistics.median(series[2:]) for name, series in taken.items()}
    peers = [name for name in functions if not name.startswith("ours")]
    fastest = min(peers, key=lambda name: medians[name])
    for name, milliseconds in medians.items():
        ratio = statistics.median(a / b for a, b in zip(taken[name][2:], taken[fastest][2:], strict=True))
        mark = " above the bar" if name.startswith("ours") and ratio > BAR else ""
        print(f"{title:32} {name:40} {milliseconds:9.3f} ms  {ratio:6.2f} of {fastest}{mark}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--only", default="", help="only comparisons whose title has this text")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    tables: dict[str, Functions] = {"demosaic 4000x3000": demosaicing(3000, 4000)}
    tables["demosaic 1920x1080"] = demosaicing(1080, 1920)
    for height, width in ((512, 512), (1080, 1920)):
        for name, functions in {**pointwise(height, width), **filters(height, width)}.items():
            tables[f"{name} {width}x{height}"] = functions
    for title, functions in tables.items():
        if options.only in title:
            compare(title, functions, 7 if "4000" in title else options.repeats, clock)


if __name__ == "__main__":
    main()

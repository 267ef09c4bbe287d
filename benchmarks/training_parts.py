"""Run times of the costly parts of a training iteration: the detector in two precisions, and the denoiser.

python benchmarks/training_parts.py --threads 1 --repeats 7
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.isp.modules.denoise import denoise
from adaptiveisp.training.gradients import detector_loss
from adaptiveisp.types import Targets


def timed(forward: Callable[[], Tensor], leaf: Tensor) -> tuple[float, float]:
    """Seconds of the forward and of the backward pass."""
    start = time.perf_counter()
    total = forward().sum()
    middle = time.perf_counter()
    torch.autograd.grad(total, leaf)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    detector = load_detector("yolov3-tiny")
    image = torch.rand(8, 3, 320, 320)
    targets = [Targets(torch.tensor([[10.0, 10, 100, 100], [50, 60, 200, 300]]), torch.tensor([0, 5]))] * 8
    leaf, h = image.clone().requires_grad_(), torch.full((8, 1), 0.1, requires_grad=True)
    cases: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
        "detector, float32": (lambda: detector_loss(detector, leaf, targets, "float32"), leaf),
        "detector, bfloat16": (lambda: detector_loss(detector, leaf, targets, "bfloat16"), leaf),
        "denoise, gradient of image and h": (lambda: denoise(leaf, h), h),
        "denoise, gradient of h alone": (lambda: denoise(image, h), h),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for _ in range(options.repeats):  # the cases are interleaved
        for name, (forward, wanted) in cases.items():
            found[name].append(timed(forward, wanted))
    for name, times in found.items():
        forward, backward = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:34} forward {1e3 * forward:7.1f} ms   backward {1e3 * backward:7.1f} ms")
    exact, half = (detector_loss(detector, image, targets, p).detach() for p in ("float32", "bfloat16"))
    print(f"the loss in bfloat16 differs by at most {(exact - half).abs().max():.1e}")


if __name__ == "__main__":
    main()

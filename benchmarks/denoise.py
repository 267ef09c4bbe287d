"""Non-local means in training: memory and time of the forward and backward pass for a batch of 8 at 320x320.

    python benchmarks/denoise.py [--threads 2] [--repeats 5]

The references are the package's PyTorch code (with the kernels turned off) and the plain version of plain.py under
autograd. The extra memory is measured first, as the growth of the process's peak. speed.py compares non-local means
without gradients, also with OpenCV.
"""

import argparse
import resource
from collections.abc import Callable

import plain
import torch

from adaptiveisp.evaluation.benchmark import medians
from adaptiveisp.isp.modules.denoise import PAPER as denoise
from adaptiveisp.kernels.loading import turned_off

BATCH, SIZE = 8, 320
STRENGTH = 0.3


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def both_ways(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], batch: int, of_image: bool) -> None:
    """Runs the forward and backward pass, with the gradients of the image and h, or of h alone."""
    image = torch.rand(batch, 3, SIZE, SIZE, requires_grad=of_image)
    function(image, torch.full((batch, 1), STRENGTH, requires_grad=True)).sum().backward()


def extra_memory() -> int:
    """Growth of the memory peak by the forward and backward pass of a batch, with its input and output."""
    denoise(torch.rand(1, 3, 32, 32, requires_grad=True), torch.full((1, 1), STRENGTH)).sum().backward()
    before = peak_bytes()
    both_ways(denoise, BATCH, of_image=True)
    return peak_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"peak grows by {extra_memory() / 1e6:.0f} MB")

    def in_pytorch(of_image: bool) -> None:
        with turned_off():
            both_ways(denoise, BATCH, of_image)

    found = medians(
        {
            "ours, gradient of image and h": lambda: both_ways(denoise, BATCH, True),
            "ours, gradient of h alone": lambda: both_ways(denoise, BATCH, False),
            "ours in PyTorch, image and h": lambda: in_pytorch(True),
            "ours in PyTorch, h alone": lambda: in_pytorch(False),
            "plain rolls, image and h, one image of the 8": lambda: both_ways(plain.denoise, 1, True),
        },
        options.repeats,
    )
    for name, ms in found.items():
        print(f"{name:46} {ms:9.1f} ms")


if __name__ == "__main__":
    main()

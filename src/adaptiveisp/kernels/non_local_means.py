"""Non-local means by the kernels of csrc/: the filter and its gradients, float32 on the CPU.

The formulas are in the docstring of `isp.modules.denoise`, whose PyTorch code gives the same values to rounding.
"""

import math
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels.checks import batch_of_images, is_float32, require, require_planes
from adaptiveisp.kernels.forward import rows_for_threads
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import scratch, spread

Batch = Float[Tensor, "batch 3 height width"]
Strengths = Float[Tensor, "batch 1 1"]


LARGEST_REACH = 5
"""Largest `search_radius` of the kernels, SEARCH of csrc/non_local_means.c.inc."""
STEPS = (1, 2)
"""Values of `search_step` that the kernels have."""


def nlm_forward(
    image: Batch, h: Strengths, epsilon: float = 0.0, search_radius: int = LARGEST_REACH, search_step: int = 1
) -> tuple[Batch, Float[Tensor, "batch height width"]]:
    """Filtered images, not clipped, and the sum of the weights at each pixel.

    Args:
        image: RGB in [0, 1].
        h: filter strength of each image, with the epsilon added; above 0.
        epsilon: added to all squared distances, as `isp.modules.pos_isp_denoise` does, whose distances are those of the
            image clipped to [0, 1]; 0 for `isp.modules.denoise`.
        search_radius: reach of the search window on each side in pixels, a multiple of the step up to `LARGEST_REACH`.
        search_step: pixels from one of its offsets to the next, one of `STEPS`.

    Raises:
        ValueError: an argument does not fit.
    """
    image = batch_of_images(image)
    _require_window(search_radius, search_step)
    output, total = torch.empty_like(image), torch.empty_like(image[:, 0])
    kernel, exponents, (height, width) = function("nlm_forward"), _exponents(h, len(image)), image.shape[2:]

    def work(i: int, start: int, stop: int) -> None:
        planes = (image[i].data_ptr(), output[i].data_ptr(), total[i].data_ptr())
        place = (height, width, start, stop, search_radius, search_step)
        kernel(*planes, *place, exponents[i], epsilon, scratch(function("nlm_scratch")()))

    spread([partial(work, *task) for task in _tasks(image)])
    return output, total


def nlm_backward(
    image: Batch,
    h: Strengths,
    output: Batch,
    total: Float[Tensor, "batch height width"],
    grad: Batch,
    of_image: bool,
    search_radius: int = LARGEST_REACH,
    search_step: int = 1,
) -> tuple[Batch | None, Strengths]:
    """Gradients of the images, where they are wanted, and of h.

    Args:
        image, h: the inputs of `nlm_forward`.
        output, total: its results.
        grad: gradient of the output.
        of_image: False leaves out the images' gradient, which saves two thirds of the time.
        search_radius, search_step: as for `nlm_forward`.

    Raises:
        ValueError: an argument does not fit.
    """
    image = batch_of_images(image)
    for tensor, name in ((output, "the output"), (grad, "the gradient")):
        fits = is_float32(tensor) and tensor.shape == image.shape
        require(fits, f"{name} must be float32 {tuple(image.shape)} on the CPU")
    _require_window(search_radius, search_step)
    require_planes(total, tuple(image[:, 0].shape), "the sums of weights")
    ratio = (grad / total[:, None]).contiguous()
    scalar = (ratio * output).sum(dim=1).neg_()
    grad_image = torch.empty_like(image) if of_image else None
    exponents, (height, width) = _exponents(h, len(image)), image.shape[2:]
    inverses = (1 / h).flatten().tolist()

    def work(i: int, start: int, stop: int) -> float:
        planes = (image[i].data_ptr(), ratio[i].data_ptr(), scalar[i].data_ptr())
        place = (height, width, start, stop, search_radius, search_step, exponents[i])
        memory = scratch(function("nlm_scratch")())
        if grad_image is None:
            found: float = function("nlm_backward_h")(*planes, *place, memory)
            return found
        found = function("nlm_backward")(*planes, grad_image[i].data_ptr(), *place, inverses[i], memory)
        return found

    tasks = _tasks(image)
    sums = torch.zeros(len(image), dtype=torch.float64)
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += found
    return grad_image, (sums.reshape(h.shape) / h.double().square()).to(h.dtype)


def _require_window(search_radius: int, search_step: int) -> None:
    """Raises ValueError for a search window that the kernels do not have."""
    require(search_step in STEPS, f"search_step must be one of {STEPS}")
    fits = search_step <= search_radius <= LARGEST_REACH and search_radius % search_step == 0
    require(fits, f"search_radius must be {search_step} to {LARGEST_REACH}, and a multiple of search_step")


def _tasks(image: Batch) -> list[tuple[int, int, int]]:
    """(image, first row, last row) of each part of a batch: whole images where there are enough for all threads."""
    batch, _, height, width = image.shape
    rows = [(0, height)] if batch >= torch.get_num_threads() else rows_for_threads(height, width)
    return [(i, a, b) for i in range(batch) for a, b in rows]


def _exponents(h: Strengths, batch: int) -> list[float]:
    """-log2(e)/h of each image: a weight is 2 to the power of this times the distance."""
    strengths = h.flatten().tolist()
    fits = is_float32(h) and len(strengths) == batch and all(value != 0 for value in strengths)
    require(fits, f"h must be one float32 number above 0 for each of {batch} images")
    return [-math.log2(math.e) / value for value in strengths]

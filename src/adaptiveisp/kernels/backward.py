"""Kernels of csrc/ for training: batches in which each image has parameters of its own, and their gradients.

Nothing here knows autograd; `autograd` puts forward and backward together.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels import forward
from adaptiveisp.kernels.checks import (
    batch_of_images,
    cells_of,
    overlap,
    require,
    require_cell,
    require_planes,
)
from adaptiveisp.kernels.forward import CONSTANTS, OPERATIONS, TILE_ROWS
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread

LEAST_POINTWISE = 1 << 16
"""Least pixels for a thread: a backward pass takes a nanosecond or two for each."""

_DOUBLE, _INT, _FLOAT = ctypes.c_double, ctypes.c_int32, ctypes.c_float
_CODES = {name: code for code, name in enumerate(OPERATIONS)}

Batch = Float[Tensor, "batch 3 height width"]
Cells = Float[Tensor, "batch 6 rows columns"]
BasePlanes = Float[Tensor, "batch 2 rows columns"]
Scalars = Float[Tensor, " batch"]
Constants = Float[Tensor, "batch n"]


def _cut(batch: int, n: int, unit: int, least: int) -> list[tuple[int, int, int]]:
    """(image, start, stop) of each part of a batch: whole images where there are enough for all threads."""
    cuts = [(0, n)] if batch >= torch.get_num_threads() else ranges(n, unit, least)
    return [(i, start, stop) for i in range(batch) for start, stop in cuts]


def _cut_rows(image: Batch) -> list[tuple[int, int, int]]:
    return _cut(len(image), image.shape[2], TILE_ROWS, forward.LEAST_PIXELS // image.shape[3])


def _summed(tasks: list[tuple[int, int, int]], work: Callable[..., Any], batch: int, n: int) -> Tensor:
    """Sums over the parts of each image of the n numbers that work(image, start, stop) returns, in float64."""
    sums = torch.zeros(batch, n, dtype=torch.float64)
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += torch.tensor(found, dtype=torch.float64)
    return sums


def _both(image: Tensor, grad: Tensor) -> tuple[Batch, Batch]:
    """The images and the gradient of the result, checked and contiguous."""
    image, grad = batch_of_images(image), batch_of_images(grad)
    require(image.shape == grad.shape, "the gradient must have the shape of the images")
    return image, grad


def _address(batch: Tensor | None, i: int) -> int | None:
    return None if batch is None else batch[i].data_ptr()


def _rows_of(name: str, constants: Constants, image: Tensor) -> list[Any]:
    """The numbers of each image as the kernels take them, the unused ones 0."""
    require(name in OPERATIONS, f"kernels have no operation {name!r}; choose one of {', '.join(OPERATIONS)}")
    fits = tuple(constants.shape) == (len(image), OPERATIONS[name])
    require(fits, f"{tuple(constants.shape)} are no numbers of the operation {name} for {len(image)} images")
    return [(_FLOAT * CONSTANTS)(*row) for row in constants.tolist()]


def _one_each(values: Scalars, image: Batch, name: str) -> list[float]:
    """One number for each image, as Python's."""
    require(tuple(values.shape) == (len(image),), f"give one {name} for each of {len(image)} images")
    numbers: list[float] = values.tolist()
    return numbers


def pointwise(image: Batch, name: str, constants: Constants) -> Batch:
    """The clipped images after one operation of `forward.chain`, each with its own numbers.

    Args:
        image: RGB in [0, 1].
        name: of `forward.OPERATIONS`.
        constants: the operation's numbers, one row an image.

    Raises:
        ValueError: an argument does not fit.
    """
    image = batch_of_images(image)
    target, rows = torch.empty_like(image), _rows_of(name, constants, image)
    kernel, plane, code = function("chain"), image.shape[2] * image.shape[3], _INT(_CODES[name])

    def work(i: int, start: int, stop: int) -> None:
        planes = (image[i].data_ptr(), target[i].data_ptr(), plane)
        kernel(*planes, start, stop, ctypes.addressof(code), ctypes.addressof(rows[i]), 1)

    spread([partial(work, *task) for task in _cut(len(image), plane, 1024, LEAST_POINTWISE)])
    return target


def pointwise_backward(
    image: Batch, name: str, constants: Constants, grad: Batch, of_image: bool
) -> tuple[Batch | None, Constants]:
    """Gradients of the images, where they are wanted, and of the numbers of `pointwise`.

    Args:
        image, name, constants: the inputs of `pointwise`.
        grad: gradient of its result.
        of_image: False leaves out the images' gradient.
    """
    image, grad = _both(image, grad)
    target, rows = torch.empty_like(image) if of_image else None, _rows_of(name, constants, image)
    kernel, plane, code = function("pointwise_backward"), image.shape[2] * image.shape[3], _CODES[name]

    def work(i: int, start: int, stop: int) -> list[float]:
        sums = (_DOUBLE * CONSTANTS)()
        planes = (image[i].data_ptr(), grad[i].data_ptr(), _address(target, i), plane)
        kernel(*planes, start, stop, code, ctypes.addressof(rows[i]), ctypes.addressof(sums))
        return list(sums)

    sums = _summed(_cut(len(image), plane, 1024, LEAST_POINTWISE), work, len(image), CONSTANTS)
    return target, sums[:, : constants.shape[1]].to(constants.dtype)


def sharpen(image: Batch, factor: Scalars) -> Batch:
    """The images after `forward.sharpen`, each with its own factor."""
    image = batch_of_images(image)
    target, factors = torch.empty_like(image), _one_each(factor, image, "factor")
    kernel, (height, width) = function("sharpen"), image.shape[2:]

    def work(i: int, start: int, stop: int) -> None:
        for c in range(3):
            kernel(image[i, c].data_ptr(), target[i, c].data_ptr(), height, width, start, stop, factors[i])

    spread([partial(work, *task) for task in _cut_rows(image)])
    return target


def sharpen_backward(image: Batch, factor: Scalars, grad: Batch, of_image: bool) -> tuple[Batch | None, Scalars]:
    """Gradients of the images, where they are wanted, and of the factors; the arguments as for `pointwise_backward`."""
    image, grad = _both(image, grad)
    target, factors = torch.empty_like(image) if of_image else None, _one_each(factor, image, "factor")
    kernel, (height, width) = function("sharpen_backward"), image.shape[2:]

    def work(i: int, start: int, stop: int) -> list[float]:
        place = (height, width, start, stop, factors[i], row_scratch(3, width))
        found = 0.0
        for c in range(3):
            to = None if target is None else target[i, c].data_ptr()
            found += kernel(image[i, c].data_ptr(), grad[i, c].data_ptr(), to, *place)
        return [found]

    return target, _summed(_cut_rows(image), work, len(image), 1)[:, 0].to(factor.dtype)


def filter_planes(image: Batch, cell: int, ridge: Scalars) -> tuple[Cells, Cells]:
    """Moments of cells, and the guided filter's planes a and b of red, green and blue; see `forward.coefficients`.

    Args:
        image: RGB in [0, 1].
        cell: side of a cell in pixels.
        ridge: of each image.
    """
    image = batch_of_images(image)
    ridges = _one_each(ridge, image, "ridge")
    cells = [forward.moments(picture, cell) for picture in image]
    coarse = [forward.coefficients(found, value) for found, value in zip(cells, ridges, strict=True)]
    return torch.stack(cells), torch.stack(coarse)


def filter_planes_backward(
    image: Batch, cells: Cells, cell: int, ridge: Scalars, grad: Cells, grad_image: Batch | None
) -> Scalars:
    """The gradient of the ridges; the gradient of the images is added to `grad_image`, where it is given.

    Args:
        image, cell, ridge: the inputs of `filter_planes`.
        cells: its moments.
        grad: gradient of its planes.
        grad_image: contiguous, of the images' shape, without memory shared with the others.
    """
    require_cell(cell)
    image, grad = batch_of_images(image), grad.contiguous()
    ridges = _one_each(ridge, image, "ridge")
    rows, columns = cells_of(image.shape[2], image.shape[3], cell)
    for planes, name in ((cells, "cells"), (grad, "the gradient of the planes")):
        require_planes(planes, (len(image), 6, rows, columns), name)
    if grad_image is not None:
        require_planes(grad_image, tuple(image.shape), "the gradient of the images")
        require(not any(overlap(grad_image, read) for read in (image, cells, grad)), "gradients share no memory")
    grad_cells = None if grad_image is None else torch.empty_like(cells)
    n_floats = 15 * (rows + 2) * (columns + 2) + 12 * rows * columns + columns + 16

    def coarse(i: int, start: int, stop: int) -> list[float]:
        planes = (cells[i].data_ptr(), grad[i].data_ptr(), _address(grad_cells, i))
        return [function("coefficients_backward")(*planes, rows, columns, ridges[i], scratch(4 * n_floats))]

    found = _summed([(i, 0, rows) for i in range(len(image))], coarse, len(image), 1)[:, 0].to(ridge.dtype)
    if grad_image is None or grad_cells is None:
        return found
    height, width = image.shape[2:]

    def fine(i: int, start: int, stop: int) -> None:
        planes = (image[i].data_ptr(), cells[i].data_ptr(), grad_cells[i].data_ptr(), grad_image[i].data_ptr())
        function("moments_backward")(*planes, height, width, cell, start, stop, row_scratch(9, width))

    spread([partial(fine, *task) for task in _cut_rows(image)])
    return found


def guided(image: Batch, coarse: Cells, cell: int, amount: Scalars) -> Batch:
    """The images after `forward.guided`, each with its own planes and amount."""
    image = batch_of_images(image)
    target = torch.empty_like(image)
    require(len(coarse) == len(image), "give planes for each image")
    for i, value in enumerate(_one_each(amount, image, "amount")):
        forward.guided(image[i], coarse[i], cell, value, target[i])
    return target


def guided_backward(
    image: Batch, coarse: Cells, cell: int, amount: Scalars, grad: Batch, of_image: bool, of_coarse: bool
) -> tuple[Batch | None, Cells | None, Scalars]:
    """Gradients of the images with the planes held constant, of the planes, where they are wanted, and of the amounts.

    Args:
        image, coarse, cell, amount: the inputs of `guided`.
        grad: gradient of its result.
        of_image, of_coarse: False leaves out the gradient of the images or of the planes.
    """
    image, grad = _both(image, grad)
    target = torch.empty_like(image) if of_image else None
    amounts = [[value] for value in _one_each(amount, image, "amount")]
    down, sums = _on_coarse_backward("guided_backward", image, coarse, cell, amounts, grad, target, of_coarse)
    return target, down, sums[:, 0].to(amount.dtype)


def local_tone(image: Batch, coarse: BasePlanes, cell: int, stops: Constants) -> Batch:
    """The images after `forward.local_tone`, each with its own planes, shadows and highlights."""
    image = batch_of_images(image)
    target = torch.empty_like(image)
    fits = len(coarse) == len(image) and tuple(stops.shape) == (len(image), 2)
    require(fits, "give planes, shadows and highlights for each image")
    for i, (shadows, highlights) in enumerate(stops.tolist()):
        forward.local_tone(image[i], coarse[i], cell, shadows, highlights, target[i])
    return target


def local_tone_backward(
    image: Batch,
    coarse: BasePlanes,
    cell: int,
    stops: Constants,
    grad: Batch,
    of_image: bool,
) -> tuple[Batch | None, BasePlanes | None, Constants]:
    """As `guided_backward`; without the images' gradient there is none of the planes either."""
    image, grad = _both(image, grad)
    require(tuple(stops.shape) == (len(image), 2), f"give shadows and highlights for each of {len(image)} images")
    target = torch.empty_like(image) if of_image else None
    found = _on_coarse_backward("local_tone_backward", image, coarse, cell, stops.tolist(), grad, target, of_image)
    return target, found[0], found[1].to(stops.dtype)


def _on_coarse_backward(
    name: str,
    image: Batch,
    coarse: Tensor,
    cell: int,
    numbers: list[list[float]],
    grad: Batch,
    target: Batch | None,
    of_coarse: bool,
) -> tuple[Tensor | None, Tensor]:
    """Writes the images' gradient into `target`, and returns those of the planes and of each image's numbers."""
    require_cell(cell)
    height, width = image.shape[2:]
    n_planes = forward.COARSE_PLANES[name.removesuffix("_backward")]
    require_planes(coarse, (len(image), n_planes, *cells_of(height, width, cell)), "the coarse planes")
    kernel, n = function(name), len(numbers[0])

    def work(i: int, start: int, stop: int) -> tuple[list[float], Tensor | None]:
        down = torch.zeros(coarse.shape[1:]) if of_coarse else None  # of its own: parts meet in rows of cells
        planes = (image[i].data_ptr(), coarse[i].data_ptr(), grad[i].data_ptr(), _address(target, i))
        place = (None if down is None else down.data_ptr(), height, width, cell, start, stop)
        if n == 1:
            return [kernel(*planes, *place, *numbers[i], row_scratch(27, width))], down
        sums = (_DOUBLE * n)()
        kernel(*planes, *place, *numbers[i], row_scratch(12, width), ctypes.addressof(sums))
        return list(sums), down

    tasks = _cut_rows(image)
    total, sums = torch.zeros_like(coarse) if of_coarse else None, torch.zeros(len(image), n, dtype=torch.float64)
    for (i, _, _), (found, down) in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += torch.tensor(found, dtype=torch.float64)
        if total is not None and down is not None:
            total[i] += down
    return total, sums

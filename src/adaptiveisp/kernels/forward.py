"""The compiled kernels of csrc/, called through ctypes: float32 tensors on the CPU in and out, on torch's threads.

They compute what the PyTorch code of the same name computes, faster; where they were not compiled (no C compiler at
installation), or ADAPTIVEISP_NATIVE=0 is set, `available` says so and that code runs instead. Nothing here knows
autograd: who differentiates calls the backward kernels.
"""

import ctypes
import importlib.util
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels.switches import is_off, switched_off
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread
from adaptiveisp.utils.provenance import add_fact

SWITCH = "ADAPTIVEISP_NATIVE"
"""Environment variable; 0 turns the kernels off."""

INTERFACE = 5
"""Number of the kernels' signatures; csrc/kernels.h has the same. One more with every change of either."""

OPERATIONS = ("scale", "power", "srgb", "matrix", "curve", "contrast", "saturation", "desaturation", "affine")
"""What a chain may consist of, in the order of the numbers in csrc/kernels.h."""
CONSTANTS = 9
"""Numbers of an operation, the unused ones 0."""

TILE_ROWS = 32
"""Rows that the kernels work on at once; thread boundaries lie between tiles."""
LEAST_PIXELS = 1 << 14
"""A thread gets at least so many of a costly filter: waking another thread takes some tenths of a millisecond."""
LEAST_CHEAP = 1 << 18
"""The same where a pixel takes a nanosecond or so."""

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_FLOAT, _DOUBLE = ctypes.c_float, ctypes.c_double
_SIGNATURES: dict[str, tuple[list[Any], Any]] = {
    "chain": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _POINTER, _POINTER, _INT], None),
    "sharpen": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT], None),
    "demosaic": ([_POINTER, _INT, _POINTER, _LONG, _LONG, _LONG, _LONG, *[_POINTER] * 5], None),
    "pool": ([_POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _LONG, _POINTER], None),
    "laplacian": ([_POINTER, _LONG, _LONG, _LONG, _LONG, _POINTER], _DOUBLE),
    "moments": ([_POINTER, _POINTER, *[_LONG] * 5, _POINTER], None),
    "coefficients": ([_POINTER, _POINTER, *[_LONG] * 4, _FLOAT, _POINTER], None),
    "guided": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 5, _FLOAT, _POINTER], None),
    "local_tone": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 5, _FLOAT, _FLOAT, _POINTER], None),
    "pointwise_backward": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _INT, _POINTER, _POINTER], None),
    "sharpen_backward": ([_POINTER, _POINTER, _POINTER, *[_LONG] * 4, _FLOAT, _POINTER], _DOUBLE),
    "guided_backward": ([*[_POINTER] * 5, *[_LONG] * 5, _FLOAT, _POINTER], _DOUBLE),
    "local_tone_backward": ([*[_POINTER] * 5, *[_LONG] * 5, _FLOAT, _FLOAT, _POINTER, _POINTER], None),
    "coefficients_backward": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _FLOAT, _POINTER], _DOUBLE),
    "moments_backward": ([*[_POINTER] * 4, *[_LONG] * 5, _POINTER], None),
    "unprocess": ([_POINTER, *[_LONG] * 3, _POINTER, _POINTER, *[_LONG] * 4, _POINTER, _POINTER], None),
    "add_noise": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _FLOAT], None),
    "resize_axis": ([_LONG, _LONG, _LONG, _POINTER, _POINTER], _LONG),
    "resize": ([_POINTER, _POINTER, *[_LONG] * 5, *[_POINTER, _POINTER, _LONG] * 2, _POINTER], None),
    "nlm_scratch": ([], _LONG),
    "nlm_forward": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT, _POINTER], None),
    "nlm_backward_h": ([_POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT, _POINTER], _DOUBLE),
    "nlm_backward": (
        [_POINTER, _POINTER, _POINTER, _POINTER, _LONG, _LONG, _LONG, _LONG, _FLOAT, _FLOAT, _POINTER],
        _DOUBLE,
    ),
    "scan": ([_POINTER, _POINTER, *[_LONG] * 5, _POINTER], _DOUBLE),
    "unclipped": ([_POINTER, _LONG, _DOUBLE, _POINTER], _LONG),
    "below_limit": ([_POINTER, _LONG, _POINTER, _DOUBLE, _POINTER], None),
    "light": ([_POINTER, _POINTER, _LONG, _FLOAT, _POINTER, _POINTER, _POINTER], None),
    "encode": ([_POINTER, _LONG, _LONG, _POINTER, _POINTER, _FLOAT, _POINTER, _POINTER], None),
}

Operation = tuple[str, Sequence[float]]
"""One of `OPERATIONS` and its numbers, see `chain`."""


@cache
def _functions() -> dict[str, Any] | None:
    """The kernels by name, for the best instruction set that this processor has; None where they are not compiled."""
    spec = importlib.util.find_spec("adaptiveisp.kernels._kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        library = ctypes.CDLL(spec.origin)
        if library.adaptiveisp_interface() != INTERFACE:
            return None
        variant = "avx2" if library.adaptiveisp_has_avx2() else "base"
        found = {}
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(library, f"adaptiveisp_{name}_{variant}")
            function.argtypes, function.restype = arguments, result
            found[name] = function
    except (OSError, AttributeError):  # compiled for another machine, or from another version of csrc/
        return None
    return found


def available() -> bool:
    """Whether the kernels are compiled and not turned off."""
    return not is_off(SWITCH) and _functions() is not None


def description() -> str:
    """Which kernels run: the instruction set they were compiled for, "avx2" or "base", or "none" and why."""
    if is_off(SWITCH):
        return f"none ({SWITCH}=0)"
    functions = _functions()
    return "none (not compiled)" if functions is None else str(functions["chain"].__name__).rpartition("_")[2]


add_fact("kernels", description)


def turned_off() -> AbstractContextManager[None]:
    """Everything inside runs as if the kernels were not compiled; for comparisons, in one thread only."""
    return switched_off(SWITCH)


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can work on these tensors: float32, on the CPU, and the kernels are there."""
    return available() and all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in tensors)


def _kernel(name: str) -> Any:
    functions = _functions()
    assert functions is not None, "ask available() first"
    return functions[name]


def _rows(height: int, width: int, least: int | None = None) -> list[tuple[int, int]]:
    return ranges(height, TILE_ROWS, (LEAST_PIXELS if least is None else least) // max(width, 1))


def _refuse_unless(holds: bool, message: str) -> None:
    """What the kernels are given has to fit: they write where they are told.

    Raises:
        ValueError: it does not.
    """
    if not holds:
        raise ValueError(message)


def _check(image: Tensor, target: Tensor | None = None) -> None:
    for tensor in (image,) if target is None else (image, target):
        fits = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
        three = tensor.ndim == 3 and tensor.shape[0] == 3 and tensor.shape == image.shape
        _refuse_unless(fits and three, f"kernels take contiguous float32 (3, height, width), not {tuple(tensor.shape)}")


def _batch(image: Tensor) -> Tensor:
    """The batch as the kernels take it: contiguous."""
    fits = takes(image) and image.ndim == 4 and image.shape[1] == 3
    _refuse_unless(fits, f"kernels take float32 (batch, 3, height, width), not {tuple(image.shape)}")
    return image.contiguous()


def chain(image: Float[Tensor, "3 height width"], operations: Sequence[Operation], target: Tensor) -> None:
    """Writes the image after all operations into `target`, which may be the image itself; each one clips to [0, 1].

    A block of pixels goes through all of them while it lies in the first cache, so that the memory is read and written
    once, however many there are. The numbers of each:
    scale: factor of red, green, blue; power: exponent, least value; srgb: none; matrix: nine, row-major; curve: slope
    of the first eighth, then how much each slope differs from the one before; contrast, saturation, desaturation:
    amount; affine: what is taken off, factor afterwards.

    Args:
        image: float32, contiguous, on the CPU.
        operations: in order.
        target: as the image.
    """
    numbers = (_FLOAT * (CONSTANTS * len(operations)))()
    for i, (_, constants) in enumerate(operations):
        numbers[CONSTANTS * i : CONSTANTS * i + len(constants)] = list(constants)
    codes = (_INT * len(operations))(*(OPERATIONS.index(name) for name, _ in operations))
    _check(image, target)
    kernel, pixels = _kernel("chain"), image.shape[1] * image.shape[2]
    fixed = (image.data_ptr(), target.data_ptr(), pixels)
    program = (ctypes.addressof(codes), ctypes.addressof(numbers), len(operations))
    parts = ranges(pixels, 1024, LEAST_CHEAP // len(operations))
    spread([partial(kernel, *fixed, a, b, *program) for a, b in parts])


def sharpen(image: Float[Tensor, "3 height width"], factor: float, target: Tensor) -> None:
    """Writes clip(f·x + (1-f)·smooth(x), 0, 1) into `target`, which must not be the image; see isp/sharpen.py."""
    _check(image, target)
    _refuse_unless(image.data_ptr() != target.data_ptr(), "the target must not be the image")
    kernel, (height, width) = _kernel("sharpen"), image.shape[1:]
    planes = [(image[c].data_ptr(), target[c].data_ptr(), height, width) for c in range(3)]
    spread([partial(kernel, *plane, a, b, factor) for plane in planes for a, b in _rows(height, width, LEAST_CHEAP)])


def demosaic(
    mosaic: Tensor,
    black: Sequence[float],
    scale: Sequence[float],
    filters: Sequence[Sequence[float]],
    sources: Sequence[Sequence[Sequence[int]]],
) -> Float[Tensor, "3 height width"]:
    """RGB in [0, 1] of a Bayer mosaic: (value - black)·scale, clipped, filtered, clipped, without any other copy.

    Args:
        mosaic: (height, width), uint16 or float32, contiguous, at least 4x4.
        black, scale: by position in the 2x2 block, row by row.
        filters: four, each six weights: of the centre, its two row neighbours, its two column neighbours, the two two
            columns away, the two two rows away, the four diagonal ones.
        sources: row parity → colour → column parity: 0 for the value recorded there, else 1 + number of the filter.
    """
    known = mosaic.dtype in (torch.uint16, torch.float32) and mosaic.device.type == "cpu"
    _refuse_unless(known and mosaic.is_contiguous() and min(mosaic.shape) >= 4, "no mosaic that the kernel takes")
    height, width = mosaic.shape
    target = torch.empty(3, height, width, dtype=torch.float32)
    numbers = [torch.tensor(table, dtype=torch.float32) for table in (black, scale, filters)]
    tables = [*numbers, torch.tensor(sources, dtype=torch.int32)]
    addresses = [table.data_ptr() for table in tables]
    kernel, is_float = _kernel("demosaic"), int(mosaic.dtype == torch.float32)

    def work(start: int, stop: int) -> None:
        place = (height, width, start, stop)
        kernel(mosaic.data_ptr(), is_float, target.data_ptr(), *place, *addresses, row_scratch(9, width))

    spread([partial(work, a, b) for a, b in _rows(height, width)])
    return target


def pool(image: Float[Tensor, "batch 3 height width"], n: int) -> Float[Tensor, "batch 3 n n"]:
    """Means over an n x n grid of cells, as `adaptive_avg_pool2d`."""
    image = _batch(image)
    batch, channels, height, width = image.shape
    target = image.new_empty(batch, channels, n, n)
    kernel = _kernel("pool")

    def work(i: int, start: int, stop: int) -> None:
        for c in range(channels):
            address = (image[i, c].data_ptr(), target[i, c].data_ptr())
            kernel(*address, height, width, n, start, stop, row_scratch(1, width))

    cells = ranges(n, 1, max(1, LEAST_CHEAP * n // max(height * width, 1)))
    spread([partial(work, i, a, b) for i in range(batch) for a, b in cells])
    return target


def laplacian(image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
    """Mean absolute response of luminance to [1 -2 1; -2 4 -2; 1 -2 1] where that lies inside the image."""
    image = _batch(image)
    batch, _, height, width = image.shape
    kernel = _kernel("laplacian")

    def work(i: int, start: int, stop: int) -> float:
        found: float = kernel(image[i].data_ptr(), height, width, start, stop, row_scratch(4, width))
        return found

    inner = [(1 + a, 1 + b) for a, b in ranges(height - 2, 1, LEAST_CHEAP // width)]
    tasks = [(i, a, b) for i in range(batch) for a, b in inner]
    sums = torch.zeros(batch, dtype=torch.float64)
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += found
    return (sums / ((height - 2) * (width - 2))).to(image.dtype)


def moments(image: Float[Tensor, "3 height width"], cell: int) -> Float[Tensor, "6 rows columns"]:
    """Means of r, g, b and their covariances with L over cells of `cell` x `cell` pixels, as `isp.guided.moments`."""
    _check(image)
    height, width = image.shape[1:]
    rows, columns = -(-height // cell), -(-width // cell)
    target = image.new_empty(6, rows, columns)
    kernel = _kernel("moments")

    def work(start: int, stop: int) -> None:
        kernel(image.data_ptr(), target.data_ptr(), height, width, cell, start, stop, row_scratch(6, width))

    spread([partial(work, a, b) for a, b in ranges(rows, 1, LEAST_PIXELS // (cell * width))])
    return target


def coefficients(cells: Float[Tensor, "6 rows columns"], ridge: float) -> Float[Tensor, "6 rows columns"]:
    """The guided filter's a of red, green, blue, then b of them, from the moments of cells, as `isp.guided`'s."""
    planes, rows, columns = cells.shape
    _refuse_unless(planes == 6 and cells.is_contiguous(), "cells must be six contiguous planes")
    target = torch.empty_like(cells)
    n_bytes = 4 * (6 * (rows + 2) * (columns + 2) + 6 * rows * columns + columns + 16)
    kernel = _kernel("coefficients")

    def work(start: int, stop: int) -> None:
        kernel(cells.data_ptr(), target.data_ptr(), rows, columns, start, stop, ridge, scratch(n_bytes))

    spread([partial(work, a, b) for a, b in ranges(rows, 1, LEAST_PIXELS // (8 * max(columns, 1)))])
    return target


def guided(image: Tensor, coarse: Float[Tensor, "6 rows columns"], cell: int, amount: float, target: Tensor) -> None:
    """Writes x + amount·(a·L + b - x) into `target`.

    Args:
        image: (3, height, width), contiguous.
        coarse: a of red, green, blue, then b of them, on a grid of cells; bilinear between their centres.
        cell: side of a cell in pixels.
        amount: in [0, 1].
        target: as the image, another one.
    """
    _on_coarse("guided", image, coarse, target, cell, amount)


def local_tone(
    image: Tensor,
    coarse: Float[Tensor, "2 rows columns"],
    cell: int,
    shadows: float,
    highlights: float,
    target: Tensor,
) -> None:
    """Writes x·2^(shadows·(1-t)² + highlights·t²), t = sqrt(a·L + b), into `target`; the rest as for `guided`."""
    _on_coarse("local_tone", image, coarse, target, cell, shadows, highlights)


def _on_coarse(name: str, image: Tensor, coarse: Tensor, target: Tensor, cell: int, *numbers: float) -> None:
    _check(image, target)
    height, width = image.shape[1:]
    fits = coarse.shape[1:] == (-(-height // cell), -(-width // cell)) and coarse.is_contiguous()
    _refuse_unless(fits, "the coarse planes must be contiguous, with one value a cell")
    kernel = _kernel(name)

    def work(start: int, stop: int) -> None:
        addresses = (image.data_ptr(), coarse.data_ptr(), target.data_ptr())
        kernel(*addresses, height, width, cell, start, stop, *numbers, row_scratch(8, width))

    spread([partial(work, a, b) for a, b in _rows(height, width)])


def _tasks(image: Float[Tensor, "batch 3 height width"]) -> list[tuple[int, int, int]]:
    """(image, first row, last row) of each part of a batch: whole images where there are enough for all threads."""
    batch, _, height, width = image.shape
    rows = [(0, height)] if batch >= torch.get_num_threads() else _rows(height, width)
    return [(i, a, b) for i in range(batch) for a, b in rows]


def _exponents(h: Tensor) -> list[float]:
    """-log2(e)/h of each image: a weight is 2 to this times the distance."""
    return [-math.log2(math.e) / value for value in h.flatten().tolist()]


def nlm_forward(
    image: Float[Tensor, "batch 3 height width"], h: Float[Tensor, "batch 1 1"]
) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch height width"]]:
    """Filtered images and sums of weights, as `isp.denoise.nlm_forward` gives them.

    Args:
        image: float32 on the CPU.
        h: filter strength of each, the epsilon added.
    """
    image = _batch(image)
    output, total = torch.empty_like(image), torch.empty_like(image[:, 0])
    kernel, exponents, (height, width) = _kernel("nlm_forward"), _exponents(h), image.shape[2:]

    def work(i: int, start: int, stop: int) -> None:
        planes = (image[i].data_ptr(), output[i].data_ptr(), total[i].data_ptr())
        kernel(*planes, height, width, start, stop, exponents[i], scratch(_kernel("nlm_scratch")()))

    spread([partial(work, *task) for task in _tasks(image)])
    return output, total


def nlm_backward(
    image: Float[Tensor, "batch 3 height width"],
    h: Float[Tensor, "batch 1 1"],
    output: Float[Tensor, "batch 3 height width"],
    total: Float[Tensor, "batch height width"],
    grad: Float[Tensor, "batch 3 height width"],
    of_image: bool,
) -> tuple[Float[Tensor, "batch 3 height width"] | None, Float[Tensor, "batch 1 1"]]:
    """Gradients of the images, where they are wanted, and of h, as `isp.denoise.nlm_backward` gives them.

    Args:
        image, h: what went forward.
        output, total: what came out.
        grad: gradient of the output.
        of_image: False leaves out the images', which takes a third of the time.
    """
    image = _batch(image)
    ratio = (grad / total[:, None]).contiguous()
    scalar = (ratio * output).sum(dim=1).neg_()
    grad_image = torch.empty_like(image) if of_image else None
    exponents, (height, width) = _exponents(h), image.shape[2:]
    inverses = (1 / h).flatten().tolist()

    def work(i: int, start: int, stop: int) -> float:
        planes = (image[i].data_ptr(), ratio[i].data_ptr(), scalar[i].data_ptr())
        place = (height, width, start, stop, exponents[i])
        if grad_image is None:
            found: float = _kernel("nlm_backward_h")(*planes, *place, scratch(_kernel("nlm_scratch")()))
            return found
        found = _kernel("nlm_backward")(
            *planes, grad_image[i].data_ptr(), *place, inverses[i], scratch(_kernel("nlm_scratch")())
        )
        return found

    tasks = _tasks(image)
    sums = torch.zeros(len(image), dtype=torch.float64)
    for (i, _, _), found in zip(tasks, spread([partial(work, *task) for task in tasks]), strict=True):
        sums[i] += found
    return grad_image, (sums.reshape(h.shape) / h.double().square()).to(h.dtype)

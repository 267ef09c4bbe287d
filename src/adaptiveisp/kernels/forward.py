"""Forward kernels of csrc/: one image or a batch, float32 on the CPU, on torch's number of threads.

Each function computes what the PyTorch code of the same name computes, to rounding, and checks its arguments before a
pointer goes out. Callers ask `registry.find`, which returns None where PyTorch has to do it. Gradients are in
`backward`; `autograd` puts both together.
"""

import ctypes
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.kernels.checks import (
    batch_of_images,
    cells_of,
    described,
    overlap,
    require,
    require_cell,
    require_count,
    require_image,
    require_planes,
    require_target,
)
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import ranges, row_scratch, scratch, spread

OPERATIONS = {
    "scale": 3,
    "power": 2,
    "srgb": 0,
    "matrix": 9,
    "curve": 8,
    "contrast": 1,
    "saturation": 1,
    "desaturation": 1,
    "affine": 2,
}
"""Pointwise operations of `chain` and how many numbers each takes, in the order of the codes in csrc/kernels.h."""
CONSTANTS = 9
"""Length of an operation's row of numbers in csrc/; the unused ones are 0."""

TILE_ROWS = 32
"""Rows that a kernel works on at once; threads divide an image between tiles."""
LEAST_PIXELS = 1 << 14
"""Least pixels of a costly filter for a thread: to wake another thread takes some tenths of a millisecond."""
LEAST_CHEAP = 1 << 18
"""Least pixels for a thread where a pixel takes about a nanosecond."""

COARSE_PLANES = {"guided": 6, "local_tone": 2}
"""Planes that a filter reads from the grid of cells."""

_CODES = {name: code for code, name in enumerate(OPERATIONS)}
_INT, _FLOAT = ctypes.c_int32, ctypes.c_float

Operation = tuple[str, Sequence[float]]
"""One of `OPERATIONS` and its numbers, see `chain`."""


def rows_for_threads(height: int, width: int, least: int | None = None) -> list[tuple[int, int]]:
    """Ranges of rows (start, stop) for the threads; `least` pixels each at least, or `LEAST_PIXELS`."""
    return ranges(height, TILE_ROWS, (LEAST_PIXELS if least is None else least) // max(width, 1))


def require_operation(name: str, count: int) -> None:
    """Refuses an operation that `OPERATIONS` lacks, or one with another count of numbers."""
    require(name in OPERATIONS, f"kernels have no operation {name!r}; choose one of {', '.join(OPERATIONS)}")
    require(count == OPERATIONS[name], f"the operation {name} takes {OPERATIONS[name]} numbers, not {count}")


def chain(image: Float[Tensor, "3 height width"], operations: Sequence[Operation], target: Tensor) -> None:
    """Writes the image after all operations into `target`; every operation clips to [0, 1].

    A block of pixels goes through all operations while it lies in the first cache, so that memory is read and written
    once for the whole chain. The numbers of each operation are:
    scale: factors of red, green and blue; power: exponent and least value; srgb: none; matrix: nine entries, row-major;
    curve: slope of the first eighth, then the difference of each slope from the one before; contrast, saturation and
    desaturation: amount; affine: the value subtracted, then the factor.

    Args:
        image: RGB in [0, 1], contiguous.
        operations: in order, at least one.
        target: of the image's shape; it may be the image itself.

    Raises:
        ValueError: an argument does not fit, or an operation has another name or count of numbers.
    """
    require_target(image, target, in_place=True)
    require(len(operations) > 0, "a chain has at least one operation")
    numbers = (_FLOAT * (CONSTANTS * len(operations)))()
    for i, (name, constants) in enumerate(operations):
        require_operation(name, len(constants))
        numbers[CONSTANTS * i : CONSTANTS * i + len(constants)] = list(constants)
    codes = (_INT * len(operations))(*(_CODES[name] for name, _ in operations))
    kernel, pixels = function("chain"), image.shape[1] * image.shape[2]
    fixed = (image.data_ptr(), target.data_ptr(), pixels)
    program = (ctypes.addressof(codes), ctypes.addressof(numbers), len(operations))
    parts = ranges(pixels, 1024, LEAST_CHEAP // len(operations))
    spread([partial(kernel, *fixed, a, b, *program) for a, b in parts])


def sharpen(image: Float[Tensor, "3 height width"], factor: float, target: Tensor) -> None:
    """Writes clip(f·x + (1-f)·smooth(x), 0, 1) into `target`, which shares no memory with the image.

    Source: `isp.modules.sharpen`.
    """
    require_target(image, target)
    kernel, (height, width) = function("sharpen"), image.shape[1:]
    planes = [(image[c].data_ptr(), target[c].data_ptr(), height, width) for c in range(3)]
    spread(
        [
            partial(kernel, *plane, a, b, factor)
            for plane in planes
            for a, b in rows_for_threads(height, width, LEAST_CHEAP)
        ]
    )


def demosaic(
    mosaic: Tensor,
    black: Sequence[float],
    scale: Sequence[float],
    filters: Sequence[Sequence[float]],
    sources: Sequence[Sequence[Sequence[int]]],
) -> Float[Tensor, "3 height width"]:
    """RGB in [0, 1] of a Bayer mosaic: (value - black)·scale, clipped, interpolated and clipped, in one pass.

    Args:
        mosaic: (height, width), uint16 or float32, contiguous, on the CPU, at least 4x4.
        black, scale: by position in the 2x2 block, row by row.
        filters: at most four, each with six weights: of the centre, its two neighbours in the row, its two neighbours
            in the column, the two pixels two columns away, the two pixels two rows away, the four diagonal neighbours.
        sources: row parity → colour → column parity: 0 for the recorded value, else 1 + number of the filter.

    Raises:
        ValueError: an argument does not fit.
    """
    known = mosaic.dtype in (torch.uint16, torch.float32) and mosaic.device.type == "cpu"
    fits = known and mosaic.is_contiguous() and mosaic.ndim == 2 and min(mosaic.shape) >= 4
    require(fits, f"the kernel takes a contiguous uint16 or float32 mosaic of 4x4 or more, not {described(mosaic)}")
    require_count(black, 4, "black")
    require_count(scale, 4, "scale")
    require(0 < len(filters) <= 4 and all(len(weights) == 6 for weights in filters), "a filter has six weights")
    shape = [len(sources), *(len(row) for row in sources), *(len(two) for row in sources for two in row)]
    require(shape == [2, 3, 3, 2, 2, 2, 2, 2, 2], "sources are row parity, colour, column parity")
    places = [place for row in sources for two in row for place in two]
    require(all(0 <= place <= len(filters) for place in places), f"a source is one of 0..{len(filters)}")
    height, width = mosaic.shape
    target = torch.empty(3, height, width, dtype=torch.float32)
    numbers = [torch.tensor(table, dtype=torch.float32) for table in (black, scale, filters)]
    tables = [*numbers, torch.tensor(sources, dtype=torch.int32)]
    addresses = [table.data_ptr() for table in tables]
    kernel, is_float = function("demosaic"), int(mosaic.dtype == torch.float32)

    def work(start: int, stop: int) -> None:
        place = (height, width, start, stop)
        kernel(mosaic.data_ptr(), is_float, target.data_ptr(), *place, *addresses, row_scratch(9, width))

    spread([partial(work, a, b) for a, b in rows_for_threads(height, width)])
    return target


def pool(image: Float[Tensor, "batch 3 height width"], n: int) -> Float[Tensor, "batch 3 n n"]:
    """Means over an n x n grid of cells, as `adaptive_avg_pool2d` gives them.

    Raises:
        ValueError: the images do not fit, or n is below 1.
    """
    image = batch_of_images(image)
    require(n >= 1, f"a grid has at least one cell, not {n}")
    batch, channels, height, width = image.shape
    target = image.new_empty(batch, channels, n, n)
    kernel = function("pool")

    def work(i: int, start: int, stop: int) -> None:
        for c in range(channels):
            address = (image[i, c].data_ptr(), target[i, c].data_ptr())
            kernel(*address, height, width, n, start, stop, row_scratch(1, width))

    cells = ranges(n, 1, max(1, LEAST_CHEAP * n // max(height * width, 1)))
    spread([partial(work, i, a, b) for i in range(batch) for a, b in cells])
    return target


def laplacian(image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, " batch"]:
    """Mean absolute response of luminance to [1 -2 1; -2 4 -2; 1 -2 1] where the filter lies inside the image.

    Raises:
        ValueError: the images do not fit, or a side is below 3 pixels.
    """
    image = batch_of_images(image)
    batch, _, height, width = image.shape
    require(min(height, width) >= 3, f"the filter needs images of 3x3 or more, not {height}x{width}")
    kernel = function("laplacian")

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
    """Means of r, g, b and their covariances with L over cells of `cell` x `cell` pixels.

    Source: `isp.guided_filter.moments`.
    """
    require_image(image)
    require_cell(cell)
    height, width = image.shape[1:]
    rows, columns = cells_of(height, width, cell)
    target = image.new_empty(6, rows, columns)
    kernel = function("moments")

    def work(start: int, stop: int) -> None:
        kernel(image.data_ptr(), target.data_ptr(), height, width, cell, start, stop, row_scratch(6, width))

    spread([partial(work, a, b) for a, b in ranges(rows, 1, LEAST_PIXELS // (cell * width))])
    return target


def coefficients(cells: Float[Tensor, "6 rows columns"], ridge: float) -> Float[Tensor, "6 rows columns"]:
    """The guided filter's a of red, green and blue, then b of each, from the moments of cells.

    Source: `isp.guided_filter.coefficients`.
    """
    require(cells.ndim == 3 and cells.numel() > 0, "cells must be six planes of at least one cell")
    rows, columns = cells.shape[1:]
    require_planes(cells, (6, rows, columns), "cells")
    target = torch.empty_like(cells)
    n_bytes = 4 * (6 * (rows + 2) * (columns + 2) + 6 * rows * columns + columns + 16)
    kernel = function("coefficients")

    def work(start: int, stop: int) -> None:
        kernel(cells.data_ptr(), target.data_ptr(), rows, columns, start, stop, ridge, scratch(n_bytes))

    spread([partial(work, a, b) for a, b in ranges(rows, 1, LEAST_PIXELS // (8 * max(columns, 1)))])
    return target


def guided(image: Tensor, coarse: Float[Tensor, "6 rows columns"], cell: int, amount: float, target: Tensor) -> None:
    """Writes x + amount·(a·L + b - x), clipped to [0, 1], into `target`.

    Args:
        image: RGB in [0, 1], contiguous.
        coarse: a of red, green and blue, then b of each, one value a cell; bilinear between the cells' centres.
        cell: side of a cell in pixels.
        amount: in [0, 1].
        target: of the image's shape, without shared memory.
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
    """Writes x·2^(shadows·(1-t)² + highlights·t²), t = sqrt(a·L + b), clipped to [0, 1], into `target`.

    Args:
        image, cell, target: as for `guided`.
        coarse: the planes a and b, one value a cell.
        shadows, highlights: in stops.
    """
    _on_coarse("local_tone", image, coarse, target, cell, shadows, highlights)


def _on_coarse(name: str, image: Tensor, coarse: Tensor, target: Tensor, cell: int, *numbers: float) -> None:
    require_cell(cell)
    require_target(image, target)
    height, width = image.shape[1:]
    require_planes(coarse, (COARSE_PLANES[name], *cells_of(height, width, cell)), "the coarse planes")
    require(not overlap(target, coarse), "the target must not share memory with what is read")
    kernel = function(name)

    def work(start: int, stop: int) -> None:
        addresses = (image.data_ptr(), coarse.data_ptr(), target.data_ptr())
        kernel(*addresses, height, width, cell, start, stop, *numbers, row_scratch(8, width))

    spread([partial(work, a, b) for a, b in rows_for_threads(height, width)])

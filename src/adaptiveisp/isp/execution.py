"""Runs modules on images when no gradient is wanted: the path of prediction and evaluation.

Consecutive pointwise modules with kernels run as one chain, which reads and writes the memory once; other modules run
by their own kernels. Without kernels (another type, nothing compiled) pointwise modules run on strips of rows, so that
large frames need little more memory than themselves. On a GPU a pipeline that was captured before is replayed as one
CUDA graph, see `cuda_graphs`. The results equal those of the modules' own functions to 1e-5.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.kernels import cuda_graphs
from adaptiveisp.kernels import registry as kernels
from adaptiveisp.types import Image

Call = tuple[IspModule, Sequence[float]]
"""A module and its parameters in order, in physical units."""

Picture = Float[Tensor, "3 height width"]

STRIP_VALUES = 1 << 18
"""Values of a strip, all channels: 1 MiB in float32, about a core's second-level cache."""


@torch.no_grad()
def run(image: Image, calls: Sequence[Call]) -> Image:
    """The images after all calls, the same for each; a new tensor, or the input itself where there are no calls.

    Args:
        image: RGB in [0, 1]; it is not changed.
        calls: modules and their parameters in the order they run.

    Raises:
        ValueError: the shape is another.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must be (batch, 3, height, width), not {tuple(image.shape)}")
    if not calls or not image.numel():
        return image
    rendered = [run_one(picture, calls) for picture in image]
    return rendered[0][None] if len(rendered) == 1 and is_new(rendered[0], image) else torch.stack(rendered)


def is_new(rendered: Tensor, image: Tensor) -> bool:
    """Whether a rendered image is sure to have memory of its own, so that it need not be copied; on the CPU alone.

    On a GPU it may be a recording's, which the next call writes over.
    """
    return image.device.type == "cpu" and rendered.data_ptr() != image.data_ptr()


@torch.no_grad()
def run_one(picture: Picture, calls: Sequence[Call], owned: bool = False) -> Picture:
    """One image after all calls.

    Args:
        picture: RGB in [0, 1].
        calls: as for `run`.
        owned: the picture's memory may be written over.

    Raises:
        ValueError: the shape is another, or a module gets too many or too few parameters.
    """
    if picture.ndim != 3 or picture.shape[0] != 3:
        raise ValueError(f"image must be (3, height, width), not {tuple(picture.shape)}")
    for module, params in calls:
        if len(params) != len(module.params):
            raise ValueError(f"{module.name}: takes {len(module.params)} parameters, not {len(params)}")
    if not picture.numel() or not calls:
        return picture
    if picture.device.type != "cpu":
        return _run_elsewhere(picture, calls)
    spare: Tensor | None = None
    compiled = kernels.takes(picture)
    if compiled:
        picture = picture.contiguous()
    for group in _groups(calls, compiled):
        module, params = group[0]
        kernel = module.kernel if compiled else None
        if kernel is not None and kernel.in_chain:
            target = picture if owned else torch.empty_like(picture)
            kernels.run_chain(picture, [(m.kernel, p) for m, p in group if m.kernel is not None], target)
        elif kernel is not None and kernel.writes:
            target = torch.empty_like(picture) if spare is None else spare
            kernels.run(kernel, picture, params, target)
            spare = picture if owned else None
        elif module.pointwise:
            target = picture if owned else torch.empty_like(picture)
            for start, stop in _strips(picture):
                rows = picture[:, start:stop]
                for module, params in group:
                    rows = _called(module, rows, params)
                target[:, start:stop] = rows
        else:
            target = _called(module, picture, params)
        picture, owned = target, True
    return picture


def _run_elsewhere(picture: Picture, calls: Sequence[Call]) -> Picture:
    """The image after all calls by PyTorch's own operations, on another device than the CPU."""
    modules = [module for module, _ in calls]
    widths = [len(module.params) for module in modules]

    def work(image: Tensor, numbers: Tensor) -> tuple[Tensor]:
        for module, row in zip(modules, torch.split(numbers, widths), strict=True):
            image = module(image, row[None])
        return (image,)

    numbers = torch.tensor([value for _, params in calls for value in params], dtype=picture.dtype).to(picture.device)
    if any(module.bound for module in modules):
        return work(picture[None], numbers)[0][0]
    name = tuple((module.name, module.function) for module in modules)
    return cuda_graphs.SHARED.run(name, work, picture[None], numbers)[0][0]


def _called(module: IspModule, picture: Picture, params: Sequence[float]) -> Picture:
    row = torch.tensor([list(params)], dtype=picture.dtype).reshape(1, len(module.params))
    return module(picture[None], row)[0]


def _groups(calls: Sequence[Call], compiled: bool) -> Iterator[list[Call]]:
    """Consecutive calls that can share a pass over the image; every other call alone."""

    def kind(numbered: tuple[int, Call]) -> int:
        number, (module, _) = numbered
        shared = module.pointwise if not compiled else module.kernel is not None and module.kernel.in_chain
        return -1 if shared else number

    for _, group in groupby(enumerate(calls), kind):
        yield [call for _, call in group]


def _strips(picture: Picture) -> Iterator[tuple[int, int]]:
    """Ranges of rows (start, stop) that fit a core's cache."""
    rows = max(1, STRIP_VALUES // (3 * picture.shape[2]))
    for start in range(0, picture.shape[1], rows):
        yield start, min(start + rows, picture.shape[1])

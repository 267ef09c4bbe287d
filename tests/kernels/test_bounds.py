"""Every kernel entry refuses arguments that do not fit before a pointer goes out; the tests' shape checker is off."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import config

from adaptiveisp.kernels import (
    backward,
    bilateral_grid,
    forward,
    loading,
    non_local_means,
    observation,
    synthesis,
    unpacking,
)
from adaptiveisp.kernels.checks import overlap

ONE = torch.zeros(3, 9, 8)
TWO = torch.full((2, 3, 9, 8), 0.5)
CELLS = torch.zeros(2, 6, 3, 2)
H = torch.full((2, 1, 1), 0.3)
LAYER = (np.zeros((16, 6, 4, 4), np.float32), np.zeros(16, np.float32))

WRONG_IMAGES = {
    "a channel less": torch.zeros(2, 9, 8),
    "one more dimension": torch.zeros(1, 3, 9, 8),
    "one dimension less": torch.zeros(9, 8),
    "float64": torch.zeros(3, 9, 8, dtype=torch.float64),
    "strided": torch.zeros(3, 8, 9).transpose(1, 2),
    "no pixels": torch.zeros(3, 0, 8),
}
WRONG_BATCHES = {
    "a channel less": torch.zeros(2, 2, 9, 8),
    "one image": ONE,
    "float64": TWO.double(),
    "no pixels": torch.zeros(2, 3, 9, 0),
}
SHARED = torch.zeros(4, 9, 8)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loading.SWITCH, raising=False)
    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")
    monkeypatch.setattr(config, "jaxtyping_disable", True)


def refused(function: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(ValueError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


def image_calls(image: torch.Tensor, target: torch.Tensor) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    return [
        (forward.chain, (image, [("srgb", ())], target)),
        (forward.sharpen, (image, 2.0, target)),
        (forward.guided, (image, CELLS[0], 4, 0.5, target)),
        (forward.local_tone, (image, CELLS[0, :2], 4, 0.5, 0.5, target)),
    ]


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_wrong_images_and_targets(name: str) -> None:
    wrong = WRONG_IMAGES[name]
    for image, target in ((wrong, ONE.clone()), (ONE, wrong.clone()), (wrong, wrong.clone())):
        for function, arguments in image_calls(image, target):
            refused(function, *arguments)
    refused(forward.moments, wrong, 4)
    refused(synthesis.resize, wrong, 4, 4)


def test_targets_of_another_size_or_in_the_images_memory() -> None:
    for function, arguments in image_calls(ONE, torch.zeros(3, 8, 9)):
        refused(function, *arguments)
    for function, arguments in image_calls(SHARED[:3], SHARED[1:]):
        refused(function, *arguments)
    for function, arguments in image_calls(ONE, ONE)[1:]:  # a chain may work in place
        refused(function, *arguments)
    coarse = torch.zeros(3 * 72).reshape(3, 9, 8)
    planes = coarse.flatten()[:36].reshape(6, 3, 2)
    refused(forward.guided, ONE, planes, 4, 0.5, coarse)


def test_chains() -> None:
    target = torch.empty_like(ONE)
    for operations in ([], [("unknown", ())], [("scale", (1.0,))], [("scale", (1.0,) * 10)], [("srgb", (1.0,))]):
        refused(forward.chain, ONE, operations, target)


def test_mosaics() -> None:
    filters, sources = [[0.0] * 6] * 4, [[[0, 1], [2, 3], [4, 0]]] * 2
    right = (torch.zeros(8, 8), [0.0] * 4, [1.0] * 4, filters, sources)
    forward.demosaic(*right)
    wrong_mosaics = (torch.zeros(3, 8), torch.zeros(8, 8).double(), torch.zeros(8, 9).T, torch.zeros(1, 8, 8))
    wrong: list[tuple[int, Any]] = [(0, mosaic) for mosaic in wrong_mosaics]
    wrong += [(1, [0.0] * 3), (2, [1.0] * 5), (3, []), (3, [[0.0] * 5]), (3, [[0.0] * 6] * 5)]
    wrong += [(4, [[[0, 1], [2, 3], [5, 0]]] * 2), (4, [[[0, 1], [2, -1], [4, 0]]] * 2), (4, [[[0, 1], [2, 3]]] * 2)]
    for place, value in wrong:
        refused(forward.demosaic, *(value if i == place else argument for i, argument in enumerate(right)))


@pytest.mark.parametrize("name", WRONG_BATCHES)
def test_wrong_batches(name: str) -> None:
    wrong, one = WRONG_BATCHES[name], torch.ones(2)
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (forward.pool, (wrong, 4)),
        (forward.laplacian, (wrong,)),
        (observation.scan, (wrong, 4)),
        (observation.light, (wrong, wrong, 0.9)),
        (non_local_means.nlm_forward, (wrong, H)),
        (non_local_means.nlm_backward, (wrong, H, TWO, TWO[:, 0].contiguous(), TWO, True)),
        (backward.pointwise, (wrong, "scale", torch.ones(2, 3))),
        (backward.sharpen, (wrong, one)),
        (backward.filter_planes, (wrong, 4, one)),
        (backward.guided, (wrong, CELLS, 4, one)),
        (backward.local_tone, (wrong, CELLS[:, :2].contiguous(), 4, torch.ones(2, 2))),
    ]
    for function, arguments in calls:
        refused(function, *arguments)
    for image, grad in ((wrong, TWO), (TWO, wrong)):
        refused(backward.pointwise_backward, image, "scale", torch.ones(2, 3), grad, True)
        refused(backward.sharpen_backward, image, one, grad, True)
        refused(backward.guided_backward, image, CELLS, 4, one, grad, True, True)
        refused(backward.local_tone_backward, image, CELLS[:, :2].contiguous(), 4, torch.ones(2, 2), grad, True)


def test_grids_and_small_images() -> None:
    refused(forward.pool, TWO, 0)
    refused(observation.scan, TWO, 0)
    refused(forward.laplacian, torch.zeros(1, 3, 2, 9))
    refused(forward.moments, ONE, 0)


WRONG_PLANES = {
    "a row more": torch.zeros(2, 6, 4, 2),
    "a plane less": torch.zeros(2, 5, 3, 2),
    "an image less": CELLS[:1],
    "float64": CELLS.double(),
    "strided": torch.zeros(2, 6, 2, 3).transpose(2, 3),
}


@pytest.mark.parametrize("name", WRONG_PLANES)
def test_wrong_planes(name: str) -> None:
    wrong, one, two = WRONG_PLANES[name], torch.ones(2), torch.ones(2, 2)
    tone = wrong[:, :2] if name == "a plane less" else wrong
    tone = tone[:, :1].contiguous() if name == "a plane less" else tone[:, :2]
    if name != "an image less":
        refused(forward.guided, ONE, wrong[0], 4, 0.5, torch.empty_like(ONE))
        refused(forward.local_tone, ONE, tone[0], 4, 0.5, 0.5, torch.empty_like(ONE))
        if name != "a row more":
            refused(forward.coefficients, wrong[0], 0.1)
    refused(backward.guided, TWO, wrong, 4, one)
    refused(backward.local_tone, TWO, tone, 4, two)
    refused(backward.guided_backward, TWO, wrong, 4, one, TWO, True, True)
    refused(backward.local_tone_backward, TWO, tone, 4, two, TWO, True)
    refused(backward.filter_planes_backward, TWO, wrong, 4, one, CELLS, None)
    if name != "strided":  # a gradient is made contiguous
        refused(backward.filter_planes_backward, TWO, CELLS, 4, one, wrong, None)


def test_numbers_of_each_image() -> None:
    for wrong in (torch.ones(1), torch.ones(3), torch.ones(2, 1)):
        refused(backward.sharpen, TWO, wrong)
        refused(backward.sharpen_backward, TWO, wrong, TWO, True)
        refused(backward.filter_planes, TWO, 4, wrong)
        refused(backward.filter_planes_backward, TWO, CELLS, 4, wrong, CELLS, None)
        refused(backward.guided, TWO, CELLS, 4, wrong)
        refused(backward.guided_backward, TWO, CELLS, 4, wrong, TWO, True, True)
    for numbers in (torch.ones(2, 2), torch.ones(1, 3), torch.ones(2, 9)):
        refused(backward.pointwise, TWO, "scale", numbers)
        refused(backward.pointwise_backward, TWO, "scale", numbers, TWO, True)
    refused(backward.pointwise, TWO, "unknown", torch.ones(2, 3))
    planes = CELLS[:, :2].contiguous()
    refused(backward.local_tone, TWO, planes, 4, torch.ones(2, 1))
    refused(backward.local_tone_backward, TWO, planes, 4, torch.ones(1, 2), TWO, True)


def test_gradients_of_images() -> None:
    one = torch.ones(2)
    for wrong in (torch.zeros(2, 3, 8, 9), torch.zeros(2, 3, 8, 9).transpose(2, 3), TWO.double(), TWO):
        refused(backward.filter_planes_backward, TWO, CELLS, 4, one, CELLS, wrong)
    for cell in (0, -4):
        refused(backward.filter_planes_backward, TWO, CELLS, cell, one, CELLS, None)
        refused(backward.guided_backward, TWO, CELLS, cell, one, TWO, True, True)


def test_non_local_means() -> None:
    total = torch.ones(2, 9, 8)
    for strengths in (torch.ones(1, 1, 1), torch.ones(3, 1, 1), torch.zeros(2, 1, 1), H.double()):
        refused(non_local_means.nlm_forward, TWO, strengths)
        refused(non_local_means.nlm_backward, TWO, strengths, TWO, total, TWO, True)
    for wrong in (TWO[:1], TWO.double(), torch.zeros(2, 3, 8, 9)):
        refused(non_local_means.nlm_backward, TWO, H, wrong, total, TWO, True)
        refused(non_local_means.nlm_backward, TWO, H, TWO, total, wrong, True)
        refused(non_local_means.nlm_backward, TWO, H, TWO, wrong[:, 0], TWO, True)


def test_observations() -> None:
    refused(observation.light, TWO, TWO[:1], 0.9)
    for wrong in (ONE[:2], TWO, ONE.double(), torch.zeros(3, 0, 4)):
        refused(observation.unclipped, wrong, 0.9)
        refused(observation.below_limit, wrong, (1.0, 1.0, 1.0))
    refused(observation.below_limit, ONE, (1.0, 1.0))


def test_encoders() -> None:
    weight, offset = LAYER
    for layer in ((weight[:15], offset[:15]), (weight[..., :3], offset), (weight, offset[:15])):
        refused(observation.Encoder, [layer], 0.2)
    refused(observation.Encoder, [LAYER, LAYER], 0.2)  # the second takes six channels of sixteen
    encoder = observation.Encoder([LAYER], 0.2)
    for size in ((6, 64, 32), (6, 10, 10), (5, 64, 64)):
        refused(encoder, torch.zeros(size))
    refused(encoder, torch.zeros(6, 64, 64).double())


def test_raws_of_photos() -> None:
    codes, table, numbers = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(256), [0.0] * 15
    wrong = (
        (codes[:2], table, numbers),
        (codes.int(), table, numbers),
        (codes[:, :0], table, numbers),
        (codes, table[:9], numbers),
        (codes, torch.zeros(512)[::2], numbers),
        (codes, table.double(), numbers),
        (codes, table, []),
    )
    for pixels, light, some in wrong:
        refused(synthesis.unprocess, pixels, False, light, some, True)


def test_noise_and_resizing() -> None:
    values = torch.zeros(3, 4)
    for wrong in (torch.zeros(4, 3), values.double(), torch.zeros(4, 3).T):
        refused(synthesis.add_noise, values, wrong, torch.zeros(3, 4), 0)
        refused(synthesis.add_noise, values, torch.zeros(3, 4), wrong, 0)
    refused(synthesis.add_noise, values, values, torch.zeros(3, 4), 0)
    for steps in (-1, 1 << 22):
        refused(synthesis.add_noise, values, torch.zeros(3, 4), torch.zeros(3, 4), steps)
    refused(synthesis.resize, ONE, 0, 4)


def test_packed_rows() -> None:
    data = torch.zeros(60, dtype=torch.uint8)
    unpacking.unpack(data, 20, 2, 30, "csi2_12")
    for width, height, stride, layout in ((20, 3, 30, "csi2_12"), (20, 2, 29, "csi2_12"), (0, 2, 30, "csi2_12")):
        refused(unpacking.unpack, data, width, height, stride, layout)
    refused(unpacking.unpack, data, 20, 2, 30, "unknown")
    for wrong in (data.int(), data.reshape(2, 30), torch.zeros(120, dtype=torch.uint8)[::2]):
        refused(unpacking.unpack, wrong, 20, 2, 30, "csi2_12")


def test_developing_at_a_small_size() -> None:
    levels = ([64.0] * 4, [0.001] * 4, [0, 1, 1, 2])
    mosaic = torch.zeros(20, 30)
    synthesis.develop_small(mosaic, *levels, 10, 15)
    for wrong in (mosaic.double(), torch.zeros(30, 20).T, torch.zeros(1, 20, 30)):
        refused(synthesis.develop_small, wrong, *levels, 10, 15)
    for size in ((11, 15), (10, 16), (0, 15), (10, 0)):
        refused(synthesis.develop_small, mosaic, *levels, *size)
    for place, value in ((0, [64.0] * 3), (1, [0.001]), (2, [0, 1, 2]), (2, [0, 1, 1, 3]), (2, [0, 1, 1, 1])):
        arguments = [value if i == place else level for i, level in enumerate(levels)]
        refused(synthesis.develop_small, mosaic, *arguments, 10, 15)


def test_bilateral_grids() -> None:
    grid, guide = torch.zeros(2, 4, 5, 3, 16), torch.zeros(10 + 6 * 2)
    bilateral_grid.transform(TWO, grid, guide)
    bilateral_grid.transform_backward(TWO, grid, guide, TWO, True)
    for wrong in (grid[:1], grid[..., :12], grid.double(), grid[0], grid[:, :0]):
        refused(bilateral_grid.transform, TWO, wrong, guide)
        refused(bilateral_grid.transform_backward, TWO, wrong, guide, TWO, True)
    for wrong in (guide[:-1], guide[:10], guide.double(), guide[None]):
        refused(bilateral_grid.transform, TWO, grid, wrong)
        refused(bilateral_grid.bilateral_grid, TWO, grid, wrong)
    refused(bilateral_grid.transform_backward, TWO, grid, guide, TWO[:, :, :, 1:], True)
    for name in WRONG_BATCHES:
        refused(bilateral_grid.transform, WRONG_BATCHES[name], grid, guide)


def test_overlap_is_found_by_address() -> None:
    assert overlap(SHARED[:3], SHARED[2:]) and not overlap(SHARED[:2], SHARED[2:])


def test_every_entry_is_here() -> None:
    source = inspect.getsource(inspect.getmodule(test_every_entry_is_here))  # type: ignore[arg-type]
    for module in (forward, backward, bilateral_grid, non_local_means, observation, synthesis, unpacking):
        for name, entry in vars(module).items():
            own = inspect.isroutine(entry) and entry.__module__ == module.__name__
            if own and not name.startswith("_") and name not in ("require_operation", "rows_for_threads", "row_bytes"):
                assert f"{module.__name__.rpartition('.')[2]}.{name}" in source, name

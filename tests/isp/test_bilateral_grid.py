"""Bilateral grids: slicing against a naive loop, gradients in float64, and pipelines that hold a grid."""

import json
import math
import pickle
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.bilateral_grid import (
    GuideCurves,
    apply_by_products,
    apply_grid,
    identity_cell,
    sliced,
    transformed,
)
from adaptiveisp.isp.grid_pipeline import GridPipeline, stage_of_grid
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.kernels import loading
from adaptiveisp.policies.base import grey_pipeline
from adaptiveisp.policies.fixed import load_fixed
from adaptiveisp.streaming.smoothing import Smoother, SmoothingConfig

DEPTH, ROWS, COLUMNS, KNOTS = 4, 3, 5, 6


def random_case(batch: int = 2, height: int = 11, width: int = 14, seed: int = 0) -> tuple[Tensor, Tensor, GuideCurves]:
    """Images, grids about the identity, and a guide that leaves [0, 1] at both ends."""
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    image = random(batch, 3, height, width)
    grid = identity_cell().view(1, 12, 1, 1, 1) + random(batch, 12, DEPTH, ROWS, COLUMNS) - 0.5
    curves = (random(3, 3), random(3) * 0.2, random(3, KNOTS), random(3, KNOTS) - 0.3, random(3), random(()) * 0.2)
    return image, grid, GuideCurves(*curves)


def guide_of_pixel(pixel: np.ndarray, curves: list[np.ndarray]) -> float:
    matrix, offset, thresholds, slopes, mix, bias = curves
    mixed = matrix @ pixel + offset
    total = float(bias)
    for k in range(3):
        total += mix[k] * sum(slopes[k, i] * max(mixed[k] - thresholds[k, i], 0.0) for i in range(thresholds.shape[1]))
    return min(max(total, 0.0), 1.0)


def naive(image: np.ndarray, grid: np.ndarray, curves: list[np.ndarray]) -> np.ndarray:
    """One image, pixel by pixel: the eight cells around its place and guide, weighted by distance."""
    _, height, width = image.shape
    sizes = grid.shape[1:]
    made = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            guide = guide_of_pixel(image[:, y, x], curves)
            places = (guide * sizes[0], (y + 0.5) / height * sizes[1], (x + 0.5) / width * sizes[2])
            numbers = np.zeros(12)
            for corner in np.ndindex(2, 2, 2):
                weight, cell = 1.0, []
                for place, n, step in zip(places, sizes, corner, strict=True):
                    moved = min(max(place - 0.5, 0.0), n - 1.0)
                    first = math.floor(moved)
                    weight *= moved - first if step else 1 - (moved - first)
                    cell.append(min(first + step, n - 1))
                numbers += weight * grid[:, cell[0], cell[1], cell[2]]
            affine = numbers.reshape(3, 4)
            made[:, y, x] = affine[:, :3] @ image[:, y, x] + affine[:, 3]
    return made


@pytest.mark.parametrize("how", ["kernel", "products", "grid_sample"])
def test_slicing_equals_a_loop_over_pixels_and_corners(how: str) -> None:
    image, grid, curves = random_case()
    arrays = [tensor.double().numpy() for tensor in curves]
    pairs = zip(image, grid, strict=True)
    expected = np.stack([naive(x.double().numpy(), g.double().numpy(), arrays) for x, g in pairs])
    if how == "products":
        found = apply_by_products(image, grid, curves)
    elif how == "grid_sample":
        found = transformed(image, sliced(grid, curves(image)))
    else:
        if not loading.available():
            pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")
        found, expected = apply_grid(image, grid, curves), expected.clip(0, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=3e-6)


@pytest.mark.parametrize("compiled", [True, False])
def test_gradients_equal_float64(compiled: bool) -> None:
    image, grid, curves = random_case(seed=1)
    weight = torch.rand(image.shape, generator=torch.Generator().manual_seed(9))

    def gradients(kind: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(kind).requires_grad_() for tensor in (image, grid, *curves)]
        made = apply_grid(leaves[0], leaves[1], GuideCurves(*leaves[2:]))
        return [made.detach(), *torch.autograd.grad((made * weight.to(kind)).sum(), leaves)]

    expected = gradients(torch.float64)
    with nullcontext() if compiled else loading.turned_off():
        found = gradients(torch.float32)
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).abs().max() <= 1e-5 * max(float(exact.abs().max()), 1.0)


def test_a_grid_of_identities_changes_nothing_and_one_of_gains_multiplies() -> None:
    image, _, curves = random_case()
    grid = identity_cell().view(1, 12, 1, 1, 1).repeat(2, 1, DEPTH, ROWS, COLUMNS)
    torch.testing.assert_close(apply_grid(image, grid, curves), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(apply_grid(image, 0.5 * grid, curves), 0.5 * image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 0, 5), (1, 3, 5, 0), (0, 3, 5, 5)])
def test_images_without_pixels_stay_without(shape: tuple[int, ...]) -> None:
    _, grid, curves = random_case()
    assert apply_grid(torch.empty(shape), grid[: shape[0]], curves).shape == shape


def test_strips_of_a_large_image_are_parts_of_it() -> None:
    image, grid, curves = random_case(1, 150, 101, seed=2)
    expected = transformed(image, sliced(grid, curves(image)))
    torch.testing.assert_close(apply_by_products(image, grid, curves), expected, atol=3e-6, rtol=0)


def grid_pipeline(gain: float = 2.0, before: tuple[Stage, ...] = ()) -> GridPipeline:
    _, grid, curves = random_case()
    grid = gain * identity_cell().view(12, 1, 1, 1) + 0.1 * (grid[0] - grid[0].mean())
    return GridPipeline((*before, stage_of_grid(grid)), "extended", grid, curves)


def test_its_json_states_the_grid_and_is_refused_as_a_pipeline(tmp_path: Path) -> None:
    pipeline = grid_pipeline(before=(Stage("exposure", {"ev": 1.0}),))
    stage = pipeline.to_json()["stages"][1]
    assert stage["params"]["gain"] == pytest.approx(2.0, abs=0.1) and stage["params"]["spread"] > 0
    assert (stage["params"]["rows"], stage["params"]["columns"], stage["params"]["depth"]) == (ROWS, COLUMNS, DEPTH)
    assert "--policy" in pipeline.to_json()["incomplete"]
    (tmp_path / "a.pipeline.json").write_text(json.dumps(pipeline.to_json()))
    with pytest.raises(PipelineError, match=r"a\.pipeline\.json: stage 2 is bilateral_grid: .*in no file.*--policy"):
        load_fixed(tmp_path / "a.pipeline.json")
    with pytest.raises(PipelineError, match="in no file"):
        Pipeline(pipeline.stages).render(torch.rand(1, 3, 4, 4))


def test_it_renders_steps_and_pickles_like_any_pipeline() -> None:
    pipeline = grid_pipeline(before=(Stage("exposure", {"ev": -1.0}),))
    image = torch.rand(1, 3, 20, 30)
    made = pipeline.render(image)
    assert pipeline.grid is not None and pipeline.curves is not None
    torch.testing.assert_close(made, apply_grid(image / 2, pipeline.grid[None], pipeline.curves))
    torch.testing.assert_close(list(pipeline.steps(image))[-1], made)
    torch.testing.assert_close(pickle.loads(pickle.dumps(pipeline)).render(image), made)
    leaf = image.clone().requires_grad_()
    assert torch.autograd.grad(pipeline.render(leaf).sum(), leaf)[0].any()


def test_on_a_monochrome_raw_the_result_is_the_luminance() -> None:
    pipeline = grid_pipeline(0.5, before=(Stage("saturation", {"amount": 0.5}),))
    image = torch.rand(1, 1, 20, 30).expand(-1, 3, -1, -1).contiguous()
    grey, left_out = grey_pipeline(pipeline)
    assert left_out == ("saturation",) and isinstance(grey, GridPipeline)
    assert pipeline.grid is not None and pipeline.curves is not None
    coloured = transformed(image, sliced(pipeline.grid[None], pipeline.curves(image)))
    made = grey.render(image)
    assert torch.equal(made[:, 0], made[:, 1]) and torch.equal(made[:, 0], made[:, 2])
    luminance = (coloured * torch.tensor([0.27, 0.67, 0.06]).view(1, 3, 1, 1)).sum(dim=1)
    torch.testing.assert_close(made[:, 0], luminance.clamp(0, 1), atol=1e-5, rtol=0)


def test_a_stream_smooths_the_grid() -> None:
    frame, smoother = torch.full((1, 3, 16, 16), 0.2), Smoother(SmoothingConfig(frames=1 / math.log(2)))
    smoother.update(grid_pipeline(1.0), frame)
    held = smoother.update(grid_pipeline(2.0), frame)
    assert isinstance(held, GridPipeline) and held.grid is not None
    torch.testing.assert_close(held.grid, (grid_pipeline(1.0).grid + grid_pipeline(2.0).grid) / 2)  # type: ignore[operator]
    assert held.stages[-1] == stage_of_grid(held.grid)

"""Decode and loss of CenterNet, against loops over objects and cells in NumPy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptiveisp.detectors.centernet.loss import (
    BOX_GAIN,
    SCALE,
    centernet_loss,
    focal_loss,
    gaussian_radius,
    heat_targets,
)
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.testing import check_detector
from adaptiveisp.types import Targets
from tests.detectors.test_detector_contract import installed
from tests.support.tfjs_models import centernet

Array = NDArray[Any]
BOXES = torch.tensor(
    [[4.0, 6.0, 50.0, 58.0], [30.0, 10.0, 47.0, 33.0], [40.0, 41.0, 43.0, 44.0], [-9.0, 50.0, 3.0, 99.0]]
)
LABELS = torch.tensor([2, 0, 2, 1])
OBJECTS = Targets(BOXES, LABELS)
NOTHING = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
ROWS, COLUMNS, CLASSES = 16, 20, 3


def radius_of(width: int, height: int) -> int:
    """The released rule with its three cases written out, for an IoU of 0.7."""
    one = (height + width) ** 2 - 4 * width * height * 0.3 / 1.7
    two = (2 * (height + width)) ** 2 - 16 * 0.3 * width * height
    three = (1.4 * (height + width)) ** 2 + 4 * 2.8 * 0.3 * width * height
    roots = (
        (height + width + math.sqrt(one)) / 2,
        (2 * (height + width) + math.sqrt(two)) / 2,
        (-1.4 * (height + width) + math.sqrt(three)) / 2,
    )
    return max(0, int(min(roots)))


def heat_of(boxes: Array, labels: Array) -> Array:
    heat = np.zeros((ROWS, COLUMNS, CLASSES))
    for (x0, y0, x1, y1), label in zip(boxes / 4, labels, strict=True):
        column = min(max(math.floor((x0 + x1) / 2), 0), COLUMNS - 1)
        row = min(max(math.floor((y0 + y1) / 2), 0), ROWS - 1)
        radius = radius_of(math.ceil(x1 - x0), math.ceil(y1 - y0))
        sigma = (2 * radius + 1) / 6
        for y in range(max(0, row - radius), min(ROWS, row + radius + 1)):
            for x in range(max(0, column - radius), min(COLUMNS, column + radius + 1)):
                value = math.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * sigma**2))
                heat[y, x, label] = max(heat[y, x, label], value)
    return heat


def giou_of(a: Array, b: Array) -> float:
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return float(overlap / union - (hull - union) / hull)


def outputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(ROWS, COLUMNS, CLASSES, generator=generator, dtype=torch.float64)
    return logits, 20 * torch.rand(ROWS, COLUMNS, 4, generator=generator, dtype=torch.float64)


def test_radius() -> None:
    for width, height in ((1, 1), (3, 8), (40, 2), (64, 64)):
        assert max(0, int(gaussian_radius(float(width), float(height)))) == radius_of(width, height)
    assert radius_of(64, 64) == 17


def test_heat_targets() -> None:
    heat, centres = heat_targets(OBJECTS, CLASSES, ROWS, COLUMNS)
    np.testing.assert_allclose(heat.numpy(), heat_of(BOXES.numpy(), LABELS.numpy()), atol=1e-6)
    assert centres.tolist() == [[8, 6], [5, 9], [10, 10], [15, 0]]
    assert (heat == 1).sum() == 4 and (heat[..., 2] > 0).sum() > 10
    assert not heat_targets(NOTHING, CLASSES, ROWS, COLUMNS)[0].any()


def test_loss_against_loops() -> None:
    logits, sides = outputs()
    targets = Targets(BOXES.double(), LABELS)
    loss_of_boxes, loss_of_heat = centernet_loss(logits, sides, targets)
    heat, p = heat_of(BOXES.numpy().astype(float), LABELS.numpy()), 1 / (1 + np.exp(-logits.numpy()))
    total = 0.0
    for place in np.ndindex(heat.shape):
        if heat[place] == 1:
            total -= (1 - p[place]) ** 2 * math.log(p[place])
        else:
            total -= (1 - heat[place]) ** 4 * p[place] ** 2 * math.log(1 - p[place])
    overlaps = []
    for box, (row, column) in zip(BOXES.numpy(), [[8, 6], [5, 9], [10, 10], [15, 0]], strict=True):
        left, top, right, bottom = sides[row, column].numpy()
        overlaps.append(
            giou_of(np.array([4 * column - left, 4 * row - top, 4 * column + right, 4 * row + bottom]), box)
        )
    assert float(loss_of_heat) == pytest.approx(SCALE * total / 4, rel=1e-6)
    assert float(loss_of_boxes) == pytest.approx(SCALE * BOX_GAIN * (1 - np.mean(overlaps)), rel=1e-6)


def test_two_objects_of_one_cell_count_once() -> None:
    logits, _ = outputs()
    wanted, _ = heat_targets(Targets(BOXES[[0, 0]].double(), LABELS[[0, 0]]), CLASSES, ROWS, COLUMNS)
    once, _ = heat_targets(Targets(BOXES[:1].double(), LABELS[:1]), CLASSES, ROWS, COLUMNS)
    torch.testing.assert_close(focal_loss(logits, wanted), focal_loss(logits, once))


@pytest.mark.parametrize("objects", [OBJECTS, NOTHING])
def test_gradients(objects: Targets) -> None:
    logits, sides = (value.requires_grad_() for value in outputs())
    targets = Targets(objects.boxes.double(), objects.labels)
    assert torch.autograd.gradcheck(lambda a, b: sum(centernet_loss(a, b, targets)), (logits, sides), fast_mode=True)


def test_extreme_logits_give_finite_gradients() -> None:
    logits, sides = outputs()
    given = (1000 * logits).float().requires_grad_()
    crossed = (-sides).float().requires_grad_()
    loss = sum(centernet_loss(given, crossed, OBJECTS))
    loss.backward()
    assert loss.isfinite() and given.grad is not None and given.grad.isfinite().all()
    assert crossed.grad is not None and crossed.grad.isfinite().all()


def test_a_right_prediction_costs_least() -> None:
    heat, centres = heat_targets(OBJECTS, CLASSES, ROWS, COLUMNS)
    logits = torch.where(heat == 1, 12.0, -12.0)
    sides = torch.zeros(ROWS, COLUMNS, 4)
    corner = 4.0 * centres.flip(1)
    sides[centres[:, 0], centres[:, 1]] = torch.cat((corner - BOXES[:, :2], BOXES[:, 2:] - corner), dim=1)
    assert sum(centernet_loss(logits, sides, OBJECTS)) < 1e-4
    assert centernet_loss(logits, sides + 3, OBJECTS)[0] > 0.1 * SCALE
    assert centernet_loss(-logits, sides, OBJECTS)[1] > SCALE


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160)])
def test_decode_against_a_loop(tmp_path: Path, height: int, width: int) -> None:
    detector = centernet(tmp_path)
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    logits, sides = detector(image)
    assert logits.shape == (2, height // 4, width // 4, 3) and sides.shape == (2, height // 4, width // 4, 4)
    found = detector.detect(image, confidence=0.25, nms_iou=2.0, max_detections=100_000)
    heat = (1 / (1 + np.exp(-logits.double().numpy()))).astype(np.float32)
    for number, one in enumerate(found):
        expected = []
        for y, x, label in np.ndindex(heat[number].shape):
            window = heat[number, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2, label]
            if heat[number, y, x, label] == window.max() and window.max() > 0.25:
                left, top, right, bottom = sides[number, y, x].tolist()
                box = (4 * x - left, 4 * y - top, 4 * x + right, 4 * y + bottom)
                clipped = [min(max(value, 0), (width, height)[i % 2]) for i, value in enumerate(box)]
                expected.append((label, float(window.max()), *clipped))
        rows = torch.cat((one.labels[:, None].float(), one.scores[:, None], one.boxes), dim=1).tolist()
        assert len(rows) == len(expected) > 20
        np.testing.assert_allclose(sorted(rows), sorted(expected), rtol=1e-5, atol=1e-3)


def test_images_are_given_in_0_to_255(tmp_path: Path) -> None:
    detector = centernet(tmp_path)
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(list(detector(image)), detector.network(image * 255))


def test_published_network() -> None:
    detector = load_detector(installed("mb3-centernet"))
    check_detector(detector, 64)
    assert (detector.name, detector.stride, len(detector.class_names)) == ("mb3-centernet", 32, 80)
    assert detector.weights_sha256 == "d82f7efbe2194b1638ba372759077a9f6d926aadec6a693f4af0af65e99f50a1"

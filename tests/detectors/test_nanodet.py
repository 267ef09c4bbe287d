"""Decode and loss of NanoDet, against loops over objects and cells in NumPy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.detectors.nanodet.assignment import assign
from adaptiveisp.detectors.nanodet.detector import cells
from adaptiveisp.detectors.nanodet.loss import BOX_GAIN, DISTRIBUTION_GAIN, SCALE, nanodet_loss
from adaptiveisp.testing import check_detector
from adaptiveisp.types import Targets
from tests.detectors.test_centernet import giou_of
from tests.detectors.test_detector_contract import installed
from tests.support.tfjs_models import nanodet

Array = NDArray[Any]
HEIGHT, WIDTH, CLASSES, BINS = 96, 128, 3, 11
BOXES = torch.tensor(
    [
        [4.0, 6.0, 90.0, 80.0],
        [30.0, 10.0, 77.0, 63.0],
        [100.0, 40.0, 120.0, 62.0],
        [-9.0, 50.0, 23.0, 99.0],
        [9.0, 9.0, 12.0, 12.0],
    ]
).double()
LABELS = torch.tensor([2, 0, 2, 1, 1])
OBJECTS = Targets(BOXES, LABELS)
NOTHING = Targets(torch.zeros(0, 4).double(), torch.zeros(0, dtype=torch.long))


def iou_of(a: Array, b: Array) -> float:
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return float(overlap / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap))


def centre_cells() -> list[tuple[float, float, int]]:
    """(x, y, stride) of each cell."""
    return [
        ((column + 0.5) * stride, (row + 0.5) * stride, stride)
        for stride in (8, 16, 32)
        for row in range(HEIGHT // stride)
        for column in range(WIDTH // stride)
    ]


def assigned(boxes: Array) -> dict[int, int]:
    """Cell → object, by the algorithm as its paper states it."""
    every = centre_cells()
    best: dict[int, tuple[float, int]] = {}
    for number, box in enumerate(boxes):
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        candidates: list[int] = []
        for stride in (8, 16, 32):
            level = [i for i, cell in enumerate(every) if cell[2] == stride]
            level.sort(key=lambda i: math.hypot(every[i][0] - middle[0], every[i][1] - middle[1]))
            candidates += level[:9]
        overlaps = {}
        for i in candidates:
            x, y, stride = every[i]
            overlaps[i] = iou_of(
                np.array([x - 2.5 * stride, y - 2.5 * stride, x + 2.5 * stride, y + 2.5 * stride]), box
            )
        values = list(overlaps.values())
        threshold = np.mean(values) + np.std(values, ddof=1)
        for i, overlap in overlaps.items():
            x, y, _ = every[i]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best.get(i, (-1.0, 0))[0]:
                best[i] = (overlap, number)
    return {i: number for i, (_, number) in best.items()}


def outputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    count = len(centre_cells())
    logits = 2 * torch.randn(count, CLASSES, generator=generator, dtype=torch.float64)
    return logits, torch.randn(count, 4, BINS, generator=generator, dtype=torch.float64)


def test_cells() -> None:
    centres, strides = cells(HEIGHT, WIDTH, torch.zeros(()))
    assert torch.cat((centres, strides[:, None]), dim=1).tolist() == [list(map(float, c)) for c in centre_cells()]


def test_assignment_against_a_loop() -> None:
    centres, strides = cells(HEIGHT, WIDTH, BOXES)
    # Boxes off the grid, so that no two cells are at the same distance from a centre.
    boxes = BOXES + torch.tensor([0.31, 0.17, 0.23, 0.41])
    found = assign(centres, strides, boxes)
    expected = assigned(boxes.numpy())
    assert dict(zip(found.cell.tolist(), found.target.tolist(), strict=True)) == expected
    assert {0, 1, 2, 3} <= set(expected.values()) and len(expected) > 10


def loss_by_loops(logits: Array, bins: Array, boxes: Array, labels: Array) -> tuple[float, float]:
    """(classification, box) without the factor of the whole loss."""
    every, cells_of = centre_cells(), assigned(boxes)
    scores = 1 / (1 + np.exp(-logits))
    wanted = np.zeros_like(logits)
    box_sum = 0.0
    for i, number in cells_of.items():
        x, y, stride = every[i]
        share = np.exp(bins[i]) / np.exp(bins[i]).sum(1, keepdims=True)
        left, top, right, bottom = stride * (share * np.arange(BINS)).sum(1)
        predicted = np.array([x - left, y - top, x + right, y + bottom])
        wanted[i, labels[number]] = 1
        x0, y0, x1, y1 = boxes[number]
        entropy = 0.0
        for side, distance in enumerate((x - x0, y - y0, x1 - x, y1 - y)):
            distance = min(max(distance / stride, 0), 9.9)
            low = math.floor(distance)
            near, far = -math.log(share[side, low]), -math.log(share[side, low + 1])
            entropy += (low + 1 - distance) * near + (distance - low) * far
        box_sum += 2 * (1 - giou_of(predicted, boxes[number])) + 0.25 * entropy / 4
    classes = 0.0
    for place in np.ndindex(scores.shape):
        y, p = wanted[place], scores[place]
        classes -= abs(y - p) ** 2 * (y * math.log(p) + (1 - y) * math.log(1 - p))
    return classes / max(1, len(cells_of)), box_sum / max(1, len(cells_of))


@pytest.mark.parametrize("count", [5, 1, 0])
def test_loss_against_loops(count: int) -> None:
    assert (BOX_GAIN, DISTRIBUTION_GAIN) == (2.0, 0.25)
    logits, bins = outputs()
    boxes = (BOXES + torch.tensor([0.31, 0.17, 0.23, 0.41]))[:count]
    loss_of_boxes, loss_of_scores = nanodet_loss(
        logits, bins, *cells(HEIGHT, WIDTH, BOXES), Targets(boxes, LABELS[:count])
    )
    classes, box = loss_by_loops(logits.numpy(), bins.numpy(), boxes.numpy(), LABELS.numpy())
    assert float(loss_of_scores) == pytest.approx(SCALE * classes, rel=1e-6)
    assert float(loss_of_boxes) == pytest.approx(SCALE * box, rel=1e-6)


@pytest.mark.parametrize("objects", [OBJECTS, NOTHING])
def test_gradients(objects: Targets) -> None:
    logits, bins = (value.requires_grad_() for value in outputs())
    grid = cells(HEIGHT, WIDTH, BOXES)
    assert torch.autograd.gradcheck(
        lambda a, b: sum(nanodet_loss(a, b, *grid, objects)), (logits, bins), fast_mode=True
    )


def test_a_network_that_finds_less_has_a_higher_loss() -> None:
    """The wanted scores must not fall with the boxes' overlap, as they do in the paper."""
    logits, bins = outputs()
    grid = cells(HEIGHT, WIDTH, BOXES)
    losses = [nanodet_loss(logits - fall, bins, *grid, OBJECTS)[1] for fall in (4.0, 6.0, 8.0)]
    assert losses[0] < losses[1] < losses[2]


def test_extreme_outputs_give_finite_gradients() -> None:
    logits, bins = ((1000 * value).float().requires_grad_() for value in outputs())
    targets = Targets(BOXES.float(), LABELS)
    loss = sum(nanodet_loss(logits, bins, *cells(HEIGHT, WIDTH, bins), targets))
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert bins.grad is not None and bins.grad.isfinite().all()


def test_a_right_prediction_costs_least() -> None:
    centres, strides = cells(HEIGHT, WIDTH, BOXES)
    cell, target = assign(centres, strides, BOXES)
    logits = torch.full((len(centres), CLASSES), -12.0).double()
    logits[cell, LABELS[target]] = 12
    bins = torch.full((len(centres), 4, BINS), -30.0).double()
    far = torch.cat((centres[cell] - BOXES[target, :2], BOXES[target, 2:] - centres[cell]), dim=1) / strides[cell, None]
    assert far.max() < BINS - 1
    low = far.floor().long()
    bins[cell[:, None], torch.arange(4), low] = (1 - (far - low)).clamp(min=1e-12).log()
    bins[cell[:, None], torch.arange(4), low + 1] = (far - low).clamp(min=1e-12).log()
    box, scores = nanodet_loss(logits, bins, centres, strides, OBJECTS)
    assert scores < 1e-3 * SCALE and box < DISTRIBUTION_GAIN * math.log(2) * SCALE
    assert nanodet_loss(-logits, bins, centres, strides, OBJECTS)[1] > SCALE
    assert nanodet_loss(logits, bins.roll(2, 2), centres, strides, OBJECTS)[0] > 2 * box


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160)])
def test_decode_against_a_loop(tmp_path: Path, height: int, width: int) -> None:
    detector = nanodet(tmp_path)
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    # The graph itself, whose outputs are scores of one level and then distributions of one level.
    swapped = 255 * image[:, [2, 1, 0]] - torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    raw = [
        value.double().numpy()
        for value in detector.network(swapped / torch.tensor([57.375, 57.12, 58.395])[:, None, None])
    ]
    found = detector.detect(image, confidence=0.3, nms_iou=2.0, max_detections=100_000)
    for number, one in enumerate(found):
        expected = []
        for level, stride in enumerate((8, 16, 32)):
            columns = width // stride
            for place, (logits, values) in enumerate(zip(raw[level][number], raw[level + 3][number], strict=True)):
                x, y = (place % columns + 0.5) * stride, (place // columns + 0.5) * stride
                share = np.exp(values.reshape(4, 11))
                left, top, right, bottom = stride * (share * np.arange(11)).sum(1) / share.sum(1)
                box = (x - left, y - top, x + right, y + bottom)
                if abs((box[0] + box[2] - width) / 2) > width or abs((box[1] + box[3] - height) / 2) > height:
                    continue  # its centre is not within twice the image
                clipped = [min(max(value, 0), (width, height)[i % 2]) for i, value in enumerate(box)]
                expected += [(n, s, *clipped) for n, s in enumerate(1 / (1 + np.exp(-logits))) if s > 0.3]
        rows = torch.cat((one.labels[:, None].float(), one.scores[:, None], one.boxes), dim=1).tolist()
        assert len(rows) == len(expected) > 20
        np.testing.assert_allclose(sorted(rows), sorted(expected), rtol=1e-5, atol=1e-3)


def test_published_network() -> None:
    detector = load_detector(installed("nanodet-g"))
    check_detector(detector, 64)
    assert (detector.name, detector.stride, len(detector.class_names)) == ("nanodet-g", 32, 80)
    assert detector.weights_sha256 == "ab45fa72e4ddf2ec6bfb3c759c17175c260668ccdbc3fe034b88aca74bec9e0a"

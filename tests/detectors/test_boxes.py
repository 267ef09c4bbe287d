import math

import cv2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adaptiveisp.detectors import boxes as boxes_module
from adaptiveisp.detectors.boxes import (
    as_annotations,
    clip_boxes,
    complete_iou,
    cxcywh_to_xyxy,
    nms,
    pairwise_iou,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)
from adaptiveisp.types import Annotation, Detections


def random_boxes(n: int, seed: int, size: float = 100) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * size
    return torch.cat((corner, corner + 1 + torch.rand(n, 2, generator=generator) * size / 2), dim=1)


def naive_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def naive_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: -float(scores[i])):
        rivals = [j for j in kept if labels[j] == labels[i]]
        if all(naive_iou(boxes[i].tolist(), boxes[j].tolist()) <= threshold for j in rivals):
            kept.append(i)
    return kept


def test_conversions_by_hand() -> None:
    xyxy = torch.tensor([[10.0, 20, 30, 60]])
    assert xyxy_to_xywh(xyxy).tolist() == [[10, 20, 20, 40]]
    assert xyxy_to_cxcywh(xyxy).tolist() == [[20, 40, 20, 40]]
    assert xywh_to_xyxy(torch.tensor([[10.0, 20, 20, 40]])).tolist() == xyxy.tolist()
    assert cxcywh_to_xyxy(torch.tensor([[20.0, 40, 20, 40]])).tolist() == xyxy.tolist()


def test_conversions_keep_leading_dimensions_and_dtype() -> None:
    boxes = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    assert cxcywh_to_xyxy(boxes).shape == (2, 3, 5, 4)
    assert cxcywh_to_xyxy(boxes).dtype == torch.float64
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)


def test_clip_boxes_uses_width_for_x_and_height_for_y() -> None:
    boxes = torch.tensor([[-5.0, -6, 500, 500], [1, 2, 3, 4]])
    assert clip_boxes(boxes, height=100, width=200).tolist() == [[0, 0, 200, 100], [1, 2, 3, 4]]


def test_pairwise_iou_equals_loops() -> None:
    first, second = random_boxes(20, 0), random_boxes(30, 1)
    second[0] = first[0]
    expected = torch.tensor([[naive_iou(a, b) for b in second.tolist()] for a in first.tolist()])
    torch.testing.assert_close(pairwise_iou(first, second), expected)
    assert expected[0, 0] == 1
    assert (expected == 0).any() and ((expected > 0) & (expected < 1)).any()


def test_pairwise_iou_of_empty_boxes_is_zero() -> None:
    empty = torch.zeros(1, 4)
    assert pairwise_iou(empty, empty).item() == 0


def test_complete_iou_shifted_by_hand() -> None:
    # Two squares of side 2, centres 1 apart: IoU 2/6; the box around both is 3x2, so c² = 13; same shape, so v = 0.
    value = complete_iou(torch.tensor([[0.0, 0, 2, 2]]).double(), torch.tensor([[1.0, 0, 2, 2]]).double())
    assert value.item() == pytest.approx(1 / 3 - 1 / 13, abs=1e-6)


def test_complete_iou_other_shape_by_hand() -> None:
    # Same centre, 2x2 inside 4x2: IoU 4/8, no distance, v from atan 2 and atan 1.
    v = 4 / math.pi**2 * (math.atan(2) - math.pi / 4) ** 2
    value = complete_iou(torch.tensor([[5.0, 5, 2, 2]]).double(), torch.tensor([[5.0, 5, 4, 2]]).double())
    assert value.item() == pytest.approx(0.5 - v * v / (v + 0.5), abs=1e-6)


def test_complete_iou_apart_is_negative_and_equal_is_one() -> None:
    predicted = torch.tensor([[0.0, 0, 1, 1], [3, 4, 5, 6]])
    value = complete_iou(predicted, torch.tensor([[10.0, 10, 1, 1], [3, 4, 5, 6]]))
    assert value[0].item() == pytest.approx(-200 / 242, abs=1e-6)
    assert value[1].item() == pytest.approx(1, abs=1e-6)


def test_complete_iou_gradient_is_right_where_shapes_agree() -> None:
    # With equal aspect ratios αv and its derivative vanish, so that α being detached does not show.
    target = torch.tensor([[0.0, 0, 4, 2], [3, 3, 2, 2]], dtype=torch.float64)
    predicted = torch.tensor([[0.3, 0.2, 6, 3], [2.5, 2.9, 1.5, 1.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda box: complete_iou(box, target), (predicted,), atol=1e-6)


def test_complete_iou_alpha_passes_no_gradient() -> None:
    size = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    # Predicted width w, height 2, same centre as the 4x2 target: IoU = w/4, v = 4/π² (atan 2 - atan w/2)².
    predicted = torch.stack((torch.zeros(1).double(), torch.zeros(1).double(), size, torch.full((1,), 2.0).double()), 1)
    complete_iou(predicted, torch.tensor([[0.0, 0, 4, 2]], dtype=torch.float64)).sum().backward()
    angle = math.atan(2) - math.atan(1)
    v = 4 / math.pi**2 * angle**2
    slope_v = 4 / math.pi**2 * 2 * angle * -0.5 / (1 + 1)
    assert size.grad is not None
    assert size.grad.item() == pytest.approx(0.25 - v / (v + 0.5) * slope_v, abs=1e-6)


@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), threshold=st.sampled_from([0.1, 0.45, 0.6, 0.9]))
@settings(max_examples=40, deadline=None)
def test_nms_equals_loops(seed: int, n: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, scores = random_boxes(n, seed, size=30), torch.rand(n, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    assert nms(boxes, scores, labels, threshold, 1000).tolist() == naive_nms(boxes, scores, labels, threshold)


def test_nms_equals_opencv() -> None:
    boxes, scores = random_boxes(300, 3), torch.rand(300, generator=torch.Generator().manual_seed(3))
    kept = nms(boxes, scores, torch.zeros(300, dtype=torch.int64), 0.5, 1000)
    theirs = cv2.dnn.NMSBoxes(xyxy_to_xywh(boxes).tolist(), scores.tolist(), 0.0, 0.5)
    assert kept.tolist() == list(theirs)
    assert len(kept) < 300


def test_nms_keeps_classes_apart_and_limits_the_number() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4)
    scores, labels = torch.tensor([0.1, 0.9, 0.5, 0.3]), torch.tensor([1, 2, 1, 3])
    assert nms(boxes, scores, labels, 0.5, 300).tolist() == [1, 2, 3]
    assert nms(boxes, scores, labels, 0.5, 2).tolist() == [1, 2]


def test_nms_prefers_the_first_of_equal_scores() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]])
    assert nms(boxes, torch.full((3,), 0.5), torch.zeros(3, dtype=torch.int64), 0.5, 300).tolist() == [0, 2]


def test_nms_looks_at_the_best_candidates_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes_module, "MAX_NMS_CANDIDATES", 2)
    boxes = torch.tensor([[0.0, 0, 1, 1], [10, 10, 11, 11], [20, 20, 21, 21]])
    assert nms(boxes, torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int64), 0.5, 300).tolist() == [2, 1]


@pytest.mark.parametrize("first", [1, 4, 30, 200])
@pytest.mark.parametrize("most", [3, 20, 1000])
def test_nms_of_the_best_first_changes_nothing(first: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, labels = random_boxes(200, 5, size=60), torch.arange(200) % 3
    scores = torch.rand(200, generator=torch.Generator().manual_seed(5)).mul(20).round() / 20  # many are equal
    expected = naive_nms(boxes, scores, labels, 0.45)[:most]
    monkeypatch.setattr(boxes_module, "FIRST_NMS_CANDIDATES", first)
    assert nms(boxes, scores, labels, 0.45, most).tolist() == expected
    scores[7] = torch.nan  # counts as the highest
    everything = nms(boxes, scores, labels, 0.45, most).tolist()
    monkeypatch.setattr(boxes_module, "FIRST_NMS_CANDIDATES", 200)
    assert nms(boxes, scores, labels, 0.45, most).tolist() == everything


def test_nms_of_nothing_is_nothing() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5, 300).tolist() == []


def test_detections_as_annotations() -> None:
    found = Detections(torch.tensor([[1.5, 2.0, 4.0, 8.0]]), torch.tensor([0.9]), torch.tensor([7]))
    assert as_annotations(found) == (Annotation(7, (1.5, 2.0, 2.5, 6.0), 15.0),)

"""Losses of decoded predictions and of sets: by hand, against transformers, and by what must not matter."""

import math

import pytest
import torch

from adaptiveisp.detectors.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from adaptiveisp.detectors.huggingface.set_loss import SCALE, assigned, decoded_loss, detr_loss, pairwise_giou
from adaptiveisp.types import Targets

pytest.importorskip("scipy")

E = 1e-6


def lp(x: float) -> float:
    return -math.log((x + E) / (1 + E))


def targets(boxes: list[list[float]], labels: list[int]) -> Targets:
    return Targets(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), torch.tensor(labels, dtype=torch.long))


def test_generalised_iou_by_hand() -> None:
    """Two unit squares with a gap of one: no overlap, a hull of three; one in the other: as the IoU."""
    first = torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2]], dtype=torch.float64)
    second = torch.tensor([[2.0, 0, 3, 1], [0, 0, 1, 1]], dtype=torch.float64)
    expected = torch.tensor([[-1 / 3, 1.0], [-1 / 6, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(pairwise_giou(first, second), expected)


def test_the_assignment_is_the_best_of_all() -> None:
    """Against every way there is: the candidates that are left out cannot be part of the best."""
    import itertools

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        cost = torch.rand(7, 3, generator=generator)
        place, target = assigned(cost)
        best = min(
            sum(float(cost[p, t]) for t, p in enumerate(chosen)) for chosen in itertools.permutations(range(7), 3)
        )
        assert target.tolist() == [0, 1, 2] and len(set(place.tolist())) == 3
        assert float(cost[place, target].sum()) == pytest.approx(best)
    assert [len(part) for part in assigned(torch.rand(2, 5))] == [2, 2]


def test_one_target_by_hand() -> None:
    """The first prediction is the match, the second overlaps it too much to count, the third and other classes do."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], dtype=torch.float64)
    scores = torch.tensor([[0.6, 0.1], [0.5, 0.2], [0.3, 0.05]], dtype=torch.float64)
    found = decoded_loss(boxes, scores, targets([[0, 0, 10, 10]], [0]))
    background = sum(p**2 * lp(1 - p) for p in (0.1, 0.2, 0.3, 0.05))
    assert float(found) * 64 == pytest.approx(lp(0.6) + background, rel=1e-6)


def test_a_box_that_is_off_costs_its_complete_iou() -> None:
    """Half the width, the same centre: IoU 1/2 and the term of the shape."""
    boxes = torch.tensor([[5, 0, 15, 20]], dtype=torch.float64)
    found = decoded_loss(boxes, torch.ones(1, 1, dtype=torch.float64), targets([[0, 0, 20, 20]], [0]))
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(0.5)) ** 2
    assert float(found) * 64 == pytest.approx(2 * (0.5 + v * v / (v + 0.5)), rel=1e-5)


def test_two_targets_take_two_predictions() -> None:
    """Both targets like the first prediction best; the second target gets what is left, and the mean is over both."""
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 10]], dtype=torch.float64)
    scores = torch.tensor([[0.9], [0.4]], dtype=torch.float64)
    found = decoded_loss(boxes, scores, targets([[0, 0, 10, 10], [0, 0, 10, 10]], [0, 0]))
    assert float(found) * 64 == pytest.approx((lp(0.9) + lp(0.4)) / 2, rel=1e-6)


def test_without_targets_only_false_alarms_cost() -> None:
    scores = torch.tensor([[0.5, 0.0]], dtype=torch.float64)
    found = decoded_loss(torch.zeros(1, 4, dtype=torch.float64), scores, targets([], []))
    assert float(found) == pytest.approx(SCALE * 0.25 * math.log(2), rel=1e-5)
    assert float(decoded_loss(torch.zeros(0, 4), torch.zeros(0, 2), targets([], []))) == 0


def test_what_is_missed_costs_more_than_the_worst_match() -> None:
    one = targets([[0, 0, 10, 10]], [0])
    missed = decoded_loss(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, 1, dtype=torch.float64), one)
    assert float(missed) * 64 == pytest.approx(4 + lp(0), rel=1e-6)
    far = torch.tensor([[500, 500, 510, 510]], dtype=torch.float64)
    assert float(decoded_loss(far, torch.full((1, 1), 0.01, dtype=torch.float64), one)) < float(missed)


def test_the_order_of_predictions_and_targets_does_not_matter() -> None:
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 50
    boxes = torch.cat((low, low + 5 + torch.rand(40, 2, generator=generator, dtype=torch.float64) * 30), dim=1)
    scores = torch.rand(40, 3, generator=generator, dtype=torch.float64)
    wanted = Targets(boxes[:4] + 2, torch.tensor([0, 2, 1, 0]))
    order, turned = torch.randperm(40, generator=generator), torch.tensor([2, 0, 3, 1])
    other = Targets(wanted.boxes[turned], wanted.labels[turned])
    assert float(decoded_loss(boxes, scores, wanted)) == pytest.approx(
        float(decoded_loss(boxes[order], scores[order], other)), rel=1e-12
    )


@pytest.mark.parametrize("sigmoid", [False, True])
def test_gradients_are_those_of_finite_differences(sigmoid: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    centre = 0.3 + 0.4 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat((centre, 0.1 + 0.2 * torch.rand(6, 2, generator=generator, dtype=torch.float64)), dim=1)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    wanted = targets([[0.1, 0.1, 0.5, 0.6], [0.4, 0.5, 0.9, 0.8]], [1, 2])
    leaves = (boxes.requires_grad_(), logits.requires_grad_())
    assert torch.autograd.gradcheck(lambda b, z: detr_loss(z, b, wanted, sigmoid), leaves)
    pixels = Targets(wanted.boxes * 100, wanted.labels)
    assert torch.autograd.gradcheck(lambda b, z: decoded_loss(cxcywh_to_xyxy(b) * 100, z.sigmoid(), pixels), leaves)


def test_degenerate_predictions_give_finite_gradients() -> None:
    """Boxes turned inside out, of no size, and exactly the target's; scores of exactly 0 and 1."""
    boxes = torch.tensor([[10.0, 10, 5, 5], [3, 3, 3, 3], [0, 0, 10, 10]], requires_grad=True)
    scores = torch.tensor([[0.0, 1], [1, 0], [0, 0]], requires_grad=True)
    loss = decoded_loss(boxes, scores, Targets(torch.tensor([[0.0, 0, 10, 10], [8, 8, 9, 9]]), torch.tensor([0, 1])))
    loss.backward()
    assert loss.isfinite() and boxes.grad is not None and boxes.grad.isfinite().all()
    assert scores.grad is not None and scores.grad.isfinite().all()


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_loss_of_a_detr_is_that_of_transformers(n: int, sigmoid: bool) -> None:
    module = "loss_deformable_detr" if sigmoid else "loss_for_object_detection"
    theirs = pytest.importorskip(f"transformers.loss.{module}")
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(9, 5 if sigmoid else 6, generator=generator)
    boxes = torch.cat(
        (0.3 + 0.4 * torch.rand(9, 2, generator=generator), 0.05 + torch.rand(9, 2, generator=generator) / 4), 1
    )
    truth = cxcywh_to_xyxy(boxes[:n] + 0.02)
    labels = torch.arange(n) % 5
    answers = [{"class_labels": labels, "boxes": xyxy_to_cxcywh(truth)}]
    outputs = {"logits": logits[None], "pred_boxes": boxes[None]}
    if sigmoid:
        matcher = theirs.DeformableDetrHungarianMatcher(class_cost=2, bbox_cost=5, giou_cost=2)
        criterion = theirs.DeformableDetrImageLoss(matcher, 5, 0.25, ["labels", "boxes"])
    else:
        matcher = theirs.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
        criterion = theirs.ImageLoss(matcher, 5, 0.1, ["labels", "boxes"])
    terms = criterion(outputs, answers)
    expected = (2 if sigmoid else 1) * terms["loss_ce"] + 5 * terms["loss_bbox"] + 2 * terms["loss_giou"]
    found = detr_loss(logits, boxes, Targets(truth, labels), sigmoid)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

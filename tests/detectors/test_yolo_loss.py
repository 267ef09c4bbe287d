import math

import pytest
import torch
from torch import Tensor

from adaptiveisp.detectors.yolo.loss import Decode, decode_boxes, yolo_loss
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import LossTerms, Targets
from tests.golden import GoldenValues

ANCHORS = [
    torch.tensor([[6.0, 8.0], [14.0, 10.0]]),
    torch.tensor([[20.0, 24.0], [40.0, 16.0]]),
    torch.tensor([[40.0, 56.0], [90.0, 60.0]]),
]
SIZE, CLASSES = 64, 3


def random_heads(batch: int, seed: int = 0, layers: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    grids = [SIZE // stride for stride in (8, 16, 32)][:layers]
    return [torch.randn(batch, 2, n, n, 5 + CLASSES, generator=generator, dtype=dtype) for n in grids]


def targets_of(*rows: tuple[float, float, float, float, int]) -> Targets:
    """From (cx, cy, w, h, label) in pixels."""
    boxes = torch.tensor([row[:4] for row in rows], dtype=torch.float64).reshape(-1, 4)
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), dim=1)
    return Targets(corners, torch.tensor([row[4] for row in rows], dtype=torch.int64))


SCENES = [
    targets_of((20, 30, 12, 14, 0), (41, 22, 30, 20, 2), (33, 33, 60, 50, 1)),
    targets_of(),
    targets_of((1, 2, 9, 9, 1), (63, 60, 10, 12, 2)),  # nearer to the border than half a cell
    targets_of((25, 26, 12, 12, 0), (25.5, 26.5, 11, 13, 1), (26, 25, 12, 12, 2)),  # in one cell
    targets_of((32, 32, 16, 16, 0), (62, 10, 12, 300, 1), (44, 9, 0, 10, 1)),  # on a corner of cells; too tall; empty
]


def naive_loss(
    heads: list[Tensor], boxes: list[list[float]], labels: list[int], anchors: list[Tensor], decode: Decode
) -> Tensor:
    """(box, objectness, class) of one image of `SIZE` squared, box by box; `boxes` are (cx, cy, w, h) in pixels."""
    total = [heads[0].new_zeros(()) for _ in range(3)]
    for head, layer_anchors, weight in zip(heads, anchors, (4.0, 1.0, 0.4), strict=False):
        n, stride = head.shape[2], SIZE / head.shape[2]
        wanted = torch.zeros_like(head[0, ..., 4])
        box_terms, class_terms = [], []
        for offset in range(5):
            for a, (aw, ah) in enumerate((layer_anchors / stride).tolist()):
                for (px, py, pw, ph), label in zip(boxes, labels, strict=True):
                    x, y, w, h = px / stride, py / stride, pw / stride, ph / stride
                    if w == 0 or h == 0 or max(w / aw, aw / w, h / ah, ah / h) >= 4:
                        continue
                    own_column, own_row = math.floor(x), math.floor(y)
                    # A border exactly at the centre: neither half of the cell is the far one, and it stays its own.
                    right = int(x % 1 != 0)
                    below = int(y % 1 != 0)
                    used = [
                        True,
                        x % 1 < 0.5 and x > 1,
                        y % 1 < 0.5 and y > 1,
                        (n - x) % 1 < 0.5 and n - x > 1,
                        (n - y) % 1 < 0.5 and n - y > 1,
                    ][offset]
                    if not used:
                        continue
                    dx, dy = [(0, 0), (-1, 0), (0, -1), (right, 0), (0, below)][offset]
                    i, j = min(max(own_column + dx, 0), n - 1), min(max(own_row + dy, 0), n - 1)
                    value = head[0, a, j, i]
                    s = torch.sigmoid(value[:4])
                    if decode == "darknet":
                        bx, by, bw, bh = s[0], s[1], aw * torch.exp(value[2]), ah * torch.exp(value[3])
                    else:
                        bx, by, bw, bh = 2 * s[0] - 0.5, 2 * s[1] - 0.5, aw * (2 * s[2]) ** 2, ah * (2 * s[3]) ** 2
                    ciou = naive_ciou(bx, by, bw, bh, x - i, y - j, w, h)
                    box_terms.append(1 - ciou)
                    wanted[a, j, i] = max(ciou.item(), 0.0)
                    for k in range(CLASSES):
                        p = torch.sigmoid(value[5 + k])
                        class_terms.append(-torch.log(p if k == label else 1 - p))
        p = torch.sigmoid(head[0, ..., 4])
        total[1] = total[1] + weight * -(wanted * torch.log(p) + (1 - wanted) * torch.log(1 - p)).mean()
        if box_terms:
            total[0] = total[0] + sum(box_terms) / len(box_terms)
            total[2] = total[2] + sum(class_terms) / len(class_terms)
    share = 3 / len(heads)
    gains = (0.05 * share, (SIZE / 640) ** 2 * share, 0.5 * CLASSES / 80 * share)
    return torch.stack([gain * term for gain, term in zip(gains, total, strict=True)])


def naive_ciou(px: Tensor, py: Tensor, pw: Tensor, ph: Tensor, tx: float, ty: float, tw: float, th: float) -> Tensor:
    def low(a: Tensor, b: float) -> Tensor:
        return a if a.item() < b else a.new_tensor(b)

    def high(a: Tensor, b: float) -> Tensor:
        return a if a.item() > b else a.new_tensor(b)

    iw = low(px + pw / 2, tx + tw / 2) - high(px - pw / 2, tx - tw / 2)
    ih = low(py + ph / 2, ty + th / 2) - high(py - ph / 2, ty - th / 2)
    inter = iw * ih if iw.item() > 0 and ih.item() > 0 else iw * 0
    iou = inter / (pw * ph + tw * th - inter + 1e-7)
    cw = high(px + pw / 2, tx + tw / 2) - low(px - pw / 2, tx - tw / 2)
    ch = high(py + ph / 2, ty + th / 2) - low(py - ph / 2, ty - th / 2)
    v = 4 / math.pi**2 * (math.atan(tw / th) - torch.atan(pw / ph)) ** 2
    alpha = v.item() / (v.item() - iou.item() + 1 + 1e-7)
    return iou - ((px - tx) ** 2 + (py - ty) ** 2) / (cw**2 + ch**2 + 1e-7) - alpha * v


def loss_of(heads: list[Tensor], targets: list[Targets], decode: Decode = "darknet") -> LossTerms:
    return yolo_loss(heads, targets, ANCHORS[: len(heads)], SIZE, SIZE, decode)


@pytest.mark.parametrize("decode", ["darknet", "v5"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("scene", range(len(SCENES)))
def test_loss_and_gradient_equal_loops(scene: int, layers: int, decode: Decode) -> None:
    heads = [head.requires_grad_() for head in random_heads(1, scene, layers)]
    target = SCENES[scene]
    terms = loss_of(heads, [target], decode)
    corners = target.boxes
    boxes = torch.cat(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), dim=1).tolist()
    expected = naive_loss(heads, boxes, target.labels.tolist(), ANCHORS[:layers], decode)
    torch.testing.assert_close(torch.cat(terms), expected, atol=1e-12, rtol=1e-9)
    for ours, theirs in zip(
        torch.autograd.grad(terms.total.sum(), heads), torch.autograd.grad(expected.sum(), heads), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-7)


def test_scenes_test_something() -> None:
    heads = random_heads(len(SCENES))
    terms = loss_of(heads, SCENES)
    assert terms.box[1] == 0 and terms.classification[1] == 0 and terms.objectness[1] > 0
    assert (terms.box[[0, 2, 3, 4]] > 0).all()


@pytest.mark.parametrize("decode", ["darknet", "v5"])
def test_a_batch_equals_its_images_alone(decode: Decode) -> None:
    heads = random_heads(len(SCENES), dtype=torch.float32)
    together = loss_of(heads, SCENES, decode)
    for i, scene in enumerate(SCENES):
        alone = loss_of([head[i : i + 1] for head in heads], [scene], decode)
        torch.testing.assert_close(torch.stack([term[i] for term in together]), torch.cat(alone), atol=0, rtol=1e-6)


def test_empty_images_give_finite_gradients() -> None:
    heads = [head.requires_grad_() for head in random_heads(2)]
    loss_of(heads, [SCENES[1], SCENES[1]]).total.sum().backward()
    for head in heads:
        assert head.grad is not None
        assert head.grad.isfinite().all()
        assert (head.grad[..., :4] == 0).all() and (head.grad[..., 5:] == 0).all() and (head.grad[..., 4] != 0).all()


@pytest.mark.parametrize("decode", ["darknet", "v5"])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_logits_stay_finite(decode: Decode, logit: float) -> None:
    heads = [torch.full_like(head, logit, dtype=torch.float32).requires_grad_() for head in random_heads(1)]
    total = loss_of(heads, [SCENES[0]], decode).total.sum()
    total.backward()
    assert total.isfinite()
    assert all(head.grad is not None and head.grad.isfinite().all() for head in heads)


def test_gradcheck_where_nothing_is_detached() -> None:
    # Size logits 0 and targets shaped like the anchor: αv and its derivative are 0, so box has its full derivative.
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(1, 1, 2, 2, 5 + CLASSES, generator=generator, dtype=torch.float64)
    head[..., 2:4] = 0
    anchors = [torch.tensor([[20.0, 10.0]])]
    targets = [targets_of((20, 40, 24, 12, 1))]

    def terms(value: Tensor) -> Tensor:
        result = yolo_loss([value], targets, anchors, SIZE, SIZE, "darknet")
        return result.box + result.classification

    def objectness(logit: Tensor) -> Tensor:
        value = torch.cat((head[..., :4], logit, head[..., 5:]), dim=-1)
        return yolo_loss([value], targets, anchors, SIZE, SIZE, "darknet").objectness

    assert torch.autograd.gradcheck(terms, (head.clone().requires_grad_(),))
    assert torch.autograd.gradcheck(objectness, (head[..., 4:5].clone().requires_grad_(),))


def test_perfect_prediction_by_hand() -> None:
    # One cell of 64 pixels, one anchor of its own size; the target fills the image: box 0, the rest ln 2.
    head = torch.zeros(1, 1, 1, 1, 6, dtype=torch.float64)
    terms = yolo_loss([head], [targets_of((32, 32, 64, 64, 0))], [torch.tensor([[64.0, 64.0]])], 64, 64, "darknet")
    assert terms.box.item() == pytest.approx(0, abs=1e-6)
    assert terms.objectness.item() == pytest.approx(4.0 * math.log(2) * (64 / 640) ** 2 * 3, rel=1e-6)
    assert terms.classification.item() == pytest.approx(math.log(2) * 0.5 / 80 * 3, rel=1e-6)


def test_objectness_gain_of_an_oblong_image_is_its_area() -> None:
    head = torch.zeros(1, 1, 2, 4, 6, dtype=torch.float64)
    terms = yolo_loss([head], [targets_of()], [torch.tensor([[64.0, 64.0]])], 64, 128, "darknet")
    assert terms.objectness.item() == pytest.approx(4.0 * math.log(2) * 64 * 128 / 640**2 * 3, rel=1e-9)


def test_oblong_grids_keep_x_and_y_apart() -> None:
    # 2 rows, 4 columns of 32 pixels; the object sits in the middle of row 1, column 3.
    head = torch.zeros(1, 1, 2, 4, 6, requires_grad=True)
    terms = yolo_loss([head], [targets_of((112, 48, 30, 34, 0))], [torch.tensor([[32.0, 32.0]])], 64, 128, "darknet")
    terms.classification.sum().backward()
    assert head.grad is not None
    touched = head.grad[0, 0, :, :, 5].nonzero().tolist()
    # Exactly in the middle means in neither left nor upper half; the mirrored position is not below a half either.
    assert touched == [[1, 3]]


def test_decodes_by_hand() -> None:
    logits, anchors = torch.tensor([[0.0, math.log(3), math.log(2), 0.0]]), torch.tensor([[10.0, 20.0]])
    torch.testing.assert_close(decode_boxes(logits, anchors, "darknet"), torch.tensor([[0.5, 0.75, 20, 20]]))
    # σ(ln 2) = 2/3, so (4/3)² = 16/9.
    torch.testing.assert_close(decode_boxes(logits, anchors, "v5"), torch.tensor([[0.5, 1.0, 160 / 9, 20]]))


def test_labels_out_of_range_are_refused() -> None:
    for label in (-1, CLASSES):
        with pytest.raises(DetectorError, match=f"label outside 0 to {CLASSES - 1}"):
            loss_of(random_heads(1), [targets_of((20, 20, 10, 10, label))])


def test_disagreeing_numbers_are_refused() -> None:
    with pytest.raises(DetectorError, match="2 images but targets for 1"):
        loss_of(random_heads(2), [SCENES[0]])
    with pytest.raises(DetectorError, match="anchors for 3"):
        yolo_loss(random_heads(1, layers=2), [SCENES[0]], ANCHORS, SIZE, SIZE, "darknet")
    with pytest.raises(DetectorError, match="1 to 3 detection layers, not 4"):
        yolo_loss([*random_heads(1), random_heads(1)[0]], [SCENES[0]], [*ANCHORS, ANCHORS[0]], SIZE, SIZE, "darknet")


def golden_targets(rows: Tensor, size: int) -> Targets:
    centre, half = rows[:, 2:4].double() * size, rows[:, 4:6].double() * size / 2
    return Targets(torch.cat((centre - half, centre + half), dim=1).float(), rows[:, 1].long())


def test_loss_equals_the_original(golden: GoldenValues) -> None:
    size = int(golden["yolo_loss/image_size"])
    targets = [golden_targets(golden[f"yolo_loss/targets{i}"], size) for i in range(2)]
    heads, anchors = [golden[f"yolo_loss/pred{i}"] for i in range(3)], list(golden["yolo_loss/anchors_px"])
    golden.check("yolo_loss/box_obj_cls", torch.stack(yolo_loss(heads, targets, anchors, size, size, "v5"), 1), 1e-5)


@pytest.mark.parametrize("case", range(3))
def test_edge_cases_equal_the_original_with_gradients(golden: GoldenValues, case: int) -> None:
    size = int(golden["yolo_loss/image_size"])
    heads = [golden[f"yolo_loss/pred{i}"][:1].clone().requires_grad_() for i in range(3)]
    targets = [golden_targets(golden[f"yolo_loss/edge{case}_targets"], size)]
    terms = yolo_loss(heads, targets, list(golden["yolo_loss/anchors_px"]), size, size, "v5")
    torch.testing.assert_close(torch.cat(terms), golden["yolo_loss/edge_box_obj_cls"][case], atol=1e-5, rtol=0)
    terms.total.sum().backward()
    for i, head in enumerate(heads):
        assert head.grad is not None
        golden.check(f"yolo_loss/edge{case}_grad{i}", head.grad, atol=1e-4, relative=True)

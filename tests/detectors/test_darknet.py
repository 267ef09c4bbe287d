import hashlib
import inspect
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.darknet.layers import MaxPool, read_cfg
from adaptiveisp.detectors.darknet.loading import CFG_FOLDER, Darknet, load_darknet
from adaptiveisp.detectors.loading import DETECTORS, load_detector
from adaptiveisp.detectors.weights import WEIGHTS, weights_path
from adaptiveisp.detectors.yolo.detector import YoloDetector
from adaptiveisp.errors import DetectorError, UsageError, WeightsError
from adaptiveisp.types import Detector, Targets
from tests.support.darknet_cfg import MIXED, MIXED_CONVOLUTIONS, ONE_LAYER, header, mixed_weights, write_mixed

NAMES = ("cat", "dog")


@pytest.fixture(scope="module")
def mixed_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def mixed(mixed_files: tuple[Path, Path]) -> Darknet:
    return load_darknet(*mixed_files, NAMES, "mixed")


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path) -> Detector:
    return load_detector("yolov3-tiny")


@pytest.fixture
def one_layer(tmp_path: Path) -> Darknet:
    (tmp_path / "one.cfg").write_text(ONE_LAYER)
    return Darknet(tmp_path / "one.cfg", NAMES, "one")


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def planar(head: Tensor) -> np.ndarray:
    """A head in the channel order of the convolution before it."""
    return head.permute(0, 1, 4, 2, 3).flatten(1, 2).numpy()


# ---------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("name", "parameters", "strides"),
    [("yolov3", 61_949_149, [8, 16, 32]), ("yolov3-spp", None, [8, 16, 32]), ("yolov3-tiny", None, [16, 32])],
)
def test_shipped_networks(name: str, parameters: int | None, strides: list[int]) -> None:
    with torch.device("meta"):
        model = Darknet(CFG_FOLDER / f"{name}.cfg", COCO_80, name)
        heads = model.heads(torch.zeros(1, 3, 64, 96))
    assert [tuple(head.shape) for head in heads] == [(1, 3, 64 // s, 96 // s, 85) for s in strides]
    assert model.stride == 32
    count = sum(value.numel() for value in model.parameters())
    if parameters is not None:
        assert count == parameters
    if name in WEIGHTS:
        # The running statistics are in the file too, and 20 bytes of header.
        statistics = sum(value.numel() for key, value in model.named_buffers() if "running" in key)
        assert 20 + 4 * (count + statistics) == WEIGHTS[name].size


def test_the_full_network_has_its_published_file_size() -> None:
    with torch.device("meta"):
        model = Darknet(CFG_FOLDER / "yolov3.cfg", COCO_80, "full")
    statistics = sum(value.numel() for key, value in model.named_buffers() if "running" in key)
    # 61,949,149 count a norm's scale and shift; Darknet stores its mean and variance too: yolov3.weights as published.
    stored = sum(value.numel() for value in model.parameters()) + statistics
    assert stored == 62_001_757 and 20 + 4 * stored == 248_007_048
    folded = sum(value.numel() for value in model.fold().parameters())
    assert folded == 61_949_149 - statistics // 2


@pytest.mark.long
@pytest.mark.parametrize("name", ["yolov3", "yolov3-spp"])
def test_the_full_network_runs_and_its_loss_reaches_the_image(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Darknet(CFG_FOLDER / f"{name}.cfg", COCO_80, name).fold()
    image = random_image(1, 3, 64, 96).requires_grad_()
    assert [tuple(head.shape) for head in model.heads(image)] == [(1, 3, 64 // s, 96 // s, 85) for s in (8, 16, 32)]
    terms = model.loss_terms(image, [Targets(torch.tensor([[10.0, 10, 50, 40]]), torch.tensor([2]))])
    assert all(term.isfinite().all() and term > 0 for term in terms)
    (gradient,) = torch.autograd.grad(terms.total.sum(), image)
    assert gradient.isfinite().all() and (gradient != 0).float().mean() > 0.9


def test_shipped_anchors_go_with_their_strides() -> None:
    # Anchors as published; the finest layer has the smallest.
    tiny = Darknet(CFG_FOLDER / "yolov3-tiny.cfg", COCO_80, "tiny").detection_layers
    assert tiny[0].anchors.tolist() == [[10, 14], [23, 27], [37, 58]]
    assert tiny[1].anchors.tolist() == [[81, 82], [135, 169], [344, 319]]
    with torch.device("meta"):
        model = Darknet(CFG_FOLDER / "yolov3.cfg", COCO_80, "full")
    assert [len(layer.anchors) for layer in model.detection_layers] == [3, 3, 3]


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_every_layer_kind_equals_opencv(mixed: Darknet, mixed_files: tuple[Path, Path], size: tuple[int, int]) -> None:
    image = random_image(1, 3, *size)
    theirs = cv2.dnn.readNetFromDarknet(*(str(path) for path in mixed_files))
    theirs.setInput(image.numpy())
    coarse, fine = theirs.forward(["conv_11", "bn_16"])
    heads = mixed.heads(image)
    assert fine.shape[-2:] == (size[0] // 4, size[1] // 4) and coarse.shape[-2:] == (size[0] // 8, size[1] // 8)
    np.testing.assert_allclose(planar(heads[0]), fine, atol=1e-4)
    np.testing.assert_allclose(planar(heads[1]), coarse, atol=1e-4)
    assert fine.std() > 0.1 and coarse.std() > 0.1


def test_folding_changes_nothing(mixed_files: tuple[Path, Path]) -> None:
    image = random_image(2, 3, 64, 64)
    folded = load_darknet(*mixed_files, NAMES, "folded")
    plain = load_darknet(*mixed_files, NAMES, "plain", fold=False)
    assert any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for ours, theirs in zip(folded.heads(image), plain.heads(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def naive_max_pool(x: Tensor, size: int, stride: int) -> Tensor:
    """Darknet's rule: window k begins at k·stride - (size - 1)//2, what lies outside the image is left out."""
    n = math.ceil(x.shape[-1] / stride)
    out = torch.empty(*x.shape[:2], n, n)
    for row in range(n):
        for column in range(n):
            top, left = row * stride - (size - 1) // 2, column * stride - (size - 1) // 2
            window = x[..., max(top, 0) : top + size, max(left, 0) : left + size]
            out[..., row, column] = window.amax((-2, -1))
    return out


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (2, 1), (3, 2), (5, 1), (13, 1), (4, 4), (4, 2), (3, 1)])
def test_max_pool_pads_as_darknet(size: int, stride: int, side: int) -> None:
    x = random_image(2, 3, side, side) - 2  # negative, so that a padding of zeros would win
    torch.testing.assert_close(MaxPool(size, stride)(x), naive_max_pool(x, size, stride), atol=0, rtol=0)


def test_a_detector_is_frozen(mixed: Darknet) -> None:
    image = random_image(1, 3, 64, 64)
    before = mixed.heads(image)[0]
    assert mixed.train() is mixed
    assert not any(module.training for module in mixed.modules())
    assert not any(value.requires_grad for value in mixed.parameters())
    torch.testing.assert_close(mixed.heads(image)[0], before, atol=0, rtol=0)
    assert isinstance(mixed, Detector)


def test_shapes_that_do_not_fit_are_refused(mixed: Darknet) -> None:
    with pytest.raises(DetectorError, match="mixed: height and width must be multiples of 8, not 64x60"):
        mixed.heads(random_image(1, 3, 64, 60))


# ---------------------------------------------------------------- loss and detections


def test_loss_reaches_the_image_and_is_per_image(mixed: Darknet) -> None:
    image = random_image(2, 3, 64, 64).requires_grad_()
    targets = [
        Targets(torch.tensor([[10.0, 10, 30, 28]]), torch.tensor([1])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    loss = mixed.loss(image, targets)
    assert loss.shape == (2,)
    torch.testing.assert_close(loss, mixed.loss_terms(image, targets).total)
    (gradient,) = torch.autograd.grad(loss[0], image)
    assert gradient[0].abs().max() > 0 and (gradient[1] == 0).all()
    alone = torch.cat([mixed.loss(image[i : i + 1], targets[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss, alone, atol=1e-6, rtol=1e-5)


def test_loss_gradient_equals_differences(mixed_files: tuple[Path, Path]) -> None:
    # An image without objects: its loss has no detached parts, so that differences of the loss are the gradient.
    model = load_darknet(*mixed_files, NAMES, "double").double()
    image = random_image(1, 3, 32, 32).double().requires_grad_()
    nothing = [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]
    (gradient,) = torch.autograd.grad(model.loss(image, nothing).sum(), image)
    direction = random_image(1, 3, 32, 32, seed=1).double() - 0.5
    with torch.no_grad():
        step = 1e-6
        up, down = model.loss(image + step * direction, nothing), model.loss(image - step * direction, nothing)
    assert ((up - down) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


def test_detections_equal_loops(mixed: Darknet) -> None:
    image = random_image(1, 3, 64, 64)
    candidates = []
    for layer, head in zip(mixed.detection_layers, mixed.heads(image), strict=True):
        for a, (width, height) in enumerate(layer.anchors.tolist()):
            for row in range(head.shape[2]):
                for column in range(head.shape[3]):
                    x, y, w, h, objectness, *classes = head[0, a, row, column].tolist()
                    cx, cy = (sigmoid(x) + column) * layer.stride, (sigmoid(y) + row) * layer.stride
                    w, h = width * math.exp(w) / 2, height * math.exp(h) / 2
                    box = [min(max(v, 0), 64) for v in (cx - w, cy - h, cx + w, cy + h)]
                    for label, logit in enumerate(classes):
                        candidates.append((sigmoid(objectness) * sigmoid(logit), label, box))
    expected = sorted((item for item in candidates if item[0] > 0.3), reverse=True)
    # An overlap of 1 is never exceeded: nothing is suppressed and every candidate must come back.
    (found,) = mixed.detect(image, confidence=0.3, nms_iou=1.0, max_detections=10_000)
    assert len(expected) > 20
    assert found.labels.tolist() == [item[1] for item in expected]
    torch.testing.assert_close(found.scores, torch.tensor([item[0] for item in expected]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes, torch.tensor([item[2] for item in expected]), atol=1e-3, rtol=1e-4)
    (fewer,) = mixed.detect(image, confidence=0.3, nms_iou=0.3, max_detections=10_000)
    assert 0 < len(fewer.labels) < len(expected)
    (limited,) = mixed.detect(image, confidence=0.3, nms_iou=0.3, max_detections=5)
    torch.testing.assert_close(limited.boxes, fewer.boxes[:5])


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def plant(model: Darknet, values: list[float]) -> None:
    """Makes every cell put out `values`, whatever the image."""
    convolution = model.layers[0].conv
    convolution.weight.data.zero_()
    convolution.bias.data.copy_(torch.tensor(values))


def test_one_box_may_count_for_several_classes(one_layer: Darknet) -> None:
    plant(one_layer, [0, 0, 0, 0, 100, 1, -1])
    (found,) = one_layer.detect(torch.zeros(1, 3, 8, 8))
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([sigmoid(1), sigmoid(-1)]))
    # Anchor 16x8 in the only cell (centre 4, 4) of an 8x8 image: cut at both sides.
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 0, 8, 8]] * 2))


def test_the_later_decode_is_used_when_asked(tmp_path: Path) -> None:
    (tmp_path / "one.cfg").write_text(ONE_LAYER)
    boxes = {}
    for decode in ("darknet", "v5"):
        model = Darknet(tmp_path / "one.cfg", NAMES, "one", decode=decode)
        plant(model, [0, 0, math.log(1 / 3), 0, 5, 5, -50])
        boxes[decode] = model.detect(torch.zeros(1, 3, 32, 32), confidence=0.5)[0].boxes[0]
    # exp(ln 1/3) = 1/3 and (2σ(ln 1/3))² = (2/4)² = 1/4 of the anchor's 16 pixels, around the centre 4.
    torch.testing.assert_close(boxes["darknet"], torch.tensor([4 - 8 / 3, 0, 4 + 8 / 3, 8]))
    torch.testing.assert_close(boxes["v5"], torch.tensor([2.0, 0, 6, 8]))


def test_detections_of_a_batch_are_those_of_its_images(mixed: Darknet) -> None:
    image = random_image(3, 3, 64, 32)
    for i, together in enumerate(mixed.detect(image)):
        (alone,) = mixed.detect(image[i : i + 1])
        torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-3, rtol=1e-4)
        assert together.boxes[:, 2].max() <= 32 and together.boxes[:, 3].max() <= 64
        assert (together.scores.diff() <= 0).all()


def test_nothing_to_detect(one_layer: Darknet) -> None:
    plant(one_layer, [0, 0, 0, 0, -50, 0, 0])
    (found,) = one_layer.detect(torch.zeros(1, 3, 8, 8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


# ---------------------------------------------------------------- files


def test_values_are_read_in_darknets_order(tmp_path: Path) -> None:
    cfg = "[net]\n[convolutional]\nbatch_normalize=1\nfilters=7\nsize=1\n[yolo]\nmask=0\nanchors=1,1\nclasses=2\n"
    (tmp_path / "a.cfg").write_text(cfg)
    bias, scale, mean, variance = (np.arange(7) + start for start in (1.0, 2.0, 3.0, 4.0))
    kernel = np.arange(21).reshape(7, 3) / 10
    for seen_bytes in (4, 8):
        values = np.concatenate((bias, scale, mean, variance, kernel.ravel())).astype("<f4")
        (tmp_path / "a.weights").write_bytes(header(seen_bytes) + values.tobytes())
        model = load_darknet(tmp_path / "a.cfg", tmp_path / "a.weights", NAMES, "a")
        pixel = np.array([0.1, 0.5, 0.9])
        expected = (kernel @ pixel - mean) / np.sqrt(variance + 1e-6) * scale + bias
        found = model.heads(torch.tensor(pixel, dtype=torch.float32).view(1, 3, 1, 1))[0].flatten()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("change", [-4, -1, 4, 100])
def test_weights_of_another_length_are_refused(tmp_path: Path, change: int) -> None:
    content = mixed_weights()
    wrong = content[:change] if change < 0 else content + bytes(change)
    cfg, weights = tmp_path / "m.cfg", tmp_path / "m.weights"
    cfg.write_text(MIXED)
    weights.write_bytes(wrong)
    with pytest.raises(WeightsError, match=rf"m\.weights: has {len(wrong)} bytes, but m\.cfg needs {len(content)}"):
        load_darknet(cfg, weights, NAMES, "m")


def test_weights_without_a_header_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.cfg").write_text(MIXED)
    (tmp_path / "m.weights").write_bytes(b"abc")
    with pytest.raises(WeightsError, match="has 3 bytes"):
        load_darknet(tmp_path / "m.cfg", tmp_path / "m.weights", NAMES, "m")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    cfg, weights = write_mixed(tmp_path)
    content = mixed_weights()
    weights.write_bytes(content[:400] + np.array([value], "<f4").tobytes() + content[404:])
    with pytest.raises(WeightsError, match=r"mixed\.weights: 1 of \d+ values are not finite"):
        load_darknet(cfg, weights, NAMES, "m")


def test_weights_with_a_negative_variance_are_refused(tmp_path: Path) -> None:
    cfg = "[net]\n[convolutional]\nbatch_normalize=1\nfilters=7\nsize=1\n[yolo]\nmask=0\nanchors=1,1\nclasses=2\n"
    (tmp_path / "a.cfg").write_text(cfg)
    values = np.concatenate((np.ones(21), [-1.0] * 7, np.ones(21))).astype("<f4")
    (tmp_path / "a.weights").write_bytes(header() + values.tobytes())
    with pytest.raises(WeightsError, match=r"a\.weights: holds negative variances"):
        load_darknet(tmp_path / "a.cfg", tmp_path / "a.weights", NAMES, "a")


def test_weights_hash_is_kept(mixed: Darknet) -> None:
    assert mixed.weights_sha256 == hashlib.sha256(mixed_weights()).hexdigest()
    floats = sum(f * c * s * s + f * (4 if norm else 1) for c, f, s, norm in MIXED_CONVOLUTIONS)
    assert len(mixed_weights()) == 20 + 4 * floats


YOLO_TWO = "[yolo]\nmask=0\nanchors=1,2\nclasses=2\n"


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("", r"must begin with \[net\]"),
        ("[convolutional]\nfilters=1\n", r"must begin with \[net\]"),
        ("[net]\nwidth\n", r"bad\.cfg:2: 'width' is neither"),
        ("[net]\n\n[lstm]\n", r"bad\.cfg:3: \[lstm\] is not supported"),
        ("[net]\n[convolutional]\nsize=1\n", r"bad\.cfg:2: \[convolutional\] needs filters="),
        ("[net]\n[convolutional]\nfilters=many\n", r"bad\.cfg:2: .*filters=many: expected whole numbers"),
        ("[net]\n[convolutional]\nfilters=0\n", r"bad\.cfg:2: .*at least 1"),
        ("[net]\n[convolutional]\nfilters=4\ngroups=2\n", r"bad\.cfg:2: .*groups=2"),
        ("[net]\n[convolutional]\nfilters=4\nactivation=mish\n", r"bad\.cfg:2: .*mish is not supported"),
        ("[net]\n[maxpool]\nsize=2\nstride=2\npadding=0\n", r"bad\.cfg:2: .*padding="),
        ("[net]\n[maxpool]\nsize=2\n[route]\nlayers=5\n", r"bad\.cfg:4: .*must name earlier layers .this is layer 1"),
        ("[net]\n[maxpool]\nstride=2\n[maxpool]\nstride=2\n[route]\nlayers=0,1\n", r"bad\.cfg:6: .*different strides"),
        ("[net]\n[maxpool]\nsize=1\n[route]\nlayers=0\ngroups=2\n", r"bad\.cfg:4: .*groups=2"),
        ("[net]\n[maxpool]\nstride=2\n[maxpool]\nstride=2\n[shortcut]\nfrom=0\n", r"bad\.cfg:6: .*same channels"),
        ("[net]\n[upsample]\nstride=2\n", r"bad\.cfg:2: .*resolution"),
        ("[net]\n[yolo]\nmask=0\nanchors=1,2\nclasses=2\n", r"bad\.cfg:2: .*= 7 channels, the layer before has 3"),
        ("[net]\n[yolo]\nmask=1\nanchors=1,2\nclasses=2\n", r"bad\.cfg:2: .*mask="),
        ("[net]\n[yolo]\nmask=0\nanchors=1,2\nclasses=2\nscale_x_y=1.05\n", r"bad\.cfg:2: .*scale_x_y"),
        ("[net]\n[yolo]\nmask=0\nanchors=1,nan\nclasses=2\n", r"bad\.cfg:2: .*anchors=1,nan: expected sides"),
        ("[net]\n[yolo]\nmask=0\nanchors=1,1e999\nclasses=2\n", r"bad\.cfg:2: .*anchors=1,1e999: expected sides"),
        ("[net]\n[yolo]\nmask=0\nanchors=0,5\nclasses=2\n", r"bad\.cfg:2: .*anchors=0,5: expected sides"),
        ("[net]\n[yolo]\nmask=0\nanchors=-1,5\nclasses=2\n", r"bad\.cfg:2: .*anchors=-1,5: expected sides"),
        ("[net]\n[convolutional]\nfilters=99999999999\n", r"bad\.cfg:2: .*filters=99999999999: .*at most 65536"),
        ("[net]\n[convolutional]\nfilters=4\nsize=100000\n", r"bad\.cfg:2: .*size=100000: .*at most 31"),
        ("[net]\n[convolutional]\nfilters=4\npadding=100000\n", r"bad\.cfg:2: .*padding=100000: .*at most 31"),
        ("[net]\n[convolutional]\nfilters=4\nstride=100000\n", r"bad\.cfg:2: .*stride=100000: .*at most 31"),
        ("[net]\n[convolutional]\nfilters=65536\nsize=31\n", r"bad\.cfg:2: .*too many weights"),
        ("[net]\n[maxpool]\nstride=100000\n", r"bad\.cfg:2: .*stride=100000: .*at most 31"),
        ("[net]\n[maxpool]\nsize=100000\n", r"bad\.cfg:2: .*size=100000: .*at most 31"),
        ("[net]\n[upsample]\nstride=100000\n", r"bad\.cfg:2: .*stride=100000: .*at most 31"),
        ("[net]\n" + "[maxpool]\nstride=31\n" * 3, r"bad\.cfg:6: .*brings the stride to 29791"),
        ("[net]\n[maxpool]\nsize=1\n[shortcut]\nfrom=1\n", r"bad\.cfg:4: .*from=1: must name earlier layers"),
        ("[net]\n[maxpool]\nsize=1\n[shortcut]\nfrom=-1000000000\n", r"bad\.cfg:4: .*from=-1000000000: must name"),
        ("[net]\n[route]\nlayers=0\n", r"bad\.cfg:2: .*layers=0: must name earlier layers .this is layer 0"),
        ("[net]\n[yolo]\nmask=0\nanchors=1,2\nclasses=1000000000\n", r"classes=1000000000: .*at most 65536"),
        ("[net]\n[convolutional]\nfilters=1e9\n", r"bad\.cfg:2: .*filters=1e9: expected whole numbers"),
        (f"[net]\n[convolutional]\nfilters={'9' * 5000}\n", r"bad\.cfg:2: .*filters=999+ … 999+: expected"),
        ("[net]\n[convolutional]\nfilters=300\n", r"bad\.cfg:2: .*has 300 channels at a stride of 1, too much"),
        ("[net]\n" + "[maxpool]\nsize=1\n" * 1024, r"bad\.cfg:1: .*followed by 1024 layers; at most 1023"),
        ("#" * 1_000_001, r"bad\.cfg: is larger than 1 MB"),
        ("[net]\nchannels=1\n", r"bad\.cfg:1: .*only RGB"),
        ("[net]\n[maxpool]\nsize=1\n", r"has no \[yolo\]"),
    ],
)
def test_a_wrong_cfg_names_its_line(tmp_path: Path, cfg: str, message: str) -> None:
    (tmp_path / "bad.cfg").write_text(cfg)
    with pytest.raises(DetectorError, match=message):
        Darknet(tmp_path / "bad.cfg", NAMES, "bad")


def test_a_network_with_too_many_weights_is_refused_before_they_take_memory(tmp_path: Path) -> None:
    cfg = "[net]\n[convolutional]\nfilters=4\nsize=3\n[convolutional]\nfilters=7\ngroups=1\n" + YOLO_TWO
    (tmp_path / "a.cfg").write_text(cfg)
    assert len(Darknet(tmp_path / "a.cfg", NAMES[:2], "a", most_weights=4 * 3 * 9 + 7 * 4).layers) == 3
    with pytest.raises(DetectorError, match=r"a\.cfg:5: .*brings the network to 136 weights; at most 135 fit"):
        Darknet(tmp_path / "a.cfg", NAMES[:2], "a", most_weights=135)


def test_a_missing_cfg_and_wrong_names_are_refused(tmp_path: Path, mixed_files: tuple[Path, Path]) -> None:
    with pytest.raises(DetectorError, match=r"gone\.cfg: cannot be read"):
        read_cfg(tmp_path / "gone.cfg")
    with pytest.raises(DetectorError, match="detects 2 classes, but 3 names"):
        load_darknet(*mixed_files, ("a", "b", "c"), "x")
    with pytest.raises(DetectorError, match="v9: no such decode"):
        # Unwrapped, so that the check of types does not answer first.
        inspect.unwrap(YoloDetector.__init__)(YoloDetector.__new__(YoloDetector), "x", NAMES, "v9", "")


# ---------------------------------------------------------------- load_detector


def test_names_of_detectors_and_weights_agree() -> None:
    assert set(DETECTORS) == set(WEIGHTS)


def test_unknown_detectors_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"yolo99: no such detector; known: yolov3-tiny"):
        load_detector("yolo99")
    with pytest.raises(DetectorError, match=r"gone\.weights: no such file"):
        load_detector(tmp_path / "gone.weights")


def test_a_missing_registered_detector_tells_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVEISP_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="run: adaptiveisp weights get yolov3-tiny"):
        load_detector("yolov3-tiny")


def test_a_local_weights_file_uses_the_files_beside_it(tmp_path: Path) -> None:
    _, weights = write_mixed(tmp_path, "pets")
    with pytest.raises(DetectorError, match="detects 2 classes, but 80 names"):
        load_detector(weights)
    weights.with_suffix(".names").write_text("cat\ndog\n\n")
    detector = load_detector(str(weights))
    assert detector.name == "pets" and detector.class_names == ("cat", "dog") and detector.stride == 8


def test_a_local_weights_file_may_use_a_shipped_cfg(tmp_path: Path) -> None:
    weights = tmp_path / "yolov3-tiny.weights"
    weights.write_bytes(header() + bytes(100))
    with pytest.raises(WeightsError, match=r"has 120 bytes, but yolov3-tiny\.cfg needs 35434956"):
        load_detector(weights)
    weights = weights.rename(tmp_path / "unheard.weights")
    with pytest.raises(DetectorError, match=r"no unheard\.cfg beside it.*yolov3-spp"):
        load_detector(weights)


OWN = """
import torch
from adaptiveisp.types import Detections

class Own:
    name, class_names, stride, weights_sha256 = "own", ("thing",), 1, ""
    def __init__(self, device): self.device = device
    def loss(self, image, targets): return image.mean((1, 2, 3))
    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300): return []

def load(device): return Own(device)
def plain(): return Own("nowhere")
def wrong(): return object()
def fails(): raise RuntimeError("no model today")
"""


def test_an_own_detector_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pkg_a").mkdir()
    (tmp_path / "own_pkg_a" / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    detector = load_detector("own_pkg_a.mine:load", device="cpu")
    assert detector.name == "own" and detector.device == "cpu"
    assert load_detector("own_pkg_a.mine:plain").device == "nowhere"
    for attribute, message in (
        ("wrong", "returned a object, which lacks name, class_names"),
        ("fails", "RuntimeError: no model today"),
        ("gone", "AttributeError"),
    ):
        with pytest.raises(DetectorError, match=message):
            load_detector(f"own_pkg_a.mine:{attribute}")
    with pytest.raises(DetectorError, match="ModuleNotFoundError"):
        load_detector("no_such_pkg_a:load")


# ---------------------------------------------------------------- the real weights


def test_tiny_equals_opencv_on_photos(tiny: Darknet, shared: Path) -> None:
    folder = shared / "data" / "coco-mini" / "images" / "val"
    photos = sorted(folder.glob("*.jpg"))[:4]
    if not photos:
        pytest.skip(f"photos are not there ({folder}); set ADAPTIVEISP_DATA")
    theirs = cv2.dnn.readNetFromDarknet(str(CFG_FOLDER / "yolov3-tiny.cfg"), str(weights_path("yolov3-tiny")))
    for photo in photos:
        blob = cv2.dnn.blobFromImage(cv2.imread(str(photo)), 1 / 255, (416, 416), swapRB=True)
        theirs.setInput(blob)
        coarse, fine = theirs.forward(["conv_15", "conv_22"])
        heads = tiny.heads(torch.from_numpy(blob))
        np.testing.assert_allclose(planar(heads[0]), fine, atol=1e-3)
        np.testing.assert_allclose(planar(heads[1]), coarse, atol=1e-3)


def coffee() -> Tensor:
    """A photo of a cup, 416x277, on grey."""
    data = pytest.importorskip("skimage.data")
    photo = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].float() / 255
    photo = F.interpolate(photo, size=(277, 416), mode="bilinear", antialias=True)
    return F.pad(photo, (0, 0, 0, 139), value=0.5)


def test_tiny_finds_the_cup(tiny: Detector) -> None:
    (found,) = tiny.detect(coffee(), confidence=0.3)
    assert tiny.class_names[found.labels[0]] == "cup"
    # Read off the photo: cup and saucer reach from about 105 to 300 and from 20 to 225.
    torch.testing.assert_close(found.boxes[0], torch.tensor([105.0, 20, 300, 225]), atol=15, rtol=0)


def test_tiny_loss_falls_when_the_picture_becomes_visible(tiny: Detector) -> None:
    cup = [Targets(torch.tensor([[105.0, 20, 300, 225]]), torch.tensor([tiny.class_names.index("cup")]))]
    visible, dark = (tiny.loss(image, cup).item() for image in (coffee(), coffee() * 0.01))
    assert visible < dark - 0.01

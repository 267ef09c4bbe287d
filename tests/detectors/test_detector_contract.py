"""What every detector must hold, however it is loaded. To add a kind of detector: one line in `ADAPTERS`."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from adaptiveisp.cli.parser import main
from adaptiveisp.detectors.contract import DETECTION_CHECKS, LOSS_CHECKS, Check, make_trial, tensors_of
from adaptiveisp.detectors.loading import load_detector, register_detector
from adaptiveisp.detectors.weights import is_installed
from adaptiveisp.types import Detections, Detector, DetectsWithLoss, Targets
from tests.support import tfjs_models
from tests.support.answers import answers_of
from tests.support.darknet_cfg import write_mixed
from tests.support.onnx_models import detr_network, network
from tests.support.transformers_models import KINDS, write_model
from tests.support.yolo_standins import save_checkpoint, stand_in_model, yolov3_tiny


def darknet(folder: Path) -> Detector:
    """The network of all layer kinds, random weights, two classes."""
    _, weights = write_mixed(folder)
    weights.with_suffix(".names").write_text("thing\nother\n")
    return load_detector(weights)


def transformers(kind: str) -> Callable[[Path], Detector]:
    return lambda folder: load_detector(write_model(folder / kind, kind))


def ultralytics(folder: Path) -> Path:
    return save_checkpoint(folder / "tiny.pt", stand_in_model(yolov3_tiny(1 / 16, 3)))


def imported(folder: Path) -> Detector:
    """The same after `import`."""
    assert main(["import", str(ultralytics(folder)), "--out", str(folder / "tiny.safetensors")]) == 0
    return load_detector(folder / "tiny.safetensors")


def registered(folder: Path) -> Detector:
    """One of a class outside the package, by a name that was registered."""
    from examples import own_detector

    register_detector("red-cells-of-the-contract", own_detector.load, replace=True)
    return load_detector("red-cells-of-the-contract")


ADAPTERS: dict[str, Callable[[Path], Detector]] = {
    "darknet": darknet,
    "own callable": lambda folder: load_detector("examples.own_detector:load"),
    "registered": registered,
    "ultralytics": lambda folder: load_detector(ultralytics(folder)),
    "imported": imported,
    "onnx": lambda folder: load_detector(network(folder / "net.onnx")),
    "onnx, one image": lambda folder: load_detector(network(folder / "one.onnx", shape=(1, 3, 64, 64))),
    "onnx, detr": lambda folder: load_detector(detr_network(folder / "detr.onnx")),
    "onnx, of a camera": lambda folder: load_detector(
        network(folder / "camera.onnx", shape=("batch", 64, 64, 3), camera=True)
    ),
    "centernet": tfjs_models.centernet,
    "nanodet": tfjs_models.nanodet,
    **{kind: transformers(kind) for kind in KINDS},
}
"""Name → a function that makes a small detector of that kind, with random weights, in an empty folder."""

LONG = frozenset({"rt_detr", "d_fine"})
"""Their losses are compared with the library's every time, and what they share with rt_detr_v2 is tested with that."""

WITHOUT_LOSS: frozenset[str] = frozenset()
"""Those whose `loss` raises NotImplementedError; what is said of losses is not asked of them."""


ASKED_TWICE = frozenset({"own callable", "registered", "onnx", "onnx, one image", "onnx, detr", "onnx, of a camera"})
"""Those that have no `detect_with_loss`."""


class Subject(NamedTuple):
    name: str
    detector: Any


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in ADAPTERS],
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject(request.param, ADAPTERS[request.param](tmp_path_factory.mktemp("model")))


@pytest.fixture
def trainable(subject: Subject) -> Any:
    """A detector that has a loss."""
    if subject.name in WITHOUT_LOSS:
        with pytest.raises(NotImplementedError):
            subject.detector.loss(images(subject.detector), targets(subject.detector))
        pytest.skip(f"{subject.name} has no loss")
    return subject.detector


def images(detector: Detector, rows: int = 2, columns: int = 3) -> torch.Tensor:
    """Three images of different content, each with a red part; `rows` and `columns` in units of about 32 pixels."""
    side = -(-32 // detector.stride) * detector.stride
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(3, 3, rows * side, columns * side, generator=generator)
    image *= torch.tensor([1.0, 0.6, 0.3]).view(3, 1, 1, 1)
    image[:, 1:, : rows * side // 2, : columns * side // 2] = 0
    image[:, 0, : rows * side // 2, : columns * side // 2] = 0.8
    return image


def targets(detector: Detector) -> list[Targets]:
    """Two objects, none, and one."""
    last = len(detector.class_names) - 1
    boxes = torch.tensor([[2.0, 3.0, 30.0, 40.0], [40.0, 8.0, 60.0, 30.0]])
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    one = Targets(torch.tensor([[10.0, 12.0, 50.0, 36.0]]), torch.tensor([0]))
    return [Targets(boxes, torch.tensor([0, last])), nothing, one]


def convolutions_of(detector: nn.Module, ask: Callable[[], Any]) -> tuple[int, Any]:
    """How often convolutions work while it answers, and the answer."""
    calls: list[None] = []
    layers = [layer for layer in detector.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda *_: calls.append(None)) for layer in layers]
    answer = ask()
    for hook in hooks:
        hook.remove()
    return len(calls), answer


def test_one_look_says_what_two_say(subject: Subject) -> None:
    """Bit for bit what `detect` says of the same images; of fewer images alone to rounding.

    Vector instructions may treat the last values of a tensor apart, so that on some processors its length shows.
    """
    detector = subject.detector
    assert isinstance(detector, DetectsWithLoss) == (subject.name not in ASKED_TWICE)
    if subject.name in ASKED_TWICE:
        return
    image, objects = images(detector), targets(detector)
    once, losses = convolutions_of(detector, lambda: detector.loss(image, objects))
    count, (found, at_once) = convolutions_of(detector, lambda: detector.detect_with_loss(image, objects, 2, 0.01))
    assert count == once > 0 and torch.equal(at_once, losses) and len(found) == 2
    alone = detector.detect(image[:2], 0.01)
    for one, whole, few in zip(found, detector.detect(image, 0.01)[:2], alone, strict=True):
        assert torch.equal(one.boxes, whole.boxes) and torch.equal(one.scores, whole.scores)
        assert torch.equal(one.labels, whole.labels) and torch.equal(one.labels, few.labels) and len(one.labels) > 0
        torch.testing.assert_close(one.boxes, few.boxes, rtol=1e-6, atol=1e-4)
        torch.testing.assert_close(one.scores, few.scores, rtol=1e-6, atol=1e-6)
        exact = torch.equal(one.boxes, few.boxes) and torch.equal(one.scores, few.scores)
        assert exact or subject.name in KINDS


@pytest.mark.parametrize("check", DETECTION_CHECKS, ids=lambda check: check.__name__)
def test_what_check_detector_asks_of_every_detector(subject: Subject, check: Check) -> None:
    check(subject.detector, make_trial(subject.detector, 64))


@pytest.mark.parametrize("check", LOSS_CHECKS, ids=lambda check: check.__name__)
def test_what_check_detector_asks_of_a_loss(trainable: Any, check: Check) -> None:
    check(trainable, make_trial(trainable, 64))


def test_facts(subject: Subject) -> None:
    detector = subject.detector
    assert isinstance(detector, Detector) and detector.name and detector.stride >= 1
    assert len(detector.class_names) > 0 and all(name.strip() == name != "" for name in detector.class_names)
    assert len(set(detector.class_names)) == len(detector.class_names)
    assert detector.weights_sha256 == "" or len(bytes.fromhex(detector.weights_sha256)) == 32


def test_nothing_in_it_changes(trainable: Any) -> None:
    before = {key: value.clone() for key, value in tensors_of(trainable).items()}
    image = images(trainable).requires_grad_()
    first = trainable.loss(image, targets(trainable))
    if isinstance(trainable, nn.Module):
        trainable.train()
    again = trainable.loss(image, targets(trainable))
    again.sum().backward()
    trainable.detect(image)
    assert torch.equal(first, again), "dropout, or statistics of the batch"
    after = tensors_of(trainable)
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert torch.equal(value, before[key]) and not value.requires_grad and value.grad is None, key


def test_loss_of_each_image_alone(trainable: Any) -> None:
    image, objects = images(trainable), targets(trainable)
    together = trainable.loss(image, objects)
    assert together.shape == (3,) and together.dtype == torch.float32 and together.isfinite().all()
    alone = torch.cat([trainable.loss(image[i : i + 1], objects[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert len({round(value, 4) for value in together.tolist()}) == 3, "the losses of these images should differ"


def test_labels_count(trainable: Any) -> None:
    image, objects = images(trainable), targets(trainable)
    moved = [Targets(target.boxes / 2, target.labels) for target in objects]
    difference = (trainable.loss(image, objects) - trainable.loss(image, moved)).abs()
    assert difference[1] == 0 and difference[[0, 2]].min() > 1e-4


def test_gradient_of_each_image_alone(trainable: Any) -> None:
    image = images(trainable).requires_grad_()
    losses = trainable.loss(image, targets(trainable))
    for number in range(3):
        (gradient,) = torch.autograd.grad(losses[number], image, retain_graph=True)
        assert gradient.isfinite().all() and gradient.dtype == torch.float32
        sizes = gradient.abs().amax(dim=(1, 2, 3))
        assert sizes[number] > 0, "the gradient must reach the image"
        assert sizes.sum() == sizes[number], "and no other image"


def test_images_without_objects(trainable: Any) -> None:
    image = images(trainable).requires_grad_()
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    losses = trainable.loss(image, [nothing] * 3)
    losses.sum().backward()
    assert losses.isfinite().all() and image.grad is not None and image.grad.isfinite().all()
    assert image.grad.abs().amax(dim=(1, 2, 3)).min() > 0
    alone = trainable.loss(image[:1], [nothing])
    torch.testing.assert_close(alone, losses[:1], rtol=1e-4, atol=1e-5)


def test_half_precision_of_the_network_leaves_the_loss_in_float32(trainable: Any) -> None:
    image = images(trainable).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        losses = trainable.loss(image, targets(trainable))
    assert losses.dtype == torch.float32 and losses.isfinite().all()
    (gradient,) = torch.autograd.grad(losses.sum(), image)
    assert gradient.isfinite().all()


def test_gradients_after_a_call_in_inference_mode(trainable: Any) -> None:
    """What is kept from call to call, such as codes of positions, must serve both. No other test has this size."""
    with torch.inference_mode():
        image = images(trainable, 3, 4)
        trainable.detect(image)
        inference = trainable.loss(image, targets(trainable))
    image = images(trainable, 3, 4).requires_grad_()
    losses = trainable.loss(image, targets(trainable))
    losses.sum().backward()
    assert image.grad is not None and image.grad.abs().max() > 0
    torch.testing.assert_close(losses.detach(), inference.clone(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (3, 1), (2, 2)])
def test_detections(subject: Subject, rows: int, columns: int) -> None:
    detector = subject.detector
    image = images(detector, rows, columns)
    height, width = image.shape[2:]
    found = detector.detect(image, confidence=0.0001)
    assert len(found) == 3 and all(isinstance(one, Detections) for one in found)
    for one in found:
        assert len(one.scores) == len(one.labels) == len(one.boxes) > 0
        assert one.boxes.dtype == one.scores.dtype == torch.float32 and one.labels.dtype == torch.int64
        assert not one.boxes.requires_grad and not one.scores.requires_grad
        assert one.boxes.min() >= 0 and one.boxes[:, 2].max() <= width and one.boxes[:, 3].max() <= height
        assert (one.boxes[:, :2] <= one.boxes[:, 2:]).all()
        assert one.boxes.max() > 2, "boxes are in pixels"
        assert one.scores.min() > 0.0001 and one.scores.max() <= 1 and (one.scores.diff() <= 0).all()
        assert one.labels.min() >= 0 and one.labels.max() < len(detector.class_names)
    best = detector.detect(image, confidence=0.0001, max_detections=1)
    assert [len(one.scores) for one in best] == [1, 1, 1]
    assert [one.scores[0] for one in best] == [one.scores[0] for one in found]
    assert all(len(one.scores) == 0 for one in detector.detect(image, confidence=1.0))


def test_detections_of_each_image_alone(subject: Subject) -> None:
    image = images(subject.detector)
    together = subject.detector.detect(image)
    for number in range(3):
        (alone,) = subject.detector.detect(image[number : number + 1])
        torch.testing.assert_close(alone.scores, together[number].scores, rtol=1e-4, atol=1e-5)
        assert alone.labels.tolist() == together[number].labels.tolist()
        torch.testing.assert_close(alone.boxes, together[number].boxes, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    """A process that starts anew, as `spawn` does it, and inherits nothing."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield pool


def saved_and_loaded(detector: Detector) -> Detector:
    file = io.BytesIO()
    torch.save(detector, file)
    file.seek(0)
    loaded: Detector = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[Detector], Detector]] = {
    "pickle": lambda detector: pickle.loads(pickle.dumps(detector)),
    "torch.save": saved_and_loaded,
    "deepcopy": copy.deepcopy,
}
"""Ways to copy a detector inside this process."""


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_the_same_detector_bit_for_bit(subject: Subject, way: str) -> None:
    detector, image = subject.detector, images(subject.detector)
    other: Any = COPIES[way](detector)
    assert type(other) is type(detector) and other is not detector and isinstance(other, Detector)
    for fact in ("name", "class_names", "stride", "weights_sha256"):
        assert getattr(other, fact) == getattr(detector, fact)
    expected = answers_of(detector, image)
    assert answers_of(other, image) == expected and all(len(scores) for _, scores, _ in expected)
    own, copied = tensors_of(detector), tensors_of(other)
    assert own.keys() == copied.keys()
    for key, value in own.items():
        assert torch.equal(value, copied[key]) and not copied[key].requires_grad, key
    if subject.name in WITHOUT_LOSS:
        return
    losses = []
    for one in (detector, other):
        given = image.clone().requires_grad_()
        loss = one.loss(given, targets(detector))
        (gradient,) = torch.autograd.grad(loss.sum(), given)
        losses.append((loss.detach(), gradient))
    assert torch.equal(losses[0][0], losses[1][0]) and torch.equal(losses[0][1], losses[1][1])


@pytest.mark.long
def test_another_process_answers_the_same_bit_for_bit(subject: Subject, other_process: ProcessPoolExecutor) -> None:
    """As a user sends it there: the detector itself is the argument."""
    image = images(subject.detector)
    there = other_process.submit(answers_of, subject.detector, image).result()
    assert there == answers_of(subject.detector, image)


def installed(name: str) -> str:
    if not is_installed(name):
        pytest.skip(f"{name} is not installed; run `adaptiveisp weights get {name}`")
    return name


PUBLISHED: dict[str, Callable[[pytest.FixtureRequest], str | Path]] = {
    "yolov3-tiny": lambda request: request.getfixturevalue("tiny_weights") and "yolov3-tiny",
    "nanodet-g": lambda request: installed("nanodet-g"),
    "mb3-centernet": lambda request: installed("mb3-centernet"),
    "mb3-centernet.onnx": lambda request: request.getfixturevalue("shared") / "detectors" / "mb3-centernet.onnx",
}
"""Networks with published weights → what `load_detector` is given; skipped where the weights are absent."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name != "yolov3-tiny" else name for name in PUBLISHED]
)
def test_copies_of_published_networks_answer_the_same_bit_for_bit(
    name: str, request: pytest.FixtureRequest, other_process: ProcessPoolExecutor
) -> None:
    given = PUBLISHED[name](request)
    if isinstance(given, Path) and not given.is_file():
        pytest.skip(f"no {given}")
    detector = load_detector(given)
    image = images(detector, 5, 5)[:2]
    expected = answers_of(detector, image)
    assert all(len(scores) for _, scores, _ in expected)
    assert all(answers_of(way(detector), image) == expected for way in COPIES.values())
    assert other_process.submit(answers_of, detector, image).result() == expected

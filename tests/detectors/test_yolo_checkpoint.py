"""YOLOv3 and YOLOv5 checkpoints: the network in them, what is refused, and what users do with them."""

import copy
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from adaptiveisp.cli.parser import main
from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.detectors.detector_file import load_detector_file
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.detectors.yolo.checkpoint import holds_detector, load_ultralytics
from adaptiveisp.detectors.yolo.network import Description, YoloNetwork
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, WeightsError
from adaptiveisp.types import Detector, Targets
from adaptiveisp.utils.files import sha256_of
from tests.detectors.test_restricted_pickle import RAN, Reduced, Trap, spring
from tests.support.photos import labelled_photos
from tests.support.yolo_standins import (
    Detect,
    DetectionModel,
    Yaml,
    save_checkpoint,
    stand_in_model,
    yolov3,
    yolov3_tiny,
    yolov5,
)

NARROW = 1 / 16
CLASSES = 3

SMALL: dict[str, Yaml] = {
    "yolov5": yolov5(NARROW, 0.33, CLASSES),
    "yolov5, version 5": yolov5(NARROW, 0.33, CLASSES, version=5),
    "yolov5, version 3": yolov5(NARROW, 0.33, CLASSES, version=3),
    "yolov5, deeper": yolov5(NARROW, 0.67, CLASSES),
    "yolov3": yolov3(NARROW, CLASSES),
    "yolov3-spp": yolov3(NARROW, CLASSES, spp=True),
    "yolov3-tiny": yolov3_tiny(NARROW, CLASSES),
}
"""The published networks with a sixteenth of their channels."""

PYRAMIDS = ("yolov5", "yolov5, version 5")
"""Those with SPPF and with SPP that are looked at on a large image."""

LONG = ("yolov5, deeper", "yolov3-spp")
"""Those that add little to the others."""

PUBLISHED: dict[str, tuple[Yaml, int]] = {
    "yolov5n": (yolov5(0.25, 0.33), 1_867_405),
    "yolov5s": (yolov5(0.5, 0.33), 7_225_885),
    "yolov5m": (yolov5(0.75, 0.67), 21_172_173),
    "yolov5l": (yolov5(1.0, 1.0), 46_533_693),
    "yolov5x": (yolov5(1.25, 1.33), 86_705_005),
    "yolov5s, version 5": (yolov5(0.5, 0.33, version=5), 7_266_973),
    "yolov3": (yolov3(), 61_922_845),
    "yolov3-spp": (yolov3(spp=True), 62_971_933),
    "yolov3-tiny": (yolov3_tiny(), 8_849_182),
}
"""What the repositories print after "Fusing layers..." for the published checkpoints: their numbers of parameters."""


def pixels(yaml: Yaml) -> tuple[tuple[tuple[float, float], ...], ...]:
    rows = [[float(side) for side in row] for row in yaml["anchors"]]
    return tuple(tuple(zip(row[::2], row[1::2], strict=True)) for row in rows)


def random_image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Equal but for rounding, which is measured against the spread of all values."""
    torch.testing.assert_close(ours, theirs, atol=1e-3 * theirs.std().item(), rtol=1e-3)


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow YOLOv3-tiny, as a file."""
    return save_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny.pt", stand_in_model(SMALL["yolov3-tiny"]))


@pytest.fixture(scope="module")
def tiny(tiny_file: Path) -> YoloNetwork:
    return load_ultralytics(tiny_file)


# ---------------------------------------------------------------- the network


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_published_size(name: str) -> None:
    yaml, parameters = PUBLISHED[name]
    network = YoloNetwork(Description(yaml, pixels(yaml)), COCO_80, name)
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert network.stride == 32 and network.decode == "v5"
    assert network.strides == ((16, 32) if name == "yolov3-tiny" else (8, 16, 32))


@pytest.mark.parametrize(
    ("name", "half"),
    [
        *(pytest.param(name, False, marks=pytest.mark.long if name in LONG else ()) for name in SMALL),
        ("yolov5", True),
        pytest.param("yolov5, version 3", True, marks=pytest.mark.long),
    ],
)
def test_heads_equal_the_plain_forward(name: str, half: bool, tmp_path: Path) -> None:
    model = stand_in_model(SMALL[name], half=half)
    network = load_ultralytics(save_checkpoint(tmp_path / "a.pt", model))
    # Two small images differ everywhere; a pyramid's windows of 13 cells need a large one.
    image = random_image(1, 3, 480, 512) if name in PYRAMIDS and not half else random_image(2, 3, 64, 96)
    heads, expected = network.heads(image), model.float()(image)
    assert len(heads) == len(expected)
    for ours, theirs in zip(heads, expected, strict=True):
        # What the image shows is seen in the heads, so every layer before them counts.
        assert ours.dtype == torch.float32 and theirs.std(dim=(0, 2, 3)).mean() > 0.3 * theirs.std()
        assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.stack([layer.anchors for layer in network.detection_layers]), torch.tensor(pixels(SMALL[name]))
    )


@pytest.mark.parametrize(
    "activation",
    [nn.SiLU(), nn.LeakyReLU(0.1), nn.Hardswish(), nn.ReLU(), nn.Identity()],
    ids=lambda a: type(a).__name__,
)
def test_the_activation_is_the_checkpoints_own(activation: nn.Module, tmp_path: Path) -> None:
    model = stand_in_model(SMALL["yolov3-tiny"])
    model.model[0].act = model.model[8].act = activation
    image = random_image(1, 3, 32, 32)
    path = save_checkpoint(tmp_path / "a.pt", model)
    for ours, theirs in zip(load_ultralytics(path).heads(image), model(image), strict=True):
        assert_close(ours, theirs)


def test_it_is_a_frozen_detector_without_batch_norms(tiny: YoloNetwork, tiny_file: Path) -> None:
    assert isinstance(tiny, Detector) and tiny.train() is tiny
    assert not any(module.training or isinstance(module, nn.BatchNorm2d) for module in tiny.modules())
    assert not any(value.requires_grad for value in tiny.parameters())
    assert (tiny.name, tiny.stride, tiny.class_names) == ("tiny", 32, ("thing 0", "thing 1", "cup"))
    assert tiny.weights_sha256 == sha256_of(tiny_file)
    with pytest.raises(DetectorError, match="multiples of 32"):
        tiny.heads(random_image(1, 3, 48, 64))


def test_the_running_average_comes_first_and_names_may_be_a_dict(tmp_path: Path) -> None:
    first, second = (stand_in_model(SMALL["yolov3-tiny"], seed) for seed in (1, 2))
    second.names = dict(enumerate(second.names))
    network = load_ultralytics(save_checkpoint(tmp_path / "a.pt", first, ema=second))
    image = random_image(1, 3, 32, 32)
    assert_close(network.heads(image)[0], second(image)[0])
    assert network.class_names == ("thing 0", "thing 1", "cup")


@pytest.mark.parametrize("name", ["yolov5", "yolov5, version 3"])
def test_gradients_reach_the_image_as_in_the_plain_forward(name: str, tmp_path: Path) -> None:
    model = stand_in_model(SMALL[name])
    network = load_ultralytics(save_checkpoint(tmp_path / "a.pt", model))
    gradients = []
    for function in (network.heads, model):
        image = random_image(1, 3, 32, 32).requires_grad_()
        sum(head.square().sum() for head in function(image)).backward()
        gradients.append(image.grad)
    assert gradients[1].std() > 0.1
    assert_close(*gradients)


def test_detections_are_the_later_decode_of_the_heads(tiny: YoloNetwork) -> None:
    image = random_image(1, 3, 32, 64)
    (found,) = tiny.detect(image, confidence=0.2, nms_iou=1.0, max_detections=10_000)
    candidates = []
    anchors = pixels(SMALL["yolov3-tiny"])
    for stride, sizes, head in zip((16, 32), anchors, tiny.heads(image), strict=True):
        for a, (width, height) in enumerate(sizes):
            for row in range(head.shape[2]):
                for column in range(head.shape[3]):
                    x, y, w, h, objectness, *classes = head[0, a, row, column].sigmoid().tolist()
                    cx, cy = (2 * x - 0.5 + column) * stride, (2 * y - 0.5 + row) * stride
                    w, h = (2 * w) ** 2 * width / 2, (2 * h) ** 2 * height / 2
                    box = [max(cx - w, 0), max(cy - h, 0), min(cx + w, 64), min(cy + h, 32)]
                    candidates += [(objectness * score, label, box) for label, score in enumerate(classes)]
    expected = sorted((item for item in candidates if item[0] > 0.2), reverse=True)
    assert len(expected) > 20 and found.labels.tolist() == [item[1] for item in expected]
    torch.testing.assert_close(found.boxes, torch.tensor([item[2] for item in expected]), atol=1e-3, rtol=1e-4)


def test_loss_is_per_image(tiny: YoloNetwork) -> None:
    image = random_image(2, 3, 64, 64).requires_grad_()
    targets = [
        Targets(torch.tensor([[10.0, 10, 30, 28]]), torch.tensor([1])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
    ]
    loss = tiny.loss(image, targets)
    (gradient,) = torch.autograd.grad(loss[0], image)
    assert gradient[0].abs().max() > 0 and (gradient[1] == 0).all()
    alone = torch.cat([tiny.loss(image[i : i + 1], targets[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss, alone, atol=1e-6, rtol=1e-5)


def test_four_detection_layers_detect_but_have_no_loss() -> None:
    rows = [[-1, 1, "Conv", [8, 3, 2]] for _ in range(6)]
    head = [[[2, 3, 4, 5], 1, "Detect", ["nc", "anchors"]]]
    yaml = {"nc": 3, "depth_multiple": 1.0, "width_multiple": 1.0, "backbone": rows, "head": head}
    network = YoloNetwork(Description(yaml, (((8.0, 8.0),),) * 4), ("a", "b", "c"), "p6")
    assert network.strides == (8, 16, 32, 64)
    network.assign({name: torch.zeros(v.shape) for name, v in network.state_dict().items()})
    image = random_image(1, 3, 64, 64)
    assert len(network.detect(image, confidence=0.2, nms_iou=1.0)[0].labels) == 3 * (64 + 16 + 4 + 1)
    with pytest.raises(DetectorError, match="1 to 3 detection layers, not 4"):
        network.loss(image, [Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))])


# ---------------------------------------------------------------- what is refused


def test_objects_with_code_of_their_own_run_nothing(tmp_path: Path) -> None:
    model = stand_in_model(SMALL["yolov3-tiny"])
    model.trap, model.model[3].trap = Trap(), [Trap()]
    path = save_checkpoint(tmp_path / "a.pt", model, hook=Trap())
    RAN.clear()
    assert load_ultralytics(path).class_names[-1] == "cup"
    assert not RAN and not {"models", "models.yolo", "models.common"} & set(sys.modules)


@pytest.mark.parametrize("command", ["load", "import"])
def test_a_checkpoint_that_would_run_something_is_refused(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = stand_in_model(SMALL["yolov3-tiny"])
    model.model[3].trap = {"deep": [Reduced(spring)]}
    path = save_checkpoint(tmp_path / "a.pt", model)
    RAN.clear()
    if command == "load":
        with pytest.raises(WeightsError, match=r"a\.pt: its pickle calls .*spring, so it is refused, and none"):
            load_detector(path)
    else:
        assert main(["import", str(path), "--out", str(tmp_path / "a.safetensors")]) == 1
        assert "so it is refused, and none of it was run" in capsys.readouterr().err
        assert not (tmp_path / "a.safetensors").exists()
    assert not RAN


def changed(path: tuple[Any, ...], value: Any) -> Callable[[DetectionModel], None]:
    """Sets an item of a model's description."""

    def change(model: DetectionModel) -> None:
        target: Any = model.yaml
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def itself(model: DetectionModel) -> None:
    model.yaml["head"].append(model.yaml["head"])


def many(model: DetectionModel) -> None:
    value: Any = [1]
    for _ in range(5):
        value = [value] * 100
    model.yaml["head"] = value


def without(module: int, name: str) -> Callable[[DetectionModel], None]:
    return lambda model: delattr(model.model[module], name)


def attribute(name: str, value: Any) -> Callable[[DetectionModel], None]:
    return lambda model: setattr(model, name, value)


def of_layer(number: int, change: Callable[[Any], Any]) -> Callable[[DetectionModel], None]:
    return lambda model: (change(model.model[number]), None)[1]


def shared(model: DetectionModel) -> None:
    """All weights are one storage, and the description asks for a much wider network than that holds."""
    model.yaml["width_multiple"] = 4.0


FAULTS: dict[str, tuple[Callable[[DetectionModel], None], str]] = {
    "no yaml": (lambda model: delattr(model, "yaml"), "has no description"),
    "no names": (lambda model: delattr(model, "names"), "no list `names`"),
    "too few names": (attribute("names", ["a", "b"]), "has 2 class names, but detects 3 classes"),
    "numbers as names": (attribute("names", [1, 2, 3]), "no list `names`"),
    "another number of classes": (changed(("nc",), 4), "has 3 class names"),
    "a module that is not known": (
        changed(("head", 0, 2), "C2f"),
        "layer 13: the module 'C2f' is not supported .known:",
    ),
    "a module that is an expression": (changed(("head", 0, 2), "__import__('os').system('ls')"), "is not supported"),
    "an argument that is an expression": (changed(("head", 0, 3, 0), "1+1"), "expected a whole number"),
    "another module": (changed(("head", 0, 2), "Bottleneck"), "has 3 arguments, of which 2 are known"),
    "another stride": (
        changed(("backbone", 0, 3, 2), 2),
        r"its strides are \(16, 32\), but its description makes \(32, 64\)",
    ),
    "another window": (changed(("backbone", 0, 3, 1), 5), r"layers\.0\.conv has another padding"),
    "another pool": (changed(("backbone", 11, 3), [[1, 1, 1, 1]]), "its layers do not fit each other"),
    "more arguments": (changed(("backbone", 0, 3), [16, 3, 1, None, 2]), "has 5 arguments, of which 4 are known"),
    "a later source": (changed(("head", 3, 0), 20), "must come from earlier layers"),
    "a source that is too early": (changed(("head", 3, 0), -20), "must come from earlier layers"),
    "no row": (changed(("head", 3), 7), "layer 16: is not described by"),
    "no head": (changed(("head",), 7), "has no backbone and head"),
    "no Detect": (lambda model: model.yaml["head"].pop(), "does not end with its only Detect"),
    "many repeats": (changed(("backbone", 0, 1), 10**9), "cannot be repeated"),
    "many rows": (lambda model: model.yaml["head"].extend([[-1, 1, "Conv", [8]]] * 300), "rows; at most 256"),
    "endless depth": (changed(("depth_multiple",), float("inf")), "is refused"),
    "great width": (shared, "asks for more weights than it holds"),
    "enormous width": (changed(("width_multiple",), 1e30), "is refused"),
    "enormous numbers": (changed(("nc",), 10**400), "is refused"),
    "no width": (changed(("width_multiple",), 0), "width_multiple must be above 0"),
    "a description that contains itself": (itself, r"is refused \(too large\)"),
    "a description with 10^10 values": (many, r"is refused \(too large\)"),
    "a tensor as description": (changed(("nc",), torch.ones(2)), "is refused"),
    "no Detect at the end": (lambda model: model.model.append(nn.Identity()), "last layer is not Detect"),
    "no layers": (lambda model: delattr(model, "model"), "has no model"),
    "a layer less": (
        lambda model: model.model.__delitem__(3),
        r"layers\.3 is a Conv, but its description says MaxPool2d",
    ),
    "no norm": (without(0, "bn"), r"layers\.0 has no bn"),
    "no statistics": (of_layer(0, lambda c: c.bn.register_buffer("running_mean", None)), "has no running_mean"),
    "a negative variance": (of_layer(0, lambda c: c.bn.running_var.fill_(-1.0)), "no usable variance"),
    "no eps": (of_layer(0, lambda c: delattr(c.bn, "eps")), "no usable variance"),
    "not a number": (of_layer(0, lambda c: c.conv.weight.fill_(float("nan"))), "not finite"),
    "an activation that is not known": (of_layer(0, lambda c: setattr(c, "act", nn.Tanh())), "activation Tanh; known"),
    "a slope that is not known": (of_layer(0, lambda c: setattr(c, "act", nn.LeakyReLU(0.3))), "activation LeakyReLU"),
    "dilation": (of_layer(2, lambda c: setattr(c.conv, "dilation", (2, 2))), "another dilation"),
    "a pool of another step": (of_layer(1, lambda pool: setattr(pool, "stride", 1)), r"layers\.1 has another stride"),
    "no anchors": (
        of_layer(-1, lambda d: delattr(d, "anchors")),
        "has no anchors; YOLOv8 and later, and the u models, are read from ONNX; export it: yolo export model=a",
    ),
    "anchors for another number": (of_layer(-1, lambda d: setattr(d, "anchors", d.anchors[:1])), "has no anchors"),
    "anchors of no size": (of_layer(-1, lambda d: d.anchors.zero_()), "each layer must have equally many anchors"),
    "no strides": (of_layer(-1, lambda d: setattr(d, "stride", None)), "has no strides"),
    "other strides": (of_layer(-1, lambda d: setattr(d, "stride", torch.tensor([8.0, 32.0]))), "its strides are"),
}
"""A change to an honest model, and what the message says."""


@pytest.fixture(scope="module")
def honest_model() -> DetectionModel:
    return stand_in_model(SMALL["yolov3-tiny"])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_is_wrong_is_refused(fault: str, honest_model: DetectionModel, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    model = copy.deepcopy(honest_model)
    change(model)
    path = save_checkpoint(tmp_path / "a.pt", model)
    with pytest.raises((WeightsError, DetectorError), match=message) as caught:
        load_detector(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


class Newer(nn.Module):
    """Stands in for a network of the package ultralytics."""

    def __init__(self, last: str) -> None:
        super().__init__()
        head = type(last, (nn.Module,), {"__module__": "ultralytics.nn.tasks"})()
        head.stride = torch.tensor([8.0, 16.0])
        self.yaml, self.names, self.model = {"nc": 2, "backbone": [], "head": []}, {0: "a", 1: "b"}, nn.Sequential(head)


@pytest.mark.parametrize("last", ["Detect", "Segment", "RTDETRDecoder"])
def test_the_way_to_read_a_newer_network_is_told(last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Newer(last)
    fake = types.ModuleType("ultralytics.nn.tasks")
    kinds = {last: type(model.model[0]), "Newer": Newer}
    with monkeypatch.context() as patch:
        patch.setattr(Newer, "__module__", "ultralytics.nn.tasks")
        vars(fake).update(kinds)
        for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
            patch.setitem(sys.modules, name, fake)
        torch.save({"model": model, "train_args": {"task": "detect"}}, tmp_path / "best.pt")
    with pytest.raises(
        WeightsError, match=r"export it: yolo export model=best\.pt format=onnx, then --detector best\.on"
    ):
        load_detector(tmp_path / "best.pt")


def test_a_shortcut_that_the_description_does_not_have_is_refused(tmp_path: Path) -> None:
    model = stand_in_model(SMALL["yolov5"])
    model.model[2].m[0].add = False
    with pytest.raises(WeightsError, match=r"layers\.2\.m\.0 has another add than its description says"):
        load_ultralytics(save_checkpoint(tmp_path / "a.pt", model))


@pytest.mark.parametrize("content", [{"model": {"a": torch.ones(2)}}, {}, [1], torch.ones(2), {"model": None}])
def test_a_file_without_a_network_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt: holds no network as an object"):
        load_detector(tmp_path / "a.pt")
    assert not holds_detector(tmp_path / "a.pt")


def test_changed_bytes_are_read_or_refused(tiny_file: Path, tmp_path: Path) -> None:
    honest, path = tiny_file.read_bytes(), tmp_path / "a.pt"
    start, generator = honest.index(b"\x80\x02"), torch.Generator().manual_seed(0)
    refused = 0
    for _ in range(15):
        content = bytearray(honest)
        place = start + int(torch.randint(0, 20_000, (1,), generator=generator))
        content[place] ^= 1 << int(torch.randint(0, 8, (1,), generator=generator))
        path.write_bytes(content)
        try:
            load_ultralytics(path)
        except AdaptiveISPError:
            refused += 1
    assert refused == 15  # the zip's own checksums see any change


# ---------------------------------------------------------------- what users do


def test_import_and_use(tiny_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "own.safetensors"
    assert main(["import", str(tiny_file), "--out", str(out)]) == 0
    network = load_ultralytics(tiny_file)
    weights = sum(value.numel() for value in network.parameters())
    assert capsys.readouterr().out == f"{out}: {weights:,} weights, 3 classes, strides 16, 32\n"
    assert main(["import", str(tiny_file), "--out", str(out)]) == 2
    assert main(["import", str(tiny_file), "--out", str(out), "--overwrite"]) == 0
    with safe_open(out, framework="pt") as file:
        header = json.loads(file.metadata()["adaptiveisp-detector"])
    assert header["yaml"]["head"][-1][2] == "Detect" and header["strides"] == [16, 32]
    assert header["provenance"]["weights_sha256"] == {"tiny.pt": sha256_of(tiny_file)}
    assert header["source_sha256"] == sha256_of(tiny_file)
    imported = load_detector(out)
    image = random_image(1, 3, 64, 64)
    for ours, theirs in zip(imported.heads(image), network.heads(image), strict=True):
        assert_close(ours, theirs)
    assert (imported.name, imported.class_names) == ("own", network.class_names)
    assert imported.weights_sha256 == sha256_of(out) and not any(v.requires_grad for v in imported.parameters())


def test_an_import_keeps_activations_and_anchors(tmp_path: Path) -> None:
    model = stand_in_model(SMALL["yolov5, version 3"], half=True)
    detect = model.model[-1]
    assert isinstance(detect, Detect)
    detect.anchors *= 1.5
    path = save_checkpoint(tmp_path / "a.pt", model)
    assert main(["import", str(path), "--out", str(tmp_path / "b.safetensors")]) == 0
    first, second = load_ultralytics(path), load_detector_file(tmp_path / "b.safetensors")
    image = random_image(1, 3, 32, 32)
    for one, two, plain in zip(first.detect(image), second.detect(image), model.float()(image), strict=False):
        torch.testing.assert_close(one.boxes, two.boxes, atol=1e-4, rtol=0)
        assert len(one.boxes) and plain.isfinite().all()
    assert first.detection_layers[0].anchors[0].tolist() == [15, 19.5]


def test_import_tells_policies_from_detectors(released_checkpoint: Path) -> None:
    assert not holds_detector(released_checkpoint)


def test_detector_files_that_are_wrong_are_refused(tiny_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    good = tmp_path / "good.safetensors"
    assert main(["import", str(tiny_file), "--out", str(good)]) == 0
    tensors = load_file(good)
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["adaptiveisp-detector"])
    path = tmp_path / "bad.safetensors"

    def refused(message: str, tensors: dict[str, Tensor], **changes: Any) -> None:
        metadata = {"adaptiveisp-detector": json.dumps({**copy.deepcopy(header), **changes})}
        save_file(tensors, path, metadata=metadata)
        with pytest.raises(WeightsError, match=message) as caught:
            load_detector(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)

    first = next(iter(tensors))
    refused("another version", tensors, format_version=2)
    refused("cannot be used", {k: v for k, v in tensors.items() if k != first})
    refused("cannot be used", {**tensors, "more": torch.ones(1)})
    refused("cannot be used", {**tensors, first: torch.ones(1)})
    refused("is not float32", {**tensors, first: tensors[first].double()})
    refused("not finite", {**tensors, first: tensors[first] * torch.nan})
    refused("has 1 class names", tensors, class_names=["a"])
    refused("unknown activation", tensors, activations=dict.fromkeys(header["activations"], "tanh"))
    refused("is not a detector", tensors, activations={})
    refused("cannot be used", tensors, anchors=[[1]])
    refused("cannot be used", tensors, anchors=None)
    refused("cannot be used", tensors, yaml=[])
    refused("at most 16", tensors, yaml={**header["yaml"], "width_multiple": 1e9})
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="is not a detector of this package"):
        load_detector(path)
    path.write_bytes(b"hello")
    with pytest.raises(WeightsError, match="cannot be used"):
        load_detector(path)


@pytest.mark.parametrize("name", ["gone.pt", "gone.safetensors", "gone.pth"])
def test_a_missing_file_is_named(name: str) -> None:
    with pytest.raises(DetectorError, match=f"{name}: no such file; known") as caught:
        load_detector(name)
    assert not isinstance(caught.value, UsageError)


@pytest.mark.long
@pytest.mark.usefixtures("without_figures")
def test_eval_and_train_with_a_checkpoint(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path)
    data = ["--data", "labels.json", "--images", "images", "--light", "normal", "--size", "64", "--threads", "1", "-q"]
    assert main(["import", str(tiny_file), "--out", "imported.safetensors"]) == 0
    detectors = ["--detector", str(tiny_file), "imported.safetensors"]
    evaluated = ["eval", *data, *detectors, "--policy", "none", "--resamples", "200", "--out", "report"]
    assert main(evaluated) == 0
    report = json.loads(Path("report/report.json").read_text())
    scores = report["policies"]["none"]
    assert set(scores) == {"tiny", "imported"} and scores["tiny"]["ap50"] == scores["imported"]["ap50"]
    assert report["provenance"]["weights_sha256"]["tiny"] == sha256_of(tiny_file)
    options = ["--method", "fixed", "--detector", str(tiny_file), "--budget", "24", "--set", "batch=4"]
    assert main(["train", *data, *options, "--out", "run"]) == 0
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["passes"] >= 24 and Path("run/latest.json").is_file()

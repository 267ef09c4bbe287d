"""Backends: the boxes of PyTorch from the other libraries, precision, threads, pickling and refusals."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptiveisp import AdaptiveISP
from adaptiveisp.cli.evaluate import _config
from adaptiveisp.cli.parser import build_parser, main
from adaptiveisp.detectors.backends import choice, engine, openvino_engine
from adaptiveisp.detectors.backends.choice import backends_of, installed_backends, with_backend
from adaptiveisp.detectors.darknet.loading import Darknet, load_darknet
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError
from adaptiveisp.evaluation.detector_loss import has_joint_pass
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import Detections, RawImage, Targets
from tests.support import fake_detector, onnx_models, tfjs_models
from tests.support.darknet_cfg import write_mixed
from tests.support.transformers_models import write_model

NAMES = ("cat", "dog")
EXPORTED = ("onnxruntime", "openvino")
TARGETS = [Targets(torch.tensor([[4.0, 4.0, 20.0, 24.0]]), torch.tensor([1]))] * 2


def images(*shape: int, seed: int = 0) -> Tensor:
    """Bright rectangles on noise, so that networks of random weights give different scores in different places."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(*shape, generator=generator) * 0.3
    made[..., 10:40, 8:30] += 0.6
    made[:, 0, 5:20, 30:60] += 0.5
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_mixed(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def plain(files: tuple[Path, Path]) -> Darknet:
    return load_darknet(*files, NAMES, "mixed")


@pytest.fixture(scope="module", params=EXPORTED)
def exported(request: pytest.FixtureRequest, plain: Darknet) -> Any:
    pytest.importorskip(request.param)
    return with_backend(plain, request.param, size=96)


DROPPED = """
import gc, os, signal, threading
import torch
from torch import nn
from adaptiveisp.detectors.backends.openvino_engine import OpenvinoEngine

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return [self.layer(image)]

held = [OpenvinoEngine("float32")]
with torch.no_grad():
    held[0](Network().eval(), torch.rand(1, 3, 32, 32))
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_signals_are_handled_after_another_thread_gave_up_the_network() -> None:
    """On processors with AMX the process ended by a segmentation fault, since OpenVINO had freed the signals' stack."""
    pytest.importorskip("openvino")
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr[-500:]


def assert_same_boxes(expected: Detections, found: Detections) -> None:
    """99 % of the boxes of a score above 0.05 have a partner of the same class: IoU 0.99, and 0.001 in score."""
    wanted = [row for row in rows(expected) if row[5] > 0.05]
    assert wanted, "the image shows nothing"
    others = rows(found)
    matched = sum(any(iou(a, b) >= 0.99 and abs(a[5] - b[5]) <= 1e-3 and a[4] == b[4] for b in others) for a in wanted)
    assert matched >= 0.99 * len(wanted), (matched, len(wanted))


def rows(found: Detections) -> list[list[float]]:
    return torch.cat((found.boxes, found.labels[:, None].float(), found.scores[:, None]), dim=1).tolist()


def iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)


# ---------------------------------------------------------------- agreement


def test_boxes_are_those_of_pytorch_at_any_size(plain: Darknet, exported: Any) -> None:
    for height, width in ((96, 96), (64, 96)):
        batch = images(3, 3, height, width)
        for expected, found in zip(plain.detect(batch), exported.detect(batch), strict=True):
            assert_same_boxes(expected, found)


def test_boxes_of_the_shipped_detector(tiny_weights: Path) -> None:
    pytest.importorskip("openvino")
    plain = load_detector("yolov3-tiny")
    astronaut = pytest.importorskip("skimage.data").astronaut()[:512:2, :512:2]
    photo = torch.from_numpy(astronaut.copy()).permute(2, 0, 1)[None] / 255
    (expected,), (found,) = plain.detect(photo), with_backend(plain, "openvino").detect(photo)
    assert_same_boxes(expected, found)


def test_a_transformer(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    plain = load_detector(write_model(tmp_path / "yolos", "yolos"))
    made: Any = with_backend(plain, "onnxruntime")
    batch = images(2, 3, 64, 96)
    for expected, found in zip(plain.detect(batch), made.detect(batch), strict=True):
        assert_same_boxes(expected, found)
    found, losses = made.detect_with_loss(batch, TARGETS, 1)
    assert len(found) == 1 and torch.equal(losses, plain.loss(batch, TARGETS))


@pytest.mark.parametrize("made_by", [tfjs_models.centernet, tfjs_models.nanodet])
@pytest.mark.parametrize("backend", EXPORTED)
def test_graphs_of_tensorflow_js(tmp_path: Path, made_by: Any, backend: str) -> None:
    pytest.importorskip(backend)
    plain = made_by(tmp_path)
    batch = images(2, 3, 64, 96)
    for expected, found in zip(plain.detect(batch), with_backend(plain, backend).detect(batch), strict=True):
        assert_same_boxes(expected, found)


def test_bfloat16_of_pytorch_is_autocast_of_the_network_alone(plain: Darknet) -> None:
    made: Any = with_backend(plain, precision="bfloat16")
    batch = images(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = plain.heads(batch)
    found = made.infer(batch)
    assert all(torch.equal(a.float(), b) and b.dtype == torch.float32 for a, b in zip(expected, found, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain.heads(batch), found, strict=True))
    assert backends_of(made) == {"backend": "torch", "precision": "bfloat16"}


def test_boxes_are_decoded_in_float32_under_autocast(plain: Darknet) -> None:
    batch = images(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = plain.detect(batch)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert bool((found.boxes[:, 0] * 4 % 1 != 0).any()), "coordinates lie on the grid of bfloat16"


def test_bfloat16_of_openvino(plain: Darknet) -> None:
    pytest.importorskip("openvino")
    if "BF16" not in openvino_engine._shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(UsageError, match="no bfloat16 in this processor"):
            with_backend(plain, "openvino", "bfloat16", size=64)
        return
    made: Any = with_backend(plain, "openvino", "bfloat16", size=64)
    batch = images(1, 3, 64, 64)
    for expected, found in zip(plain.heads(batch), made.infer(batch), strict=True):
        difference = float((expected - found).abs().max() / expected.abs().max())
        assert 1e-5 < difference < 0.05  # less would mean that it computed in float32


# ---------------------------------------------------------------- what stays the same


def test_loss_and_gradient_are_those_of_pytorch(plain: Darknet, exported: Any) -> None:
    gradients = []
    for detector in (plain, exported):
        batch = images(2, 3, 64, 64).requires_grad_()
        detector.loss(batch, TARGETS).sum().backward()
        gradients.append(batch.grad)
    assert torch.equal(gradients[0], gradients[1]) and bool(gradients[0].any())


def test_the_given_detector_is_not_changed(plain: Darknet, exported: Any) -> None:
    assert plain.engine is None and backends_of(plain) == {"backend": "torch", "precision": "float32"}
    assert exported.backend in EXPORTED and exported.name == plain.name
    assert with_backend(plain, "torch", "float32") is plain and with_backend(exported) is exported
    assert with_backend(exported, "torch").engine is None


def test_detections_and_losses_of_one_pass(plain: Darknet, exported: Any) -> None:
    assert has_joint_pass(exported)
    batch = images(2, 3, 64, 64)
    found, losses = exported.detect_with_loss(batch, TARGETS, 1, confidence=0.05)
    assert len(found) == 1 and torch.allclose(losses, plain.loss(batch, TARGETS), rtol=1e-4)


def test_an_empty_batch(exported: Any) -> None:
    assert exported.detect(torch.zeros(0, 3, 64, 64)) == []


def test_a_copy_by_pickle(exported: Any) -> None:
    batch = images(1, 3, 64, 64)
    (expected,), (found,) = exported.detect(batch), pickle.loads(pickle.dumps(exported)).detect(batch)
    assert torch.equal(expected.boxes, found.boxes) and torch.equal(expected.scores, found.scores)


def test_several_threads_at_once(exported: Any) -> None:
    batches = [images(1, 3, 64, 64, seed=seed) for seed in range(4)]
    expected = [exported.detect(batch)[0] for batch in batches]
    found: dict[tuple[int, int], Detections] = {}

    def work(thread: int) -> None:
        torch.set_num_threads(1)
        for turn in range(6):
            number = (thread + turn) % 4
            found[thread, turn] = exported.detect(batches[number])[0]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 18
    for (thread, turn), one in found.items():
        assert torch.equal(one.boxes, expected[(thread + turn) % 4].boxes)


def test_few_compiled_networks_are_kept(exported: Any) -> None:
    copied = pickle.loads(pickle.dumps(exported))
    for side in (32, 48, 64, 80, 96):
        copied.detect(images(1, 3, 64, side))
    assert len(copied.engine._compiled) == engine.MOST_COMPILED


# ---------------------------------------------------------------- refusals


class Changed(Darknet):
    """A network that computes something else the second time, as a trace of it would."""

    calls = 0

    def _logits(self, image: Tensor) -> list[Tensor]:
        self.calls += 1
        return super()._logits(image * self.calls)


class Untraceable(Darknet):
    def _logits(self, image: Tensor) -> list[Tensor]:
        if torch.jit.is_tracing():
            raise RuntimeError("no trace of this\nsecond line")
        return super()._logits(image)


@pytest.mark.parametrize("backend", EXPORTED)
def test_networks_that_do_not_export(backend: str, files: tuple[Path, Path]) -> None:
    pytest.importorskip(backend)
    changed = Changed(files[0], NAMES, "changed")
    with pytest.raises(DetectorError, match=r"changed: backend \w+ in float32 differs .* --backend torch"):
        with_backend(changed, backend, size=64)
    with pytest.raises(DetectorError, match=r"cannot run it \(.*no trace of this.*\); use --backend torch") as error:
        with_backend(Untraceable(files[0], NAMES, "untraceable"), backend, size=64)
    assert "\n" not in str(error.value)


def test_settings_that_do_not_fit(plain: Darknet) -> None:
    for backend, precision, message in (
        ("tensorrt", "auto", "backend 'tensorrt' does not exist; choose one of auto, torch, onnxruntime, openvino"),
        ("torch", "float16", "precision 'float16' does not exist"),
        ("onnxruntime", "bfloat16", "no bfloat16 on a CPU; use --backend openvino or torch"),
    ):
        with pytest.raises(UsageError, match=message):
            with_backend(plain, backend, precision)
    with pytest.raises(UsageError, match="by code of its own and has no other backend; leave out --backend"):
        with_backend(fake_detector.load(), "openvino")


def test_an_onnx_file_has_its_own_backend(tmp_path: Path) -> None:
    detector = load_detector(onnx_models.network(tmp_path / "model.onnx"))
    assert backends_of(detector) == {"backend": "onnxruntime", "precision": "float32"}
    assert with_backend(detector, "onnxruntime", "float32") is detector
    with pytest.raises(UsageError, match="runs by onnxruntime in float32 and has no other backend"):
        with_backend(detector, "openvino")


@pytest.mark.parametrize(("backend", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_backend_that_is_not_installed(
    backend: str, extra: str, plain: Darknet, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == backend else find(name))
    remedy = rf"pip install 'adaptiveisp\[{extra}\]'"
    with pytest.raises(AdaptiveISPError, match=f"{backend} is not installed; run: {remedy}"):
        with_backend(plain, backend)
    assert installed_backends()[backend] == f"not installed: pip install 'adaptiveisp[{extra}]'"
    assert installed_backends()["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_processor_without_bfloat16(plain: Darknet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_has_bfloat16", lambda: False)
    with pytest.raises(UsageError, match="no bfloat16 for PyTorch; use float32"):
        with_backend(plain, "torch", "bfloat16")


# ---------------------------------------------------------------- in use


@pytest.mark.parametrize(
    "command", ["run a.raw --out o", "stream a.raw", "demo", "eval --data d --policy none --out o"]
)
def test_each_command_takes_both_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = command.split()
    options = build_parser().parse_args([*words, "--backend", "openvino", "--precision", "bfloat16"])
    assert (options.backend, options.precision) == ("openvino", "bfloat16")
    assert build_parser().parse_args(words).backend == build_parser().parse_args(words).precision == "auto"
    with pytest.raises(SystemExit):
        build_parser().parse_args([*words, "--backend", "tensorrt"])
    assert "--backend" in capsys.readouterr().err
    if words[0] == "eval":
        config = _config(options, "cpu")
        assert (config.backend, config.precision) == ("openvino", "bfloat16")


def test_the_command_line_and_python(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    codes = np.random.default_rng(0).integers(300, 3000, (48, 64), dtype=np.uint16)
    write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), tmp_path / "a.dng")
    weights = files[1]
    weights.with_suffix(".names").write_text("\n".join(NAMES))
    common = ("run", str(tmp_path / "a.dng"), "--policy", "none", "--detector", str(weights), "--size", "64", "-q")
    for backend in ("torch", "openvino"):
        assert main([*common, "--out", str(tmp_path / backend), "--backend", backend]) == 0
    boxes = [json.loads((tmp_path / name / "a.boxes.json").read_text())["boxes"] for name in ("torch", "openvino")]
    assert len(boxes[0]) == len(boxes[1]) > 0
    summary = json.loads((tmp_path / "openvino" / "summary.json").read_text())
    kept = {weights.stem: {"backend": "openvino", "precision": "float32"}}
    assert summary["provenance"]["detector_backends"] == kept
    isp = AdaptiveISP("none", str(weights), 64, backend="openvino")
    assert [round(float(score), 4) for score in isp(tmp_path / "a.dng").detections.scores] == [
        round(box["score"], 4) for box in boxes[1]
    ]
    assert main([*common, "--out", str(tmp_path / "no"), "--backend", "onnxruntime", "--precision", "bfloat16"]) == 2
    assert "no bfloat16 on a CPU" in capsys.readouterr().err

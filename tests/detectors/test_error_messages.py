"""Broken, truncated, empty and wrong files for each loader: one line that names the file and the remedy."""

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save

from adaptiveisp.detectors.detector_file import save_detector
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.detectors.yolo.checkpoint import load_ultralytics
from adaptiveisp.errors import DetectorError, WeightsError
from tests.support.darknet_cfg import write_mixed
from tests.support.onnx_models import network
from tests.support.transformers_models import write_model
from tests.support.yolo_standins import save_checkpoint, stand_in_model, yolov3_tiny

Change = Callable[[Path], object]
"""Breaks a folder in which everything is right."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small detector of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    _, weights = write_mixed(folder)
    weights.with_suffix(".names").write_text("thing\nother\n")
    network(folder / "net.onnx")
    save_checkpoint(folder / "tiny.pt", stand_in_model(yolov3_tiny(1 / 16, 3)))
    save_detector(folder / "tiny.safetensors", load_ultralytics(folder / "tiny.pt"), {})
    write_model(folder / "yolos", "yolos")
    for path in (weights, folder / "net.onnx", folder / "tiny.pt", folder / "tiny.safetensors", folder / "yolos"):
        load_detector(path)
    return folder


def text(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def cut(name: str, bytes_less: int = 10) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-bytes_less])

    return change


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def folder_instead(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def replaced(name: str, old: str, new: str) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content
        (folder / name).write_text(content.replace(old, new, 1))

    return change


def config(**settings: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "yolos" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return change


def torch_script(folder: Path) -> None:
    with zipfile.ZipFile(folder / "tiny.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"tiny/{name}", pickle.dumps(()))


def fewer_names(folder: Path) -> None:
    model = stand_in_model(yolov3_tiny(1 / 16, 3))
    model.names = ["a"]
    save_checkpoint(folder / "tiny.pt", model)


def later_opset(folder: Path) -> None:
    model = onnx.load(folder / "net.onnx")
    model.opset_import[0].version = 999
    onnx.save(model, folder / "net.onnx")


def names_with_a_gap(folder: Path) -> None:
    network(folder / "net.onnx", names="{0: 'cup', 2: 'person'}")


NAN = struct.pack("<f", float("nan"))

BROKEN: dict[str, tuple[str, Change, str]] = {
    "weights: empty": ("mixed.weights", text("mixed.weights", b""), "has 0 bytes.*get the weights again"),
    "weights: cut": ("mixed.weights", cut("mixed.weights"), "bytes, but mixed.cfg needs .*get the weights again"),
    "weights: text": ("mixed.weights", text("mixed.weights", "hello"), "bytes, but mixed.cfg needs"),
    "weights: NaN": (
        "mixed.weights",
        lambda folder: (folder / "mixed.weights").write_bytes((folder / "mixed.weights").read_bytes()[:-4] + NAN),
        "not finite; get the weights again",
    ),
    "weights: a folder": ("mixed.weights", folder_instead("mixed.weights"), "is a folder; give the .weights file"),
    "weights: none": ("mixed.weights", without("mixed.weights"), "no such file; known names"),
    "cfg: none": ("mixed.weights", without("mixed.cfg"), "no mixed.cfg beside it; put the network's .cfg there"),
    "cfg: empty": ("mixed.weights", text("mixed.cfg", ""), "mixed.cfg: must begin with .net.; give a Darknet .cfg"),
    "cfg: cut": ("mixed.weights", cut("mixed.cfg", 700), r"mixed.cfg.*; "),
    "cfg: YAML": ("mixed.weights", text("mixed.cfg", "nc: 2\n"), "mixed.cfg:1: .* is neither .*; give a Darknet .cfg"),
    "cfg: bytes": ("mixed.weights", text("mixed.cfg", bytes(range(256))), "mixed.cfg: cannot be read .not text.; give"),
    "cfg: no detection": (
        "mixed.weights",
        text("mixed.cfg", "[net]\n[convolutional]\nfilters=8\n"),
        "has no .yolo. section, so it detects nothing; give the .cfg of a detector",
    ),
    "cfg: other layer": ("mixed.weights", replaced("mixed.cfg", "[upsample]", "[gru]"), "not supported .*; export the"),
    "cfg: activation": ("mixed.weights", replaced("mixed.cfg", "=relu", "=mish"), "mish is not supported .*; export"),
    "cfg: no number": (
        "mixed.weights",
        replaced("mixed.cfg", "filters=8", "filters=x"),
        "filters=x: .*; correct it, or",
    ),
    "cfg: no key": ("mixed.weights", replaced("mixed.cfg", "filters=8\n", ""), "needs filters=; correct it, or get"),
    "cfg: classes": (
        "mixed.weights",
        replaced("mixed.cfg", "classes=2", "classes=3"),
        "needs 2 anchors x .*; correct it",
    ),
    "names: none": ("mixed.weights", without("mixed.names"), "detects 2 classes, but 80 names .*; write them into"),
    "names: three": ("mixed.weights", text("mixed.names", "a\nb\nc\n"), "2 classes, but 3 names were given; write"),
    "names: bytes": (
        "mixed.weights",
        text("mixed.names", bytes(range(128, 256))),
        "mixed.names: cannot be read; it must",
    ),
    "pt: empty": ("tiny.pt", text("tiny.pt", b""), "is no zip as torch.save writes .*; get the file again"),
    "pt: cut": ("tiny.pt", cut("tiny.pt", 5000), "or is truncated; get the file again"),
    "pt: weights only": (
        "tiny.pt",
        lambda folder: torch.save({"a": torch.zeros(2)}, folder / "tiny.pt"),
        "no network as an object, only weights or other data; give a .pt that train.py",
    ),
    "pt: TorchScript": ("tiny.pt", torch_script, "is a TorchScript program, .*; give the .pt that training wrote"),
    "pt: names": ("tiny.pt", fewer_names, "has 1 class names, but detects 3 classes; give a .pt that train.py"),
    "pt: a folder": ("tiny.pt", folder_instead("tiny.pt"), "is a folder; give the .pt file itself"),
    "pt: none": ("tiny.pt", without("tiny.pt"), "no such file; known"),
    "safetensors: empty": (
        "tiny.safetensors",
        text("tiny.safetensors", b""),
        "header too small.; import the detector again",
    ),
    "safetensors: cut": (
        "tiny.safetensors",
        cut("tiny.safetensors"),
        "file not fully covered.; import the detector again",
    ),
    "safetensors: other": (
        "tiny.safetensors",
        text("tiny.safetensors", save({"a": torch.zeros(2)})),
        "is not a detector of this package; make one with `adaptiveisp import`",
    ),
    "safetensors: a folder": (
        "tiny.safetensors",
        folder_instead("tiny.safetensors"),
        "is a folder; give the .safetensors",
    ),
    "onnx: empty": (
        "net.onnx",
        text("net.onnx", b""),
        "holds no graph; it is no ONNX file, or damaged; export it again",
    ),
    "onnx: cut": ("net.onnx", cut("net.onnx"), "is no ONNX file, or damaged .*; export it again"),
    "onnx: text": ("net.onnx", text("net.onnx", "<!DOCTYPE html>"), "is no ONNX file, or damaged .*; export it again"),
    "onnx: a later opset": (
        "net.onnx",
        later_opset,
        r"onnxruntime cannot load it \(\[ONNXRuntimeError\] : 1 : FAIL : ONNX Runtime .*; export it again, or update",
    ),
    "onnx: a folder": ("net.onnx", folder_instead("net.onnx"), "is a folder; give the .onnx file itself"),
    "onnx: metadata": ("net.onnx", names_with_a_gap, "numbered from 0 without a gap; correct names: in net.yaml"),
    "sidecar: YAML": ("net.onnx", text("net.yaml", "names: [a"), "net.yaml: cannot be read as YAML .*; correct it"),
    "sidecar: names": (
        "net.onnx",
        text("net.yaml", "names: [a, b, c]"),
        "with 3 classes; write net.yaml beside it with",
    ),
    "sidecar: mean": (
        "net.onnx",
        text("net.yaml", "mean: [1]"),
        "net.yaml: mean and std must have .*; correct it, see",
    ),
    "sidecar: names' file": (
        "net.onnx",
        text("net.yaml", "names: gone.txt"),
        "gone.txt: cannot be read; it must be a text",
    ),
    "folder: no config": ("yolos", without("yolos/config.json"), "is not a detector; known"),
    "folder: empty config": ("yolos", text("yolos/config.json", ""), "config.json: is not valid JSON .*; get the file"),
    "folder: kind": ("yolos", config(model_type="bert"), "model_type 'bert'; give a detector of the type yolos"),
    "folder: classes": ("yolos", config(num_labels=7), "do not fit config.json: 2 missing or .*; give the folder of a"),
    "folder: no weights": ("yolos", without("yolos/model.safetensors"), "has no model.safetensors; give a folder with"),
    "folder: cut weights": ("yolos", cut("yolos/model.safetensors"), "file not fully covered; get it again"),
    "folder: no processor": (
        "yolos",
        without("yolos/preprocessor_config.json"),
        "preprocessor_config.json: no such file; save model and image processor there",
    ),
}
"""What is broken → the detector that is loaded, how it is broken, and the message."""


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_told_in_one_line_with_a_remedy(fault: str, whole: Path, tmp_path: Path) -> None:
    name, change, message = BROKEN[fault]
    folder = tmp_path / "broken"
    shutil.copytree(whole, folder)
    change(folder)
    with pytest.raises((DetectorError, WeightsError), match=message) as caught:
        load_detector(folder / name)
    told = str(caught.value)
    assert "\n" not in told and told.startswith(str(folder)) and "; " in told

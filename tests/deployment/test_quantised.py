"""Graphs with networks of whole numbers: which layers are quantised, how near they are, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from adaptiveisp import RawImage, export
from adaptiveisp.deployment.calibration import calibration_raws
from adaptiveisp.deployment.frames import frame_of
from adaptiveisp.deployment.ops import Ops
from adaptiveisp.deployment.quantisation import METHODS, quantised
from adaptiveisp.deployment.self_test import run_graph
from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.runtime import Session
from tests.deployment.test_export import mosaic, stepwise
from tests.support import onnx_models

RANDOM = np.random.default_rng(0)
WEIGHTS = [RANDOM.normal(0, 0.2, shape).astype(np.float32) for shape in ((8, 3, 3, 3), (8, 8, 3, 3), (4, 8, 1, 1))]


def three_layers() -> Any:
    """Three convolutions of a detector with activations between them, and one outside it."""
    ops = Ops()
    image = ops.input("image", np.float32, [1, 3, 16, 16])
    with ops.scope("develop"):
        hidden = ops("Conv", image, np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1))
    with ops.scope("detector"):
        for place, weight in enumerate(WEIGHTS):
            hidden = ops("Conv", hidden, weight)
            hidden = ops("LeakyRelu", hidden, alpha=0.1) if place < 2 else hidden
    ops.output("found", hidden, [1, 4, 12, 12])
    return ops.model("test")


def pictures(count: int = 4) -> list[dict[str, np.ndarray[Any, Any]]]:
    return [{"image": RANDOM.random((1, 3, 16, 16), np.float32)} for _ in range(count)]


@pytest.mark.parametrize("method", METHODS)
def test_layers_compute_in_whole_numbers(method: str) -> None:
    model, given = three_layers(), pictures()
    found = quantised(model, method, ["detector"], given)
    operators = [node.op_type for node in found.model.graph.node]
    onnx.checker.check_model(found.model)
    assert {entry.domain for entry in found.model.opset_import} == {""}  # no operators of onnxruntime alone
    assert {node.domain for node in found.model.graph.node} == {""}
    outputs = [run_graph(one.SerializeToString(), given[0])["found"] for one in (model, found.model)]
    span = float(np.ptp(outputs[0]))
    assert 1e-5 * span < float(abs(outputs[1] - outputs[0]).max()) < 0.04 * span
    if method == "int8-dynamic":
        assert operators.count("ConvInteger") == 3 and len(found.layers) == 3 and not found.kept
        return
    assert len(found.layers) == 2 and len(found.kept) == 1  # the last layer gives boxes and scores
    stored = [onnx.numpy_helper.to_array(one) for one in found.model.graph.initializer]
    for weight in WEIGHTS[:2]:  # int8 with a scale for each output channel: the nearest whole numbers
        (whole,) = (one for one in stored if one.dtype == np.int8 and one.shape == weight.shape)
        scales = (abs(weight).max(axis=(1, 2, 3)) / 127).reshape(-1, 1, 1, 1)
        assert float(abs(whole * scales - weight).max() / scales.max()) <= 0.6
    assert any(one.shape == (4, 8, 1, 1) and one.dtype == np.float32 for one in stored)
    activations = [node for node in found.model.graph.node if node.op_type == "LeakyRelu"]
    assert all("DequantizeLinear" in node.input[0] for node in activations)  # nothing is converted between layers


def raws(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        write_dng(mosaic(90 + 2 * number, 121), folder / f"{number}.dng")
    return folder


@pytest.mark.long
def test_an_export_says_what_was_quantised_and_by_which_raws(tmp_path: Path) -> None:
    detector = str(onnx_models.network(tmp_path / "small.onnx"))
    files = raws(tmp_path / "raws")
    made = export("coco-fast", tmp_path / "out", detector, precision="int8-static", calibrate=[files], confidence=0.3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    entry = manifest["quantisation"]
    assert manifest["precision"] == "int8-static" and entry["method"] == "int8-static"
    assert [one["file"] for one in entry["calibration"]] == ["0.dng", "1.dng"]
    full = entry["graphs"]["full"]
    assert full["layers"] and all(name.startswith("policy/") for name in full["layers"])
    assert [name for name in full["float32"] if name.startswith("detector/")]  # its only layer is its last
    assert "isp" not in entry["graphs"]  # modules are not networks
    assert "QuantizeLinear" in manifest["graphs"]["full"]["operators"] and made.difference < 2e-2
    assert "2 raws" in (tmp_path / "out" / "README.md").read_text()
    assert Session(tmp_path / "out").self_test().ok


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_layers_in_a_loop_stay(method: str, tmp_path: Path) -> None:
    detector = str(onnx_models.network(tmp_path / "small.onnx"))
    how: dict[str, Any] = {"calibrate": [raws(tmp_path / "raws")]} if method == "int8-static" else {}
    if method == "int8-static":  # neither a layer of the policy, in its loop, nor the detector's last one
        with pytest.raises(Exception, match="has no layers that can be quantised"):
            export(stepwise(), tmp_path / "out", detector, precision=method, confidence=0.3, **how)
        return
    export(stepwise(), tmp_path / "out", detector, precision=method, confidence=0.3, **how)
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["quantisation"]["graphs"]
    assert any(name.startswith("policy/") for name in entry["full"]["float32"])
    assert all(name.startswith("detector/") for name in entry["full"]["layers"]) and "policy" not in entry


def test_arguments_that_make_no_sense(tmp_path: Path) -> None:
    def refused(match: str, **how: Any) -> None:
        with pytest.raises(UsageError, match=match):
            export("none", tmp_path / "out", **how)

    refused("int8-static needs raws", precision="int8-static")
    refused("calibrate is for precision int8-static", precision="int8-dynamic", calibrate=[tmp_path])
    refused("quantise is for precision int8-dynamic and int8-static", quantise=["detector"])
    refused("quantise camera: give policy or detector", precision="int8-dynamic", quantise=["camera"])
    refused("are lists", precision="int8-static", calibrate="raws")


def test_raws_that_are_no_frames_of_the_graph(tmp_path: Path) -> None:
    file = tmp_path / "one.dng"
    write_dng(mosaic(90, 121, "GBRG"), file)
    known: dict[str, Any] = {"bits": 12, "pattern": "GBRG", "black": (60.0, 64.0, 68.0, 72.0), "white": 4000}
    (fits,) = calibration_raws([file], None, frame_of("mosaic", BayerHeader(121, 90, **known)))
    assert fits.facts["file"] == "one.dng" and isinstance(fits.raw, RawImage)
    others = {
        "121x90 pixels, the graph takes 128x96": frame_of("mosaic", BayerHeader(128, 96, **known)),
        "pattern GBRG, the graph RGGB": frame_of("mosaic", BayerHeader(121, 90, **{**known, "pattern": "RGGB"})),
        "levels": frame_of("mosaic", BayerHeader(121, 90, **{**known, "black": 64})),
        "orientation 1, the graph 6": frame_of("mosaic", None, 6),
        "no RGB frame": frame_of("rgb", None),
        "whole numbers of 8 bits": frame_of("mosaic", BayerHeader(121, 90, bits=8, pattern="GBRG")),
    }
    for words, frame in others.items():
        with pytest.raises(UsageError, match=rf"one\.dng.*{words}"):
            calibration_raws([file], None, frame)
    with pytest.raises(RawFileError):
        calibration_raws([tmp_path / "missing.dng"], None, frame_of("mosaic", None))

"""Exports of policies of every kind: written whole, with a self-test that onnxruntime replays, or not at all."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adaptiveisp import AdaptiveISP, BayerHeader, Pipeline, RawImage, Stage, export
from adaptiveisp.cli.parser import main
from adaptiveisp.deployment import self_test
from adaptiveisp.deployment.frames import frame_of
from adaptiveisp.deployment.manifest import frame_entry
from adaptiveisp.deployment.self_test import feeds_of, overlap, run_graph, scene
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError
from adaptiveisp.isp.registry import modules_of
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, POS_ISP_KIND, SEQUENCE, PolicyHeader
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.pos_isp.checkpoint import ORDER
from adaptiveisp.policies.pos_isp.networks import PosIspNetwork
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy
from adaptiveisp.policies.registry import SHIPPED
from adaptiveisp.policies.sequence.networks import SequenceNetwork
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.policies.stepwise.networks import Actor
from adaptiveisp.policies.stepwise.policy import StepwisePolicy
from tests.support import onnx_models
from tests.support.fake_detector import RedDetector

CHEAP = ("exposure", "gamma", "ccm", "tone", "white_balance", "guided_denoise", "local_tone", "stop")


def scrambled(network: torch.nn.Module, seed: int, size: float = 0.3) -> Any:
    """The network with random weights, so that different images get different pipelines."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * size / max(weight[0].numel(), 1) ** 0.5)
    return network.eval()


def sequence(condition: Any = "image", start: Any = "auto-exposure", names: tuple[str, ...] = CHEAP) -> Policy:
    known = {module.name: module for module in (*modules_of("extended"), STOP)}
    header = PolicyHeader(SEQUENCE, "extended", names, 4, "log", start, True, condition)
    return SequencePolicy(header, scrambled(SequenceNetwork([known[n] for n in names], condition, 4), 1, 2.0))


def stepwise(view: Any = "log", start: Any = "auto-gain", names: tuple[str, ...] = CHEAP, once: bool = True) -> Policy:
    known = {module.name: module for module in (*modules_of("extended"), STOP)}
    header = PolicyHeader(ACTOR_CRITIC, "extended", names, 3, view, start, once)
    return StepwisePolicy(header, scrambled(Actor([known[name] for name in names], view=view), 2, 1.0))


def pos_isp(start: Any = "auto-exposure") -> Policy:
    header = PolicyHeader(POS_ISP_KIND, "pos-isp", ORDER, len(ORDER), start=start, once=True, condition="none")
    return PosIspPolicy(header, scrambled(PosIspNetwork(), 3, 1.0))


def fixed() -> Policy:
    stages = (Stage("gamma", {"gamma": 0.7}), Stage("sharpen", {"factor": 2.0}), Stage("gamma", {"gamma": 1.2}))
    return FixedPipeline(Pipeline(stages), "mine", "auto-gain")


@pytest.fixture
def detector(tmp_path: Path) -> str:
    """A network of random weights that takes 64x64 pixels; its boxes depend on the image."""
    return str(onnx_models.network(tmp_path / "small.onnx"))


def mosaic(height: int = 90, width: int = 121, pattern: str = "GBRG") -> RawImage:
    """A dark raw of a drawn scene with four different black levels."""
    picture = np.clip(scene(height, width) * 0.1 + np.random.default_rng(1).normal(0, 0.003, (height, width, 3)), 0, 1)
    black = (60.0, 64.0, 68.0, 72.0)
    data = np.empty((height, width))
    for place, colour in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        data[rows, columns] = picture[rows, columns, "RGB".index(colour)] * (4000 - black[place]) + black[place]
    return RawImage(data.round().astype(np.uint16), pattern, black, 4000)


def assert_equal(folder: Path, isp: AdaptiveISP, raws: list[RawImage]) -> None:
    """`full.onnx` gives for each raw what the package gives."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["graphs"]["full"]
    session = onnxruntime.InferenceSession(str(folder / entry["file"]), providers=["CPUExecutionProvider"])
    names = [one["name"] for one in entry["outputs"]]
    for raw in raws:
        feeds = feeds_of(raw, [one["name"] for one in entry["inputs"]])
        found = dict(zip(names, session.run(names, feeds), strict=True))
        result = isp(raw)
        np.testing.assert_allclose(found["image"][0], result.image.numpy(), atol=1e-3)
        ran = [manifest["pipeline"]["modules"][number]["name"] for number in found["modules"] if number >= 0]
        assert ran == [stage.module for stage in result.pipeline.stages]
        assert found["labels"].tolist() == result.detections.labels.tolist()
        np.testing.assert_allclose(found["scores"], result.detections.scores.numpy(), atol=1e-3)
        assert (overlap(found["boxes"], result.detections.boxes.numpy()) >= 0.99).all()


KINDS: dict[str, Callable[[], Policy | str]] = {
    "coco-adaptive": lambda: "coco-adaptive",
    "coco-fast": lambda: "coco-fast",
    "sequence": sequence,
    "sequence of one order": lambda: sequence("none", "auto-gain"),
    "sequence without a start": lambda: sequence("image", "raw"),
    "step-wise": stepwise,
    "step-wise without a start": lambda: stepwise("linear", "raw", CHEAP[:-1], False),
    "pos-isp": pos_isp,
    "pos-isp without a start": lambda: pos_isp("raw"),
    "fixed": fixed,
    "none": lambda: "none",
    "auto-exposure": lambda: "auto-exposure",
    "reinhard": lambda: "reinhard",
}
QUICK = ("coco-adaptive", "step-wise")


@pytest.mark.parametrize(
    "kind", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in KINDS]
)
def test_every_kind_of_policy(kind: str, tmp_path: Path, detector: str) -> None:
    policy = KINDS[kind]()
    made = export(policy, tmp_path / "out", detector, confidence=0.3)
    assert made.difference < 1e-4
    isp = AdaptiveISP(policy, detector, confidence=0.3)  # it works at 64 pixels
    assert_equal(tmp_path / "out", isp, [mosaic(), mosaic(301, 400, "BGGR")])  # demosaiced, and developed when small


def test_manifest_names_files_that_replay(tmp_path: Path, detector: str) -> None:
    """What a program without PyTorch does: it reads the manifest, and runs each graph on the stored inputs."""
    header = BayerHeader(128, 96, format="SRGGB12P", black=64)
    export("auto-exposure", tmp_path / "out", detector, header=header, confidence=0.3)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for name, entry in manifest["graphs"].items():
        content = (tmp_path / "out" / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model, full_check=True)
        assert all(node.domain == "" for node in model.graph.node)
        test = manifest["self_test"][name]
        given, wanted = (
            {
                one["name"]: np.fromfile(tmp_path / "out" / one["file"], one["dtype"]).reshape(one["shape"])
                for one in test[side]
            }
            for side in ("inputs", "outputs")
        )
        assert {one["name"] for one in entry["inputs"]} == set(given)
        found = run_graph(content, given)
        for output in set(wanted) & {"image", "modules", "params", "scores"}:
            np.testing.assert_allclose(found[output], wanted[output], atol=1e-3)
    assert [one["name"] for one in manifest["graphs"]["full"]["inputs"]] == ["frame"]  # the rest is constant
    assert manifest["frame"]["format"]["layout"] == "csi2" and manifest["frame"]["format"]["row_bytes"] == 192
    assert manifest["frame"]["white_level"] == 4095 and manifest["frame"]["black_level"] == [64.0] * 4
    assert manifest["detector"]["class_names"] == ["cup", "person"]
    assert [one["name"] for one in manifest["pipeline"]["modules"]] == ["white_balance", "exposure", "srgb"]
    assert "auto-exposure with small" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.long
@pytest.mark.parametrize(("kind", "orientation"), [("mosaic", 6), ("rgb", 3), ("rgb", 5)])
def test_frames_are_turned_upright(kind: Any, orientation: int, tmp_path: Path, detector: str) -> None:
    header = BayerHeader(121, 90, bits=12, black=64, pattern="RGGB" if kind == "mosaic" else None)
    export("auto-exposure", tmp_path / "out", detector, input=kind, header=header, orientation=orientation)


@pytest.mark.long
def test_half_precision(tmp_path: Path, detector: str) -> None:
    made = export(sequence(), tmp_path / "out", detector, precision="float16", confidence=0.3)
    assert 1e-6 < made.difference < 2e-2 and made.manifest["precision"] == "float16"


def test_nothing_is_written_if_the_graphs_differ(
    tmp_path: Path, detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = {**self_test.TOLERANCES["float32"], "image": 0.0}
    monkeypatch.setitem(self_test.TOLERANCES, "float32", limit)
    with pytest.raises(AdaptiveISPError, match=r"full\.onnx of policy auto-exposure differs.*the image differs"):
        export("auto-exposure", tmp_path / "out", detector)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_earlier_exports_are_replaced_only_if_wanted(tmp_path: Path, detector: str) -> None:
    export("none", tmp_path / "out", detector, input="rgb")
    with pytest.raises(UsageError, match="exists already"):
        export("none", tmp_path / "out", detector)
    (tmp_path / "out" / "mine.txt").write_text("stays")
    export("none", tmp_path / "out", detector, overwrite=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"full.onnx", "policy.onnx", "isp.onnx", "manifest.json", "README.md", "mine.txt"} < names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "camera"}, "policy camera: its kind, CameraDevelopment, cannot be exported"),
        ({"policy": "clahe"}, "policy clahe: its module clahe runs in OpenCV"),
        ({"detector": RedDetector()}, "detector red: cannot be exported"),
        ({"precision": "int8"}, "precision 'int8' does not exist"),
        ({"input": "jpeg"}, "input 'jpeg' does not exist"),
        ({"orientation": 9}, "orientation 9 does not exist"),
        ({"header": BayerHeader(bits=10)}, "raw pattern None cannot be exported"),
        ({"header": BayerHeader(pattern="RGGB")}, "raw-pattern needs raw-bits or raw-format"),
        ({"header": BayerHeader(format="Y10P")}, "raw pattern MONO cannot be exported"),
        ({"header": BayerHeader(format="SRGGB12P", curve="sqrt")}, "raw-curve cannot be exported"),
        ({"header": BayerHeader(8, 8)}, "frame of 8x8 is too small"),
        ({"header": BayerHeader(50000, 50000)}, "frame of 50000x50000 is too large; give 134,217,728 pixels or fewer"),
        ({"header": BayerHeader(stride=1024)}, "raw-stride needs raw-bits or raw-format"),
        ({"header": BayerHeader(offset=16)}, "raw-offset needs raw-bits or raw-format"),
        ({"header": BayerHeader(bits=12, stride=1024), "input": "rgb"}, "raw-stride describes the bytes of a mosaic"),
        ({"header": BayerHeader(64, 48, format="SRGGB12P", stride=10)}, "take 96 bytes, more than raw-stride 10"),
        ({"header": BayerHeader(format="SRGGB12P"), "input": "rgb"}, "raw-format SRGGB12P is that of a mosaic"),
    ],
)
def test_refusals_are_one_line_with_a_remedy(
    options: dict[str, Any], message: str, tmp_path: Path, detector: str
) -> None:
    given = {"policy": "none", "detector": detector, **options}
    with pytest.raises((UsageError, DetectorError, AdaptiveISPError), match=message):
        export(given.pop("policy"), tmp_path / "out", given.pop("detector"), **given)
    assert not (tmp_path / "out").exists()


def test_command_writes_an_export(tmp_path: Path, detector: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "none", "--out", str(tmp_path / "out"), "--detector", detector, "--threads", "1"]
    assert main([*command, "--size", "128x96", "--raw-format", "SRGGB12P"]) == 0
    said = capsys.readouterr().out
    assert "full.onnx" in said and "self-test: agrees" in said
    assert main([*command, "--size", "large", "--overwrite"]) == 2
    assert "--size 'large' is not WxH" in capsys.readouterr().err


def test_the_command_records_the_seed_and_the_card_no_folders(
    tmp_path: Path, detector: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export", "none", f"--out={tmp_path}/out", "--detector", detector, "--input", "rgb", "--size", "64x48"]
    command = [*given, "--threads", "1", "--seed", "7", "--device", "cuda"]
    monkeypatch.setattr(sys, "argv", ["adaptiveisp", *command])
    assert main(command) == 0
    assert "--device cuda has no effect" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["provenance"]["seed"] == 7
    card = (tmp_path / "out" / "README.md").read_text()
    assert str(tmp_path) not in card and "export none --out=out --detector small.onnx" in card


def test_help_lists_the_shipped_policies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    said = re.sub(r"\s", "", capsys.readouterr().out)
    assert all(f"{name}," in said for name in SHIPPED)


def test_the_manifest_tells_the_bytes_of_a_frame() -> None:
    """The stride is stated also where the width is free; the bits are those of the values, not of the format's name."""
    free = frame_entry(frame_of("mosaic", BayerHeader(format="SRGGB12P", stride=1024, offset=16)))
    assert free["format"]["row_bytes"] == 1024 and free["format"]["offset"] == 16
    fewer = frame_entry(frame_of("mosaic", BayerHeader(128, 96, bits=12, format="SRGGB16")))
    assert fewer["bits"] == fewer["format"]["bits"] == 12 and fewer["format"]["container_bits"] == 16


@pytest.mark.long
@pytest.mark.parametrize("policy", ["coco-adaptive", "coco-fast"])
@pytest.mark.parametrize("kind", ["mosaic", "rgb"])
def test_shipped_policies(policy: str, kind: Any, tmp_path: Path, tiny_weights: Path) -> None:
    made = export(policy, tmp_path / "out", input=kind)
    assert made.difference < 1e-4
    names = np.fromfile(tmp_path / "out" / "self_test" / "full_output_labels.bin", np.int64)
    assert made.manifest["detector"]["class_names"][names[0]] == "stop sign"


@pytest.mark.long
def test_without_if_a_policy_that_chooses_is_written_in_parts(tmp_path: Path, detector: str) -> None:
    """A program runs the parts one after the other, and finds what the package finds."""
    policy, header = sequence(), BayerHeader(121, 90, bits=12, pattern="GBRG", black=(60, 64, 68, 72), white=4000)
    folder = tmp_path / "out"
    made = export(policy, folder, detector, header=header, confidence=0.3, without_if=True)
    graphs = made.manifest["graphs"]
    assert not {"If", "Loop"} & {operator for entry in graphs.values() for operator in entry["operators"]}
    assert "full" not in graphs and graphs["module_local_tone"]["operators"]["Resize"] == ["local_tone"]
    raw, result = mosaic(), AdaptiveISP(policy, detector, confidence=0.3)(mosaic())
    contents = {name: (folder / entry["file"]).read_bytes() for name, entry in graphs.items()}
    image = run_graph(contents["develop"], {"frame": raw.data})["developed"]
    plan = run_graph(contents["policy"], {"developed": image})
    for number, row in zip(plan["modules"], plan["params"], strict=True):
        if number >= 0:
            module = made.manifest["pipeline"]["modules"][number]
            given = {"image": image, "module_params": row[: len(module["params"])]}
            used = {one["name"] for one in graphs[f"module_{module['name']}"]["inputs"]}
            image = run_graph(contents[f"module_{module['name']}"], {k: given[k] for k in used})["image_after"]
    np.testing.assert_allclose(image[0], result.image.numpy(), atol=1e-3)
    found = run_graph(contents["detector"], {"image": image, "full_size": np.asarray([90, 121])})
    np.testing.assert_allclose(found["scores"], result.detections.scores.numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("policy", "message"), [(stepwise, "needs Loop and If"), (sequence, r"needs If; give --size WxH")]
)
def test_without_if_is_refused_where_it_cannot_be(
    policy: Callable[[], Policy], message: str, tmp_path: Path, detector: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(policy(), tmp_path / "out", detector, without_if=True)

"""Manifests that are damaged, of wrong types, or of an export in parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptiveisp_runtime import RuntimeFault, Session
from adaptiveisp_runtime.command_line import main
from adaptiveisp_runtime.self_test import compare

from tests.runtime.test_session import FACTS, frame
from tests.support.small_export import model, write_export


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


def changed(folder: Path, place: str, value: Any = None, remove: bool = False) -> Path:
    """The export with another value at a place of the manifest such as `frame.bits`."""
    content = json.loads((folder / "manifest.json").read_text())
    *parts, last = (int(key) if key.isdigit() else key for key in place.split("."))
    entry = content
    for part in parts:
        entry = entry[part]
    if remove:
        del entry[last]
    else:
        entry[last] = value
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("place", "message"),
    [
        *((f"frame.{key}", f"frame.{key} is missing") for key in ("format", "bits", "kind", "orientation", "patterns")),
        ("self_test.full.tolerances", "self_test.full.tolerances is missing"),
        ("self_test.full.tolerances.iou", "self_test.full.tolerances.iou is missing"),
        ("self_test.full.inputs.0.file", r"self_test.full.inputs\[0\].file is missing"),
        ("graphs.full.inputs.0.name", r"graphs.full.inputs\[0\].name is missing"),
        ("graphs.full", "graphs is empty"),
        ("pipeline.modules.0.params.0.low", r"pipeline.modules\[0\].params\[0\].low is missing"),
        ("detector.class_names", "detector.class_names is missing"),
        ("geometry.size", "geometry.size is missing"),
        ("policy.name", "policy.name is missing"),
    ],
)
def test_a_manifest_that_lacks_a_nested_key_is_refused(folder: Path, place: str, message: str) -> None:
    with pytest.raises(RuntimeFault, match=f"manifest.json: {message}; export the folder again"):
        Session(changed(folder, place, remove=True))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("frame.bits", "12", r"frame.bits is not valid \(12\)"),
        ("frame.format", [1], r"frame.format is not valid"),
        ("frame.format.bits", "12", "frame format SRGGB12P: bits = '12' is not a whole number"),
        ("frame.format.row_bytes", -(10**10), "row_bytes = -10000000000 is not a whole number of at least 1"),
        ("frame.dtype", "object", r"frame.dtype is not valid \(object\)"),
        ("frame.height", 0, "frame.height is not valid"),
        ("frame.orientation", "up", "frame.orientation is not valid"),
        ("pipeline.modules", {}, "pipeline.modules is not valid"),
        ("pipeline.modules", [1], r"pipeline.modules\[0\] is not a table of keys"),
        ("self_test.full", [], "self_test.full is not a table of keys"),
        ("self_test.full.tolerances.iou", "high", "self_test.full.tolerances.iou is not valid"),
        ("self_test.full.inputs.0.dtype", "x", "dtype is not valid"),
        ("self_test.full.outputs.4.name", "other", "self_test.full.outputs has modules without params"),
        ("self_test.full.outputs.1.name", "other", "self_test.full.outputs has boxes without scores and labels"),
        ("detector.class_names", "car", "detector.class_names is not valid"),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(folder: Path, place: str, value: Any, message: str) -> None:
    with pytest.raises(RuntimeFault, match=message) as caught:
        Session(changed(folder, place, value))
    assert "\n" not in str(caught.value)


def test_a_manifest_with_fewer_modules_or_classes_than_the_graph_is_refused(folder: Path) -> None:
    module = json.loads((folder / "manifest.json").read_text())["pipeline"]["modules"][0]
    session = Session(changed(folder, "pipeline.modules", [module]), threads=1)
    with pytest.raises(RuntimeFault, match=r"pipeline.modules has no module 1, which ran"):
        session(frame(), **FACTS)
    with pytest.raises(RuntimeFault, match=r"pipeline.modules has no module 1; export"):
        session.self_test()
    session = Session(changed(folder, "detector.class_names", ["person"]), threads=1)
    with pytest.raises(RuntimeFault, match="the manifest has 1 classes, the graph more"):
        session(frame(), **FACTS)


def test_parts_have_a_self_test_and_no_calls(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    for part in ("graphs", "self_test"):
        content[part] = {"develop": content[part]["full"]}
    outputs = content["self_test"]["develop"]["outputs"]
    content["self_test"]["develop"]["outputs"] = [one for one in outputs if one["name"] == "image"]
    (folder / "manifest.json").write_text(json.dumps(content))
    session = Session(folder, threads=1)
    assert str(session.self_test()).startswith("develop: agrees") and session.providers
    with pytest.raises(RuntimeFault, match=r"has only the parts develop, which need a program of one's own"):
        session(frame(), **FACTS)
    assert main(["self-test", str(folder)]) == 0
    for words in (["run", str(folder), "a.raw"], ["bench", str(folder)]):
        assert main(words) == 1
        assert "has only the parts develop" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["developed", "image_after"])
def test_the_images_of_parts_are_compared(name: str) -> None:
    image = np.zeros((1, 3, 2, 2), np.float32)
    (said,) = compare({name: image}, {name: image + 0.5}, {"image": 1e-3}, {})
    assert said == f"{name} differs by 0.5, more than 0.001"


def test_a_manifest_nested_too_deeply_is_refused(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(RuntimeFault, match="is not JSON"):
        Session(folder)


def test_a_graph_without_an_output_is_refused(tmp_path: Path) -> None:
    made = model()
    del made.graph.output[-1]
    with pytest.raises(RuntimeFault, match=r"full.onnx: has no output image; export the folder again"):
        Session(write_export(tmp_path / "export", made=made), threads=1)(frame(), **FACTS)

"""Unpacking, against values by hand and against the package's own reader; and the operators of a graph."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from adaptiveisp_runtime import FrameFormat, RuntimeFault, check_graphs, read_frames, unpack
from adaptiveisp_runtime.onnx_reader import read_model
from onnx import TensorProto, helper

from adaptiveisp.deployment.development import Frame
from adaptiveisp.deployment.manifest import frame_entry
from adaptiveisp.raw.pixel_formats import pixel_format
from adaptiveisp.raw.unpacking import unpack as read_by_the_package
from tests.support.small_export import model, write_export

NAMES = ("SRGGB10P", "SRGGB12P", "SRGGB14P", "BayerRG12p", "BayerRG10p", "BayerRG12Packed", "BayerRG10Packed")
WHOLE = ("SRGGB8", "SRGGB12", "SRGGB16", "BayerRG16", "u12le16", "u12be16")


def form_of(name: str, width: int = 20, stride: int | None = None) -> FrameFormat:
    """The format as a manifest states it."""
    frame = Frame("mosaic", pixel_format(name).bits, 6, width, "RGGB", packing=pixel_format(name), stride=stride)
    return FrameFormat.of(frame_entry(frame)["format"])


@pytest.mark.parametrize("name", [*NAMES, *WHOLE])
@pytest.mark.parametrize("gap", [0, 7])
def test_every_format_gives_what_the_package_reads(name: str, gap: int) -> None:
    try:
        known = pixel_format(name)
    except Exception:
        pytest.skip("the package has no such format")
    step = known.row_bytes(20) + gap
    content = np.random.default_rng(0).integers(0, 256, 6 * step).astype(np.uint8)
    expected = read_by_the_package(content, known, 20, 6, step)
    found = unpack(content.tobytes(), form_of(name, stride=step if gap else None), 6, 20)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == (np.uint8 if known.bits <= 8 else np.uint16)


def test_values_by_hand() -> None:
    """Bytes and values from the formats' descriptions, worked out on paper."""
    csi2 = FrameFormat("raw10", "csi2", 10, group_values=4, group_bytes=5)
    assert unpack(bytes([1, 2, 3, 255, 0b11100100]), csi2, 1, 4).tolist() == [[4, 9, 14, 1023]]
    stream = FrameFormat("12p", "lsb", 12, group_values=2, group_bytes=3)
    assert unpack(bytes([0x34, 0x12, 0xAB]), stream, 1, 2).tolist() == [[0x234, 0xAB1]]
    gige = FrameFormat("12Packed", "gige", 12, group_values=2, group_bytes=3)
    assert unpack(bytes([0xAB, 0x1C, 0xDE]), gige, 1, 2).tolist() == [[0xABC, 0xDE1]]
    high = FrameFormat("12 in 16, high", "whole", 12, 16, high_bits=True, group_bytes=2)
    assert unpack(bytes([0x30, 0x12]), high, 1, 1).tolist() == [[0x123]]
    big = FrameFormat("16 big", "whole", 16, 16, big_endian=True, group_bytes=2)
    assert unpack(bytes([0x12, 0x34]), big, 1, 1).tolist() == [[0x1234]]
    three = FrameFormat("24", "whole", 20, 24, group_bytes=3)
    assert unpack(bytes([1, 2, 3]), three, 1, 1).tolist() == [[0x030201]]


def test_frames_of_a_stream() -> None:
    form = FrameFormat("u8", "whole", 8, 8, group_bytes=1, row_bytes=5, offset=2)
    content = b"".join(bytes([9, 9]) + bytes([n, n + 1, n + 2, 0, 0] * 2) for n in (10, 20))
    found = list(read_frames(io.BytesIO(content[:-2]), form, 2, 3))  # the last row needs no gap
    assert [one[0].tolist() for one in found] == [[10, 11, 12], [20, 21, 22]]
    with pytest.raises(RuntimeFault, match="has 3 bytes, 3x2 in u8 needs 10"):
        list(read_frames(io.BytesIO(b"123"), form, 2, 3))
    with pytest.raises(RuntimeFault, match="cannot be read"):
        list(read_frames("nowhere.raw", form, 2, 3))


def test_a_format_that_is_unknown_is_refused() -> None:
    with pytest.raises(RuntimeFault, match="layout 'braided' is unknown; update this package"):
        FrameFormat.of({"name": "x", "layout": "braided", "bits": 8, "something_new": 1})
    with pytest.raises(RuntimeFault, match=r"frame.format is not valid"):
        FrameFormat.of({"name": "x"})


WHOLE_16 = {"layout": "whole", "bits": 12, "container_bits": 16, "group_values": 1, "group_bytes": 2}


@pytest.mark.parametrize(
    "changes",
    [
        *({"bits": bits} for bits in (7, 17, 33, "12", 12.0, True)),
        *({"row_bytes": row} for row in (-(10**10), 0, "40")),
        *({"container_bits": bits} for bits in (0, 12, 24, 64)),
        {"group_bytes": 0},
        {"group_bytes": 4},
        {"group_values": 0},
        {"offset": -1},
        {"high_bits": 1},
        {"layout": "csi2", "group_values": 4, "group_bytes": 5},
        {"layout": "csi2", "bits": 8},
        {"layout": "gige", "group_values": 1, "group_bytes": 1},
        {"layout": ["whole"]},
    ],
)
def test_a_format_that_would_read_foreign_memory_is_refused(changes: dict[str, Any]) -> None:
    assert FrameFormat.of({"name": "x", **WHOLE_16}).bits == 12
    with pytest.raises(RuntimeFault, match=r"frame format x: ") as caught:
        FrameFormat.of({"name": "x", **WHOLE_16, **changes})
    assert "\n" not in str(caught.value)


def test_rows_that_overlap_and_lengths_that_do_not_fit_are_refused() -> None:
    short = FrameFormat.of({"name": "x", **WHOLE_16, "row_bytes": 7})
    with pytest.raises(RuntimeFault, match="row_bytes = 7, but 4 pixels take 8 bytes; export the folder again"):
        unpack(bytes(100), short, 3, 4)
    with pytest.raises(RuntimeFault, match="row_bytes = 7"):
        list(read_frames(io.BytesIO(bytes(100)), short, 3, 4))
    gap = FrameFormat.of({"name": "x", **WHOLE_16, "row_bytes": 10, "offset": 1})
    for length in (29, 31, 38):  # without the last gap, with it, and with padding of less than one row
        assert unpack(bytes(length), gap, 3, 4).shape == (3, 4)
    for length in (28, 39, 61):
        with pytest.raises(RuntimeFault, match=f"has {length} bytes, 4x3 in x needs 29; check size and format"):
            unpack(bytes(length), gap, 3, 4)


def with_faults() -> Any:
    """A graph whose inner graph has operators that runtimes lack."""
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [
            helper.make_node("Det", ["square"], ["det"]),
            helper.make_node("ReduceMax", ["det", "axes"], ["inner"], name="largest"),
        ],
        "inner",
        [],
        [value("inner", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["outer"], value_float=1.0)], "o", [], [value("outer", TensorProto.FLOAT, [])]
    )
    nodes = [
        helper.make_node("If", ["which"], ["chosen"], then_branch=inner, else_branch=other),
        helper.make_node("Resize", ["square", "", "scales"], ["larger"], mode="cubic"),
    ]
    inputs = [
        value("which", TensorProto.BOOL, []),
        value("square", TensorProto.UINT16, [1, 1, 2, 2]),
        value("axes", TensorProto.INT64, [1]),
    ]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = helper.make_graph(nodes, "g", inputs, [value("larger", TensorProto.FLOAT, None)], [scales])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])


def test_faults_of_other_runtimes_are_named(tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export", made=with_faults())
    found = [str(fault) for fault in check_graphs(folder, "tensorrt")]
    assert found == [
        "full: input square: TensorRT 10.15 takes no uint16, only float32, uint8, int32, int64, bool, float16, float64",
        "full: Det: TensorRT 10.15 has no such operator (1 node)",
        "full: ReduceMax: TensorRT 10.15 needs constant axes (1 node)",
        "full: Resize: TensorRT 10.15 has the modes nearest and linear only (1 node)",
    ]
    mobile = [fault.what for fault in check_graphs(folder, "ort-mobile")]
    assert mobile == ["opset 11", "input square", "Det"]
    with pytest.raises(RuntimeFault, match="target 'x' does not exist"):
        check_graphs(folder, "x")


def test_the_reader_of_onnx_files_sees_what_onnx_sees() -> None:
    for made in (model(), with_faults()):
        found = read_model(made.SerializeToString())
        listed: list[str] = []

        def walk(graph: Any, into: list[str] = listed) -> None:
            for node in graph.node:
                into.append(node.op_type)
                for attribute in node.attribute:
                    if attribute.type == onnx.AttributeProto.GRAPH:
                        walk(attribute.g, into)

        walk(made.graph)
        assert sorted(node.operator for node in found.nodes) == sorted(listed)
        assert found.inputs == {one.name: one.type.tensor_type.elem_type for one in made.graph.input}
        assert {one.name for one in made.graph.initializer} <= found.constants
        assert found.opset == made.opset_import[0].version


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\xff", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0f\x00"]
)
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"has no graph|ends in the middle|does not end|unknown kind"):
        read_model(content)

"""Damaged inputs for every reader: a slice of `tests.robustness.fuzz` here, two thousand of them in the long tests."""

import io
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp.data.opening import notes_of, open_dataset, open_unlabelled
from adaptiveisp.data.synthetic import read_photo
from adaptiveisp.detectors.onnx.graph import ConversionError, OnnxGraph
from adaptiveisp.errors import DataError, RawFileError, WeightsError, logger
from adaptiveisp.policies.checkpoint import import_released
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.training.run_state import check_like
from tests.conftest import REPOSITORY
from tests.robustness.fuzz import Fuzz, Outcome, read_input
from tests.robustness.fuzz_readers import READERS, Reader, Wrong, fault_of_message, released
from tests.support import layouts
from tests.support import odd_dngs as odddng

SEED = 7
SLICE = 75


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(tmp_path_factory.mktemp("fuzz"), [reader for reader in READERS if not reader.slow])


@pytest.mark.long
def test_every_reader_takes_its_valid_input(tmp_path: Path) -> None:
    outcomes = list(Fuzz(tmp_path).run_valid())
    assert [one.reader for one in outcomes] == [reader.name for reader in READERS if not reader.missing]
    assert not [one for one in outcomes if one.fault or one.message]


def test_damaged_inputs_are_read_or_refused_in_one_line(prepared: Fuzz) -> None:
    outcomes = list(prepared.run(SEED, range(SLICE)))
    assert [one.number for one in outcomes] == list(range(SLICE))
    assert not [one for one in outcomes if one.fault]
    refused = [one for one in outcomes if one.message]
    assert SLICE // 3 < len(refused) < SLICE, "the changes do harm, and not always"


@pytest.mark.long
def test_two_thousand_damaged_inputs() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])}
    command = [sys.executable, "-m", "tests.robustness.fuzz", "--inputs", "2000", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    assert done.returncode == 0 and ", 0 faults" in done.stdout, done.stdout + done.stderr


# what would be found


def ten_gigabytes() -> None:
    np.ones(10 * 2**30, np.uint8)


def ten_gigabytes_hidden() -> None:
    try:
        ten_gigabytes()
    except MemoryError:
        raise RawFileError("x.raw: is too large; take another") from None


def a_crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def a_long_wait() -> None:
    signal.pause()


def another_file() -> None:
    Path("../other").write_text("x")


def the_canary() -> None:
    Path("../canary.txt").unlink()


def a_surprise() -> None:
    raise KeyError("x")


def a_wrong_answer() -> None:
    raise Wrong("boxes that are not finite")


def an_escape_on_the_console() -> None:
    print("\x1b[31mred")


def a_connection() -> None:
    import socket

    socket.create_connection(("127.0.0.1", 9))


def a_log_of_two_lines() -> None:
    before = logger.filters[:]
    logger.filters.clear()
    try:
        logger.warning("one\ntwo")
    finally:
        logger.filters[:] = before


FAULTS = {
    ten_gigabytes: "MemoryError",
    ten_gigabytes_hidden: "asks for more memory",
    a_crash: "ended with -11",
    a_long_wait: "takes more than",
    another_file: "outside its folder",
    the_canary: "outside its folder",
    a_surprise: "KeyError: \"'x'\" at test_fuzz.py",
    a_wrong_answer: "boxes that are not finite",
    an_escape_on_the_console: "prints",
    a_connection: "opens a connection",
    a_log_of_two_lines: "control character '\\n'",
}


def test_every_kind_of_fault_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch is watched: readers that misbehave in each way, between good ones."""
    monkeypatch.setattr("tests.robustness.fuzz.LONGEST_SECONDS", 1.0)

    def text(folder: Path) -> None:
        (folder / "x.txt").write_text("one two three\n")

    readers = [Reader(read.__name__, text, read) for read in FAULTS]
    readers.insert(3, Reader("good", text, lambda: None))
    outcomes = {one.reader: one for one in Fuzz(tmp_path, readers).run(SEED, range(len(readers)))}
    assert outcomes.pop("good") == Outcome(
        3, "good", seconds=pytest.approx(0, abs=1), megabytes=pytest.approx(0, abs=50)
    )
    for read, wanted in FAULTS.items():
        assert wanted in outcomes[read.__name__].fault, outcomes[read.__name__]


def test_an_input_is_the_same_every_time(prepared: Fuzz) -> None:
    for number in range(len(prepared.readers)):
        twice = []
        for _ in range(2):
            prepared.prepare(SEED, number)
            folder = prepared.root / "box" / "in"
            twice.append({path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()})
        assert twice[0] == twice[1], prepared.readers[number].name


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "x" * 1001, "nul\0", "\u2028"])
def test_faults_of_messages(text: str) -> None:
    assert fault_of_message(text)
    assert not fault_of_message("é 日本 🙂 one line")


def test_an_error_of_the_package_is_no_fault() -> None:
    def refuse() -> None:
        raise RawFileError("x.raw: is empty; copy it again")

    assert read_input(refuse) == ("", "x.raw: is empty; copy it again")


# what it found


def png_with(folder: Path, kind: bytes, body: bytes, size: tuple[int, int] | None = None) -> Path:
    """A PNG with one chunk more behind its header, and perhaps another size in that."""
    path = folder / "x.png"
    Image.new("RGB", (32, 32), (90, 60, 30)).save(path)
    content = path.read_bytes()
    head = struct.pack(">II", *size) + content[24:29] if size else content[16:29]
    chunks = [
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in ((b"IHDR", head), (kind, body))
    ]
    path.write_bytes(content[:8] + b"".join(chunks) + content[33:])
    return path


def test_a_photo_with_a_text_that_unpacks_to_too_much(tmp_path: Path) -> None:
    path = png_with(tmp_path, b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    with pytest.raises(DataError, match=r"cannot be read as a photo .Decompressed data too large"):
        read_photo(path)


def test_a_note_that_unpacks_to_too_much_takes_no_memory(tmp_path: Path) -> None:
    note = b"adaptiveisp\0\1\0\0\0" + zlib.compress(bytes(300_000_000))
    path = png_with(tmp_path, b"iTXt", note)
    tracemalloc.start()
    try:
        read_raw(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_png_that_states_more_pixels_than_it_can_hold(tmp_path: Path) -> None:
    path = png_with(tmp_path, b"tEXt", b"a\0b", size=(65_535, 65_535))
    with pytest.raises(RawFileError, match="too short for 65535x65535 pixels; copy it again"):
        read_raw(path)


@pytest.mark.parametrize(
    "value",
    [
        [1.0],
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(1).expand(2**40),
        torch.zeros(32, 3, 4, 4, dtype=torch.complex64),
    ],
    ids=["list", "sparse", "endless", "complex"],
)
def test_a_released_checkpoint_with_other_values_than_its_tensors(tmp_path: Path, value: Any) -> None:
    released(tmp_path)
    content = torch.load(tmp_path / "r.pth", weights_only=True)
    content["agent_model"]["feature_extractor.layers.0.weight"] = value
    torch.save(content, tmp_path / "r.pth")
    with pytest.raises(WeightsError, match=r"r.pth: (does not fit its network|.*weight' is not a tensor)"):
        import_released(tmp_path / "r.pth")


@pytest.mark.parametrize(
    "value", [torch.zeros(1).expand(2**40), torch.zeros(2, 2).to_sparse()], ids=["endless", "sparse"]
)
def test_a_run_whose_state_holds_a_tensor_without_values(value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"learner.more.a is a tensor .* without values of its own"):
        check_like({"more": {"a": value}}, {"more": {}}, "learner")


@pytest.mark.parametrize(("layout", "line"), [("voc", "labels: /"), ("yolo", "train: /"), ("folder", "images: /")])
def test_a_set_does_not_search_the_whole_file_system(tmp_path: Path, layout: str, line: str) -> None:
    (tmp_path / "set.yaml").write_text(
        f"layout: {layout}\n{line}\n" + ("names: [cup]\nsplit: train\n" * (layout == "yolo"))
    )
    with pytest.raises(DataError, match="/: is the whole file system; name the folder of the set"):
        open_unlabelled(tmp_path / "set.yaml")


@pytest.mark.parametrize("compression", [1, 8, 5])
def test_a_tiff_that_states_more_pixels_than_it_can_hold(tmp_path: Path, compression: int) -> None:
    dng_only = dict.fromkeys(("t50706", "t50707", "t50708", "t50714", "t50717", "t50721", "t50778", "t50728"))
    tags = {"t257": (4, [2**32 - 1]), "t259": (3, [compression]), "t262": (3, [2]), **dng_only}
    path = odddng.write_odd_dng(tmp_path / "x.tif", np.zeros((16, 16, 3), np.uint16), **tags)
    with pytest.raises(RawFileError, match="is damaged or truncated: too short for 4294967295x16x3 values; copy"):
        read_raw(path)


def test_an_array_that_states_more_values_than_it_holds(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<u2", "fortran_order": False, "shape": (100_000,) * 2})
    (tmp_path / "x.npy").write_bytes(content.getvalue() + bytes(6000))
    with pytest.raises(RawFileError, match=r"x.npy: is damaged or holds no numbers .mmap length is greater than"):
        read_raw(tmp_path / "x.npy")


def test_a_line_without_a_name_in_a_list_of_images(tmp_path: Path) -> None:
    layouts.lod_yolo(tmp_path)
    (tmp_path / "train.txt").write_text("./RAW_dark/2.png\n./\n")
    opened = open_dataset(tmp_path / "set.yaml:train")
    assert [sample.name for sample in opened.samples] == ["RAW_dark/2.png"]
    assert notes_of(opened) == [f"{tmp_path / 'train.txt'}: './' names a folder and is left out; list images only"]


def test_constants_whose_bytes_do_not_fit_their_shape(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.TensorProto(name="c", data_type=1, dims=[4], raw_data=b"12")])
    with pytest.raises(ConversionError, match="c: its values cannot be read"):
        OnnxGraph(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))

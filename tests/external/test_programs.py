"""ISPs in other processes: by files, and behind a pipe. The programs are small Python scripts."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp import Param, RawImage, write_dng
from adaptiveisp.errors import PipelineError, UsageError
from adaptiveisp.external.program import ProgramISP
from adaptiveisp.external.worker import WorkerISP

GAIN = (Param("gain", 0.5, 4.0, "", 1.0, "log"),)

READ = """
import io, json, struct, sys
import numpy as np
def mosaic(content):
    '''The pixels of an uncompressed little-endian TIFF of one strip.'''
    at, = struct.unpack("<I", content[4:8])
    count, = struct.unpack("<H", content[at:at+2])
    tags = {}
    for i in range(count):
        tag, kind, n, value = struct.unpack("<HHII", content[at+2+12*i:at+14+12*i])
        tags[tag] = value & 0xffff if kind == 3 and n == 1 else value
    width, height, start = tags[256], tags[257], tags[273]
    return np.frombuffer(content[start:start + 2*width*height], "<u2").reshape(height, width)
def grey(content, gain):
    return np.minimum(mosaic(content) * (255 / 4095) * gain, 255).astype(np.uint8)
"""
FILES = (
    READ
    + """
picture = grey(open(sys.argv[1], "rb").read(), float(sys.argv[3]))
header = f"P5 {picture.shape[1]} {picture.shape[0]} 255 ".encode()
open(sys.argv[2], "wb").write(header + picture.tobytes())
"""
)
PIPE = (
    READ
    + """
while line := sys.stdin.buffer.readline():
    request = json.loads(line)
    content = sys.stdin.buffer.read(request["dng_bytes"])
    gain = request["params"]["gain"]
    if gain > 3.5:
        sys.exit(7)
    if gain > 3:
        answer, pixels = {"error": "gain is\\ntoo high"}, b""
    else:
        picture = grey(content, gain)
        answer, pixels = {"shape": picture.shape, "dtype": "uint8"}, picture.tobytes()
    answer["request"] = request["request"]
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\\n" + pixels)
    sys.stdout.buffer.flush()
"""
)


def random_raw(height: int = 48, width: int = 64) -> RawImage:
    codes = np.random.default_rng(1).integers(0, 4096, (height, width)).astype(np.uint16)
    return RawImage(codes, "RGGB", 0.0, 4095.0, camera_gains=(2.0, 1.0, 1.5))


def expected(raw: RawImage, gain: float) -> np.ndarray:
    return np.minimum(raw.data * (255 / 4095) * gain, 255).astype(np.uint8)


def program(code: str, *arguments: str, **changes: Any) -> ProgramISP:
    return ProgramISP(
        "files", GAIN, [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), *arguments], **changes
    )


@pytest.fixture
def worker() -> Iterator[WorkerISP]:
    made = WorkerISP("pipe", GAIN, [sys.executable, "-c", PIPE], seconds=20)
    yield made
    made.close()


def test_a_program_with_files_gets_the_raw_and_the_parameters() -> None:
    raw = random_raw()
    isp = program(FILES, "{raw}", "{picture}", "{gain:.6f}", picture="{folder}/made.pgm")
    np.testing.assert_array_equal(isp.render(raw, {"gain": 1.5}), expected(raw, 1.5))


@pytest.mark.parametrize(
    ("isp", "message"),
    [
        (program("import sys; sys.exit('no licence')"), "ended with 1 .no licence.; try it by hand"),
        (program("pass"), "wrote no picture.ppm"),
        (program("import sys; open(sys.argv[1], 'w').write('x')", "{picture}"), "picture.ppm is no picture"),
        (program("import time; time.sleep(9)", seconds=0.3), "took more than 0.3 s; raise seconds"),
        (ProgramISP("files", GAIN, ["/no/such/program"]), "/no/such/program cannot be started .*; install it"),
    ],
)
def test_a_program_that_fails_is_named_with_the_remedy(isp: ProgramISP, message: str) -> None:
    with pytest.raises(PipelineError, match=f"files: .*{message}"):
        isp.render(random_raw(), {"gain": 1.0})


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(UsageError, match="names power; use folder, gain, picture, raw"):
        ProgramISP("files", GAIN, ["x", "{power:.2f}"])
    for make in (lambda: ProgramISP("files", GAIN, []), lambda: WorkerISP("pipe", GAIN, [])):
        with pytest.raises(UsageError, match="command must name a program"):
            make()
    rgb = RawImage(np.zeros((48, 64, 3), np.uint16), None, 0.0, 4095.0)
    with pytest.raises(PipelineError, match=r"files: .*only Bayer mosaics .*synth --format dng. makes them of photos"):
        program(FILES, "{raw}").render(rgb, {"gain": 1.0})


def test_a_worker_is_started_once_and_again_after_its_end(worker: WorkerISP) -> None:
    raws = [random_raw(), random_raw(480, 640)]  # the second is larger than a pipe's buffer
    for raw, gain in ((raws[0], 1.0), (raws[1], 2.0), (raws[0], 0.5)):
        np.testing.assert_array_equal(worker.render(raw, {"gain": gain}), expected(raw, gain))
    assert worker._process is not None
    first = worker._process.pid
    with pytest.raises(PipelineError, match=r"pipe: gain is too high$"):
        worker.render(raws[0], {"gain": 3.2})
    with pytest.raises(PipelineError, match="the program ended; try it by hand"):
        worker.render(raws[1], {"gain": 3.9})
    np.testing.assert_array_equal(worker.render(raws[0], {"gain": 1.0}), expected(raws[0], 1.0))
    assert worker._process is not None and worker._process.pid != first


def test_a_program_that_crashes_once_is_started_again(tmp_path: Path) -> None:
    mark = str(tmp_path / "started")
    first = f"import os\nif not os.path.exists({mark!r}):\n    open({mark!r}, 'w')\n    os.abort()\n"
    isp = WorkerISP("pipe", GAIN, [sys.executable, "-c", first + PIPE], seconds=20)
    raw = random_raw()
    try:
        np.testing.assert_array_equal(isp.render(raw, {"gain": 1.0}), expected(raw, 1.0))
    finally:
        isp.close()


def test_a_worker_ends_when_its_process_does(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tests.external.test_programs import *\n"
        "isp = WorkerISP('pipe', GAIN, [sys.executable, '-c', PIPE])\n"
        "isp.render(random_raw(), {'gain': 1.0})\nprint(isp._process.pid)"
    )
    root = Path(__file__).resolve().parents[2]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "src")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=where, check=True)
    child = Path(f"/proc/{done.stdout.strip()}/cmdline")
    end = time.monotonic() + 5
    while child.exists() and child.read_bytes() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (child.exists() and child.read_bytes())


def test_a_copy_of_a_worker_starts_its_own_program(worker: WorkerISP) -> None:
    raw = random_raw()
    worker.render(raw, {"gain": 1.0})
    copy = pickle.loads(pickle.dumps(worker))
    try:
        np.testing.assert_array_equal(copy.render(raw, {"gain": 1.0}), expected(raw, 1.0))
        assert copy._process is not None and worker._process is not None
        assert copy._process.pid != worker._process.pid
    finally:
        copy.close()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('hello', flush=True); input()", "broke the protocol"),
        ("""print('{"request": 1, "shape": [1], "dtype": "uint8"}', flush=True); input()""", "of shape"),
        ("""print('{"shape": [1], "dtype": "uint8"}', flush=True); input()""", "'request'"),
        ("import time; time.sleep(9)", "did not answer in time; raise seconds"),
        ("import sys; sys.stdout.write('x' * 100000); sys.stdout.flush(); input()", "does not begin with a line"),
    ],
)
def test_a_worker_that_breaks_the_protocol_is_named(code: str, message: str) -> None:
    isp = WorkerISP("pipe", GAIN, [sys.executable, "-c", code], seconds=1.0)
    with pytest.raises(PipelineError, match=f"pipe: .*{message}"):
        isp.render(random_raw(), {"gain": 1.0})
    assert isp._process is None


@pytest.mark.parametrize("pause", [0.0, 0.3])
def test_no_picture_is_taken_for_that_of_another_request(pause: float) -> None:
    """A program that answers its first request twice would be one picture behind from then on."""
    twice = PIPE.replace(
        "    sys.stdout.buffer.flush()\n",
        f"""    sys.stdout.buffer.flush()
    if request["request"] == 1:
        import time
        time.sleep({pause})
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\\n" + pixels)
        sys.stdout.buffer.flush()
""",
    )
    isp, raw = WorkerISP("pipe", GAIN, [sys.executable, "-c", twice]), random_raw()
    with pytest.raises(PipelineError, match="broke the protocol"):
        for gain in (1.0, 2.0, 3.0):
            np.testing.assert_array_equal(isp.render(raw, {"gain": gain}), expected(raw, gain))
            time.sleep(2 * pause)
    isp.close()


EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "libraw_isp"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("rawpy")
    monkeypatch.syspath_prepend(str(EXAMPLE))
    import libraw_isp

    yield libraw_isp
    libraw_isp.LIBRAW.close()


def test_the_worked_example_develops_as_libraw_does(example: Any, tmp_path: Path) -> None:
    """Its defaults are LibRaw's, so that it equals LibRaw in this process; each parameter changes the picture."""
    import rawpy

    raw = random_raw(120, 160)
    raw = replace(raw, data=raw.data // 16)  # dark, so that the automatic brightness has something to do
    write_dng(raw, tmp_path / "raw.dng")
    with rawpy.imread(str(tmp_path / "raw.dng")) as opened:
        expected = opened.postprocess(use_camera_wb=True)
    defaults = json.loads((EXAMPLE / "defaults.json").read_text())["stages"][0]["params"]
    assert defaults == {param.name: param.neutral for param in example.LIBRAW.params}
    found = example.LIBRAW.render(raw, defaults)
    np.testing.assert_array_equal(found, expected)
    changed = {"red": 1.5, "blue": 0.7, "bright": 0.5, "power": 3.0, "slope": 9.0, "burnt": 0.1, "fbdd": 2, "median": 1}
    assert set(changed) == set(defaults)
    for name, value in changed.items():
        other = example.LIBRAW.render(raw, {**defaults, name: value})
        assert other.shape == found.shape and (other != found).any(), name


@pytest.mark.skipif(shutil.which("dcraw_emu") is None, reason="dcraw_emu is missing: apt install libraw-bin")
def test_the_worked_example_by_files(example: Any) -> None:
    raw, isp = random_raw(120, 160), example.DCRAW_EMU
    defaults = {param.name: param.neutral for param in isp.params}
    found = isp.render(raw, defaults)
    assert found.shape == (120, 160, 3) and found.dtype == np.uint8
    assert isp.render(raw, {**defaults, "bright": 0.5}).mean() < found.mean() - 10

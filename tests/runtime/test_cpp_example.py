"""The C++ example: built by CMake with the library inside onnxruntime's wheel, and run on small exports.

The wheel has no headers. Those of a release archive are taken from ONNXRUNTIME_INCLUDE if that is set, else the few
declarations in tests/support/ort_headers.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptiveisp_runtime import Session

from tests.conftest import REPOSITORY
from tests.runtime.test_session import frame, packed
from tests.support.small_export import FORMAT, write_export

pytestmark = pytest.mark.long

LAYOUTS = {
    "whole": {"layout": "whole", "bits": 12, "container_bits": 16, "group_values": 1, "group_bytes": 2},
    "high": {"layout": "whole", "bits": 12, "group_values": 1, "high_bits": True, "big_endian": True, "group_bytes": 2},
    "csi2": {"layout": "csi2", "bits": 12, "group_values": 2, "group_bytes": 3},
    "csi2-10": {"layout": "csi2", "bits": 10, "group_values": 4, "group_bytes": 5},
    "csi2-14": {"layout": "csi2", "bits": 14, "group_values": 4, "group_bytes": 7},
    "lsb": {"layout": "lsb", "bits": 12, "group_values": 2, "group_bytes": 3},
    "gige": {"layout": "gige", "bits": 10, "group_values": 2, "group_bytes": 3},
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built example."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    onnxruntime = pytest.importorskip("onnxruntime")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this wheel of onnxruntime has no shared library of its own")
    root = tmp_path_factory.mktemp("cpp")
    (root / "lib").mkdir()
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(libraries[0])
    include = os.environ.get("ONNXRUNTIME_INCLUDE") or REPOSITORY / "tests" / "support" / "ort_headers"
    source = REPOSITORY / "examples" / "cpp"
    facts = [f"-DONNXRUNTIME_ROOT={root}", f"-DONNXRUNTIME_INCLUDE={include}", "-DCMAKE_CXX_FLAGS=-Werror"]
    for command in (["cmake", "-S", source, "-B", root / "build", *facts], ["cmake", "--build", root / "build"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return root / "build" / "adaptiveisp-boxes"


def run(program: Path, *words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def test_it_prints_the_boxes_of_the_python_runtime(program: Path, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    values = frame()
    (tmp_path / "a.raw").write_bytes(packed(values))
    done = run(program, folder, tmp_path / "a.raw", "8x6", "GBRG", 64, 4095)
    assert done.returncode == 0, done.stderr
    result = Session(folder, threads=1)(values, pattern="GBRG", black_level=64, white_level=4095)
    (box,) = result.boxes()
    assert done.stdout == f"{box['class']} {box['score']:.4f} 0.00 0.00 4.00 3.00\n"


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_unpacks_every_layout_as_the_python_runtime_does(program: Path, tmp_path: Path, name: str) -> None:
    """The score is the largest value, so that each pixel is made the largest one in turn."""
    form = {**FORMAT, **LAYOUTS[name], "row_bytes": 40, "offset": 3}
    folder = write_export(tmp_path / "export", {"format": form})
    content = np.random.default_rng(1).integers(0, 256, 3 + 2 * 40).astype(np.uint8)
    (tmp_path / "a.raw").write_bytes(content.tobytes())
    words = (folder, tmp_path / "a.raw", "8x2", "RGGB", 0, 65535)
    facts = {"pattern": "RGGB", "black_level": 0, "white_level": 65535}
    for seed in range(4):
        (tmp_path / "a.raw").write_bytes(np.random.default_rng(seed).permutation(content).tobytes())
        done = run(program, *words)
        result = Session(folder, threads=1)(tmp_path / "a.raw", size=(8, 2), **facts)  # type: ignore[arg-type]
        assert done.stdout.split()[1] == f"{float(result.detections.scores[0]):.4f}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "a.raw"), "nowhere/manifest.json: cannot be read"),
        (("export", "missing.raw", "8x6", "RGGB", 64, 4095), "missing.raw: cannot be read"),
        (("export", "a.raw", "80x60", "RGGB", 64, 4095), "the frame has 72 bytes, 7200 are needed; check size"),
        (("export", "a.raw", "8x6", "RGBG", 64, 4095), "has not fixed pattern, and it was not given or is not valid"),
        (("export", "a.raw"), "takes frames of any size; give width and height"),
    ],
)
def test_bad_input_gives_one_line(program: Path, tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    write_export(tmp_path / "export")
    (tmp_path / "a.raw").write_bytes(packed(frame()))
    done = run(program, *(tmp_path / str(word) for word in words[:2]), *words[2:])
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row_bytes": -(10**8)}, "frame.format is not valid"),
        ({"row_bytes": 11}, "row_bytes = 11, but a row takes 12 bytes"),
        ({"group_values": 0}, "frame.format is not valid"),
        ({"offset": -1}, "frame.format is not valid"),
        ({"layout": "whole", "container_bits": 64, "group_values": 1, "group_bytes": 1}, "frame.format is not valid"),
    ],
)
def test_a_format_that_leaves_the_frame_is_refused(
    program: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = write_export(tmp_path / "export", {"format": {**FORMAT, **changes}})
    (tmp_path / "a.raw").write_bytes(packed(frame()))
    done = run(program, folder, tmp_path / "a.raw", "8x6", "RGGB", 64, 4095)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("fixed", "facts", "message"),
    [
        ({"black_level": [64, 64, 64, 64]}, ("GBRG", 65, 4095), "the export has fixed another black_level"),
        ({"white_level": 4095}, ("GBRG", 64, 1023), "the export has fixed another white_level"),
        ({"pattern": "RGGB"}, ("GBRG", 64, 4095), "the export has fixed another pattern"),
        ({}, ("GBRG", 4095, 64), "0 <= black level < white level must hold"),
        ({}, ("GBRG", -1, 4095), "0 <= black level < white level must hold"),
    ],
)
def test_levels_that_contradict_the_manifest_are_refused(
    program: Path, tmp_path: Path, fixed: dict[str, Any], facts: tuple[object, ...], message: str
) -> None:
    folder = write_export(tmp_path / "export", fixed)
    (tmp_path / "a.raw").write_bytes(packed(frame()))
    done = run(program, folder, tmp_path / "a.raw", "8x6", *facts)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


def test_another_version_is_refused(program: Path, tmp_path: Path) -> None:
    folder = write_export(tmp_path / "export")
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "format_version": 2}))
    assert "of another format or version" in run(program, folder, "a.raw").stderr

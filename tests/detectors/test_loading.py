"""How a name, a file or an own function becomes a detector, and what is refused."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptiveisp.cli.parser import main
from adaptiveisp.detectors import loading
from adaptiveisp.detectors.loading import DETECTORS, load_detector, register_detector
from adaptiveisp.errors import DetectorError, UsageError

OWN = """
class Own:
    name, class_names, stride, weights_sha256 = "own", ["thing"], 8, ""
    def loss(self, image, targets): ...
    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300): ...

def load(**changes):
    own = Own()
    vars(own).update(changes)
    return own

"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def own_module(folder: Path, name: str, *lines: str) -> str:
    """Writes a module with `OWN` and more lines, and returns its name; each test needs one of its own."""
    (folder / f"{name}.py").write_text(OWN + "\n".join(lines) + "\n")
    return name


@pytest.mark.parametrize("name", ["yolo99", "", "yolov3", "x" * 5000])
def test_an_unknown_name_is_wrong_use(name: str) -> None:
    with pytest.raises(UsageError, match=f"no such detector; known: {', '.join(DETECTORS)}"):
        load_detector(name)


def test_a_long_unknown_name_hides_nothing_however_many_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = f"known: {', '.join(f'one-of-many-{number}' for number in range(20))}"
    monkeypatch.setattr(loading, "_remedy", lambda: remedy)
    with pytest.raises(UsageError, match=f"^x+ … x+: no such detector; {remedy}$"):
        load_detector("x" * 5000)
    with pytest.raises(DetectorError, match=f"^/x+ … x+: no such file; {remedy}$"):
        load_detector("/" + "x" * 5000)


def test_an_unknown_name_is_answered_with_those_that_were_registered() -> None:
    register_detector("listed-detector", lambda: None, replace=True)
    with pytest.raises(
        UsageError, match=f"no such detector; known: {', '.join(DETECTORS)}, .*listed-detector.*; or give"
    ):
        load_detector("nope")


@pytest.mark.parametrize("name", ["gone.weights", "gone.onnx", "models/gone", "./gone", "x" * 5000 + ".weights"])
def test_a_missing_file_is_a_failure(name: str) -> None:
    with pytest.raises(DetectorError, match=r"no such file; known") as caught:
        load_detector(name)
    assert not isinstance(caught.value, UsageError) and "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_a_failure(folder: Path) -> None:
    (folder / "notes").write_text("hello")
    with pytest.raises(DetectorError, match="notes: is not a detector"):
        load_detector("notes")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_gone.mine:load", "ModuleNotFoundError: .*; run from the folder that holds it, or put that folder on"),
        ("models/own_gone.py:load", r"write the module with dots instead of a path, models\.own_gone:load$"),
        (
            "own_broken:load",
            "No module named 'no_such_library'; install no_such_library, or put its folder on PYTHONPATH",
        ),
        ("own_says_no:load", "ValueError: no; own_says_no must be a module that can be imported; -v shows where"),
        ("own_remedy:gone", "has no attribute 'gone'; give a name that is in own_remedy"),
        ("own_remedy:fails", r"RuntimeError: no model; it must return a detector \(docs/detectors\.md"),
        ("own_remedy:CONSTANT", "TypeError: .*; it must return a detector"),
    ],
)
def test_an_own_detector_that_cannot_be_had_names_the_remedy(spec: str, message: str, folder: Path) -> None:
    (folder / "own_broken.py").write_text("import no_such_library\n")
    (folder / "own_says_no.py").write_text("raise ValueError('no')\n")
    own_module(folder, "own_remedy", "CONSTANT = 3", "def fails(): raise RuntimeError('no model')")
    with pytest.raises(DetectorError, match=message) as caught:
        load_detector(spec)
    assert str(caught.value).startswith(f"{spec}: ") and "\n" not in str(caught.value)


def test_a_callable_with_a_name_that_is_too_long() -> None:
    with pytest.raises(DetectorError, match="put that folder on PYTHONPATH"):
        load_detector("x" * 5000 + ":load")


def test_exit_codes_of_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.dng").touch()
    common = ["run", "a.dng", "--out", "out", "--detector"]
    assert main([*common, "yolo99"]) == 2
    assert main([*common, "gone.weights"]) == 1
    assert main(["weights", "get", "yolo99"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_own_module_that_exits(folder: Path) -> None:
    own_module(folder, "own_exits_on_import", "raise SystemExit('not today')")
    with pytest.raises(DetectorError, match="SystemExit: not today"):
        load_detector("own_exits_on_import:load")
    own_module(folder, "own_exits_on_load", "def load():", "    import sys", "    sys.exit(0)")
    with pytest.raises(DetectorError, match="own_exits_on_load:load: SystemExit: 0"):
        load_detector("own_exits_on_load:load")


def test_an_interrupt_passes(folder: Path) -> None:
    own_module(folder, "own_interrupted", "def load(): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_detector("own_interrupted:load")


def test_an_own_detector_with_a_list_of_names(folder: Path) -> None:
    own_module(folder, "own_right")
    assert load_detector("own_right:load").stride == 8


FAULTS = {
    "stride_zero": ("stride=0", "its stride is 0, expected a whole number from 1"),
    "stride_float": ("stride=32.0", "its stride is 32.0"),
    "stride_true": ("stride=True", "its stride is True"),
    "name_none": ("name=None", "its name is None, expected text"),
    "name_empty": ("name=''", "its name is ''"),
    "classes_text": ("class_names='person'", "its class_names is 'person', expected a tuple or list"),
    "classes_none": ("class_names=None", "its class_names is None"),
    "classes_empty": ("class_names=()", r"its class_names is \(\)"),
    "classes_numbers": ("class_names=(1, 2)", r"its class_names is \(1, 2\)"),
    "hash_none": ("weights_sha256=None", "its weights_sha256 is None"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_own_detector_with_wrong_attributes(fault: str, folder: Path) -> None:
    change, message = FAULTS[fault]
    own_module(folder, f"own_{fault}", f"def wrong(): return load({change})")
    with pytest.raises(DetectorError, match=message) as caught:
        load_detector(f"own_{fault}:wrong")
    assert str(caught.value).startswith(f"own_{fault}:wrong: ")


def test_a_registered_detector_is_known_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, object] = {}
    monkeypatch.setattr(loading._REGISTERED, "_values", names)
    own_module(folder, "own_registered")
    monkeypatch.syspath_prepend(str(folder))
    load = importlib.import_module("own_registered").load
    register_detector("things", load)
    assert load_detector("things").class_names == ["thing"]
    assert load_detector("things", trusted=False).name == "own", "a file may name what a program registered"
    (folder / "things").write_text("a file of that name comes first")
    with pytest.raises(DetectorError, match="things: is not a detector"):
        load_detector("things")
    with pytest.raises(UsageError, match="'yolov3-tiny' is part of the package; choose another name"):
        register_detector("yolov3-tiny", load)
    register_detector("half", object)
    with pytest.raises(DetectorError, match="half: returned a object, which lacks name, class_names"):
        load_detector("half")

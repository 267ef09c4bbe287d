"""A layout from outside the package: registered by a program or declared by a package, and used like the others."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptiveisp import open_dataset, register_dataset
from adaptiveisp.cli.parser import main
from adaptiveisp.data.annotations import LabelledImage, LabelledObject, ParsedSet, SetConfig, SetOptions
from adaptiveisp.data.layouts import LAYOUTS, Layout
from adaptiveisp.errors import DataError, UsageError
from tests.conftest import REPOSITORY
from tests.support.layouts import BOX, HEIGHT, WIDTH, write_png, write_text

pytest.importorskip("imagecodecs")
RED = "tests.support.fake_detector:load"
QUICK = ("--set", "modules=[exposure]", "--set", "initial={}", "--set", "batch=2", "--budget", "2")


@pytest.fixture(autouse=True)
def clean_registry(quiet_place: None) -> Iterator[None]:
    """Layouts of a test are gone after it."""
    own = set(LAYOUTS._values)
    yield
    for name in set(LAYOUTS._values) - own:
        del LAYOUTS._values[name]
    sys.modules.pop("my_layouts", None)


def example() -> str:
    """The example of the page on data sets."""
    page = (REPOSITORY / "docs" / "datasets.md").read_text()
    return page.split("```python\n# my_layouts.py\n")[1].split("```")[0]


def write_set(folder: Path) -> Path:
    """Two splits of one image each, labelled by a table."""
    for number, split in enumerate(("train", "val"), 1):
        write_png(folder / "raws" / f"{number}.png", number)
        edges = ",".join(map(str, BOX))
        write_text(folder / f"{split}.csv", f"{number}.png,Mug,{edges}\n")
    return write_text(folder / "set.yaml", "layout: table\nclasses: {Mug: cup}\nsplits: [train, val]\n")


def one_image(config: SetConfig) -> ParsedSet:
    found = LabelledObject("cup", tuple(map(float, BOX)), "memory")  # type: ignore[arg-type]
    image = LabelledImage(config.below("raws/1.png"), "1", WIDTH, HEIGHT, (found,))
    return ParsedSet((image,), ("cup",), True, (), (f"options {dict(config.options.layout_options)}",))


def test_the_example_of_the_page_trains_evaluates_and_is_validated(tmp_path: Path) -> None:
    path = write_set(tmp_path)
    exec(compile(example(), "my_layouts.py", "exec"), {"__name__": "my_layouts"})
    (sample,) = open_dataset(f"{path}:val").samples
    assert (sample.width, sample.height, sample.name) == (WIDTH, HEIGHT, "2.png")
    assert sample.annotations[0].bbox == (BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1])
    common = ("--detector", RED, "--size", "64", "-q")
    data = ("--data", f"{path}:train")
    assert main(["train", "--method", "fixed", *data, "--dev", f"{path}:val", *common, *QUICK, "--out", "run"]) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_ap50_on_dev"] == 1
    assert main(["eval", "--data", f"{path}:val", "--policy", "none", *common, "--out", "report"]) == 0
    assert main(["doctor", str(path), "--detector", RED, "--out", "checked", "-q"]) == 0
    found = json.loads((tmp_path / "checked" / "doctor.json").read_text())
    assert found["verdict"] == "ready" and {name: one["objects_known"] for name, one in found["splits"].items()} == {
        "train": 1,
        "val": 1,
    }
    (tmp_path / "val.csv").write_text("2.png,Mug,1,2\n")
    with pytest.raises(DataError, match=r"val\.csv: .*; write file,class,x0,y0,x1,y1"):
        open_dataset(f"{path}:val")


def test_an_installed_package_declares_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_set(tmp_path)
    with pytest.raises(UsageError, match=r"layout 'table' is not registered; choose one of yolo.*install the package"):
        open_dataset(f"{path}:val")
    write_text(tmp_path / "site" / "my_layouts.py", example())
    info = tmp_path / "site" / "my_layouts-1.0.dist-info"
    write_text(info / "METADATA", "Metadata-Version: 2.1\nName: my-layouts\nVersion: 1.0\n")
    write_text(info / "entry_points.txt", "[adaptiveisp.datasets]\ntable = my_layouts:TABLE\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert len(open_dataset(f"{path}:val").samples) == 1


def test_a_parser_alone_is_a_layout_and_gets_its_options(tmp_path: Path) -> None:
    write_png(tmp_path / "raws" / "1.png", 1)
    register_dataset("one", one_image)
    register_dataset("chosen", Layout(SetOptions(), one_image, own_options=("delimiter",)))
    write_text(tmp_path / "one.yaml", "layout: one\n")
    write_text(tmp_path / "chosen.yaml", "layout: chosen\nlayout-options: {delimiter: ';'}\n")
    write_text(tmp_path / "wrong.yaml", 'layout: chosen\nlayout-options: {quote: "\'"}\n')
    assert open_dataset(tmp_path / "one.yaml").notes == ["options {}"]  # type: ignore[attr-defined]
    assert open_dataset(tmp_path / "chosen.yaml").notes == ["options {'delimiter': ';'}"]  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="layout chosen has no option 'quote' of its own; it knows delimiter"):
        open_dataset(tmp_path / "wrong.yaml")


@pytest.mark.parametrize(
    ("parser", "message"),
    [
        (lambda config: 1 / 0, "layout own: ZeroDivisionError: division by zero; correct the code of the layout"),
        (lambda config: [], "layout own: its parser returned list; return a ParsedSet"),
    ],
)
def test_code_that_fails_is_one_line(parser: Any, message: str, tmp_path: Path) -> None:
    register_dataset("own", parser)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(write_text(tmp_path / "set.yaml", "layout: own\n"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("yolo", one_image, "layout 'yolo' is registered already; choose another name"),
        ("my layout", one_image, "layout 'my layout': give a name of at most 64 letters"),
        ("own", 3, "own: is of type int; give a Layout, or a function from SetConfig to ParsedSet"),
    ],
)
def test_what_cannot_be_registered_is_one_line(name: str, layout: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LAYOUTS.register(name, layout)

"""`doctor` on a good set, on one with every kind of problem, and on nothing; what it counts is known by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.cli.exit_codes import DONE, DONE_WITH_SKIPS, FAILED
from adaptiveisp.cli.parser import main
from adaptiveisp.data.validation import raw_level
from adaptiveisp.data.validation_result import LIGHT_EDGES, ImageFacts, ValidationResult
from adaptiveisp.types import RawImage
from tests.conftest import REPOSITORY
from tests.support import layouts
from tests.support.layouts import voc_xml, write_png, write_text, yolo_line
from tests.support.photos import labelled_photos

RED = ("--detector", "tests.support.fake_detector:load")


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def doctor(*arguments: object) -> int:
    return main(["doctor", *map(str, arguments)])


def read(out: str = "out") -> dict[str, object]:
    return json.loads(Path(out, "doctor.json").read_text())


def test_a_good_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.lod_cr2(tmp_path)
    assert doctor(path, *RED, "--out", "out") == DONE
    found = read()
    assert (found["exit_code"], found["usable_images"], found["problems"], found["fatal"]) == (0, 1, [], "")
    row = {"listed": 1, "readable": 1, "with_objects": 1, "objects": 1, "objects_known": 1}
    assert {key: found["splits"]["train"][key] for key in row} == row and set(found["splits"]) == {"train", "val"}
    assert found["sizes"] == {"64x48": 2} and found["sensors"] == {"adaptiveisp mosaic": 2}
    assert found["classes"] == [{"name": "cup", "target": "cup", "count": 2, "known": True}]
    assert sum(found["light"]["images"]) == 2 and found["provenance"]["weights_sha256"] == {"red": ""}
    page = Path("out", "doctor.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and "<svg" in page and "{{" not in page
    assert "http" not in page.split("<h2>Provenance")[0].replace("http://www.w3.org", "")
    text = capsys.readouterr().out
    assert "Training may start: 1 images, no problem found." in text and "known to red" in text
    assert doctor(path, "--out", "out") == 2, "an existing folder is refused"
    assert doctor(f"{path}:val", "-q") == DONE and capsys.readouterr().out == ""


def test_every_kind_of_problem_is_found_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.yolo(tmp_path)
    path.write_text(path.read_text().replace("  1: cup", "  1: cup\n  2: unicorn") + "missing-labels: skip\n")
    images, labels = tmp_path / "images" / "train", tmp_path / "labels" / "train"
    for stem, text in {
        "three": "2 0.5 0.5 0.5 0.5\n",  # a class that no detector knows
        "four": "1 0.5 0.5 0.0 0.5\n",  # no area
        "five": "1 0.9 0.5 0.5 0.5\n1 0.5 0.5\n",  # out of range, and no label
        "cut": yolo_line(1),
        "orphan": yolo_line(1),
    }.items():
        write_text(labels / f"{stem}.txt", text)
        if stem != "orphan":
            write_png(images / f"{stem}.png", sum(map(ord, stem)))
    (images / "cut.png").write_bytes((images / "three.png").read_bytes()[:500])
    write_png(images / "bare.png", 77)  # without a label file
    for copy in ("a", "b"):
        shutil.copy(images / "three.png", images / f"copy-{copy}.png")
        write_text(labels / f"copy-{copy}.txt", yolo_line(1))
    shutil.copy(images / "1.png", tmp_path / "images" / "val" / "same.png")
    write_text(tmp_path / "labels" / "val" / "same.txt", yolo_line(1))
    assert doctor(path) == FAILED and main(["train", "--data", f"{path}:train", "--out", "run", *RED]) == FAILED
    for text in capsys.readouterr():  # what doctor says, and why train refuses: the same label, the same remedy
        remedy = f"write class x y width height, or set bad-labels: drop in {path}"
        assert f"five.txt:2: '1 0.5 0.5' is no label (3 values); {remedy}" in text
    assert doctor(f"{path}:val") != FAILED, "a split that is named is looked at alone"
    path.write_text(path.read_text() + "bad-labels: drop\n")
    assert doctor(path, "--out", "out") == DONE_WITH_SKIPS
    found = read()
    kinds = {
        "bad box": 2,
        "bad label": 1,
        "unreadable": 1,
        "image without label": 1,
        "label without image": 1,
        "duplicate": 1,
        "in several splits": 1,
        "unknown class": 1,
    }
    assert found["problem_counts"] == kinds
    by_kind = {problem["kind"]: problem["text"] for problem in found["problems"]}
    assert "copy-a.png" in by_kind["duplicate"] and "copy-b.png, images/train/three.png" in by_kind["duplicate"]
    assert "images/train/1.png in train, images/val/same.png in val" in by_kind["in several splits"]
    assert "class 'unicorn' (1 objects) is unknown to COCO's 80 classes" in by_kind["unknown class"]
    assert "orphan.txt: belongs to no image" in by_kind["label without image"]
    # 1, copy-a and copy-b of train can be learned from; val is not learned from.
    assert found["usable_images"] == 3 and found["splits"]["train"]["objects_known"] == 3
    text = capsys.readouterr().out
    assert "Training may start on 3 images, but there are problems" in text and "cut.png: is damaged" in text
    page = Path("out", "doctor.html").read_text()
    for kind, count in kinds.items():
        assert f"<summary>{kind}: {count}</summary>" in page


def test_images_without_a_label_file_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As YOLO's format has it they show nothing; that is no problem, but may not be what was meant."""
    path = layouts.yolo(tmp_path)
    write_png(tmp_path / "images" / "train" / "bare.png", 77)
    assert doctor(path, "--out", "out", "--threads", "1") == DONE
    assert read()["without_label_file"] == {"train": 1}
    line = "images without a label file, counted as images without objects: 1 in train"
    assert line in capsys.readouterr().out and line in Path("out", "doctor.html").read_text()


def test_a_split_that_training_cannot_learn_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What val holds does not help; `train` refuses it too."""
    path = layouts.yolo(tmp_path)
    for file in (tmp_path / "images" / "train").iterdir():
        file.write_bytes(file.read_bytes()[:500])
    assert doctor(path, "-q") == FAILED and "Training cannot start" in capsys.readouterr().err
    assert main(["train", "--data", f"{path}:train", "--out", "run", *RED]) == FAILED


def test_nothing_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.voc(tmp_path)
    path.write_text("layout: voc\nclasses: {cup: unicorn}\n")
    assert doctor(path, "--out", "out") == FAILED
    assert "Training cannot start: none of the data set's classes are known" in capsys.readouterr().out
    path.write_text("layout: voc\n")
    for image in (tmp_path / "JPEGImages").iterdir():
        image.write_bytes(image.read_bytes()[:300])
    assert doctor(path) == FAILED and "unreadable: 2" in capsys.readouterr().out
    assert doctor("gone") == FAILED and "gone: no such file" in capsys.readouterr().err
    labelled_photos(tmp_path / "photos")
    assert doctor("photos/labels.json") == 2 and "needs --images" in capsys.readouterr().err


def test_one_split_without_anything_to_learn_from_is_a_problem(tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    write_text(tmp_path / "Annotations" / "2.xml", voc_xml("unicorn"))
    assert doctor(path, "--out", "out") == DONE_WITH_SKIPS
    found = read()
    assert [p["split"] for p in found["problems"] if p["kind"] == "nothing to learn from"] == ["val"]
    assert found["problem_counts"] == {"unknown class": 1, "unusable classes": 1, "nothing to learn from": 1}


def test_photos_raws_without_labels_and_folders_of_synth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = labelled_photos(tmp_path, n=2)
    photos = ("--data", labels, "--images", tmp_path / "images")
    assert main(["synth", *map(str, photos), "--light", "dark,normal", "--out", "raws", "-q"]) == 0
    assert doctor("raws", "--out", "one") == DONE
    assert set(read("one")["splits"]) == {"dark", "normal"} and read("one")["usable_images"] == 4
    assert doctor("raws/normal/images", "--out", "two") == DONE
    assert read("two")["labelled"] is False and "with --labels teacher" in capsys.readouterr().out
    for path in (tmp_path / "images").iterdir():
        path.rename(path.with_suffix(".bmp"))  # what only a photo can be; the reader goes by the content
    labels.write_text(labels.read_text().replace(".png", ".bmp"))
    assert doctor(labels, "--images", "images", "--out", "three") == DONE
    assert read("three")["sensors"] == {"photo, for train --light": 2}
    content = json.loads(labels.read_text())
    content["annotations"][0]["bbox"] = [60, 10, 30, 10]
    labels.write_text(json.dumps(content))
    assert doctor(labels, "--images", "images", "--out", "four") == FAILED  # as train does, which reads the JSON itself
    assert read("four")["problem_counts"] == {"bad box": 1}
    photos = ["--data", "labels.json", "--images", "images", "--light", "dark"]
    assert main(["train", *photos, "--out", "run", *RED]) == FAILED
    output, error = capsys.readouterr()
    for text in (output, error):
        assert "photo1.bmp of 64x48 pixels; correct or remove it" in text
    assert "in a data-set YAML with layout: coco and bad-labels: drop" in output
    write_text(tmp_path / "set.yaml", "layout: coco\nbad-labels: drop\n")
    assert doctor("set.yaml") == DONE_WITH_SKIPS


def test_the_mean_level_is_between_black_and_white() -> None:
    tiled = np.tile(np.array([[110, 220], [330, 2000]], np.uint16), (8, 8))
    raw = RawImage(tiled, "RGGB", (100.0, 200.0, 300.0, 400.0), 1000.0)
    expected = (10 / 900 + 20 / 800 + 30 / 700 + 1) / 4  # each position by its own black; what is above white is white
    assert raw_level(raw) == pytest.approx(expected, rel=1e-6)
    rgb = RawImage(np.full((4, 4, 3), 550, np.uint16), None, (100.0,) * 4, 1000.0)
    assert raw_level(rgb) == pytest.approx(0.5)


def test_the_histogram_of_light() -> None:
    levels = (0.0005, 0.001, 0.05, 0.3, 1.0)
    found = ValidationResult(images=[ImageFacts("", str(x), 1, 1, "", x, 1, 1) for x in levels])
    assert found.light_histogram() == [1, 1, 0, 0, 1, 0, 2] and len(LIGHT_EDGES) == 6

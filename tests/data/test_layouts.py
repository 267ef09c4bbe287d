"""Every layout loads, trains and evaluates from the command line; what is malformed is named or reported."""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from adaptiveisp.cli.parser import main
from adaptiveisp.data.annotations import SetOptions
from adaptiveisp.data.labelled import LabelledRaws as Labelled
from adaptiveisp.data.layouts import LAYOUTS as READERS
from adaptiveisp.data.layouts import open_set, read_config, splits_of
from adaptiveisp.data.opening import LabelledRaws, open_dataset, open_unlabelled
from adaptiveisp.errors import DataError, RawFileError, UsageError
from tests.conftest import REPOSITORY
from tests.support import layouts
from tests.support.layouts import BOX, HEIGHT, LAYOUTS, WIDTH, voc_xml, write_png, write_text, yolo_line

RED = "tests.support.fake_detector:load"
XYWH = (BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1])
QUICK = ("--set", "modules=[exposure]", "--set", "initial={}", "--set", "batch=2", "--size", 64, "--budget", 2, "-q")


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def train(data: object, *more: object, out: str = "run") -> int:
    return adaptiveisp("train", "--method", "fixed", "--data", data, "--detector", RED, *QUICK, *more, "--out", out)


def evaluate(data: object, *more: object, out: str = "report") -> int:
    common = ("--policy", "none", "--detector", RED, "--size", 64, "--resamples", 200, "-q")
    return adaptiveisp("eval", "--data", data, *common, *more, "--out", out)


def ap50(out: Path) -> float:
    return json.loads((out / "report.json").read_text())["policies"]["none"]["red"]["ap50"]


def test_every_layout_has_a_fixture() -> None:
    assert {name.split("-")[0] for name in LAYOUTS} == set(READERS.names()) - {"folder"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_loads_trains_and_evaluates(name: str, tmp_path: Path) -> None:
    path = LAYOUTS[name](tmp_path)
    for split in ("train", "val"):
        dataset = open_dataset(Path(f"{path}:{split}"))
        (sample,) = dataset.samples
        (annotation,) = sample.annotations
        assert annotation.bbox == pytest.approx(XYWH, abs=1e-3) and annotation.area == pytest.approx(768, rel=0.1)
        assert (sample.width, sample.height) == (WIDTH, HEIGHT) and dataset.categories[annotation.category_id] == "cup"
        raw = dataset.read(sample)
        assert raw.data.shape[:2] == (HEIGHT, WIDTH)
    assert splits_of(read_config(path)) == ("train", "val")
    assert train(f"{path}:train", "--dev", f"{path}:val") == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["best_ap50_on_dev"] == 1
    assert evaluate(f"{path}:val") == 0
    # The detector of the tests finds what is red: it hits only if labels, sizes and colours all belong together.
    assert ap50(tmp_path / "report") == 1


def test_a_folder_of_raws_with_a_yaml_can_be_taught(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts.mosaic(1).astype("<u2").tofile(tmp_path / "a.raw")
    text = f"layout: folder\nraw-size: {WIDTH}x{HEIGHT}\nraw-bits: 12\nraw-pattern: RGGB\n"
    write_text(tmp_path / "raws.yaml", text)
    dataset = open_unlabelled(tmp_path / "raws.yaml")
    assert dataset.read(dataset.samples[0]).white_level == 4095 and not dataset.categories
    write_text(tmp_path / "config.yaml", "train: {teacher_confidence: 0.05, light: mixed}\n")
    teacher = ("--labels", "teacher", "--config", "config.yaml")
    assert train("raws.yaml", *teacher) == 2 and "give --light none if --config has one" in capsys.readouterr().err
    assert train("raws.yaml", *teacher, "--light", "none", "--overwrite") == 0
    assert train("raws.yaml", out="other") == 1
    assert "layout folder has no labels; use train --labels teacher" in capsys.readouterr().err


# what a YAML may say


def test_classes_are_mapped_by_name_and_never_silently(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.yolo(tmp_path)
    plain = (
        path.read_text().replace("1: cup", "1: Mug").replace("nc: 2", "nc: 3") + "classes: {Mug: cup, person: null}\n"
    )
    path.write_text(plain)
    dataset = open_dataset(Path(f"{path}:train"))
    assert isinstance(dataset, LabelledRaws)
    assert dataset.categories == {1: "cup"} and dataset.mapping == {"person": None, "Mug": "cup"}
    path.write_text(plain.replace("Mug: cup", "Mugs: cup"))
    with pytest.raises(UsageError, match="'Mugs' is no class of the data set; there are person, Mug"):
        open_dataset(Path(f"{path}:train"))
    path.write_text(plain.replace("classes: {Mug: cup, person: null}", ""))
    assert train(f"{path}:train") == 1
    assert "no labelled object that the detector knows" in capsys.readouterr().err


def test_two_classes_may_become_one(tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    write_text(tmp_path / "Annotations" / "2.xml", voc_xml("Glass", first=1))
    path.write_text("layout: voc\nclasses: {Glass: cup}\n")
    dataset = open_dataset(path)  # without a split: all
    assert dataset.categories == {1: "cup"} and [len(sample.annotations) for sample in dataset.samples] == [1, 1]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("layout: lodd\n", UsageError, r"set\.yaml: layout 'lodd' is not registered; choose one of yolo, voc, coco"),
        ("layout: [lod]\n", UsageError, r"layout \['lod'\] is no text; choose one of yolo, voc"),
        ("layout: voc\nlayout-options: {a: 1}\n", UsageError, "layout voc has no option 'a' of its own; it knows none"),
        ("layout: voc\nroots: x\n", UsageError, "setting 'roots' does not exist"),
        ("layout: voc\nfirst-pixel: 2\n", UsageError, "first_pixel = 2 does not fit; give 0 or 1"),
        ("layout: voc\nroot: nowhere\n", DataError, "nowhere: no such folder; correct root"),
        ("layout: voc\nannotations: yolo\n", UsageError, "layout voc has annotations xml, not yolo"),
        ("layout: voc\nraw-sizes: 3x3\n", RawFileError, "unknown key raw-sizes"),
        ("layout: rod\n", DataError, "ROD's raws need a white level: add raw-white: 16777215"),
        ("layout: nod\n", DataError, "name the JSON, for instance labels:"),
        ("layout: yolo\ntrain: images\n", DataError, "names must give the name of each class"),
        ("names: [cup]\ntrain: images\n", UsageError, r"has splits; name one as set\.yaml:SPLIT \(there are: train\)"),
        ("names: [cup]\ntrain: images\nsplit: dev\n", UsageError, "has no split 'dev'"),
        ("names: [cup]\ntrain: pictures\nsplit: train\n", DataError, "pictures: no such folder, list or image"),
        ("- 1\n", DataError, "is no mapping; give a data-set YAML"),
        ("a: [\n", DataError, "cannot be read as YAML"),
    ],
)
def test_a_bad_yaml_is_named(text: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    write_text(tmp_path / "set.yaml", text)
    with pytest.raises(error, match=message) as caught:
        open_dataset(tmp_path / "set.yaml")
    assert "\n" not in str(caught.value) and ("set.yaml" in str(caught.value) or "nowhere" in message)


def test_options_that_a_yaml_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.voc(tmp_path)
    assert evaluate(path, "--light", "dark") == 2 and "leave out --light" in capsys.readouterr().err
    assert evaluate(path, "--images", "x") == 2 and "leave out --images" in capsys.readouterr().err
    assert evaluate("gone.yaml:val") == 1 and "gone.yaml: no such file" in capsys.readouterr().err


def test_the_pixels_of_voc_and_boxes_marked_difficult(tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    text = voc_xml("cup", first=1).replace("</name>", "</name><difficult>1</difficult>")
    write_text(tmp_path / "Annotations" / "1.xml", text)
    first, second = open_dataset(path).samples
    assert first.annotations[0].bbox == XYWH == second.annotations[0].bbox and not first.annotations[0].iscrowd
    path.write_text("layout: voc\nfirst-pixel: 0\ndifficult: ignore\n")
    (annotation,) = open_dataset(path).samples[0].annotations
    assert annotation.bbox == (17, 13, 31, 23) and annotation.iscrowd == 1


def test_train_entries_may_be_globs_lists_or_several(tmp_path: Path) -> None:
    layouts.yolo(tmp_path)
    for entry in ("images/*/*.png", "[images/train, images/val]", "all.txt"):
        write_text(tmp_path / "all.txt", "images/train/1.png\nimages/val/2.png\n")
        write_text(tmp_path / "set.yaml", f"names: [person, cup]\ntrain: {entry}\nsplit: train\n")
        samples = open_dataset(tmp_path / "set.yaml").samples
        assert [sample.name for sample in samples] == ["images/train/1.png", "images/val/2.png"]
        assert all(sample.annotations[0].bbox == pytest.approx(XYWH, abs=1e-3) for sample in samples)
    assert len(open_dataset(tmp_path / "set.yaml", limit=1).samples) == 1


def test_labels_of_a_raw_that_is_turned_are_upright(tmp_path: Path) -> None:
    """A camera held upright: the file is 64x48, the picture and the labels' fractions are 48x64."""
    layouts.write_camera(tmp_path / "images" / "a.dng", 1, orientation=6)
    write_text(tmp_path / "labels" / "a.txt", "0 0.5 0.25 0.5 0.25\n")
    write_text(tmp_path / "set.yaml", "layout: yolo\nnames: [cup]\n")
    (sample,) = open_dataset(tmp_path / "set.yaml").samples
    assert (sample.width, sample.height, sample.annotations[0].bbox) == (48, 64, (12, 8, 24, 16))


# malformed variants: refused with a message, or left out and reported


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_bytes(change(path.read_text(encoding="utf-8")).encode())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9 0.5 0.5 0.5 0.5", "1.txt:2: class id 9 is not among names (0 to 1)"),
        ("-1 0.5 0.5 0.5 0.5", "1.txt:2: class id -1 is not among names"),
        ("1.5 0.5 0.5 0.5 0.5", "1.txt:2: '1.5 0.5 0.5 0.5 0.5' is no label"),
        ("1 0.5 0.5 0 0.5", "1.txt:2: box 32.0 12.0 32.0 36.0 (xyxy) has no area"),
        (
            "1 0.9 0.5 0.5 0.5",
            "1.txt:2: box 41.6 12.0 73.6 36.0 (xyxy) does not lie inside images/train/1.png of 64x48",
        ),
        ("1 0.5 0.5 0.5", "is no label (4 values)"),
        ("1 0.5 0.5 0.5 nan", "is no label"),
        ("cup 0.5 0.5 0.5 0.5", "is no label"),
    ],
)
def test_a_bad_line_is_refused_or_dropped_and_reported(
    line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layouts.yolo(tmp_path)
    edit(tmp_path / "labels" / "train" / "1.txt", lambda text: text + line + "\n")
    with pytest.raises(DataError) as caught:
        open_dataset(Path(f"{path}:train"))
    assert message in str(caught.value) and "bad-labels: drop" in str(caught.value) and "\n" not in str(caught.value)
    edit(path, lambda text: text + "bad-labels: drop\n")
    dataset = open_dataset(Path(f"{path}:train"))
    assert isinstance(dataset, Labelled) and len(dataset.samples[0].annotations) == 1
    assert any(message in text for text in dataset.left_out.values())
    if line.startswith("9"):  # once from the command line is enough
        assert evaluate(f"{path}:train") == 3 and message in capsys.readouterr().err
        assert train(f"{path}:train") == 3 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>cup</name>", "", "1.xml: object 1: has no name"),
        ("<xmin>17</xmin>", "", "1.xml: object 1: has no bndbox with four numbers"),
        ("<xmin>17</xmin>", "<xmin>inf</xmin>", "object 1: xmin 'inf' is no finite number"),
        ("<xmin>17</xmin>", "<xmin>49</xmin>", "has no area"),
        ("<xmax>48</xmax>", "<xmax>99</xmax>", "does not lie inside JPEGImages/1.png"),
        ("</annotation>", "", "is no Pascal VOC file"),
        ("<annotation>", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>', "declares entities"),
    ],
)
def test_a_bad_xml_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    edit(tmp_path / "Annotations" / "1.xml", lambda text: text.replace(old, new))
    with pytest.raises(DataError, match=r"1\.xml") as caught:
        open_dataset(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100000, "is nested too deeply"),
        ("[]", "has no list `shapes`"),
        ('{"shapes": {"0": 1}}', "has no list `shapes`"),
        ('{"shapes": [], "imageWidth": 1e9, "imageHeight": 3}', "has no list `shapes` (a size of 1000000000.0)"),
        ('{"shapes": [{"label": "Car", "points": [[1, NaN], [3, 4]]}]}', "holds NaN, which is not a JSON number"),
        ('{"shapes": [{"label": "Car", "points": [[1, 1e999], [3, 4]]}]}', "shape 1: needs a label and two points"),
        ('{"shapes": [{"label": "Car", "points": ["12", "34"]}]}', "shape 1: needs a label and two points"),
        (
            '{"shapes": [{"label": {}, "points": [[1, 2], [3, 4]]}]}',
            "shape 1: needs a label and two points, has label {}",
        ),
        ('{"shapes": ["Car"]}', "shape 1: needs a label and two points"),
        ('{"shapes": [{"label": "Car"}]}', "shape 1: needs a label and two points"),
        ('{"shapes": [{"label": "Car", "points": [[1, 2], [3]]}]}', "shape 1: needs a label and two points"),
        ('{"shapes": [{"label": "Car", "points": [[1, 2], [90, 20]]}]}', "does not lie inside train/day-00001.raw"),
    ],
)
def test_a_bad_json_of_rod_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = layouts.rod(tmp_path)
    write_text(tmp_path / "train" / "day-00001.json", content)
    with pytest.raises(DataError, match=r"day-00001\.json") as caught:
        open_dataset(Path(f"{path}:train"))
    assert message in str(caught.value)


def test_a_missing_label_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """YOLO: the image shows nothing. Others: it is left out and reported, unless the YAML says otherwise."""
    path = layouts.yolo(tmp_path / "yolo")
    write_png(tmp_path / "yolo" / "images" / "train" / "3.png", 3)
    assert [len(s.annotations) for s in open_dataset(Path(f"{path}:train")).samples] == [1, 0]
    path = layouts.voc(tmp_path / "voc")
    (tmp_path / "voc" / "Annotations" / "2.xml").unlink()
    assert evaluate(path) == 3
    assert "2.png: has no label file" in capsys.readouterr().err and ap50(tmp_path / "report") == 1
    path.write_text("layout: voc\nmissing-labels: background\n")
    assert [len(s.annotations) for s in open_dataset(path).samples] == [1, 0]
    path.write_text("layout: voc\nmissing-labels: refuse\n")
    with pytest.raises(DataError, match=r"2\.png: has no label file"):
        open_dataset(path)


def test_a_label_without_image_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.nod(tmp_path)
    (tmp_path / "raw" / "DSC01.NEF").unlink()
    with pytest.raises(DataError, match="none of its images is below"):
        open_dataset(Path(f"{path}:train"))
    path = layouts.lod(tmp_path)
    edit(tmp_path / "LOD" / "trainval" / "val.txt", lambda text: text + "98\n")
    assert evaluate(f"{path}:val") == 3 and "98: there is no image of this name" in capsys.readouterr().err


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_lists_and_labels_with_other_line_ends_and_separators(ends: str, tmp_path: Path) -> None:
    path = layouts.lod_yolo(tmp_path)
    edit(tmp_path / "train.txt", lambda text: "\ufeff" + text.replace("/", "\\").replace("\n", ends) + ends)
    edit(tmp_path / "labels" / "2.txt", lambda text: "\ufeff" + text.replace("\n", ends))
    (sample,) = open_dataset(Path(f"{path}:train")).samples
    assert sample.annotations[0].bbox == pytest.approx(XYWH, abs=1e-3)
    path = layouts.voc(tmp_path / "voc")
    write_text(tmp_path / "voc" / "ImageSets" / "Main" / "train.txt", f"1{ends}2{ends}")
    assert len(open_dataset(Path(f"{path}:train")).samples) == 2


def test_lists_of_one_class_beside_those_of_splits(tmp_path: Path) -> None:
    """As Pascal VOC has them: 1 for shown, -1 for not shown, 0 for difficult ones only."""
    path = layouts.voc(tmp_path)
    for name, text in {"cup_train": "1  1\n2 -1\n", "cup_val": "2  0\n"}.items():
        write_text(tmp_path / "ImageSets" / "Main" / f"{name}.txt", text)
    assert splits_of(read_config(path)) == ("train", "val")
    with pytest.raises(DataError, match=r"cup_val\.txt: lists whether each image shows a class .*name a split"):
        open_dataset(Path(f"{path}:cup_val"))


def test_absolute_paths_in_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.lod_yolo(tmp_path)
    write_text(tmp_path / "train.txt", f"{tmp_path / 'RAW_dark' / '2.png'}\n/another/machine/RAW_dark/4.png\n")
    first, second = open_dataset(Path(f"{path}:train")).samples
    assert first.annotations[0].bbox == pytest.approx(XYWH, abs=1e-3) and second.annotations == ()
    assert evaluate(f"{path}:train") == 3
    assert "/another/machine/RAW_dark/4.png" in capsys.readouterr().err


def test_names_that_are_not_ascii(tmp_path: Path) -> None:
    """As they are, and unpacked by a Mac, which takes the letters apart."""
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        stem, there = "Straße mit Übergang 夜", unicodedata.normalize(form, "Straße mit Übergang 夜")
        write_png(folder / "RAW_dark" / f"{there}.png", 1)
        write_text(folder / "labels" / f"{there}.txt", yolo_line(41))
        write_text(folder / "train.txt", f"RAW_dark/{stem}.png\n")
        write_text(folder / "yolo.yaml", "layout: lod\nannotations: yolo\n")
        assert len(open_dataset(Path(f"{folder / 'yolo.yaml'}:train")).samples[0].annotations) == 1
        write_text(folder / "RAW-dark-Annotations" / f"{there}.xml", voc_xml("cup"))
        write_text(folder / "trainval" / "train.txt", f"{stem}\n")
        dataset = open_set(Path(f"{write_text(folder / 'voc.yaml', 'layout: lod')}:train"))
        assert len(dataset.samples[0].annotations) == 1 and dataset.problems == []
    bad = tmp_path / "NFC" / "train.txt"
    bad.write_bytes(b"RAW_dark/\xff.png\n")
    with pytest.raises(DataError, match=r"train\.txt: is not UTF-8 text"):
        open_dataset(Path(f"{tmp_path / 'NFC' / 'yolo.yaml'}:train"))


def test_images_of_several_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fractions fit any size; pixels of another size are reported, those of another shape refused to be scaled."""
    path = layouts.yolo(tmp_path / "yolo")
    layouts.write_png16(layouts.rgb(5, 96, 80), tmp_path / "yolo" / "images" / "train" / "5.png")
    write_text(tmp_path / "yolo" / "labels" / "train" / "5.txt", yolo_line(1))
    sizes = [(s.width, s.height, s.annotations[0].bbox[2]) for s in open_dataset(Path(f"{path}:train")).samples]
    assert sizes == [(64, 48, 32), (96, 80, 48)]
    path = layouts.voc(tmp_path / "voc")
    layouts.write_png16(layouts.rgb(5, 96, 80), tmp_path / "voc" / "JPEGImages" / "2.png")
    assert evaluate(path) == 3 and "is 96x80 upright, its labels say 64x48" in capsys.readouterr().err
    edit(path, lambda text: text + "scale-labels: true\n")
    assert evaluate(path, out="other") == 3
    assert "is 96x80 upright, its labels are made on 64x48" in capsys.readouterr().err


def test_raws_that_cannot_be_read_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four channels, a cut file and an empty one beside a good one."""
    imagecodecs = pytest.importorskip("imagecodecs")
    path = layouts.yolo(tmp_path)
    images = tmp_path / "images" / "train"
    (images / "rgba.png").write_bytes(imagecodecs.png_encode(np.full((48, 64, 4), 900, np.uint16)))
    (images / "cut.png").write_bytes((images / "1.png").read_bytes()[:400])
    (images / "empty.png").touch()
    for stem in ("rgba", "cut", "empty"):
        write_text(tmp_path / "labels" / "train" / f"{stem}.txt", yolo_line(1))
    assert evaluate(f"{path}:train") == 3
    error = capsys.readouterr().err
    assert "rgba.png: has shape 48x64x4; save it with one channel" in error
    assert "cut.png: is damaged" in error and "empty.png: is empty" in error
    assert train(f"{path}:train", "--budget", 8) == 3  # a batch meets all four
    assert set(json.loads((tmp_path / "run" / "summary.json").read_text())["skipped"]) == {
        f"images/train/{stem}.png (draw 0)" for stem in ("rgba", "cut", "empty")
    }


def test_two_files_of_one_name_are_told_apart_by_extension(tmp_path: Path) -> None:
    path = layouts.oneplus(tmp_path)
    write_png(tmp_path / "raw" / "IMG_1.png", 1)
    assert open_dataset(Path(f"{path}:train")).samples[0].name == "raw/IMG_1.dng"
    edit(path, lambda text: text + "extensions: []\n")
    with pytest.raises(DataError, match=r"IMG_1\.dng and .*IMG_1\.png have the same name; say which"):
        open_dataset(Path(f"{path}:train"))


def test_a_coco_json_with_ids_that_are_texts_or_zero(tmp_path: Path) -> None:
    path = layouts.coco(tmp_path)
    shutil.copy(tmp_path / "images" / "1.png", tmp_path / "images" / "b.png")
    content = json.loads((tmp_path / "train.json").read_text())
    content["images"] = [{**content["images"][0], "id": 0}, {**content["images"][0], "id": 1, "file_name": "b.png"}]
    content["annotations"][0]["image_id"] = 1
    write_text(tmp_path / "train.json", json.dumps(content))
    dataset = open_dataset(Path(f"{path}:train"))
    assert [(s.image_id, len(s.annotations)) for s in dataset.samples] == [(0, 0), (1, 1)]
    content["images"][1]["id"] = content["annotations"][0]["image_id"] = "b"
    content["images"][0]["id"] = "a"
    write_text(tmp_path / "train.json", json.dumps(content))
    assert [len(s.annotations) for s in open_dataset(Path(f"{path}:train")).samples] == [0, 1]
    content["annotations"][0]["image_id"] = "c"
    write_text(tmp_path / "train.json", json.dumps(content))
    with pytest.raises(DataError, match="image_id 'c' must be a whole number"):
        open_dataset(Path(f"{path}:train"))


def test_the_examples_of_the_document_are_accepted(tmp_path: Path) -> None:
    """Each YAML in docs/datasets.md names keys that exist and a layout that there is."""
    text = (REPOSITORY / "docs" / "datasets.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) >= 10
    seen = set()
    for number, example in enumerate(examples):
        content = yaml.safe_load(example)
        (tmp_path / content.get("root", ".")).mkdir(parents=True, exist_ok=True)
        seen.add(read_config(write_text(tmp_path / f"{number}.yaml", example)).layout)
    assert seen == set(READERS.names())
    keys = set(re.findall(r"`([a-z-]+)`", text.split("| key | meaning |")[1].split("**Classes**")[0]))
    options = {name.replace("_", "-") for name in SetOptions.__dataclass_fields__}
    assert options <= keys and {f"raw-{key}" for key in ("size", "bits", "pattern", "black", "white")} <= keys


def test_doubtful_levels_are_said_once_by_eval_and_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Red boxes of 30000 in both images are above a white level of 20000."""
    path = layouts.voc(tmp_path)
    path.write_text(path.read_text() + "raw-white: 20000\n")
    doubt = "of its values are above the white level 20000"
    assert evaluate(path) == 0
    assert capsys.readouterr().err.count(doubt) == 1
    (note,) = [line for line in json.loads((tmp_path / "report" / "report.json").read_text())["notes"] if doubt in line]
    assert note.startswith("Raws: values above the white level: 2 files, the first is ")
    assert train(path) == 0
    assert capsys.readouterr().err.count(doubt) == 1

"""Label files that other tools write, or that nobody should have written: read, refused or noted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.cli.exit_codes import DONE, DONE_WITH_SKIPS, FAILED
from adaptiveisp.cli.parser import main
from adaptiveisp.data.formats.coco import CocoImage, load_coco
from adaptiveisp.data.formats.voc import parse_xml
from adaptiveisp.data.opening import SyntheticRaws, open_dataset
from adaptiveisp.data.synthesize import synthesize_set
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.coco_ap import ScoredImage, finds_anything
from adaptiveisp.types import Annotation
from tests.conftest import REPOSITORY
from tests.support import layouts
from tests.support.layouts import HEIGHT, WIDTH, voc_xml, write_camera, write_png, write_text, yolo_line
from tests.support.photos import labelled_photos

RED = "tests.support.fake_detector:load"
XYWH = [16, 12, 32, 24]


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_figures: None) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def doctor(data: object, *more: object) -> int:
    return main(["doctor", str(data), "--detector", RED, "--overwrite", "--out", "checked", *map(str, more)])


def found() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("checked", "doctor.json").read_text())
    return content


def evaluate(data: object, *more: object) -> int:
    options = ("--policy", "none", "--size", 64, "--resamples", 200, "-q", "--overwrite", "--out", "report")
    return main([str(o) for o in ("eval", "--data", data, "--detector", RED, *options, *more)])


def train(data: object, *more: object) -> int:
    quick = ("--method", "fixed", "--budget", 8, "--size", 64, "--out", "run", "--overwrite")
    return main([str(o) for o in ("train", "--data", data, "--detector", RED, *quick, *more)])


def coco(
    label: dict[str, Any] | None = None,
    image: dict[str, Any] | None = None,
    categories: list[dict[str, Any]] | None = None,
    name: str = "a.png",
) -> Path:
    """A JSON of one raw, which has the red cup that the detector finds; `label` and `image` replace values."""
    if not Path(name).exists() and name.endswith(".png"):
        write_png(Path(name), 1)
    images = [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT, **(image or {})}]
    labels = [{"id": 1, "image_id": 1, "category_id": 3, "bbox": XYWH, **(label or {})}]
    known = categories or [{"id": 3, "name": "cup"}]
    return write_text(Path("set.json"), json.dumps({"images": images, "annotations": labels, "categories": known}))


HERE = ("--images", ".")


# units, crowds, nothing that matches


def test_fractions_where_pixels_are_expected(capsys: pytest.CaptureFixture[str]) -> None:
    data = coco({"bbox": [0.25, 0.25, 0.5, 0.5]})
    assert doctor(data, *HERE) == FAILED and found()["problem_counts"] == {"wrong unit": 1}
    assert evaluate(data, *HERE) == FAILED and train(data, *HERE) == FAILED
    assert capsys.readouterr().err.count("these look like fractions (0 to 1); write pixels") == 2
    # A box of one pixel elsewhere is small, but no fraction; one that ends a little further out neither.
    for box in ([1, 0, 1, 1], [0, 0, 1.5, 1], [0, 40, 0.5, 0.5]):
        assert load_coco(coco({"bbox": box})).notes == ()


def test_some_fractions_among_pixels_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(coco().read_text())
    content["annotations"].append({"id": 2, "image_id": 1, "category_id": 3, "bbox": [0.1, 0.2, 0.3, 0.4]})
    data = write_text(Path("set.json"), json.dumps(content))
    note = "1 of 2 boxes end within the first pixel of their image, first in a.png: are these fractions"
    assert doctor(data, *HERE) == DONE and note in found()["notes"][0]
    assert note in Path("checked", "doctor.html").read_text()
    assert evaluate(data, *HERE) == DONE and note in capsys.readouterr().err
    assert any(note in line for line in json.loads(Path("report", "report.json").read_text())["notes"])
    assert train(data, *HERE) == DONE and note in capsys.readouterr().err


def test_boxes_that_reach_nowhere_are_noted() -> None:
    """Labels of a copy of half the size: all boxes lie in the upper left quarter."""
    content = json.loads(coco().read_text())
    places = [(x, y) for x in range(0, 24, 4) for y in range(0, 20, 4)]
    content["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 3, "bbox": [x, y, 8, 4]} for i, (x, y) in enumerate(places)
    ]
    data = write_text(Path("set.json"), json.dumps(content))
    note = "all 30 boxes end within the first 44% of the width and 42% of the height of their images"
    assert load_coco(data).notes == (f"{note}: were they made on smaller copies?",)
    content["annotations"][0]["bbox"] = [50, 0, 8, 4]
    assert load_coco(write_text(Path("set.json"), json.dumps(content))).notes == ()


def test_names_of_classes_are_printable_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    data = coco(None, None, [{"id": 3, "name": "cup"}, {"id": 4, "name": "\x1b[31m" + "x" * 5000}])
    assert max(map(len, load_coco(data).categories.values())) == 100
    content = json.loads(data.read_text())
    content["annotations"].append({"id": 2, "image_id": 1, "category_id": 4, "bbox": [60, 1, 30, 9]})
    content["images"][0]["file_name"] = "\x1b[2Ja.png"
    write_png(Path("\x1b[2Ja.png"), 1)
    write_text(Path("set.json"), json.dumps(content))
    doctor("set.json", *HERE)
    assert "\x1b" not in capsys.readouterr().out


def test_fractions_in_xml_and_pixels_in_yolo_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.voc(tmp_path / "voc")
    for number in (1, 2):
        text = voc_xml("cup", scale=1 / 96)
        write_text(
            tmp_path / "voc" / "Annotations" / f"{number}.xml",
            text[: text.index("<size>")] + text[text.index("<object>") :],
        )
    path.write_text("layout: voc\nfirst-pixel: 0\nbad-labels: drop\n")
    with pytest.raises(DataError, match="all 2 boxes end within the first pixel"):
        open_dataset(path)
    path = layouts.yolo(tmp_path / "yolo")
    write_text(tmp_path / "yolo" / "labels" / "train" / "1.txt", "1 32 24 32 24\n")
    with pytest.raises(
        DataError, match=r"1\.txt:1: '1 32 24 32 24' is in pixels, not in fractions; divide x and width"
    ):
        open_dataset(Path(f"{path}:train"))


def test_crowds_alone_leave_nothing_to_score(capsys: pytest.CaptureFixture[str]) -> None:
    data = coco({"iscrowd": 1})
    reason = "the only object is a crowd (iscrowd: 1, or marked difficult), which is neither learned from nor scored"
    assert doctor(data, *HERE) == FAILED and reason in capsys.readouterr().out
    assert evaluate(data, *HERE) == FAILED and reason in capsys.readouterr().err
    assert train(data, *HERE) == FAILED and reason in capsys.readouterr().err


def test_a_detector_that_hits_no_label_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    note = "red: none of its boxes overlaps a label of its class"
    assert evaluate(coco(), *HERE) == DONE and note not in capsys.readouterr().err
    assert evaluate(coco({"bbox": [50, 1, 9, 9]}), *HERE) == DONE and note in capsys.readouterr().err


def test_overlap_by_hand() -> None:
    """Boxes of 10x10: moved by 3, 70 of 130 are shared (0.54); moved by 4, 60 of 140 (0.43)."""

    def hits(move: float, category: int = 1, crowd: int = 0) -> bool:
        label = Annotation(1, (20.0, 30.0, 10.0, 10.0), 100.0, crowd)
        boxes = np.array([[20.0 + move, 30, 30 + move, 40]])
        return finds_anything([ScoredImage(1, 0, None, (label,), boxes, np.ones(1), np.array([category]))], {1})

    assert hits(0) and hits(3) and not hits(4) and not hits(-4) and not hits(0, category=2) and not hits(0, crowd=1)
    assert not finds_anything([], {1})


def test_images_of_which_none_has_a_label_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.yolo(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "txt")
    assert doctor(f"{path}:train") == FAILED
    assert "none of its 1 images has a label file; looked for" in found()["notes"][0]
    assert train(f"{path}:train") == FAILED and "none of its 1 images has a label file" in capsys.readouterr().err


# what other tools write


def test_boxes_are_taken_from_polygons(capsys: pytest.CaptureFixture[str]) -> None:
    for missing in ({"bbox": None}, {"bbox": []}):
        outlines = [[20, 12, 48, 20, 30, 30], [16, 18, 20, 36, 25, "20"]]
        (image,) = load_coco(coco({**missing, "segmentation": outlines, "area": 300})).images
        assert image.annotations == (Annotation(3, (16, 12, 32, 24), 300, 0),)
    (image,) = load_coco(coco({"bbox": None, "segmentation": [16, 12, 48, 12, 48, 36]})).images  # one, not in a list
    assert image.annotations[0].bbox == (16, 12, 32, 24)
    data = coco({"bbox": None, "segmentation": [[16, 12, 48, 12, 48, 36, 16, 36]]})
    assert doctor(data, *HERE) == DONE
    assert found()["notes"] == ["1 annotations have no bbox; their boxes are those of their polygons"]
    assert evaluate(data, *HERE) == DONE and "boxes are those of their polygons" in capsys.readouterr().err
    assert json.loads(Path("report", "report.json").read_text())["policies"]["none"]["red"]["ap50"] == 1


def test_ids_that_are_texts() -> None:
    data = coco(
        {"image_id": "im_1", "category_id": "c"},
        {"id": "im_1"},
        [{"id": "b", "name": "dog"}, {"id": "c", "name": "cup"}],
    )
    dataset = open_dataset(data, Path())
    (sample,) = dataset.samples
    assert [dataset.categories[label.category_id] for label in sample.annotations] == ["cup"]
    assert doctor(data, *HERE) == DONE and evaluate(data, *HERE) == DONE
    with pytest.raises(DataError, match="image_id 'im_2' must be a whole number"):
        load_coco(coco({"image_id": "im_2"}, {"id": "im_1"}))


def test_backslashes_between_folders(tmp_path: Path) -> None:
    write_png(Path("sub", "deep", "a.png"), 1)
    data = coco(name="sub\\deep\\a.png", image={"file_name": "sub\\deep\\a.png"})
    Path("sub\\deep\\a.png").unlink()
    assert open_dataset(data, Path()).samples[0].source == Path("sub/deep/a.png")
    assert evaluate(data, *HERE) == DONE and doctor(data, *HERE) == DONE
    write_png(Path("sub\\deep\\a.png"), 2)  # a file of that very name wins
    assert open_dataset(data, Path()).samples[0].source == Path("sub\\deep\\a.png")


def test_photos_with_backslashes_train_and_become_raws(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=1)
    (tmp_path / "images" / "sub").mkdir()
    (tmp_path / "images" / "photo1.png").rename(tmp_path / "images" / "sub" / "photo1.png")
    labels.write_text(labels.read_text().replace("photo1.png", "sub\\\\photo1.png"))
    assert train(labels, "--images", "images", "--light", "dark") == DONE
    assert synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark"), {}).written == {
        "dark": 1
    }
    assert len(open_dataset(tmp_path / "out").samples) == 1


def test_names_of_files_of_another_extension(capsys: pytest.CaptureFixture[str]) -> None:
    write_camera(Path("raws", "a.dng"), 1)
    data = coco(name="raws/a.jpg")
    hint = "raws/a.jpg: no such file, but the raw a.dng is there"
    assert evaluate(data, *HERE) == FAILED and hint in capsys.readouterr().err
    assert doctor(data, *HERE) == FAILED and hint in capsys.readouterr().out
    path = write_text(Path("set.yaml"), "layout: coco\nlabels: set.json\nimages: raws\nby-stem: true\n")
    assert evaluate(path) == DONE and doctor(path) == DONE
    Path("raws", "a.jpg").write_bytes(b"a photo")
    assert evaluate(data, *HERE) == FAILED
    assert "is a photo, to be used with --light, but the raw a.dng is there" in capsys.readouterr().err
    doctor(data, *HERE)
    assert "1 images are photos with a raw of the same name beside them" in found()["notes"][0]


def test_a_byte_order_mark() -> None:
    data = coco()
    data.write_bytes(b"\xef\xbb\xbf" + data.read_bytes())
    assert len(load_coco(data).images) == 1


def roboflow(folder: Path, test: bool = False) -> Path:
    for split, number in {"train": 1, "valid": 2, **({"test": 3} if test else {})}.items():
        write_png(folder / split / "images" / f"{number}.png", number)
        write_text(folder / split / "labels" / f"{number}.txt", yolo_line(0))
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cup']\n"
    return write_text(folder / "data.yaml", text)


def test_exports_of_roboflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = roboflow(tmp_path / "set", test=True)
    assert doctor(path) == DONE and set(found()["splits"]) == {"train", "val", "test"}
    assert len(found()["notes"]) == 3 and "'../train/images' does not exist, and" in found()["notes"][0]
    assert train(f"{path}:train", "--dev", f"{path}:val") == DONE
    assert "'../train/images' does not exist, and" in capsys.readouterr().err
    write_png(tmp_path / "train" / "images" / "9.png", 9)  # now the place is there as it is written
    assert Path(open_dataset(Path(f"{path}:train")).samples[0].source.image.path).name == "9.png"


def test_a_split_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = roboflow(tmp_path / "set")
    assert doctor(path) == DONE_WITH_SKIPS and found()["problem_counts"] == {"unusable split": 1}
    text = path.read_text()
    path.write_text(text.replace("../train/", "../gone/"))  # training has nothing then
    assert doctor(path) == FAILED
    path.write_text(text.replace("/images", "/gone"))
    capsys.readouterr()
    assert doctor(path) == FAILED and "gone: no such folder, list or image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second"), [("Car", "car"), ("aeroplane", "airplane"), ("traffic light", "traffic_light")]
)
def test_two_spellings_of_a_class_are_one(first: str, second: str, tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    for number, name in enumerate((first, second), 1):
        write_text(tmp_path / "Annotations" / f"{number}.xml", voc_xml(name, first=1))
    dataset = open_dataset(path)
    assert dataset.categories == {1: first} and [s.annotations[0].category_id for s in dataset.samples] == [1, 1]
    assert dataset.notes == [f"{first!r} and {second!r} are spellings of one class, which is called {first!r} here"]
    path.write_text(f"layout: voc\nclasses: {{'{second}': null}}\n")
    assert [len(sample.annotations) for sample in open_dataset(path).samples] == [1, 0]
    checked = load_coco(coco({"category_id": 7}, None, [{"id": 3, "name": first}, {"id": 7, "name": second}]))
    assert checked.categories == {3: first} and checked.images[0].annotations[0].category_id == 3
    assert checked.notes == (f"categories 3 ({first}), 7 ({second}) are spellings of one class and become the first",)


def test_lists_of_names_are_five_and_a_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    categories = [{"id": 3, "name": "cup"}, *({"id": 100 + i, "name": f"odd {i:02}"} for i in range(75))]
    data = coco(None, None, categories)
    counted = "odd 00, odd 01, odd 02, odd 03, odd 04 and 70 more"
    assert evaluate(data, *HERE) == DONE and counted in capsys.readouterr().err
    assert train(data, *HERE) == DONE and counted in capsys.readouterr().err
    assert evaluate(coco({"category_id": 100}, None, categories[1:]), *HERE) == FAILED
    assert counted in capsys.readouterr().err
    names = json.dumps([entry["name"] for entry in categories])
    text = f"names: {names}\nclasses: {{mug: cup}}\ntrain: images\nsplit: train\n"
    layouts.yolo(tmp_path)
    assert train(write_text(Path("many.yaml"), text)) == 2
    assert "there are cup, odd 00, odd 01, odd 02, odd 03 and 71 more" in capsys.readouterr().err


def test_objects_that_are_labelled_twice_are_noted() -> None:
    content = json.loads(coco().read_text())
    content["annotations"] *= 2
    assert load_coco(write_text(Path("set.json"), json.dumps(content))).notes == (
        "1 objects in 1 images are labelled more than once with the same class and box",
    )


# paths that lead out: read and noted, never written


def test_paths_that_lead_out_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_png(tmp_path / "else" / "b.png", 1)
    (tmp_path / "images").mkdir()
    for name in ("../else/b.png", str(tmp_path / "else" / "b.png")):
        data = coco(image={"file_name": name})
        assert evaluate(data, "--images", "images") == DONE
        assert "so the set cannot be moved and may read files outside its folder: " in capsys.readouterr().err
        assert doctor(data, "--images", "images") == DONE and len(found()["notes"]) == 1


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["../photo1.png", "../../photo1.png", "ABSOLUTE", "x/../../photo1.png"])
def test_nothing_that_a_data_set_names_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command that writes, on a set whose names lead out: all else stays as it was."""
    home = tmp_path / "home" / "deep"
    labels = labelled_photos(home, n=1)
    (home / "images" / "photo1.png").rename(home / "photo1.png")
    (tmp_path / "home" / "photo1.png").write_bytes((home / "photo1.png").read_bytes())
    (home / "images" / "x").mkdir()
    name = name.replace("ABSOLUTE", str(home / "photo1.png"))
    labels.write_text(labels.read_text().replace('"photo1.png"', json.dumps(name)))
    before = tree(tmp_path)
    out = tmp_path / "made"
    given = ("--data", str(labels), "--images", str(home / "images"))
    for kind in ("png16", "dng"):
        command = [
            "synth",
            *given,
            "--light",
            "dark",
            "--format",
            kind,
            "--out",
            str(out / "raws"),
            "-q",
            "--overwrite",
        ]
        assert main(command) == DONE and "so the set cannot be moved" in capsys.readouterr().err
    assert evaluate(out / "raws", "--cache", out / "frames", "--out", out / "report") == DONE
    train(out / "raws", "--cache", out / "frames", "--out", out / "run")
    after = tree(tmp_path)
    assert {path: after.get(path) for path in before} == before
    assert all(Path(path).is_relative_to(out) for path in after if path not in before)


# types, bombs, pipes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is no mapping of names to lists"),
        ({"images": {}, "annotations": [], "categories": []}, "images is no list"),
        ({"images": [], "annotations": []}, "lacks the list categories"),
        ({"images": [3], "annotations": [], "categories": []}, "image 1: 3 is no mapping"),
        ({"images": [], "annotations": [], "categories": [[]]}, r"category 1: \[\] is no mapping"),
        ({"images": [], "annotations": [], "categories": [{"id": 1}]}, "category 1: lacks name"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": {}}]}, "category 1: name {} must be text"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": " "}]}, "category 1: name ' ' must be"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": True}]}, "category 1: name True must be"),
    ],
)
def test_the_shape_of_a_coco_json(content: object, message: str) -> None:
    data = write_text(Path("set.json"), json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_coco(data)
    assert doctor(data, *HERE) == FAILED


def test_annotations_that_are_no_mappings(capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(coco().read_text())
    content["annotations"].append("x")
    data = write_text(Path("set.json"), json.dumps(content))
    assert evaluate(data, *HERE) == FAILED and "annotation 2: 'x' is no mapping" in capsys.readouterr().err
    assert doctor(data, *HERE) == FAILED


def test_json_that_is_deep_or_holds_numbers_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    write_text(Path("deep.json"), '{"images": ' + "[" * 200_000)
    write_text(Path("long.json"), '{"images": [{"id": ' + "9" * 6000 + "}]}")
    for name, message in {"deep": "is nested too deeply", "long": "is not valid JSON"}.items():
        assert doctor(f"{name}.json", *HERE) == FAILED
        assert message in capsys.readouterr().err


BOMB = '<!DOCTYPE a [<!ENTITY a0 "xxxxxxxxxx">' + "".join(
    f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12)
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp037"])
def test_xml_with_entities_is_refused_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    text = f"{BOMB}]><annotation><object><name>&a11;</name></object></annotation>"
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    content = head.encode() + text.encode(encoding) if encoding == "cp037" else (head + text).encode(encoding)
    path = layouts.voc(tmp_path)
    (tmp_path / "Annotations" / "1.xml").write_bytes(content)
    with pytest.raises(
        DataError, match=r"1\.xml: is no Pascal VOC file \((declares entities|unknown encoding|not well)"
    ):
        open_dataset(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><a>&x;</a>', "declares entities"),
        (b'<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/hostname"> %x;]><a/>', "declares entities"),
        (b"<a>" * 60 + b"</a>" * 60, "nested more than 50 levels"),
    ],
)
def test_xml_that_no_label_needs(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_xml(content)


def test_plain_xml_is_read_in_several_encodings() -> None:
    text = '<?xml version="1.0" encoding="{}"?><!DOCTYPE a><annotation><n a="1">Straße</n><n>2</n></annotation>'
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        root = parse_xml(text.format(encoding).encode(encoding))
        assert [element.text for element in root.findall("n")] == ["Straße", "2"] and root.find("n").get("a") == "1"


@pytest.mark.parametrize("value", ["-5", "1e9", "nan", "inf", "wide"])
def test_sizes_in_xml(value: str, tmp_path: Path) -> None:
    path = layouts.voc(tmp_path)
    text = voc_xml("cup").replace(f"<width>{WIDTH}", f"<width>{value}")
    write_text(tmp_path / "Annotations" / "1.xml", text)
    with pytest.raises(DataError, match=rf"1\.xml: is no Pascal VOC file \(a size of '{value}'\)"):
        open_dataset(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    voc, yolo, rod = (make(tmp_path / make.__name__) for make in (layouts.voc, layouts.yolo, layouts.rod))
    for file in ("voc/Annotations/1.xml", "yolo/labels/train/1.txt", "rod/train/day-00001.json"):
        (tmp_path / file).unlink()
        os.mkfifo(tmp_path / file)
    with pytest.raises(DataError, match=r"1\.xml: .*is no file"):
        open_dataset(voc)
    with pytest.raises(DataError, match=r"day-00001\.json: .*is no file"):
        open_dataset(Path(f"{rod}:train"))
    assert doctor(f"{yolo}:train") == FAILED
    os.mkfifo(tmp_path / "photo.png")
    labels = coco(image={"file_name": "photo.png"})
    photos = SyntheticRaws(labels, tmp_path, SynthesisConfig("dark"))
    with pytest.raises(DataError, match="cannot be read as a photo"):
        photos.read(photos.samples[0])


def test_names_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = layouts.lod_yolo(tmp_path)
    text = (tmp_path / "train.txt").read_text()
    write_text(tmp_path / "train.txt", text + "x" * 300 + ".png\n" + "é" * 200 + "\\b.png\nnul\0.png\n")
    assert evaluate(f"{path}:train") == DONE_WITH_SKIPS and capsys.readouterr().err.count("skipped: ") == 3
    assert doctor(f"{path}:train") == DONE_WITH_SKIPS and found()["problem_counts"] == {"unreadable": 3}
    assert evaluate(coco(image={"file_name": "x" * 300 + ".png"}), *HERE) == FAILED


@pytest.mark.parametrize(
    "names", ["{0: no, 1: cup}", "[no, cup]", "{0: null, 1: cup}", "{0: [a], 1: cup}", "['', cup]"]
)
def test_names_in_yaml_that_are_no_texts(names: str, tmp_path: Path) -> None:
    path = layouts.yolo(tmp_path)
    write_text(path, f"names: {names}\ntrain: images/train\nsplit: train\n")
    with pytest.raises(
        DataError, match=r"data\.yaml: names: .* is no text; put class names such as \"no\" into quotes"
    ):
        open_dataset(path)


def test_numbers_are_those_of_people(tmp_path: Path) -> None:
    """Python also takes 1_0, and digits of other scripts, for numbers."""
    path = layouts.yolo(tmp_path)
    for line in ("1 0.5 0.5 0_0.5 0.5", "1 0.5 0.5 0.5 ٠.5", "1 1e999 0.5 0.5 0.5", "1e400 0.5 0.5 0.5 0.5"):
        write_text(tmp_path / "labels" / "train" / "1.txt", line)
        with pytest.raises(DataError, match=r"is no label \(no numbers\)"):
            open_dataset(Path(f"{path}:train"))


def test_the_images_alone_need_no_labels() -> None:
    data = coco({"bbox": None})
    (image,) = load_coco(data, labelled=False).images
    assert image == CocoImage(1, "a.png", WIDTH, HEIGHT, (), photo_id=1, draw=0, light=None)

import json
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.opening import CocoRaws, Dataset, SyntheticRaws, open_dataset
from adaptiveisp.data.synthesize import output_stems, synthesize_set
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import DataError, UsageError
from tests.support.photos import labelled_photos


def test_labels_are_read_with_their_crowds(tmp_path: Path) -> None:
    labels = load_coco(labelled_photos(tmp_path))
    assert [image.id for image in labels.images] == [10, 20, 30]
    assert [a.iscrowd for a in labels.images[0].annotations] == [0, 1]
    assert labels.categories == {1: "person", 47: "cup", 62: "chair"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, "belongs to image 99, which is not listed"),
        ({"category_id": 99}, "unknown class id 99"),
        ({"bbox": [60, 10, 10, 10]}, "does not lie inside its image"),
        ({"bbox": [-5, 10, 10, 10]}, "does not lie inside its image"),
        ({"bbox": [1, 1, -3, 10]}, "does not lie inside its image"),
        ({"bbox": [1, 1, float("nan"), 10]}, "holds NaN, which is not a JSON number"),
        ({"bbox": [1, 1, 10**400, 10]}, "annotation 2: bbox .* must be four numbers x, y, width, height"),
        ({"bbox": [1, 1, "wide", 10]}, "annotation 2: bbox .* must be four numbers"),
        ({"area": -1}, "annotation 2: area -1 must be from 0"),
        ({"area": 1e11}, "annotation 2: area 100000000000.0 must be from 0"),
        ({"area": "big"}, "annotation 2: area 'big' must be from 0"),
        ({"image_id": 1.5}, "annotation 2: image_id 1.5 must be a whole number"),
        ({"iscrowd": 2}, "annotation 2: iscrowd 2 must be a whole number from 0 to 1"),
        ({"bbox": [1, 1, 10]}, "annotation 2: bbox .* must be four numbers"),
        ({"bbox": "1234"}, "annotation 2: bbox '1234' must be four numbers"),
        ({"bbox": [True, 1, 10, 10]}, "annotation 2: bbox .* must be four numbers"),
        ({"bbox": {"x": 1}}, "annotation 2: bbox .* must be four numbers"),
        ({"bbox": None}, "annotation 2: has no bbox and no polygon"),
        ({"bbox": [], "segmentation": []}, "annotation 2: has no bbox and no polygon"),
        ({"bbox": None, "segmentation": {"counts": "x", "size": [48, 64]}}, "has a mask .* pycocotools.mask.toBbox"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4]]}, "polygon .* must be x, y of three points or more"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4, 5]]}, "polygon .* must be x, y of three points or more"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4, 5, "6x"]]}, "polygon .* must be x, y of three points or more"),
        ({"bbox": None, "segmentation": [[1, 2, 3, 4, 90, 6]]}, "does not lie inside its image"),
        ({"bbox": [40, 20, 60, 40]}, "does not lie inside .*these look like the corners x0, y0, x1, y1"),
    ],
)
def test_bad_annotations_are_named(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = labelled_photos(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][1].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def changed(path: Path, old: str, new: str) -> Path:
    """Replaces text of a label file, so that a test can write what `json.dumps` would not."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


FIRST = '"id": 10, "file_name": "photo1.png", "width": 64, "height": 48'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"id": 10,', '"id": Infinity,', "holds Infinity"),
        ('"id": 10,', '"id": 1e999,', "image 1: id inf must be a whole number"),
        ('"id": 10,', '"id": null,', "image 1: id None must be"),
        ('"id": 10,', "", "image 1: lacks id"),
        ('"width": 64', '"width": 1e999', "image 10: width inf must be a whole number from 1"),
        ('"width": 64', '"width": 0', "image 10: width 0 must be"),
        ('"width": 64', '"width": 1000000000', "image 10: width 1000000000 must be a whole number from 1 to 100000"),
        ('"width": 64', '"width": true', "image 10: width True must be"),
        ('"width": 64', '"width": 64.5', "image 10: width 64.5 must be"),
        ('"height": 48', '"height": -48', "image 10: height -48 must be"),
        ('"height": 48', f'"height": 1{"0" * 400}', "image 10: height 10000.* must be"),
        (FIRST, FIRST + ', "light": 0', "image 10: light 0 must be a number above 0"),
        (FIRST, FIRST + ', "light": 1.5', "image 10: light 1.5 must be"),
        (FIRST, FIRST + ', "light": 1e999', "image 10: light inf must be"),
        (FIRST, FIRST + ', "light": "dark"', "image 10: light 'dark' must be"),
        (FIRST, FIRST + ', "photo_id": -1', "image 10: photo_id -1 must be a whole number from 0"),
        (FIRST, FIRST + ', "draw": -1', "image 10: draw -1 must be a whole number from 0"),
        (FIRST, FIRST + ', "draw": 0.5', "image 10: draw 0.5 must be"),
        (FIRST, FIRST + ', "photo_id": 20', "images 10 and 20 are both draw 0 of photo 20"),
        ('"id": 20,', '"id": 10,', "image id 10 is listed twice"),
        ('"id": 62,', '"id": 47,', "category id 47 is listed twice"),
        ('"id": 62,', '"id": [],', r"category 3: id \[\] must be"),
        ('"name": "chair"', r'"name": "\ud800"', "category 3: name .* must be text"),
        *(
            ('"file_name": "photo1.png"', f'"file_name": {json.dumps(name)}', "image 10: file_name .* must be")
            for name in ("", ".", "./", "..", "a/..", "a\\..", "/", "a\0.jpg")
        ),
        ('"file_name": "photo1.png"', r'"file_name": "a\nb.jpg"', "image 10: file_name .* must be"),
        ('"file_name": "photo1.png"', r'"file_name": "\udcff.jpg"', "image 10: file_name .* must be text"),
        ('"file_name": "photo1.png"', '"file_name": null', "image 10: file_name None must be text"),
    ],
)
def test_bad_entries_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = changed(labelled_photos(tmp_path), old, new)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_values_that_may_be_missing_or_null(tmp_path: Path) -> None:
    path = changed(labelled_photos(tmp_path), FIRST, FIRST + ', "light": null, "photo_id": null, "draw": null')
    changed(path, '"file_name": "photo2.png"', '"file_name": "photo1.png", "light": 1, "photo_id": 10, "draw": 1')
    changed(path, '"id": 30', '"id": 30.0')
    first, second, third = load_coco(path).images
    assert (first.photo_id, first.draw, first.light) == (10, 0, None)
    assert (second.photo_id, second.draw, second.light, second.file_name) == (10, 1, 1.0, "photo1.png")
    assert third.id == 30 and isinstance(third.id, int)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": [], "annotations": [], "categories": []}'])
def test_bad_label_files_are_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"bad\.json"):
        load_coco(path)


def test_a_box_may_stick_out_by_rounding(tmp_path: Path) -> None:
    path = labelled_photos(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = [-0.4, 0, 64.9, 48.5]
    path.write_text(json.dumps(content))
    assert load_coco(path).images[0].annotations[0].bbox == (-0.4, 0, 64.9, 48.5)


def test_subsets_give_the_same_raws(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    images = tmp_path / "images"
    everything = SyntheticRaws(labels, images, SynthesisConfig("mixed", draws=2, seed=3))
    first = SyntheticRaws(labels, images, SynthesisConfig("mixed", draws=1, seed=3), limit=1)
    assert len(everything.samples) == 6 and len(first.samples) == 1
    same = everything.samples[0]
    assert same == first.samples[0]
    assert np.array_equal(everything.read(same).data, first.read(first.samples[0]).data)
    other = SyntheticRaws(labels, images, SynthesisConfig("mixed", draws=1, seed=4), limit=1)
    assert other.samples[0].light != same.light


@pytest.mark.parametrize("kind", ["png16", "dng"])
def test_the_folder_of_synth_equals_the_raws_made_on_the_fly(kind: str, tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    options = SynthesisConfig("dark,normal", draws=2, format=kind)
    summary = synthesize_set(labels, tmp_path / "images", tmp_path / "out", options, {"seed": 0})
    assert summary.written == {"dark": 6, "normal": 6} and summary.skipped == []
    made = open_dataset(tmp_path / "out" / "dark")
    live = SyntheticRaws(labels, tmp_path / "images", SynthesisConfig("dark", draws=2, format=kind))
    assert isinstance(made, Dataset) and isinstance(live, Dataset)
    for a, b in zip(made.samples, live.samples, strict=True):
        assert (a.image_id, a.draw, a.light, a.annotations) == (b.image_id, b.draw, b.light, b.annotations)
        from_file, from_memory = made.read(a), live.read(b)
        assert np.array_equal(from_file.data, from_memory.data)
        assert from_file.unprocessing == from_memory.unprocessing


def test_a_folder_of_several_lights_is_one_set_with_distinct_draws(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark,normal", draws=2), {})
    joined = open_dataset(tmp_path / "out", limit=2)
    assert sorted((s.image_id, s.draw) for s in joined.samples) == [(i, d) for i in (10, 20) for d in range(4)]
    for sample in joined.samples:
        assert sample.light is not None
        joined.read(sample)


def test_synth_reports_unusable_photos_and_goes_on(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    (tmp_path / "images" / "photo1.png").write_bytes(b"no picture")
    (tmp_path / "images" / "photo2.png").unlink()
    summary = synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark"), {})
    assert summary.written == {"dark": 1}
    assert ["cannot be read" in error or "no such photo" in error for _, error in summary.skipped] == [True, True]
    assert len(json.loads((tmp_path / "out" / "dark" / "labels.json").read_text())["images"]) == 1
    (tmp_path / "images" / "photo3.png").unlink()
    with pytest.raises(DataError, match=r"photo1\.png"):
        synthesize_set(labels, tmp_path / "images", tmp_path / "none", SynthesisConfig("dark"), {})


def test_lights_that_disagree_about_a_class_are_refused(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark,normal"), {})
    changed(tmp_path / "out" / "normal" / "labels.json", '"name": "cup"', '"name": "dog"')
    with pytest.raises(DataError, match="class id 47 is 'dog', but 'cup' in") as caught:
        open_dataset(tmp_path / "out")
    assert all(str(Path("out", light, "labels.json")) in str(caught.value) for light in ("dark", "normal"))


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_photos_that_differ_in_the_extension_or_not_at_all_get_files_of_their_own(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, 3)
    (tmp_path / "images" / "photo2.png").rename(tmp_path / "images" / "photo1.jpg")
    changed(labels, "photo2.png", "photo1.jpg")
    changed(labels, "photo3.png", "photo1.jpg")
    changed(labels, "photo1.png", "./photo1.png")
    summary = synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark"), {})
    assert summary.written == {"dark": 3}
    made, live = (
        open_dataset(tmp_path / "out" / "dark"),
        SyntheticRaws(labels, tmp_path / "images", SynthesisConfig("dark")),
    )
    names = [sample.name for sample in made.samples]
    assert names == ["images/photo1.png_0.png", "images/photo1.jpg-20_0.png", "images/photo1.jpg-30_0.png"]
    for a, b in zip(made.samples, live.samples, strict=True):
        assert np.array_equal(made.read(a).data, live.read(b).data)


@pytest.mark.parametrize(
    "names",
    [
        ("a.jpg", "a.png", "a.jpg.png"),
        ("A.jpg", "a.jpg"),
        ("a.jpg", "a.jpg", "a.jpg-1"),
        ("x/a", "x//a", "x/./a.png", "x/a-2.png"),
        ("..jpg", "...jpg", ".jpg"),
    ],
)
def test_names_of_raws_are_distinct_even_without_case(names: tuple[str, ...]) -> None:
    stems = output_stems(dict(enumerate(names)))
    assert set(stems) == set(range(len(names)))
    assert len({stem.casefold() for stem in stems.values()}) == len(names)


def test_nothing_is_written_outside_the_folder_of_images(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    (tmp_path / "images" / "sub").mkdir()
    (tmp_path / "images" / "photo1.png").rename(tmp_path / "images" / "sub" / "photo1.png")
    changed(labels, "photo1.png", "sub/photo1.png")
    (tmp_path / "out" / "dark" / "images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "dark" / "images" / "sub").symlink_to(tmp_path / "elsewhere")
    summary = synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark"), {})
    assert summary.written == {"dark": 2} and "a link leads out of" in summary.skipped[0][1]
    assert files_in(tmp_path / "elsewhere") == []


class Stop(Exception):
    pass


def test_an_interrupted_run_leaves_no_labels_of_what_it_replaces(tmp_path: Path) -> None:
    labels, out = labelled_photos(tmp_path), tmp_path / "out"
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark,normal"), {})
    count = 0

    def stop_in_the_second_light(name: str) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise Stop

    options = SynthesisConfig("normal,mixed", seed=1)
    with pytest.raises(Stop):
        synthesize_set(labels, tmp_path / "images", out, options, {}, stop_in_the_second_light)
    assert json.loads((out / "set.json").read_text())["lights"] == ["normal"]
    assert not (out / "mixed" / "labels.json").exists()
    # The light of the earlier run is still there, but not taken for one of this run.
    assert (out / "dark" / "labels.json").is_file()
    assert {s.light for s in open_dataset(out).samples} == {s.light for s in open_dataset(out / "normal").samples}
    count = 4
    with pytest.raises(Stop):
        synthesize_set(labels, tmp_path / "images", out, options, {}, stop_in_the_second_light)
    assert not (out / "normal" / "labels.json").exists()
    with pytest.raises(DataError, match=r"set\.json: lists no light"):
        open_dataset(out)


def test_a_second_run_removes_what_only_the_first_listed(tmp_path: Path) -> None:
    labels, out = labelled_photos(tmp_path), tmp_path / "out"
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark,normal", draws=2), {})
    (out / "dark" / "images" / "mine_0.png").touch()
    (out / "precious_0.png").touch()
    # A damaged or hostile label file names what is not the set's own.
    changed(out / "dark" / "labels.json", "images/photo3_1.png", "images/../../precious_0.png")
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark", draws=1), {}, limit=2)
    kept = ["mine_0.png", "photo1_0.png", "photo2_0.png"]
    assert files_in(out / "dark" / "images") == kept
    assert (out / "precious_0.png").is_file() and len(files_in(out / "normal" / "images")) == 6
    assert len(open_dataset(out).samples) == 2
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark", format="dng"), {})
    assert [name for name in files_in(out / "dark" / "images") if name.endswith("_0.png")] == ["mine_0.png"]


def test_a_run_that_can_use_no_photo_leaves_everything_as_it_was(tmp_path: Path) -> None:
    labels, out = labelled_photos(tmp_path), tmp_path / "out"
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark"), {})
    before = {name: (out / name).read_bytes() for name in files_in(out)}
    with pytest.raises(DataError, match="no such photo"):
        synthesize_set(labels, tmp_path / "gone", out, SynthesisConfig("dark", seed=1), {})
    assert {name: (out / name).read_bytes() for name in files_in(out)} == before


def test_synth_does_not_replace_its_own_labels(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path / "dark")
    with pytest.raises(UsageError, match="would be replaced"):
        synthesize_set(labels, tmp_path / "dark" / "images", tmp_path, SynthesisConfig("dark"), {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "must hold the names of the lights"),
        ('{"lights": "dark"}', "must hold the names of the lights"),
        ('{"lights": ["../dark"]}', "must hold the names of the lights"),
        ('{"lights": ["dark", "normal"]}', r"normal/labels\.json: no such file, but set\.json lists its light"),
        ("{", "is not valid JSON"),
    ],
)
def test_a_damaged_list_of_lights_is_refused(content: str, message: str, tmp_path: Path) -> None:
    labels, out = labelled_photos(tmp_path), tmp_path / "out"
    synthesize_set(labels, tmp_path / "images", out, SynthesisConfig("dark"), {})
    (out / "set.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_dataset(out)
    (out / "set.json").unlink()
    assert len(open_dataset(out).samples) == 3


def test_a_path_that_is_too_long_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        open_dataset(tmp_path / ("x" * 300))
    with pytest.raises(DataError, match="File name too long"):
        load_coco(tmp_path / ("x" * 300))


def test_a_photo_that_is_a_bomb_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = labelled_photos(tmp_path)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="cannot be read as a photo"):
        synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark"), {})


def test_what_data_may_be(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    assert isinstance(open_dataset(labels, tmp_path / "images"), CocoRaws)
    assert isinstance(open_dataset(labels, tmp_path / "images", light="dark"), SyntheticRaws)
    with pytest.raises(UsageError, match="--images"):
        open_dataset(labels)
    with pytest.raises(UsageError, match="leave out --light"):
        open_dataset(tmp_path, light="dark")
    with pytest.raises(DataError, match=r"adaptiveisp synth"):
        open_dataset(tmp_path / "images")
    with pytest.raises(DataError, match="no such file"):
        open_dataset(tmp_path / "nothing")

import json
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.datasets import CocoRaws, Dataset, SyntheticRaws, open_dataset
from adaptiveisp.datasets.coco import load_coco
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.synth import SynthOptions, synthesise_set
from tests.data import labelled_photos


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
        ({"bbox": [1, 1, float("nan"), 10]}, "does not lie inside its image"),
        ({"bbox": [1, 1, 10]}, "malformed"),
        ({"bbox": None}, "malformed"),
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
    everything = SyntheticRaws(labels, images, "mixed", draws=2, seed=3)
    first = SyntheticRaws(labels, images, "mixed", draws=1, seed=3, limit=1)
    assert len(everything.samples) == 6 and len(first.samples) == 1
    same = everything.samples[0]
    assert same == first.samples[0]
    assert np.array_equal(everything.read(same).data, first.read(first.samples[0]).data)
    other = SyntheticRaws(labels, images, "mixed", draws=1, seed=4, limit=1)
    assert other.samples[0].light != same.light


@pytest.mark.parametrize("kind", ["png16", "dng"])
def test_the_folder_of_synth_equals_the_raws_made_on_the_fly(kind: str, tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    options = SynthOptions(("dark", "normal"), draws=2, format=kind)
    summary = synthesise_set(labels, tmp_path / "images", tmp_path / "out", options, {"seed": 0})
    assert summary.written == {"dark": 6, "normal": 6} and summary.skipped == []
    made = open_dataset(tmp_path / "out" / "dark")
    live = SyntheticRaws(labels, tmp_path / "images", "dark", draws=2, as_mosaic=kind == "dng")
    assert isinstance(made, Dataset) and isinstance(live, Dataset)
    for a, b in zip(made.samples, live.samples, strict=True):
        assert (a.image_id, a.draw, a.light, a.annotations) == (b.image_id, b.draw, b.light, b.annotations)
        from_file, from_memory = made.read(a), live.read(b)
        assert np.array_equal(from_file.data, from_memory.data)
        assert from_file.unprocessing == from_memory.unprocessing


def test_a_folder_of_several_lights_is_one_set_with_distinct_draws(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    synthesise_set(labels, tmp_path / "images", tmp_path / "out", SynthOptions(("dark", "normal"), draws=2), {})
    joined = open_dataset(tmp_path / "out", limit=2)
    assert sorted((s.image_id, s.draw) for s in joined.samples) == [(i, d) for i in (10, 20) for d in range(4)]
    for sample in joined.samples:
        assert sample.light is not None
        joined.read(sample)


def test_synth_reports_unusable_photos_and_goes_on(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    (tmp_path / "images" / "photo1.png").write_bytes(b"no picture")
    (tmp_path / "images" / "photo2.png").unlink()
    summary = synthesise_set(labels, tmp_path / "images", tmp_path / "out", SynthOptions(("dark",)), {})
    assert summary.written == {"dark": 1}
    assert ["cannot be read" in error or "no such photo" in error for _, error in summary.skipped] == [True, True]
    assert len(json.loads((tmp_path / "out" / "dark" / "labels.json").read_text())["images"]) == 1
    (tmp_path / "images" / "photo3.png").unlink()
    with pytest.raises(DataError, match=r"photo1\.png"):
        synthesise_set(labels, tmp_path / "images", tmp_path / "none", SynthOptions(("dark",)), {})


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

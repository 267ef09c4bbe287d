"""Several data sets: which folder of images belongs to which, short names, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.sources import Source, names_of, shared_images, sources_of
from adaptiveisp.errors import UsageError
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place")


def test_a_folder_for_all_or_one_for_each_json(tmp_path: Path) -> None:
    (tmp_path / "raws").mkdir()
    assert sources_of("a.json", "x") == [Source("a.json", "x")]
    assert sources_of(["a.json", "b.json"], "x") == [Source("a.json", "x"), Source("b.json", "x")]
    assert sources_of(["a.json", "b.json"], ["x"]) == [Source("a.json", "x"), Source("b.json", "x")]
    mixed: list[Any] = ["a.json", "set.yaml:val", tmp_path / "raws", Path("b.json")]
    folders = [source.images for source in sources_of(mixed, ["x", Path("y")])]
    assert folders == ["x", None, None, Path("y")]
    assert [source.images for source in sources_of(mixed, "x")] == ["x", None, None, "x"]


@pytest.mark.parametrize(
    ("data", "images", "message"),
    [
        ([], None, "at least one data set"),
        (["a.json", "b.json"], ["x", "y", "z"], "3 folders for 2 COCO JSONs among 2 data sets"),
        (["a.json", "b.json", "c.json"], ["x", "y"], "2 folders for 3 COCO JSONs among 3 data sets"),
        (["a.json", "b.yaml"], ["x", "y"], "2 folders for 1 COCO JSONs among 2 data sets"),
        (["a.yaml", "b.yaml"], "x", "1 folders for 0 COCO JSONs"),
        ("a.json", ["x", "y"], "2 folders for 1 COCO JSONs among 1 data sets"),
        (["a.json", "./a.json"], "x", "a.json: this data set is given 2 times"),
        (["a.json", "b.json", "sub/../a.json"], ["x", "y", "./x"], "a.json: this data set is given 2 times"),
        (["a.yaml:val", "a.yaml:val"], None, "a.yaml:val: this data set is given 2 times"),
    ],
)
def test_data_that_do_not_fit(data: Any, images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sources_of(data, images)
    assert "\n" not in str(caught.value)


def test_the_same_labels_with_other_images_are_another_set() -> None:
    assert len(sources_of(["a.json", "a.json"], ["dark", "bright"])) == 2
    assert len(sources_of(["a.yaml:val", "a.yaml:train"], None)) == 2


def test_names_tell_the_sets_apart(tmp_path: Path) -> None:
    def names(*data: Any, images: Any = None) -> list[str]:
        return names_of([Source(one, images[i] if images else None) for i, one in enumerate(data)])

    assert names("coco-mini/val.json", "voc/val.json") == ["coco-mini/val", "voc/val"]
    assert names("a/x/val.json", "b/x/val.json", "b/dev.json") == ["a/x/val", "b/x/val", "dev"]
    assert names("val.json", "raws/dark") == ["val", "dark"]
    assert names("s.yaml:val", "s.yaml:dev") == ["s:val", "s:dev"]
    assert names("a.json", "a.json", images=["r/dark", "r/light"]) == ["a (dark)", "a (light)"]
    assert names("a.json", "a.json", images=["r/dark", "q/dark"]) == ["a (dark) 1", "a (dark) 2"]
    labels = labelled_photos(tmp_path / "set")
    opened = open_dataset(labels, tmp_path / "set" / "images", "mixed")
    assert names(opened, "other.json") == ["labels", "other"]


def test_images_that_two_sets_share(tmp_path: Path) -> None:
    one, two = (labelled_photos(tmp_path / name) for name in ("one", "two"))
    first = open_dataset(one, tmp_path / "one" / "images")
    again = open_dataset(one, tmp_path / "two" / ".." / "one" / "images", "normal", limit=2)
    other = open_dataset(two, tmp_path / "two" / "images")
    assert shared_images({"a": first, "b": other, "c": again}) == ["a and c share 2 images"]

import subprocess
import sys

import pytest

from adaptiveisp.detectors.class_names import ALIASES, COCO_80, canonical, map_classes
from adaptiveisp.errors import DataError


def test_coco_names_are_80_different_ones_in_label_order() -> None:
    assert len(COCO_80) == len(set(COCO_80)) == 80
    # Labels known from the YOLO label files of COCO: 0 person, 16 dog, 39 bottle, 56 chair, 79 toothbrush.
    known = {0: "person", 2: "car", 16: "dog", 39: "bottle", 56: "chair", 62: "tv", 79: "toothbrush"}
    assert {label: COCO_80[label] for label in known} == known


@pytest.mark.parametrize(
    ("darknet", "coco"),
    [
        ("motorbike", "motorcycle"),
        ("aeroplane", "airplane"),
        ("sofa", "couch"),
        ("pottedplant", "potted plant"),
        ("diningtable", "dining table"),
        ("tvmonitor", "tv"),
    ],
)
def test_darknet_names_mean_coco_classes(darknet: str, coco: str) -> None:
    assert canonical(darknet) == coco
    assert coco in COCO_80


def test_every_alias_leads_to_a_coco_class() -> None:
    assert set(ALIASES.values()) <= set(COCO_80)
    assert not set(ALIASES) & set(COCO_80)


def test_canonical_ignores_case_spaces_and_underscores() -> None:
    assert canonical("  Fire_Hydrant ") == "fire hydrant"
    assert canonical("TVmonitor") == "tv"


def test_mapping_goes_both_ways_and_reports_what_is_left() -> None:
    result = map_classes(("person", "motorbike", "N/A", "N/A"), {4: "motorcycle", 1: "Person", 500: "robot"})
    assert result.label_to_category == {0: 1, 1: 4}
    assert result.category_to_label == {1: 0, 4: 1}
    assert result.unmatched == ("robot",)


def test_coco_category_ids_have_gaps() -> None:
    # COCO's ids skip numbers: stop sign is label 11 but id 13.
    assert map_classes(COCO_80, {13: "stop sign"}).label_to_category == {11: 13}


def test_two_labels_of_one_name_share_the_category_and_the_first_is_taken_back() -> None:
    result = map_classes(("sofa", "couch"), {63: "couch"})
    assert result.label_to_category == {0: 63, 1: 63}
    assert result.category_to_label == {63: 0}


def test_no_match_is_an_error_that_names_the_classes() -> None:
    with pytest.raises(DataError, match="robot, drone"):
        map_classes(COCO_80, {1: "robot", 2: "drone"})


def test_strict_refuses_a_partial_match() -> None:
    with pytest.raises(DataError, match="robot"):
        map_classes(COCO_80, {1: "person", 2: "robot"}, strict=True)
    assert map_classes(COCO_80, {1: "person"}, strict=True).unmatched == ()


def test_two_categories_of_one_class_are_an_error() -> None:
    with pytest.raises(DataError, match=r"1 \(tv\) and 2 \(tvmonitor\)"):
        map_classes(COCO_80, {1: "tv", 2: "tvmonitor"})


@pytest.mark.parametrize("module", ["detectors.class_names", "detectors.weights"])
def test_names_can_be_listed_without_torch(module: str) -> None:
    imported = f"import adaptiveisp.{module}"
    code = f"import sys; sys.path[:0] = {sys.path!r}; {imported}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""The small file of golden values is a part of the whole file, stays small, and says what it lacks."""

import numpy as np
import pytest

from tests.conftest import shared_folder
from tests.golden import SMALL_FILE, GoldenValues
from tests.golden.make import small_values


def test_the_small_file_is_made_from_the_whole_one(small_golden: GoldenValues) -> None:
    full = shared_folder() / "golden" / "reference.npz"
    if not full.is_file():
        pytest.skip(f"no {full}; set ADAPTIVEISP_DATA to the folder of all golden values")
    with np.load(full) as archive:
        expected = small_values({name: archive[name] for name in archive.files})
    assert expected.keys() == small_golden.arrays.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(small_golden.arrays[name], array, err_msg=name)


def test_the_small_file_is_small() -> None:
    assert SMALL_FILE.stat().st_size < 400_000


def test_values_that_the_file_lacks_skip_the_test(small_golden: GoldenValues) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"reference-small\.npz has no rollout/policy/image"):
        small_golden["rollout/policy/image"]


def test_samples_are_compared_with_the_same_places(small_golden: GoldenValues) -> None:
    image = small_golden["modules/input"].clone()
    with pytest.raises(AssertionError, match="modules/gamma/output"):
        small_golden.check("modules/gamma/output", image, atol=1e-5)

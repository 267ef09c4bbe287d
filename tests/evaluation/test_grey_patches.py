"""The colours of grey patches in rendered images."""

import pytest
import torch

from adaptiveisp.evaluation.grey_patches import Patch, patch_colours


def test_patches_are_found_at_any_size_of_the_image() -> None:
    """Left half neutral, right half with a cast; one patch in each, given in pixels of a frame twice as large."""
    image = torch.full((3, 40, 60), 0.5)
    image[0, :, 30:] = 0.6
    image[:, 20:, 30:] = 0.99
    patches = [
        Patch(10, 10, 40, 60, bright=True),
        Patch(70, 4, 110, 36, bright=True),
        Patch(70, 44, 110, 76, bright=True),
        Patch(70, 44, 110, 76, bright=False),
    ]
    found = patch_colours(image, patches, (80, 120))
    assert found.difference[0] < 0.05 and 8 < found.difference[1] < 20 and found.difference[2] < 0.05
    assert found.clipped.tolist() == [False, False, True]
    # By scikit-image: L* 55.71, a* 9.77, b* 3.66, and the ΔE2000 of that to L* 55.71, a* = b* = 0.
    assert float(found.difference[1]) == pytest.approx(11.26, abs=0.05)


def test_a_patch_outside_the_image_is_refused() -> None:
    for patch in (Patch(100, 0, 110, 10, True), Patch(-9, 0, 10, 10, True), Patch(3, 3, 3.1, 3.1, True)):
        with pytest.raises(ValueError, match="has no pixel in an image"):
            patch_colours(torch.rand(3, 20, 20), [patch], (20, 20))

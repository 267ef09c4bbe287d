"""Values of the original implementations: the whole file where it is at hand, else the small one of this folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

SMALL_FILE = Path(__file__).parent / "reference-small.npz"

SAMPLED = "sampled/"
"""Prefix of an array of which the small file keeps a sample only."""
STRIDE = 17
"""A sample is every 17th value in row-major order: prime, so that it reaches all images, channels, rows and columns."""

CROP = (slice(40, 88), slice(48, 96))
"""Rows and columns of the rollouts' images that the small file keeps."""
CROP_MARGIN = 8
"""Pixels at the edge of the crop that are not compared: denoise reads 7 pixels far and sharpen 1."""
ROLLOUTS = ("policy", "forced_a", "forced_b")


def inside(image: Tensor) -> Tensor:
    """The pixels of a processed crop that do not depend on pixels outside of it."""
    return image[..., CROP_MARGIN:-CROP_MARGIN, CROP_MARGIN:-CROP_MARGIN]


class GoldenValues:
    """Named arrays of `reference.npz` or `reference-small.npz`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with np.load(path) as archive:
            self.arrays = {name: np.asarray(archive[name]) for name in archive.files}

    def __getitem__(self, name: str) -> Tensor:
        """The whole array; the test is skipped if this file does not have it."""
        if name not in self.arrays:
            pytest.skip(
                f"{self.path.name} has no {name}; set ADAPTIVEISP_DATA to the folder that has all golden values"
            )
        return torch.from_numpy(self.arrays[name])

    def texts(self, name: str) -> list[str]:
        """The strings of an array of strings."""
        return [str(text) for text in self.arrays[name]]

    def check(self, name: str, found: Tensor, atol: float, relative: bool = False) -> None:
        """Asserts that values equal the original's, or the sample of them that this file has.

        Args:
            name: of the array.
            found: values of its shape.
            atol: allowed absolute difference.
            relative: `atol` is in units of the largest original value instead.
        """
        if SAMPLED + name in self.arrays:
            expected, found = self[SAMPLED + name], found.flatten()[::STRIDE]
        else:
            expected = self[name]
        scale = expected.abs().max().item() if relative else 1.0
        torch.testing.assert_close(found, expected, rtol=0, atol=atol * scale, msg=lambda text: f"{name}: {text}")

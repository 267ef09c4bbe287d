"""Demosaicing against a second library, OpenCV, a naive loop and values by hand."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptiveisp.raw.demosaic import bilinear, malvar
from adaptiveisp.types import BAYER_PATTERNS

METHODS = {"bilinear": bilinear, "malvar": malvar}
# OpenCV names a pattern after the second row, from its second column on.
OPENCV_CODES = {
    "RGGB": cv2.COLOR_BayerBG2RGB,
    "BGGR": cv2.COLOR_BayerRG2RGB,
    "GRBG": cv2.COLOR_BayerGB2RGB,
    "GBRG": cv2.COLOR_BayerGR2RGB,
}


def random_mosaic(height, width, seed=0, dtype=torch.float32):
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def reference(method, mosaic, pattern):
    """The same from colour-demosaicing; its own border rule is kept away by mirroring beforehand."""
    library = pytest.importorskip("colour_demosaicing")
    function = {
        "bilinear": library.demosaicing_CFA_Bayer_bilinear,
        "malvar": library.demosaicing_CFA_Bayer_Malvar2004,
    }[method]
    padded = np.pad(mosaic.numpy().astype(np.float64), 4, mode="reflect")
    return torch.from_numpy(function(padded, pattern)[4:-4, 4:-4].transpose(2, 0, 1).copy())


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(12, 14), (13, 14), (12, 15), (17, 11)])
def test_equals_colour_demosaicing_borders_included(method, pattern, size):
    mosaic = random_mosaic(*size)
    torch.testing.assert_close(
        METHODS[method](mosaic, pattern), reference(method, mosaic, pattern).float(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_bilinear_equals_opencv_inside(pattern):
    # Multiples of 4 below 2^16, so that OpenCV's integer means are exact.
    mosaic = (random_mosaic(20, 26) * 4000).long() * 4
    expected = cv2.cvtColor(mosaic.numpy().astype(np.uint16), OPENCV_CODES[pattern]).astype(np.float32)
    ours = bilinear(mosaic.float(), pattern).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours[2:-2, 2:-2], expected[2:-2, 2:-2])


def naive_bilinear(mosaic, pattern):
    """Pixel by pixel: the mean of the nearest samples of a colour, the image mirrored about its edge pixels."""
    height, width = mosaic.shape
    rgb = np.zeros((3, height, width))

    def mirrored(index, size):
        return -index if index < 0 else 2 * (size - 1) - index if index >= size else index

    for y in range(height):
        for x in range(width):
            for c, colour in enumerate("RGB"):
                if pattern[2 * (y % 2) + x % 2] == colour:
                    rgb[c, y, x] = mosaic[y, x]
                    continue
                steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
                hits = [(dy, dx) for dy, dx in steps if pattern[2 * ((y + dy) % 2) + (x + dx) % 2] == colour]
                rgb[c, y, x] = np.mean([mosaic[mirrored(y + dy, height), mirrored(x + dx, width)] for dy, dx in hits])
    return rgb


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 11), st.integers(4, 11), st.sampled_from(BAYER_PATTERNS), st.integers(0, 99))
def test_bilinear_equals_a_naive_loop_at_any_size(height, width, pattern, seed):
    mosaic = random_mosaic(height, width, seed, torch.float64)
    np.testing.assert_allclose(bilinear(mosaic, pattern).numpy(), naive_bilinear(mosaic.numpy(), pattern), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 33), st.integers(4, 33), st.sampled_from(BAYER_PATTERNS), st.sampled_from(sorted(METHODS)))
def test_recorded_samples_are_kept_exactly_and_grey_stays_grey(height, width, pattern, method):
    mosaic = random_mosaic(height, width)
    rgb = METHODS[method](mosaic, pattern)
    assert rgb.shape == (3, height, width)
    for index, colour in enumerate(pattern):
        place = (slice(index // 2, None, 2), slice(index % 2, None, 2))
        assert torch.equal(rgb["RGB".index(colour)][place], mosaic[place])
    torch.testing.assert_close(
        METHODS[method](torch.full((height, width), 0.3), pattern), torch.full((3, height, width), 0.3)
    )


def test_malvar_impulse_at_red_by_hand():
    # Malvar, He, Cutler 2004, figure 2: weights over 8 of a red sample on the greens and blues around it.
    mosaic = torch.zeros(13, 13)
    mosaic[6, 6] = 8.0
    red, green, blue = malvar(mosaic, "RGGB")
    assert green[6, 6] == 4 and green[6, 4] == -1 and green[4, 6] == -1 and green[6, 5] == 0
    assert blue[6, 6] == 6 and blue[6, 8] == -1.5 and blue[8, 6] == -1.5
    assert red[6, 6] == 8 and red[6, 5] == 4 and red[5, 6] == 4 and red[5, 5] == 2


def test_a_linear_ramp_is_reproduced_inside():
    ramp = torch.arange(16.0)[:, None] * 3 + torch.arange(18.0) * 2
    for function in METHODS.values():
        rgb = function(ramp, "GBRG")
        torch.testing.assert_close(rgb[:, 2:-2, 2:-2], ramp.expand(3, -1, -1)[:, 2:-2, 2:-2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_gradients_flow(dtype):
    mosaic = random_mosaic(6, 7, dtype=dtype).requires_grad_()
    rgb = malvar(mosaic, "BGGR")
    assert rgb.dtype == dtype
    rgb.sum().backward()
    # Every output is a weighted mean (weights sum to 1), so the gradients share out one per output value.
    assert mosaic.grad is not None
    assert mosaic.grad.sum().item() == pytest.approx(3 * 6 * 7, rel=1e-5)


def test_gradcheck():
    mosaic = random_mosaic(5, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda data: malvar(data, "GRBG"), mosaic)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="pattern"):
        bilinear(torch.zeros(8, 8), "RGBG")
    with pytest.raises(ValueError, match="4x4"):
        malvar(torch.zeros(3, 8), "RGGB")

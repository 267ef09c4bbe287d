"""The light sources of synthetic raws."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptiveisp import SynthesisConfig
from adaptiveisp.errors import UsageError
from adaptiveisp.raw.illuminants import ILLUMINANTS, TINT, draw_planckian_gains, planckian_chromaticity, planckian_gains
from adaptiveisp.raw.unprocess import reprocess, unprocess
from adaptiveisp.utils.color import RGB_TO_XYZ, XYZ_TO_CAMERA

# CIE 1931 chromaticities of Planck's law (c2 = 1.4388e-2 m·K, 5 nm), as tabulated by Wyszecki and Stiles 1982.
LOCUS = {2000: (0.5267, 0.4133), 2500: (0.4770, 0.4137), 4000: (0.3805, 0.3768), 6500: (0.3135, 0.3237)}


@pytest.mark.parametrize("kelvin", LOCUS)
def test_black_bodies_lie_on_the_locus_of_plancks_law(kelvin: int) -> None:
    assert planckian_chromaticity(kelvin) == pytest.approx(LOCUS[kelvin], abs=0.001)


def test_gains_make_a_grey_surface_grey() -> None:
    """A camera whose matrix is XYZ → sRGB sees the white point of D65 as neutral up to the locus' distance from it."""
    camera = torch.linalg.inv(torch.tensor(RGB_TO_XYZ, dtype=torch.float64))
    x, y = planckian_chromaticity(3000)
    seen = camera @ torch.tensor([x / y, 1, (1 - x - y) / y], dtype=torch.float64)
    red, blue = planckian_gains(3000, camera)
    balanced = seen * torch.tensor([red, 1, blue], dtype=torch.float64)
    torch.testing.assert_close(balanced / balanced[1], torch.ones(3, dtype=torch.float64))
    assert red < 0.7 and blue > 2
    assert planckian_gains(6500, camera) == pytest.approx((1, 1), abs=0.06)


def draws(illuminants: str, count: int = 400) -> np.ndarray:
    """Red and blue gains of that many raws."""
    config = SynthesisConfig("mixed", illuminants=illuminants)  # type: ignore[arg-type]
    return np.array([(how.red_gain, how.blue_gain) for how in (config.unprocessing(i, 0) for i in range(count))])


def test_planckian_lamps_are_wider_than_daylight_and_hold_it() -> None:
    day, lamps = draws("daylight"), draws("planckian")
    for channel in (0, 1):
        assert lamps[:, channel].min() < day[:, channel].min() and lamps[:, channel].max() > day[:, channel].max()
    assert np.corrcoef(np.log(lamps).T)[0, 1] < -0.6  # a warm light needs little red and much blue
    assert abs(np.corrcoef(np.log(day).T)[0, 1]) < 0.15
    cameras = [torch.tensor(one, dtype=torch.float64) for one in XYZ_TO_CAMERA]
    ends = np.array([planckian_gains(kelvin, one) for kelvin in (2500.0, 8000.0) for one in cameras])
    slack = np.exp(4 * TINT)
    assert (lamps < ends.max(axis=0) * slack).all() and (lamps > ends.min(axis=0) / slack).all()


def test_only_the_gains_differ_and_the_raw_can_be_developed_back() -> None:
    day, lamp = (SynthesisConfig("mixed", illuminants=one).unprocessing(3, 1) for one in ("daylight", "planckian"))
    assert replace(lamp, red_gain=day.red_gain, blue_gain=day.blue_gain) == day != lamp
    photo = torch.linspace(0.05, 0.6, 3 * 8 * 8).reshape(3, 8, 8)
    torch.testing.assert_close(reprocess(unprocess(photo, lamp), lamp), photo, atol=2e-4, rtol=0)


def test_a_camera_that_is_blind_to_a_lamp_is_refused() -> None:
    """Its blue answers to daylight, but not to light as warm as a tungsten lamp."""
    camera = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 1.2]], dtype=torch.float64)
    with pytest.raises(UsageError, match="a channel of 0 or less; correct the matrix, or use daylight"):
        for seed in range(50):
            draw_planckian_gains(camera, torch.Generator().manual_seed(seed))


def test_unknown_light_sources_are_refused() -> None:
    with pytest.raises(UsageError, match="illuminants 'neon' do not exist; choose from daylight, planckian"):
        SynthesisConfig("mixed", illuminants="neon")  # type: ignore[arg-type]
    assert ILLUMINANTS == ("daylight", "planckian")

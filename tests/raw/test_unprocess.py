"""The unprocessing against the original's values, its inverse, the statistics of its noise, and its reproducibility."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from adaptiveisp.data.photo_raws import raw_of_photo
from adaptiveisp.data.random_crop import Crop, cut
from adaptiveisp.errors import UsageError
from adaptiveisp.kernels import loading, registry, synthesis
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.unprocess import (
    LIGHTS,
    NOISES,
    add_noise,
    apply_matrix,
    draw_unprocessing,
    inverse_gains,
    inverse_tone,
    iso_of,
    light_range,
    mosaic,
    quantise,
    reprocess,
    seeded_generator,
    synthesise_mosaic,
    synthesise_rgb,
    to_linear,
    unprocess,
)
from adaptiveisp.types import Unprocessing
from tests.golden import GoldenValues


def some_draw(noise: str = "none", light: str = "mixed", image_id: int = 5) -> Unprocessing:
    return draw_unprocessing(seeded_generator(0, image_id, 0, "parameters"), light, noise)


def smooth_photo(height: int = 40, width: int = 56) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    return torch.stack([0.4 + 0.3 * torch.sin(x), 0.4 + 0.3 * torch.cos(y), 0.4 + 0.3 * torch.sin(x + y)])


def test_golden_stages(golden: GoldenValues) -> None:
    names = ("input", "inverse_tone", "linear", "camera", "gained", "bright_input", "bright_gained")
    stage = {name: golden[f"unprocess/{name}"].permute(2, 0, 1) for name in names}
    matrix = golden["unprocess/ccm"]
    torch.testing.assert_close(inverse_tone(stage["input"]), stage["inverse_tone"], rtol=0, atol=1e-6)
    torch.testing.assert_close(to_linear(stage["inverse_tone"]), stage["linear"], rtol=0, atol=1e-6)
    torch.testing.assert_close(apply_matrix(stage["linear"], matrix), stage["camera"], rtol=0, atol=1e-6)
    torch.testing.assert_close(inverse_gains(stage["camera"], 1.2, 2.1, 1.7), stage["gained"], rtol=0, atol=1e-6)
    camera = apply_matrix(to_linear(inverse_tone(stage["bright_input"])), matrix)
    torch.testing.assert_close(inverse_gains(camera, 1.2, 2.1, 1.7), stage["bright_gained"], rtol=0, atol=1e-5)


def test_inverse_tone_undoes_the_smoothstep() -> None:
    t = torch.linspace(0, 1, 101)[None, None].expand(3, 1, 101).double()
    torch.testing.assert_close(inverse_tone(3 * t**2 - 2 * t**3), t, rtol=0, atol=1e-7)


def test_reprocess_is_the_inverse_where_nothing_clips() -> None:
    how = some_draw()
    photo = smooth_photo()
    torch.testing.assert_close(reprocess(unprocess(photo, how), how), photo, rtol=0, atol=1e-5)


def test_brightness_factors_are_log_uniform_in_their_range() -> None:
    for light, (low, high) in LIGHTS.items():
        factors = torch.tensor([some_draw(light=light, image_id=i).light for i in range(400)]).double()
        assert low <= factors.min() and factors.max() <= high
        position = (factors.log() - math.log(low)) / math.log(high / low)
        assert abs(position.mean() - 0.5) < 0.05 and abs(position.std() - 12**-0.5) < 0.03


def test_gains_and_matrix_keep_their_ranges() -> None:
    for i in range(50):
        how = some_draw(image_id=i)
        assert 1.9 <= how.red_gain <= 2.4 and 1.5 <= how.blue_gain <= 1.9
        rows = torch.tensor(how.ccm).reshape(3, 3).sum(dim=1)
        torch.testing.assert_close(rows, torch.ones(3))


def test_the_camera_does_not_depend_on_light_or_noise() -> None:
    draws = [some_draw(noise, light) for noise in NOISES for light in LIGHTS]
    assert len({(d.red_gain, d.blue_gain, d.rgb_gain, d.ccm) for d in draws}) == 1


def test_draws_depend_on_seed_image_draw_and_stream_only() -> None:
    def first(*key: object) -> float:
        return torch.rand(1, generator=seeded_generator(*key)).item()  # type: ignore[arg-type]

    base = (0, 1, 2, "noise")
    assert first(*base) == first(*base)
    others = [(1, 1, 2, "noise"), (0, 2, 2, "noise"), (0, 1, 3, "noise"), (0, 1, 2, "parameters"), (0, 12, 0, "noise")]
    assert len({first(*key) for key in [base, *others]}) == 6


@pytest.mark.parametrize("noise", ["sensor", "brooks"])
def test_noise_has_its_declared_variance(noise: str) -> None:
    how = replace(some_draw(noise), bits=0)
    level = 0.3
    noisy = add_noise(torch.full((3, 200, 200), level), how, torch.Generator().manual_seed(0))
    assert noisy.var().item() == pytest.approx(how.shot * level + how.read, rel=0.03)
    assert noisy.mean().item() == pytest.approx(level, abs=0.002)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize("noise", NOISES)
def test_raws_of_photos_are_those_of_the_plain_steps(
    noise: str, kernels: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the light, mirrored or not, in both orders of memory; and the generator is left as they leave it."""
    monkeypatch.setenv(loading.SWITCH, kernels)
    monkeypatch.setattr(synthesis, "LEAST_VALUES", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    called: list[int] = []
    compiled = synthesis.unprocess
    monkeypatch.setitem(registry._FUNCTIONS, "unprocess", lambda *args: called.append(1) or compiled(*args))
    source = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 256, (3, 75, 90), generator=source, dtype=torch.uint8)
    codes[:, :, 60:] = 255  # highlights, which the gains leave alone
    interleaved = codes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for number, (pixels, flipped) in enumerate(product((codes, interleaved), (False, True))):
        view = Crop(3, 11, 71, flipped)
        how = some_draw(noise, "normal" if number % 2 else "dark", number)
        ours, plain = (torch.Generator().manual_seed(number) for _ in range(2))
        found = raw_of_photo(pixels, view, how, ours)
        expected = add_noise(unprocess(cut(pixels, view) / 255, how), how, plain)
        assert torch.equal(ours.get_state(), plain.get_state())
        difference = (found - expected).abs()
        step = 1 / (2**how.bits - 1) if how.bits else 0.0
        # Where rounding is another on this machine, a value may lie on the other side of a step's border.
        assert difference.max() < step + 1e-6 and (difference > 1e-6).float().mean() < 1e-3
    assert bool(called) == loading.available()


def test_noise_models_by_formula() -> None:
    how = some_draw("sensor")
    s = how.shot / 0.25
    assert 1e-4 <= s <= 4e-3 and how.bits == 12
    assert how.read == pytest.approx(0.05 * math.exp(2.18 * math.log(s) + 1.2))
    brooks = [some_draw("brooks", image_id=i) for i in range(300)]
    residual = torch.tensor([math.log(b.read) - 2.18 * math.log(b.shot) - 1.2 for b in brooks])
    assert abs(residual.mean()) < 0.05 and abs(residual.std() - 0.26) < 0.04
    assert all(1e-4 <= b.shot <= 0.012 and b.bits == 0 for b in brooks)


def test_iso_grows_with_the_noise() -> None:
    assert iso_of(some_draw("none")) == 100
    assert iso_of(replace(some_draw("sensor"), shot=0.25e-4)) == 100
    assert iso_of(replace(some_draw("sensor"), shot=1e-3)) == 4000


def test_quantise_by_hand() -> None:
    assert quantise(torch.tensor([0.0, 0.49, 0.51, 1.0]), 1).tolist() == [0, 0, 1, 1]
    codes = quantise(torch.rand(1000, dtype=torch.float64), 12) * 4095
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_mosaic_by_loop(pattern: str) -> None:
    image = torch.rand(3, 5, 7)
    sites = mosaic(image, pattern)
    for y in range(5):
        for x in range(7):
            assert sites[y, x] == image["RGB".index(pattern[2 * (y % 2) + x % 2]), y, x]
    with pytest.raises(ValueError, match="RGGB"):
        mosaic(image, "RGBG")


def test_png_and_dng_agree_without_noise() -> None:
    """At every sensor site within one 12-bit step; after the demosaic above 35 dB on a smooth photo."""
    how = some_draw(light="normal")
    photo = smooth_photo()
    rgb = synthesise_rgb(photo, how, torch.Generator())
    bayer = synthesise_mosaic(photo, how, torch.Generator(), "GRBG")
    full = torch.from_numpy(rgb.data.astype("float32")).permute(2, 0, 1) / 65535
    sites = (torch.from_numpy(bayer.data.astype("float32")) - 256) / 4095
    assert (mosaic(full, "GRBG") - sites).abs().max() <= 1 / 4095
    peak = full.max()
    mse = (develop(bayer) - develop(rgb)).square().mean()
    assert 10 * torch.log10(peak**2 / mse) > 35


def test_unknown_light_is_named() -> None:
    with pytest.raises(UsageError, match="dark, mixed, normal"):
        light_range("dusk")

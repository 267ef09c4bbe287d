"""The noise of a camera in codes: its moments, its rows, its tails, and noise files."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from adaptiveisp.cli.parser import main
from adaptiveisp.data.photo_raws import raw_of_photo
from adaptiveisp.data.random_crop import Crop, cut
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import UsageError
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.noise import CANON_5D4, noisy_codes, read_noise, tukey_variance
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.raw.synthesis_metadata import note_from_unprocessing, unprocessing_from_note
from adaptiveisp.raw.unprocess import (
    add_noise,
    draw_unprocessing,
    seeded_generator,
    synthesise_mosaic,
    synthesise_rgb,
    unprocess,
)
from adaptiveisp.types import CodeNoise, Unprocessing
from tests.support.photos import labelled_photos

stats = pytest.importorskip("scipy.stats")
SPAN = 16383 - 512


def how(gain: float, read: float, row: float = 0.0, tail: float | None = None) -> Unprocessing:
    """A camera without colours whose noise has these parameters in codes."""
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    codes = CodeNoise(512, 16383.0, row / SPAN, tail)
    return Unprocessing(1.0, 1.0, 1.0, 1.0, identity, gain / SPAN, (read / SPAN) ** 2, "canon-5d4", 0, codes)


def draws(n: int, noise: str = "canon-5d4") -> list[Unprocessing]:
    return [draw_unprocessing(seeded_generator(0, i, 0, "parameters"), "dim", noise) for i in range(n)]


@pytest.mark.parametrize("shape", [0.01, 0.06, 0.14, 0.2, 0.5])
def test_the_variance_of_a_tukey_lambda_variable_is_scipys(shape: float) -> None:
    assert tukey_variance(shape) == pytest.approx(stats.tukeylambda(shape).var(), rel=1e-6)


@pytest.mark.parametrize(
    ("gain", "read", "row", "tail"), [(0.5, 3.0, 0.0, 0.03), (8.0, 20.0, 6.0, 0.2), (2.0, 5.0, 2.0, None)]
)
@pytest.mark.parametrize("level", [0.0, 40.0, 2000.0])
def test_the_variance_is_that_of_shot_read_row_and_rounding(
    gain: float, read: float, row: float, tail: float | None, level: float
) -> None:
    """Within 3 %, where chance leaves 1 to 2 %; the mean within five standard errors."""
    clean = torch.full((600, 300), level / SPAN)
    codes = noisy_codes(clean, how(gain, read, row, tail), torch.Generator().manual_seed(1)).double()
    expected = gain * level + read**2 + 1 / 12
    assert codes.var(dim=1).mean() == pytest.approx(expected, rel=0.03)
    assert abs(codes.mean() - level) < 5 * math.sqrt(expected / codes.numel() + row**2 / 600)
    assert torch.equal(codes, codes.round())
    rows = codes.mean(dim=1).var().item() - expected / 300
    assert rows == pytest.approx(row**2, rel=0.2, abs=3 * expected / 300 * math.sqrt(2 / 600))


def test_neighbours_in_a_row_are_correlated_and_those_in_a_column_are_not() -> None:
    codes = noisy_codes(torch.zeros(3, 400, 400), how(1.0, 4.0, 4.0), torch.Generator().manual_seed(2)).double()
    centred = codes - codes.mean()
    variance = centred.square().mean()
    assert (centred[..., :-1] * centred[..., 1:]).mean() / variance == pytest.approx(0.5, abs=0.06)
    assert (centred[:, :-1] * centred[:, 1:]).mean() / variance == pytest.approx(0.0, abs=0.06)
    assert (centred[0] * centred[2]).mean() / variance == pytest.approx(0.5, abs=0.06)  # colours share a row


def test_the_tails_are_heavy_as_the_shape_says() -> None:
    """A shape of 0.01 has an excess kurtosis of 1.1, while a Gaussian has 0."""
    kurtosis = {}
    for tail in (0.01, None):
        codes = noisy_codes(torch.zeros(1000, 1000), how(1.0, 30.0, tail=tail), torch.Generator().manual_seed(3))
        kurtosis[tail] = float(stats.kurtosis(codes.numpy(), axis=None))
    assert kurtosis[None] == pytest.approx(0, abs=0.03)
    assert kurtosis[0.01] == pytest.approx(float(stats.tukeylambda(0.01).stats("k")), rel=0.1) and kurtosis[0.01] > 1


def test_draws_follow_the_published_lines() -> None:
    found = draws(600)
    gains = np.log([one.shot * SPAN for one in found])
    assert math.log(0.218) <= gains.min() and gains.max() <= math.log(13.96)
    place = (gains - math.log(0.218)) / math.log(13.96 / 0.218)
    assert abs(place.mean() - 0.5) < 0.04 and abs(place.std() - 12**-0.5) < 0.02
    codes = [one.codes for one in found if one.codes is not None]
    scales = [math.sqrt(one.read / stats.tukeylambda(one.codes.tail).var()) * SPAN for one in found if one.codes]
    residual = np.log(scales) - 0.656 * gains - 1.093
    assert abs(residual.mean()) < 0.04 and abs(residual.std() - 0.286) < 0.03
    rows = np.log([one.row * SPAN for one in codes]) - 0.471 * gains + 0.808
    assert abs(rows.mean()) < 0.04 and abs(rows.std() - 0.244) < 0.03
    assert {one.tail for one in codes} == set(CANON_5D4.tails)
    # The same measurements fitted by a plain Gaussian: the deviation at a gain of 1 is e^1.512.
    assert np.mean([math.log(math.sqrt(one.read) * SPAN) for one in found] - 0.677 * gains) == pytest.approx(
        1.512, abs=0.06
    )
    assert all(0.01 <= one.light <= 0.1 for one in found)


def test_an_image_has_the_same_noise_whatever_was_made_before() -> None:
    photo = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))

    def raw(number: int, seed: int = 0) -> np.ndarray[Any, Any]:
        config = SynthesisConfig("dim", noise="canon-5d4", seed=seed)
        return synthesise_rgb(photo, config.unprocessing(number, 0), seeded_generator(seed, number, 0, "noise")).data

    forward, backward = [raw(i) for i in range(4)], [raw(i) for i in reversed(range(4))]
    for ours, theirs in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not (forward[0] == forward[1]).all() and not (forward[0] == raw(0, seed=1)).all()


def test_the_camera_of_a_photo_is_the_same_as_with_other_noise() -> None:
    for canon, sensor in zip(draws(5), draws(5, "sensor"), strict=True):
        assert replace(canon, shot=0, read=0, noise="", bits=0, codes=None) == replace(
            sensor, shot=0, read=0, noise="", bits=0
        )


def test_a_mosaic_keeps_the_noise_below_black_and_the_levels_of_the_camera(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    raw = synthesise_mosaic(torch.zeros(3, 64, 64), draws(1)[0], torch.Generator().manual_seed(0))
    assert raw.black_level == (512.0,) * 4 and raw.white_level == 16383.0
    assert raw.data.min() < 512 < raw.data.max() and abs(raw.data.astype(float).mean() - 512) < 5
    bright = noisy_codes(torch.ones(64, 64), draws(1)[0], torch.Generator().manual_seed(0))
    assert bright.max() == SPAN and bright.min() > 0.9 * SPAN
    write_dng(raw, tmp_path / "x.dng")
    assert read_raw(tmp_path / "x.dng").unprocessing == raw.unprocessing


def test_the_note_keeps_the_parameters_and_older_notes_have_none() -> None:
    assert unprocessing_from_note(note_from_unprocessing(draws(1)[0])) == draws(1)[0]
    plain = draws(1, "sensor")[0]
    assert (
        "codes" not in note_from_unprocessing(plain) and unprocessing_from_note(note_from_unprocessing(plain)) == plain
    )


def test_crops_for_training_have_the_same_noise_as_the_plain_steps() -> None:
    codes = torch.randint(0, 256, (3, 40, 50), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    how_raw = draws(1)[0]
    for flipped in (False, True):
        crop = Crop(2, 3, 30, flipped)
        found = raw_of_photo(codes, crop, how_raw, torch.Generator().manual_seed(1))
        clean = unprocess(cut(codes, crop) / 255, how_raw)
        expected = add_noise(clean, how_raw, torch.Generator().manual_seed(1))
        assert found.min() >= 0 and found.max() <= 1
        assert (found - expected).abs().median() < 1e-6


FILE = {
    "adaptiveisp-noise": 1,
    "gain": 2.0,
    "read-noise": 3.0,
    "row-noise": 1.0,
    "raw-black": [64, 64, 65, 64],
    "raw-white": 1023,
}


def test_a_noise_file_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(FILE))
    found = draws(2, str(path))
    for one in found:
        assert one.codes == CodeNoise(64, 1023.0, 1 / (1023 - 64), None, None)
        assert (one.shot * 959, math.sqrt(one.read) * 959) == pytest.approx((2.0, 3.0))
    path.write_text(yaml.safe_dump({**FILE, "tail": 0.05}))
    heavy = draws(1, str(path))[0]
    assert heavy.codes is not None and heavy.codes.tail == 0.05
    assert math.sqrt(heavy.read) * 959 == pytest.approx(3.0)  # the deviation, whatever the tail


def test_synth_takes_a_name_and_a_file(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    labels, path = labelled_photos(tmp_path, n=1), tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump(FILE))
    where = ["--data", str(labels), "--images", str(tmp_path / "images"), "--light", "dim", "--quiet"]
    for noise, out in (("canon-5d4", "canon"), (str(path), "own")):
        assert main(["synth", *where, "--noise", noise, "--out", str(tmp_path / out), "--format", "dng"]) == 0
    info = json.loads((tmp_path / "own" / "dim" / "labels.json").read_text())["info"]["options"]
    assert info["noise_model"]["white"] == 1023 and info["noise"] == str(path)
    (raw_file,) = (tmp_path / "own" / "dim" / "images").glob("*.dng")
    assert read_raw(raw_file).white_level == 1023
    assert main(["synth", *where, "--noise", "nikon", "--out", str(tmp_path / "no")]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"raw-black": 64}, "is no noise file .the key adaptiveisp-noise is missing."),
        ({**FILE, "adaptiveisp-noise": 2}, "has version 2, expected 1"),
        ({**FILE, "gain": 0}, "gain is 0; give a number above 0"),
        ({**FILE, "gain": True}, "gain is True"),
        ({**FILE, "read-noise": float("nan")}, "read-noise is nan"),
        ({**FILE, "read-noise": 3000}, "read-noise 3000 is not below raw-white - raw-black, 959"),
        ({**FILE, "row-noise": 959}, "row-noise 959 is not below raw-white - raw-black, 959"),
        ({**FILE, "row-noise": -1}, "row-noise is -1; give a number at least 0"),
        ({**FILE, "tail": 3}, "tail is 3"),
        ({**FILE, "raw-white": 64}, "raw-white 64 must be above raw-black 64"),
        ({**FILE, "raw-black": None}, "raw-black is None"),
    ],
)
def test_other_files_are_refused_in_one_line(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=message) as caught:
        read_noise(path)
    assert str(path) in str(caught.value) and "calibrate" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_noise_is_named_with_those_that_exist() -> None:
    with pytest.raises(
        UsageError, match="noise 'nikon' does not exist; choose from sensor, brooks, canon-5d4, none, or"
    ):
        SynthesisConfig("dim", noise="nikon")
    with pytest.raises(UsageError, match=r"nowhere\.yaml: no such file"):
        SynthesisConfig("dim", noise="nowhere.yaml")

"""Calibration against simulated sensors whose black level, gain and noise are known; bad input; the command."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from adaptiveisp.calibration.camera import Calibration, calibrate
from adaptiveisp.calibration.photon_transfer import without_rounding
from adaptiveisp.cli.parser import main
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import AdaptiveISPError, DataError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.noise import read_noise
from adaptiveisp.raw.reader import read_raw

Array = np.ndarray[Any, Any]
SHAPE = (160, 320)
EXPOSURES = (300.0, 900.0, 1800.0)


def take(
    light: float,
    rng: np.random.Generator,
    gain: float = 1.0,
    read: float = 3.0,
    black: float = 64.0,
    row: float = 0.0,
    white: int = 4095,
    colours: tuple[float, ...] = (0.5, 1.0, 1.0, 0.6),
    draw: Callable[..., Any] | None = None,
    shape: tuple[int, int] = SHAPE,
) -> Array:
    """A frame of an even surface with vignetting: codes of a Bayer sensor, by the definition of its parameters."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    scene = light * (1 - 0.2 * (x**2 + y**2)) * np.tile(np.reshape(colours, (2, 2)), (shape[0] // 2, shape[1] // 2))
    noise = read * (rng.standard_normal(shape) if draw is None else draw(rng, shape))
    values = black + gain * rng.poisson(scene / gain) + noise + row * rng.standard_normal((shape[0], 1))
    return np.clip(np.round(values), 0, white).astype(np.uint16)


def stacks(
    n_darks: int = 6, exposures: tuple[float, ...] = EXPOSURES, seed: int = 0, **sensor: Any
) -> tuple[list[Array], list[Array]]:
    rng = np.random.default_rng(seed)
    darks = [take(0.0, rng, **sensor) for _ in range(n_darks)]
    return darks, [take(light, rng, **sensor) for light in exposures for _ in range(2)]


HEADER = BayerHeader(bits=12, pattern="RGGB")


@pytest.mark.parametrize(
    ("gain", "read", "black", "row"),
    [
        (1.0, 3.0, 64.0, 0.0),
        (0.25, 0.7, 64.3, 0.0),  # below 1 code, where rounding adds as much variance as a seventh of the noise
        (4.0, 12.0, 200.5, 3.0),
        (0.5, 0.4, 32.0, 0.0),  # rounding would hide half of it
        (2.0, 2.0, 128.0, 4.0),  # rows that are noisier than pixels
    ],
)
def test_a_sensor_is_calibrated_to_two_percent_and_half_a_code(
    gain: float, read: float, black: float, row: float
) -> None:
    found = calibrate(*stacks(gain=gain, read=read, black=black, row=row), HEADER)
    assert found.gain == pytest.approx(gain, rel=0.02) and found.read == pytest.approx(read, rel=0.02)
    assert found.read_electrons == pytest.approx(read / gain, rel=0.03)
    assert np.abs(np.array(found.black) - black).max() < 0.5
    assert found.row == pytest.approx(row, rel=0.08, abs=0.05)
    assert [channel.name for channel in found.channels] == ["R", "G1", "G2", "B"]
    for channel in found.channels:
        assert channel.gain == pytest.approx(gain, rel=0.03) and channel.read == pytest.approx(read, rel=0.03)
        assert abs(channel.black - black) < 0.5 and all(channel.used)
    assert (found.white, found.white_is_measured, found.tail, found.defects) == (4095.0, False, None, 0.0)
    assert found.remarks == () and (found.n_darks, found.n_flats, found.n_levels) == (6, 6, 3)


def test_read_noise_without_the_correction_for_rounding_would_be_wrong() -> None:
    darks, _ = stacks(read=0.7)
    assert math.sqrt(np.mean(np.var(np.diff(darks, axis=0), axis=(1, 2))) / 2) > 1.05 * 0.7


@pytest.mark.parametrize("sigma", [0.25, 0.4, 0.6, 2.0])
@pytest.mark.parametrize("place", [64.0, 64.3])
def test_rounding_is_undone_at_any_width_of_the_noise(sigma: float, place: float) -> None:
    codes = np.round(place + sigma * np.random.default_rng(1).standard_normal(400_000))
    assert math.sqrt(without_rounding(codes.var(), codes.mean())) == pytest.approx(sigma, rel=0.02)


def test_drifting_light_defects_and_one_black_level_a_colour_do_not_harm() -> None:
    rng = np.random.default_rng(3)
    offsets = np.tile([[0, 3], [5, 9]], (SHAPE[0] // 2, SHAPE[1] // 2)).astype(np.uint16)
    hot, dead = (rng.random(SHAPE) < 0.002 for _ in range(2))
    darks, flats = stacks(gain=2.0, read=4.0, exposures=(300.0, 309.0, 900.0, 925.0))
    darks = [
        np.where(hot, 1500 + rng.integers(0, 300, SHAPE), np.where(dead, 64, frame)).astype(np.uint16) + offsets
        for frame in darks
    ]
    flats = [
        np.where(hot, 2500 + rng.integers(0, 500, SHAPE), np.where(dead, 64, frame)).astype(np.uint16) + offsets
        for frame in flats
    ]
    found = calibrate(darks, flats, HEADER)
    assert (
        found.n_levels == 2
        and found.gain == pytest.approx(2.0, rel=0.02)
        and found.read == pytest.approx(4.0, rel=0.02)
    )
    np.testing.assert_allclose(found.black, (64, 67, 69, 73), atol=0.2)
    assert found.defects == pytest.approx((hot | dead).mean(), rel=0.05)


def test_saturated_flats_give_the_white_level_and_leave_the_line_alone() -> None:
    found = calibrate(*stacks(white=3000, gain=2.0, exposures=(300.0, 900.0, 1800.0, 9000.0)), HEADER)
    assert (found.white, found.white_is_measured) == (3000.0, True)
    assert found.gain == pytest.approx(2.0, rel=0.02) and found.channels[0].used == (True, True, True, False)
    assert found.remarks == ("the white level 4095 is declared, but flats saturate at 3000, which is used",)


def test_heavy_tails_are_found() -> None:
    """A Tukey lambda of shape 0.03 has an excess kurtosis of 0.8."""
    stats = pytest.importorskip("scipy.stats")
    law = stats.tukeylambda(0.03)
    found = calibrate(*stacks(read=5.0, draw=lambda rng, shape: law.ppf(rng.random(shape)) / law.std()), HEADER)
    assert found.tail == pytest.approx(0.03, abs=0.015) and found.read == pytest.approx(5.0, rel=0.02)


def test_a_sensor_without_filters_has_one_channel() -> None:
    found = calibrate(*stacks(colours=(1.0,) * 4), BayerHeader(bits=12, pattern="MONO"))
    assert [channel.name for channel in found.channels] == ["MONO"] and found.gain == pytest.approx(1.0, rel=0.02)


def test_what_contradicts_the_declaration_is_said() -> None:
    found = calibrate(*stacks(black=70.0), BayerHeader(bits=12, pattern="RGGB", black=64.0))
    assert len(found.remarks) == 1 and found.remarks[0].startswith("the black level 64, 64, 64, 64 is declared, but 70")
    cut = calibrate(*stacks(black=0.0), HEADER)
    assert "of the darks' values are 0, so that noise is cut off" in cut.remarks[0]
    darks, flats = stacks(exposures=(300.0, 900.0))
    smooth = np.round(np.mean([take(1800.0, np.random.default_rng(i)) for i in range(8)], axis=0)).astype(np.uint16)
    other = np.round(np.mean([take(1800.0, np.random.default_rng(i)) for i in range(8, 16)], axis=0)).astype(np.uint16)
    assert "the flats of mean" in calibrate(darks, [*flats, smooth, other], HEADER).remarks[0]  # processed frames


def bad(kind: str) -> tuple[list[Array], list[Array]]:
    darks, flats = stacks(n_darks=2, exposures=(300.0, 900.0), shape=(64, 64))
    rng = np.random.default_rng(5)
    return {
        "one dark": (darks[:1], flats),
        "no flats": (darks, flats[:2]),
        "swapped": (flats[:2], [*darks, *darks]),
        "sizes": (darks, [*flats, take(900.0, rng, shape=(64, 80))]),
        "alone": (darks, [*flats, take(1800.0, rng, shape=(64, 64))]),
        "one level": (darks, [*flats[:2], *flats[:2]]),
        "clipped": (darks, [*flats[:2], *[take(30_000.0, rng, shape=(64, 64)) for _ in range(2)]]),
        "light in a dark": ([*darks, darks[0] + np.uint16(300)], flats),
        "copied dark": ([*darks, darks[0].copy()], flats),
        "copied flat": (darks, [flats[0], flats[0].copy(), *flats[2:]]),
        "floats": (darks, [flat / 4095 for flat in flats]),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("one dark", UsageError, "is a single dark frame; give at least 2"),
        ("no flats", UsageError, "too few flats; give two at each of at least 2 exposures"),
        ("swapped", DataError, "is not brighter than the darks .*are --dark and --flat swapped"),
        ("sizes", DataError, "is 80x64, but frame 0 is 64x64; give frames of one camera"),
        ("alone", DataError, "frame 4: is the only flat at its level"),
        ("one level", DataError, "all flats have one level; give two at each"),
        (
            "clipped",
            DataError,
            "frame 2: 1 of 2 levels of flats are clipped at 4095; give flats of at least 2 exposures",
        ),
        ("light in a dark", DataError, r"frame 2: has the mean 363\.9, the other darks 64\.1"),
        ("copied dark", DataError, "frame 2: has the same values as frame 0; leave out one"),
        ("copied flat", DataError, "frame 1: has the same values as frame 0; leave out one"),
        ("floats", DataError, "holds float64 values; give the sensor's whole codes"),
    ],
)
def test_bad_input_is_refused_in_one_line(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        calibrate(*bad(kind), HEADER)
    assert "\n" not in str(caught.value) and issubclass(error, AdaptiveISPError)


def test_rgb_is_refused() -> None:
    darks, flats = stacks(n_darks=2)
    with pytest.raises(DataError, match="is RGB and no mosaic"):
        from adaptiveisp.types import RawImage

        calibrate([RawImage(np.stack([dark] * 3, -1), None, 0.0, 4095.0) for dark in darks], flats, HEADER)


def test_dngs_are_measured_without_their_corrections(tmp_path: Path) -> None:
    """A GainMap and a sidecar that asks for corrections would change the noise."""
    pytest.importorskip("rawpy")
    from tests.raw.test_corrections import POINTS, opcode, opcodes
    from tests.support.odd_dngs import write_odd_dng

    (tmp_path / "d0.dng.yaml").write_text("raw-defects: true\n")
    kinds = zip("df", stacks(n_darks=4, gain=2.0, black=512.0, white=16383), strict=True)
    files = {
        kind: [
            write_odd_dng(tmp_path / f"{kind}{number}.dng", frame, t51009=opcodes(opcode(POINTS)))
            for number, frame in enumerate(frames)
        ]
        for kind, frames in kinds
    }
    found = calibrate(files["d"], files["f"])
    assert found.gain == pytest.approx(2.0, rel=0.02) and found.read == pytest.approx(3.0, rel=0.02)
    assert found.black[0] == pytest.approx(512, abs=0.5) and found.remarks == ()


def run_command(tmp_path: Path, *more: str) -> int:
    for name, frames in zip(("dark", "flat"), stacks(n_darks=3, gain=1.5, read=2.5, row=1.0), strict=True):
        (tmp_path / name).mkdir(exist_ok=True)
        for number, frame in enumerate(frames):
            frame.tofile(tmp_path / name / f"{number}.raw")
    facts = ["--raw-size", "320x160", "--raw-bits", "12", "--raw-pattern", "GRBG"]
    where = ["--dark", str(tmp_path / "dark"), "--flat", str(tmp_path / "flat"), "--out", str(tmp_path / "mine.yaml")]
    return main(["calibrate", *where, *facts, *more])


def test_the_command_writes_a_model_that_synth_takes_and_a_sidecar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(tmp_path) == 0
    said = capsys.readouterr().out
    assert "gain (codes/e-)" in said and "row noise" in said and "white level 4095 (declared" in said
    content = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert content["gain"] == pytest.approx(1.5, rel=0.02) and content["read-noise"] == pytest.approx(2.5, rel=0.02)
    assert content["provenance"]["command"] and set(content["channels"]) == {"R", "G1", "G2", "B"}
    model = read_noise(tmp_path / "mine.yaml")
    assert (model.black, model.white) == (64, 4095.0) and SynthesisConfig("dim", noise=str(tmp_path / "mine.yaml"))
    pytest.importorskip("matplotlib")
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    raw = tmp_path / "flat" / "0.raw"
    (tmp_path / "flat" / "0.raw.yaml").write_text((tmp_path / "mine.yaml").read_text())
    as_raw = read_raw(raw, BayerHeader(320, 160, 12, "GRBG"))
    assert np.abs(np.array(as_raw.black_level) - 64).max() < 0.5
    assert run_command(tmp_path) == 2 and "exists already" in capsys.readouterr().err
    assert run_command(tmp_path, "--overwrite", "--quiet") == 0 and capsys.readouterr().out == ""


def test_a_model_calibrated_from_the_noise_it_makes_is_the_same(tmp_path: Path) -> None:
    """A camera is simulated by the package's own noise, measured, and simulated again."""
    import torch

    from adaptiveisp.raw.noise import noisy_codes
    from adaptiveisp.types import CodeNoise, Unprocessing

    span = 1023 - 60
    codes = CodeNoise(60, 1023.0, 1.2 / span, None)
    how = Unprocessing(1, 1, 1, 1, (1, 0, 0, 0, 1, 0, 0, 0, 1), 0.8 / span, (2.0 / span) ** 2, "none", 0, codes)
    generator = torch.Generator().manual_seed(0)

    def shoot(light: float) -> Array:
        made = noisy_codes(torch.full(SHAPE, light / span), how, generator) + 60
        array: Array = made.numpy().astype(np.uint16)
        return array

    found: Calibration = calibrate(
        [shoot(0.0) for _ in range(6)], [shoot(light) for light in (250.0, 700.0) for _ in range(2)], HEADER
    )
    assert (found.gain, found.read) == (pytest.approx(0.8, rel=0.02), pytest.approx(2.0, rel=0.02))
    assert found.row == pytest.approx(1.2, rel=0.08) and found.black[0] == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize(("out", "message"), [("x.txt", "is no YAML file"), ("x.yaml", "as --dark and as --flat")])
def test_wrong_use_of_the_command(out: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.full((32, 32), 9, np.uint16))
    same = str(tmp_path / "a.npy")
    assert main(["calibrate", "--dark", same, "--flat", same, "--out", str(tmp_path / out)]) == 2
    assert message in capsys.readouterr().err

"""The depth of a synthetic raw's codes and the colours of its sensor: bits and camera matrices."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.data.photo_raws import raw_of_photo
from adaptiveisp.data.random_crop import Crop
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import UsageError
from adaptiveisp.kernels import loading
from adaptiveisp.raw.camera_matrices import CAMERA_MATRICES, find_camera_matrices
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import read_raw, write_png16
from adaptiveisp.raw.unprocess import NOISES, reprocess, seeded_generator, synthesise_mosaic, synthesise_rgb, unprocess
from adaptiveisp.utils.color import RGB_TO_XYZ, XYZ_TO_CAMERA

OTHERS = [name for name in CAMERA_MATRICES if name != "brooks"]


def photo() -> torch.Tensor:
    return torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def noise_stream() -> torch.Generator:
    return seeded_generator(0, 4, 0, "noise")


@pytest.mark.parametrize("bits", [4, 6, 8, 10])
@pytest.mark.parametrize("noise", NOISES)
def test_a_raw_has_no_more_values_than_its_bits_allow(noise: str, bits: int) -> None:
    """In both formats, and in training, the values are whole multiples of 1 / (2^bits - 1)."""
    most = 2**bits - 1
    how = SynthesisConfig("normal", noise=noise, bits=bits).unprocessing(4, 0)
    rgb = synthesise_rgb(photo(), how, noise_stream()).data.astype(np.float64) / 65535 * most
    assert np.abs(rgb - rgb.round()).max() <= most * 0.5 / 65535 + 1e-9  # PNG has whole numbers of its own
    bayer = synthesise_mosaic(photo(), how, noise_stream())
    assert bayer.white_level - bayer.black_level[0] == most
    assert bayer.data.max() <= bayer.white_level and len(np.unique(bayer.data)) <= bayer.white_level + 1
    codes = (photo() * 255).round().to(torch.uint8)
    trained = raw_of_photo(codes, Crop(0, 0, 40, False), how, noise_stream()) * most
    assert (trained - trained.round()).abs().max() < 1e-4 and trained.max() <= most


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_bits_are_the_rounded_values_of_the_same_noise(bits: int) -> None:
    """By another way: the same noisy values without rounding, rounded by numpy."""
    most = 2**bits - 1
    how = SynthesisConfig("normal", noise="brooks", bits=bits).unprocessing(4, 0)
    full = synthesise_rgb(photo(), replace(how, bits=0), noise_stream()).data / 65535
    found = synthesise_rgb(photo(), how, noise_stream()).data / 65535
    np.testing.assert_allclose(found, np.round(full * most) / most, atol=1e-5)


def test_the_depth_of_the_noise_model_is_the_default() -> None:
    assert [SynthesisConfig("dark", noise=noise).unprocessing(1, 0).bits for noise in NOISES] == [12, 0, 0, 0]
    ours, plain = (SynthesisConfig("normal", bits=bits).unprocessing(1, 0) for bits in (12, 0))
    assert ours == plain
    raws = [synthesise_mosaic(photo(), how, noise_stream()) for how in (ours, plain)]
    np.testing.assert_array_equal(raws[0].data, raws[1].data)


def test_the_bands_and_the_negative_noise_of_a_camera_stay_with_fewer_bits() -> None:
    how = SynthesisConfig("dim", noise="canon-5d4", bits=12).unprocessing(4, 0)
    black = torch.zeros(3, 400, 40)
    fine, coarse = (
        synthesise_mosaic(black, replace(how, bits=bits), noise_stream()).data.astype(float) for bits in (0, 12)
    )
    step = (16383 - 512) / 4095
    level = np.ceil(512 / step)
    np.testing.assert_allclose((coarse - level) * step, fine - 512, atol=0.5 * step + 0.5 + 1e-3)
    assert (coarse < level).any()


def test_depth_and_colours_survive_the_files(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    for name in ("canon-5d4", "sensor"):
        config = SynthesisConfig("normal", noise=name, bits=4, camera_matrix="sigma-sd1", format="dng")
        raw = synthesise_mosaic(photo(), config.unprocessing(4, 0), noise_stream())
        write_dng(raw, tmp_path / "x.dng")
        again = read_raw(tmp_path / "x.dng")
        assert again.unprocessing == raw.unprocessing and not again.remarks
        assert (again.black_level, again.white_level) == (raw.black_level, raw.white_level)
        np.testing.assert_array_equal(again.data, raw.data)
        rgb = synthesise_rgb(photo(), config.unprocessing(4, 0), noise_stream())
        write_png16(rgb.data, tmp_path / "x.png", rgb.unprocessing)
        assert read_raw(tmp_path / "x.png").unprocessing == rgb.unprocessing


def test_a_single_camera_is_taken_as_it_is() -> None:
    """By hand: the matrix of LibRaw's table times sRGB → XYZ, each row divided by its sum."""
    table = np.array([[0.6446, -0.0366, -0.0864], [-0.4436, 1.2204, 0.2513], [-0.0952, 0.2496, 0.6348]])
    wanted = table @ np.array(RGB_TO_XYZ)
    wanted /= wanted.sum(axis=1, keepdims=True)
    for image in range(3):
        how = SynthesisConfig("mixed", camera_matrix="canon-5d4").unprocessing(image, 0)
        np.testing.assert_allclose(np.reshape(how.ccm, (3, 3)), wanted, atol=1e-6)


@pytest.mark.parametrize("name", OTHERS)
def test_gains_light_and_noise_do_not_depend_on_the_camera(name: str) -> None:
    ours, usual = (SynthesisConfig("mixed", camera_matrix=one).unprocessing(9, 1) for one in (name, "brooks"))
    assert ours.ccm != usual.ccm and replace(ours, ccm=usual.ccm) == usual
    assert np.reshape(ours.ccm, (3, 3)).sum(axis=1) == pytest.approx(1)
    torch.testing.assert_close(reprocess(unprocess(photo(), ours), ours), photo(), atol=2e-4, rtol=0)


def mixtures(steps: int) -> np.ndarray:
    """RGB → camera matrices of a grid of convex combinations of the four cameras."""
    weights = np.array(
        [
            (a, b, c, steps - a - b - c)
            for a in range(steps + 1)
            for b in range(steps + 1 - a)
            for c in range(steps + 1 - a - b)
        ]
    )
    matrices = np.einsum("mk,kij->mij", weights / steps, np.array(XYZ_TO_CAMERA)) @ np.array(RGB_TO_XYZ)
    return np.asarray(matrices / matrices.sum(axis=2, keepdims=True))


def test_the_page_says_how_far_the_cameras_are_from_the_mixtures() -> None:
    """The Frobenius distance to the nearest mixture, also as a share of that between the two most different cameras."""
    from tests.conftest import REPOSITORY

    text = (REPOSITORY / "docs" / "calibrate.md").read_text().split("## The colours of the sensor")[1]
    own = mixtures(1)
    widest = max(float(np.linalg.norm(a - b)) for a in own for b in own)
    grid = mixtures(20)
    assert f"{widest:.2f}" in text
    for name in OTHERS:
        matrix = np.array(CAMERA_MATRICES[name][0]) @ np.array(RGB_TO_XYZ)
        matrix /= matrix.sum(axis=1, keepdims=True)
        distance = np.linalg.norm(grid - matrix, axis=(1, 2)).min()
        assert f"| {distance:.2f} ({distance / widest:.2f}) |" in text.split(f"| `{name}`")[1].splitlines()[0]


def test_a_file_holds_one_matrix_or_several(tmp_path: Path) -> None:
    first, second = (np.array(CAMERA_MATRICES[name][0]).tolist() for name in ("canon-5d4", "sigma-sd1"))
    (tmp_path / "one.yaml").write_text(f"xyz-to-camera: {first}\n")
    (tmp_path / "two.yaml").write_text(f"xyz-to-camera: [{first}, {second}]\n")
    assert find_camera_matrices(str(tmp_path / "one.yaml")) == CAMERA_MATRICES["canon-5d4"]
    config = SynthesisConfig("mixed", camera_matrix=str(tmp_path / "two.yaml"))
    assert len({config.unprocessing(image, 0).ccm for image in range(5)}) == 5
    assert config.recorded_sensor()["xyz_to_camera"] == config.cameras
    (tmp_path / "six.yaml").write_text(f"xyz-to-camera: [{', '.join([str(first)] * 6)}]\n")
    six = SynthesisConfig("mixed", camera_matrix=str(tmp_path / "six.yaml")).unprocessing(3, 0)
    np.testing.assert_allclose(
        six.ccm, SynthesisConfig("mixed", camera_matrix="canon-5d4").unprocessing(3, 0).ccm, atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "x.yaml"),
        ("matrix: 1", "x.yaml: has no xyz-to-camera; give xyz-to-camera: and a 3x3 matrix"),
        ("xyz-to-camera: [1, 2, 3]", "matrix 1 of xyz-to-camera is 1; give xyz-to-camera"),
        ("xyz-to-camera: []", "holds 0 matrices; give 1 to 100"),
        ("xyz-to-camera: [[1, 0, 0], [0, 1, 0], [0, 0, .nan]]", "matrix 1 of xyz-to-camera is"),
        ("xyz-to-camera: [[1, 0, 0], [0, -1, 0], [0, 0, 1]]", "row in which white gives no positive value"),
        ("xyz-to-camera: [[1, 0, 0], [1, 0, 0], [0, 0, 1]]", "xyz-to-camera cannot be inverted"),
    ],
)
def test_a_file_that_holds_no_matrices_is_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "x.yaml").write_text(text + "\n")
    with pytest.raises(UsageError, match=message) as caught:
        SynthesisConfig("mixed", camera_matrix=str(tmp_path / "x.yaml"))
    assert "\n" not in str(caught.value) and "x.yaml" in str(caught.value)


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_training_images_have_depth_and_colours_with_and_without_kernels(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(loading.SWITCH, kernels)
    how = SynthesisConfig("normal", noise="none", bits=6, camera_matrix="fujifilm-gfx100").unprocessing(4, 0)
    codes = (photo() * 255).round().to(torch.uint8)
    found = raw_of_photo(codes, Crop(0, 0, 40, False), how, noise_stream()) * 63
    wanted = unprocess(codes[:, :40, :40] / 255, how) * 63
    assert (found - wanted).abs().max() < 0.5 + 1e-3

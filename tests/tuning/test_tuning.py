"""Tunings for other software, each read back by a reader that is not ours and computed with by NumPy alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from adaptiveisp import Pipeline, RawImage, Stage, write_dng
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import PipelineError, UsageError
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.dng import dng_bytes
from adaptiveisp.tuning.cube import decoded, looked_up, pointwise_part, table_of
from adaptiveisp.tuning.decomposition import decompose
from adaptiveisp.tuning.dng_tags import dng_tuning
from adaptiveisp.tuning.libcamera import tuning_file
from adaptiveisp.tuning.writing import TuningOptions, pipeline_for, write_tuning
from tests.support.training_runs import adaptiveisp

CCM = dict(
    zip(
        ("rr", "rg", "rb", "gr", "gg", "gb", "br", "bg", "bb"),
        (1.6, -0.4, -0.2, -0.3, 1.5, -0.2, 0, -0.5, 1.5),
        strict=False,
    )
)
TONE = {f"t{i}": value for i, value in enumerate((1.5, 1.4, 1.2, 1, 0.9, 0.8, 0.7, 0.6))}
CAMERA = Pipeline(
    (
        Stage("denoise", {"h": 0.05}),
        Stage("white_balance", {"red": 1.9, "green": 0.95, "blue": 1.4}),
        Stage("exposure", {"ev": 1.5}),
        Stage("ccm", CCM),
        Stage("gamma", {"gamma": 0.45}),
        Stage("tone", TONE),
    ),
    "wide",
)
"""In the order of camera hardware; what follows the denoiser is pointwise."""


def colours(n: int = 500, least: float = 0.3) -> np.ndarray:
    """Linear colours that no stage of CAMERA clips; the channels of one differ by a factor of at most 1 / least."""
    drawn = np.random.default_rng(5).uniform(least, 1, (n, 3)) * np.random.default_rng(6).uniform(0, 0.08, (n, 1))
    return np.asarray(drawn)


def rendered(pipeline: Pipeline, linear: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(linear.astype(np.float32)).T.reshape(1, 3, 1, -1)
    return np.asarray(pipeline_after(pipeline, image).reshape(3, -1).T.numpy())


def pipeline_after(pipeline: Pipeline, image: torch.Tensor) -> torch.Tensor:
    """The stages without the denoiser."""
    return pipeline.with_stages([stage for stage in pipeline.stages if stage.module != "denoise"]).render(image)


def test_the_blocks_are_the_pipeline() -> None:
    blocks = decompose(CAMERA)
    np.testing.assert_allclose(blocks.render(colours()), rendered(CAMERA, colours()), atol=2e-5)
    assert blocks.gains == pytest.approx((2.0, 1.0, 1.4 / 0.95))
    np.testing.assert_allclose(blocks.matrix.sum(axis=1), 1, atol=1e-6)
    assert blocks.exposure == pytest.approx(0.95 * 2**1.5)
    assert blocks.error > 0.1  # the exposure clips highlights before the matrix
    assert len(blocks.notes) == 1 and "off, of 1 in the highlights" in blocks.notes[0]
    assert not decompose(Pipeline((Stage("ccm", CCM), Stage("gamma", {"gamma": 0.45})), "wide")).notes


def symmetric(own: float, others: float) -> Stage:
    """A symmetric colour matrix."""
    entries = dict.fromkeys(CCM, others)
    return Stage("ccm", {**entries, "rr": own, "gg": own, "bb": own})


def test_clipping_before_the_matrix_is_stated() -> None:
    """White of twice the exposure keeps its matrix in the pipeline; the blocks multiply before they clip."""
    late = decompose(Pipeline((Stage("exposure", {"ev": 2.0}), symmetric(0.6, 0.2)), "wide"))
    assert late.notes == [
        "colours are up to 0.60 off, of 1 in the highlights, which the pipeline clips before later stages"
    ]


def test_a_factor_after_a_matrix_is_exposure() -> None:
    after = Pipeline((symmetric(1.4, -0.2), Stage("exposure", {"ev": 3.0})), "wide")
    blocks = decompose(after)
    tuning_file(blocks)  # no entry of the matrix is too large
    (_, _, _, forward), *_ = dng_tuning(mosaic(), blocks).tags
    rows = np.frombuffer(forward, "<i4").reshape(3, 3, 2)[..., 0].sum(axis=1) / 1e6
    np.testing.assert_allclose(rows, [0.9642, 1.0, 0.8251], atol=1e-3)  # white is D50
    assert blocks.exposure == pytest.approx(8) and blocks.gains == (1, 1, 1)
    np.testing.assert_allclose(blocks.matrix.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(blocks.render(colours()), rendered(after, colours()), atol=2e-5)


def test_the_black_level_is_a_share_of_the_depth(tmp_path: Path) -> None:
    """Saturation below full scale, as of many sensors, does not change it."""
    raw = replace(mosaic(), black_level=(256.0,) * 4, white_level=3900.0)
    for bits, share in ((None, 256 / 4096), (14, 256 / 16384)):
        write_tuning(tmp_path / "t.json", CAMERA, raw, TuningOptions(bits=bits), {})
        found = json.loads((tmp_path / "t.json").read_text())["algorithms"][0]["rpi.black_level"]
        assert found["black_level"] == 65536 * share


def test_the_depth_of_a_sidecar_counts(tmp_path: Path) -> None:
    Pipeline((Stage("exposure", {"ev": 1.0}),)).save(tmp_path / "p.json")
    values = np.random.default_rng(0).integers(256, 3000, (48, 64)).astype("<u2")
    (tmp_path / "a.raw").write_bytes(values.tobytes())
    facts = "raw-size: 64x48\nraw-bits: 14\nraw-pattern: RGGB\nraw-black: 256\nraw-white: 3900\n"
    (tmp_path / "a.raw.yaml").write_text(facts)
    command = ["export-tuning", str(tmp_path / "p.json"), "--raw", str(tmp_path / "a.raw")]
    assert main([*command, "--out", str(tmp_path / "t.json")]) == 0
    found = json.loads((tmp_path / "t.json").read_text())["algorithms"][0]["rpi.black_level"]
    assert found["black_level"] == 65536 * 256 / 16384


def test_the_strength_of_noise_is_a_standard_deviation() -> None:
    """Patches of noise of that deviation have the distance h, by NumPy."""
    blocks = decompose(CAMERA)
    assert blocks.noise is not None
    patches = np.random.default_rng(0).normal(0, blocks.noise, (20000, 2, 25))
    distance = np.sqrt(((patches[:, 0] - patches[:, 1]) ** 2).sum(axis=1).mean())
    assert distance == pytest.approx(0.05, rel=0.02)
    guided = Pipeline((Stage("guided_denoise", {"noise": 0.02, "amount": 0.7}),))
    assert decompose(guided).noise == 0.02
    assert decompose(Pipeline(())).noise is None


def test_stages_that_no_block_holds_are_named() -> None:
    late = Stage("ccm", CCM)
    stages = [*CAMERA.stages, Stage("contrast", {"amount": 0.3}), late, Stage("sharpen", {"strength": 1.0})]
    sharpen = find_module("sharpen", "wide")
    stages[-1] = Stage("sharpen", dict(zip((p.name for p in sharpen.params), sharpen.neutral, strict=True)))
    blocks = decompose(Pipeline(tuple(stages), "wide"))
    assert [name for name, _ in blocks.approximated] == ["contrast"]
    assert [name for name, _ in blocks.left_out] == ["ccm", "sharpen"]
    grey = np.linspace(0.01, 0.03, 20)[:, None] * np.ones(3) / np.array(blocks.gains)
    with_contrast = Pipeline((*CAMERA.stages, Stage("contrast", {"amount": 0.3})), "wide")
    np.testing.assert_allclose(blocks.render(grey), rendered(with_contrast, grey), atol=1e-4)


def test_desaturation_is_a_matrix_and_saturation_is_not() -> None:
    mixed = Pipeline(
        (Stage("ccm", CCM), Stage("desaturation", {"amount": 0.4}), Stage("gamma", {"gamma": 0.5})), "wide"
    )
    pale = colours(least=0.6)
    np.testing.assert_allclose(decompose(mixed).render(pale), rendered(mixed, pale), atol=2e-5)
    vivid = decompose(Pipeline((Stage("saturation", {"amount": 0.5}),), "wide"))
    assert [name for name, _ in vivid.approximated] == ["saturation"]


@pytest.mark.parametrize("target", ["bcm2835", "pisp"])
def test_a_tuning_file_read_by_yaml_develops_as_the_pipeline(tmp_path: Path, target: Any) -> None:
    """libcamera reads it by a YAML parser too. The three blocks are then computed as its documentation says."""
    path = tmp_path / "camera.json"
    write_tuning(path, CAMERA, None, TuningOptions(target=target), {"version": "1"})
    found = yaml.safe_load(path.read_text())
    assert found["version"] == 2.0 and found["target"] == target
    named = {name: content for block in found["algorithms"] for name, content in block.items()}
    curve = named["rpi.awb"]["ct_curve"]
    assert len(curve) == 6 and curve[0] < curve[3] and curve[1] > curve[4] and curve[2] < curve[5]
    gains = [2 / (curve[1] + curve[4]), 1, 2 / (curve[2] + curve[5])]
    (matrix,) = named["rpi.ccm"]["ccms"]
    points = np.array(named["rpi.contrast"]["gamma_curve"]).reshape(-1, 2)
    assert named["rpi.contrast"]["ce_enable"] == 0 and (np.diff(points[:, 0]) > 0).all() and points.max() <= 65535
    values = np.clip(colours() * gains @ np.array(matrix["ccm"]).reshape(3, 3).T, 0, 1)
    made = np.interp(values * 65535, *points.T) / 65535
    np.testing.assert_allclose(made, rendered(CAMERA, colours()), atol=0.01)
    assert named["rpi.noise"]["reference_constant"] == pytest.approx(65536 * 0.05 / 50**0.5, rel=1e-3)
    sdn = named["rpi.denoise"]["sdn"] if target == "pisp" else named["rpi.sdn"]
    assert sdn == {"deviation": 1.0, "strength": 1.0}


def test_a_matrix_that_is_too_large_is_refused() -> None:
    wild = {**dict.fromkeys(CCM, 0.0), "rr": 2.0, "rg": -1.9, "gg": 1.0, "bb": 1.0}
    with pytest.raises(PipelineError, match="too large; the hardware has 8"):
        tuning_file(decompose(Pipeline((Stage("ccm", wild),), "wide")))


def test_a_table_read_by_colour_science_gives_the_pipeline(tmp_path: Path) -> None:
    colour = pytest.importorskip("colour")
    path = tmp_path / "camera.cube"
    notes = write_tuning(path, CAMERA, None, TuningOptions(grid=33), {"version": "1"})
    assert notes[0].startswith("denoise: left out, it looks at other pixels")
    lut = colour.io.read_LUT_IridasCube(str(path))
    assert lut.size == 33 and lut.name == "camera" and any("denoise" in comment for comment in lut.comments)
    places = np.random.default_rng(1).uniform(0.1, 1, (200, 3))
    made = lut.apply(places, interpolator=colour.algebra.table_interpolation_trilinear)
    own = looked_up(np.asarray(lut.table).transpose(2, 1, 0, 3).astype(np.float32), places)
    np.testing.assert_allclose(made, own, atol=1e-5)
    stated = float(notes[-1].split()[-4])
    assert np.abs(made - rendered(CAMERA, places**3)).max() <= stated + 0.002


def test_at_the_points_of_the_grid_a_table_is_exact() -> None:
    part, _ = pointwise_part(CAMERA)
    vivid = part.with_stages([*part.stages, Stage("saturation", {"amount": 0.6})])
    for encoding in ("linear", "srgb", "cube-root"):
        table = table_of(vivid, 5, encoding)  # type: ignore[arg-type]
        places = np.array([[0.25, 0.5, 1.0], [0.0, 0.75, 0.25]])
        linear = decoded(torch.from_numpy(places), encoding).numpy()  # type: ignore[arg-type]
        np.testing.assert_allclose(looked_up(table, places), rendered(vivid, linear), atol=1e-6)


def mosaic(value: tuple[float, float, float] = (0.05, 0.1, 0.07), side: int = 64) -> RawImage:
    codes = np.zeros((side, side))
    codes[::2, ::2], codes[1::2, 1::2] = value[0], value[2]
    codes[::2, 1::2] = codes[1::2, ::2] = value[1]
    return RawImage((codes * 4000 + 95).round().astype(np.uint16), "RGGB", 95.0, 4095.0, noise_profile=(1e-4, 1e-6))


def test_dng_tags_read_by_exifread_and_libraw(tmp_path: Path) -> None:
    exifread, rawpy = pytest.importorskip("exifread"), pytest.importorskip("rawpy")
    path = tmp_path / "tuned.dng"
    raw = mosaic()
    write_tuning(path, CAMERA, raw, TuningOptions(), {})
    with path.open("rb") as stream:
        tags = exifread.process_file(stream, details=False)
    listed = {tag.tag: tag for tag in tags.values() if hasattr(tag, "tag")}
    assert float(listed[50730].values[0]) == pytest.approx(np.log2(0.95 * 2**1.5), abs=1e-5)
    assert [float(v) for v in listed[50728].values] == pytest.approx([0.5, 1, 0.95 / 1.4], abs=1e-5)
    forward = np.array([float(v) for v in listed[50964].values]).reshape(3, 3)
    np.testing.assert_allclose(forward.sum(axis=1), [0.9642, 1.0, 0.8251], atol=1e-3)  # white is D50
    with rawpy.imread(str(path)) as opened:
        assert opened.camera_whitebalance[:3] == pytest.approx([2, 1, 1.4 / 0.95], rel=1e-3)
        # LibRaw turns ColorMatrix1 into camera → sRGB, whose rows sum to 1: the pipeline's own matrix.
        np.testing.assert_allclose(opened.color_matrix[:, :3], decompose(CAMERA).matrix, atol=2e-3)
        np.testing.assert_array_equal(opened.raw_image, raw.data)
        linear = opened.postprocess(use_camera_wb=True, no_auto_bright=True, gamma=(1, 1), output_bps=16)
    expected = np.array([0.05, 0.1, 0.07]) * decompose(CAMERA).gains @ decompose(CAMERA).matrix.T
    middle = linear[32, 32] / linear[32, 32, 1]
    np.testing.assert_allclose(middle, expected / expected[1], atol=0.02)


def test_the_tone_curve_of_a_dng_read_by_tifffile(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "tuned.dng"
    blocks = decompose(CAMERA)
    tuned = dng_tuning(mosaic(), blocks)
    path.write_bytes(dng_bytes(tuned.raw, path, tuned.tags))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        curve = np.array(page.tags[50940].value).reshape(-1, 2)
        noise = page.tags[51041].value
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1] and (np.diff(curve, axis=0) >= 0).all()
    grey = np.linspace(0.002, 0.25, 50)  # linear, before the exposure; encoded by sRGB after the curve
    made = np.interp(grey * blocks.exposure, *curve.T)
    encoded = np.where(made <= 0.0031308, 12.92 * made, 1.055 * made ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(encoded, blocks.curve(grey), atol=0.003)
    assert noise[:2] == pytest.approx((1e-4, 0.05**2 / 50))


def test_policies_that_choose_for_each_image_need_a_raw() -> None:
    adaptive = load_policy("auto-exposure")
    with pytest.raises(UsageError, match="chooses for each image; give --raw"):
        pipeline_for(adaptive, None)
    assert pipeline_for(adaptive, mosaic(), 64).stages[0].module == "white_balance"
    with pytest.raises(UsageError, match="without a pipeline"):
        pipeline_for(load_policy("camera"), replace(mosaic()), 64)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet_place: None
) -> None:
    monkeypatch.chdir(tmp_path)
    CAMERA.save(Path("camera-pipeline.json"))
    write_dng(mosaic(), Path("raw.dng"))
    command = ("export-tuning", "camera-pipeline.json", "--threads", "1", "--out")
    assert adaptiveisp(*command, "tuning.json", "--target", "pisp", "--raw", "raw.dng") == 0
    content = json.loads(Path("tuning.json").read_text())
    assert content["target"] == "pisp" and content["provenance"]["version"]
    assert content["algorithms"][0]["rpi.black_level"]["black_level"] == round(65536 * 95 / 4096)
    assert adaptiveisp(*command, "table.cube", "--grid", "3", "--encoding", "srgb") == 0
    assert Path("table.cube").read_text().count("\n") == 27 + 6
    assert adaptiveisp(*command, "tuned.dng", "--raw", "raw.dng") == 0
    for out, more, message in (
        ("tuning.json", (), "exists already"),
        ("tuning.txt", (), "give a name that ends in .json, .cube, .dng"),
        ("other.dng", (), "give --raw FILE"),
        ("other.cube", ("--grid", "300"), "give 2 to 256 points"),
    ):
        assert adaptiveisp(*command, out, *more) == 2
        assert message in capsys.readouterr().err

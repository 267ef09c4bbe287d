from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp import AdaptiveISP, Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.support.fake_detector import RedDetector


def red_box_raw(height: int = 96, width: int = 160) -> RawImage:
    codes = np.full((height, width, 3), 3000, np.uint16)
    codes[24:72, 40:120] = (30000, 2000, 2000)
    return RawImage(codes, None, (0.0,) * 4, 65535.0)


def test_boxes_come_back_in_full_frame_pixels() -> None:
    result = AdaptiveISP("auto-exposure", RedDetector(), size=80)(red_box_raw())
    assert result.detections.boxes[0].tolist() == pytest.approx([40, 24, 120, 72], abs=2)
    assert result.class_names[result.detections.labels[0]] == "cup"
    assert result.full_size == (96, 160) and result.image.shape == (3, 48, 80)


def test_brightening_lets_the_detector_see_more() -> None:
    policy = FixedPipeline(Pipeline((Stage("exposure", {"ev": 1.0}),)), "brighter")
    plain = AdaptiveISP("none", RedDetector(), size=80)(red_box_raw())
    brighter = AdaptiveISP(policy, RedDetector(), size=80)(red_box_raw())
    assert brighter.detections.scores[0] == pytest.approx(2 * plain.detections.scores[0].item(), rel=0.01)


def test_the_full_rendering_has_the_full_size_and_the_same_pipeline() -> None:
    isp = AdaptiveISP("auto-exposure", RedDetector(), size=80)
    result = isp(red_box_raw())
    full = isp.render_full(result)
    assert full.shape == (3, 96, 160)
    small = torch.nn.functional.interpolate(full[None], size=(48, 80), mode="area")[0]
    assert (small - result.image)[:, 15:33, 24:56].abs().max() < 0.02  # inside the box, where nothing changes


def test_the_camera_policy_renders_a_dng_at_full_size(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(500, 3000, (64, 96), dtype=np.uint16)
    write_dng(RawImage(codes, "RGGB", (0.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), tmp_path / "x.dng")
    isp = AdaptiveISP("camera", RedDetector(), size=48)
    result = isp(tmp_path / "x.dng")
    assert result.pipeline is None and result.image.shape == (3, 32, 48)
    assert isp.render_full(result).shape == (3, 64, 96)


def test_camera_white_balance_changes_what_the_policy_sees() -> None:
    codes = np.full((32, 32, 3), 10000, np.uint16)
    raw = RawImage(codes, None, (0.0,) * 4, 65535.0, camera_gains=(2.0, 1.0, 1.5))
    plain = AdaptiveISP("none", RedDetector(), size=32)(raw).image
    balanced = AdaptiveISP("none", RedDetector(), size=32, camera_white_balance=True)(raw).image
    assert (balanced[:, 5, 5] / plain[:, 5, 5]).tolist() == pytest.approx([2.0, 1.0, 1.5], rel=1e-4)

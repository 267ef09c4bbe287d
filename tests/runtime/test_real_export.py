"""A real export in the torch-free runtime, against the package itself on a frame that the export has not seen."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from adaptiveisp_runtime import Session, check_graphs

from adaptiveisp import AdaptiveISP, BayerHeader
from adaptiveisp.deployment.self_test import overlap, scene
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.policies.registry import SHIPPED
from tests.conftest import REPOSITORY
from tests.runtime.test_session import packed

HEADER = BayerHeader(320, 240, format="SRGGB12P", black=64, white=4095)


def dark_frame(light: float) -> np.ndarray:
    picture = np.flip(scene(240, 320), axis=1) * light
    picture += np.random.default_rng(7).normal(0, 0.002, picture.shape)
    mosaic = picture[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = picture[::2, ::2, 0], picture[1::2, 1::2, 2]
    return np.clip(np.rint(mosaic * 4031 + 64), 0, 4095).astype(np.uint16)


@pytest.mark.long
@pytest.mark.parametrize("policy", SHIPPED)
def test_a_shipped_policy_gives_the_boxes_of_the_package(tmp_path: Path, policy: str) -> None:
    try:
        isp = AdaptiveISP(policy, "yolov3-tiny", size=320)
    except AdaptiveISPError as error:
        pytest.skip(f"the detector's weights are missing: {error}")
    # In a process of its own: PyTorch's tracer does not pass the checks of types that tests make.
    facts = ("--size", "320x240", "--raw-format", "SRGGB12P", "--raw-black", "64", "--raw-white", "4095")
    command = [sys.executable, "-m", "adaptiveisp", "export", policy, *facts, "--working-size", "320", "--threads", "1"]
    where = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "export"), "-q"], capture_output=True, text=True, env=where, check=False
    )
    assert done.returncode == 0, done.stderr
    session = Session(tmp_path / "export", threads=1)
    assert session.self_test().ok
    for light in (0.03, 0.3):
        (tmp_path / "frame.raw").write_bytes(packed(dark_frame(light)))
        ours, theirs = session(tmp_path / "frame.raw"), isp(tmp_path / "frame.raw", HEADER)
        assert ours.full_size == theirs.full_size and ours.name == theirs.name
        assert theirs.pipeline is not None
        assert [stage.module for stage in ours.pipeline.stages] == [stage.module for stage in theirs.pipeline.stages]
        np.testing.assert_allclose(ours.image, theirs.image.numpy(), atol=1e-3)
        for box, score, label in zip(
            theirs.detections.boxes.numpy(), theirs.detections.scores.numpy(), theirs.detections.labels, strict=True
        ):
            alike = (ours.detections.labels == int(label)) & (np.abs(ours.detections.scores - score) < 1e-3)
            assert score < 0.053 or (overlap(ours.detections.boxes[alike], box[None]) > 0.99).any()
        assert set(ours.to_json()) == set(theirs.to_json())
    faults = check_graphs(tmp_path / "export", "tensorrt")
    assert {fault.what for fault in faults} <= {"input frame"}, "TensorRT's list has every operator of the graphs"

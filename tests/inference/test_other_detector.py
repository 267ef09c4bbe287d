"""A run serves the detector that it was trained for; another one is told."""

from pathlib import Path

import pytest

from adaptiveisp.inference.pretrained import warn_of_other_detectors


def test_a_run_for_another_detector_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.yaml").write_text("train:\n  detector: my_pkg.my_file:load\n")
    warn_of_other_detectors([str(tmp_path), "auto-exposure"], ["my_pkg.my_file:load"])
    assert not caplog.records
    warn_of_other_detectors([str(tmp_path), "auto-exposure"], ["yolov3-tiny"])
    (message,) = [record.message for record in caplog.records]
    assert "was trained for the detector my_pkg.my_file:load, which is not among those used here" in message

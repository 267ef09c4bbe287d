"""Tries an installed adaptiveisp: a frame through a shipped policy and a detector of its own, recipes, and the kernels.

Run it from any folder with the Python that has the package: `python tools/smoke.py`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

DETECTOR = '''
import torch
from adaptiveisp import Detections


class Whole:
    """One box of the whole image, the brighter the surer."""

    name, class_names, stride, weights_sha256 = "whole", ("scene",), 32, ""

    def loss(self, image, targets):
        return 1 - image.mean(dim=(1, 2, 3))

    def detect(self, image, confidence=0.001, nms_iou=0.6, max_detections=300):
        height, width = image.shape[2:]
        box = torch.tensor([[0.0, 0.0, width, height]])
        return [Detections(box, one.mean().reshape(1), torch.zeros(1, dtype=torch.long)) for one in image]
'''


def main() -> None:
    """Fails with an exception where the package does not work."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("smoke_detector.py").write_text(DETECTOR)
        import adaptiveisp
        from adaptiveisp.kernels.forward import description
        from adaptiveisp.training.config import read_config, recipe_files

        assert Path(adaptiveisp.__file__).is_relative_to(Path(sys.prefix)), f"{adaptiveisp.__file__} is not installed"
        codes = np.random.default_rng(0).integers(64, 400, (96, 128)).astype(np.uint16)
        np.save("frame.npy", codes)
        isp = adaptiveisp.AdaptiveISP("coco-adaptive", "smoke_detector:Whole")
        result = isp("frame.npy", adaptiveisp.BayerHeader(bits=10, pattern="RGGB", black=64))
        assert len(result.detections.boxes) == 1 and bool(torch.isfinite(result.image).all()), result
        flags = ["--raw-bits", "10", "--raw-pattern", "RGGB", "--raw-black", "64"]
        command = [
            sys.executable,
            "-m",
            "adaptiveisp",
            "run",
            "frame.npy",
            *flags,
            "--detector",
            "smoke_detector:Whole",
        ]
        subprocess.run([*command, "--out", "seen", "-q"], check=True)
        assert Path("seen/frame.pipeline.json").is_file()
        train, settings = read_config(recipe_files()["sequence-tone"])
        assert train["method"] == "sequence" and settings
        print(
            f"adaptiveisp {adaptiveisp.__version__}, Python {sys.version.split()[0]}, kernels {description()}: {result}"
        )


if __name__ == "__main__":
    main()

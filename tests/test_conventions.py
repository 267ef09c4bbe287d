"""One test for each line of docs/conventions.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.data.synthetic import read_photo
from adaptiveisp.detectors.class_names import COCO_80, map_classes
from adaptiveisp.detectors.darknet.loading import CFG_FOLDER, Darknet
from adaptiveisp.evaluation.tables import points
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import PAPER, find_module
from adaptiveisp.raw.develop import develop, upright_size
from adaptiveisp.raw.unprocess import Unprocessing, add_noise, unprocess
from adaptiveisp.types import RawImage, Targets
from adaptiveisp.utils.color import LUMA, LUMA_BT601, to_uint8
from adaptiveisp.utils.defaults import SIZE as DEFAULT_SIZE
from tests.conftest import REPOSITORY
from tests.support.fake_detector import RedDetector

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
PLAIN = Unprocessing(1.0, 1.0, 1.0, 1.0, IDENTITY, 0.0, 0.0, "none", 0)


def pixel(red: float, green: float, blue: float) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.float32).reshape(1, 3, 1, 1)


def apply(name: str, image: torch.Tensor, *params: float) -> torch.Tensor:
    return find_module(name, "paper")(image, torch.tensor([params], dtype=torch.float32))


def test_every_line_of_the_document_has_its_test() -> None:
    lines = re.findall(r"^\| (\w+) \|", (REPOSITORY / "docs" / "conventions.md").read_text(), flags=re.MULTILINE)
    tests = [name.removeprefix("test_convention_") for name in globals() if name.startswith("test_convention_")]
    assert set(lines) - {"name"} == set(tests) and len(tests) > 10


def test_convention_rgb_order(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
    assert read_photo(tmp_path / "red.png")[:, 0, 0].tolist() == [1, 0, 0]
    assert to_uint8(torch.tensor([1.0, 0, 0]).reshape(3, 1, 1)).tolist() == [[[255, 0, 0]]]


def test_convention_white_level() -> None:
    codes = np.full((16, 16), 100, np.uint16)
    codes[4:, :] = 300
    raw = RawImage(codes, "RGGB", (100.0,) * 4, 300.0)
    image = develop(raw)
    assert image[:, 0, 8].tolist() == [0, 0, 0] and image[:, 12, 8].tolist() == [1, 1, 1]


def test_convention_ev_in_stops() -> None:
    assert apply("exposure", pixel(0.1, 0.2, 0.3), 1.0).flatten().tolist() == pytest.approx([0.2, 0.4, 0.6])


def test_convention_gamma_exponent() -> None:
    assert apply("gamma", pixel(0.25, 0.25, 0.25), 0.5).flatten().tolist() == pytest.approx([0.5] * 3)


def test_convention_ccm_rows() -> None:
    entries = (2.0, 0.5, 0.1, 0.3, 1.5, -0.2, 0.1, 0.2, 1.1)
    assert apply("ccm", pixel(1, 1, 1), *entries).flatten().tolist() == pytest.approx([1, 1, 1])
    only_green_into_red = (0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    assert apply("ccm", pixel(0.1, 0.5, 0.3), *only_green_into_red).flatten().tolist() == pytest.approx([0.5, 0.5, 0.3])


def test_convention_clip() -> None:
    image = pixel(0.25, 0.5, 0.75).requires_grad_()
    out = apply("exposure", image, 1.0)
    assert out.flatten().tolist() == [0.5, 1.0, 1.0]
    out.sum().backward()
    assert image.grad is not None and image.grad.flatten().tolist() == [2, 2, 0]  # 0.5 lands on 1: still inside


def test_convention_luminance() -> None:
    assert LUMA == (0.27, 0.67, 0.06) and LUMA_BT601 == (0.299, 0.587, 0.114)
    assert apply("desaturation", pixel(0.0, 1.0, 0.0), 1.0).flatten().tolist() == pytest.approx([0.67] * 3)


def test_convention_noise_variance() -> None:
    how = Unprocessing(1.0, 1.0, 1.0, 1.0, IDENTITY, 0.004, 0.0005, "sensor", 0)
    noisy = add_noise(torch.full((100_000,), 0.5), how, torch.Generator().manual_seed(1))
    assert noisy.var().item() == pytest.approx(0.004 * 0.5 + 0.0005, rel=0.03)


def test_convention_brightness_factor() -> None:
    photo = torch.rand(3, 8, 8)
    darker = Unprocessing(0.1, 1.0, 1.0, 1.0, IDENTITY, 0.0, 0.0, "none", 0)
    torch.testing.assert_close(unprocess(photo, darker), 0.1 * unprocess(photo, PLAIN))


def test_convention_bayer_pattern() -> None:
    codes = np.zeros((16, 16), np.uint16)
    codes[0::2, 1::2] = 100  # the upper right of each block: red in GRBG
    image = develop(RawImage(codes, "GRBG", (0.0,) * 4, 100.0))
    assert image[:, 8, 9].tolist() == [1, 0, 0]


def test_convention_upright() -> None:
    assert upright_size(40, 30, 6) == (30, 40)
    raw = RawImage(np.full((30, 40), 50, np.uint16), "RGGB", (0.0,) * 4, 100.0, orientation=6)
    result = AdaptiveISP("none", RedDetector(), size=64)(raw)
    assert result.full_size == (40, 30)


def test_convention_boxes() -> None:
    codes = np.full((64, 96, 3), 5000, np.uint16)
    codes[16:48, 24:72] = (60000, 3000, 3000)
    found = AdaptiveISP("none", RedDetector(), size=96)(RawImage(codes, None, (0.0,) * 4, 65535.0)).detections
    assert found.boxes.tolist() == [[24, 16, 72, 48]]


def test_convention_labels() -> None:
    mapped = map_classes(COCO_80, {62: "chair", 5: "aeroplane"})
    assert mapped.category_to_label == {62: COCO_80.index("chair"), 5: COCO_80.index("airplane")}


def test_convention_ap_units() -> None:
    assert points(0.195) == "19.5"


def test_convention_size() -> None:
    assert DEFAULT_SIZE == 416
    raw = RawImage(np.full((30, 60), 50, np.uint16), "RGGB", (0.0,) * 4, 100.0)
    assert AdaptiveISP("none", RedDetector(), size=40)(raw).image.shape == (3, 20, 40)


def test_convention_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow detector does not count, a slow module does."""
    import time

    class SlowDetector(RedDetector):
        def detect(self, *args: object, **keywords: object) -> list[object]:  # type: ignore[override]
            time.sleep(0.2)
            return super().detect(*args, **keywords)  # type: ignore[arg-type]

    raw = RawImage(np.full((40, 40, 3), 9000, np.uint16), None, (0.0,) * 4, 65535.0)
    assert AdaptiveISP("none", SlowDetector(), size=64)(raw).milliseconds < 100

    class SlowPolicy:
        name = "slow"

        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            time.sleep(0.2)
            return [Pipeline(())]

    assert AdaptiveISP(SlowPolicy(), RedDetector(), size=64)(raw).milliseconds >= 200


def test_convention_cost_ms() -> None:
    costs = {m.name: m.cost_ms for m in PAPER}
    assert (costs["exposure"], costs["denoise"], costs["sharpen"]) == (1.7, 10.0, 6.3)
    pipeline = Pipeline((Stage("exposure", {"ev": 1.0}), Stage("denoise", {"h": 0.1}), Stage("exposure", {"ev": 0.0})))
    assert pipeline.cost_ms == pytest.approx(13.4)


def test_convention_loss_per_image() -> None:
    torch.manual_seed(0)
    detector = Darknet(CFG_FOLDER / "yolov3-tiny.cfg", COCO_80, "random")
    image = torch.rand(2, 3, 64, 64)
    targets = [
        Targets(torch.tensor([[5.0, 5.0, 40.0, 50.0]]), torch.tensor([3])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    ]
    together = detector.loss(image, targets)
    alone = torch.cat([detector.loss(image[i : i + 1], targets[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)

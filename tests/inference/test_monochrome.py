"""Monochrome raws: policies run on equal channels, and modules for colours alone are left out and named."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.cli.parser import main
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import EXTENDED, find_module
from adaptiveisp.policies.base import grey_pipeline
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.types import RawImage
from tests.support.fake_detector import RedDetector

BALANCE = Stage("white_balance", {"red": 1.4, "green": 1.0, "blue": 0.7})


def mono_raw(pattern: str | None = "MONO") -> RawImage:
    rows, columns = np.mgrid[:48, :64]
    codes = (64 + 300 * columns / 64 + 20 * np.sin(rows)).astype(np.uint16)
    data = codes if pattern is not None else np.stack([codes] * 3, -1)
    return RawImage(data, pattern, 64.0, 1023.0)


def grey(image: torch.Tensor) -> bool:
    return torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])


def test_the_modules_that_change_colours_alone_are_marked() -> None:
    """They leave a grey picture grey at least with neutral parameters, and no other module is about colours."""
    marked = {module.name for module in EXTENDED if module.colour_only}
    assert marked == {"white_balance", "ccm", "saturation", "desaturation", "gray_world"}
    picture = torch.rand(1, 1, 8, 8).expand(1, 3, 8, 8)
    for name in ("ccm", "saturation", "desaturation", "gray_world"):
        module = find_module(name, "extended")
        torch.testing.assert_close(module(picture, torch.tensor([module.neutral])), picture, rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", ["auto-exposure", "night", "coco-adaptive", "coco-fast"])
def test_policies_keep_a_monochrome_raw_grey(policy: str) -> None:
    result = AdaptiveISP(policy, RedDetector(), size=64)(mono_raw())
    assert result.pipeline is not None and grey(result.image)
    assert not any(module.colour_only for module in result.pipeline.modules)
    torch.testing.assert_close(result.image[None], result.pipeline.render(result.developed.small), rtol=0, atol=1e-5)


def test_it_is_said_once_and_colour_raws_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    isp = AdaptiveISP(FixedPipeline(Pipeline((BALANCE, Stage("exposure", {"ev": 1.0})))), RedDetector(), size=64)
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        results = [isp(mono_raw()), isp(mono_raw()), isp(mono_raw(None))]
    for result in results:
        assert result.pipeline is not None and [stage.module for stage in result.pipeline.stages] == ["exposure"]
        assert [remark.kind for remark in result.raw.remarks] == ["colour modules of monochrome raws"]
    said = [message for message in caplog.messages if "monochrome" in message]
    assert len(said) == 1 and "are left out: white_balance" in said[0]
    colour = isp(RawImage(mono_raw().data, "RGGB", 64.0, 1023.0))
    assert colour.pipeline is not None and len(colour.pipeline.stages) == 2 and not colour.raw.remarks


def test_a_gain_of_each_channel_becomes_their_luminance() -> None:
    pipeline = Pipeline((Stage("gain", {"red": 2.0, "green": 1.0, "blue": 4.0}),))
    found, left_out = grey_pipeline(pipeline)
    assert left_out == ()
    assert list(found.stages[0].params.values()) == [pytest.approx(0.27 * 2 + 0.67 + 0.06 * 4)] * 3
    plain = Pipeline((Stage("exposure", {"ev": 1.0}),))
    assert grey_pipeline(plain)[0] is plain


def test_run_says_it_in_the_summary(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    write_dng(mono_raw(), tmp_path / "mono.dng")
    BALANCED = Pipeline((BALANCE, Stage("exposure", {"ev": 1.0})))
    BALANCED.save(tmp_path / "p.json")
    what = ["--pipeline", str(tmp_path / "p.json"), "--detector", "tests.support.fake_detector:load", "--size", "64"]
    assert main(["run", str(tmp_path / "mono.dng"), *what, "--out", str(tmp_path / "out"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (remark,) = summary["remarks"]
    assert remark["kind"] == "colour modules of monochrome raws" and "white_balance" in remark["text"]
    assert summary["images"][0]["modules"] == ["exposure"]

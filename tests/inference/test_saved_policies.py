"""A policy with its settings in a folder or on a hub: what is written, read back, and refused."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptiveisp import AdaptiveISP, Pipeline, Stage, register_detector
from adaptiveisp.errors import AdaptiveISPError, UsageError, WeightsError
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.registry import load_policy
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector


@pytest.mark.parametrize("policy", ["coco-fast", "auto-exposure", "pipeline"])
def test_a_folder_comes_back(policy: str, tmp_path: Path) -> None:
    chosen = FixedPipeline(Pipeline((Stage("exposure", {"ev": 1.0}),)), "mine") if policy == "pipeline" else policy
    isp = AdaptiveISP(chosen, RedDetector(), size=96, confidence=0.1)
    folder = isp.save_pretrained(tmp_path / "saved")
    again = AdaptiveISP.from_pretrained(folder, RedDetector())
    assert (again.size, again.confidence) == (96, 0.1)
    raw = red_box_raw()
    assert again(raw).pipeline == isp(raw).pipeline
    assert AdaptiveISP.from_pretrained(folder, RedDetector(), size=64).size == 64
    with pytest.raises(UsageError, match="holds a saved policy already"):
        isp.save_pretrained(folder)
    isp.save_pretrained(folder, overwrite=True)
    if policy != "auto-exposure":  # a policy of the package has no file
        assert load_policy(str(folder)).plan(isp(raw).developed.small) == [isp(raw).pipeline]
    assert repr(again).endswith("detector='red', size=96, confidence=0.1, device='cpu')")


def test_a_latency_belongs_to_the_machine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = FixedPipeline(Pipeline((Stage("exposure", {"ev": 1.0}),)), "mine")
    isp = AdaptiveISP(chosen, RedDetector(), size=64, latency_ms=1000)
    assert repr(isp).endswith(", latency_ms=1000)")
    isp.save_pretrained(tmp_path)
    assert "holds no latency; give latency_ms=1000 to from_pretrained" in caplog.text
    assert AdaptiveISP.from_pretrained(tmp_path, RedDetector()).latency_ms is None
    again = AdaptiveISP.from_pretrained(tmp_path, RedDetector(), latency_ms=1000)
    assert again(red_box_raw()).pipeline == isp(red_box_raw()).pipeline


def test_what_is_no_saved_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was given as an object, which no file describes"):
        AdaptiveISP(AutoExposure(), RedDetector()).save_pretrained(tmp_path / "a")
    with pytest.raises(UsageError, match="no pretrained policy 'nothing here'; choose one of coco-adaptive"):
        AdaptiveISP.from_pretrained("nothing here")
    with pytest.raises(WeightsError, match="save_pretrained wrote"):
        AdaptiveISP.from_pretrained(tmp_path)

    def write(**settings: Any) -> None:
        (tmp_path / "adaptiveisp.json").write_text(json.dumps(settings))

    (tmp_path.parent / "outside.json").write_text("{}")
    for policy in ("../outside.json", "gone.json", "evil:load", "adaptiveisp.json/"):
        write(policy=policy)
        with pytest.raises(WeightsError, match="is not a file of the folder"):
            AdaptiveISP.from_pretrained(tmp_path, RedDetector())
    write(policy="none", detector="evil:load")
    with pytest.raises(UsageError, match="a file names code to run as the detector"):
        AdaptiveISP.from_pretrained(tmp_path)
    write(policy="none", size="large")
    with pytest.raises(WeightsError, match="size = 'large' does not fit"):
        AdaptiveISP.from_pretrained(tmp_path, RedDetector())


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    isp = AdaptiveISP("coco-fast", RedDetector(), size=64)
    isp.save_pretrained(tmp_path)
    content = bytearray((tmp_path / "policy.safetensors").read_bytes())
    content[-1] ^= 1  # a bit of a weight, which no reader of the file could notice
    (tmp_path / "policy.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"policy\.safetensors: was changed since adaptiveisp\.json was written"):
        AdaptiveISP.from_pretrained(tmp_path, RedDetector())
    settings = json.loads((tmp_path / "adaptiveisp.json").read_text())
    assert settings["files"].keys() == {"policy.safetensors"}
    del settings["files"]  # as earlier versions wrote it
    (tmp_path / "adaptiveisp.json").write_text(json.dumps(settings))
    assert AdaptiveISP.from_pretrained(tmp_path, RedDetector()).size == 64


def test_the_policy_of_a_run_that_was_changed_is_refused(tmp_path: Path) -> None:
    Pipeline((Stage("exposure", {"ev": 1.0}),)).save(tmp_path / "best.json")
    digest = hashlib.sha256((tmp_path / "best.json").read_bytes()).hexdigest()
    (tmp_path / "summary.json").write_text(json.dumps({"policies_sha256": {"best.json": digest}}))
    assert AdaptiveISP.from_pretrained(tmp_path, RedDetector(), size=64).size == 64
    Pipeline((Stage("exposure", {"ev": 2.0}),)).save(tmp_path / "best.json")
    with pytest.raises(WeightsError, match=r"best\.json: was changed since summary\.json was written"):
        AdaptiveISP.from_pretrained(tmp_path, RedDetector(), size=64)
    (tmp_path / "summary.json").write_text(json.dumps({"passes": 1}))  # as earlier versions wrote it
    assert AdaptiveISP.from_pretrained(tmp_path, RedDetector(), size=64).size == 64


def test_the_folder_of_a_training_run_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline((Stage("exposure", {"ev": 1.0}),))
    pipeline.save(tmp_path / "best.json")
    found = AdaptiveISP.from_pretrained(tmp_path, RedDetector(), size=64)
    assert found(red_box_raw()).pipeline == pipeline and found.size == 64
    with pytest.raises(WeightsError, match=r"config\.yaml: no such file; give detector="):
        AdaptiveISP.from_pretrained(tmp_path)
    (tmp_path / "config.yaml").write_text("train: {detector: red-of-a-run}\n")
    with pytest.raises(UsageError, match="red-of-a-run: no such detector"):
        AdaptiveISP.from_pretrained(tmp_path)
    register_detector("red-of-a-run", RedDetector, replace=True)
    assert isinstance(AdaptiveISP.from_pretrained(str(tmp_path)).detector, RedDetector)
    (tmp_path / "config.yaml").write_text("train: {detector: 'tests.support.fake_detector:load'}\n")
    with pytest.raises(UsageError, match=r"code to run as the detector; .* in Python detector='tests\.support"):
        AdaptiveISP.from_pretrained(tmp_path)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class Api:
        def create_repo(self, name: str, exist_ok: bool) -> str:
            return f"there/{name}"

        def upload_folder(self, repo_id: str, folder_path: str, **options: Any) -> None:
            asked.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir()), options))

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(tmp_path)

    hub = SimpleNamespace(HfApi=Api, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    isp = AdaptiveISP("coco-fast", RedDetector(), size=64)
    assert isp.push_to_hub("me/mine", commit_message="first") == "there/me/mine"
    isp.save_pretrained(tmp_path, overwrite=True)
    assert AdaptiveISP.from_pretrained("me/mine@v1", RedDetector()).size == 64
    files = ["adaptiveisp.json", "policy.safetensors"]
    assert asked == [
        ("me/mine", files, {"commit_message": "first"}),
        ("me/mine", "v1", ["adaptiveisp.json", "policy.*"]),
    ]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AdaptiveISPError, match=r"huggingface_hub is not installed; run: pip install 'adaptiveisp\[hub"):
        isp.push_to_hub("me/mine")


def test_offline_a_repository_is_one_line() -> None:
    with pytest.raises(
        WeightsError, match="somebody/nothing: cannot be downloaded from the Hugging Face hub"
    ) as caught:
        AdaptiveISP.from_pretrained("somebody/nothing", RedDetector())  # tests run with HF_HUB_OFFLINE
    assert "\n" not in str(caught.value)

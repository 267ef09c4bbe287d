"""A folder with a policy and its graphs: taken by `from_pretrained`, run by the runtime, and checked by its hashes."""

from pathlib import Path

import numpy as np
import pytest

from adaptiveisp import AdaptiveISP, Pipeline, Stage, export
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import UsageError, WeightsError
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.runtime import RuntimeFault, Session
from tests.deployment.test_export import mosaic
from tests.support import onnx_models


@pytest.fixture
def detector(tmp_path: Path) -> str:
    return str(onnx_models.network(tmp_path / "small.onnx"))


def pipeline(folder: Path, ev: float) -> str:
    path = folder / f"bright-{ev:g}.json"
    Pipeline((Stage("exposure", {"ev": ev}),)).save(path)
    return str(path)


def test_one_folder_for_both(tmp_path: Path, detector: str) -> None:
    out = tmp_path / "out"
    export(pipeline(tmp_path, 2.0), out, detector, confidence=0.3, with_policy=True)
    isp, session, raw = AdaptiveISP.from_pretrained(out), Session(out), mosaic()
    assert isp.confidence == 0.3
    facts = {"pattern": raw.pattern, "black_level": raw.black_level, "white_level": raw.white_level}
    here, there = isp(raw), session(raw.data, **facts)
    np.testing.assert_allclose(there.image, here.image.numpy(), atol=1e-3)
    assert there.pipeline.stages[0].params == pytest.approx({"ev": 2.0}) and session.self_test().ok
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name") and "as ONNX" in card and "`policy.json`" in card

    text = (out / "manifest.json").read_text()
    (out / "manifest.json").write_text(text.replace('"cup"', '"cap"'))
    with pytest.raises(WeightsError, match=r"manifest\.json: was changed since adaptiveisp\.json"):
        AdaptiveISP.from_pretrained(out)
    with pytest.raises(RuntimeFault, match=r"manifest\.json: was changed since adaptiveisp\.json"):
        Session(out)
    (out / "manifest.json").write_text(text)
    with (out / "full.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(RuntimeFault, match=r"full\.onnx: was changed since the export"):
        Session(out)


def test_no_policy_stays_beside_the_graphs_of_another(tmp_path: Path, detector: str) -> None:
    out = tmp_path / "out"
    export(pipeline(tmp_path, 2.0), out, detector, with_policy=True)
    other = AdaptiveISP(pipeline(tmp_path, 1.0), detector)
    with pytest.raises(UsageError, match="holds the exported graphs of another policy"):
        other.save_pretrained(out, overwrite=True)
    export(pipeline(tmp_path, 1.0), out, detector, overwrite=True)
    assert not (out / "adaptiveisp.json").exists() and not (out / "policy.json").exists()
    other.save_pretrained(out)  # beside its own graphs
    raw = mosaic()
    assert AdaptiveISP.from_pretrained(out)(raw).pipeline == other(raw).pipeline
    mine = FixedPipeline(Pipeline((Stage("exposure", {"ev": 1.0}),)), "mine")
    with pytest.raises(UsageError, match="given as an object"):
        export(mine, tmp_path / "none", detector, with_policy=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.long
def test_a_learned_policy_from_the_command_line(tmp_path: Path, detector: str) -> None:
    out = tmp_path / "out"
    words = ["export", "coco-fast", "--out", str(out), "--detector", detector, "--with-policy"]
    assert main(words) == 0
    assert Session(out).self_test().ok
    raw = mosaic()
    assert AdaptiveISP.from_pretrained(out)(raw).pipeline == AdaptiveISP("coco-fast", detector)(raw).pipeline
    assert str(tmp_path) not in (out / "manifest.json").read_text()  # names of files, not where they were

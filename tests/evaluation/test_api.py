"""The public `evaluate`: the numbers of the command `eval`, without files, from names and from objects."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from adaptiveisp import EvalConfig, Report, SynthesisConfig, evaluate, load_detector, open_dataset
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import UsageError
from adaptiveisp.inference.detection import working_size
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.registry import load_policy
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

RED = "tests.support.fake_detector:load"
SCORES = ("ap", "ap50", "ap75", "per_light", "loss_mean")


def config(folder: Path) -> EvalConfig:
    """Two policies on three photos as dark raws."""
    labels = labelled_photos(folder)
    synthesis = SynthesisConfig("mixed", draws=2, seed=3)
    return EvalConfig(
        labels, ("none", "auto-exposure"), (RED,), folder / "images", synthesis, size=64, resamples=200, seed=3
    )


def test_evaluate_does_what_eval_does_without_writing(tmp_path: Path) -> None:
    asked = config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    names: list[str] = []
    report = evaluate(asked, names.append)
    assert sorted(tmp_path.rglob("*")) == before and len(names) == 6
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--draws", "2", "--seed", "3")
    options = ("--policy", "none", "auto-exposure", "--detector", RED, "--size", "64", "--resamples", "200", "-q")
    assert main(["eval", *data, *options, "--out", "out", "--csv", "scores.csv", "--md", "scores.md"]) == 0
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    own = json.loads(json.dumps(report.to_json()))
    for policy in ("none", "auto-exposure"):
        for name in SCORES:
            assert own["policies"][policy]["red"][name] == written["policies"][policy]["red"][name]
    assert written["notes"][-2].startswith("Clock: clock ms is this machine's (")
    assert own["differences"] == written["differences"] and own["settings"] == written["settings"]
    report.save(tmp_path / "saved")
    files = {path.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*.*")}
    assert files == {
        *("report.json", "report.html", "pipelines.jsonl"),
        *("coco/ground-truth.json", "coco/none--red.json", "coco/auto-exposure--red.json"),
    }
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    row = dict(zip(lines[0].split(","), lines[2].split(","), strict=True))
    score = report.policies["auto-exposure"]["red"]
    assert (row["policy"], float(row["AP50"]), int(row["images"])) == ("auto-exposure", score.ap50, 6)
    assert (tmp_path / "scores.md").read_text().startswith("| policy | kind | detector | AP50 | AP |")


def test_objects_in_the_place_of_names_give_the_same_scores(tmp_path: Path) -> None:
    asked = config(tmp_path)
    objects = replace(
        asked,
        data=open_dataset(asked.data, asked.images, asked.synthesis),
        policies=(load_policy("none"), load_policy("auto-exposure")),
        detectors=(load_detector(RED),),
    )
    found = [evaluate(one).to_json() for one in (asked, objects)]
    assert found[0]["differences"] == found[1]["differences"]
    assert [list(one["policies"]) for one in found] == [["none", "auto-exposure"]] * 2


def test_a_report_shows_itself(tmp_path: Path) -> None:
    report = evaluate(config(tmp_path))
    best = max(report.policies, key=lambda name: report.policies[name]["red"].ap50 or 0)
    ap50 = 100 * (report.policies[best]["red"].ap50 or 0)
    assert repr(report) == f"Report(2 policies, 1 detectors, 6 images, red: best {best!r}, AP50 {ap50:.1f})"
    assert "<td>auto-exposure</td>" in report._repr_html_() and "AP50: average precision" in report.table()
    assert "sd" not in report.table().splitlines()[0], "a column without a value is left out"
    copy: Report = pickle.loads(pickle.dumps(report))
    assert copy.to_json() == report.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ()}, "at least one policy"),
        ({"policies": "none"}, "give a list of policies"),
        ({"resamples": 10}, "resamples must be at least 200"),
        ({"limit": -1}, "limit must not be negative"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        replace(config(tmp_path), **changes)


def test_two_policies_or_detectors_of_one_name_are_refused(tmp_path: Path) -> None:
    asked = config(tmp_path)
    with pytest.raises(UsageError, match="two policies have the same name"):
        evaluate(replace(asked, policies=("none", load_policy("none"))))
    with pytest.raises(UsageError, match="two detectors have the same name"):
        evaluate(replace(asked, detectors=(load_detector(RED), load_detector(RED))))


def test_the_working_size_is_that_of_a_fixed_input() -> None:
    free, small, large = (load_detector(RED) for _ in range(3))
    small.name, small.fixed, large.name, large.fixed = "small", (192, 320), "large", (640, 640)  # type: ignore[attr-defined]
    assert [working_size(None, found) for found in ([free], [free, small], [large])] == [416, 320, 640]
    assert working_size(512, [small, large]) == 512
    with pytest.raises(UsageError, match=r"different fixed sizes \(small 320, large 640\); give --size"):
        working_size(None, [small, large])


def test_modules_left_out_of_monochrome_raws_are_in_the_notes(tmp_path: Path) -> None:
    """With and without a cache of developed frames, which do not state the pattern."""
    labels = labelled_photos(tmp_path, n=2)
    for photo in (tmp_path / "images").iterdir():
        Image.open(photo).convert("L").save(photo)
    (tmp_path / "images" / "raw.yaml").write_text("raw-pattern: MONO\n")
    balance = Stage("white_balance", {"red": 1.4, "green": 1.0, "blue": 0.7})
    policy = FixedPipeline(Pipeline((balance, Stage("exposure", {"ev": 1.0}))))
    asked = EvalConfig(labels, (policy,), (RED,), tmp_path / "images", size=64, resamples=200)
    for report in (evaluate(asked), evaluate(replace(asked, cache=str(tmp_path / "cache")))):
        assert any("is monochrome, so that colour modules" in text for text in report.to_json()["notes"])
        assert report.policies[policy.name]["red"].modules_per_image == 1

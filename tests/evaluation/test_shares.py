"""The shares of images made worse than the raw and than auto-exposure, wherever a report shows scores."""

import csv
import json
from pathlib import Path
from statistics import fmean

import pytest

from tests.support.photos import labelled_photos
from tests.support.training_runs import RED, adaptiveisp

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

SHARES = {"worse than raw": "worse_than_raw", "worse than auto-exposure": "worse_than_auto_exposure"}
DARKER = '{"version": 1, "stages": [{"module": "exposure", "params": {"ev": %g}}]}'

BLUE = """
from tests.support.fake_detector import RedDetector

class Blue(RedDetector):
    name = "blue"

    def loss(self, image, targets):
        return super().loss(image.flip(1), targets)

def load():
    return Blue()
"""
"""A second detector, in a file of the current folder."""


def test_every_policy_and_group_on_every_set_has_both_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With several sets, seed groups and two detectors; neither reference needs to be among the policies."""
    labelled_photos(tmp_path / "one", n=2)
    labelled_photos(tmp_path / "two", n=3)
    for seed in (0, 1):
        (tmp_path / f"dark{seed}.json").write_text(DARKER % (-2 - seed))
    data = ("--data", "one/labels.json", "two/labels.json", "--images", "one/images", "two/images", "--light", "mixed")
    how = ("--size", 64, "--resamples", 200, "--detector", RED, "blue:load")
    (tmp_path / "blue.py").write_text(BLUE)
    policies = ("--policy", "bright.json", "dark=dark0.json,dark1.json")
    (tmp_path / "bright.json").write_text(DARKER % 1)
    files = ("--csv", "scores.csv", "--md", "scores.md")
    assert adaptiveisp("eval", *data, *how, *policies, *files, "--out", "seen") == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "seen" / "report.json").read_text())
    with (tmp_path / "scores.csv").open() as stream:
        rows = {(row["policy"], row["detector"]): row for row in csv.DictReader(stream)}
    text, page = (tmp_path / "scores.md").read_text(), (tmp_path / "seen" / "report.html").read_text()
    detectors = list(report["groups"]["dark"])
    assert len(detectors) == 2 and len(rows) == 8
    for title, key in SHARES.items():
        assert title in printed and f"| {title} |" in text and title in page
        for detector in detectors:
            names = report["groups"]["dark"][detector]["members"]
            members = [report["policies"][name][detector][key] for name in names]
            assert report["groups"]["dark"][detector][key] == pytest.approx(fmean(members))
            assert float(rows["dark", detector][title]) == pytest.approx(fmean(members))
            for policy in report["policies"]:
                own = [one["policies"][policy][detector][key] for one in report["sets"].values()]
                assert all(0 <= share <= 1 for share in own)
                assert report["policies"][policy][detector][key] == pytest.approx(fmean(own))
                assert float(rows[policy, detector][title]) == pytest.approx(fmean(own))
    from benchmarks import detector_pairs

    detector_pairs.main([str(tmp_path / "seen"), "--against", "bright"])
    table = capsys.readouterr().out.splitlines()[2:]
    assert table[0] == "| policy | scored with red | scored with blue |" and len(table) == 4
    for detector, cell in zip(detectors, table[3].split(" | ")[1:], strict=True):
        (found,) = (entry for entry in report["differences"] if entry["detector"] == detector)
        assert (found["a"], found["b"]) == ("dark", "bright")
        wanted = (report["groups"]["dark"][detector]["ap50_mean"], found["mean"], found["low"], found["high"])
        share = report["groups"]["dark"][detector]["worse_than_raw"]
        signed = [f"{100 * value:+.1f}".replace("-0.0", "+0.0").replace("-", "\N{MINUS SIGN}") for value in wanted[1:]]
        assert cell.removesuffix(" |") == (
            f"{100 * wanted[0]:.1f}; {signed[0]} ({signed[1]} to {signed[2]}); {100 * share:.1f} %"
        )
    with pytest.raises(SystemExit, match="the report has no policy 'night'; choose one of bright, dark"):
        detector_pairs.pairs(report, "night")
